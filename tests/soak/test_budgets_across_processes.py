"""Two servers, one run, two hundred calls at once: what policies say of the run holds exactly.

Each process is a guard of its own with the store in between, and its clients all call at the
same moment. What ran is counted by the tools themselves.
"""

from __future__ import annotations

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Annotated, Any, Final, Protocol

import anyio
import anyio.to_thread
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer

from agentguard import Guard, MemoryStore, Spend, State
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import Store
from agentguard.testing import acting_as
from tests.soak.others import Place
from tests.world import write_policies

CALLS: Final = 100
# Nobody needs so many seconds until it can begin, unless another one never does.
LONGEST: Final = 120
POLICIES: Final = """
@id("all") permit (principal, action, resource);

@id("ten-calls") forbid (principal, action == Action::"count", resource)
when { context.run.calls_of_this_tool >= 10 };

@id("budget") forbid (principal, action == Action::"pay", resource)
when { context.run.spent.payments.greaterThan(decimal("100.0")) };

@id("first-alone") forbid (principal, action == Action::"read", resource)
when { context.run.labels.contains("untrusted") };
"""


def serve(folder: Path, store: Store) -> tuple[MCPServer[Any], list[str]]:
    """Return a guarded server on *store*, and what ran there."""
    ran: list[str] = []
    state = State(store=store, ledger=MemoryLedger(), key=b"k" * 32)
    guard = Guard(folder, issuer="https://issuer.example", audience="https://x.example/mcp", state=state)
    server = MCPServer("payments")

    @server.tool()
    @guard.tool
    async def count() -> None:
        ran.append("count")

    @server.tool()
    @guard.tool
    async def pay(amount: Annotated[Decimal, Spend("payments")]) -> None:
        ran.append(f"pay {amount}")

    @server.tool()
    @guard.tool(labels={"untrusted"})
    def read() -> None:
        ran.append("read")

    guard.attach(server)
    return server, ran


class Start(Protocol):
    """Where those wait for each other who are to begin at the same moment."""

    def wait(self, timeout: float | None = None, /) -> int:
        """Return once all of them are here."""


async def call_at_once(server: MCPServer[Any], at: float, start: Start) -> int:
    """Call every tool a hundred times as one run, beginning with the others; return how many were let through."""
    let_through = 0
    async with Client(server) as client:

        async def one(tool: str, arguments: dict[str, Any]) -> None:
            nonlocal let_through
            result = await client.call_tool(tool, arguments)
            let_through += not result.is_error

        with acting_as("agent", at=at, run_id="run-1"):
            await anyio.to_thread.run_sync(start.wait, LONGEST)
            async with anyio.create_task_group() as tasks:
                for number in range(CALLS):
                    # Amounts that do not divide the budget, in another order in each process.
                    tasks.start_soon(one, "pay", {"amount": str(Decimal(3 + number % 7) / 4)})
                    tasks.start_soon(one, "count", {})
                    tasks.start_soon(one, "read", {})
    return let_through


def serve_and_call(says: Connection, start: Start, at: float, folder: Path, place: Place) -> None:
    """Be one of the servers: say what ran."""
    store = place.open()
    server, ran = serve(folder, store)
    let_through = anyio.run(call_at_once, server, at, start)
    store.close()
    says.send((ran, let_through))


def spent(ran: list[str]) -> Decimal:
    """Return what was paid."""
    return sum((Decimal(one.removeprefix("pay ")) for one in ran if one.startswith("pay")), Decimal(0))


def check(ran: list[str], let_through: int) -> None:
    """Check that exactly as much ran as policies allow, and was let through."""
    assert ran.count("count") == 10
    assert ran.count("read") == 1
    # The largest amount is 2.25: whatever was denied would have gone over.
    assert Decimal(100) - Decimal("2.25") < spent(ran) <= 100
    assert let_through == len(ran)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Give the policies."""
    return write_policies(tmp_path / "policies", POLICIES, types=None)


@pytest.fixture
def processes(folder: Path, place: Place) -> Iterator[list[Connection]]:
    """Give what the two servers say at their end."""
    context = multiprocessing.get_context("spawn")
    start, at = context.Barrier(2), time.time()
    found, started = [], []
    for _ in range(2):
        says, ours = context.Pipe(duplex=False)
        process = context.Process(target=serve_and_call, args=(ours, start, at, folder, place))
        process.start()
        started.append(process)
        found.append(says)
        # Who ends without a word is not waited for.
        ours.close()
    yield found
    for process in started:
        process.join(timeout=30)
        process.kill()


def test_two_processes_let_exactly_as_much_run_as_policies_allow(processes: list[Connection]) -> None:
    """On SQLite, and on Valkey."""
    said = [says.recv() for says in processes]
    ran = [one for of_one, _ in said for one in of_one]
    check(ran, sum(let_through for _, let_through in said))
    # Else it would have been no race.
    assert all(of_one for of_one, _ in said)


def test_one_process_lets_exactly_as_much_run_as_policies_allow(folder: Path) -> None:
    """In memory, where two guards share a store, each with an event loop in a thread of its own."""
    store = MemoryStore(clock=time.time)
    both = [serve(folder, store) for _ in range(2)]
    at, start = time.time(), threading.Barrier(2)
    # Else one of them may be through before the other one comes to run.
    every, interval = 1e-5, sys.getswitchinterval()
    sys.setswitchinterval(every)
    try:
        with ThreadPoolExecutor(2) as threads:
            found = [threads.submit(anyio.run, call_at_once, server, at, start) for server, _ in both]
            let_through = sum(one.result() for one in found)
    finally:
        sys.setswitchinterval(interval)
    check([one for _, ran in both for one in ran], let_through)
    assert all(ran for _, ran in both)
