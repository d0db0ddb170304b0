"""What a run is supposed to have done before a call, told as the guard tells it to policies."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agentguard.lifecycle.tally import Change
from agentguard.steps.tallying import Tallied, spent_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.lifecycle.tally import Tally
    from agentguard.policy.schemas.schema import GuardedTool

THIS_TOOL: Final = ""
"""What stands for the tool that is called, among the tools that a run has called."""


def tallied(call: SupposedCall, tool: GuardedTool, context: Mapping[str, object]) -> Tallied:
    """Return what the runs of a chain have done before a call, and what it adds to that.

    What is said of a run counts for every run above it, as if it had been done there.
    """
    return Tallied(
        invocation=call.identity.invocation(call.now),
        read=_read(call),
        server=tool.server,
        origin="",
        now=call.now,
        tool=THIS_TOOL,
        spent=spent_by(tool, context),
    )


def check_carried(call: SupposedCall, tool: GuardedTool) -> None:
    """Pass a call after which no run of its chain would carry more labels than a run may.

    Raises:
        Refusal: INVALID_ARGUMENT, as the guard denies it once the policies allow it.
    """
    for tally in _read(call):
        tally.after(Change(labels=tool.labels), call.now)


def _read(call: SupposedCall) -> tuple[Tally, ...]:
    """Return what each link has done, root first."""
    read = [call.identity.run]
    for link in reversed(call.identity.ancestors):
        read.insert(0, _with_below(link.run, read[0]))
    return tuple(read)


def _with_below(own: Tally, below: Tally) -> Tally:
    """Return what a run has done, and at least all that one did to which it delegated."""
    began = [tally.started_at for tally in (own, below) if tally.started_at is not None]

    def most(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
        return {name: max(one.get(name, 0), other.get(name, 0)) for name in (*one, *other)}

    return replace(
        own,
        started_at=min(began, default=None),
        calls=max(own.calls, below.calls),
        denied=max(own.denied, below.denied),
        tools=most(own.tools, below.tools),
        labels=own.labels | below.labels,
        spent=most(own.spent, below.spent),
    )
