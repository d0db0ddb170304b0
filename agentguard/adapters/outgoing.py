"""All that a request sends to its caller: the messages while it is answered, and the answer.

What a guarded function returns was looked through when it returned. What is sent is made from
that by a framework, a handler or other middleware, may be another thing by then, and is not all:
completions and lists come from no guarded function, and a tool tells and asks while it runs. So
what is sent is looked through as well, here, as it will be on the wire.

The SDK makes a session for each request, and every message that the request sends goes through
a few public methods of it; the others are written in terms of these. They are replaced on that
one object, which frameworks look into and which therefore stays what it is.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.exceptions import MCPError
from pydantic import ValidationError
from pydantic_core import to_json

from agentguard.adapters.answers import ANSWERS, protocol_denial
from agentguard.adapters.surface import Offer
from agentguard.credentials.containment import Containment
from agentguard.credentials.live import Place
from agentguard.errors import Refusal
from agentguard.lifecycle.ended import run_of
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.context import HandlerResult

    from agentguard.adapters.surface import Context
    from agentguard.enforce import Enforcer
    from agentguard.model import Invocation
    from agentguard.steps.call import Call

# What is told goes out by one of these; what is asked by `send_request` alone.
_TELLING: Final = ("send_notification", "send_log_message", "report_progress")


class Outgoing:
    """What one request sends, once it is known for whom.

    Args:
        ctx: The request.
        call: What the enforcer is told of it. From here on, its identity is noticed.
        enforcer: Records what is stopped.
    """

    def __init__(self, ctx: Context, call: Call, enforcer: Enforcer) -> None:
        self._method = ctx.method
        self._call = call
        self._enforcer = enforcer
        self._containment: Containment | None = None
        self._token: str | None = None
        self._identify, call.identify = call.identify, self._identified
        session: Any = ctx.session
        for name in _TELLING:
            setattr(session, name, partial(self._tell, getattr(session, name)))
        session.send_request = partial(self._ask, session.send_request)

    async def answer(self, make: Awaitable[HandlerResult]) -> HandlerResult:
        """Return the answer to the request, or the denial in its place.

        Raises:
            Exception: Whatever *make* raises; or the denial, where that is an error.
        """
        try:
            result = await make
        except Exception as error:
            if not self._shows(_sent(error), Place.EXCEPTION):
                raise
        else:
            if not self._shows(_as_sent(result), Place.RESULT):
                return result
        decision = await self._enforcer.refuse(self._call, self._method, Refusal(Reason.CREDENTIAL_LEAK), known=False)
        if self._method == Offer.TOOL:
            return ANSWERS.denied(decision)
        raise protocol_denial(decision)

    async def _identified(self) -> Invocation:
        invocation = await self._identify()
        token = self._call.token
        if self._containment is None or token != self._token:
            told = partial(self._enforcer.trail.leaked, invocation)
            self._token = token
            self._containment = Containment(run=run_of(invocation), token=token, told=told, outside=told)
        return invocation

    def _shows(self, value: object, place: Place) -> bool:
        # Before it is known for whom, nothing has run that could have a secret.
        return self._containment is not None and self._containment.look(value, place) is not None

    async def _tell(self, send: Callable[..., Awaitable[None]], *what: Any, **more: Any) -> None:
        if not self._shows((what, more), Place.MESSAGE):
            await send(*what, **more)

    async def _ask(self, send: Callable[..., Awaitable[Any]], request: Any, *how: Any, **more: Any) -> Any:
        if self._shows(request, Place.MESSAGE):
            # Whoever asks cannot go on without an answer.
            refusal = Refusal(Reason.CREDENTIAL_LEAK)
            decision = await self._enforcer.refuse(self._call, request.method, refusal, known=False)
            raise self._call.answers.denied_nested(decision)
        return await send(request, *how, **more)


def _as_sent(result: HandlerResult) -> object:
    """Return an answer as text, as fast as that can be: a function's own was looked through piece by piece before."""
    try:
        return to_json(result, fallback=str)
    except Exception:  # noqa: BLE001  it is looked through by itself then
        return result


def _sent(error: Exception) -> object:
    """Return what the SDK makes of an error: its own data, nothing of a request that fits no schema, or its text."""
    if isinstance(error, MCPError):
        return error.error
    return None if isinstance(error, ValidationError) else error
