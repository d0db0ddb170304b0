"""What a decorator alone cannot see of an MCP server, whichever framework made it.

Enforcement sits in the decorated function, the one level that a nested
``server.call_tool(…)`` cannot go around. This adapter adds what surrounds it: where the
identity comes from, the preflight before the SDK validates arguments, the denial of
tools that nobody guards, and the words of a denial. Every framework that is served sits
on the SDK's low-level server, and this is its middleware.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final, cast

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.shared.exceptions import MCPError
from mcp_types import METHOD_NOT_FOUND
from mcp_types.methods import CLIENT_REQUESTS
from pydantic import ValidationError

from agentguard.adapters.answers import ANSWERS, ErrorAnswers, protocol_denial
from agentguard.adapters.changes import LISTEN, Changes
from agentguard.adapters.listing import Listing, is_kept, unshared
from agentguard.adapters.misfit import UNFIT, has_no_escapes, hearing, unfit
from agentguard.adapters.origin import origin
from agentguard.adapters.outgoing import Outgoing
from agentguard.adapters.reading import Reading
from agentguard.adapters.stepup import step_up, with_step_up
from agentguard.adapters.surface import Offer
from agentguard.errors import Refusal
from agentguard.evidence.record import call_attributes
from agentguard.identity.sources import META_KEY as IDENTITY_KEY
from agentguard.identity.sources import EnvironmentSource, meta_token, stdio_audience
from agentguard.lifecycle.ended import run_of
from agentguard.model import Reason
from agentguard.steps.call import ACTING, Call, Denial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Mapping

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from agentguard.adapters.elicitation import Rounds
    from agentguard.adapters.misfit import Heard
    from agentguard.enforce import Enforcer
    from agentguard.guarding.rulebook import Rulebook
    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.lifecycle.tally import Run
    from agentguard.limits import Limits
    from agentguard.model import Invocation

    Context = ServerRequestContext[Any, Any]
    Handler = Callable[[Context, Call, CallNext], Awaitable[HandlerResult]]
    """Answers one request of a method; may raise what the SDK answers as an error."""

_REQUEST: Final[ContextVar[Call | None]] = ContextVar("agentguard_request", default=None)
"""The request that is being answered, at the guard of the server that it was sent to."""

PASSING: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "logging/setLevel",
    }
)
"""Methods that use nothing of what a server offers."""


class Adapter:
    """One guard's place in one server."""

    def __init__(
        self,
        book: Rulebook,
        enforcer: Enforcer,
        *,
        environment: EnvironmentSource | None,
        verifier: InvocationVerifier,
        current: ContextVar[Call | None],
        clock: Callable[[], float],
        limits: Limits,
        rounds: Rounds,
    ) -> None:
        self._book = book
        self._rounds = rounds
        self._enforcer = enforcer
        self._environment = environment
        self._verifier = verifier
        self._current = current
        self._clock = clock
        self._limits = limits
        self._audience = stdio_audience(book.surface.name)
        self._reading = Reading(book, enforcer, current=current, limits=limits)
        self._changes = Changes(enforcer.store)
        enforcer.in_force.tell(self._changes.policies)
        reading, listing = self._reading.handlers, Listing(book, enforcer, self._changes, self._is_nobodys).handlers
        listening = self._changes.listening(reading[LISTEN])
        self._handlers: dict[str, Handler] = {Offer.TOOL: self._call_tool, **reading, **listing, LISTEN: listening}

    def install(self) -> None:
        """Begin to judge: from here on every message of the server passes through `__call__`."""
        self._book.surface.middleware.append(self)
        self._book.surface.stop_unguarded(self._stop)
        self._book.surface.when_mounted(self.within)
        self._book.surface.app_hook(with_step_up)

    async def _stop(self, offer: Offer, key: str | None, *, answered: bool = False) -> None:
        """Stop what nobody guards, where all calls pass."""
        await self._book.refresh()
        if key is None or (answered and (offer is Offer.TOOL or self._book.rule(offer, key) is not None)):
            refusal = Refusal(Reason.UNGUARDED, "no server lists it, or something else answered in its place")
            decision = await self._enforcer.refuse(self._current.get(), offer, refusal, known=False)
            raise self._book.surface.answers.denied_nested(decision)
        if offer is not Offer.TOOL:
            await self._reading.inside(offer, key)
            return
        call, rule = self._current.get(), self._book.rule(offer, key)
        if rule is None:
            decision = await self._enforcer.refuse(call, key, self._book.why_not(offer, key), known=False)
            raise self._book.surface.answers.denied_nested(decision)
        ctx = None if call is None or call.depth else cast("Context | None", call.framework)
        if call is not None and ctx is not None and ctx.method == offer and (ctx.params or {}).get("name") == key:
            # A framework may choose another version for this caller than the one that was asked about first.
            call.rule = rule

    @contextmanager
    def within(self, ctx: Context) -> Iterator[None]:
        """Take a request that came by way of another server, which this one is mounted in.

        That it still is a request, the guard of the other server knows. Without one, nothing
        here has an identity.
        """
        request = _REQUEST.get()
        if self._current.get() is not None or request is None or not request.open:
            yield
            return
        call = self._call(ctx)
        request.inner.append(call)
        outer = self._current.set(call)
        try:
            yield
        finally:
            call.close()
            self._current.reset(outer)

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Judge one message, as the SDK's middleware."""
        if ctx.request_id is None or ctx.method in PASSING:
            result = await call_next(ctx)
            return self._changes.announced(ctx, result) if ctx.method == "initialize" else result
        # What another version of the protocol has is as unknown as what none has.
        served = (ctx.method, ctx.protocol_version) in CLIENT_REQUESTS
        handler = self._handlers.get(ctx.method, self._unknown) if served else self._unknown
        await self._book.refresh()
        call = self._call(ctx)
        # Here alone, and not where another server's tool may be running around this.
        call.step_up = step_up(ctx.request, ctx.request_id)
        outer, request = self._current.set(call), _REQUEST.set(call)
        try:
            outgoing = Outgoing(ctx, call, self._enforcer)
            result = await outgoing.answer(
                self._rounds.begin(ctx, call).answer(lambda own: handler(own, call, call_next))
            )
            return unshared(result, await self._left(call)) if is_kept(result) else result
        finally:
            # A task that the tool left behind still sees this call: it must not act by it.
            call.close()
            self._current.reset(outer)
            _REQUEST.reset(request)

    async def _call_tool(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        named = (ctx.params or {}).get("name")
        # What is no name names nothing that is guarded.
        name = named if isinstance(named, str) else ""
        rule = self._book.rule(Offer.TOOL, name)
        call.rule = rule
        try:
            await self._enforcer.preflight(
                call, name, self._book.why_not(Offer.TOOL, name) if rule is None else rule.tool
            )
        except Denial as denial:
            return ANSWERS.denied(denial.decision)
        with hearing() as heard:
            result = await self._run_tool(ctx, call, name, call_next, heard)
        if call.entered:
            return result
        # No guarded function was reached, so whatever this is, nobody decided on it.
        refusal = unfit(None if rule is None else rule.tool, heard)
        return ANSWERS.denied(await self._enforcer.refuse(call, name, refusal))

    async def _run_tool(self, ctx: Context, call: Call, name: str, call_next: CallNext, heard: Heard) -> HandlerResult:
        """Run a tool; what comes out counts only if it was reached."""
        if not has_no_escapes((ctx.params or {}).get("arguments"), self._limits):
            return None
        try:
            return await call_next(ctx)
        except Exception as error:
            # What a tool raises is the tool's; what validation raises would tell the schema.
            if call.entered:
                raise
            if isinstance(error, ValidationError):
                # What is no request of the protocol gets no tool's result: the SDK answers it with an error.
                raise protocol_denial(await self._enforcer.refuse(call, name, UNFIT)) from None
            heard.append(error)
            return None

    async def _unknown(self, ctx: Context, call: Call, _: CallNext) -> HandlerResult:
        """Answer for a method that nobody knows as the SDK does for one that the server does not have."""
        refusal = Refusal(Reason.UNGUARDED, "the guard knows no such method")
        await self._enforcer.refuse(call, ctx.method, refusal, known=False)
        raise MCPError(code=METHOD_NOT_FOUND, message="Method not found", data=ctx.method)

    def _call(self, ctx: Context) -> Call:
        request, meta = ctx.request, ctx.meta
        headers = getattr(request, "headers", {})
        name = (ctx.params or {}).get("name")
        traceparent = (meta or {}).get("traceparent")
        answers = self._book.surface.answers

        came_with: Run | None = None

        async def identify() -> Invocation:
            nonlocal came_with
            invocation, token = await self._identify(request, meta)
            if token is not None:
                # The file of a token may get another run's meanwhile: one request acts for one run.
                came_with = came_with or run_of(invocation)
                if run_of(invocation) != came_with:
                    raise Refusal(Reason.UNAUTHENTICATED, "the token of another run took the place of the request's")
            call.token = token
            return invocation

        call = Call(
            identify=identify,
            answers=answers if ctx.method == Offer.TOOL else ErrorAnswers(answers),
            transport="stdio" if request is None else "http",
            origin=origin(ctx),
            framework=ctx,
            facts=call_attributes(
                method=ctx.method,
                tool=name if ctx.method == "tools/call" and isinstance(name, str) else None,
                request_id=ctx.request_id,
                session_id=headers.get("mcp-session-id"),
                traceparent=traceparent if isinstance(traceparent, str) else None,
            ),
        )
        return call

    async def _left(self, call: Call) -> float:
        """Return for how many more seconds the caller has its authority."""
        try:
            return (await call.identify()).ends_at - self._clock()
        except Refusal:
            return 0

    def _is_nobodys(self, ctx: Context) -> bool:
        """Return whether a message had its one chance to name a run, and did not: it is asked on behalf of none."""
        return (
            ctx.request is None
            and self._environment is None
            and ACTING.get() is None
            and IDENTITY_KEY not in (ctx.meta or {})
        )

    async def _identify(self, request: object, meta: Mapping[str, Any] | None) -> tuple[Invocation, str | None]:
        """Return who calls, from the one source that this transport has, and the text that was verified."""
        if request is not None:
            # The request's own user: the SDK's context variable gave one server's bearer
            # inside another server of the same process. And of it, the text alone.
            user = cast("Mapping[str, object]", getattr(request, "scope", {})).get("user")
            if not isinstance(user, AuthenticatedUser):
                raise Refusal(Reason.UNAUTHENTICATED, "the request has no bearer token: pass **guard.http_auth()")
            bearer = user.access_token.token
            return await self._verifier.verify(bearer), bearer
        acting = ACTING.get()
        if acting is not None:
            return acting, None
        environment = self._environment
        token = meta_token(meta) if environment is None else environment.token(self._clock())
        return await self._verifier.verify(token, audience=self._audience), token
