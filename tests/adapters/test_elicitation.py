"""Asking at the caller's own client: which client can be asked, and what the tool never sees of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.shared.exceptions import MCPError
from mcp_types import (
    CallToolResult,
    ClientCapabilities,
    ElicitationCapability,
    ElicitResult,
    FormElicitationCapability,
    InputRequiredResult,
    InputResponses,
    UrlElicitationCapability,
)

from agentguard import Limits, State
from agentguard.adapters.elicitation import KEY, Rounds
from agentguard.approval import Approved
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.steps.call import Call
from agentguard.testing import acting_as
from tests.approvals import ASKS, NO, YES, Person, again, at, call, first, reasons, without_the_sdks_seal
from tests.tokens import Clock
from tests.world import ERAS, Era, World, connected, http_client, make_world, meta, served, text

LEGACY: Era = "2025-11-25"
MODERN: Era = "2026-07-28"
eras = pytest.mark.parametrize("era", ERAS)


@eras
async def test_person_is_asked_over_http(era: Era, tmp_path: Path) -> None:
    """On the stream of the call, or between two requests."""
    world = make_world(tmp_path, policies=ASKS)
    person = Person()

    async with served(world) as url, http_client(url, world.token(), era, elicitation_callback=person) as client:
        result = await client.call_tool("export", {"max_rows": 5})

    assert not result.is_error
    assert world.ran == ["export 5 csv"]
    assert len(person.seen) == 1


def said(why: str) -> str:
    """Return how the log's line for a denial by the policy `ask` ends, where nobody could be asked."""
    return f", approval_unavailable: ask; {why}: "


async def test_stateless_http_has_no_way_back_in_the_older_protocol(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody can be asked, and nothing runs."""
    caplog.set_level("INFO", "agentguard")
    world = make_world(tmp_path, policies=ASKS)

    async with connected(world, "stateless", LEGACY) as client:
        result = await client.call_tool("export", {"max_rows": 5})

    assert meta(result)["reason"] == "approval"
    assert reasons(world) == ["approval_unavailable"]
    assert said("stateless HTTP has no way back to the client") + "give the guard an `approver=`" in caplog.text


@eras
async def test_log_says_that_the_client_shows_no_forms(
    era: Era, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever runs the server has to know which of the two to change."""
    caplog.set_level("INFO", "agentguard")
    world = make_world(tmp_path, policies=ASKS)

    result = await call(world, era, None)

    fix = "use one that declares `elicitation`, or give the guard an `approver=`"
    assert said("the client cannot show forms") + fix in caplog.text
    assert "forms" not in str(result)


async def test_log_says_that_a_tool_below_another_cannot_ask(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In the newer protocol, where the question would be the answer to the request."""
    caplog.set_level("INFO", "agentguard")

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def outer() -> str:
            await world.server.call_tool("export", {"max_rows": 5})
            return "done"

    world = make_world(tmp_path, policies=ASKS, extend=extend)

    await call(world, MODERN, Person(), "outer")

    why = "a tool that another tool calls cannot ask the client in this protocol"
    assert said(why) + "give the guard an `approver=`" in caplog.text


@eras
async def test_log_calls_a_question_no_denial(era: Era, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In either protocol nothing is denied where a person says yes."""
    caplog.set_level("INFO", "agentguard")
    world = make_world(tmp_path, policies=ASKS)

    await call(world, era, Person())

    assert world.ran == ["export 5 csv"]
    assert "denied" not in caplog.text
    assert ("a person is asked about `export` of agent `reader`" in caplog.text) is (era == MODERN)


async def test_stateless_http_has_a_way_back_since(tmp_path: Path) -> None:
    """The next request may come to another process: it has the key."""
    world = make_world(tmp_path, policies=ASKS)

    async with (
        served(world, stateless=True) as url,
        http_client(url, world.token(), MODERN, elicitation_callback=Person()) as client,
    ):
        result = await client.call_tool("export", {"max_rows": 5})

    assert not result.is_error


@pytest.mark.parametrize(("key", "runs"), [(bytes(32), True), (bytes([1]) * 32, False)])
async def test_answer_may_come_to_another_process_with_the_same_keys(key: bytes, runs: bool, tmp_path: Path) -> None:
    """The state's, and that of the server's own seal; a store in common alone does not do."""
    store = MemoryStore(clock=lambda: 0.0)
    one, two = (
        make_world(tmp_path / name, policies=ASKS, state=State(store=store, ledger=MemoryLedger(), key=own), agent=None)
        for name, own in (("one", bytes(32)), ("two", key))
    )
    for world in (one, two):
        # As `MCPServer(request_state_security=…)` does.
        sealed = RequestStateBoundary(RequestStateSecurity(keys=[b"k" * 32]), default_audience=world.server.name)
        without_the_sdks_seal(world).server.middleware.insert(0, sealed)

    with acting_as("reader"):
        async with at(one, MODERN, Person()) as client:
            asked = await first(client)
        async with at(two, MODERN, Person()) as client:
            result = await again(client, asked.request_state)
            replayed = await again(client, asked.request_state)

    assert isinstance(result, CallToolResult)
    assert result.is_error is not runs
    assert two.ran == (["export 5 csv"] if runs else [])
    assert isinstance(replayed, CallToolResult)
    assert meta(replayed)["reason"] == "approval"


async def test_answer_at_a_process_with_another_seal_of_the_sdk_is_refused(tmp_path: Path) -> None:
    """Left alone, each process of an `MCPServer` has a key of its own."""
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=MemoryLedger(), key=bytes(32))
    one, two = (make_world(tmp_path / name, policies=ASKS, state=state, agent=None) for name in ("one", "two"))

    with acting_as("reader"):
        async with at(one, MODERN, Person()) as client:
            asked = await first(client)
        async with at(two, MODERN, Person()) as client:
            with pytest.raises(MCPError, match="requestState"):
                await again(client, asked.request_state)

    assert two.ran == []


async def test_form_is_one_box_that_is_not_ticked(tmp_path: Path) -> None:
    """A client that fills in what it can leaves it at no."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)

    assert asked.input_requests is not None
    params: Any = asked.input_requests[KEY].params
    assert params.mode == "form"
    assert params.message.startswith("May it leave the house?\nAgent reader wants to call export on server records.\n")
    assert params.requested_schema["required"] == ["approve"]
    (box,) = params.requested_schema["properties"].values()
    assert (box["type"], box["default"]) == ("boolean", False)


async def test_state_tells_its_bearer_nothing(tmp_path: Path) -> None:
    """It is encrypted, so it shows neither the policies nor what was judged."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        one, other = (await first(client)).request_state, (await first(client)).request_state

    assert one is not None
    assert one.startswith("agentguard.v1.")
    assert one != other


def extend(world: World) -> None:
    """Add a resource, a prompt, and a tool that shows what it was given."""

    @world.server.resource("notes://{name}")
    def notes(name: str) -> str:
        world.ran.append(f"notes {name}")
        return "a note"

    @world.server.prompt()
    def greet(name: str) -> str:
        world.ran.append(f"greet {name}")
        return f"Hello {name}"

    @world.server.tool()
    @world.guard.tool
    async def shows(ctx: Context) -> str:
        world.ran.append(f"{ctx.request_state} {ctx.input_responses}")
        return "shown"


READS = """
@id("all") permit (principal, action, resource);

@id("ask") @obligation("approval")
forbid (principal, action in [Action::"resources/read", Action::"prompts/get", Action::"shows"], resource)
unless { context has approval };
"""


@eras
@pytest.mark.parametrize("answer", [YES, NO])
async def test_person_is_asked_about_resources_and_prompts(answer: ElicitResult, era: Era, tmp_path: Path) -> None:
    """What is read has to be approved like what is called."""
    world = make_world(tmp_path, policies=READS, extend=extend)
    person = Person(answer)

    async with at(world, era, person) as client:
        if answer is YES:
            await client.read_resource("notes://today")
            await client.get_prompt("greet", {"name": "Bob"})
        else:
            with pytest.raises(MCPError, match="A person declined this call"):
                await client.read_resource("notes://today")
            with pytest.raises(MCPError, match="A person declined this call"):
                await client.get_prompt("greet", {"name": "Bob"})

    assert world.ran == (["notes today", "greet Bob"] if answer is YES else [])
    assert len(person.seen) == 2
    assert "argument uri: notes://today" in person.seen[0]


async def test_approval_of_one_resource_is_not_one_of_another(tmp_path: Path) -> None:
    """Nor of the same URI as a prompt's name."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=READS, extend=extend))

    async with at(world, MODERN, Person()) as client:
        asked = await client.session.read_resource("notes://today", allow_input_required=True)
        assert isinstance(asked, InputRequiredResult)
        with pytest.raises(MCPError, match="This approval does not hold"):
            await client.session.read_resource(
                "notes://never",
                request_state=asked.request_state,
                input_responses={KEY: YES},
                allow_input_required=True,
            )

    assert world.ran == []
    assert reasons(world) == ["approval_required", "approval_invalid"]


async def test_tool_sees_nothing_of_the_guards_question(tmp_path: Path) -> None:
    """Neither its state nor its answer: what a tool is given is its own."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=READS, extend=extend))

    async with at(world, MODERN, Person()) as client:
        result = await client.call_tool("shows", {})

    assert isinstance(result, CallToolResult)
    assert text(result) == "shown"
    assert world.ran == ["None None"]


async def test_tool_that_needs_no_approval_keeps_its_state_and_answers(tmp_path: Path) -> None:
    """The guard's own answer alone is taken out, although nobody asked for it."""
    world = make_world(tmp_path, policies=READS.replace(', Action::"shows"', ""), extend=extend)
    without_the_sdks_seal(world)

    async with at(world, MODERN, Person()) as client:
        answers: list[InputResponses] = [{"colour": NO}, {"colour": NO, KEY: YES}, {KEY: YES}]
        for responses in answers:
            await client.session.call_tool(
                "shows", {}, request_state="own", input_responses=responses, allow_input_required=True
            )

    assert [line.partition(" ")[0] for line in world.ran] == ["own"] * 3
    assert ["colour" in line for line in world.ran] == [True, True, False]
    assert not any(KEY in line for line in world.ran)


async def test_no_answer_to_the_guards_question_is_a_no(tmp_path: Path) -> None:
    """A state that comes back without an answer, or with one of another kind."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client)
        result = await again(client, asked.request_state, None)

    assert isinstance(result, CallToolResult)
    assert result.is_error
    assert reasons(world)[-1] == "approval_declined"


class Session:
    """What of a session tells whether a person can be asked."""

    def __init__(self, capabilities: ClientCapabilities | None, *, can_send_request: bool = True) -> None:
        self.client_capabilities = capabilities
        self.can_send_request = can_send_request


@dataclass
class Request:
    """One request, as far as `Rounds` looks at it."""

    protocol_version: Era
    session: Session
    method: str = "tools/call"
    params: dict[str, Any] | None = None


def capable(**modes: Any) -> ClientCapabilities:
    """Return the capabilities of a client that elicits."""
    return ClientCapabilities(elicitation=ElicitationCapability(**modes))


FORM, URL = FormElicitationCapability(), UrlElicitationCapability()


@eras
@pytest.mark.parametrize(
    ("capabilities", "can"),
    [
        (None, False),
        (ClientCapabilities(), False),
        (capable(), True),
        (capable(form=FORM), True),
        (capable(form=FORM, url=URL), True),
        (capable(url=URL), False),
    ],
)
def test_client_is_asked_only_if_it_can_show_a_form(
    capabilities: ClientCapabilities | None, can: bool, era: Era
) -> None:
    """A client that only opens URLs has nothing to tick."""
    asked = Call(identify=None, answers=None, transport="stdio")  # type: ignore[arg-type]

    Rounds(bytes(32), limits=Limits(), clock=Clock()).begin(Request(era, Session(capabilities)), asked)  # type: ignore[arg-type]

    assert (asked.ask is not None, asked.rounds) == (can and era == LEGACY, can and era == MODERN)


def test_client_without_a_channel_back_is_not_asked() -> None:
    """What could not arrive is not sent."""
    asked = Call(identify=None, answers=None, transport="http")  # type: ignore[arg-type]
    request = Request(LEGACY, Session(capable(), can_send_request=False))

    Rounds(bytes(32), limits=Limits(), clock=Clock()).begin(request, asked)  # type: ignore[arg-type]

    assert asked.ask is None


def test_other_methods_have_no_rounds() -> None:
    """The protocol knows questions in three methods alone."""
    asked = Call(identify=None, answers=None, transport="http")  # type: ignore[arg-type]
    request = Request(MODERN, Session(capable()))
    request.method = "completion/complete"

    Rounds(bytes(32), limits=Limits(), clock=Clock()).begin(request, asked)  # type: ignore[arg-type]

    assert not asked.rounds


async def test_client_that_fails_at_the_question_runs_nothing(tmp_path: Path) -> None:
    """An error is neither yes nor no."""

    def fails() -> None:
        message = "no display"
        raise OSError(message)

    world = make_world(tmp_path, policies=ASKS)

    result = await call(world, LEGACY, Person(meanwhile=fails))

    assert meta(result)["reason"] == "approval"
    assert world.ran == []
    assert reasons(world) == ["approval_unavailable"]


async def test_tool_without_arguments_of_the_same_name_is_the_same_call(tmp_path: Path) -> None:
    """No arguments and an empty object of them are one call."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client, arguments=None)
        result = await again(client, asked.request_state, arguments={})

    assert not result.is_error  # type: ignore[union-attr]
    assert world.ran == ["export 10 csv"]


@pytest.mark.parametrize("typed", [True, False])
async def test_question_of_an_approved_tool_is_carried_in_either_form(typed: bool) -> None:
    """Other middleware may answer with the model where the SDK has a mapping."""
    run = Call(identify=None, answers=None, transport="stdio")  # type: ignore[arg-type]
    run.approved = Approved(id="Q", key="Q", binding="b", channel="client", at=1.0, expires_at=2.0)
    asked = InputRequiredResult(request_state="own")

    async def handle(_: object) -> Any:
        return asked if typed else asked.model_dump(by_alias=True, exclude_none=True)

    rounds = Rounds(bytes(32), limits=Limits(), clock=Clock())
    answer: Any = await rounds.begin(Request(MODERN, Session(capable())), run).answer(handle)  # type: ignore[arg-type]

    state = answer.request_state if typed else answer["requestState"]
    assert state.startswith("agentguard.v1.")
    later = Call(identify=None, answers=None, transport="stdio")  # type: ignore[arg-type]
    request = Request(MODERN, Session(capable()))
    request.params = {"requestState": state}
    begun = rounds.begin(request, later)  # type: ignore[arg-type]
    assert isinstance(later.given, Approved)
    assert begun.ctx.params == {"requestState": "own"}
