"""A step-up and an approval, as the command lines of the MCP Inspector show them in both protocol eras."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar

import anyio

from tests.clients.inspector import Answer, connections, inspect, install
from tests.world import World, make_world, served

T = TypeVar("T")

POLICIES = """
@id("exports") @scopes("records:write") permit (principal, action == Action::"export", resource)
when { principal.scopes.contains("records:write") };

@id("reads") permit (principal, action == Action::"read", resource);

@id("asks") @obligation("approval") @approval_prompt("Show this record?")
forbid (principal, action == Action::"read", resource) unless { context has approval };
"""
ERAS = ("legacy", "modern")


@asynccontextmanager
async def guarded(folder: Path) -> AsyncIterator[tuple[World, str, Sequence[str]]]:
    """Serve a world, and give its URL and the options with which the Inspector may call it."""
    world = make_world(folder / "policies", policies=POLICIES, agent=None)
    async with served(world) as url:
        # Without --stored-auth-only it would open a browser to sign in.
        bearer = f"Authorization: Bearer {world.token()}"
        yield world, url, ["--transport", "http", "--header", bearer, "--stored-auth-only"]


async def together(*calls: Awaitable[T]) -> list[T]:
    """Return what each of *calls* gives: most of it is waiting for another program to start."""
    results: dict[int, T] = {}

    async def keep(place: int, call: Awaitable[T]) -> None:
        results[place] = await call

    async with anyio.create_task_group() as tasks:
        for place, call in enumerate(calls):
            tasks.start_soon(keep, place, call)
    return [results[place] for place in range(len(calls))]


async def test_inspector_shows_the_scope_that_is_missing_and_that_a_person_has_to_approve(tmp_path: Path) -> None:
    """With one command at a time it can neither sign in nor answer: it fails with what is required, or is denied."""
    async with guarded(tmp_path) as (world, url, target):

        async def call(tool: str, arguments: str, era: str) -> Answer:
            method = ["--method", "tools/call", "--tool-name", tool, "--tool-args-json", arguments]
            return await inspect(install(), tmp_path, *method, "--protocol-era", era, "--server-url", url, *target)

        *stepped, asked = await together(
            *(call("export", "{}", era) for era in ERAS), call("read", '{"record_id": "r1"}', "modern")
        )

    for answer in stepped:
        assert answer.exit_code == 1
        assert json.loads(answer.errors) == {
            "error": {"code": "error", "message": 'Insufficient scope: required "records:write"'}
        }
    decision = asked.result["_meta"]["agentguard/decision"]
    assert asked.exit_code == 5
    assert decision == {"id": decision["id"], "effect": "deny", "reason": "approval", "retry": "approval"}
    assert asked.result["content"][0]["text"] == f"A person has to approve this call first. Decision {decision['id']}."
    missing = [record.get("agentguard.scopes.missing", []) for record in world.records()]
    assert sorted(missing) == [[], ["records:write"], ["records:write"]]
    assert world.ran == []


async def test_inspector_asks_and_the_call_runs_once_a_person_approves(tmp_path: Path) -> None:
    """The question waits with the call to be answered: by a request of the server, or as the call's own result."""
    async with (
        guarded(tmp_path) as (world, url, target),
        connections(install(), tmp_path, *([url, *target, "--era", era] for era in ERAS)) as opened,
    ):
        asked = await together(*(one.do("tools/call", "read", "record_id:=r1") for one in opened))
        ran_before = list(world.ran)
        pending = [answer.result["elicitationPending"] for answer in asked]
        (field,) = {name for one in pending for name in one["requestedSchema"]["properties"]}
        replies = await together(
            *(
                connection.do("elicitation/respond", one["elicitationId"], f"{field}:=true")
                for connection, one in zip(opened, pending, strict=True)
            )
        )

    assert [one["origin"] for one in pending] == ["server-request", "input-required"]
    assert all(one["message"].startswith("Show this record?\n") for one in pending)
    assert ran_before == []
    for reply in replies:
        assert reply.exit_code == 0, reply.errors
        assert reply.result["structuredContent"] == {"record_id": "r1", "text": "secret of the patient"}
    assert world.ran == ["read r1", "read r1"]
    allowed = [record for record in world.records() if record["agentguard.decision.effect"] == "allow"]
    assert [record["agentguard.approval.channel"] for record in allowed] == ["client", "client"]
