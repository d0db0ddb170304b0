"""Somebody acts, and tries to leave no trace of it, or two; or a clock and a disk do so for them.

What the evidence says of a run is said once by each guard that saw it: when it became
active, before anything of it ran, and how it ended.
"""

from __future__ import annotations

import gc
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp import Client
from mcp_types import RequestParamsMeta
from opentelemetry import context as otel_context
from opentelemetry.propagate import extract

from agentguard import AccessDenied, Reason, State
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.runs import LiveRuns
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.testing import acting_as, unsafe_invocation
from tests.evidence.following import Disk
from tests.tokens import Clock
from tests.world import EVERYTHING, World, make_world, meta

ALL = f'@id("all") {EVERYTHING}'


def runs_of(world: World) -> LiveRuns:
    """Return what follows the runs of a world's guard."""
    assert world.guard._enforcer is not None
    return world.guard._enforcer._runs


def states(world: World) -> list[str]:
    """Return the states that are on record, oldest first."""
    runs_of(world).settle()
    return [record["agentguard.run.state"] for record in world.records("run")]


def run_spans(world: World) -> list[Any]:
    """Return the spans of whole runs."""
    return [span for span in world.exporter.get_finished_spans() if span.name.startswith("agentguard.run ")]


async def test_run_is_active_on_record_before_its_tool_runs(tmp_path: Path) -> None:
    """Between the decision and whatever the tool does."""
    seen: list[list[str]] = []

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def look() -> None:
            seen.append([entry.record["kind"] for entry in cast("MemoryLedger", world.state.ledger)])

    world = make_world(tmp_path, policies=ALL, extend=extend)
    async with Client(world.server) as client:
        await client.call_tool("look", {})
        await client.call_tool("look", {})

    assert seen == [["start", "decision", "run"], ["start", "decision", "run", "outcome", "decision"]]


async def test_run_that_cannot_be_put_on_record_as_active_is_denied(tmp_path: Path) -> None:
    """The disk is full between the decision and that; the next run is not the worse for it."""
    disk = Disk()
    append = disk.append

    def full_for_runs(record: Any) -> Any:
        disk.full = record["kind"] == "run"
        return append(record)

    disk.append = full_for_runs  # type: ignore[method-assign]
    world = make_world(tmp_path, policies=ALL)
    world = make_world(tmp_path, policies=ALL, state=State(store=world.state.store, ledger=disk, key=bytes(32)))
    async with Client(world.server) as client:
        result = await client.call_tool("export", {})
        disk.append = append  # type: ignore[method-assign]
        assert meta(result)["reason"] == "unavailable"
        assert world.ran == []
        assert not (await client.call_tool("export", {})).is_error

    assert states(world) == ["active"]
    assert [record["agentguard.execution.reason"] for record in world.records("outcome")[:1]] == [
        "evidence_unavailable"
    ]


async def test_run_that_was_only_denied_is_not_active(tmp_path: Path) -> None:
    """What it tried is in the decisions; calls that are denied later count."""
    world = make_world(tmp_path)
    async with Client(world.server) as client:
        await client.call_tool("export", {"max_rows": 501})
        assert states(world) == []
        await client.call_tool("export", {"max_rows": 500})
        for tool, arguments in (("export", {"max_rows": 501}), ("read", {"record_id": "r9"}), ("drop", {})):
            assert (await client.call_tool(tool, arguments)).is_error
    run_id, issuer = world.records()[0]["agentguard.run.id"], world.issuer.issuer
    world.guard.revoke(run_id, reason="stolen laptop")

    assert states(world) == ["active", "revoked"]
    ended = world.records("run")[1]
    assert (ended["agentguard.run.calls"], ended["agentguard.run.denied"]) == (1, 3)
    assert (ended["agentguard.run.reason"], ended["agentguard.invocation.issuer"]) == ("stolen laptop", issuer)
    (span,) = run_spans(world)
    decisions = [span.context for span in world.exporter.get_finished_spans() if "authorize" in span.name]
    assert [link.context for link in span.links] == decisions[1:]


async def test_run_that_is_ended_in_mid_call_has_one_end(tmp_path: Path) -> None:
    """However often it is ended, and though its calls go on asking."""
    began = anyio.Event()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def wait() -> None:
            began.set()
            await anyio.sleep_forever()

    world = make_world(tmp_path, policies=ALL, extend=extend)
    told: list[str] = []
    with acting_as("reader") as invocation, anyio.fail_after(10):
        async with Client(world.server) as client, anyio.create_task_group() as tasks:

            async def call() -> None:
                told.append(meta(await client.call_tool("wait", {}))["reason"])

            tasks.start_soon(call)
            await began.wait()
            for reason in ("stolen laptop", "stolen again"):
                world.guard.revoke(invocation.run_id, reason=reason)
        async with Client(world.server) as client:
            assert meta(await client.call_tool("export", {}))["reason"] == "ended"

    assert told == ["ended"]
    assert states(world) == ["active", "revoked"]
    assert len(run_spans(world)) == 1
    assert world.records("run")[1]["agentguard.run.reason"] == "stolen laptop"


async def test_caller_that_switches_spans_off_does_not_switch_off_that_of_its_run(tmp_path: Path) -> None:
    """It stands in a trace of its own, so a sampler that follows the caller has no one to follow."""
    world = make_world(tmp_path, policies=ALL)
    caller = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"}
    token = otel_context.attach(extract(caller))
    try:
        with acting_as("reader") as invocation:
            async with Client(world.server) as client:
                await client.call_tool("export", {}, meta=cast("RequestParamsMeta", caller))
            assert not world.exporter.get_finished_spans()
            world.guard.revoke(invocation.run_id)
            runs_of(world).settle()
    finally:
        otel_context.detach(token)

    (span,) = world.exporter.get_finished_spans()
    assert span.name == "agentguard.run reader"
    assert (span.parent, list(span.links)) == (None, [])
    assert states(world) == ["active", "revoked"]


async def test_clock_that_steps_back_lets_no_run_act_that_is_expired_on_record(tmp_path: Path) -> None:
    """It would have two lives otherwise."""
    clock = Clock()
    world = make_world(tmp_path, policies=ALL, clock=clock, agent=None)
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader", at=clock.now) as invocation:
        await export()
        clock.now = invocation.run_ends_at
        assert states(world) == ["active", "expired"]
        clock.now -= 600
        with pytest.raises(AccessDenied) as denied:
            await export()
    assert denied.value.decision.reason is Reason.EXPIRED
    assert states(world) == ["active", "expired"]
    assert world.ran == ["export 10 csv"]
    with acting_as("reader", at=clock.now + 60):
        await export()
    assert states(world) == ["active", "expired", "active"]


async def test_guards_that_share_a_store_keep_evidence_of_their_own(tmp_path: Path) -> None:
    """Each of what it saw: one saw the child alone, one its parent too; a third, nothing."""
    path = tmp_path / "store.db"
    with closing(SQLiteStore(path)) as first, closing(SQLiteStore(path)) as second, closing(SQLiteStore(path)) as third:
        worlds = [
            make_world(
                tmp_path / str(number),
                policies=ALL,
                agent=None,
                state=State(store=store, ledger=MemoryLedger(), key=bytes(32)),
            )
            for number, store in enumerate((first, second, third))
        ]
        parent = unsafe_invocation("reader")
        for number, facts in ((0, {"ancestors": (parent,)}), (1, {"ancestors": (parent,)}), (1, {})):
            run_id = "child" if facts else parent.run_id
            with acting_as("reader", run_id=run_id, **facts):  # type: ignore[arg-type]
                await worlds[number].server._tool_manager.list_tools()[1].fn()
        third.revoke(issuer=parent.issuer, run_id=parent.run_id, reason="the task was withdrawn")
        for store in (first, second):
            store.sync()

        assert [states(world) for world in worlds] == [
            ["active", "revoked"],
            ["active", "active", "revoked", "revoked"],
            [],
        ]
        assert [len(run_spans(world)) for world in worlds] == [1, 2, 0]
        why = {record.get("agentguard.run.reason") for world in worlds for record in world.records("run")}
        assert why == {None, "the task was withdrawn", "a run above it ended: the task was withdrawn"}


async def test_run_that_lives_when_the_process_ends_has_no_end(tmp_path: Path) -> None:
    """Nobody knows what becomes of it elsewhere."""
    world = make_world(tmp_path, policies=ALL)
    async with Client(world.server) as client:
        await client.call_tool("export", {})
    runs_of(world).settle()
    ledger, exporter = world.state.ledger, world.exporter
    del world
    gc.collect()

    assert isinstance(ledger, MemoryLedger)
    assert [entry.record["kind"] for entry in ledger] == ["start", "decision", "run", "outcome"]
    assert not [span for span in exporter.get_finished_spans() if span.name.startswith("agentguard.run ")]
