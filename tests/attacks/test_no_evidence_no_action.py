"""A loss of power takes along what was not on the disk: no tool runs before its decision is."""

from collections.abc import Mapping
from pathlib import Path

import anyio

from agentguard import Guard
from agentguard.errors import Refusal
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.evidence.verify import verify_folder
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import Reason
from agentguard.state import State
from tests.evidence.chains import ledger_in
from tests.world import World, connected, make_world, meta


class TwoSteps(MemoryLedger):
    """A ledger that keeps a record in two steps, of which the second can be held up or fail."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = anyio.Event()
        self.may = anyio.Event()
        self.fails = False

    def append(self, record: Mapping[str, object]) -> Entry:
        """Take the first step."""
        return super().append(record)

    async def settled(self, entry: Entry) -> None:
        """Take the second."""
        self.asked.set()
        if self.fails:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "the disk failed")
        await self.may.wait()


def world_with(folder: Path, ledger: MemoryLedger) -> World:
    """Return a world whose evidence goes there."""
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=ledger, key=b"k" * 32)
    return make_world(folder, state=state)


async def test_a_tool_waits_until_its_decision_is_on_the_disk(tmp_path: Path) -> None:
    """Appended is not enough where more was asked for."""
    ledger = TwoSteps()
    world = world_with(tmp_path, ledger)
    async with connected(world, "memory", "2025-11-25") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.call_tool, "read", {"record_id": "r1"})
        await ledger.asked.wait()
        assert world.ran == []
        ledger.may.set()

    assert world.ran == ["read r1"]


async def test_a_disk_that_fails_denies_the_call(tmp_path: Path) -> None:
    """The record has the decision, and that it never ran."""
    ledger = TwoSteps()
    ledger.fails = True
    world = world_with(tmp_path, ledger)
    async with connected(world, "memory", "2025-11-25") as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "unavailable"
    assert world.ran == []
    (outcome,) = world.records("outcome")
    assert outcome["agentguard.execution.outcome"] == "cancelled"
    assert outcome["agentguard.execution.reason"] == "evidence_unavailable"


async def test_a_run_that_ends_while_the_disk_is_waited_for_never_begins(tmp_path: Path) -> None:
    """The wait is inside the run's own scope."""
    ledger = TwoSteps()
    world = world_with(tmp_path, ledger)
    results = []
    async with connected(world, "memory", "2025-11-25") as client, anyio.create_task_group() as tasks:

        async def call() -> None:
            results.append(await client.call_tool("read", {"record_id": "r1"}))

        tasks.start_soon(call)
        await ledger.asked.wait()
        (decided,) = world.records()
        world.guard.revoke(decided["agentguard.run.id"])

    assert meta(results[0])["reason"] == "ended"
    assert world.ran == []


async def test_a_guard_with_a_folder_leaves_evidence_that_holds(tmp_path: Path) -> None:
    """From the option to the chain."""
    make_world(tmp_path / "policies", attach=False)
    world = make_world(tmp_path / "policies", state=_folder_state(tmp_path))
    async with connected(world, "memory", "2025-11-25") as client:
        await client.call_tool("read", {"record_id": "r1"})
        await client.call_tool("read", {"record_id": "r9"})

    assert len(world.records()) == 2
    world.state.close()
    assert verify_folder(tmp_path / "state" / "evidence").problems == ()


def _folder_state(place: Path) -> State:
    """Return the state that a guard makes of a folder."""
    guard = Guard(
        place / "policies", issuer="https://issuer.example", audience="http://127.0.0.1/mcp", state=place / "state"
    )
    assert isinstance(guard.state.ledger, SQLiteLedger)
    return guard.state


async def test_a_call_on_a_host_ledger_is_on_the_disk(tmp_path: Path) -> None:
    """With the real one, from end to end."""
    ledger = ledger_in(tmp_path / "evidence", durability="host", pause=60)
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=ledger, key=b"k" * 32)
    world = make_world(tmp_path / "policies", state=state)
    async with connected(world, "memory", "2025-11-25") as client:
        assert not (await client.call_tool("read", {"record_id": "r1"})).is_error

    (entry,) = [entry for entry in ledger if entry.record["kind"] == "decision"]
    assert ledger._disk.has(entry.chain_id, entry.seq)
    ledger.close()
