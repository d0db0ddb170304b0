"""The server of every feature, on the SDK's `MCPServer`, bare or under a guard.

Names, texts and URIs are those that the conformance suite asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import anyio
from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp.server.mcpserver.prompts.base import UserMessage
from mcp.server.mcpserver.tools import Tool
from mcp_types import (
    AudioContent,
    CallToolRequestParams,
    Completion,
    CompletionArgument,
    CompletionContext,
    EmbeddedResource,
    EmptyResult,
    ImageContent,
    PromptReference,
    ResourceTemplateReference,
    SetLevelRequestParams,
    SubscribeRequestParams,
    TextContent,
    UnsubscribeRequestParams,
)
from pydantic import Field

from agentguard import Guard
from tests.conformance import asking
from tests.conformance.contents import (
    SCHEMA_2020_12,
    audio,
    embedded,
    image,
    picture,
    template_data,
    text,
)

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]
Content = TextContent | ImageContent | EmbeddedResource

PAUSE: Final = 0.05
"""Seconds between two messages of one tool: the suite wants to see them apart."""


# What a tool can answer with


def test_simple_text() -> str:
    """Answer with words."""
    return "This is a simple text response for testing."


def test_image_content() -> ImageContent:
    """Answer with a picture."""
    return image()


def test_audio_content() -> AudioContent:
    """Answer with a sound."""
    return audio()


def test_embedded_resource() -> EmbeddedResource:
    """Answer with a resource."""
    return embedded("test://embedded-resource", "This is an embedded resource content.")


def test_multiple_content_types() -> list[Content]:
    """Answer with some of each."""
    resource = embedded("test://mixed-content-resource", '{"test":"data","value":123}', "application/json")
    return [text("Multiple content types test:"), image(), resource]


def test_error_handling() -> str:
    """Fail."""
    message = "This tool intentionally returns an error for testing"
    raise ToolError(message)


def test_header(region: Annotated[str, Field(json_schema_extra={"x-mcp-header": "Region"})]) -> str:
    """Take an argument that the request's headers repeat."""
    return f"region: {region}"


def json_schema_2020_12_tool(
    name: str | None = None,
    contactMethod: Literal["phone", "email"] | None = None,  # noqa: N803  the schema's name
    phone: str | None = None,
    email: str | None = None,
) -> str:
    """Tool with JSON Schema 2020-12 features."""
    return f"{name} by {contactMethod}: {phone or email}"


# What a tool can say while it runs


async def test_tool_with_logging(ctx: Context[Any, Any]) -> str:
    """Log three messages."""
    await ctx.info("Tool execution started")
    await anyio.sleep(PAUSE)
    await ctx.info("Tool processing data")
    await anyio.sleep(PAUSE)
    await ctx.info("Tool execution completed")
    return "logged"


async def test_tool_with_progress(ctx: Context[Any, Any]) -> str:
    """Tell of progress three times."""
    for done in (0, 50, 100):
        await ctx.report_progress(done, total=100)
        await anyio.sleep(PAUSE)
    return "done"


async def test_logging_tool(ctx: Context[Any, Any]) -> str:
    """Log once, to whoever asked for it."""
    await ctx.info("a message")
    return "logged"


async def test_reconnection(ctx: Context[Any, Any]) -> str:
    """Close the stream, and answer to whoever comes back."""
    await ctx.close_sse_stream()
    await anyio.sleep(4 * PAUSE)
    return "reconnected"


async def test_trigger_prompt_change(ctx: Context[Any, Any]) -> str:
    """Say that the list of prompts has changed."""
    await ctx.notify_prompts_changed()
    return "changed"


def added() -> str:
    """Come and go while the server runs."""
    return "here now"


TOOLS: Final[tuple[Callable[..., Any], ...]] = (
    test_simple_text,
    test_image_content,
    test_audio_content,
    test_embedded_resource,
    test_multiple_content_types,
    test_error_handling,
    test_header,
    test_tool_with_logging,
    test_tool_with_progress,
    test_logging_tool,
    test_reconnection,
    test_trigger_prompt_change,
    *asking.TOOLS,
)


# Resources and prompts


def static_text() -> str:
    """Words that stay."""
    return "This is the content of the static text resource."


def watched() -> str:
    """Words to subscribe to."""
    return "Watched resource content."


def test_simple_prompt() -> str:
    """Say one thing."""
    return "This is a simple prompt for testing."


def test_prompt_with_arguments(arg1: str, arg2: str) -> str:
    """Repeat two arguments."""
    return f"Prompt with arguments: arg1='{arg1}', arg2='{arg2}'"


def test_prompt_with_embedded_resource(resourceUri: str) -> list[UserMessage]:  # noqa: N803  the suite's name
    """Hold a resource."""
    resource = embedded(resourceUri, "Embedded resource content for testing.")
    return [UserMessage(resource), UserMessage("Please process the embedded resource above.")]


def test_prompt_with_image() -> list[UserMessage]:
    """Hold a picture."""
    return [UserMessage(image()), UserMessage("Please analyze the image above.")]


PROMPTS: Final[tuple[Callable[..., Any], ...]] = (
    test_simple_prompt,
    test_prompt_with_arguments,
    test_prompt_with_embedded_resource,
    test_prompt_with_image,
    asking.test_input_required_result_prompt,
)


async def complete(
    ref: PromptReference | ResourceTemplateReference, argument: CompletionArgument, context: CompletionContext | None
) -> Completion:
    """Complete a prompt's argument with the cities that begin so."""
    cities = [city for city in ("paris", "park", "party") if city.startswith(argument.value)]
    return Completion(values=cities, total=len(cities), has_more=False)


async def _acknowledge(ctx: ServerRequestContext[Any, Any], params: object) -> EmptyResult:
    """Answer a method of 2025-11-25 for which the SDK has no decorator."""
    return EmptyResult()


def decorators(guard: Guard | None, *, unmodified: bool) -> tuple[Decorator, Decorator, Decorator]:
    """Return what guards a tool, a resource and a prompt; nothing does without a guard, or in unmodified code."""
    if guard is None or unmodified:
        return _bare, _bare, _bare
    return guard.tool, guard.resource, guard.prompt


def _bare(function: Callable[..., Any]) -> Callable[..., Any]:
    return function


def everything(guard: Guard | None = None, *, unmodified: bool = False) -> MCPServer[Any]:
    """Return the server, under *guard* if there is one, which wraps what has no decorator if it is *unmodified*."""
    guarded, resource, prompt = decorators(guard, unmodified=unmodified)
    written = Tool.from_function(guarded(json_schema_2020_12_tool))
    written.parameters = SCHEMA_2020_12
    auth: dict[str, Any] = {} if guard is None else {**guard.http_auth()}
    server: MCPServer[Any] = MCPServer("everything", version="1", tools=[written], **auth)

    for tool in TOOLS:
        server.tool()(guarded(tool))

    later = guarded(added)

    @server.tool()
    @guarded
    async def test_trigger_tool_change(ctx: Context[Any, Any]) -> str:
        """Add a tool, or take it away again, and say so."""
        if "added" in {tool.name for tool in await server.list_tools()}:
            server.remove_tool("added")
        else:
            server.add_tool(later)
        await ctx.notify_tools_changed()
        return "changed"

    server.resource("test://static-text", mime_type="text/plain")(resource(static_text))
    server.resource("test://static-binary", mime_type="image/png")(resource(picture))
    # Without a decorator it is judged by the method's own action, in either case.
    server.resource("test://watched-resource", mime_type="text/plain")(watched)
    server.resource("test://template/{id}/data", mime_type="application/json")(resource(template_data))
    for bare in PROMPTS:
        server.prompt()(prompt(bare))
    server.completion()(complete)  # type: ignore[no-untyped-call]
    inner = server._lowlevel_server
    inner.add_request_handler("resources/subscribe", SubscribeRequestParams, _acknowledge)
    inner.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, _acknowledge)
    inner.add_request_handler("logging/setLevel", SetLevelRequestParams, _acknowledge)
    if guard is not None:
        guard.attach(server, unguarded="guard" if unmodified else "deny")
    return server


async def lowlevel(guard: Guard | None = None, *, unmodified: bool = False) -> Server[Any]:
    """Return the low-level server that is inside, under *guard* if there is one: it knows handlers and no tools.

    Unless it is *unmodified*, its handler calls some of its tools by the guard: those with
    neither `Resolve` parameters, which a low-level server does not fill, nor changes to tell.
    """
    listing = everything()
    server = listing._lowlevel_server
    handler = server.get_request_handler("tools/call")
    if guard is None or handler is None:
        return server
    others = {test_trigger_prompt_change, *asking.RESOLVING, *(TOOLS if unmodified else ())}
    own = {tool.__name__: guard.tool(tool) for tool in TOOLS if tool not in others}

    async def call_tool(ctx: ServerRequestContext[Any, Any], params: CallToolRequestParams) -> Any:
        if params.name in own:
            return await guard.call(params.name, params.arguments)
        return await handler.handler(ctx, params)

    server.add_request_handler("tools/call", CallToolRequestParams, call_tool)
    guard.attach(server, tools=await listing.list_tools(), unguarded="guard")
    return server
