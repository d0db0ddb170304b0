"""What evidence costs that outlives the process, beside evidence in memory."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio

from agentguard import MemoryLedger, MemoryStore, SQLiteLedger, State
from agentguard.evidence.ledger import Ledger
from tests.bench.parts import QUICK, function_call, quick
from tests.bench.timing import Way, medians, table
from tests.world import POLICIES, make_world

CALLS = 200
ROUNDS = 11
IN_FLIGHT = 64


def append(ledger: Ledger, record: dict[str, object]) -> Way:
    """Return one append, and the wait that a call has after it."""
    settle = getattr(ledger, "settled", None)

    async def one() -> None:
        entry = ledger.append(record)
        if settle is not None:
            await settle(entry)

    return one


def together(way: Way) -> Way:
    """Return many calls in flight at once."""

    async def one() -> None:
        await way()

    async def all_of_them() -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(IN_FLIGHT):
                tasks.start_soon(one)

    return all_of_them


async def measure() -> None:
    """Print medians and what they are to the same without a file."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        kinds: dict[str, Callable[[], Ledger]] = {
            "in memory": MemoryLedger,
            "process": lambda: SQLiteLedger(place / "process"),
            "host": lambda: SQLiteLedger(place / "host", durability="host"),
        }
        ledgers = {name: make() for name, make in kinds.items()}
        calls: dict[str, Way] = {}
        appends: dict[str, Way] = {}
        for name, ledger in ledgers.items():
            state = State(store=MemoryStore(clock=lambda: 0.0), ledger=ledger, key=os.urandom(32))
            world = make_world(place / f"world-{name}", policies=POLICIES + QUICK, state=state, extend=quick)
            world.exporter.shutdown()
            calls[name] = function_call(world, "quick", {"max_rows": 7, "fmt": "csv"})
            await calls[name]()
        memory = ledgers["in memory"]
        assert isinstance(memory, MemoryLedger)
        record = next(entry.record for entry in memory if entry.record["kind"] == "decision")
        for name, ledger in ledgers.items():
            appends[name] = append(ledger, record)
        shown(f"evidence: one append of {len(str(record)):,} characters", await taken(appends), "append")
        shown("evidence: one call, alone", await taken(calls), "call")
        many = await medians({n: together(way) for n, way in calls.items()}, rounds=ROUNDS, calls=CALLS // 20)
        shown(
            f"evidence: one call, with {IN_FLIGHT} in flight",
            {name: value / IN_FLIGHT for name, value in many.items()},
            "call",
        )
        for ledger in ledgers.values():
            if isinstance(ledger, SQLiteLedger):
                ledger.close()


async def taken(ways: dict[str, Way]) -> dict[str, float]:
    """Return medians."""
    return await medians(ways, rounds=ROUNDS, calls=CALLS)


def shown(title: str, rows: dict[str, float], what: str) -> None:
    """Print them beside the one in memory."""
    floor = rows["in memory"]
    table(
        title,
        rows,
        {
            name: f"{value / floor:.2f} x in memory, {value - floor:+.1f} µs a {what}, {floor / value:.0%} throughput"
            for name, value in rows.items()
            if name != "in memory"
        },
    )
