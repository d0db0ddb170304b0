"""A FastMCP server as a surface, with all that is mounted or proxied in it."""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

import anyio
from anyio.from_thread import start_blocking_portal
from fastmcp import FastMCP
from fastmcp.exceptions import NotFoundError, to_mcp_error
from fastmcp.resources.template import ResourceTemplate
from fastmcp.server.context import reset_transport, set_transport
from fastmcp.server.dependencies import extract_version_spec, fastmcp_request_ctx
from fastmcp.server.providers.base import Provider
from fastmcp.server.transforms.visibility import is_enabled
from fastmcp.utilities.versions import version_sort_key
from mcp.shared.exceptions import MCPError
from mcp_types import INVALID_PARAMS
from typing_extensions import TypeIs

from agentguard.adapters.fastmcp_answers import FastMCPAnswers
from agentguard.adapters.fastmcp_gate import Gate, place_of
from agentguard.adapters.fastmcp_leaf import says_of
from agentguard.adapters.mcpserver import groups_of, is_annotated
from agentguard.adapters.surface import Offer, Registered
from agentguard.errors import ConfigurationError, raised

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from contextlib import AbstractContextManager

    from fastmcp.tools.base import Tool
    from fastmcp.utilities.components import FastMCPComponent
    from mcp.server.context import ServerMiddleware

    from agentguard.adapters.fastmcp_gate import Place
    from agentguard.adapters.fastmcp_leaf import Leaf
    from agentguard.adapters.surface import Check
    from agentguard.adapters.surface import Context as Request

_LOG: Final = logging.getLogger("agentguard")

# How long all that is proxied may take to say what it offers.
_SECONDS: Final = 10


AnyFastMCP = FastMCP[Any]


def is_fastmcp(candidate: object) -> TypeIs[FastMCP[Any]]:
    """Return whether *candidate* is one."""
    return isinstance(candidate, FastMCP)


class FastMCPSurface:
    """One FastMCP server.

    Args:
        server: The server.
        wrappers: Gives the decorated functions of tools, those that came since too.
    """

    answers = FastMCPAnswers()

    def __init__(self, server: FastMCP[Any], wrappers: Callable[[], Iterable[Callable[..., Any]]] = tuple) -> None:
        self._server = server
        self._gate = Gate(server, wrappers)
        self._found: dict[tuple[Offer, str], Leaf] = {}
        self._registered: list[Registered] = []
        self._templates: list[ResourceTemplate] = []
        # What its tools say of themselves, as far as anybody has heard.
        self._heard: dict[str, tuple[object, object]] = {}

    @property
    def name(self) -> str:
        """The server's name."""
        return self._server.name

    @property
    def middleware(self) -> list[ServerMiddleware[Any]]:
        """Where every message passes, outermost first."""
        return self._server._mcp_server.middleware  # noqa: SLF001

    def registered(self) -> list[Registered]:
        """Return all that the server offers now.

        Whoever attaches a guard does not await it, and what is mounted or proxied takes
        waiting for: it happens on an event loop of its own.

        Raises:
            ConfigurationError: If something does not say in time what it offers.
        """
        with start_blocking_portal() as portal:
            try:
                return portal.call(self._discover)
            except TimeoutError:
                message = (
                    f"server `{self.name}` did not say in {_SECONDS} seconds what it offers: "
                    "see that what it proxies is running"
                )
                raise ConfigurationError(message) from None

    async def discover(self) -> list[Registered]:
        """Return the same, or what was known before if it cannot be told now."""
        try:
            # Apart from the request that it happens in: what one caller's session hides is there for the others.
            return await asyncio.create_task(self._discover(), context=Context())
        except Exception as error:  # noqa: BLE001  what is not known has no rule
            _LOG.error("server `%s` does not say what it offers, %s", self.name, raised(error))
            # What it was to say is still to be learned.
            self._gate.changed()
            return self._registered

    def key(self, offer: Offer, named: str) -> str:
        """Return the key of what a caller names, in the version that the message asks for."""
        about = self._gate.about()
        if about is not None and (about.offer, about.named) == (offer, named):
            return about.key
        if offer is Offer.RESOURCE and (offer, named) not in self._found:
            named = next((one.uri_template for one in self._templates if one.matches(named) is not None), named)
        request = fastmcp_request_ctx.get()
        versioned = _versioned(named, extract_version_spec(None if request is None else request.meta))
        return versioned if (offer, versioned) in self._found else named

    def running(self, offer: Offer, key: str) -> Callable[..., Any] | None:
        """Return what would run: of what is about to, or of what was found."""
        about = self._gate.about()
        if about is not None and (about.offer, about.key) == (offer, key):
            return self._gate.running(offer, about.leaf, key)
        leaf = self._found.get((offer, key))
        return None if leaf is None else self._gate.running(offer, leaf, key)

    def knows(self, offer: Offer, key: str) -> bool:
        """Return whether the server has something of this key now."""
        return (offer, key) in self._found

    def absent(self, offer: Offer, named: str) -> Exception:
        """Return what FastMCP raises for a resource or prompt that it does not have."""
        if offer is Offer.RESOURCE:
            return MCPError(code=INVALID_PARAMS, message=f"Resource not found: {named!r}", data={"uri": named})
        return to_mcp_error(NotFoundError(f"Unknown prompt: {named!r}"))

    def put(self, registered: Registered, wrapper: Callable[..., Any]) -> None:
        """Let *wrapper* run in place of a tool's function, or judge the arguments of one that has none."""
        leaf = self._found[registered.offer, registered.key]
        if leaf.function is None:
            self._gate.raw[registered.key] = (leaf, wrapper)
            return
        self._gate.swapped[place_of(registered.offer, leaf), registered.key] = (leaf.function, wrapper)

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever something is added or removed from now on.

        What comes and goes at a proxied server shows when it is listed.
        """
        self._gate.watch(changed)
        bare = self._server.list_tools

        async def list_tools(*, run_middleware: bool = True) -> Any:
            tools = await bare(run_middleware=run_middleware)
            heard = {tool.name: says_of(tool) for tool in tools}
            if any(name not in self._heard or self._heard[name] != said for name, said in heard.items()):
                self._heard |= heard
                changed()
            return tools

        self._server.list_tools = list_tools  # type: ignore[method-assign]

    def stop_unguarded(self, check: Check) -> None:
        """Await *check* before any tool runs, of this server or one that is mounted in it."""
        self._gate.close(check)

    def when_mounted(self, within: Callable[[Request], AbstractContextManager[None]]) -> None:
        """Enter *within* around what another server, which this one is mounted in, lets this one run."""
        self._gate.surround(within)

    def app_hook(self, wrap: Callable[[Any], Any]) -> None:
        """Let *wrap* have every ASGI application that the server makes from now on."""
        bare = self._server.http_app

        def http_app(*args: Any, **kwargs: Any) -> Any:
            return wrap(bare(*args, **kwargs))

        self._server.http_app = http_app  # type: ignore[method-assign]

    async def _discover(self) -> list[Registered]:
        # As over stdio, where FastMCP does not ask for a token: this is no caller.
        transport = set_transport("stdio")
        try:
            with anyio.fail_after(_SECONDS):
                tools = await self._tools()
                # The lists of the provider, since the server's own are for its callers.
                resources = await Provider.list_resources(self._server)
                templates = await Provider.list_resource_templates(self._server)
                prompts = await Provider.list_prompts(self._server)
                found = _Found()
                await self._add(found, Offer.TOOL, ((tool.name, tool) for tool in tools))
                await self._add(found, Offer.RESOURCE, ((str(one.uri), one) for one in resources))
                await self._add(found, Offer.RESOURCE, ((one.uri_template, one) for one in templates))
                await self._add(found, Offer.PROMPT, ((prompt.name, prompt) for prompt in prompts))
        finally:
            reset_transport(transport)
        gone = {key for _, key in self._found.keys() - found.leaves.keys()}
        # What is gone is news when it comes back: a server that is proxied was away, perhaps.
        heard = {name: said for name, said in self._heard.items() if name not in gone}
        self._heard = {tool.name: says_of(tool) for tool in tools} | heard
        self._gate.raw = {key: raw for key, raw in self._gate.raw.items() if (Offer.TOOL, key) in found.leaves}
        self._found, self._gate.keys, self._templates = (
            found.leaves,
            found.keys,
            sorted(templates, key=_newness, reverse=True),
        )
        self._registered = [replace(one, function=self.running(one.offer, one.key)) for one in found.registered]
        return self._registered

    async def _tools(self) -> list[Tool]:
        """Return every tool that a name leads to, whether it is listed or not."""
        injected = self._server._injected_tools()  # noqa: SLF001
        claimed = {tool.name for tool in injected}
        listed = [tool for tool in await Provider.list_tools(self._server) if tool.name not in claimed]
        claimed |= {tool.name for tool in listed}
        # A transform may show a search for tools in place of the tools.
        hidden = [tool for tool in await self._server._list_tools() if tool.name not in claimed]  # noqa: SLF001
        return [*injected, *listed, *[tool for tool in hidden if await self._server.get_tool(tool.name) is not None]]

    async def _add(self, found: _Found, offer: Offer, components: Iterable[tuple[str, FastMCPComponent]]) -> None:
        """Find what each component would run, the newest version that is enabled under the bare name."""
        for name, component in sorted(components, key=lambda one: _newness(one[1]), reverse=True):
            key = name if (offer, name) not in found.leaves else _versioned(name, component.version)
            if (offer, key) in found.leaves:
                continue
            leaf = await self._gate.leaf(offer, self._server, name, component)
            self._gate.reach(*leaf.way)
            place = place_of(offer, leaf)
            found.keys.setdefault(place, {})[name] = key
            found.leaves[offer, key] = leaf
            found.registered.append(_registered(offer, name, key, leaf, component))


@dataclass(frozen=True, slots=True)
class _Found:
    """What a server offers.

    Attributes:
        leaves: What would run, by what the guard knows it by.
        keys: What the guard knows a leaf by, by its place and what the server calls it.
        registered: The same for the guard.
    """

    leaves: dict[tuple[Offer, str], Leaf] = field(default_factory=dict)
    keys: dict[Place, dict[str, str]] = field(default_factory=dict)
    registered: list[Registered] = field(default_factory=list)


def _newness(component: FastMCPComponent) -> tuple[bool, Any]:
    """Return what makes FastMCP take one version and not another."""
    return is_enabled(component), version_sort_key(component)


def _registered(offer: Offer, name: str, key: str, leaf: Leaf, shown: Any) -> Registered:
    """Return one thing as the server shows it, with what would run."""
    component: Any = leaf.component
    tool, resource = offer is Offer.TOOL, offer is Offer.RESOURCE
    return Registered(
        offer=offer,
        key=key,
        name=_versioned(shown.name, None if key == name else component.version) if resource else key,
        function=leaf.function,
        groups=groups_of(shown.annotations) if tool else frozenset(),
        annotated=not tool or is_annotated(shown.annotations),
        # The arguments are judged where they arrive, by the names that they have there.
        schema=component.parameters if tool and leaf.function is None else None,
        template=isinstance(component, ResourceTemplate),
    )


def _versioned(name: str, version: str | None) -> str:
    return name if version is None else f"{name}@{version}"
