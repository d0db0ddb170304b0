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
from typing import TYPE_CHECKING, Any, Final

from fastmcp.exceptions import FastMCPError
from fastmcp.resources.base import Resource
from fastmcp.resources.template import ResourceTemplate, expand_uri_template, forward_uri
from fastmcp.server.dependencies import fastmcp_request_ctx
from fastmcp.utilities.tasks import TaskConfig
from fastmcp.utilities.versions import VersionSpec

from agentguard.adapters.answers import Rehearsed
from agentguard.adapters.fastmcp_answers import FastMCPDenial, NothingRan
from agentguard.adapters.fastmcp_changes import Changes
from agentguard.adapters.fastmcp_leaf import hop_of, leaf_of, own_leaf, says_of
from agentguard.adapters.misfit import hear
from agentguard.adapters.surface import Offer
from agentguard.errors import AccessDenied

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager

    from fastmcp import FastMCP
    from fastmcp.utilities.components import FastMCPComponent

    from agentguard.adapters.fastmcp_leaf import Leaf
    from agentguard.adapters.surface import Check, Context

    Within = Callable[[Context], AbstractContextManager[None]]
    Place = tuple[Offer, int, str, str | None]
    """Where a leaf is: what it is, on which server, under which name, in which version."""

# On a component that asks first: the gates that it came through.
_MARK: Final = "agentguard_gates"
# A worker would run a tool outside of any request.
_NOT_IN_BACKGROUND: Final = {"task_config": TaskConfig(mode="forbidden")}
# The ways in which a component is entered.
_TOOL: Final = (Offer.TOOL, ("_run", "run"))
_RESOURCE: Final = (Offer.RESOURCE, ("_read", "read"))
_TEMPLATE: Final = (Offer.RESOURCE, ("_read", "read", "create_resource"))
_PROMPT: Final = (Offer.PROMPT, ("_render", "render"))
# How FastMCP finds one, and hands them out in lists.
_LOOKUPS: Final = {
    "get_tool": _TOOL,
    "list_tools": _TOOL,
    "_lookup_resource": _RESOURCE,
    "list_resources": _RESOURCE,
    "get_resource_template": _TEMPLATE,
    "list_resource_templates": _TEMPLATE,
    "get_prompt": _PROMPT,
    "list_prompts": _PROMPT,
}
# What a server does when it is called from inside the process, and a message comes down to.
_OPERATIONS: Final = {"call_tool": Offer.TOOL, "read_resource": Offer.RESOURCE, "render_prompt": Offer.PROMPT}


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
        leaf: What would run.
    """

    offer: Offer
    named: str
    key: str
    leaf: Leaf


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

    def under(self, name: str, arguments: tuple[Any, ...]) -> str:
        """Return what one names it by where its place has *name*: of a template, the URI that is read."""
        template = self.component
        if not isinstance(template, ResourceTemplate):
            return name
        uri = self.name
        given: Mapping[str, Any] = next((one for one in arguments if isinstance(one, dict)), {})
        if template.matches(uri) != given:
            # It was found by another URI than the one that is read now, or in a list.
            uri = expand_uri_template(template.uri_template, dict(given))
        if name == template.uri_template:
            return uri
        return forward_uri(name, dict(given), uri)

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
        except FastMCPError as error:
            hear(error)
            raise
        except AccessDenied as denied:
            raise FastMCPDenial(denied.decision) from None
        except Rehearsed:
            raise NothingRan from None
        except Exception as error:
            hear(error)
            raise


@dataclass(slots=True)
class _Operation:
    """Something that was called, and whether the gate was asked about what answers it."""

    asked: bool = False


class Gate:
    """The gate of one guard, on one server and all that are mounted in it.

    Attributes:
        keys: What the guard knows a leaf by, by its place and what the root calls it.
        raw: A tool that has no function, and what judges its arguments, by its key.
        swapped: What runs in place of a function, by its place and key.
        remade: The places of functions that FastMCP makes anew for each call.
    """

    def __init__(self, root: FastMCP[Any], wrappers: Callable[[], Iterable[Callable[..., Any]]]) -> None:
        self.keys: dict[Place, dict[str, str]] = {}
        self.raw: dict[str, tuple[Leaf, Callable[..., Awaitable[Any]]]] = {}
        self.swapped: dict[tuple[Place, str], tuple[Callable[..., Any], Callable[..., Any]]] = {}
        self.remade: set[Place] = set()
        self._root = root
        self._wrappers = wrappers
        self._servers = [root]
        self._changes = Changes()
        self._check: Check | None = None
        self._within: Within | None = None
        self._about: ContextVar[About | None] = ContextVar("agentguard_fastmcp_about", default=None)
        self._operation: ContextVar[_Operation | None] = ContextVar("agentguard_fastmcp_operation", default=None)
        # Where a call was passed on to, and what the root calls that.
        self._towards: ContextVar[tuple[Place, str] | None] = ContextVar("agentguard_fastmcp_towards", default=None)

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
        self._changes.changed = changed
        for server in self._servers:
            self._changes.listen(server)

    def changed(self) -> None:
        """Tell that something may have changed."""
        self._changes.changed()

    def reach(self, *servers: FastMCP[Any]) -> None:
        """Stand on *servers* too."""
        for server in servers:
            if any(known is server for known in self._servers):
                continue
            self._servers.append(server)
            if self._check is not None:
                self._stand_on(server, self._check)
            self._changes.listen(server)

    async def leaf(self, offer: Offer, server: FastMCP[Any], name: str, component: FastMCPComponent) -> Leaf:
        """Return what *component* of *server* would run in the end."""
        leaf = self._reached(offer, await leaf_of(server, name, component))
        if offer is not Offer.TOOL or leaf.function is None or self._decorated(leaf.function):
            return leaf
        again = await leaf.server.get_tool(leaf.name, VersionSpec(eq=leaf.component.version))
        if again is None or own_leaf(leaf.server, leaf.name, again).function is leaf.function:
            return leaf
        self.remade.add(place_of(offer, leaf))
        return replace(leaf, function=None)

    def about(self) -> About | None:
        """Return what is about to run, right here; None if nothing is."""
        return self._about.get()

    def function(self, offer: Offer, leaf: Leaf, key: str) -> Callable[..., Any] | None:
        """Return the function that runs for a leaf, when it is called by what the guard knows as *key*."""
        bare, wrapper = self.swapped.get((place_of(offer, leaf), key), (None, None))
        return leaf.function if leaf.function is not bare else wrapper

    def running(self, offer: Offer, leaf: Leaf, key: str) -> Callable[..., Any] | None:
        """Return the same; or what judges the arguments of a tool that has none, and is still what it was then."""
        function = self.function(offer, leaf, key)
        if function is not None or offer is not Offer.TOOL or key not in self.raw:
            return function
        known, raw = self.raw[key]
        return raw if says_of(known.component) == says_of(leaf.component) else None

    def _reached(self, offer: Offer, leaf: Leaf) -> Leaf:
        if leaf.direct and not {*_gates(leaf.component)} - {self} and place_of(offer, leaf) not in self.remade:
            return leaf
        if leaf.function is None or self._decorated(leaf.function):
            return leaf
        # Nothing can be put in its place: it is out of reach, or another guard stands before it.
        return replace(leaf, function=None)

    def _decorated(self, function: Callable[..., Any]) -> bool:
        bare = getattr(function, "__func__", function)
        return any(wrapper is bare for wrapper in self._wrappers())

    def _stand_on(self, server: FastMCP[Any], check: Check) -> None:
        for lookup, (offer, entries) in _LOOKUPS.items():
            self._replace(server, lookup, offer, entries, check)
        for operation, offer in _OPERATIONS.items():
            self._oversee(server, operation, offer, check)

    def _oversee(self, server: FastMCP[Any], operation: str, offer: Offer, check: Check) -> None:
        """Let nothing but what the gate was asked about answer, since middleware can: out of a cache, say."""
        bare = getattr(server, operation)

        async def operate(*arguments: Any, **named: Any) -> Any:
            if not named.get("run_middleware", True) or self._towards.get() is not None:
                # It is a part of one that is overseen already.
                return await bare(*arguments, **named)
            operation = _Operation()
            outer = self._operation.set(operation)
            try:
                result = await bare(*arguments, **named)
            finally:
                self._operation.reset(outer)
            if not operation.asked:
                name = _asked_for(arguments, named)
                with self._inside(server):
                    await check(offer, name if server is self._root else None, answered=True)
            return result

        setattr(server, operation, operate)

    def _replace(self, server: FastMCP[Any], lookup: str, offer: Offer, entries: tuple[str, ...], check: Check) -> None:
        bare = getattr(server, lookup)

        async def look_up(*names: Any, **named: Any) -> Any:
            found = await bare(*names, **named)
            if lookup.startswith("list_"):
                return [self._asking(_Asked(offer, server, _name(one), one, ""), entries, check) for one in found]
            # A resource comes with whether there is one at all.
            component, *more = found if isinstance(found, tuple) else (found,)
            if component is not None:
                name = _asked_for(names, named)
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
            async def enter(*arguments: Any, **named: Any) -> Any:
                return await self._pass(replace(asked, entry=entry), (*arguments, *named.values()), check)

            return enter

        # A copy of a model keeps what lies in its dictionary; and it stays of its class, which
        # FastMCP looks at.
        asking.__dict__.update({_MARK: (*gates, self), **{entry: entering(entry) for entry in entries}})
        return asking

    async def _pass(self, asked: _Asked, arguments: tuple[Any, ...], check: Check) -> Any:
        with self._inside(asked.server):
            name = self._known_as(asked.place)
            hop = hop_of(asked.component)
            if hop is None:
                with self._going(None):
                    return await self._enter(asked, name, arguments, check)
            self.reach(hop.server)
            # The gate on the mounted server asks, about what is really reached there.
            onward = None if name is None else ((asked.offer, id(hop.server), hop.name, hop.version), name)
            with self._going(onward):
                return await asked.run(*arguments)

    async def _enter(self, asked: _Asked, name: str | None, arguments: tuple[Any, ...], check: Check) -> Any:
        """Ask, and run what is reached."""
        if name is None:
            return await check(asked.offer, None)
        leaf = self._reached(asked.offer, own_leaf(asked.server, asked.name, asked.component))
        key = self.keys.get(asked.place, {}).get(name)
        if key in self.raw and self.running(asked.offer, leaf, key) is None:
            # Only now it shows that another server has changed it.
            self.changed()
        named = asked.under(name, arguments)
        about = self._about.set(About(asked.offer, named, key or name, leaf))
        try:
            await check(asked.offer, named)
        finally:
            self._about.reset(about)
        function = self.function(asked.offer, leaf, key or name)
        # What has no function is known by its place, and by what it says of itself.
        raw = self.running(asked.offer, leaf, key) if key is not None and function is None else None
        operation = self._operation.get()
        if operation is not None:
            operation.asked = True
        if raw is not None:

            async def body(given: dict[str, Any]) -> Any:
                # A person may have thought it over for minutes, and it may be another by now.
                now = await asked.server.get_tool(asked.name, VersionSpec(eq=asked.component.version))
                if now is not None and says_of(now) != says_of(asked.component):
                    await check(asked.offer, None)
                return await asked.run(given)

            return await raw(*arguments, body)
        if function is not leaf.function:
            asked = replace(asked, component=asked.component.model_copy(update={"fn": function}))
        return await asked.run(*arguments)

    def _known_as(self, place: Place) -> str | None:
        """Return what the root calls it; None if nobody who calls the root has a name for it."""
        towards = self._towards.get()
        if place[1] == id(self._root):
            return place[2]
        if towards is not None and towards[0] == place:
            return towards[1]
        # It was reached sideways: from inside its own server, or by what that one's middleware put in.
        return next(iter(self.keys.get(place, ())), None)

    @contextmanager
    def _going(self, towards: tuple[Place, str] | None) -> Iterator[None]:
        before = self._towards.set(towards)
        try:
            yield
        finally:
            self._towards.reset(before)

    @contextmanager
    def _inside(self, server: FastMCP[Any]) -> Iterator[None]:
        request, within = fastmcp_request_ctx.get(), self._within
        if server is not self._root or within is None or request is None:
            yield
            return
        with within(request._srctx):  # noqa: SLF001
            yield


def _asked_for(arguments: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    """Return the name or the URI among the arguments of one of FastMCP's methods."""
    return str(arguments[0] if arguments else named["name"] if "name" in named else named["uri"])


def _name(component: Any) -> str:
    if isinstance(component, ResourceTemplate):
        return component.uri_template
    return str(component.uri if isinstance(component, Resource) else component.name)


def _gates(component: FastMCPComponent) -> tuple[Gate, ...]:
    gates: tuple[Gate, ...] = component.__dict__.get(_MARK, ())
    return gates
