"""An approval, a question or an answer that would reach further than the call that it is about."""

from __future__ import annotations

from pathlib import Path

import pytest
from mcp_types import CallToolResult, Tool

from agentguard import AccessDenied, Approval, ApprovalRequest
from agentguard.testing import acting_as
from tests.adapters.test_lowlevel import build, connect, own_handler
from tests.approvals import ASKS, Person, again, at, call, first, reasons, without_the_sdks_seal
from tests.world import ERAS, Era, World, make_world, meta

MODERN: Era = "2026-07-28"
LEGACY: Era = "2025-11-25"

eras = pytest.mark.parametrize("era", ERAS)


@pytest.mark.parametrize("facts", [{"user": "bob"}, {"user": "alice", "purpose": "sale"}, {"user": None}])
async def test_other_user_or_purpose_of_the_same_run_runs_nothing(facts: dict[str, str | None], tmp_path: Path) -> None:
    """Where a claim such as `mission.id` names the run, the next request may be for somebody else."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS, agent=None))

    async with at(world, MODERN, Person()) as client:
        with acting_as("reader", run_id="mission-1", user="alice"):
            asked = await first(client)
        with acting_as("reader", run_id="mission-1", **facts):  # type: ignore[arg-type]
            result = await again(client, asked.request_state)

    assert isinstance(result, CallToolResult)
    assert meta(result)["reason"] == "approval"
    assert world.ran == []
    assert reasons(world) == ["approval_required", "approval_invalid"]


async def test_other_agent_of_the_same_run_runs_nothing(tmp_path: Path) -> None:
    """The person was told which agent wants to call."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=ASKS, agent=None))
    person = Person()

    async with at(world, MODERN, person) as client:
        with acting_as("reader", run_id="mission-1"):
            asked = await first(client)
        with acting_as("mallory", run_id="mission-1"):
            result = await again(client, asked.request_state)

    assert isinstance(result, CallToolResult)
    assert meta(result)["reason"] == "approval"
    assert world.ran == []


@eras
async def test_what_a_resource_reads_is_not_what_the_request_asked_for(era: Era, tmp_path: Path) -> None:
    """Between two requests nobody can be asked about it: the answer would come with the request for the outer one."""

    def extend(world: World) -> None:
        @world.server.resource("notes://{name}")
        async def notes(name: str) -> str:
            world.ran.append(f"notes {name}")
            if name == "outer":
                try:
                    await world.server.read_resource("notes://inner")
                except AccessDenied:
                    world.ran.append("denied")
            return "a note"

    policies = """
    @id("all") permit (principal, action, resource);
    @id("ask") @obligation("approval") forbid (principal, action == Action::"resources/read", resource)
    when { context.input.uri == "notes://inner" } unless { context has approval };
    """
    world = make_world(tmp_path, policies=policies, extend=extend)
    person = Person()

    async with at(world, era, person) as client:
        result = await client.read_resource("notes://outer")

    assert str(result.contents[0].uri) == "notes://outer"
    assert world.ran == ["notes outer", "denied" if era == MODERN else "notes inner"]
    assert len(person.seen) == (0 if era == MODERN else 1)
    assert reasons(world) == ["permit", "approval_unavailable" if era == MODERN else "permit"]


async def test_person_is_told_of_arguments_that_the_decorator_excludes(tmp_path: Path) -> None:
    """A letter is approved with what it does not show in mind."""
    asked: list[ApprovalRequest] = []

    async def approver(request: ApprovalRequest) -> Approval:
        asked.append(request)
        return Approval()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(exclude=("body",))
        async def send(to: str, body: str) -> str:
            world.ran.append(f"send {to} {body}")
            return "sent"

    policies = ASKS.replace('"export"', '"send"', 1).partition('@id("cap")')[0]
    world = make_world(tmp_path, policies=policies, extend=extend, approver=approver)

    await call(world, LEGACY, None, "send", to="bob", body="a secret")

    assert world.ran == ["send bob a secret"]
    assert asked[0].unseen == ("body",)
    assert asked[0].message.split("\n")[2:] == ["Arguments that are not shown here: body", "argument to: bob"]


async def test_person_is_told_of_arguments_that_policies_cannot_hold(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a tool's code is out of reach, what Cedar has no type for goes by unseen too."""
    low = build(tmp_path, monkeypatch, policies=ASKS.replace('"export"', '"send"', 1).partition('@id("cap")')[0])
    own_handler(low)
    schema = {"type": "object", "properties": {"to": {"type": "string"}, "body": {}}}
    low.guard.attach(low.server, tools=[Tool(name="send", input_schema=schema)], unguarded="guard")
    person = Person()

    async with connect(low, LEGACY, elicitation_callback=person) as client:
        await client.call_tool("send", {"to": "bob", "body": {"any": 1}})

    assert low.ran == [("send", {"to": "bob", "body": {"any": 1}})]
    assert person.seen[0].split("\n")[2:] == ["Arguments that are not shown here: body", "argument to: bob"]
