"""Ending a run: how soon its calls are refused and stopped, and what many ends cost.

The floors are what no store of the same kind can leave out: a bare commit and a look at
the file every ten milliseconds, a bare message of a stream and its reader. Both sides
take turns, in the same processes.
"""

from __future__ import annotations

import gc
import multiprocessing
import random
import statistics
import tempfile
import threading
import time
import tracemalloc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel

from agentguard.lifecycle import tables
from agentguard.lifecycle.database import connect
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import Ended, MemoryStore, Revocation, Store
from tests.bench import floors
from tests.bench.timing import spread
from tests.lifecycle.processes import Other, other
from tests.lifecycle.stores import Clock, invocation, served
from tests.soak.guarded import Guarded, Tried, make_guarded
from tests.soak.others import Place, revoke_when_told
from tests.world import ISSUER

TRIES = 500
LIVE = 200_000
CHECKS = 20_000
ROUNDS = 9
Stamps = dict[Any, int]


class Seen:
    """When news came, by name."""

    def __init__(self) -> None:
        self._at: Stamps = {}
        self._came = threading.Event()

    def note(self, name: object) -> None:
        """Note that it came now."""
        self._at[name] = time.perf_counter_ns()
        self._came.set()

    async def at(self, name: object) -> int:
        """Wait for it, and return when it came."""
        while name not in self._at:
            await anyio.to_thread.run_sync(self._came.wait)
            self._came.clear()
        return self._at[name]


@contextmanager
def told(work: Callable[..., None], *arguments: Any) -> Iterator[tuple[Other, Callable[[object], None]]]:
    """Give another process, and how to send it an order."""
    orders, sends = multiprocessing.Pipe(duplex=False)
    with other(work, orders, *arguments) as process:
        process.hear()
        yield process, sends.send


async def in_one_process(guarded: Guarded, store: Store) -> tuple[list[float], list[float], list[float]]:
    """Return, in ms: from revoking to a refused call, that of a call alone, and to a cancelled tool."""
    refused, alone, stopped = [], [], []
    for number in range(TRIES):
        run = f"run-{number}"
        token = guarded.token(run)
        await guarded.call("quick", run, token)
        called = time.perf_counter_ns()
        store.revoke(issuer=ISSUER, run_id=run)
        assert (await guarded.call("quick", run, token)).reason == "ended"
        refused.append((time.perf_counter_ns() - called) / 1e6)
        called = time.perf_counter_ns()
        await guarded.call("quick", run, token)
        alone.append((time.perf_counter_ns() - called) / 1e6)

        run = f"patient-{number}"
        async with patient(guarded, run) as tried:
            called = time.perf_counter_ns()
            store.revoke(issuer=ISSUER, run_id=run)
        stopped.append((stopped_at(tried) - called) / 1e6)
    return refused, alone, stopped


@asynccontextmanager
async def patient(guarded: Guarded, run: str) -> AsyncIterator[Tried]:
    """Give a call in flight; the block ends when the call was stopped."""
    token = guarded.token(run)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(guarded.call, "patient", run, token)
        while run not in guarded.tries or guarded.tries[run].began_at is None:
            await anyio.lowlevel.checkpoint()
        yield guarded.tries[run]


def stopped_at(tried: Tried) -> int:
    """Return when a patient tool was cancelled."""
    assert tried.stopped_at is not None
    return tried.stopped_at


async def across(kind: str, folder: Path) -> dict[str, list[float]]:
    """Return, in ms: from revoking in another process to refusal, to a cancelled tool, and the floor."""
    chance = random.Random(5)  # noqa: S311  a moment, not a secret
    refused, stopped, floor = [], [], []
    with ExitStack() as stack:
        seen, least = Seen(), Seen()
        if kind == "valkey":
            url = stack.enter_context(served(folder)).connection_url
            place, bare = Place("valkey", url), (floors.add_when_told, url)
            reads: Any = floors.reading(url, least.note)
        else:
            place = Place("sqlite", str(folder / "state" / "store.db"))
            bare = (floors.commit_when_told, folder / "floor.db")  # type: ignore[assignment]
            reads = floors.looking(folder / "floor.db", least.note)
        store = stack.enter_context(closing(place.open()))
        store.subscribe(lambda ended: seen.note(ended.name))
        guarded = make_guarded(folder / "policies", store)
        revoker, order_end = stack.enter_context(told(revoke_when_told, place))
        writer, order_write = stack.enter_context(told(*bare))
        stack.enter_context(reads)
        for number in range(TRIES):
            # So that what is measured is not in step with who looks.
            await anyio.sleep(chance.uniform(0, 0.01))
            run = f"run-{number}"
            token = guarded.token(run)
            order_end((run, 0))
            came = await seen.at(run)
            assert (await guarded.call("quick", run, token)).reason == "ended"
            refused.append((came - revoker.hear()[0][1]) / 1e6)

            await anyio.sleep(chance.uniform(0, 0.01))
            run = f"patient-{number}"
            async with patient(guarded, run) as tried:
                order_end((run, 0))
            stopped.append((stopped_at(tried) - revoker.hear()[0][1]) / 1e6)

            await anyio.sleep(chance.uniform(0, 0.01))
            order_write(number)
            came = await least.at(number)
            floor.append((came - writer.hear()[0]) / 1e6)
    return {"refused": refused, "stopped": stopped, "floor": floor}


def checked(store: Store) -> float:
    """Return how long it takes to ask for a run that lives, in ns."""
    asked = invocation("asked", run_ends_at=10**9)
    began = time.perf_counter_ns()
    for _ in range(CHECKS):
        store.ended(asked)
    return (time.perf_counter_ns() - began) / CHECKS


def many(name: str, empty: Store, full: Store, fill: Callable[[], None], drain: Callable[[], None]) -> None:
    """Measure a store with many ends, before, meanwhile and after."""
    gc.collect()
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    fill()
    gc.collect()
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    taken = [(checked(empty), checked(full)) for _ in range(ROUNDS)]
    bare, loaded = (statistics.median(times) for times in zip(*taken, strict=True))
    tracemalloc.start()
    # What was there before this is not traced: what goes is seen in a second filling.
    drain()
    fill()
    gc.collect()
    filled, _ = tracemalloc.get_traced_memory()
    drain()
    gc.collect()
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    print(
        f"  {name:<24}  a check {loaded:.0f} ns, {loaded / bare:.2f} x that of an empty one ({bare:.0f} ns); "
        f"{held / LIVE:.0f} bytes an entry; {100 * left / filled:.1f} % left when all are over"
    )


def many_in_memory() -> None:
    """Measure a store in memory."""
    clock = Clock(0.0)
    full = MemoryStore(clock=clock)

    def fill() -> None:
        for number in range(LIVE):
            full.revoke(issuer=ISSUER, run_id=f"{number:032x}", until=clock.now + 600)

    def drain() -> None:
        clock.now += 10_000
        for _ in range(LIVE // 1_000 + 1):
            full.revoke(issuer=ISSUER, run_id="last", until=clock.now)

    many("MemoryStore", MemoryStore(clock=clock), full, fill, drain)


def many_in_a_file(folder: Path) -> None:
    """Measure the mirror of a file, which is that of a server too."""
    clock = Clock(0.0)
    path = folder / "many" / "store.db"
    with closing(SQLiteStore(path, clock=clock)) as full, closing(SQLiteStore(folder / "few" / "store.db")) as empty:

        def fill() -> None:
            with closing(connect(path, seconds=2).connection) as connection:
                connection.execute("BEGIN IMMEDIATE")
                tables.prune(connection, clock.now)
                for number in range(LIVE):
                    ended = Ended(issuer=ISSUER, name=f"{number:032x}")
                    tables.add_ended(connection, ended, Revocation(reason="", at=clock.now, until=clock.now + 600))
                connection.execute("COMMIT")
            # Its own thread may be reading all that, for longer than an answer may be old.
            full.sync()
            full.sync()

        def drain() -> None:
            clock.now += 10_000
            for _ in range(LIVE // 1_000 + 1):
                full.sync()

        many("the mirror of a file", empty, full, fill, drain)


async def measure() -> None:
    """Print how soon, and what many cost."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store = MemoryStore(clock=time.time)
        one = make_guarded(folder / "one", store)
        refused, alone, stopped = await in_one_process(one, store)
        sqlite = await across("sqlite", folder / "sqlite")
        valkey = await across("valkey", folder / "valkey")
        spread(
            f"ending a run: from revocation to refusal, {TRIES} tries each",
            {
                "same process, with the call that is refused": (refused, alone),
                "  the call alone": (alone, None),
                "two processes on SQLite": (sqlite["refused"], sqlite["floor"]),
                "  floor: a commit, and a look every 10 ms": (sqlite["floor"], None),
                "two processes on Valkey": (valkey["refused"], valkey["floor"]),
                "  floor: a message of a stream": (valkey["floor"], None),
            },
        )
        spread(
            f"ending a run: from revocation to the tool's cancellation, {TRIES} tries each",
            {
                "same process": (stopped, None),
                "two processes on SQLite": (sqlite["stopped"], sqlite["floor"]),
                "two processes on Valkey": (valkey["stopped"], valkey["floor"]),
            },
        )
        print(f"\nending runs: {LIVE:,} that still matter")
        many_in_memory()
        await anyio.to_thread.run_sync(partial(many_in_a_file, folder))
