"""A tool that asks questions of its own: one approval for the call, and no round of it twice."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mcp.server.mcpserver import Context
from mcp_types import (
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    InputRequiredResult,
    Tool,
)

from agentguard import Approval, ApprovalRequest, State
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.testing import acting_as
from tests.adapters.test_lowlevel import build, connect
from tests.approvals import NO, YES, Person, again, at, first, reasons, without_the_sdks_seal
from tests.tokens import Clock
from tests.world import Era, World, make_world, meta, text

MODERN: Era = "2026-07-28"
POLICIES = """
@id("all") permit (principal, action, resource);

@id("ask") @obligation("approval")
forbid (principal, action == Action::"wizard", resource)
unless { context has approval };
"""
COLOUR = ElicitResult(action="accept", content={"colour": "red"})
FORM: dict[str, Any] = {"type": "object", "properties": {"colour": {"type": "string"}}}


@dataclass
class Facts:
    """What the policies may look at."""

    late: bool


def question() -> dict[str, Any]:
    """Return the tool's own question."""
    return {"colour": ElicitRequest(params=ElicitRequestFormParams(message="Which?", requested_schema=FORM))}


def wizard(world: World) -> None:
    """Add a tool of three rounds: it asks, it only waits, it is done."""

    @world.server.tool()
    @world.guard.tool
    async def wizard(ctx: Context, max_rows: int = 1) -> str | InputRequiredResult:
        answers = {name: getattr(answer, "content", None) for name, answer in (ctx.input_responses or {}).items()}
        world.ran.append(f"{ctx.request_state} {answers}")
        if ctx.request_state is None:
            # What it calls in turn has no part in its approval.
            await world.server.call_tool("export", {"max_rows": 1})
            world.ran.remove("export 1 csv")
            return InputRequiredResult(input_requests=question(), request_state="asked")
        if ctx.request_state == "asked":
            return InputRequiredResult(request_state="waited")
        return "done"


ROUNDS = ["None {}", "asked {'colour': {'colour': 'red'}}", "waited {}"]


def answered(person: Person) -> Any:
    """Return a callback that answers the guard's question by *person*, and the tool's with a colour."""

    async def answer(context: object, params: Any) -> ElicitResult:
        return COLOUR if params.message == "Which?" else await person(context, params)

    return answer


async def test_person_is_asked_once_for_the_whole_call(tmp_path: Path) -> None:
    """The tool's own rounds go on under the approval of the first, and see their own state alone."""
    world = make_world(tmp_path, policies=POLICIES, extend=wizard)
    person = Person()

    async with at(world, MODERN, answered(person)) as client:
        result = await client.call_tool("wizard", {})

    assert isinstance(result, CallToolResult)
    assert text(result) == "done"
    assert world.ran == ROUNDS
    assert len(person.seen) == 1
    assert reasons(world) == ["approval_required", "permit", "permit", "permit", "permit"]
    named = [record.get("agentguard.approval.id") for record in world.records()]
    assert named == [named[0], named[0], None, named[0], named[0]]


async def test_no_round_runs_twice(tmp_path: Path) -> None:
    """Each state of an approved call is good for one use."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=POLICIES, extend=wizard))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client, "wizard")
        second = await again(client, asked.request_state, tool="wizard")
        assert isinstance(second, InputRequiredResult)
        third = await again(client, second.request_state, None, tool="wizard", answers={"colour": COLOUR})
        replayed = [await again(client, state, tool="wizard") for state in (asked.request_state, second.request_state)]

    assert isinstance(third, InputRequiredResult)
    assert [meta(one)["reason"] for one in replayed if isinstance(one, CallToolResult)] == ["approval", "approval"]
    assert len(world.ran) == 2


async def test_no_at_the_tools_own_question_is_the_tools_affair(tmp_path: Path) -> None:
    """The call was approved; an answer to the guard that nobody asked for does not reach the tool either."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=POLICIES, extend=wizard))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client, "wizard")
        second = await again(client, asked.request_state, tool="wizard")
        assert isinstance(second, InputRequiredResult)
        await again(client, second.request_state, NO, tool="wizard", answers={"colour": COLOUR})

    assert world.ran == ROUNDS[:2]


async def test_later_round_with_other_arguments_runs_nothing(tmp_path: Path) -> None:
    """The approval stays that of the first arguments."""
    world = without_the_sdks_seal(make_world(tmp_path, policies=POLICIES, extend=wizard))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client, "wizard")
        second = await again(client, asked.request_state, tool="wizard")
        assert isinstance(second, InputRequiredResult)
        changed = await again(
            client, second.request_state, tool="wizard", arguments={"max_rows": 6}, answers={"colour": COLOUR}
        )

    assert isinstance(changed, CallToolResult)
    assert meta(changed)["reason"] == "approval"
    assert world.ran == ["None {}"]


async def test_later_round_that_comes_too_late_runs_nothing(tmp_path: Path) -> None:
    """Also the tool's own question is not open for ever."""
    clock = Clock(1_785_607_200.0)
    state = State(store=MemoryStore(clock=clock), ledger=MemoryLedger(), key=bytes(32))
    world = without_the_sdks_seal(
        make_world(tmp_path, policies=POLICIES, extend=wizard, clock=clock, state=state, agent=None)
    )

    with acting_as("reader", at=clock.now):
        async with at(world, MODERN, Person()) as client:
            asked = await first(client, "wizard")
            second = await again(client, asked.request_state, tool="wizard")
            assert isinstance(second, InputRequiredResult)
            clock.now += 300
            late = await again(client, second.request_state, tool="wizard", answers={"colour": COLOUR})

    assert isinstance(late, CallToolResult)
    assert late.is_error
    assert reasons(world)[-1] == "approval_invalid"
    assert world.ran == ["None {}"]


async def test_round_that_has_to_be_approved_in_the_middle_keeps_what_the_tool_was_told(tmp_path: Path) -> None:
    """What needs no approval first may need one later: the tool's state and answers wait meanwhile."""
    hours = [9]
    policies = POLICIES.replace("unless", "when { context.facts.late } unless")

    def extend(world: World) -> None:
        def facts() -> Facts:
            return Facts(late=len(hours) > 1)

        @world.server.tool()
        @world.guard.tool(facts=facts)
        async def wizard(ctx: Context) -> str | InputRequiredResult:
            answers = sorted(ctx.input_responses or {})
            world.ran.append(f"{ctx.request_state} {answers}")
            if ctx.request_state is None:
                return InputRequiredResult(input_requests=question(), request_state="asked")
            return "done"

    world = without_the_sdks_seal(make_world(tmp_path, policies=policies, extend=extend))

    async with at(world, MODERN, Person()) as client:
        opened = await first(client, "wizard", arguments={})
        assert opened.request_state == "asked"
        hours.append(23)
        asked = await client.session.call_tool(
            "wizard", {}, request_state="asked", input_responses={"colour": COLOUR}, allow_input_required=True
        )
        assert isinstance(asked, InputRequiredResult)
        result = await again(client, asked.request_state, YES, tool="wizard", arguments={})

    assert isinstance(result, CallToolResult)
    assert text(result) == "done"
    assert world.ran == ["None []", "asked ['colour']"]


async def test_approver_elsewhere_is_asked_once_for_the_whole_call(tmp_path: Path) -> None:
    """Another channel than the client keeps its approval over the tool's own rounds as well."""
    asked: list[str] = []

    async def approver(request: ApprovalRequest) -> Approval:
        asked.append(request.id)
        return Approval(approver="carol")

    world = make_world(tmp_path, policies=POLICIES, extend=wizard, approver=approver)

    async with at(world, MODERN, answered(Person(NO))) as client:
        result = await client.call_tool("wizard", {})

    assert isinstance(result, CallToolResult)
    assert text(result) == "done"
    assert world.ran == ROUNDS
    assert len(asked) == 1
    named = [record.get("agentguard.approval.approver") for record in world.records()]
    assert named == ["carol", None, "carol", "carol"]


async def test_tool_of_a_low_level_server_sees_its_own_state_and_answers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The person's yes to the guard must not pass for an answer to what the tool has yet to ask."""
    low = build(tmp_path, monkeypatch, policies=POLICIES)

    @low.guard.tool
    async def wizard(ctx: Context) -> str | InputRequiredResult:
        low.ran.append((ctx.request_state, sorted(ctx.input_responses or {})))
        if ctx.input_responses is None:
            return InputRequiredResult(input_requests=question(), request_state="asked")
        return "done"

    low.guard.attach(low.server, tools=[Tool(name="wizard", input_schema={"type": "object"})])
    person = Person()

    async with connect(low, elicitation_callback=answered(person)) as client:
        result = await client.call_tool("wizard", {})

    assert text(result) == "done"
    assert low.ran == [(None, []), ("asked", ["colour"])]
    assert len(person.seen) == 1


@pytest.mark.parametrize("state", [None, "asked"])
@pytest.mark.parametrize("answers", [{}, {"other": COLOUR}])
async def test_later_round_without_the_answers_that_it_is_for_runs_nothing(
    answers: dict[str, ElicitResult], state: str | None, tmp_path: Path
) -> None:
    """A tool that looks for its answers would begin once more: one yes would run that for ever."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def wizard(ctx: Context) -> str | InputRequiredResult:
            if "colour" not in (ctx.input_responses or {}):
                world.ran.append("paid")
                return InputRequiredResult(input_requests=question(), request_state=state)
            return "done"

    world = without_the_sdks_seal(make_world(tmp_path, policies=POLICIES, extend=extend))

    async with at(world, MODERN, Person()) as client:
        asked = await first(client, "wizard", arguments={})
        second = await again(client, asked.request_state, tool="wizard", arguments={})
        assert isinstance(second, InputRequiredResult)
        third = await again(client, second.request_state, None, tool="wizard", arguments={}, answers=answers)
        fourth = await again(
            client, second.request_state, None, tool="wizard", arguments={}, answers={"colour": COLOUR}
        )

    assert isinstance(third, CallToolResult)
    assert meta(third)["reason"] == "approval"
    assert world.ran == ["paid"]
    assert isinstance(fourth, CallToolResult)
    assert text(fourth) == "done"
    assert reasons(world) == ["approval_required", "permit", "approval_invalid", "permit"]
