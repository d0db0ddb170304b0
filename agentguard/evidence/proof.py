"""What a verification finds, and whether the evidence holds: the values alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from agentguard.evidence.words import count

# How many problems of one chain are told: past a first one many others mostly follow.
_TOLD: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenChain:
    """One chain, as it was verified.

    Attributes:
        chain_id: The chain.
        records: How many records of it there are.
        first_seq: The place of the first of them; 0 if there is none.
        last_seq: The place of the last.
        first_hash: The hash of the first, hex.
        last_hash: The hash of the last, hex.
        heads: How many signed heads it has.
        key: What the key that signed them is called; empty for none.
        whole: Whether nothing is wrong with it.
        compared: How many of its records are elsewhere too; None if nothing was compared.
        compared_up_to: The place of the last of those; 0 if there is none.
    """

    chain_id: str
    records: int
    first_seq: int = 0
    last_seq: int = 0
    first_hash: str = ""
    last_hash: str = ""
    heads: int = 0
    key: str = ""
    whole: bool
    compared: int | None = None
    compared_up_to: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a verification found.

    Attributes:
        holds: Whether all of it holds.
        chains: The chains that were verified.
        problems: What is wrong, one line each.
        notes: What proves nothing and is worth a look, one line each.
        unproved: What was read beside the chains, and not verified.
        against: The export that the chains were compared with; empty for none.
    """

    holds: bool
    chains: tuple[ProvenChain, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    against: str = ""

    @property
    def records(self) -> int:
        """How many records were verified."""
        return sum(chain.records for chain in self.chains)

    @property
    def compared(self) -> int:
        """How many of them are in what they were compared with."""
        return sum(chain.compared or 0 for chain in self.chains)

    def compared_words(self) -> str:
        """Return how much was compared with what."""
        if self.compared == self.records:
            return f"compared with {self.against}: all {count(self.records, 'record')}"
        up_to = f", up to seq {self.chains[0].compared_up_to}" if len(self.chains) == 1 and self.compared else ""
        left = self.records - self.compared
        there = f"{left:,} {'is' if left == 1 else 'are'} not there"
        return f"compared with {self.against}: {self.compared:,} of {count(self.records, 'record')}{up_to}; {there}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was found.

    Attributes:
        chain_id: In which chain; empty if in none.
        seq: At which record; 0 if at none.
        what: What it is.
    """

    chain_id: str
    seq: int
    what: str

    def __str__(self) -> str:
        where = f"chain {self.chain_id}, seq {self.seq}" if self.seq else f"chain {self.chain_id}"
        return f"{where}: {self.what}" if self.chain_id else self.what


@dataclass(slots=True)
class Found:
    """Everything that was found so far."""

    problems: list[Finding] = field(default_factory=list)
    notes: list[Finding] = field(default_factory=list)
    _told: dict[str, int] = field(default_factory=dict)

    def problem(self, chain_id: str, seq: int, what: str) -> None:
        """Take something that cannot be if nobody touched the evidence."""
        told = self._told[chain_id] = self._told.get(chain_id, 0) + 1
        if told <= _TOLD:
            self.problems.append(Finding(chain_id=chain_id, seq=seq, what=what))
        elif told == _TOLD + 1:
            self.problems.append(Finding(chain_id=chain_id, seq=0, what="and more, which are not told"))

    def note(self, chain_id: str, seq: int, what: str) -> None:
        """Take something that proves nothing."""
        self.notes.append(Finding(chain_id=chain_id, seq=seq, what=what))
