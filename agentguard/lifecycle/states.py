"""The states of a run: issued, active, then completed, revoked or expired."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar, Final

from agentguard.lifecycle.ended import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from agentguard.lifecycle.ended import Ended, Link

COMPLETED: Final = "completed"
"""The reason with which a run ends by itself; ``completed: ValueError`` says how."""

KEPT_SECONDS: Final = 3600
"""How long a run stays on record after its end, for whoever asks what became of it."""

COUNTED_RUNS: Final = 10_000
"""Of how many runs one process counts calls that are not written yet."""


class RunState(StrEnum):
    """Where a run stands. The last three are final."""

    ISSUED = "issued"
    ACTIVE = "active"
    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"

    @property
    def live(self) -> bool:
        """Whether the run may still act."""
        return self in {RunState.ISSUED, RunState.ACTIVE}


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRecord:
    """A run, as its issuer recorded it, and what became of it.

    Attributes:
        issuer: The issuer.
        run_id: The run.
        agent: The workload that acts.
        issued_at: When it began, unix seconds.
        ends_at: Its absolute end, unix seconds.
        user: On whose behalf.
        task: The task.
        purpose: The purpose.
        audience: The server that it is for; empty where it was not recorded.
        ancestors: The runs that it stems from, root first; same issuer.
        state: Where it stands; a store says.
        used_at: When a guard first saw it.
        calls: How many calls guards saw.
        ended_at: When it was ended, if it was before its end.
        reason: Why it was; empty while only guards know of it.
    """

    issuer: str
    run_id: str
    agent: str
    issued_at: int
    ends_at: float
    user: str | None = None
    task: str | None = None
    purpose: str | None = None
    audience: str = ""
    ancestors: tuple[str, ...] = ()
    state: RunState = RunState.ISSUED
    used_at: float | None = None
    calls: int = 0
    ended_at: float | None = None
    reason: str = ""
    # Ids are on record as their issuer gave them.
    prefix: ClassVar[str] = ""


def ended_by(record: RunRecord, ended: Ended, *, reason: str, now: float) -> RunRecord:
    """Return *record* as it stands after something was ended: a final state stays what it is."""
    if not record.state.live or not now < record.ends_at or not ended.covers(record):
        return record
    # Only a run itself can complete; whoever ends all runs of an agent revokes them.
    itself = ended.kind is Kind.RUN and reason.partition(":")[0] == COMPLETED
    return replace(record, state=RunState.COMPLETED if itself else RunState.REVOKED, ended_at=now, reason=reason)


def judged(
    read: Callable[[], Iterable[RunRecord]], *, now: float, link_ended: Callable[[Link], bool]
) -> tuple[RunRecord, ...]:
    """Return every run on record with its state.

    Args:
        read: Gives what is on record. A run is kept for as long as those that stem from it.
        now: Unix seconds.
        link_ended: Whether a run is ended by itself, as guards know it.
    """
    known: dict[tuple[str, str], RunRecord] = {}
    ended: set[tuple[str, str]] = set()
    while True:
        before, known = ended, {(record.issuer, record.run_id): record for record in read()}
        ended = {run for run, record in known.items() if link_ended(record)}
        # How a run ended is on record before guards learn of it, but maybe not before this was read.
        if not any(known[run].state.live for run in ended - before):
            break

    def state(record: RunRecord) -> RunState:
        if not record.state.live:
            return record.state
        above = [run for run_id in record.ancestors if (run := (record.issuer, run_id)) in known]
        ends = [known[run].ended_at for run in above]
        if any(ended_at is not None and ended_at < record.ends_at for ended_at in ends):
            return RunState.REVOKED
        if not now < record.ends_at:
            return RunState.EXPIRED
        # As it was asked for: what guards have learned since may not be on record here.
        if not ended.isdisjoint([(record.issuer, record.run_id), *above]):
            return RunState.REVOKED
        return RunState.ISSUED if record.used_at is None else RunState.ACTIVE

    return tuple(replace(record, state=state(record)) for record in known.values())
