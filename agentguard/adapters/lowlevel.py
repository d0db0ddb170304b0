"""The official SDK's low-level `Server` as a surface.

Such a server knows methods and their handlers, and no tools: its developer lists them. A
tool runs either through a decorated function of its name, which the developer's own handler
calls by `Guard.call`; or, without one, the handler itself is what runs, and the raw arguments
are what is judged. Both happen at the handler, where every call passes: other middleware may
have rewritten what ours saw.
"""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol, cast
from weakref import WeakKeyDictionary

from mcp import Client
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context as ToolContext
from mcp.server.mcpserver.exceptions import ResourceError, ToolError, UnexpectedResourceError, UnexpectedToolError
from mcp.server.mcpserver.resolve import find_resolved_parameters
from mcp.server.mcpserver.utilities.context_injection import find_context_parameter
from mcp.server.mcpserver.utilities.func_metadata import FuncMetadata, func_metadata
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, CallToolRequestParams, CallToolResult, InputRequiredResult, TextContent, Tool
from typing_extensions import TypeIs

from agentguard.adapters.answers import ANSWERS
from agentguard.adapters.mcpserver import groups_of, is_annotated
from agentguard.adapters.misfit import hear, unfit
from agentguard.adapters.surface import Offer, Registered
from agentguard.errors import ConfigurationError, Refusal, raised
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping
    from contextlib import AbstractContextManager

    from mcp.server.context import ServerMiddleware, ServerRequestContext

    from agentguard.adapters.surface import Check
    from agentguard.model import Decision
    from agentguard.steps.call import Answers, Call

    Context = ServerRequestContext[Any, Any]
    Result = CallToolResult | InputRequiredResult

_LOG: Final = logging.getLogger("agentguard")
_MOST_PAGES: Final = 100
# How often one call is judged anew, since its tool is another by now.
_MOST_CHANGES: Final = 3


def is_lowlevel(candidate: object) -> TypeIs[Server[Any]]:
    """Return whether *candidate* is one."""
    return isinstance(candidate, Server)


class LiveTools(Protocol):
    """The tools of a server that may change while it is served."""

    async def tools(self) -> list[Tool]:
        """Return them as they are now."""

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever they may have changed."""


LIVE: Final[WeakKeyDictionary[Server[Any], LiveTools]] = WeakKeyDictionary()
"""The servers whose tools may change."""


async def tools_of(server: object) -> list[Tool] | None:
    """Return what a low-level server lists, as a client of it sees that; None for servers that keep a list."""
    if not is_lowlevel(server):
        return None
    if server.get_request_handler("tools/list") is None:
        return []
    found: list[Tool] = []
    async with Client(server) as client:
        page = await client.list_tools()
        found += page.tools
        for _ in range(_MOST_PAGES):
            if page.next_cursor is None:
                return found
            page = await client.list_tools(cursor=page.next_cursor)
            found += page.tools
    message = f"server `{server.name}` lists its tools on more than {_MOST_PAGES} pages: pass attach(tools=…)"
    raise ConfigurationError(message)


@dataclass(frozen=True, slots=True)
class _Function:
    """A decorated function, and how the SDK reads its arguments and its result."""

    wrapper: Callable[..., Awaitable[Any]]
    metadata: FuncMetadata
    context: str | None


class LowLevelSurface:
    """One low-level `Server`.

    Args:
        server: The server.
        tools: What its ``on_list_tools`` lists.
        wrappers: The decorated functions, which the tools of their names run.

    Raises:
        ConfigurationError: If these do not fit each other.
    """

    def __init__(self, server: Server[Any], tools: Iterable[Tool], wrappers: Iterable[Callable[..., Any]]) -> None:
        self._server = server
        self._tools: dict[str, Tool] = {}
        for tool in tools:
            if not isinstance(cast("object", tool), Tool):
                message = f"tools= wants the `Tool` values that the server lists, got `{type(tool).__qualname__}`"
                raise ConfigurationError(message)
            if tool.name in self._tools:
                message = f"tools= lists `{tool.name}` twice: give each tool a name of its own"
                raise ConfigurationError(message)
            self._tools[tool.name] = tool
        if self._tools and server.get_request_handler(Offer.TOOL) is None:
            message = "the server has tools and nothing that runs them: pass Server(on_call_tool=…)"
            raise ConfigurationError(message)
        self._functions: dict[str, _Function] = {}
        for wrapper in wrappers:
            self._add(wrapper)
        self._live = LIVE.get(server)
        self._raw: dict[str, Callable[..., Awaitable[Any]]] = {}
        self._handler: object = None

    def _add(self, wrapper: Callable[..., Any]) -> None:
        name = wrapper.__name__
        if name not in self._tools:
            message = f"`{name}` is under @guard.tool and is no tool of the server: list it in attach(tools=…)"
            raise ConfigurationError(message)
        if name in self._functions:
            message = f"two functions under @guard.tool have the name `{name}`: rename one, and its tool"
            raise ConfigurationError(message)
        if find_resolved_parameters(wrapper.__wrapped__):  # type: ignore[attr-defined]
            # What they keep between two rounds comes back from the client, unsealed here.
            message = f"tool `{name}` has Resolve parameters, which only an MCPServer fills: return InputRequiredResult"
            raise ConfigurationError(message)
        context = find_context_parameter(wrapper)
        metadata = func_metadata(wrapper, skip_names=[context] if context else [])
        self._functions[name] = _Function(wrapper, metadata, context)

    @property
    def name(self) -> str:
        """The server's name."""
        return self._server.name

    @property
    def middleware(self) -> list[ServerMiddleware[Any]]:
        """Where every message passes, outermost first."""
        return self._server.middleware

    @property
    def answers(self) -> Answers:
        """How the SDK is told of a denial."""
        return ANSWERS

    def registered(self) -> list[Registered]:
        """Return the tools that the developer listed."""
        return [
            Registered(
                offer=Offer.TOOL,
                key=name,
                name=name,
                function=self._function(name),
                groups=groups_of(tool.annotations),
                annotated=is_annotated(tool.annotations),
                schema=tool.input_schema,
            )
            for name, tool in self._tools.items()
        ]

    async def discover(self) -> list[Registered]:
        """Return the tools that are listed now; one that changed is judged anew."""
        if self._live is not None:
            now = {tool.name: tool for tool in await self._live.tools()}
            self._raw = {name: raw for name, raw in self._raw.items() if now.get(name) == self._tools.get(name)}
            self._tools = now
        return self.registered()

    def key(self, offer: Offer, named: str) -> str:  # noqa: ARG002  the protocol's
        """Return what the caller names: there are no templates here."""
        return named

    def running(self, offer: Offer, key: str) -> Callable[..., Any] | None:
        """Return what would run now."""
        if offer is not Offer.TOOL or (self._handler is not None and self._running_handler() is not self._handler):
            # Somebody put another handler in the place of ours: nothing of it is guarded.
            return None
        return self._function(key)

    def knows(self, offer: Offer, key: str) -> bool:
        """Return whether the server has something of this key; of resources and prompts it alone knows."""
        return offer is not Offer.TOOL or key in self._tools

    def absent(self, offer: Offer, named: str) -> Exception:
        """Return the error for what is not there."""
        return MCPError(code=INVALID_PARAMS, message=f"Unknown {offer.word}: {named}")

    def put(self, registered: Registered, wrapper: Callable[..., Any]) -> None:
        """Let *wrapper* have the raw arguments of a tool, and the developer's handler as its body."""
        self._raw[registered.key] = wrapper

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever tools may have changed; mostly they are those that were listed."""
        if self._live is not None:
            self._live.watch(changed)

    def stop_unguarded(self, check: Check) -> None:
        """Await *check* before the developer's handler runs, and judge raw arguments there."""
        entry = self._server.get_request_handler(Offer.TOOL)
        if entry is None:
            return
        bare = entry.handler

        async def handler(ctx: Context, params: Any, changes: int = 0) -> Any:
            await check(Offer.TOOL, params.name if changes < _MOST_CHANGES else None)
            raw = self._raw.get(params.name)
            if raw is None:
                try:
                    return await bare(ctx, params)
                finally:
                    # It counts only if the function was not reached.
                    hear(f"the handler of `{params.name}` did not hand over: `return await guard.call(…)`")

            async def body(given: dict[str, Any]) -> Any:
                # A person may have thought it over for minutes. If it is another tool by now, that one is judged.
                await check(Offer.TOOL, params.name)
                again = params.model_copy(update={"arguments": given})
                if self._raw.get(params.name) is raw:
                    return await bare(ctx, again)
                return await handler(ctx, again, changes + 1)

            return await raw(params.arguments, body)

        self._server.add_request_handler(Offer.TOOL, entry.params_type, handler)
        self._handler = self._running_handler()

    def when_mounted(self, within: Callable[[Context], AbstractContextManager[None]]) -> None:
        """Nothing: the SDK mounts no server in another."""

    def app_hook(self, wrap: Callable[[Any], Any]) -> None:
        """Let *wrap* have every ASGI application that the server makes from now on."""
        bare = self._server.streamable_http_app

        @functools.wraps(bare)
        def streamable_http_app(**options: Any) -> Any:
            return wrap(bare(**options))

        self._server.streamable_http_app = streamable_http_app  # type: ignore[method-assign]

    async def call(
        self,
        call: Call | None,
        name: str,
        arguments: Mapping[str, Any] | None,
        refuse: Callable[[Refusal], Awaitable[Decision]],
    ) -> Result:
        """Call a decorated function as an `MCPServer` would.

        Args:
            call: The request.
            name: The tool.
            arguments: As the caller sent them.
            refuse: Records a denial.

        Raises:
            AccessDenied: If it is denied inside another guarded call.
            MCPError: As the function raised it.
        """
        function = self._functions.get(name)
        if function is None:
            refusal = Refusal(Reason.UNGUARDED, "guard.call wants the name of a function under @guard.tool")
            return self._denied(call, name, await refuse(refusal))
        try:
            given = function.metadata.validate_arguments(dict(arguments or {}))
        except Exception as error:  # noqa: BLE001  what validation raises would tell the schema
            rule = None if call is None else call.rule
            tool = rule.tool if rule is not None and rule.tool.name == name else None
            return self._denied(call, name, await refuse(unfit(tool, [error])))
        try:
            if function.context is not None:
                given[function.context] = _context(call)
            return function.metadata.convert_result(await function.wrapper(**given))
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001  as the SDK answers what a tool raises
            return CallToolResult(content=[TextContent(type="text", text=_told(name, error))], is_error=True)

    @staticmethod
    def _denied(call: Call | None, name: str, decision: Decision) -> CallToolResult:
        if call is None or not call.open or call.depth:
            raise ANSWERS.denied_nested(decision)
        # It is decided, so nobody has to decide it again.
        call.entered |= call.rule is not None and call.rule.tool.name == name
        return ANSWERS.denied(decision)

    def _function(self, name: str) -> Callable[..., Any] | None:
        function = self._functions.get(name)
        return self._raw.get(name) if function is None else function.wrapper

    def _running_handler(self) -> object:
        entry = self._server.get_request_handler(Offer.TOOL)
        return None if entry is None else entry.handler


def _context(call: Call | None) -> ToolContext[Any, Any]:
    """Return the context that a function asks for, with the answers that came with the request."""
    ctx: Any = None if call is None else call.framework
    if ctx is None or call is None:
        return ToolContext()
    # Answers belong to the tool that the request names, and not to what it calls in turn.
    answers = CallToolRequestParams.model_validate(ctx.params, by_name=False) if not call.depth else None
    return ToolContext(request_context=ctx, input_params=answers)


def _told(name: str, error: Exception) -> str:
    """Return what a caller learns of a failure: a deliberate one's own words, and no other's."""
    text = f"Error executing tool {name}"
    crashed = isinstance(error, UnexpectedToolError | UnexpectedResourceError)
    if crashed or not isinstance(error, ToolError | ResourceError):
        _LOG.error("tool `%s` failed: %s", name, raised(error))
    return f"{text}: {error}" if isinstance(error, ToolError | ResourceError) else text
