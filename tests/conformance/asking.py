"""What asks its caller something before it answers, in the manner of each protocol era."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Final

from mcp.server.mcpserver import Context, Elicit, ListRoots, Resolve, Sample
from mcp_types import (
    CreateMessageRequest,
    CreateMessageRequestParams,
    CreateMessageResult,
    ElicitRequest,
    ElicitRequestFormParams,
    InputRequest,
    InputRequiredResult,
    ListRootsRequest,
    ListRootsResult,
    TextContent,
)
from pydantic import BaseModel

from tests.conformance.contents import DEFAULTS, ENUMS, answer, form, question

Asked = str | InputRequiredResult


# What a tool can ask of its caller while it runs, up to 2025-11-25


async def test_sampling(prompt: str, ctx: Context[Any, Any]) -> str:
    """Ask the caller's model."""
    result = await ctx.session.create_message(
        messages=question(prompt), max_tokens=100, related_request_id=ctx.request_id
    )
    assert isinstance(result.content, TextContent)
    return f"LLM response: {result.content.text}"


async def _elicited(ctx: Context[Any, Any], message: str, schema: dict[str, Any]) -> str:
    result = await ctx.session.elicit_form(message, schema, ctx.request_id)
    return f"Elicitation completed: action={result.action}, content={result.content}"


async def test_elicitation(message: str, ctx: Context[Any, Any]) -> str:
    """Ask the person in front of the caller."""
    return await _elicited(ctx, message, form(username="string", email="string"))


async def test_elicitation_sep1034_defaults(ctx: Context[Any, Any]) -> str:
    """Ask with a default for everything."""
    return await _elicited(ctx, "Who are you?", DEFAULTS)


async def test_elicitation_sep1330_enums(ctx: Context[Any, Any]) -> str:
    """Ask to choose."""
    return await _elicited(ctx, "Please choose", ENUMS)


# What a tool can ask of its caller by returning, from 2026-07-28


def ask(message: str, **types: str) -> ElicitRequest:
    """Return a question to a person."""
    return ElicitRequest(params=ElicitRequestFormParams(message=message, requested_schema=form(**types)))


def ask_model(words: str) -> CreateMessageRequest:
    """Return a question to a model."""
    return CreateMessageRequest(params=CreateMessageRequestParams(messages=question(words), max_tokens=50))


def test_input_required_result_elicitation(ctx: Context[Any, Any]) -> Asked:
    """Ask for a name."""
    name = answer(ctx.input_responses, "user_name", "name")
    if not isinstance(name, str):
        return InputRequiredResult(input_requests={"user_name": ask("What is your name?", name="string")})
    return f"Hello, {name}!"


def test_input_required_result_request_state(ctx: Context[Any, Any]) -> Asked:
    """Ask for a yes, and know that it was asked."""
    if ctx.request_state != "asked" or answer(ctx.input_responses, "confirm", "ok") is not True:
        asked: dict[str, InputRequest] = {"confirm": ask("Please confirm", ok="boolean")}
        return InputRequiredResult(input_requests=asked, request_state="asked")
    return "state-ok"


def test_input_required_result_multiple_inputs(ctx: Context[Any, Any]) -> Asked:
    """Ask a person, a model and the client at once."""
    asked: dict[str, InputRequest] = {
        "user_name": ask("What is your name?", name="string"),
        "greeting": ask_model("Generate a greeting"),
        "client_roots": ListRootsRequest(),
    }
    if ctx.request_state != "asked" or not asked.keys() <= (ctx.input_responses or {}).keys():
        return InputRequiredResult(input_requests=asked, request_state="asked")
    return f"Hello, {answer(ctx.input_responses, 'user_name', 'name')}!"


def test_input_required_result_multi_round(ctx: Context[Any, Any]) -> Asked:
    """Ask for a name, then for a colour."""
    name = answer(ctx.input_responses, "step1", "name")
    if ctx.request_state == "1" and isinstance(name, str):
        asked: dict[str, InputRequest] = {"step2": ask("Step 2: What is your favorite color?", color="string")}
        return InputRequiredResult(input_requests=asked, request_state="2")
    color = answer(ctx.input_responses, "step2", "color")
    if ctx.request_state == "2" and isinstance(color, str):
        return f"You like {color}."
    asked = {"step1": ask("Step 1: What is your name?", name="string")}
    return InputRequiredResult(input_requests=asked, request_state="1")


def test_input_required_result_capabilities(ctx: Context[Any, Any]) -> Asked:
    """Ask only what the client says it can answer."""
    can = ctx.client_capabilities
    asked: dict[str, InputRequest] = {}
    if can is not None and can.elicitation is not None:
        asked["user_name"] = ask("What is your name?", name="string")
    if can is not None and can.sampling is not None:
        asked["greeting"] = ask_model("Generate a greeting")
    return InputRequiredResult(input_requests=asked) if asked else "nothing to ask"


# The same, asked before the tool by what fills its parameters


class Confirmation(BaseModel):
    """A yes or a no."""

    ok: bool


def _capital() -> Sample:
    return Sample(question("What is the capital of France?"), max_tokens=100)


def _roots() -> ListRoots:
    return ListRoots()


def _confirmation() -> Elicit[Confirmation]:
    return Elicit("Please confirm", Confirmation)


def test_input_required_result_sampling(sampled: Annotated[CreateMessageResult, Resolve(_capital)]) -> str:
    """Tell what the caller's model said."""
    assert isinstance(sampled.content, TextContent)
    return sampled.content.text


def test_input_required_result_list_roots(listed: Annotated[ListRootsResult, Resolve(_roots)]) -> str:
    """Tell the client's roots."""
    return ", ".join(str(root.uri) for root in listed.roots)


def test_input_required_result_tampered_state(confirmed: Annotated[Confirmation, Resolve(_confirmation)]) -> str:
    """Tell what a person confirmed."""
    return f"confirmed: {confirmed.ok}"


def test_streaming_elicitation(confirmed: Annotated[Confirmation, Resolve(_confirmation)]) -> str:
    """Ask a person on the very stream that answers."""
    return f"confirmed: {confirmed.ok}"


def test_missing_capability(sampled: Annotated[CreateMessageResult, Resolve(_capital)]) -> str:
    """Need a client that can sample."""
    return f"sampled by {sampled.model}"


RESOLVING: Final[tuple[Callable[..., Any], ...]] = (
    test_input_required_result_sampling,
    test_input_required_result_list_roots,
    test_input_required_result_tampered_state,
    test_streaming_elicitation,
    test_missing_capability,
)

TOOLS: Final[tuple[Callable[..., Any], ...]] = (
    test_sampling,
    test_elicitation,
    test_elicitation_sep1034_defaults,
    test_elicitation_sep1330_enums,
    test_input_required_result_elicitation,
    test_input_required_result_request_state,
    test_input_required_result_multiple_inputs,
    test_input_required_result_multi_round,
    test_input_required_result_capabilities,
    *RESOLVING,
)


def test_input_required_result_prompt(ctx: Context[Any, Any]) -> Asked:
    """Ask for a context."""
    context = answer(ctx.input_responses, "user_context", "context")
    if not isinstance(context, str):
        asked: dict[str, InputRequest] = {"user_context": ask("What context should the prompt use?", context="string")}
        return InputRequiredResult(input_requests=asked)
    return f"The context is {context}."
