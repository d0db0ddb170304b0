"""Ending a run stops its calls in flight, and what they still return is withheld."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from mcp import Client
from mcp_types import CallToolResult

from agentguard import AccessDenied, Entity, Grade, Invocation, State, current_invocation
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.testing import acting_as, unsafe_invocation
from tests.tokens import Clock
from tests.world import World, make_world, meta, text

ALL = '@id("all") permit (principal, action, resource);'


class Gate:
    """Where a tool waits, and how a test knows that it does."""

    def __init__(self) -> None:
        self.entered = anyio.Event()
        self.leave = anyio.Event()
        self.thread_entered = threading.Event()
        self.thread_leave = threading.Event()


def extend(gate: Gate) -> object:
    """Return what adds tools that wait."""

    def add(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def patient() -> str:
            gate.entered.set()
            await gate.leave.wait()
            world.ran.append("patient came to its result")
            return "secret"

        @world.server.tool()
        @world.guard.tool
        async def stubborn() -> str:
            gate.entered.set()
            try:
                await gate.leave.wait()
            except BaseException:  # noqa: BLE001
                world.ran.append("stubborn swallowed its cancellation")
            return "secret"

        @world.server.tool()
        @world.guard.tool
        async def failing() -> str:
            gate.entered.set()
            try:
                await gate.leave.wait()
            finally:
                message = "secret"
                raise ValueError(message)

        @world.server.tool()
        @world.guard.tool
        def threaded() -> str:
            gate.thread_entered.set()
            gate.thread_leave.wait()
            world.ran.append("thread came to its result")
            return "secret"

        @world.server.tool()
        @world.guard.tool
        async def quick() -> str:
            world.ran.append("quick")
            return "ok"

    return add


async def call_and_end(world: World, gate: Gate, tool: str) -> object:
    """Call a tool, revoke its run while it runs, and return what the caller is told."""
    told: list[object] = []
    with acting_as("reader", run_id="run-1") as invocation:
        async with Client(world.server) as client, anyio.create_task_group() as tasks:

            async def call() -> None:
                told.append(await client.call_tool(tool, {}))

            tasks.start_soon(call)
            if tool == "threaded":
                await anyio.to_thread.run_sync(gate.thread_entered.wait)
            else:
                await gate.entered.wait()
            world.state.store.revoke(issuer=invocation.issuer, run_id="run-1", reason="test")
            gate.thread_leave.set()
    return told[0]


async def call_and_wait(world: World, gate: Gate, passes: Callable[[], None]) -> CallToolResult:
    """Call a tool, have time pass once it runs, and return what the caller is told."""
    told: list[CallToolResult] = []
    async with Client(world.server) as client, anyio.create_task_group() as tasks:

        async def call() -> None:
            told.append(await client.call_tool("patient", {}))

        tasks.start_soon(call)
        await gate.entered.wait()
        passes()
    return told[0]


def event_loops_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Return by how much the running event loop's clock is ahead."""
    loop, ahead = asyncio.get_running_loop(), Clock(0.0)
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + ahead.now)
    return ahead


@pytest.mark.parametrize(
    ("tool", "outcome", "ran"),
    [
        ("patient", "cancelled", []),
        ("stubborn", "withheld", ["stubborn swallowed its cancellation"]),
        ("failing", "withheld", []),
        ("threaded", "withheld", ["thread came to its result"]),
    ],
)
async def test_revoked_call_is_stopped_or_withheld(tool: str, outcome: str, ran: list[str], tmp_path: Path) -> None:
    """A coroutine is cancelled; what cannot be cancelled has its result or its error withheld."""
    gate = Gate()
    world = make_world(tmp_path, policies=ALL, extend=extend(gate))  # type: ignore[arg-type]

    with anyio.fail_after(20):
        result = await call_and_end(world, gate, tool)

    assert "secret" not in text(result)  # type: ignore[arg-type]
    assert meta(result)["reason"] == "ended"  # type: ignore[arg-type]
    assert meta(result)["retry"] == "never"  # type: ignore[arg-type]
    assert world.ran == ran
    (end,) = world.records("outcome")
    assert end["agentguard.execution.outcome"] == outcome
    assert end["agentguard.execution.reason"] == "revoked"
    assert end["agentguard.decision.id"] == meta(result)["id"]  # type: ignore[arg-type]


async def test_ending_a_parent_ends_the_calls_of_its_children(tmp_path: Path) -> None:
    """Authority that was handed on ends with the run that handed it on."""
    gate = Gate()
    world = make_world(tmp_path, policies=ALL, extend=extend(gate))  # type: ignore[arg-type]
    parent = unsafe_invocation("reader", run_id="run-1")
    told = []

    with acting_as("mailer", run_id="child", ancestors=(parent,)), anyio.fail_after(20):
        async with Client(world.server) as client, anyio.create_task_group() as tasks:

            async def call() -> None:
                told.append(await client.call_tool("patient", {}))

            tasks.start_soon(call)
            await gate.entered.wait()
            world.state.store.revoke(issuer=parent.issuer, run_id="run-1")

    assert meta(told[0])["reason"] == "ended"
    assert world.ran == []


async def test_run_that_was_ended_before_is_denied(tmp_path: Path) -> None:
    """Nothing runs for a run that is over, and the caller is told not to come back."""
    world = make_world(tmp_path, policies=ALL, extend=extend(Gate()))  # type: ignore[arg-type]
    world.state.store.revoke(issuer="urn:agentguard:testing", run_id="run-1")

    with acting_as("reader", run_id="run-1"):
        async with Client(world.server) as client:
            result = await client.call_tool("quick", {})

    assert world.ran == []
    assert world.records()[-1]["agentguard.decision.reason"] == "revoked"
    assert meta(result)["reason"] == "ended"


async def test_run_that_expires_during_the_call_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deadline of a call is the end of the authority that it came with."""
    gate, clock, ahead = Gate(), Clock(1_000.0), event_loops_clock(monkeypatch)
    world = make_world(tmp_path, policies=ALL, extend=extend(gate), clock=clock, agent=None)  # type: ignore[arg-type]

    def passes() -> None:
        clock.now, ahead.now = 1_005.0, 5.0

    with acting_as("reader", ends_at=1_005, run_ends_at=1_010, issued_at=1_000), anyio.fail_after(20):
        result = await call_and_wait(world, gate, passes)

    assert meta(result) | {"id": ""} == {"id": "", "effect": "deny", "reason": "ended", "retry": "new_run"}
    assert world.ran == []
    assert world.records("outcome")[0]["agentguard.execution.outcome"] == "cancelled"


async def test_revocation_between_check_and_run_is_not_lost(tmp_path: Path) -> None:
    """A call that is registered before the check is cancelled by a revocation that comes after it."""
    world = make_world(tmp_path, policies=ALL, extend=extend(Gate()))  # type: ignore[arg-type]
    store = world.state.store
    ended = store.ended
    checks = 0

    def revoke_right_after_the_last_check(invocation: Invocation) -> bool:
        nonlocal checks
        checks += 1
        answer = ended(invocation)
        # 1: preflight. 2: step 1. 3: step 6, the last one before the tool.
        if checks == 3:
            store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)
        return answer

    store.ended = revoke_right_after_the_last_check  # type: ignore[method-assign]
    with acting_as("reader", run_id="run-1"):
        async with Client(world.server) as client:
            result = await client.call_tool("quick", {})

    assert meta(result)["reason"] == "ended"
    assert world.records("outcome")[0]["agentguard.execution.outcome"] in {"cancelled", "withheld"}


async def test_grade_of_an_acting_invocation_is_what_the_test_says(tmp_path: Path) -> None:
    """A direct call of a guarded function raises AccessDenied and not a framework's result."""
    world = make_world(
        tmp_path,
        policies=ALL + '@id("run") forbid (principal, action, resource) unless { principal.grade == "run" };',
    )
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader"):
        assert await export(max_rows=3) == "3 rows"
    with acting_as("reader", grade=Grade.TOKEN), pytest.raises(AccessDenied) as denied:
        await export(max_rows=3)

    assert denied.value.decision.policy_ids == ("run",)


async def test_clock_that_stands_at_the_end_denies(tmp_path: Path) -> None:
    """At the very second of its end a run is over."""
    clock = Clock(1_000.0)
    world = make_world(tmp_path, policies=ALL, clock=clock, agent=None)
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader", ends_at=1_000.0), pytest.raises(AccessDenied) as denied:
        await export()

    assert str(denied.value.decision.reason) == "expired"


async def test_revocation_between_register_and_check_stops_the_judging(tmp_path: Path) -> None:
    """Check-then-register would go on to load and to allow, for a run that had ended by then."""

    def add(world: World) -> None:
        @world.guard.entity("File")
        async def file(_: str) -> Entity:
            await anyio.lowlevel.checkpoint()
            world.ran.append("loader")
            return Entity()

        @world.server.tool()
        @world.guard.tool(resource="File::{name}")
        async def open_file(name: str) -> None:
            world.ran.append("open_file")

    world = make_world(tmp_path, policies=ALL, extend=add)
    store = world.state.store
    ended = store.ended
    checks = 0

    def revoke_right_after_the_first_check(invocation: Invocation) -> bool:
        nonlocal checks
        checks += 1
        answer = ended(invocation)
        # 1: preflight. 2: step 1, for which the call is registered already.
        if checks == 2:
            store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)
        return answer

    store.ended = revoke_right_after_the_first_check  # type: ignore[method-assign]
    with acting_as("reader"):
        async with Client(world.server) as client:
            result = await client.call_tool("open_file", {"name": "x"})

    assert meta(result)["reason"] == "ended"
    assert world.ran == []
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["revoked"]


async def test_revocation_while_the_decision_is_recorded_stops_the_call(tmp_path: Path) -> None:
    """The check after the record finds it: one allow stands, with an outcome that says nothing ran."""
    store = MemoryStore(clock=lambda: 0.0)

    class Slow(MemoryLedger):
        """A ledger that takes so long that the run ends meanwhile."""

        def append(self, record: Mapping[str, object]) -> Entry:
            if record["kind"] == "decision":
                store.revoke(issuer="urn:agentguard:testing", run_id="run-1")
            return super().append(record)

    world = make_world(
        tmp_path,
        policies=ALL,
        extend=extend(Gate()),  # type: ignore[arg-type]
        state=State(store=store, ledger=Slow(), key=bytes(32)),
    )

    with acting_as("reader", run_id="run-1"):
        async with Client(world.server) as client:
            result = await client.call_tool("quick", {})

    assert world.ran == []
    (decision,) = world.records()
    (outcome,) = world.records("outcome")
    assert decision["agentguard.decision.effect"] == "allow"
    assert decision["agentguard.decision.id"] == outcome["agentguard.decision.id"] == meta(result)["id"]
    assert outcome["agentguard.execution.outcome"] == "cancelled"
    assert outcome["agentguard.execution.reason"] == "revoked"


async def test_deadline_that_the_clock_does_not_see_denies_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clock that was set back does not turn a call that was cut into one that gave nothing."""
    gate, ahead = Gate(), event_loops_clock(monkeypatch)
    world = make_world(
        tmp_path,
        policies=ALL,
        extend=extend(gate),  # type: ignore[arg-type]
        clock=Clock(1_000.0),
        agent=None,
    )

    def passes() -> None:
        ahead.now = 5.0

    with acting_as("reader", ends_at=1_005, run_ends_at=1_010, issued_at=1_000), anyio.fail_after(20):
        result = await call_and_wait(world, gate, passes)

    assert meta(result)["reason"] == "ended"
    assert world.records("outcome")[0]["agentguard.execution.outcome"] == "cancelled"


@pytest.mark.parametrize("ends_at", [1_000.0, 999.0, float("nan")])
async def test_tool_that_never_waits_does_not_begin_after_the_end(ends_at: float, tmp_path: Path) -> None:
    """A deadline alone would let it run to its end: the check is what stops it."""
    world = make_world(
        tmp_path,
        policies=ALL,
        extend=extend(Gate()),  # type: ignore[arg-type]
        clock=Clock(1_000.0),
        agent=None,
    )
    quick = world.server._tool_manager.list_tools()[-1].fn

    with acting_as("reader", ends_at=ends_at, run_ends_at=1_001, issued_at=900), pytest.raises(AccessDenied) as denied:
        await quick()

    assert str(denied.value.decision.reason) == "expired"
    assert world.ran == []


async def test_denial_of_a_withheld_result_is_no_allow(tmp_path: Path) -> None:
    """It has the id of the decision that allowed the call, and nothing else of it."""

    def add(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def suicidal() -> str:
            invocation = current_invocation()
            world.state.store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)
            return "secret"

    world = make_world(tmp_path, policies=ALL, extend=add)

    with acting_as("reader"), pytest.raises(AccessDenied) as denied:
        await world.server._tool_manager.list_tools()[-1].fn()

    decision = denied.value.decision
    assert not decision.allowed
    assert (decision.policy_ids, decision.advice) == ((), None)
    assert decision.id == world.records()[0]["agentguard.decision.id"]


async def test_call_that_is_over_is_no_longer_in_flight(tmp_path: Path) -> None:
    """Whatever became of it; otherwise each call would be kept for as long as the server runs."""
    world = make_world(tmp_path, policies=ALL, extend=extend(Gate()))  # type: ignore[arg-type]

    with acting_as("reader"):
        async with Client(world.server) as client:
            await client.call_tool("quick", {})
            await client.call_tool("read", {"record_id": "nobody"})

    assert world.guard._enforcer is not None
    assert world.guard._enforcer._live._calls == {}
