"""The SDK's low-level `Server`: decorated functions that its handler calls, and a handler that is all there is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from mcp import Client, MCPError
from mcp.server.lowlevel import Server
from mcp.server.mcpserver import Context, MCPServer, Resolve
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
    ToolAnnotations,
)
from pydantic import BaseModel, BeforeValidator

from agentguard import AccessDenied, ConfigurationError, Guard, Issuer, UnsafeMemoryState
from agentguard.adapters.lowlevel import LowLevelSurface, tools_of
from agentguard.adapters.surface import Offer
from agentguard.identity.sources import stdio_audience
from agentguard.testing import acting_as
from tests.world import AUDIENCE, ERAS, EVERYTHING, ISSUER, SERVER, Era, make_guard, meta, text, write_policies

PERMIT = '@id("all") permit (principal in Agent::"reader", action, resource);'
ROWS = (
    PERMIT
    + """
@id("rows") @advice("At most 500 rows.") forbid (principal, action == Action::"export", resource)
when { context.input.max_rows > 500 };
"""
)
CENTS = """
@id("cents") forbid (principal, action == Action::"pay", resource)
when { context.input.amount.greaterThan(decimal("100.00")) || !(context.input has account) };
"""
NUMBER = {"type": "object", "properties": {"max_rows": {"type": "integer"}}, "required": ["max_rows"]}
PAY = {
    "type": "object",
    "properties": {
        "amount": {"type": "number"},
        "account": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "note": {},
    },
    "required": ["amount"],
}


@dataclass
class Low:
    """A low-level server under a guard, and what its own handler saw."""

    guard: Guard
    server: Server[Any]
    state: Any
    ran: list[Any] = field(default_factory=list)
    reply: Callable[[CallToolRequestParams], Any] | None = None

    def decisions(self) -> list[tuple[Any, Any]]:
        """Return action and reason of every decision, oldest first."""
        kept = [entry.record["attributes"] for entry in self.state.ledger if entry.record["kind"] == "decision"]
        return [(one["agentguard.action.id"], one["agentguard.decision.reason"]) for one in kept]

    def details(self) -> list[Any]:
        """Return what each decision says did not fit."""
        kept = [entry.record["attributes"] for entry in self.state.ledger if entry.record["kind"] == "decision"]
        return [one.get("agentguard.decision.detail") for one in kept]


def tool(name: str, schema: dict[str, Any] = NUMBER, **options: Any) -> Tool:
    """Return a tool as a server lists it."""
    return Tool(name=name, input_schema=schema, **options)


def build(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    policies: str = PERMIT,
    agent: str = "reader",
) -> Low:
    """Return a server whose handler hands each call to the guard, unless the test says otherwise."""
    write_policies(folder, policies, types=None)
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    state = UnsafeMemoryState()
    guard, _ = make_guard(folder, issuer, state=state)
    monkeypatch.setenv("AGENTGUARD_TOKEN", issuer.mint(agent=agent, audience=stdio_audience(SERVER), grant=EVERYTHING))

    async def call_tool(_ctx: Any, params: CallToolRequestParams) -> Any:
        if made.reply is not None:
            return await made.reply(params)
        return await guard.call(params.name, params.arguments)

    async def list_tools(_ctx: Any, _params: Any) -> ListToolsResult:
        return ListToolsResult(tools=[])

    made = Low(guard, Server(SERVER, on_call_tool=call_tool, on_list_tools=list_tools), state)
    return made


def connect(low: Low, era: Era = "2026-07-28", **options: Any) -> Client:
    """Return a client in memory."""
    return Client(low.server, mode="legacy" if era == "2025-11-25" else era, **options)


@pytest.fixture
def low(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Low:
    """Return a server that is not yet attached."""
    return build(tmp_path, monkeypatch)


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Low:
    """Return one whose tool `export` has a limit."""
    return build(tmp_path, monkeypatch, policies=ROWS)


def own_handler(low: Low) -> None:
    """Let the developer's own handler run the tools."""

    async def reply(params: CallToolRequestParams) -> CallToolResult:
        low.ran.append((params.name, params.arguments))
        return CallToolResult(content=[TextContent(type="text", text="done")])

    low.reply = reply


NOTED: list[object] = []


def note(value: object) -> object:
    """Remember that validation ran."""
    NOTED.append(value)
    return value


class Row(BaseModel):
    """A result with a structure."""

    count: int


@pytest.mark.parametrize("era", ERAS)
async def test_decorated_function_is_judged_on_the_values_that_it_gets(limited: Low, era: Era) -> None:
    """Text that the SDK reads as a number is judged as that number, and its result is structured as the SDK's is."""
    low = limited

    @low.guard.tool
    def export(max_rows: int = 10) -> Row:
        low.ran.append(max_rows)
        return Row(count=max_rows)

    low.guard.attach(low.server, tools=[tool("export")])
    async with connect(low, era) as client:
        allowed = await client.call_tool("export", {"max_rows": "500"})
        default = await client.call_tool("export")
        denied = await client.call_tool("export", {"max_rows": "501"})
        unfit = await client.call_tool("export", {"max_rows": "many"})

    assert allowed.structured_content == {"count": 500}
    assert default.structured_content == {"count": 10}
    assert low.ran == [500, 10]
    assert "At most 500 rows." in text(denied)
    assert meta(unfit)["reason"] == "invalid_argument"
    assert [reason for _, reason in low.decisions()] == ["permit", "permit", "policy", "invalid_argument"]


@pytest.mark.parametrize("era", ERAS)
async def test_undecorated_tool_is_denied_and_its_handler_does_not_run(
    low: Low, era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    """As everywhere: what nobody guards does not run."""
    own_handler(low)
    low.guard.attach(low.server, tools=[tool("export")])

    async with connect(low, era) as client:
        results = [await client.call_tool(name, {"max_rows": 1}) for name in ("export", "nothing", "")]

    assert [meta(result)["reason"] for result in results] == ["denied"] * 3
    assert 'tool `export` is not guarded, every call to it is denied: attach with unguarded="guard"' in caplog.text
    assert low.ran == []
    assert {reason for _, reason in low.decisions()} == {"unguarded"}


@pytest.mark.parametrize("era", ERAS)
async def test_raw_arguments_are_judged_by_the_listed_schema(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era
) -> None:
    """Exactly as they came: what is not of its type, or is not declared, never reaches the handler."""
    low = build(tmp_path, monkeypatch, policies=ROWS + CENTS)
    own_handler(low)
    low.guard.attach(low.server, tools=[tool("export"), tool("pay", PAY)], unguarded="guard")

    async with connect(low, era) as client:
        allowed = await client.call_tool("export", {"max_rows": 500})
        paid = await client.call_tool("pay", {"amount": 99.5, "account": "a", "note": {"any": ["thing"]}})
        over = await client.call_tool("export", {"max_rows": 501})
        dear = await client.call_tool("pay", {"amount": 100.01, "account": "a"})
        nobody = await client.call_tool("pay", {"amount": 1, "account": None})
        unfit = [
            await client.call_tool(name, arguments)
            for name, arguments in (
                ("export", {"max_rows": "500"}),
                ("export", {"max_rows": 500.0}),
                ("export", {"max_rows": True}),
                ("export", {"max_rows": 5, "force": True}),
                ("export", {}),
                ("export", None),
                ("pay", {"amount": 0.00001, "account": "a"}),
                ("pay", {"amount": 1, "account": "null"}),
                ("pay", {"amount": 1, "account": "a", "note": {"__extn": {"fn": "unknown", "arg": "x"}}}),
            )
        ]

    assert (text(allowed), text(paid)) == ("done", "done")
    assert low.ran == [
        ("export", {"max_rows": 500}),
        ("pay", {"amount": 99.5, "account": "a", "note": {"any": ["thing"]}}),
    ]
    assert [meta(one)["reason"] for one in (over, dear, nobody)] == ["denied"] * 3
    assert [meta(one)["reason"] for one in unfit] == ["invalid_argument"] * len(unfit)
    assert len(low.decisions()) == 5 + len(unfit)
    details = [detail for detail in low.details() if detail]
    assert details[0] == "`export.max_rows` wants a whole number in 64 bits, and this `str` is not"
    assert details[3:5] == [
        "`export` got a key that is not declared",
        "`export.max_rows` is missing, and wants a whole number in 64 bits",
    ]


async def test_argument_that_cedar_cannot_hold_is_named_in_the_log(low: Low, caplog: pytest.LogCaptureFixture) -> None:
    """It reaches the tool unseen, so whoever writes policies has to know."""
    own_handler(low)

    low.guard.attach(low.server, tools=[tool("pay", PAY)], unguarded="guard")

    assert "policies do not see argument `note` of tool `pay`: `pay.note` has JSON Schema" in caplog.text


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 257, "tools/call\u2028"])
async def test_tool_with_a_name_that_no_log_can_hold_is_denied(
    low: Low, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The others are served all the same."""
    own_handler(low)
    low.guard.attach(low.server, tools=[tool(name), tool("export")], unguarded="guard")

    async with connect(low) as client:
        weird = await client.call_tool(name, {"max_rows": 1})
        export = await client.call_tool("export", {"max_rows": 1})

    assert meta(weird)["reason"] == "denied"
    assert text(export) == "done"
    assert "wants a printable name of at most 256 characters" in caplog.text


async def test_annotations_are_groups_of_actions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of decorated tools and of others."""
    policies = '@id("reads") permit (principal, action in Action::"read-only", resource);'
    low = build(tmp_path, monkeypatch, policies=policies)
    own_handler(low)
    reads, writes = ToolAnnotations(read_only_hint=True), ToolAnnotations(destructive_hint=True)
    low.guard.attach(
        low.server, tools=[tool("reads", annotations=reads), tool("writes", annotations=writes)], unguarded="guard"
    )

    async with connect(low) as client:
        assert text(await client.call_tool("reads", {"max_rows": 1})) == "done"
        assert meta(await client.call_tool("writes", {"max_rows": 1}))["reason"] == "denied"


@pytest.mark.parametrize("era", ERAS)
async def test_what_a_function_raises_reads_as_the_sdk_writes_it(
    low: Low, era: Era, caplog: pytest.LogCaptureFixture
) -> None:
    """A deliberate failure in its own words, a crash in none, and an error of the protocol as that."""
    raised: list[Exception] = [
        ToolError("the archive is closed"),
        ValueError("the password is hunter2"),
        UnexpectedToolError("inner"),
    ]

    @low.guard.tool
    async def export(max_rows: int) -> str:
        if max_rows == 3:
            raise MCPError(code=-32000, message="of the protocol")
        raise raised[max_rows]

    low.guard.attach(low.server, tools=[tool("export")])
    async with connect(low, era) as client:
        results = [await client.call_tool("export", {"max_rows": n}) for n in range(3)]
        with pytest.raises(MCPError, match="of the protocol"):
            await client.call_tool("export", {"max_rows": 3})

    assert [text(one) for one in results] == [
        "Error executing tool export: the archive is closed",
        "Error executing tool export",
        "Error executing tool export: inner",
    ]
    assert all(one.is_error for one in results)
    failed = [record.getMessage() for record in caplog.records if "failed" in record.getMessage()]
    assert ["ValueError" in failed[0], "UnexpectedToolError" in failed[1], len(failed)] == [True, True, 2]
    assert "hunter2" not in caplog.text


@pytest.mark.parametrize("agent", ["reader", "stranger"])
async def test_validators_run_for_nobody_who_could_never_be_allowed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    """Preflight comes before the handler."""
    low = build(tmp_path, monkeypatch, agent=agent)
    NOTED.clear()

    @low.guard.tool
    async def export(max_rows: Annotated[int, BeforeValidator(note)]) -> str:
        return "done"

    low.guard.attach(low.server, tools=[tool("export")])
    async with connect(low) as client:
        await client.call_tool("export", {"max_rows": 1})

    assert ([1] if agent == "reader" else []) == NOTED


async def test_function_with_a_context_gets_the_request_and_what_came_with_it(low: Low) -> None:
    """A question passes through as it is, and the answer comes back."""

    @low.guard.tool
    async def export(max_rows: int, ctx: Context[Any, Any]) -> str | InputRequiredResult:
        if ctx.input_responses is None:
            question = ElicitRequest(
                params=ElicitRequestFormParams(message="Sure?", requested_schema={"type": "object", "properties": {}})
            )
            return InputRequiredResult(input_requests={"sure": question}, request_state="round two")
        low.ran.append((ctx.request_id is not None, ctx.request_state))
        return f"{max_rows} rows"

    low.guard.attach(low.server, tools=[tool("export")])

    async def answer(_context: Any, _params: Any) -> ElicitResult:
        return ElicitResult(action="accept", content={})

    async with connect(low, elicitation_callback=answer) as client:
        result = await client.call_tool("export", {"max_rows": 5})

    assert text(result) == "5 rows"
    assert low.ran == [(True, "round two")]


async def test_nested_call_has_no_answers_of_another_tool(low: Low) -> None:
    """They belong to the tool that the request names."""

    @low.guard.tool
    async def outer(max_rows: int) -> str:
        inner = await low.guard.call("inner", {})
        assert isinstance(inner, CallToolResult)
        return text(inner)

    @low.guard.tool
    async def inner(ctx: Context[Any, Any]) -> str:
        return f"{ctx.input_responses} {ctx.request_context.method}"

    low.guard.attach(low.server, tools=[tool("outer"), tool("inner", {})])
    async with connect(low) as client:
        result = await client.call_tool("outer", {"max_rows": 1})

    assert text(result) == "None tools/call"


async def test_nested_call_that_is_denied_or_unfit_raises(limited: Low) -> None:
    """And the outermost answer is the denial, unless the function catches it."""
    low = limited
    caught: list[str] = []

    @low.guard.tool
    async def export(max_rows: int) -> str:
        return "done"

    @low.guard.tool
    async def outer(rows: str, name: str = "export") -> str:
        try:
            await low.guard.call(name, {"max_rows": rows})
        except AccessDenied as denied:
            caught.append(denied.decision.reason)
            raise
        return "done"

    low.guard.attach(low.server, tools=[tool("export"), tool("outer", {})])
    async with connect(low) as client:
        results = [
            await client.call_tool("outer", arguments)
            for arguments in ({"rows": "1"}, {"rows": "501"}, {"rows": "x"}, {"rows": "1", "name": "absent"})
        ]

    assert [one.is_error for one in results] == [False, True, True, True]
    assert [meta(one)["reason"] for one in results[1:]] == ["denied", "invalid_argument", "denied"]
    assert caught == ["policy", "invalid_argument", "unguarded"]


async def test_handler_that_calls_another_tool_does_not_answer_for_this_one(low: Low) -> None:
    """What was asked for is what has to be judged."""

    @low.guard.tool
    async def export(max_rows: int) -> str:
        return "the records"

    @low.guard.tool
    async def public(max_rows: int) -> str:
        return "nothing much"

    async def reply(params: CallToolRequestParams) -> Any:
        return await low.guard.call("public", params.arguments)

    low.reply = reply
    low.guard.attach(low.server, tools=[tool("export"), tool("public")])
    async with connect(low) as client:
        result = await client.call_tool("export", {"max_rows": 1})

    assert meta(result)["reason"] == "invalid_argument"


async def test_handler_that_asks_for_a_function_that_is_not_there_is_denied(low: Low) -> None:
    """A name that the guard does not know is never run."""

    @low.guard.tool
    async def export(max_rows: int) -> str:
        return "done"

    async def reply(params: CallToolRequestParams) -> Any:
        return await low.guard.call(f"{params.name}_of_old", params.arguments)

    low.reply = reply
    low.guard.attach(low.server, tools=[tool("export")])
    async with connect(low) as client:
        result = await client.call_tool("export", {"max_rows": 1})

    assert result.is_error
    assert ("export_of_old", "unguarded") in low.decisions()


async def test_handler_that_ignores_the_guard_has_its_result_withheld(low: Low) -> None:
    """Nothing that was not decided on comes out."""

    @low.guard.tool
    async def export(max_rows: int) -> str:
        return "done"

    own_handler(low)
    low.guard.attach(low.server, tools=[tool("export")])
    async with connect(low) as client:
        result = await client.call_tool("export", {"max_rows": 1})

    assert "done" not in text(result)
    assert result.is_error
    assert low.details() == ["the handler of `export` did not hand over: `return await guard.call(…)`"]


async def test_handler_that_hands_nonsense_over_is_told_apart_from_one_that_hands_nothing_over(low: Low) -> None:
    """And so is one that fails before it would."""

    @low.guard.tool
    async def export(max_rows: int) -> str:
        return "done"

    async def reply(params: CallToolRequestParams) -> Any:
        return await low.guard.call(params.name, params.arguments if (params.arguments or {})["max_rows"] else {})

    low.reply = reply
    low.guard.attach(low.server, tools=[tool("export")])
    async with connect(low) as client:
        words = [text(await client.call_tool("export", arguments)) for arguments in ({"max_rows": 0}, {})]

    assert low.details() == [
        "`max_rows` is missing",
        "the handler of `export` did not hand over: `return await guard.call(…)`",
    ]
    assert len({one.partition("Decision")[0] for one in words}) == 1


async def test_middleware_that_rewrites_a_message_does_not_get_around_the_guard(limited: Low) -> None:
    """What is judged is what the handler gets, and not what our middleware saw."""
    low = limited
    own_handler(low)
    low.guard.attach(low.server, tools=[tool("export"), tool("hidden\n")], unguarded="guard")
    rewritten: dict[str, Any] = {}

    async def rewrite(ctx: Any, call_next: Any) -> Any:
        if ctx.method != "tools/call":
            return await call_next(ctx)
        return await call_next(replace(ctx, params={**ctx.params, **rewritten}))

    low.server.middleware.append(rewrite)
    async with connect(low) as client:
        rewritten["arguments"] = {"max_rows": 9_999}
        more = await client.call_tool("export", {"max_rows": 1})
        rewritten["arguments"] = {"max_rows": float("nan")}
        no_json = await client.call_tool("export", {"max_rows": 1})
        rewritten |= {"name": "hidden\n", "arguments": {"max_rows": 1}}
        hidden = await client.call_tool("export", {"max_rows": 1})

    assert "At most 500 rows." in text(more)
    assert meta(no_json)["reason"] == "invalid_argument"
    assert hidden.is_error
    assert ("hidden\n", "unguarded") in low.decisions()
    assert low.ran == []


async def test_handler_that_replaces_ours_is_not_reached(low: Low) -> None:
    """Nothing of it would be judged."""
    own_handler(low)
    low.guard.attach(low.server, tools=[tool("export")], unguarded="guard")

    async def other(_ctx: Any, params: CallToolRequestParams) -> CallToolResult:
        low.ran.append(params.name)
        return CallToolResult(content=[])

    low.server.add_request_handler("tools/call", CallToolRequestParams, other)
    async with connect(low) as client:
        result = await client.call_tool("export", {"max_rows": 1})

    assert meta(result)["reason"] == "denied"
    assert low.ran == []


async def test_handler_that_is_called_outside_of_a_request_is_denied(low: Low) -> None:
    """From inside the process there is nobody to judge."""
    own_handler(low)
    low.guard.attach(low.server, tools=[tool("export")], unguarded="guard")
    entry = low.server.get_request_handler("tools/call")
    assert entry is not None

    for name in ("export", "unknown"):
        ctx: Any = None
        with pytest.raises(AccessDenied):
            await entry.handler(ctx, CallToolRequestParams(name=name, arguments={"max_rows": 1}))

    assert low.ran == []


async def test_body_of_a_raw_tool_that_changes_its_arguments_changes_nothing_of_the_callers(low: Low) -> None:
    """And the other way round: what is judged is a copy."""
    sent = {"max_rows": 1}

    async def reply(params: CallToolRequestParams) -> CallToolResult:
        assert params.arguments is not sent
        low.ran.append(dict(params.arguments or {}))
        return CallToolResult(content=[])

    low.reply = reply
    low.guard.attach(low.server, tools=[tool("export")], unguarded="guard")
    entry = low.server.get_request_handler("tools/call")
    assert entry is not None
    async with connect(low) as client:
        await client.call_tool("export", sent)

    assert low.ran == [{"max_rows": 1}]


async def test_guarded_function_can_be_called_by_name_in_a_test(low: Low) -> None:
    """As one of its own tests would; there is no request whose context it could have."""

    @low.guard.tool
    async def export(max_rows: int) -> str:
        return f"{max_rows} rows"

    @low.guard.tool
    async def asks(ctx: Context[Any, Any]) -> str:
        return str(ctx.request_id)

    low.guard.attach(low.server, tools=[tool("export"), tool("asks", {})])
    with acting_as(agent="reader"):
        allowed = await low.guard.call("export", {"max_rows": "7"})
        with pytest.raises(AccessDenied):
            await low.guard.call("export", {"max_rows": "x"})

        outside = await low.guard.call("asks", {})

    assert isinstance(allowed, CallToolResult)
    assert text(allowed) == "7 rows"
    assert isinstance(outside, CallToolResult)
    assert text(outside) == "Error executing tool asks"


async def test_guard_that_is_not_attached_to_a_low_level_server_calls_nothing(
    low: Low, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither before, nor where the framework calls functions itself."""
    with pytest.raises(AccessDenied):
        await low.guard.call("export", {})
    low.guard.attach(MCPServer(SERVER))
    with pytest.raises(AccessDenied):
        await low.guard.call("export", {})

    assert caplog.text.count("guard.call is for a low-level server") == 2


def test_server_without_tools_needs_no_handler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may have resources alone."""
    low = build(tmp_path, monkeypatch)
    server: Server[Any] = Server(SERVER)

    low.guard.attach(server, tools=[])

    assert server.get_request_handler("tools/call") is None


async def test_of_resources_and_prompts_the_server_alone_knows() -> None:
    """They are judged by the plain actions; a name is a key as it stands."""
    surface = LowLevelSurface(Server(SERVER), [], [])

    assert await surface.discover() == []

    assert surface.knows(Offer.RESOURCE, "file:///x")
    assert not surface.knows(Offer.TOOL, "x")
    assert surface.running(Offer.PROMPT, "x") is None
    assert surface.key(Offer.RESOURCE, "file:///x") == "file:///x"
    assert str(surface.absent(Offer.PROMPT, "x")) == "Unknown prompt: x"


def twice() -> Callable[..., Any]:
    """Return another function of the same name."""

    async def export(max_rows: int) -> str:
        return "other"

    return export


async def export(max_rows: int) -> str:
    """Do what a tool does."""
    return "done"


async def resolved(rows: Annotated[str, Resolve(lambda: "x")]) -> str:
    """Ask for what the SDK resolves."""
    return rows


@pytest.mark.parametrize(
    ("functions", "options", "says"),
    [
        ([export], {}, "keeps no list of its tools: pass attach(tools=…)"),
        ([export], {"tools": []}, "`export` is under @guard.tool and is no tool of the server: list it"),
        ([], {"tools": [tool("a"), tool("a")]}, "tools= lists `a` twice"),
        ([], {"tools": [{"name": "a"}]}, "tools= wants the `Tool` values that the server lists, got `dict`"),
        ([export, twice()], {"tools": [tool("export")]}, "two functions under @guard.tool have the name `export`"),
        ([resolved], {"tools": [tool("resolved")]}, "has Resolve parameters, which only an MCPServer fills"),
    ],
)
def test_mistake_is_refused_with_the_fix(low: Low, functions: list[Any], options: dict[str, Any], says: str) -> None:
    """Before anything is served."""
    for function in functions:
        low.guard.tool(function)

    with pytest.raises(ConfigurationError) as caught:
        low.guard.attach(low.server, **options)

    assert says in str(caught.value)


def test_tools_without_a_handler_are_refused(low: Low) -> None:
    """Somebody has to run them."""
    with pytest.raises(ConfigurationError, match="pass Server\\(on_call_tool="):
        low.guard.attach(Server(SERVER), tools=[tool("a")])


def test_tools_of_a_server_that_lists_its_own_are_refused(low: Low) -> None:
    """Two lists could differ."""
    with pytest.raises(ConfigurationError, match="tools= is for a low-level server, and `MCPServer` lists its own"):
        low.guard.attach(MCPServer(SERVER), tools=[])


@pytest.mark.parametrize(("pages", "count"), [(1, 1), (3, 3), (200, None)])
async def test_tools_are_what_a_client_would_list(pages: int, count: int | None) -> None:
    """Page by page, and not without end; a server that keeps a list has no need of it."""

    async def list_tools(_ctx: Any, params: PaginatedRequestParams | None) -> ListToolsResult:
        page = int((params.cursor if params is not None else None) or "0")
        return ListToolsResult(tools=[tool(f"t{page}")], next_cursor=str(page + 1) if page + 1 < pages else None)

    server: Server[Any] = Server(SERVER, on_list_tools=list_tools)

    if count is None:
        with pytest.raises(ConfigurationError, match="lists its tools on more than 100 pages"):
            await tools_of(server)
    else:
        assert [one.name for one in await tools_of(server) or []] == [f"t{page}" for page in range(count)]
    assert await tools_of(Server(SERVER)) == []
    assert await tools_of(MCPServer(SERVER)) is None


def test_application_over_http_is_wrapped(low: Low) -> None:
    """So that a denial can ask for more scopes there."""
    own_handler(low)
    surface = LowLevelSurface(low.server, [], [])
    surface.app_hook(lambda app: ("wrapped", app))

    wrapped = low.server.streamable_http_app()

    assert isinstance(wrapped, tuple)
    assert wrapped[0] == "wrapped"
