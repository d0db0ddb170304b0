"""What to look at in a story: what a careful reader would ask about.

Pure. Nothing here says that something is wrong; each line says what the records show,
and whoever knows the agents judges it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.evidence.reporting.story import OVER, REASONS
from agentguard.evidence.vocabulary import RunEnd
from agentguard.evidence.words import count, span
from agentguard.model import Grade, Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agentguard.evidence.reporting.story import Call, Run, RunKey, Story

LONG_SECONDS: Final = 86_400
"""Past how long an authority is called long: what a run may last that says nothing else."""

REPEATED: Final = 3
"""How many times one denied call is repeated before it is worth a look."""

REPEATED_SECONDS: Final = 60
"""Within how long."""

_FAILING: Final = frozenset(
    (Reason.EVIDENCE_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.POLICY_ERROR)
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notable:
    """Something to look at.

    Attributes:
        tag: What kind of thing it is, in two words.
        text: What the records show.
        run: The run to look at first, if it is about runs.
        alarm: Whether it says that the guard could not do its work, or that evidence is amiss.
    """

    tag: str
    text: str
    run: RunKey | None = None
    alarm: bool = False


def notable(story: Story, *, now: float) -> tuple[Notable, ...]:
    """Return what to look at, the gravest first.

    Args:
        story: What the records tell.
        now: Unix seconds: what is over by then, and what still lasts.
    """
    return (
        *_of_evidence(story),
        *_by_agent(story, "withheld result", lambda run: run.withheld > 0, _withheld),
        *_by_agent(story, "after its end", lambda run: _late(run) > 0, _after_its_end),
        *_repeated(story),
        *_by_agent(story, "shared identity", lambda run: run.grade == Grade.SHARED, _shared),
        *_by_agent(story, "ran out", lambda run: run.end == RunEnd.EXPIRED, _ran_out),
        *_by_agent(story, "no end", lambda run: _is_unended(run, now), _no_end),
        *_by_agent(story, "long authority", _long, _long_text),
        *_by_agent(story, "weak identity", lambda run: run.grade == Grade.TOKEN, _weak),
        *_of_tokens(story),
    )


def _of_evidence(story: Story) -> Iterator[Notable]:
    if story.orphans:
        text = f"{count(story.orphans, 'outcome')} without a decision on record"
        yield Notable(tag="no decision", text=text, alarm=True)
    failing = Counter(call.reason for call in story.calls if call.reason in _FAILING)
    for reason, number in failing.most_common():
        yield Notable(tag="failing closed", text=f"{count(number, 'call')} denied: {REASONS[reason]}", alarm=True)
    for version in story.versions:
        if version.refused:
            yield Notable(tag="refused policies", text=f"a change was not taken: {version.refused}", alarm=True)
    unknown = sum(call.allowed and not call.outcome for call in story.calls)
    if unknown:
        text = (
            f"{count(unknown, 'allowed call')} without an outcome on record: running still, or cut off with the server"
        )
        yield Notable(tag="no outcome", text=text)


def _of_tokens(story: Story) -> Iterator[Notable]:
    for reason, number in sorted(story.refused_tokens.items(), key=lambda pair: -pair[1]):
        yield Notable(tag="refused tokens", text=f"{count(number, 'token')}: {REASONS.get(reason, reason)}")
    if story.strangers:
        yield Notable(tag="no identity", text=f"{count(len(story.strangers), 'call')} by nobody who could be verified")


def _by_agent(
    story: Story, tag: str, concerns: Callable[[Run], bool], say: Callable[[list[Run]], str]
) -> Iterator[Notable]:
    """Yield one line an agent: with hundreds of runs, a line for each would hide the rest."""
    found: defaultdict[str, list[Run]] = defaultdict(list)
    for run in story.runs:
        if concerns(run):
            found[run.agent].append(run)
    for agent, runs in sorted(found.items(), key=lambda pair: -len(pair[1])):
        yield Notable(tag=tag, text=f"{agent or 'an agent without a name'}: {say(runs)}", run=runs[0].key)


def _withheld(runs: list[Run]) -> str:
    return f"{count(sum(run.withheld for run in runs), 'result')} withheld, a side effect may have happened"


def _late(run: Run) -> int:
    return sum(call.reason in OVER for call in run.calls if not call.allowed)


def _after_its_end(runs: list[Run]) -> str:
    return f"{count(sum(map(_late, runs)), 'call')} refused after the end of {_runs(runs)}"


def _shared(runs: list[Run]) -> str:
    return f"{_runs(runs)} with an identity that others share: who acted cannot be told"


def _ran_out(runs: list[Run]) -> str:
    return f"{_runs(runs)} never completed, the authority ran out"


def _is_unended(run: Run, now: float) -> bool:
    # Nobody follows an identity that many share to its end.
    return run.grade != Grade.SHARED and not run.end and run.ends_at is not None and run.ends_at <= now


def _no_end(runs: list[Run]) -> str:
    return f"the time of {_runs(runs)} is over, and no end is on record"


def _long(run: Run) -> bool:
    return run.granted is not None and run.granted > LONG_SECONDS


def _long_text(runs: list[Run]) -> str:
    longest = max(run.granted or 0 for run in runs)
    return f"{_runs(runs)} of more than {span(LONG_SECONDS)}, the longest {span(longest)}"


def _weak(runs: list[Run]) -> str:
    return f"{_runs(runs)} known by the token alone: the issuer names no run"


def _repeated(story: Story) -> Iterator[Notable]:
    for run in story.runs:
        asked: defaultdict[tuple[str, str, str], list[Call]] = defaultdict(list)
        for call in run.calls:
            if not call.allowed and call.reason not in OVER:
                asked[call.tool, call.resource, call.digest].append(call)
        most = max(((_burst(calls), tool) for (tool, *_), calls in asked.items()), default=(0, ""))
        if most[0] >= REPEATED:
            text = f"{run.agent}: one denied call of {most[1]} made {most[0]} times within {REPEATED_SECONDS} s"
            yield Notable(tag="repeated", text=text, run=run.key)


def _burst(calls: list[Call]) -> int:
    """Return how many of *calls*, which are in the order of time, were made within the bound at most."""
    most = first = 0
    for last, call in enumerate(calls):
        while call.at - calls[first].at > REPEATED_SECONDS:
            first += 1
        most = max(most, last - first + 1)
    return most


def _runs(runs: list[Run]) -> str:
    return count(len(runs), "run")
