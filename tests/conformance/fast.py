"""The server of every feature on FastMCP, bare or under a guard.

What it answers with is what `everything` has; what takes a context takes FastMCP's own.
"""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any, Final, get_type_hints

from fastmcp import Context, FastMCP
from fastmcp.prompts import Message
from fastmcp.tools import Tool
from mcp.server.context import ServerRequestContext
from mcp.server.mcpserver import Context as SDKContext
from mcp.shared.exceptions import MCPError
from mcp_types import (
    MISSING_REQUIRED_CLIENT_CAPABILITY,
    EmptyResult,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    SubscribeRequestParams,
    UnsubscribeRequestParams,
)

from agentguard import Guard
from tests.conformance import asking, everything
from tests.conformance.asking import Asked
from tests.conformance.contents import SCHEMA_2020_12, embedded, image, picture, template_data


def with_own_context(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the same function, but with a parameter for FastMCP's context where it has one for the SDK's."""
    hints = get_type_hints(function, include_extras=True)
    if not any(hint == SDKContext[Any, Any] for hint in hints.values()):
        return function
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__, function.__globals__, function.__name__, function.__defaults__)
    copy.__doc__ = function.__doc__
    copy.__annotations__ = {name: Context if hint == SDKContext[Any, Any] else hint for name, hint in hints.items()}
    return copy


def _ask_once(key: str, request: InputRequest, ctx: Context) -> InputRequiredResult | None:
    """Return what asks, unless this is the answer."""
    if ctx.request_state == key and key in (ctx.input_responses or {}):
        return None
    return InputRequiredResult(input_requests={key: request}, request_state=key)


def test_input_required_result_sampling(ctx: Context) -> Asked:
    """Tell what the caller's model said."""
    return _ask_once("capital_question", asking.ask_model("What is the capital of France?"), ctx) or "sampled"


def test_input_required_result_list_roots(ctx: Context) -> Asked:
    """Tell the client's roots."""
    return _ask_once("client_roots", ListRootsRequest(), ctx) or "listed"


def test_input_required_result_tampered_state(ctx: Context) -> Asked:
    """Tell what a person confirmed."""
    return _ask_once("confirm", asking.ask("Please confirm", ok="boolean"), ctx) or "confirmed"


def test_streaming_elicitation(ctx: Context) -> Asked:
    """Ask a person on the very stream that answers."""
    return _ask_once("confirm", asking.ask("Please confirm", ok="boolean"), ctx) or "confirmed"


def test_input_required_result_capabilities(ctx: Context) -> Asked:
    """Ask only what the client says it can answer."""
    can = ctx.session.client_capabilities
    asked: dict[str, InputRequest] = {}
    if can is not None and can.elicitation is not None:
        asked["user_name"] = asking.ask("What is your name?", name="string")
    if can is not None and can.sampling is not None:
        asked["greeting"] = asking.ask_model("Generate a greeting")
    return InputRequiredResult(input_requests=asked) if asked else "nothing to ask"


def test_missing_capability(ctx: Context) -> str:
    """Need a client that can sample."""
    can = ctx.session.client_capabilities
    if can is None or can.sampling is None:
        needed: dict[str, Any] = {"requiredCapabilities": {"sampling": {}}}
        raise MCPError(code=MISSING_REQUIRED_CLIENT_CAPABILITY, message="sampling is needed", data=needed)
    return "sampled"


OWN: Final[tuple[Callable[..., Any], ...]] = (
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_tampered_state,
    test_streaming_elicitation,
    test_input_required_result_capabilities,
    test_missing_capability,
)


def test_prompt_with_embedded_resource(resourceUri: str) -> list[Message]:  # noqa: N803  the suite's name
    """Hold a resource."""
    resource = embedded(resourceUri, "Embedded resource content for testing.")
    return [Message(resource), Message("Please process the embedded resource above.")]


def test_prompt_with_image() -> list[Message]:
    """Hold a picture."""
    return [Message(image()), Message("Please analyze the image above.")]


PROMPTS: Final[tuple[Callable[..., Any], ...]] = (
    everything.test_simple_prompt,
    everything.test_prompt_with_arguments,
    test_prompt_with_embedded_resource,
    test_prompt_with_image,
    asking.test_input_required_result_prompt,
)


async def _acknowledge(ctx: ServerRequestContext[Any, Any], params: object) -> EmptyResult:
    """Answer a method of 2025-11-25 that FastMCP does not serve."""
    return EmptyResult()


def fast(guard: Guard | None = None, *, unmodified: bool = False) -> FastMCP[Any]:
    """Return the server, under *guard* if there is one, which wraps what has no decorator if it is *unmodified*."""
    guarded, resource, prompt = everything.decorators(guard, unmodified=unmodified)
    auth: dict[str, Any] = {} if guard is None else {"auth": guard.auth()}
    server: FastMCP[Any] = FastMCP("everything", version="1", dereference_schemas=False, **auth)

    own = {tool.__name__ for tool in OWN}
    for tool in (*(tool for tool in everything.TOOLS if tool.__name__ not in own), *OWN):
        server.tool(guarded(with_own_context(tool)))
    written = Tool.from_function(guarded(everything.json_schema_2020_12_tool))
    written.parameters = SCHEMA_2020_12
    server.add_tool(written)

    later = guarded(everything.added)

    async def test_trigger_tool_change(ctx: Context) -> str:
        """Add a tool, or take it away again, and say so."""
        if await server.get_tool("added") is not None:
            server.local_provider.remove_tool("added")
        else:
            server.add_tool(later)
        return "changed"

    server.tool(guarded(test_trigger_tool_change))

    server.resource("test://static-text", mime_type="text/plain")(resource(everything.static_text))
    server.resource("test://static-binary", mime_type="image/png")(resource(picture))
    server.resource("test://watched-resource", mime_type="text/plain")(everything.watched)
    server.resource("test://template/{id}/data", mime_type="application/json")(resource(template_data))
    for bare in PROMPTS:
        server.prompt(prompt(with_own_context(bare)))
    server.completion(everything.complete)
    lowlevel = server._mcp_server
    lowlevel.add_request_handler("resources/subscribe", SubscribeRequestParams, _acknowledge)
    lowlevel.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _acknowledge)
    if guard is not None:
        guard.attach(server, unguarded="guard" if unmodified else "deny")
    return server
