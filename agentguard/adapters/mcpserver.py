"""The official SDK's `MCPServer` as a surface."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from mcp.server.mcpserver import MCPServer
from mcp.server.mcpserver.prompts import Prompt
from mcp.server.mcpserver.resources import FunctionResource, ResourceTemplate
from mcp.server.mcpserver.resources.templates import ResourceSecurityError
from mcp.server.mcpserver.tools import Tool
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS, ToolAnnotations
from typing_extensions import TypeIs

from agentguard.adapters.answers import ANSWERS
from agentguard.adapters.injected import SYNTHETIC_CONTEXT
from agentguard.adapters.misfit import hear
from agentguard.adapters.surface import Offer, Registered

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractContextManager

    from mcp.server.context import ServerMiddleware

    from agentguard.adapters.surface import Context
    from agentguard.steps.call import Answers


_RUNNING: Final = (Tool, FunctionResource, ResourceTemplate, Prompt)


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


def is_annotated(annotations: ToolAnnotations | None) -> bool:
    """Return whether a server gives any hint of what a tool does."""
    hints = annotations or ToolAnnotations()
    given = (hints.read_only_hint, hints.destructive_hint, hints.open_world_hint, hints.idempotent_hint)
    return any(hint is not None for hint in given)


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
        self._resources = server._resource_manager  # noqa: SLF001
        self._prompts = server._prompt_manager  # noqa: SLF001

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
        """Return all that the server offers now."""
        tools = [
            Registered(
                offer=Offer.TOOL,
                key=tool.name,
                name=tool.name,
                function=tool.fn,
                groups=groups_of(tool.annotations),
                annotated=is_annotated(tool.annotations),
            )
            for tool in self._tools.list_tools()
        ]
        others = [
            *((Offer.RESOURCE, one.uri, one.name or one.uri) for one in self._resources.list_resources()),
            *((Offer.RESOURCE, one.uri_template, one.name) for one in self._resources.list_templates()),
            *((Offer.PROMPT, one.name, one.name) for one in self._prompts.list_prompts()),
        ]
        return tools + [
            Registered(offer=offer, key=key, name=name, function=self.running(offer, key))
            for offer, key, name in others
        ]

    async def discover(self) -> list[Registered]:
        """Return the same: nothing of it lies elsewhere."""
        return self.registered()

    def key(self, offer: Offer, named: str) -> str:
        """Return the key of what a caller names, by the SDK's own matching of URIs."""
        if offer is not Offer.RESOURCE or named in self._resources._resources:  # noqa: SLF001
            return named
        try:
            found = (one.uri_template for one in self._resources.list_templates() if one.matches(named) is not None)
            return next(found, named)
        except ResourceSecurityError:
            # The SDK looks no further either: there is no such resource.
            return named

    def running(self, offer: Offer, key: str) -> Callable[..., Any] | None:
        """Return the function that would run now."""
        found = self._found(offer, key)
        if offer is Offer.RESOURCE and key in self._resources._resources and key in self._resources._templates:  # noqa: SLF001
            # A URI that is written like a template: which of the two will run, the key does not say.
            return None
        # Of these very classes: one below may have a function, and run another.
        function = found.fn if type(found) in _RUNNING else None  # type: ignore[attr-defined]
        # The SDK validates the arguments of resources and prompts in a wrapper of its own.
        return function if offer is Offer.TOOL else getattr(function, "raw_function", function)

    def knows(self, offer: Offer, key: str) -> bool:
        """Return whether the server has something of this key now."""
        return self._found(offer, key) is not None

    def _found(self, offer: Offer, key: str) -> object:
        if offer is Offer.TOOL:
            return self._tools.get_tool(key)
        if offer is Offer.PROMPT:
            return self._prompts.get_prompt(key)
        return self._resources._resources.get(key) or self._resources._templates.get(key)  # noqa: SLF001

    def absent(self, offer: Offer, named: str) -> Exception:
        """Return what the SDK raises for a resource or prompt that it does not have."""
        if offer is Offer.PROMPT:
            return ValueError(f"Unknown prompt: {named}")
        return MCPError(code=INVALID_PARAMS, message=f"Unknown resource: {named}", data={"uri": named})

    def put(self, registered: Registered, wrapper: Callable[..., Any]) -> None:
        """Let *wrapper* run in place of a tool's function, with the schemas as they were."""
        for tool in self._tools.list_tools():
            if tool.name != registered.key:
                continue
            if tool.resolved_params and tool.context_kwarg is None:
                tool.context_kwarg = SYNTHETIC_CONTEXT
            # Resolvers run after the decision, and by the wrapper.
            tool.resolved_params, tool.resolver_plans = {}, {}
            tool.fn, tool.is_async = wrapper, True

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever something is added or removed from now on."""
        for manager, methods in (
            (self._tools, ("add_tool", "remove_tool")),
            (self._resources, ("add_resource", "add_template")),
            (self._prompts, ("add_prompt", "remove_prompt")),
        ):
            for method in methods:
                _after(manager, method, changed)

    def stop_unguarded(self, check: Callable[[Offer, str], Awaitable[None]]) -> None:
        """Await *check* before anything of the server runs, from inside the process too.

        Middleware is not in the way of a nested call, nor of a message that other
        middleware rewrote.
        """
        bare = self._tools.call_tool
        read_resource, get_prompt = self._server.read_resource, self._server.get_prompt

        async def call_tool(name: str, arguments: dict[str, Any], context: Any, convert_result: bool = False) -> Any:  # noqa: FBT001, FBT002
            await check(Offer.TOOL, name)
            try:
                return await bare(name, arguments, context, convert_result)
            except Exception as error:
                # The SDK makes a result of it, with the values that did not fit.
                hear(error)
                raise

        async def read(uri: Any, context: Any = None) -> Any:
            await check(Offer.RESOURCE, str(uri))
            return await read_resource(uri, context)

        async def get(name: str, arguments: dict[str, Any] | None = None, context: Any = None) -> Any:
            await check(Offer.PROMPT, name)
            return await get_prompt(name, arguments, context)

        self._tools.call_tool = call_tool  # type: ignore[method-assign]
        # On the object: the SDK's own handlers and a tool's context both ask there.
        self._server.read_resource, self._server.get_prompt = read, get  # type: ignore[method-assign]

    def when_mounted(self, within: Callable[[Context], AbstractContextManager[None]]) -> None:
        """Nothing: the SDK mounts no server in another."""

    def app_hook(self, wrap: Callable[[Any], Any]) -> None:
        """Let *wrap* have every ASGI application that the server makes from now on."""
        bare = self._server.streamable_http_app

        @functools.wraps(bare)
        def streamable_http_app(**options: Any) -> Any:
            return wrap(bare(**options))

        # On the object: `run` and whoever mounts the application both ask there.
        self._server.streamable_http_app = streamable_http_app  # type: ignore[method-assign]


def _after(owner: object, method: str, then: Callable[[], None]) -> None:
    """Call *then* after each call of a method."""
    bare = getattr(owner, method)

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return bare(*args, **kwargs)
        finally:
            then()

    setattr(owner, method, called)
