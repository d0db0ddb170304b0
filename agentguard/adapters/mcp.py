"""What a decorator alone cannot see of an MCP server, whichever framework made it.

Enforcement sits in the decorated function, the one level that a nested
``server.call_tool(…)`` cannot go around. This adapter adds what surrounds it: where the
identity comes from, the preflight before the SDK validates arguments, the denial of
tools that nobody guards, and the words of a denial. Every framework that is served sits
on the SDK's low-level server, and this is its middleware.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import unquote

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser

from agentguard.adapters.answers import ANSWERS, NestedDenial, protocol_denial
from agentguard.adapters.surface import Offer
from agentguard.call import ACTING, Call, Denial
from agentguard.errors import Refusal
from agentguard.evidence.record import call_attributes
from agentguard.identity.sources import EnvironmentSource, meta_token, stdio_audience
from agentguard.model import Reason
from agentguard.policy.schema import METHODS
from agentguard.policy.values import check_no_escapes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import ContextVar

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from agentguard.enforce import Enforcer
    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.limits import Limits
    from agentguard.model import Invocation
    from agentguard.rulebook import Rulebook

    Context = ServerRequestContext[Any, Any]
    Handler = Callable[[Context, Call, CallNext], Awaitable[HandlerResult]]
    """Answers one request of a method; may raise what the SDK answers as an error."""

UNFIT: Final = Refusal(Reason.INVALID_ARGUMENT, "the arguments do not fit the tool's schema")


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
    ) -> None:
        self._book = book
        self._enforcer = enforcer
        self._environment = environment
        self._verifier = verifier
        self._current = current
        self._clock = clock
        self._limits = limits
        self._audience = stdio_audience(book.surface.name)
        self._handlers: dict[str, Handler] = {
            Offer.TOOL: self._call_tool,
            Offer.RESOURCE: self._other,
            Offer.PROMPT: self._other,
        }

    def install(self) -> None:
        """Begin to judge: from here on every message of the server passes through `__call__`."""
        self._book.surface.middleware.append(self)
        self._book.surface.stop_unguarded(self._stop)

    async def _stop(self, offer: Offer, key: str) -> None:
        """Stop what nobody guards, where all calls pass."""
        self._book.refresh()
        if self._book.rule(offer, key) is None:
            refusal = self._book.why_not(offer, key)
            raise NestedDenial(await self._enforcer.refuse(self._current.get(), key, refusal, known=False))

    async def __call__(self, ctx: Context, call_next: CallNext) -> HandlerResult:
        """Judge one message, as the SDK's middleware."""
        handler = None if ctx.request_id is None else self._handlers.get(ctx.method)
        if handler is None:
            return await call_next(ctx)
        self._book.refresh()
        call = self._call(ctx)
        outer = self._current.set(call)
        try:
            return await handler(ctx, call, call_next)
        finally:
            # A task that the tool left behind still sees this call: it must not act by it.
            call.open = False
            self._current.reset(outer)

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
        try:
            check_no_escapes((ctx.params or {}).get("arguments"), self._limits)
            result = await call_next(ctx)
        except Exception:
            # What a tool raises is the tool's; what validation raises would tell the schema.
            if call.entered:
                raise
        else:
            if call.entered:
                return result
        # No guarded function was reached, so whatever this is, nobody decided on it.
        return ANSWERS.denied(await self._enforcer.refuse(call, name, UNFIT))

    async def _other(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        """Judge a method that is a Cedar action itself, on the one argument that names its target."""
        rule = self._book.methods[ctx.method]
        target = METHODS[ctx.method]
        named = (ctx.params or {}).get(target)
        # The SDK decodes what it takes out of a URI, so what is judged is decoded too.
        arguments = {target: unquote(named) if target == "uri" and isinstance(named, str) else named}
        # What the handler calls in turn is nested in it.
        call.depth += 1
        try:
            return await self._enforcer.enforce(call, rule, arguments, lambda: call_next(ctx))
        except Denial as denial:
            raise protocol_denial(denial.decision) from None

    def _call(self, ctx: Context) -> Call:
        request, meta = ctx.request, ctx.meta
        headers = getattr(request, "headers", {})
        name = (ctx.params or {}).get("name")
        traceparent = (meta or {}).get("traceparent")
        return Call(
            identify=lambda: self._identify(request, meta),
            answers=ANSWERS,
            transport="stdio" if request is None else "http",
            facts=call_attributes(
                method=ctx.method,
                tool=name if ctx.method == "tools/call" and isinstance(name, str) else None,
                request_id=ctx.request_id,
                session_id=headers.get("mcp-session-id"),
                traceparent=traceparent if isinstance(traceparent, str) else None,
            ),
        )

    async def _identify(self, request: object, meta: Mapping[str, Any] | None) -> Invocation:
        """Return who calls, from the one source that this transport has."""
        if request is not None:
            # The request's own user: the SDK's context variable gave one server's bearer
            # inside another server of the same process. And of it, the text alone.
            user = cast("Mapping[str, object]", getattr(request, "scope", {})).get("user")
            if not isinstance(user, AuthenticatedUser):
                raise Refusal(Reason.UNAUTHENTICATED, "the request has no bearer token: pass **guard.http_auth()")
            return await self._verifier.verify(user.access_token.token)
        acting = ACTING.get()
        if acting is not None:
            return acting
        environment = self._environment
        token = meta_token(meta) if environment is None else environment.token(self._clock())
        return await self._verifier.verify(token, audience=self._audience)
