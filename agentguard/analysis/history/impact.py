"""What other policies would have made of the calls that are on record.

Each recorded decision is asked about once: of the many that are alike, the first one's
answer is that of all. What cannot be told is counted with what it would take to tell it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentguard.analysis.beside import Beside
from agentguard.analysis.history.recorded import is_liftable
from agentguard.analysis.history.remembered import Remembered
from agentguard.analysis.history.replay import NoRequestError, Setting, argument_of, replay, worded
from agentguard.evidence.vocabulary import RecordKind
from agentguard.model import Effect

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from agentguard.analysis.history.hindsight import Answer, Hindsight
    from agentguard.evidence.kept import Kept

APPROVAL: Final = "approval"
"""What stands for all the reasons of a call that only a person could let pass."""


class Change(StrEnum):
    """What becomes of a call by other policies. The list is closed."""

    DENIED = "newly denied"
    ASKED = "newly needs a person"
    ALLOWED = "newly allowed"
    REASON = "denied for another reason"


class Changed(NamedTuple):
    """Calls that something else becomes of, alike in all of this.

    Attributes:
        change: What becomes of them.
        agent: Who called.
        action: What was called.
        before: Why they were decided as they were, one of the reasons.
        before_ids: The policies that determined it.
        after: Why they would be decided otherwise; empty if that cannot be told.
        after_ids: The policies that would determine it.
        within_grant: Whether it also takes the run's own grant, which is not on record.
    """

    change: Change
    agent: str
    action: str
    before: str
    before_ids: tuple[str, ...]
    after: str
    after_ids: tuple[str, ...]
    within_grant: bool


class Untold(NamedTuple):
    """Calls of which it cannot be told what would become, alike in all of this.

    Attributes:
        action: What was called.
        doubts: What would have to be known to tell, in words, sorted.
        arguments: Which of that are arguments of the call.
        why: Why it cannot be told, where nothing of this would help.
    """

    action: str
    doubts: tuple[str, ...]
    arguments: tuple[str, ...]
    why: str


@dataclass(slots=True)
class Tally:
    """How often something was found, and where for example.

    Attributes:
        calls: How many decisions.
        example: The id of the newest.
        latest: When that was, unix seconds.
    """

    calls: int = 0
    example: str = ""
    latest: float = 0.0

    def add(self, record: Kept) -> None:
        """Count a decision."""
        self.calls += 1
        if record.at >= self.latest:
            self.latest, self.example = record.at, record.text("agentguard.decision.id")


@dataclass(slots=True)
class Impact:
    """What other policies would have made of the calls on record.

    Attributes:
        decisions: How many decisions there are.
        same: How many of them would be as they were.
        changed: Of which something else would become.
        untold: Of which it cannot be told.
        not_judged: Which no policy decided, by why.
        versions: The versions that decided, by how often.
        by_shadow: How many could only be told since these policies judged them in the shadow.
        first: When the first was made, unix seconds; None if there is none.
        last: When the last was.
    """

    decisions: int = 0
    same: int = 0
    changed: dict[Changed, Tally] = field(default_factory=dict)
    untold: dict[Untold, Tally] = field(default_factory=dict)
    not_judged: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    by_shadow: int = 0
    first: float | None = None
    last: float | None = None

    @property
    def changes(self) -> int:
        """How many decisions would come out otherwise."""
        return sum(tally.calls for tally in self.changed.values())

    @property
    def cannot_tell(self) -> int:
        """Of how many decisions it cannot be told."""
        return sum(tally.calls for tally in self.untold.values())

    def of(self, change: Change) -> int:
        """Return how many decisions would change so."""
        return sum(tally.calls for changed, tally in self.changed.items() if changed.change is change)

    def worth_recording(self) -> list[tuple[str, tuple[str, ...], int]]:
        """Return which arguments of which actions, once on record, would settle how many such calls; the most first."""
        found: Counter[tuple[str, tuple[str, ...]]] = Counter()
        for untold, tally in self.untold.items():
            # Where something else is missing too, an argument would not help.
            if untold.arguments and len(untold.arguments) == len(untold.doubts):
                found[untold.action, untold.arguments] += tally.calls
        return [(action, arguments, calls) for (action, arguments), calls in found.most_common()]


class Settings:
    """How each chain's guard was set up, as its records of a start say it."""

    def __init__(self) -> None:
        self._by_chain: dict[str, Setting] = {}

    def see(self, record: Kept) -> None:
        """Take a record of a start."""
        try:
            zone: ZoneInfo | None = ZoneInfo(record.text("agentguard.time_zone"))
        except (ZoneInfoNotFoundError, ValueError, OSError):
            zone = None
        environment = record.text("agentguard.environment") or None
        self._by_chain[record.chain_id] = Setting(environment=environment, time_zone=zone)

    def of(self, record: Kept) -> Setting:
        """Return that of a decision's guard."""
        return self._by_chain.get(record.chain_id, _UNKNOWN)


_UNKNOWN: Final = Setting()


def impact_of(
    records: Iterable[Kept], hindsight: Hindsight, *, since: float | None = None, until: float | None = None
) -> Impact:
    """Return what the new policies would have made of the decisions among some records.

    Args:
        records: The records, each chain in its order.
        hindsight: The old policies, and the new ones.
        since: No earlier decisions, unix seconds.
        until: Earlier ones than that.
    """
    found = Impact()
    remembered = Remembered(hindsight)

    beside = Beside(hindsight.new.policies.version, partial(_count, found))
    for record, setting in decisions(beside.through(records), since=since, until=until):
        found.decisions += 1
        found.first = record.at if found.first is None else min(found.first, record.at)
        found.last = record.at if found.last is None else max(found.last, record.at)
        found.versions[record.text("agentguard.policy.version")] += 1
        try:
            answer = remembered.answer(replay(record, hindsight.old, setting=setting))
        except NoRequestError as error:
            found.not_judged[str(error)] += 1
            continue
        if answer.effect is None:
            beside.wait(record, answer)
        else:
            _count(found, record, answer)
    beside.end()
    found.by_shadow = beside.told
    return found


def _count(found: Impact, record: Kept, answer: Answer) -> None:
    action = record.text("agentguard.action.id")
    if answer.effect is None:
        doubts = tuple(sorted(map(worded, answer.doubts)))
        arguments = tuple(sorted(filter(None, map(argument_of, answer.doubts))))
        untold = Untold(action, doubts, arguments, answer.why)
        found.untold.setdefault(untold, Tally()).add(record)
        return
    change = _change(record, answer)
    if change is None:
        found.same += 1
        return
    changed = Changed(
        change=change,
        agent=record.text("agentguard.agent.id"),
        action=action,
        before=_reason(record.text("agentguard.decision.reason")),
        before_ids=tuple(id_ for id_ in record.policy_ids if ":" not in id_),
        after=_reason(answer.reason or ""),
        after_ids=answer.policy_ids,
        within_grant=answer.within_grant,
    )
    found.changed.setdefault(changed, Tally()).add(record)


def _change(record: Kept, answer: Answer) -> Change | None:
    """Return what becomes of a call; None if that is what became of it."""
    allowed = record.text("agentguard.decision.effect") == Effect.ALLOW
    if answer.effect is Effect.ALLOW:
        return None if allowed else Change.ALLOWED
    if allowed:
        return Change.ASKED if is_liftable(answer.reason) else Change.DENIED
    reason = record.text("agentguard.decision.reason")
    return Change.REASON if answer.reason is not None and _reason(answer.reason) != _reason(reason) else None


def _reason(reason: str) -> str:
    return APPROVAL if is_liftable(reason) else str(reason)


def decisions(records: Iterable[Kept], *, since: float | None, until: float | None) -> Iterator[tuple[Kept, Setting]]:
    """Yield the decisions of a time, each with how its guard was set up."""
    settings = Settings()
    for record in records:
        if record.kind == RecordKind.START:
            settings.see(record)
        elif record.kind == RecordKind.DECISION and _within(record, since, until):
            yield record, settings.of(record)


def _within(record: Kept, since: float | None, until: float | None) -> bool:
    return (since is None or record.at >= since) and (until is None or record.at < until)
