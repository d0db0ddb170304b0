"""Where everything of a FastMCP server passes before it runs.

FastMCP looks a component up by name, whatever the call came by: over the wire, from
inside a tool, under the name that its middleware put in, by hash, injected by middleware,
or by way of a server that this one is mounted in. So that is where the gate stands, on
the server and on all that are mounted in it: it hands out components that ask first.
Middleware and transforms are not in the way of all of these.
"""

from __future__ import annotations

from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from fastmcp.exceptions import FastMCPError
from fastmcp.resources.template import ResourceTemplate, forward_uri
from fastmcp.server.dependencies import fastmcp_request_ctx
from fastmcp.server.providers.local_provider import LocalProvider
from fastmcp.utilities.tasks import TaskConfig

from agentguard.adapters.answers import Rehearsed
from agentguard.adapters.fastmcp_answers import FastMCPDenial, NothingRan
from agentguard.adapters.fastmcp_leaf import leaf_of
from agentguard.adapters.surface import Offer
from agentguard.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from contextlib import AbstractContextManager

    from fastmcp import FastMCP
    from fastmcp.utilities.components import FastMCPComponent

    from agentguard.adapters.fastmcp_leaf import Leaf
    from agentguard.adapters.surface import Context

    Check = Callable[[Offer, str], Awaitable[None]]
    Within = Callable[[Context], AbstractContextManager[None]]
    Place = tuple[Offer, int, str, str | None]
    """Where a leaf is: what it is, on which server, under which name, in which version."""

# On a component that asks first: the gates that it came through.
_MARK: Final = "agentguard_gates"
# A worker would run a tool outside of any request.
_NOT_IN_BACKGROUND: Final = {"task_config": TaskConfig(mode="forbidden")}
# How FastMCP finds a component, and the ways in which a found one is entered.
_LOOKUPS: Final = {
    "get_tool": (Offer.TOOL, ("_run", "run")),
    "_lookup_resource": (Offer.RESOURCE, ("_read", "read")),
    "get_resource_template": (Offer.RESOURCE, ("_read", "read")),
    "get_prompt": (Offer.PROMPT, ("_render", "render")),
}
_CHANGES: Final = ("add_provider", "add_transform")
_LOCAL_CHANGES: Final = ("_add_component", "_remove_component")


def place_of(offer: Offer, leaf: Leaf) -> Place:
    """Return where a leaf is."""
    return offer, id(leaf.server), leaf.name, leaf.component.version


@dataclass(frozen=True, slots=True)
class About:
    """What is about to run.

    Attributes:
        offer: What it is.
        named: What a caller of the root names it by.
        key: What the guard knows it by.
        function: What would run; None where only FastMCP can run it.
    """

    offer: Offer
    named: str
    key: str
    function: Callable[..., Any] | None


@dataclass(frozen=True, slots=True)
class _Asked:
    """A component that was asked for: of which server, under which name, and how it is entered."""

    offer: Offer
    server: FastMCP[Any]
    name: str
    component: FastMCPComponent
    entry: str

    @property
    def place(self) -> Place:
        """Where it is. A template is under its own name, whatever URI it was found by."""
        component = self.component
        name = component.uri_template if isinstance(component, ResourceTemplate) else self.name
        return self.offer, id(self.server), name, component.version

    async def run(self, *arguments: Any) -> Any:
        """Run it.

        Raises:
            FastMCPDenial: It was denied.
            NothingRan: It would have run, and was not to.
            Exception: Whatever it raises.
        """
        # FastMCP hides what is not an error of its own, or logs it as a failure.
        try:
            return await getattr(self.component, self.entry)(*arguments)
        except FastMCPError:
            raise
        except AccessDenied as denied:
            raise FastMCPDenial(denied.decision) from None
        except Rehearsed:
            raise NothingRan from None


class Gate:
    """The gate of one guard, on one server and all that are mounted in it.

    Attributes:
        keys: What the root calls a leaf, and what the guard calls it, by its place.
        raw: What judges the arguments of a tool that has no function, by its key.
        swapped: What runs in place of a function, by its place.
    """

    def __init__(self, root: FastMCP[Any], wrappers: frozenset[Callable[..., Any]]) -> None:
        self.keys: dict[Place, tuple[str, str]] = {}
        self.raw: dict[str, Callable[..., Awaitable[Any]]] = {}
        self.swapped: dict[Place, tuple[Callable[..., Any], Callable[..., Any]]] = {}
        self._root = root
        self._wrappers = wrappers
        self._servers = [root]
        self._check: Check | None = None
        self._within: Within | None = None
        self._changed: Callable[[], None] | None = None
        self._about: ContextVar[About | None] = ContextVar("agentguard_fastmcp_about", default=None)

    def close(self, check: Check) -> None:
        """Let nothing through that *check* stops, from now on."""
        self._check = check
        for server in self._servers:
            self._stand_on(server, check)

    def surround(self, within: Within) -> None:
        """Enter *within* around whatever the root runs."""
        self._within = within

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever one of the servers gets or loses something."""
        self._changed = changed
        for server in self._servers:
            _listen(server, changed)

    def reach(self, *servers: FastMCP[Any]) -> None:
        """Stand on *servers* too."""
        for server in servers:
            if any(known is server for known in self._servers):
                continue
            self._servers.append(server)
            if self._check is not None:
                self._stand_on(server, self._check)
            if self._changed is not None:
                _listen(server, self._changed)

    async def leaf(self, server: FastMCP[Any], name: str, component: FastMCPComponent) -> Leaf:
        """Return what *component* of *server* would run in the end."""
        leaf = await leaf_of(server, name, component)
        if leaf.function in self._wrappers or (leaf.direct and not {*_gates(leaf.component)} - {self}):
            return leaf
        # Nothing can be put in its place: it is out of reach, or another guard stands before it.
        return replace(leaf, function=None)

    def about(self) -> About | None:
        """Return what is about to run, right here; None if nothing is."""
        return self._about.get()

    def function(self, offer: Offer, leaf: Leaf) -> Callable[..., Any] | None:
        """Return the function that runs for a leaf."""
        bare, wrapper = self.swapped.get(place_of(offer, leaf), (None, None))
        return leaf.function if leaf.function is not bare else wrapper

    def _stand_on(self, server: FastMCP[Any], check: Check) -> None:
        for lookup, (offer, entries) in _LOOKUPS.items():
            self._replace(server, lookup, offer, entries, check)

    def _replace(self, server: FastMCP[Any], lookup: str, offer: Offer, entries: tuple[str, ...], check: Check) -> None:
        bare = getattr(server, lookup)

        async def look_up(*names: Any, **named: Any) -> Any:
            found = await bare(*names, **named)
            # A resource comes with whether there is one at all.
            component, *more = found if isinstance(found, tuple) else (found,)
            if component is not None:
                name = str((*names, *named.values())[0])
                component = self._asking(_Asked(offer, server, name, component, ""), entries, check)
            return (component, *more) if more else component

        setattr(server, lookup, look_up)

    def _asking(self, asked: _Asked, entries: tuple[str, ...], check: Check) -> FastMCPComponent:
        """Return a component that asks before it runs."""
        gates = _gates(asked.component)
        if self in gates:
            return asked.component
        asking = asked.component.model_copy(update=_NOT_IN_BACKGROUND if asked.offer is Offer.TOOL else None)

        def entering(entry: str) -> Callable[..., Awaitable[Any]]:
            async def enter(*arguments: Any) -> Any:
                return await self._pass(replace(asked, entry=entry), arguments, check)

            return enter

        # A copy of a model keeps what lies in its dictionary; and it stays of its class, which
        # FastMCP looks at.
        asking.__dict__.update({_MARK: (*gates, self), **{entry: entering(entry) for entry in entries}})
        return asking

    async def _pass(self, asked: _Asked, arguments: tuple[Any, ...], check: Check) -> Any:
        with self._inside(asked.server):
            leaf = await self.leaf(asked.server, asked.name, asked.component)
            self.reach(*leaf.way)
            if leaf.way:
                # The gate on the mounted server asks, about what is really reached there.
                return await asked.run(*arguments)
            named, key = self._known_as(asked)
            function = self.function(asked.offer, leaf)
            # What has no function is known by its place alone.
            is_raw = function is None and asked.offer is Offer.TOOL and asked.place in self.keys
            raw = self.raw.get(key) if is_raw else None
            about = self._about.set(About(asked.offer, named, key, function or raw))
            try:
                await check(asked.offer, named)
            finally:
                self._about.reset(about)
            if raw is not None:
                return await raw(*arguments, asked.run)
            if function is not leaf.function:
                asked = replace(asked, component=asked.component.model_copy(update={"fn": function}))
            return await asked.run(*arguments)

    def _known_as(self, asked: _Asked) -> tuple[str, str]:
        """Return what a caller of the root names it by, and what the guard knows it by."""
        place = asked.place
        at_root, key = self.keys.get(place, (place[2], place[2]))
        if not isinstance(asked.component, ResourceTemplate):
            return at_root, key
        if at_root == asked.component.uri_template:
            return asked.name, key
        return forward_uri(at_root, asked.component.matches(asked.name) or {}, asked.name), key

    @contextmanager
    def _inside(self, server: FastMCP[Any]) -> Iterator[None]:
        request, within = fastmcp_request_ctx.get(), self._within
        if server is not self._root or within is None or request is None:
            yield
            return
        with within(request._srctx):  # noqa: SLF001
            yield


def _gates(component: FastMCPComponent) -> tuple[Gate, ...]:
    gates: tuple[Gate, ...] = component.__dict__.get(_MARK, ())
    return gates


def _listen(server: FastMCP[Any], changed: Callable[[], None]) -> None:
    for method in _CHANGES:
        _after(server, method, changed)
    for provider in server.providers:
        if isinstance(provider, LocalProvider):
            for method in _LOCAL_CHANGES:
                _after(provider, method, changed)


def _after(owner: object, method: str, then: Callable[[], None]) -> None:
    """Call *then* after each call of a method."""
    bare = cast("Callable[..., Any]", getattr(owner, method))

    def called(*args: Any, **kwargs: Any) -> Any:
        try:
            return bare(*args, **kwargs)
        finally:
            then()

    setattr(owner, method, called)
