"""What of a FastMCP server would run in the end: behind what is mounted, transformed or versioned.

FastMCP hands out components that only pass a call on: to a mounted server, or to the tool
that a transformed one was made of. The last one, which runs something of its own, is a
leaf, and it alone says whether a guarded function will be reached.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastmcp.prompts.function_prompt import FunctionPrompt
from fastmcp.resources.function_resource import FunctionResource
from fastmcp.resources.template import FunctionResourceTemplate
from fastmcp.server.providers.base import Provider
from fastmcp.server.providers.fastmcp_provider import (
    FastMCPProviderPrompt,
    FastMCPProviderResource,
    FastMCPProviderResourceTemplate,
    FastMCPProviderTool,
)
from fastmcp.tools.function_tool import FunctionTool
from fastmcp.tools.tool_transform import TransformedTool
from fastmcp.utilities.versions import VersionSpec

if TYPE_CHECKING:
    from collections.abc import Callable

    from fastmcp import FastMCP
    from fastmcp.utilities.components import FastMCPComponent

# By their exact types, here and below: a class of somebody else's may run anything.
_FUNCTIONS = (FunctionTool, FunctionResource, FunctionResourceTemplate, FunctionPrompt)
_MOUNTED = (FastMCPProviderTool, FastMCPProviderResource, FastMCPProviderResourceTemplate, FastMCPProviderPrompt)


@dataclass(frozen=True, slots=True)
class Leaf:
    """What would run.

    Attributes:
        server: Which server has it: the one that was asked, or one that is mounted in it.
        name: What it is called there.
        component: What the server hands out.
        function: The function; None where only FastMCP can run it.
        direct: Whether it is the component's own, and not that of what the component was made of.
        way: The mounted servers on the way to it, outermost first.
    """

    server: FastMCP[Any]
    name: str
    component: FastMCPComponent
    function: Callable[..., Any] | None
    direct: bool = True
    way: tuple[FastMCP[Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Hop:
    """Where a component passes a call on to.

    Attributes:
        server: A mounted server.
        name: What that one calls it.
        version: In which version.
    """

    server: FastMCP[Any]
    name: str
    version: str | None


def hop_of(component: FastMCPComponent) -> Hop | None:
    """Return where *component* passes a call on to; None if it runs something of its own server."""
    inner: Any = _behind(component)
    if type(inner) not in _MOUNTED:
        return None
    # FastMCP has no public way to what it mounted.
    if type(inner) is FastMCPProviderResource:
        original = inner._original_uri  # noqa: SLF001
    elif type(inner) is FastMCPProviderResourceTemplate:
        original = inner._original_uri_template  # noqa: SLF001
    else:
        original = inner._original_name  # noqa: SLF001
    return Hop(inner._server, str(original), inner.version)  # noqa: SLF001


def says_of(component: Any) -> tuple[object, object]:
    """Return what a tool says of itself that policies depend on."""
    return component.parameters, component.annotations


def own_leaf(server: FastMCP[Any], name: str, component: FastMCPComponent, way: tuple[FastMCP[Any], ...] = ()) -> Leaf:
    """Return what *component* would run, where it passes no call on to another server."""
    inner = _behind(component)
    if type(inner) in _FUNCTIONS or type(inner) is TransformedTool:
        direct = inner is component and type(inner) is not TransformedTool
        return Leaf(server, name, component, _function(inner), direct, way)
    return Leaf(server, name, component, None, way=way)


async def leaf_of(
    server: FastMCP[Any], name: str, component: FastMCPComponent, way: tuple[FastMCP[Any], ...] = ()
) -> Leaf:
    """Return what *component* of *server* would run in the end."""
    hop = hop_of(component)
    if hop is None:
        return own_leaf(server, name, component, way)
    way = (*way, hop.server)
    inner = _behind(component)
    found = await _mounted(hop, type(inner))
    if found is None:
        return Leaf(hop.server, hop.name, inner, None, way=way)
    return await leaf_of(hop.server, hop.name, found, way)


def _behind(component: FastMCPComponent) -> FastMCPComponent:
    while type(component) is TransformedTool and component.fn is component.forwarding_fn:
        # It renames arguments, and runs nothing of its own.
        component = component.parent_tool
    return component


def _function(component: Any) -> Callable[..., Any]:
    # pydantic's `validate_call` is around the function of a template.
    function: Callable[..., Any] = component.fn
    return getattr(function, "raw_function", function) if type(component) is FunctionResourceTemplate else function


async def _mounted(hop: Hop, kind: type) -> FastMCPComponent | None:
    """Return what the mounted server has there."""
    version = VersionSpec(eq=hop.version) if hop.version else None
    if kind is FastMCPProviderResource:
        return await hop.server.get_resource(hop.name, version)
    if kind is FastMCPProviderResourceTemplate:
        templates = await Provider.list_resource_templates(hop.server)
        same = [one for one in templates if one.uri_template == hop.name and one.version == hop.version]
        return same[0] if same else None
    return await (hop.server.get_tool if kind is FastMCPProviderTool else hop.server.get_prompt)(hop.name, version)
