"""Step 7 of a call: run the tool, for whom it was allowed, and let no secret of its run out."""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from agentguard.credentials.containment import Containment, stops
from agentguard.credentials.held import holder_of
from agentguard.credentials.live import Place
from agentguard.credentials.logs import LOGS
from agentguard.host.cancelled import is_stray
from agentguard.lifecycle.ended import run_of
from agentguard.policy.schemas.schema import CREDENTIALS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator

    from agentguard.evidence.trail import Trace, Trail
    from agentguard.model import Invocation
    from agentguard.policy.schemas.schema import GuardedTool

IN_SPANS: Final = partial(stops, place=Place.SPAN)
"""Returns whether a value may not be on a span."""


@dataclass(frozen=True, slots=True)
class Running:
    """A guarded tool that is running.

    Attributes:
        invocation: For whom.
        action: What was called.
        totals: The totals that it adds to.
        unkept: Why what it said of itself could not be kept.
        wanting: What it has to have before its first line, while it has not got that.
    """

    invocation: Invocation
    action: str
    totals: tuple[str, ...] = ()
    unkept: list[Exception] = field(default_factory=list, compare=False)
    wanting: list[str] = field(default_factory=list, compare=False)


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


@contextmanager
def before_it_begins(wanted: Iterable[str]) -> Iterator[None]:
    """Get, inside the block, what the running tool has to have: if that fails, it has not begun."""
    wanting = running().wanting
    wanting += wanted
    yield
    wanting.clear()


def current_invocation() -> Invocation:
    """Return the verified identity on whose behalf the running tool was called.

    Raises:
        LookupError: If no guarded tool is running here.
    """
    return running().invocation


def totals_of_running() -> tuple[str, ...]:
    """Return the totals that the running tool adds to; none if none is running here."""
    found = _CURRENT.get()
    return () if found is None else found.totals


@dataclass(frozen=True, slots=True)
class Ran:
    """What came of a tool.

    Attributes:
        result: What it returned.
        failure: What it raised, in place of that.
        leaks: Whether either holds a secret of its run, or cannot be looked through.
        began: Whether the tool itself was reached, or anything that belongs to it.
    """

    result: Any = None
    failure: Exception | None = None
    leaks: bool = False
    began: bool = True


class Contained:
    """Runs the tool of one call.

    Args:
        trail: Where is kept what was stopped.
        trace: The call's evidence.
        invocation: For whom.
        token: The text of the token that was verified; None where there is none.
        tool: What is called.
    """

    def __init__(
        self, trail: Trail, trace: Trace, invocation: Invocation, token: str | None, tool: GuardedTool
    ) -> None:
        self._trace = trace
        self._running = Running(invocation, tool.name, tool.totals)
        outside = partial(trail.leaked, invocation)
        decision = "" if trace.decision is None else trace.decision.id
        inside = partial(outside, decision=decision)
        LOGS.install()
        trail.spans.look_through(IN_SPANS)
        run, holder = run_of(invocation), holder_of(invocation)
        self._containment = Containment(run=run, token=token, told=inside, outside=outside, holder=holder)

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
        if self._running.unkept:
            # Its run would go on as if it had not read, or spent, what this is about.
            failure = self._running.unkept[0]
        if failure is not None:
            leaks = self._containment.look(failure, Place.EXCEPTION) is not None
            return Ran(failure=failure, leaks=leaks, began=not self._running.wanting)
        # A credential is for the tool that asked.
        is_result = self._running.action != CREDENTIALS
        return Ran(result, leaks=is_result and self._containment.look(result, Place.RESULT) is not None)
