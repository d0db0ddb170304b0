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


async def leaf_of(
    server: FastMCP[Any], name: str, component: FastMCPComponent, way: tuple[FastMCP[Any], ...] = ()
) -> Leaf:
    """Return what *component* of *server* would run in the end."""
    inner = component
    while type(inner) is TransformedTool and inner.fn is inner.forwarding_fn:
        # It renames arguments, and runs nothing of its own.
        inner = inner.parent_tool
    if type(inner) in _MOUNTED:
        child, original, found = await _mounted(inner)
        if found is None:
            return Leaf(child, original, inner, None, way=(*way, child))
        return await leaf_of(child, original, found, (*way, child))
    if type(inner) in _FUNCTIONS or type(inner) is TransformedTool:
        direct = inner is component and type(inner) is not TransformedTool
        return Leaf(server, name, component, _function(inner), direct, way)
    return Leaf(server, name, component, None, way=way)


def _function(component: Any) -> Callable[..., Any]:
    # pydantic's `validate_call` is around the function of a template.
    function: Callable[..., Any] = component.fn
    return getattr(function, "raw_function", function) if type(component) is FunctionResourceTemplate else function


async def _mounted(component: Any) -> tuple[FastMCP[Any], str, FastMCPComponent | None]:
    """Return the server that is mounted, what it calls the component, and its own of that name."""
    # FastMCP has no public way to what it mounted.
    child: FastMCP[Any] = component._server  # noqa: SLF001
    version = VersionSpec(eq=component.version) if component.version else None
    if type(component) is FastMCPProviderResource:
        uri = str(component._original_uri)  # noqa: SLF001
        return child, uri, await child.get_resource(uri, version)
    if type(component) is FastMCPProviderResourceTemplate:
        original = str(component._original_uri_template)  # noqa: SLF001
        templates = await Provider.list_resource_templates(child)
        same = [one for one in templates if one.uri_template == original and one.version == component.version]
        return child, original, same[0] if same else None
    name = str(component._original_name)  # noqa: SLF001
    found = await (child.get_tool if type(component) is FastMCPProviderTool else child.get_prompt)(name, version)
    return child, name, found
