"""Make a story of records, in whatever order they come.

Pure: records in, a story out. The figures are counts of records, so whoever counts the
records finds the same.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.evidence.reporting.story import Call, Denial, PolicyVersion, Run, RunKey, Story
from agentguard.evidence.showing import acted
from agentguard.evidence.vocabulary import RecordKind, RunEnd
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.evidence.kept import Kept

_FACTS: Final = {
    "agent": "agentguard.agent.id",
    "user": "agentguard.user.id",
    "task": "agentguard.task.id",
    "purpose": "agentguard.purpose",
    "grade": "agentguard.invocation.grade",
    "parent": "agentguard.run.parent",
}
# Where a policy is to be named, and not the reason alone.
_BY_POLICY: Final = frozenset(
    (
        Reason.POLICY,
        Reason.POLICY_ERROR,
        Reason.APPROVAL_REQUIRED,
        Reason.APPROVAL_DECLINED,
        Reason.APPROVAL_UNAVAILABLE,
    )
)
_ENDS: Final = frozenset(end.value for end in RunEnd)


@dataclass(slots=True, eq=False)
class _Life:
    """A run while its records are read."""

    facts: dict[str, str] = field(default_factory=dict)
    issued_at: float | None = None
    ends_at: float | None = None
    first_at: float = float("inf")
    last_at: float = float("-inf")
    ended: tuple[float, str, str] | None = None
    depth: int = 0
    calls: list[Call] = field(default_factory=list)


def story_of(records: Iterable[Kept], owners: Mapping[str, str] | None = None) -> Story:
    """Return what *records* tell, in whatever order they come.

    Args:
        records: The records, each once.
        owners: Who answers for a policy, by its id; None if nobody looked.
    """
    ordered = sorted(records, key=lambda record: (record.time_unix_nano, record.chain_id, record.seq))
    outcomes = {
        record.text("agentguard.decision.id"): record for record in ordered if record.kind == RecordKind.OUTCOME
    }
    lives: dict[RunKey, _Life] = {}
    strangers: list[Call] = []
    versions = _Versions()
    denials = _Denials(owners or {})
    refused: Counter[str] = Counter()
    decided: set[str] = set()
    for record in ordered:
        if record.kind == RecordKind.DECISION:
            call = _call(record, outcomes.get(record.text("agentguard.decision.id")))
            decided.add(call.decision_id)
            life = _life_of(record, lives)
            (strangers if life is None else life.calls).append(call)
            versions.decided(record, call)
            denials.add(record, call)
        elif record.kind == RecordKind.RUN:
            _take_state(record, lives)
        elif record.kind == RecordKind.REFUSED_TOKEN:
            refused[record.text("agentguard.decision.reason")] += int(record.number("agentguard.tokens.refused") or 1)
        elif record.kind in {RecordKind.POLICY, RecordKind.START}:
            versions.changed(record)
    return Story(
        records=Counter(record.kind for record in ordered),
        since=ordered[0].at if ordered else 0.0,
        until=ordered[-1].at if ordered else 0.0,
        runs=_as_tree({key: _run(key, life) for key, life in lives.items()}),
        strangers=tuple(strangers),
        denials=denials.most_first(),
        versions=versions.in_time(),
        refused_tokens=refused,
        orphans=len(outcomes.keys() - decided),
        owners_known=owners is not None,
    )


def _call(record: Kept, outcome: Kept | None) -> Call:
    type_, id_ = record.text("agentguard.resource.type"), record.text("agentguard.resource.id")
    return Call(
        at=record.at,
        decision_id=record.text("agentguard.decision.id"),
        tool=acted(record),
        effect=record.text("agentguard.decision.effect"),
        reason=record.text("agentguard.decision.reason"),
        policy_ids=record.policy_ids,
        resource=f"{type_} {id_}" if type_ else "",
        digest=record.text("agentguard.arguments.digest"),
        outcome="" if outcome is None else outcome.text("agentguard.execution.outcome"),
        stopped_by="" if outcome is None else outcome.text("agentguard.execution.reason"),
    )


def _life_of(record: Kept, lives: dict[RunKey, _Life]) -> _Life | None:
    """Return the run that a record belongs to, with what the record says of it; None if it names none."""
    run_id, issuer = record.text("agentguard.run.id"), record.text("agentguard.invocation.issuer")
    if not run_id:
        return None
    life = lives.setdefault((issuer, run_id), _Life())
    life.first_at, life.last_at = min(life.first_at, record.at), max(life.last_at, record.at)
    for fact, name in _FACTS.items():
        if value := record.text(name):
            life.facts.setdefault(fact, value)
    ends_at, granted = record.number("agentguard.run.ends_at"), record.number("agentguard.authority.granted")
    if ends_at is not None:
        # Where the issuer does not say how long a run lasts, another token makes it longer.
        life.ends_at = max(ends_at, life.ends_at or 0.0)
        if granted is not None:
            begun = ends_at - granted
            life.issued_at = begun if life.issued_at is None else min(begun, life.issued_at)
    life.depth = max(life.depth, int(record.number("agentguard.delegation.depth") or 0))
    return life


def _take_state(record: Kept, lives: dict[RunKey, _Life]) -> None:
    life = _life_of(record, lives)
    state = record.text("agentguard.run.state") or record.text("agentguard.run.end")
    if life is not None and state in _ENDS:
        end = (record.at, state, record.text("agentguard.run.reason"))
        # Each server that knew the run has its end on record; the first is the end.
        life.ended = end if life.ended is None else min(end, life.ended)


def _run(key: RunKey, life: _Life) -> Run:
    ended_at, end, reason = life.ended or (None, "", "")
    parent = life.facts.pop("parent", "")
    return Run(
        key=key,
        **life.facts,
        issued_at=life.issued_at,
        ends_at=life.ends_at,
        first_at=life.first_at,
        last_at=life.last_at,
        ended_at=ended_at,
        end=end,
        reason=reason,
        parent=(key[0], parent) if parent else None,
        depth=life.depth,
        calls=tuple(life.calls),
    )


def _as_tree(runs: Mapping[RunKey, Run]) -> tuple[Run, ...]:
    """Return each run after the one that it stems from, roots in the order in which they began."""
    below: dict[RunKey | None, list[Run]] = {}
    for run in sorted(
        runs.values(), key=lambda run: (run.first_at if run.issued_at is None else run.issued_at, run.key)
    ):
        below.setdefault(run.parent if run.parent in runs else None, []).append(run)
    found: list[Run] = []
    waiting = list(reversed(below.pop(None, [])))
    while waiting or below:
        if not waiting:
            # Runs that name each other as parents: nobody's honest record, and shown all the same.
            waiting = list(reversed(below.pop(next(iter(below)))))
        run = waiting.pop()
        found.append(run)
        waiting += reversed(below.pop(run.key, []))
    return tuple(found)


class _Denials:
    def __init__(self, owners: Mapping[str, str]) -> None:
        self._owners = owners
        self._found: dict[tuple[str, str], tuple[Counter[str], Counter[str]]] = {}

    def add(self, record: Kept, call: Call) -> None:
        if call.allowed:
            return
        named = [id_ for id_ in call.policy_ids if ":" not in id_] if call.reason in _BY_POLICY else []
        for policy_id in named or [""]:
            tools, agents = self._found.setdefault((call.reason, policy_id), (Counter(), Counter()))
            tools[call.tool] += 1
            agents[record.text("agentguard.agent.id")] += 1

    def most_first(self) -> tuple[Denial, ...]:
        denials = [
            Denial(
                reason=reason,
                policy_id=policy_id,
                calls=tools.total(),
                tools=tuple(tool for tool, _ in tools.most_common()),
                agents=tuple(agent for agent, _ in agents.most_common() if agent),
                owner=self._owners.get(policy_id, ""),
            )
            for (reason, policy_id), (tools, agents) in self._found.items()
        ]
        return tuple(sorted(denials, key=lambda denial: (-denial.calls, denial.policy_id, denial.reason)))


@dataclass(slots=True, eq=False)
class _Version:
    first_at: float
    last_at: float
    label: str = ""
    activated_at: float | None = None
    counts: Counter[str] = field(default_factory=Counter)


class _Versions:
    def __init__(self) -> None:
        self._found: dict[str, _Version] = {}
        self._refused: list[PolicyVersion] = []

    def decided(self, record: Kept, call: Call) -> None:
        version = self._seen(record)
        version.counts["decisions"] += 1
        version.counts["denied"] += not call.allowed

    def changed(self, record: Kept) -> None:
        if refused := record.text("agentguard.policy.refused"):
            self._refused.append(
                PolicyVersion(
                    version=record.text("agentguard.policy.version"),
                    first_at=record.at,
                    last_at=record.at,
                    refused=refused,
                )
            )
            return
        version = self._seen(record)
        version.counts["starts"] += record.kind == RecordKind.START
        if version.activated_at is None:
            version.activated_at = record.at

    def _seen(self, record: Kept) -> _Version:
        version = self._found.setdefault(
            record.text("agentguard.policy.version"), _Version(first_at=record.at, last_at=record.at)
        )
        version.last_at = record.at
        version.label = record.text("agentguard.policy.label") or version.label
        activated_at = record.number("agentguard.policy.activated_at")
        if activated_at is not None:
            version.activated_at = min(activated_at, version.activated_at or activated_at)
        return version

    def in_time(self) -> tuple[PolicyVersion, ...]:
        known = [
            PolicyVersion(
                version=name,
                label=version.label,
                activated_at=version.activated_at,
                first_at=version.first_at,
                last_at=version.last_at,
                decisions=version.counts["decisions"],
                denied=version.counts["denied"],
                starts=version.counts["starts"],
            )
            for name, version in self._found.items()
        ]
        return tuple(sorted([*known, *self._refused], key=lambda version: version.first_at))
