"""What one server knows of a run is old by the time that it counts: other calls, other servers, people who think."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from mcp.server.request_state import RequestStateBoundary
from mcp_types import CallToolResult

from agentguard import Approval, ApprovalRequest, Entity, Guard, MemoryStore, State
from agentguard.evidence.ledger import MemoryLedger
from agentguard.testing import acting_as
from tests.approvals import Person, again, first
from tests.world import Era, write_policies

MODERN: Final[Era] = "2026-07-28"
ALL: Final = '@id("all") permit (principal, action, resource);\n'
ASKS: Final = (
    ALL
    + """
@id("ask") @obligation("approval")
forbid (principal, action == Action::"export", resource)
when { context.run.calls >= 2 } unless { context has approval };
"""
)


class Away(MemoryStore):
    """A store that is asked over a network."""

    waits = True  # type: ignore[misc]


class Replica:
    """One of several servers on one store."""

    def __init__(
        self,
        folder: Path,
        policies: str,
        store: MemoryStore,
        users: Callable[[], Awaitable[None]] | None = None,
        **options: Any,
    ) -> None:
        write_policies(folder, policies, types="entity Record in [Tool] = { closed: Bool };")
        self.state = State(store=store, ledger=MemoryLedger(), key=b"k" * 32)
        self.guard = guard = Guard(
            folder, issuer="https://issuer.example", audience="https://x.example/mcp", state=self.state, **options
        )
        self.server = server = MCPServer("records")
        self.loads = self.waiting = 0
        self.busy, self.released = anyio.Event(), threading.Event()

        @guard.entity("Record")
        async def record(record_id: str) -> Entity:
            self.loads += 1
            await anyio.sleep(0.001)
            return Entity({"closed": True})

        if users is not None:

            @guard.entity("User")
            async def user(name: str) -> Entity:
                await users()
                return Entity({})

        @server.tool()
        @guard.tool(resource="Record::{record_id}")
        async def read(record_id: str) -> None: ...

        @server.tool()
        @guard.tool
        async def look() -> None: ...

        @server.tool()
        @guard.tool
        async def export(max_rows: int) -> None: ...

        @server.tool()
        @guard.tool
        def wait() -> None:
            self.waiting += 1
            if self.waiting == 2:
                anyio.from_thread.run_sync(self.busy.set)
            self.released.wait(30)

        guard.attach(server)
        # The SDK's seal is each server's own, unless one gives it a key.
        server.middleware[:] = [one for one in server.middleware if not isinstance(one, RequestStateBoundary)]

    def client(self, person: Any = None) -> Client:
        """Return a client of it."""
        return Client(self.server, mode=MODERN, elicitation_callback=person)

    def reasons(self) -> list[Any]:
        """Return why each call was decided as it was, oldest first."""
        records = (entry.record for entry in self.state.ledger)  # type: ignore[attr-defined]
        return [one["attributes"]["agentguard.decision.reason"] for one in records if one["kind"] == "decision"]


@pytest.fixture
def replica(tmp_path: Path) -> Callable[..., Replica]:
    """Return what makes replicas on one store."""
    store = MemoryStore(clock=time.time)

    def make(policies: str, store: MemoryStore = store, **options: Any) -> Replica:
        return Replica(tmp_path, policies, store, **options)

    return make


async def test_answer_that_comes_to_another_server_is_taken(replica: Callable[..., Replica]) -> None:
    """That one has not heard yet of what made the first one ask."""
    one, other = replica(ASKS), replica(ASKS)
    with acting_as("agent", run_id="run-1"):
        async with one.client(Person()) as asked, other.client(Person()) as answered:
            await answered.call_tool("look", {})
            await asked.call_tool("look", {})
            question = await first(asked)
            answer = await again(answered, question.request_state)
    assert isinstance(answer, CallToolResult)
    assert not answer.is_error
    assert other.reasons() == ["permit", "permit"]


async def test_yes_counts_for_what_a_run_did_elsewhere_meanwhile(replica: Callable[..., Replica]) -> None:
    """It is asked about what holds when it is given: here the same policy, at another server's count."""
    one = replica(ASKS)

    async def person(request: ApprovalRequest) -> Approval:
        async with one.client() as client:
            for _ in range(3):
                assert not (await client.call_tool("look", {})).is_error
        return Approval()

    other = replica(ASKS, approver=person)
    with acting_as("agent", run_id="run-1"):
        async with other.client() as client:
            for _ in range(2):
                await client.call_tool("look", {})
            assert not (await client.call_tool("export", {"max_rows": 1})).is_error
    assert other.reasons() == ["permit"] * 3


async def test_nobody_is_asked_about_what_the_run_had_done_a_while_ago(replica: Callable[..., Replica]) -> None:
    """By now no yes could help: another server let it do all that it may."""
    policies = ASKS + '@id("cap") forbid (principal, action, resource) when { context.run.calls >= 4 };'
    seen: list[ApprovalRequest] = []

    async def person(request: ApprovalRequest) -> Approval:
        seen.append(request)
        return Approval()

    one, other = replica(policies), replica(policies, approver=person)
    with acting_as("agent", run_id="run-1"):
        for replied, times in ((other, 2), (one, 2)):
            async with replied.client() as client:
                for _ in range(times):
                    assert not (await client.call_tool("look", {})).is_error
        async with other.client() as client:
            assert (await client.call_tool("export", {"max_rows": 1})).is_error
    assert seen == []
    assert other.reasons() == ["permit", "permit", "policy"]


@pytest.mark.parametrize(("calls", "reason"), [(1, "permit"), (3, "approval_invalid")])
async def test_yes_is_not_for_what_another_policy_would_ask_by_now(
    calls: int, reason: str, replica: Callable[..., Replica]
) -> None:
    """The run goes on elsewhere while whoever said yes is looked up: the question is another one then."""
    policies = ASKS + (
        '@id("ask-more") @obligation("approval") forbid (principal, action == Action::"export", resource) '
        "when { context.run.calls >= 5 } unless { context has approval };"
    )
    one = replica(policies)

    async def go_on() -> None:
        async with one.client() as client:
            for _ in range(calls):
                assert not (await client.call_tool("look", {})).is_error

    async def person(request: ApprovalRequest) -> Approval:
        return Approval(approver="carol")

    other = replica(policies, approver=person, users=go_on)
    with acting_as("agent", run_id="run-1"):
        async with other.client() as client:
            for _ in range(2):
                await client.call_tool("look", {})
            await client.call_tool("export", {"max_rows": 1})
    assert other.reasons() == ["permit", "permit", reason]


@pytest.mark.parametrize(
    "policies",
    [
        ALL + '@id("closed") forbid (principal, action, resource is Record) when { resource.closed };',
        # Nobody can be asked here.
        ALL + '@id("ask") @obligation("approval") forbid (principal, action, resource is Record) '
        "when { resource.closed } unless { context has approval };",
    ],
)
async def test_denials_that_come_at_once_do_not_have_one_another_judged_again(
    policies: str, replica: Callable[..., Replica]
) -> None:
    """Each counts, and is judged by what the others counted: but what is looked up for it is looked up once, or twice.

    Else sixty of them would ask a loader 1,830 times.
    """
    one = replica(policies)
    with acting_as("agent", run_id="run-1"):
        async with Client(one.server) as client, anyio.create_task_group() as tasks:
            for _ in range(60):
                tasks.start_soon(partial(client.call_tool, "read", {"record_id": "1"}))
    assert len(one.reasons()) == 60
    assert set(one.reasons()) <= {"policy", "approval_unavailable"}
    assert 60 <= one.loads <= 120
    ((_, (tally, _)),) = one.state.store._tallies.items()  # type: ignore[attr-defined]
    assert tally.denied == 60


async def test_denial_that_no_longer_holds_is_judged_as_a_whole(replica: Callable[..., Replica]) -> None:
    """By what the run has done now another policy denies it, or none: that is looked at from the beginning."""
    policies = ALL + (
        '@id("early") forbid (principal, action, resource is Record) when { context.run.denied < 5 };'
        '@id("late") forbid (principal, action, resource is Record) when { context.run.calls >= 3 };'
    )
    one = replica(policies)
    with acting_as("agent", run_id="run-1"):
        async with Client(one.server) as client, anyio.create_task_group() as tasks:
            for _ in range(10):
                tasks.start_soon(partial(client.call_tool, "read", {"record_id": "1"}))
    assert Counter(one.reasons()) == {"policy": 7, "permit": 3}


async def test_judging_does_not_wait_for_tools_that_have_every_thread(tmp_path: Path) -> None:
    """One run keeps all threads busy with slow tools; another one is judged all the same."""
    one = Replica(tmp_path, ALL, Away(clock=time.time))
    anyio.to_thread.current_default_thread_limiter().total_tokens = 2
    async with Client(one.server) as client, anyio.create_task_group() as tasks:
        try:
            with acting_as("agent", run_id="busy"):
                for _ in range(2):
                    tasks.start_soon(client.call_tool, "wait")
                await one.busy.wait()
            with acting_as("agent", run_id="other"), anyio.fail_after(20):
                assert not (await client.call_tool("look")).is_error
        finally:
            one.released.set()


async def test_denial_counts_though_nobody_waits_for_the_answer(tmp_path: Path) -> None:
    """Whoever hangs up at once has tried it all the same."""
    store = Away(clock=time.time)
    one = Replica(tmp_path, ALL, store)
    enforcer = one.guard._enforcer
    assert enforcer is not None
    with acting_as("agent", run_id="run-1") as invocation:
        for _ in range(3):
            with anyio.CancelScope() as hung_up:
                hung_up.cancel()
                await enforcer.tallying.denied(invocation, server="records", origin="")
    ((_, (tally, _)),) = store._tallies.items()
    assert tally.denied == 3


async def test_denials_that_come_together_are_all_counted(tmp_path: Path) -> None:
    """Where the store is far away, those that come while one is counted are counted by one of them."""
    store = Away(clock=time.time)
    one = Replica(tmp_path, ALL + '@id("none") forbid (principal, action == Action::"look", resource);', store)
    with acting_as("agent", run_id="run-1"):
        async with Client(one.server) as client, anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(client.call_tool, "look")
    ((_, (tally, _)),) = store._tallies.items()
    assert tally.denied == 20
    assert tally.version < 20


async def test_person_who_is_bothered_for_nothing_is_a_denial(replica: Callable[..., Replica]) -> None:
    """A run that has people asked and hangs up, again and again, can be stopped for it."""
    asked = anyio.Event()

    async def person(request: ApprovalRequest) -> Approval:
        asked.set()
        await anyio.sleep_forever()
        raise AssertionError

    policies = ASKS.replace("when { context.run.calls >= 2 }", "")
    one = replica(policies, approver=person)
    with acting_as("agent", run_id="run-1"):
        async with Client(one.server) as client:
            with anyio.CancelScope() as hung_up:
                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(partial(client.call_tool, "export", {"max_rows": 1}))
                    await asked.wait()
                    hung_up.cancel()
            await client.call_tool("look", {})
    (tally,) = (tally for tally, _ in one.state.store._tallies.values())  # type: ignore[attr-defined]
    assert tally.denied == 1
