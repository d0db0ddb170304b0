"""Whether what is on record can have come about in this order: decisions, outcomes, times."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from agentguard.evidence.vocabulary import RecordKind

if TYPE_CHECKING:
    from agentguard.evidence.ledger import Entry

# Clocks are set in small steps all the time.
_BACK_NANOSECONDS: Final = 5_000_000_000

# Crockford's base 32, of which the first ten characters of a decision's id are its time.
_CROCKFORD: Final = {character: number for number, character in enumerate("0123456789ABCDEFGHJKMNPQRSTVWXYZ")}


class Tell(Protocol):
    """Who is told of something."""

    def __call__(self, chain_id: str, seq: int, what: str) -> None:
        """Take it."""


class Order:
    """Follows the records of all chains of a folder, in the order of each chain.

    A decision and its outcome stand in one chain, but for those of a process that had to
    begin another chain in between.

    Args:
        problem: Is told what cannot be.
        note: Is told what proves nothing.

    Attributes:
        witnesses: The chains with a denial whose call ran on the record of another chain.
    """

    def __init__(self, problem: Tell, note: Tell) -> None:
        self._problem = problem
        self._note = note
        self.witnesses: set[str] = set()
        # For each decision: whether it allowed, and in which chain.
        self._decisions: dict[str, tuple[bool, str]] = {}
        self._over: set[str] = set()
        self._orphans: list[tuple[str, int, str]] = []
        self._begins: dict[str, int] = {}
        self._latest: dict[str, int] = {}
        self._first_seq: dict[str, int] = {}

    def see(self, entry: Entry) -> None:
        """Take the next record of a chain."""
        try:
            found = entry.record
            kind, at, attributes = RecordKind(found["kind"]), found["time_unix_nano"], found["attributes"]
            if type(at) is not int or not isinstance(attributes, dict):
                raise TypeError
        except (ValueError, TypeError, KeyError, RecursionError):
            self._problem(entry.chain_id, entry.seq, "it is not in the form of a record")
            return
        # The end of a run is on record with the time at which it was over.
        if kind is not RecordKind.RUN:
            self._see_time(entry, at)
        decision_id = attributes.get("agentguard.decision.id")
        if not isinstance(decision_id, str):
            if kind in {RecordKind.DECISION, RecordKind.OUTCOME}:
                self._problem(entry.chain_id, entry.seq, f"the {kind} has no decision id")
        elif kind is RecordKind.DECISION:
            if decision_id in self._decisions:
                self._problem(entry.chain_id, entry.seq, f"decision {decision_id} is on record twice")
            allowed = attributes.get("agentguard.decision.effect") == "allow"
            self._decisions[decision_id] = (allowed, entry.chain_id)
        elif kind is RecordKind.OUTCOME:
            self._see_outcome(entry, decision_id)

    def _see_time(self, entry: Entry, at: int) -> None:
        chain_id = entry.chain_id
        latest = self._latest.get(chain_id)
        if latest is None:
            self._begins[chain_id], self._first_seq[chain_id], latest = at, entry.seq, at
        elif latest - at > _BACK_NANOSECONDS:
            seconds = (latest - at) / 1e9
            self._note(chain_id, entry.seq, f"the clock is {seconds:.0f} s behind an earlier record: it was set back")
            # Told once for each step, not for each record until the clock has caught up.
            latest = at
        self._latest[chain_id] = max(latest, at)

    def _see_outcome(self, entry: Entry, decision_id: str) -> None:
        if decision_id in self._over:
            self._problem(entry.chain_id, entry.seq, f"decision {decision_id} has a second outcome")
            return
        self._over.add(decision_id)
        decision = self._decisions.get(decision_id)
        if decision is None:
            self._orphans.append((entry.chain_id, entry.seq, decision_id))
        elif not decision[0]:
            self.witnesses.add(decision[1])
            self._problem(entry.chain_id, entry.seq, f"decision {decision_id} denied the call, and it has an outcome")

    def end(self) -> None:
        """Tell of outcomes that no chain has an earlier decision for."""
        for chain_id, seq, decision_id in self._orphans:
            allowed, decided_in = self._decisions.get(decision_id, (False, None))
            if decided_in is None and self._was_pruned(decision_id):
                # The decision was pruned, and what became of it just was not.
                continue
            if decided_in in {None, chain_id}:
                self._problem(chain_id, seq, f"a call ran, and its decision {decision_id} is not on record before it")
            elif not allowed:
                self.witnesses.add(str(decided_in))
                self._problem(chain_id, seq, f"decision {decision_id} denied the call, and it has an outcome")

    def _was_pruned(self, decision_id: str) -> bool:
        """Return whether a decision was made before the first record that a pruned chain still has."""
        milliseconds = 0
        for character in decision_id[:10]:
            milliseconds = milliseconds << 5 | _CROCKFORD.get(character, 31)
        return any(
            milliseconds * 1_000_000 <= begins
            for chain_id, begins in self._begins.items()
            if self._first_seq[chain_id] > 1
        )
