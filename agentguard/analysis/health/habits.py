"""How agents use what they are given, as the evidence tells: who acts, for how long, and how it ends."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from agentguard.evidence.reporting.story import OVER
from agentguard.evidence.vocabulary import RecordKind, RunEnd
from agentguard.model import Effect, Grade, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentguard.evidence.kept import Kept

DAY: Final = 86_400
# What an answer of a person leaves open, and what a client asks again at once, says nothing of an agent.
_ASKED: Final = frozenset((Reason.APPROVAL_REQUIRED,))
_ENDS: Final = frozenset(end.value for end in RunEnd)
_OF_RUNS: Final = frozenset((RecordKind.DECISION, RecordKind.RUN, RecordKind.SHARED_RUN))
# Under which transport each process has one client, so that its chain tells it.
_ONE_CLIENT: Final = "stdio"


@dataclass(slots=True)
class RunSeen:
    """One run, as far as the records tell.

    Attributes:
        agent: Who acted.
        grade: How distinct its identity is.
        granted: How long its authority was to last, seconds; None if no record says.
        ends_at: Its absolute end, unix seconds; None if no record says.
        last_call: When its last call came, or had run, unix seconds; None if there was none.
        ended_at: When it was over, unix seconds; None if no record says.
        end: How it ended; empty if no record says.
        allowed: Whether a call of it was allowed.
        late: The calls that were refused since it was over.
        elsewhere: Whether its guard saw it used from elsewhere than where it was used first.
        places: From when to when it was used, by transport and client.
    """

    agent: str = ""
    grade: str = ""
    granted: float | None = None
    ends_at: float | None = None
    last_call: float | None = None
    ended_at: float | None = None
    end: str = ""
    allowed: bool = False
    late: int = 0
    elsewhere: bool = False
    places: dict[tuple[str, str], tuple[float, float]] = field(default_factory=dict)

    @property
    def by_two(self) -> bool:
        """Whether two clients used it, as its guard saw or since both did at one time; false of a shared identity."""
        spans = sorted(self.places.values())
        at_once = any(later[0] < earlier[1] for earlier, later in pairwise(spans))
        return (self.elsewhere or at_once) and self.grade != Grade.SHARED

    def abandoned(self, now: float) -> bool:
        """Return whether nobody ended it: it expired, or its time is over and no end of it is on record."""
        over = self.ends_at is not None and self.ends_at < now
        return self.end == RunEnd.EXPIRED or (over and not self.end and self.grade != Grade.SHARED)

    def idle(self, now: float) -> float | None:
        """Return for how many seconds its authority went on after its last call; None if that cannot be told."""
        over = self.ended_at if self.ended_at is not None else self.ends_at
        if over is None or self.last_call is None:
            return None
        return max(0.0, min(over, now) - self.last_call)


@dataclass(slots=True)
class Day:
    """The calls of one agent in one day: how many, and how many of them were denied, by reason."""

    calls: int = 0
    denied: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class Habits:
    """What the records of some time tell.

    Attributes:
        runs: The runs, by issuer and id.
        days: The calls by agent and by how many days ago they were made, the last 24 hours being 0.
        issuers: How many calls came with each grade, by issuer.
        records: How many records there are.
    """

    runs: defaultdict[tuple[str, str], RunSeen] = field(default_factory=lambda: defaultdict(RunSeen))
    days: defaultdict[tuple[str, int], Day] = field(default_factory=lambda: defaultdict(Day))
    issuers: defaultdict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    records: int = 0

    @property
    def agents(self) -> list[str]:
        """Every agent that was allowed to act: of a name that was only ever denied, there need be no such agent."""
        return sorted({run.agent for run in self.runs.values() if run.agent and run.allowed})


def habits_of(records: Iterable[Kept], *, since: float, now: float) -> Habits:
    """Return what the records from *since* to *now*, unix seconds, tell."""
    found = Habits()
    ran_until: dict[str, float] = {}
    for record in records:
        # A clock that ran ahead is no reason to leave out what it stamped.
        if record.at < since:
            continue
        found.records += 1
        run_id = record.text("agentguard.run.id")
        if run_id and record.kind == RecordKind.OUTCOME:
            ran_until[run_id] = max(record.at, ran_until.get(run_id, 0.0))
        if not run_id or record.kind not in _OF_RUNS:
            continue
        run = found.runs[record.text("agentguard.invocation.issuer"), run_id]
        if record.kind == RecordKind.DECISION:
            _take_call(found, run, record, now)
        elif record.kind == RecordKind.RUN:
            _take_state(run, record)
        else:
            run.elsewhere = True
        _take_authority(run, record)
    # An outcome names no issuer. Of two runs with one id, neither is called idle that may not have been.
    for (_, run_id), run in found.runs.items():
        if run.last_call is not None:
            run.last_call = max(run.last_call, ran_until.get(run_id, 0.0))
    return found


def _take_authority(run: RunSeen, record: Kept) -> None:
    run.agent = run.agent or record.text("agentguard.agent.id")
    run.grade = run.grade or record.text("agentguard.invocation.grade")
    granted, ends_at = record.number("agentguard.authority.granted"), record.number("agentguard.run.ends_at")
    run.granted = granted if run.granted is None else max(run.granted, granted or 0)
    run.ends_at = ends_at if run.ends_at is None else max(run.ends_at, ends_at or 0)


def _take_call(found: Habits, run: RunSeen, record: Kept, now: float) -> None:
    reason = record.text("agentguard.decision.reason")
    agent = record.text("agentguard.agent.id")
    denied = record.text("agentguard.decision.effect") != Effect.ALLOW
    run.allowed = run.allowed or not denied
    if denied and reason in _ASKED:
        return
    grade = record.text("agentguard.invocation.grade")
    found.issuers[record.text("agentguard.invocation.issuer")][grade] += 1
    day = found.days[agent, int(max(0.0, now - record.at) // DAY)]
    day.calls += 1
    if denied:
        day.denied[reason] += 1
    if reason in OVER:
        run.late += 1
        return
    run.last_call = record.at if run.last_call is None else max(run.last_call, record.at)
    transport, session = record.text("agentguard.transport"), record.text("mcp.session.id")
    client = record.chain_id if transport == _ONE_CLIENT else session
    # Without a session nobody knows whether it is another client, and a shared identity is told as such.
    if transport and client and grade != Grade.SHARED:
        first, last = run.places.get((transport, client), (record.at, record.at))
        run.places[transport, client] = (min(first, record.at), max(last, record.at))


def _take_state(run: RunSeen, record: Kept) -> None:
    state = record.text("agentguard.run.state")
    # Two guards may tell of one end, and the one that only saw the time pass knows less.
    if state in _ENDS and (not run.end or run.end == RunEnd.EXPIRED):
        run.end = state
        run.ended_at = record.at
