"""The official SDK's `MCPServer` as a surface."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations
from typing_extensions import TypeIs

from agentguard.adapters.injected import SYNTHETIC_CONTEXT
from agentguard.adapters.surface import Offer, Registered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.context import ServerMiddleware


def groups_of(annotations: ToolAnnotations | None) -> frozenset[str]:
    """Return a tool's groups of actions. An absent hint has the specification's default."""
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


def is_mcpserver(candidate: object) -> TypeIs[MCPServer[Any]]:
    """Return whether *candidate* is one."""
    return isinstance(candidate, MCPServer)


class MCPServerSurface:
    """One `MCPServer`.

    The SDK has no public way to a registered function, so the managers are private names.
    """

    def __init__(self, server: MCPServer[Any]) -> None:
        self._server = server
        self._tools = server._tool_manager  # noqa: SLF001

    @property
    def name(self) -> str:
        """The server's name."""
        return self._server.name

    @property
    def middleware(self) -> list[ServerMiddleware[Any]]:
        """Where every message passes, outermost first."""
        return self._server.middleware

    def registered(self) -> list[Registered]:
        """Return all that the server offers now."""
        return [
            Registered(
                offer=Offer.TOOL,
                key=tool.name,
                name=tool.name,
                function=tool.fn,
                groups=groups_of(tool.annotations),
            )
            for tool in self._tools.list_tools()
        ]

    async def discover(self) -> list[Registered]:
        """Return the same: nothing of it lies elsewhere."""
        return self.registered()

    def running(self, offer: Offer, key: str) -> Callable[..., Any] | None:
        """Return the function that would run now."""
        tool = self._tools.get_tool(key) if offer is Offer.TOOL else None
        return None if tool is None else tool.fn

    def knows(self, offer: Offer, key: str) -> bool:
        """Return whether the server has something of this key now."""
        return self.running(offer, key) is not None

    def put(self, registered: Registered, wrapper: Callable[..., Any]) -> None:
        """Let *wrapper* run in place of a tool's function, with the schemas as they were."""
        tool = self._tools.get_tool(registered.key)
        if tool is None:
            return
        if tool.resolved_params and tool.context_kwarg is None:
            tool.context_kwarg = SYNTHETIC_CONTEXT
        # Resolvers run after the decision, and by the wrapper.
        tool.resolved_params, tool.resolver_plans = {}, {}
        tool.fn, tool.is_async = wrapper, True

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever a tool is added or removed from now on."""
        for method in ("add_tool", "remove_tool"):
            _after(self._tools, method, changed)

    def stop_unguarded(self, check: Callable[[Offer, str], Awaitable[None]]) -> None:
        """Await *check* before any tool is called, from inside the process too.

        Middleware is not in the way of a nested call, nor of a message that other
        middleware rewrote.
        """
        bare = self._tools.call_tool

        async def call_tool(name: str, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:  # noqa: FBT001, FBT002
            await check(Offer.TOOL, name)
            return await bare(name, arguments, context, convert_result)

        self._tools.call_tool = call_tool  # type: ignore[method-assign]

    def app_hook(self, wrap: Callable[[Any], Any]) -> None:
        """Let *wrap* have every ASGI application that the server makes from now on."""


def _after(owner: object, method: str, then: Callable[[], None]) -> None:
    """Call *then* after each call of a method."""
    bare = getattr(owner, method)

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return bare(*args, **kwargs)
        finally:
            then()

    setattr(owner, method, called)
