"""Step 7 of a call: run the tool, for whom it was allowed, and let no secret of its run out."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentguard.cancelled import is_stray
from agentguard.credentials.containment import Containment, stops
from agentguard.credentials.live import Place
from agentguard.lifecycle.ended import run_of
from agentguard.policy.schema import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentguard.evidence.trail import Trace, Trail
    from agentguard.model import Invocation

_IN_SPANS: Final = partial(stops, place=Place.SPAN)


@dataclass(frozen=True, slots=True)
class Running:
    """A guarded tool that is running: for whom, and its action."""

    invocation: Invocation
    action: str


_CURRENT: Final[ContextVar[Running | None]] = ContextVar("agentguard_running", default=None)


def running() -> Running:
    """Return the guarded tool that is running.

    Raises:
        LookupError: If none is running here.
    """
    found = _CURRENT.get()
    if found is None:
        message = "no guarded tool is running here"
        raise LookupError(message)
    return found


def current_invocation() -> Invocation:
    """Return the verified identity on whose behalf the running tool was called.

    Raises:
        LookupError: If no guarded tool is running here.
    """
    return running().invocation


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a tool.

    Attributes:
        result: What it returned.
        failure: What it raised, in place of that.
        leaks: Whether either holds a secret of its run, or cannot be looked through.
    """

    result: Any = None
    failure: Exception | None = None
    leaks: bool = False


class Contained:
    """Runs the tool of one call.

    Args:
        trail: Where is kept what was stopped.
        trace: The call's evidence.
        invocation: For whom.
        token: The text of the token that was verified; None where there is none.
        action: What is called.
    """

    def __init__(self, trail: Trail, trace: Trace, invocation: Invocation, token: str | None, action: str) -> None:
        self._trace = trace
        self._running = Running(invocation, action)
        outside = partial(trail.leaked, invocation)
        decision = "" if trace.decision is None else trace.decision.id
        inside = partial(outside, decision=decision)
        trail.spans.look_through(_IN_SPANS)
        self._containment = Containment(run=run_of(invocation), token=token, told=inside, outside=outside)

    async def run(self, body: Callable[[], Awaitable[Any]]) -> Ran:
        """Await *body*; what it returns or raises is looked through before anybody has it."""
        result: Any = None
        failure: Exception | None = None
        outer = _CURRENT.set(self._running)
        try:
            with self._containment, self._trace.execution():
                result = await body()
        except Exception as raised:  # noqa: BLE001  handed on once it is known that it may be
            failure = raised
        except BaseException as raised:
            if not is_stray(raised):
                raise
            failure = RuntimeError("the tool waited for something that was cancelled")
        finally:
            _CURRENT.reset(outer)
        if failure is not None:
            return Ran(failure=failure, leaks=self._containment.look(failure, Place.EXCEPTION) is not None)
        # A credential is for the tool that asked.
        is_result = self._running.action != CREDENTIALS
        return Ran(result, leaks=is_result and self._containment.look(result, Place.RESULT) is not None)
