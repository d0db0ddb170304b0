"""A real guard with real tokens, called as its adapter calls it but without a transport."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from anyio.lowlevel import checkpoint
from mcp_types import CallToolResult

from agentguard import Invocation, State
from agentguard.adapters.answers import ANSWERS
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.record import call_attributes
from agentguard.lifecycle.store import Store
from agentguard.steps.call import Call, Denial
from tests.world import World, make_world, meta

ALL = '@id("all") permit (principal, action, resource);'
SECRET = "secret"


@dataclass
class Tried:
    """One call, by the monotonic clock that all processes of a host share.

    Attributes:
        run: The run.
        called_at: When the caller called, nanoseconds.
        began_at: When the tool's first line ran, if it did.
        stopped_at: When a patient tool was cancelled, if it was.
        finished_at: When the tool came to its result, if it did.
        answer: What the caller got.
        reason: Why the call was denied, as the caller is told; empty if it was not.
    """

    run: str
    called_at: int = 0
    began_at: int | None = None
    stopped_at: int | None = None
    finished_at: int | None = None
    answer: object = None
    reason: str = ""

    @property
    def handed_out(self) -> bool:
        """Whether the caller got the result."""
        return self.answer == SECRET


@dataclass
class Guarded:
    """A guard on a store, with tools that note how far they came.

    `quick` gives way once, `threaded` is a plain function in a thread, and `patient` waits
    for what never comes: alone the end of its run lets it go.
    """

    world: World
    tries: dict[str, Tried] = field(default_factory=dict)

    def token(self, run: str) -> str:
        """Return a real token of a run."""
        return self.world.token("reader", run=run)

    async def call(self, tool: str, run: str, token: str, *, key: str | None = None) -> Tried:
        """Call a tool: preflight, then the guarded function, as the adapter does."""
        guard = self.world.guard
        enforcer = guard._enforcer
        guarded = next(f for f in guard._functions if f.function.__name__ == tool)
        assert enforcer is not None
        assert guarded.rule is not None
        key = key or run
        tried = self.tries[key] = Tried(run=run, called_at=time.perf_counter_ns())

        async def identify() -> Invocation:
            return await guard._verifier.verify(token)

        facts = call_attributes(method="tools/call", tool=tool, request_id=1)
        call = Call(identify=identify, answers=ANSWERS, transport="http", facts=facts)
        outer = guard._call.set(call)
        try:
            await enforcer.preflight(call, tool, guarded.rule.tool)
            tried.answer = await guarded.wrapper(key=key)
        except Denial as denial:
            tried.answer = ANSWERS.denied(denial.decision)
        finally:
            guard._call.reset(outer)
        if isinstance(tried.answer, CallToolResult):
            tried.reason = meta(tried.answer)["reason"]
        return tried


def make_guarded(folder: Path, store: Store) -> Guarded:
    """Return a guard on *store*."""
    guarded: list[Guarded] = []

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def quick(key: str) -> str:
            tried = guarded[0].tries[key]
            tried.began_at = time.perf_counter_ns()
            await checkpoint()
            tried.finished_at = time.perf_counter_ns()
            return SECRET

        @world.server.tool()
        @world.guard.tool
        def threaded(key: str) -> str:
            tried = guarded[0].tries[key]
            tried.began_at = tried.finished_at = time.perf_counter_ns()
            return SECRET

        @world.server.tool()
        @world.guard.tool
        async def patient(key: str) -> str:
            tried = guarded[0].tries[key]
            tried.began_at = time.perf_counter_ns()
            try:
                await anyio.sleep_forever()
            finally:
                tried.stopped_at = time.perf_counter_ns()
            tried.finished_at = time.perf_counter_ns()
            return SECRET

    state = State(store=store, ledger=MemoryLedger(), key=bytes(32))
    world: Any = make_world(folder, policies=ALL, extend=extend, state=state)
    # Spans are made and ended, and kept nowhere.
    world.exporter.shutdown()
    guarded.append(Guarded(world))
    return guarded[0]
