"""The official SDK's `MCPServer`: what a decorator alone cannot see.

Enforcement sits in the decorated function, the one level that a nested
``server.call_tool(…)`` cannot go around. This adapter adds what surrounds it: where the
identity comes from, the preflight before the SDK validates arguments, the denial of
tools that nobody guards, and the words of a denial. `mcp` is imported here and in no
other module.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypedDict, cast
from urllib.parse import unquote

from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolResult, ErrorData, TextContent, ToolAnnotations
from pydantic import ValidationError
from typing_extensions import TypeIs

from agentguard.call import ACTING, Call, Denial
from agentguard.denial import META_KEY, told
from agentguard.errors import AccessDenied, ConfigurationError, Refusal
from agentguard.evidence.record import call_attributes
from agentguard.identity.sources import EnvironmentSource, meta_token, stdio_audience
from agentguard.model import Reason
from agentguard.policy.schema import METHODS
from agentguard.policy.values import check_no_escapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import ContextVar

    from mcp.server.context import CallNext, HandlerResult, ServerRequestContext

    from agentguard.call import Rule
    from agentguard.enforce import Enforcer
    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.limits import Limits
    from agentguard.model import Decision, Invocation


class NestedDenial(MCPError, AccessDenied):  # noqa: N818  it is one decision's answer
    """A denied call inside a tool.

    An `AccessDenied`; and an `MCPError`, since that alone comes through the SDK's own
    ``server.call_tool(…)`` as it was raised.
    """

    def __init__(self, decision: Decision) -> None:
        AccessDenied.__init__(self, decision)
        self.error = ErrorData(code=INVALID_PARAMS, message=str(self.args[0]))


class UnjudgedDenial(ToolError, AccessDenied):  # noqa: N818  it is one decision's answer
    """A denied call that no guard could judge.

    An `AccessDenied`; and a `ToolError`, which the SDK answers without a traceback in the log.
    """

    def __init__(self, decision: Decision) -> None:
        AccessDenied.__init__(self, decision)


class Answers:
    """A denial as the SDK's tools give it."""

    def denied(self, decision: Decision) -> CallToolResult:
        """Return a tool result that says it is an error."""
        words = told(decision)
        return CallToolResult(
            content=[TextContent(type="text", text=words.text)], is_error=True, _meta={META_KEY: words.meta}
        )

    def denied_nested(self, decision: Decision) -> AccessDenied:
        """Return an exception that the SDK hands through."""
        return NestedDenial(decision)


ANSWERS: Final = Answers()

UNFIT: Final = Refusal(Reason.INVALID_ARGUMENT, "the arguments do not fit the tool's schema")


class BearerVerifier:
    """The SDK's `TokenVerifier`, by our verifier."""

    def __init__(self, verifier: InvocationVerifier, resource: str, refused: Callable[[Refusal], None]) -> None:
        self._verifier = verifier
        self._resource = resource
        self._refused = refused

    async def verify_token(self, token: str) -> AccessToken | None:
        """Verify a bearer token; None for any that is not ours to accept."""
        try:
            invocation = await self._verifier.verify(token)
        except Refusal as refusal:
            self._refused(refusal)
            return None
        # The SDK binds sessions, streams, elicitation answers and request state to client,
        # issuer and subject. With the run in the subject, they belong to one run and not to
        # every run of the agent.
        subject = json.dumps([invocation.issuer, invocation.subject, invocation.run_id])
        return AccessToken(
            token=token,
            client_id=invocation.client_id,
            scopes=sorted(invocation.scopes),
            expires_at=int(invocation.ends_at),
            resource=self._resource,
            subject=subject,
            claims={"iss": invocation.issuer},
        )


class HttpAuth(TypedDict):
    """What an `MCPServer` is given so that it takes bearer tokens."""

    auth: AuthSettings
    token_verifier: BearerVerifier


def auth_settings(issuer: str, resource_url: str) -> AuthSettings:
    """Return the SDK's settings for bearer tokens.

    Raises:
        ConfigurationError: If *resource_url* or *issuer* is not a URL.
    """
    try:
        # From text: a URL object would have gained a trailing slash, and an issuer is compared exactly.
        return AuthSettings.model_validate(
            {"issuer_url": issuer, "resource_server_url": resource_url, "validate_token_resource": True}
        )
    except ValidationError:
        message = (
            f"the SDK wants URLs, got issuer `{issuer}` and resource `{resource_url}`: "
            "where the audience is not a URL, pass http_auth(resource_url=…), the server's own address"
        )
        raise ConfigurationError(message) from None


@dataclass(frozen=True, slots=True)
class Registered:
    """One tool as the server knows it."""

    name: str
    function: Callable[..., object]
    groups: frozenset[str]


def _groups(annotations: ToolAnnotations | None) -> frozenset[str]:
    """Return a tool's action groups. An absent hint has the specification's default."""
    hints = annotations or ToolAnnotations()
    groups = {"tools/call"}
    if hints.read_only_hint is True:
        groups.add("read-only")
    elif hints.destructive_hint is not False:
        groups.add("destructive")
    if hints.open_world_hint is not False:
        groups.add("open-world")
    if hints.idempotent_hint is True:
        groups.add("idempotent")
    return frozenset(groups)


def is_server(candidate: object) -> TypeIs[MCPServer[Any]]:
    """Return whether this adapter can serve *candidate*."""
    return isinstance(candidate, MCPServer)


class Adapter:
    """One guard's place in one `MCPServer`."""

    def __init__(
        self,
        server: MCPServer[Any],
        *,
        environment: EnvironmentSource | None,
        verifier: InvocationVerifier,
        current: ContextVar[Call | None],
        clock: Callable[[], float],
        limits: Limits,
    ) -> None:
        self.server = server
        self._environment = environment
        self._verifier = verifier
        self._current = current
        self._clock = clock
        self._limits = limits
        self._audience = stdio_audience(server.name)
        self._rules: Mapping[str, tuple[Callable[..., object], Rule]] = {}
        self._methods: Mapping[str, Rule] = {}
        self._bare: frozenset[str] = frozenset()
        self._enforcer: Enforcer | None = None

    def registered(self) -> list[Registered]:
        """Return every tool that the server has now."""
        # The SDK has no public way to a registered tool's function.
        tools = self.server._tool_manager.list_tools()  # noqa: SLF001
        return [Registered(tool.name, tool.fn, _groups(tool.annotations)) for tool in tools]

    def install(
        self,
        enforcer: Enforcer,
        rules: Mapping[str, tuple[Callable[..., object], Rule]],
        methods: Mapping[str, Rule],
    ) -> None:
        """Begin to judge: from here on every call of the server passes through `__call__`."""
        self._enforcer = enforcer
        self._rules = rules
        self._methods = methods
        self._bare = frozenset(tool.name for tool in self.registered()) - rules.keys()
        self.server.middleware.append(self)
        manager = self.server._tool_manager  # noqa: SLF001
        bare = manager.call_tool

        async def call_tool(name: str, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:  # noqa: FBT001, FBT002
            # Middleware is not in the way of a nested call, nor of a message that other
            # middleware rewrote: a tool that nobody guards is stopped where all calls pass.
            if self._rule(name) is None:
                raise NestedDenial(await enforcer.refuse(self._current.get(), name, self._unguarded(name), known=False))
            return await bare(name, arguments, context, convert_result)

        manager.call_tool = call_tool  # type: ignore[method-assign]

    async def __call__(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Judge one message, as the SDK's middleware."""
        if ctx.request_id is None or (ctx.method != "tools/call" and ctx.method not in self._methods):
            return await call_next(ctx)
        call = self._call(ctx)
        outer = self._current.set(call)
        try:
            if ctx.method == "tools/call":
                return await self._call_tool(ctx, call, call_next)
            return await self._other(ctx, call, call_next)
        finally:
            # A task that the tool left behind still sees this call: it must not act by it.
            call.open = False
            self._current.reset(outer)

    async def _call_tool(self, ctx: ServerRequestContext[Any, Any], call: Call, call_next: CallNext) -> HandlerResult:
        named = (ctx.params or {}).get("name")
        # What is no name names nothing that is guarded.
        name = named if isinstance(named, str) else ""
        enforcer, rule = self._judge(), self._rule(name)
        call.rule = rule
        try:
            await enforcer.preflight(call, name, self._unguarded(name) if rule is None else rule.tool)
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
        return ANSWERS.denied(await enforcer.refuse(call, name, UNFIT))

    async def _other(self, ctx: ServerRequestContext[Any, Any], call: Call, call_next: CallNext) -> HandlerResult:
        """Judge a method that is a Cedar action itself, on the one argument that names its target."""
        rule = self._methods[ctx.method]
        target = METHODS[ctx.method]
        named = (ctx.params or {}).get(target)
        # The SDK decodes what it takes out of a URI, so what is judged is decoded too.
        arguments = {target: unquote(named) if target == "uri" and isinstance(named, str) else named}
        # What the handler calls in turn is nested in it.
        call.depth += 1
        try:
            return await self._judge().enforce(call, rule, arguments, lambda: call_next(ctx))
        except Denial as denial:
            words = told(denial.decision)
            raise MCPError(code=INVALID_PARAMS, message=words.text, data={META_KEY: words.meta}) from None

    def _judge(self) -> Enforcer:
        if self._enforcer is None:
            message = "the adapter judges only once it is installed"
            raise ConfigurationError(message)
        return self._enforcer

    def _rule(self, name: str) -> Rule | None:
        """Return the rule of a tool, if the server still runs the function that was guarded."""
        rule = self._rules.get(name)
        if rule is None:
            return None
        function, found = rule
        # By identity: the name alone is fooled by removing a tool and adding another.
        tool = self.server._tool_manager.get_tool(name)  # noqa: SLF001
        return found if tool is not None and tool.fn is function else None

    def _unguarded(self, name: str) -> Refusal:
        """Return why nothing is guarded under a name. The log alone tells the cases apart."""
        why = "nothing of this name is guarded"
        if name in self._bare:
            why = f"tool `{name}` is not guarded: put @guard.tool below @server.tool()"
        elif self.server._tool_manager.get_tool(name) is not None:  # noqa: SLF001
            why = f"`{name}` was registered after guard.attach(server): register it before"
        return Refusal(Reason.UNGUARDED, why)

    def _call(self, ctx: ServerRequestContext[Any, Any]) -> Call:
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
