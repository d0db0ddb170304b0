"""What one guarded call adds to a tool, against its parts called bare in the same sequence.

The parts are what no implementation of the same promises can leave out: one Cedar call
with handles and a schema, two spans, the counter and the histograms, two records, one tally.
They are called with the very values of a real call. There, with all the guard's own steps
between them, they find less of what they need in the processor's caches, so they are timed
where they stand as well: what is left is the guard's own.
"""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cedarpy
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import Tracer, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import use_span

from agentguard import Decision
from agentguard.adapters.answers import ANSWERS
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.metrics import Metrics
from agentguard.evidence.record import call_attributes
from agentguard.evidence.spans import OpenSpan
from agentguard.lifecycle.memory import MemoryStore
from agentguard.lifecycle.origin import origin_of
from agentguard.lifecycle.tally import Exchange, Tally
from agentguard.model import AccessRequest
from agentguard.policy.deciding import engine
from agentguard.policy.deciding.engine import PolicySet
from agentguard.steps import judging
from agentguard.steps.call import Call
from tests.bench.timing import Way, medians, table
from tests.world import POLICIES, World, make_world

CALLS = 300
ROUNDS = 15
PLACES: tuple[tuple[Any, str], ...] = (
    (cedarpy, "is_authorized"),
    (Tracer, "start_span"),
    (OpenSpan, "end"),
    (Metrics, "decided"),
    (Metrics, "appended"),
    (MemoryLedger, "append"),
    (MemoryStore, "exchange"),
)
"""Where the parts stand in a call."""
QUICK = '@id("quick") permit (principal in Agent::"reader", action == Action::"quick", resource);'


def quick(world: World) -> None:
    """Add a tool that does nothing, so that nothing but the guard is measured."""

    @world.server.tool()
    @world.guard.tool
    async def quick(max_rows: int, fmt: str) -> str:
        return fmt


@dataclass
class Recorded:
    """What one real call gave to its parts."""

    decision_name: str
    decision: dict[str, Any]
    execution_name: str
    execution: dict[str, Any]
    records: list[dict[str, Any]]
    request: AccessRequest


def function_call(world: World, name: str, arguments: dict[str, Any]) -> Way:
    """Return one call of a guarded tool as the adapter makes it, without a transport."""
    guard = world.guard
    guarded = next(f for f in guard._functions if f.function.__name__ == name)
    token = world.token()
    enforcer = guard._enforcer
    assert enforcer is not None
    assert guarded.rule is not None
    tool = guarded.rule.tool

    origin = origin_of("http", address="127.0.0.1", named=("bench", "1"))

    async def call() -> object:
        async def identify() -> Any:
            invocation = await guard._verifier.verify(token)
            one.token = token
            return invocation

        facts = call_attributes(method="tools/call", tool=name, request_id=7)
        one = Call(identify=identify, answers=ANSWERS, transport="http", origin=origin, facts=facts)
        outer = guard._call.set(one)
        try:
            await enforcer.preflight(one, name, tool)
            return await guarded.wrapper(**arguments)
        finally:
            guard._call.reset(outer)

    return call


async def record_one(world: World, call: Way) -> Recorded:
    """Make one call and keep what its parts were given."""
    requests: list[AccessRequest] = []

    def decide(request: AccessRequest, policies: PolicySet) -> Decision:
        requests.append(request)
        return engine.decide(request, policies)

    world.exporter.clear()
    with mock.patch.object(judging, "decide", decide):
        result = await call()
    assert not getattr(result, "is_error", False), result
    authorize, execute = world.exporter.get_finished_spans()
    kept = [entry.record for entry in world.state.ledger][-2:]  # type: ignore[attr-defined]
    return Recorded(
        authorize.name,
        dict(authorize.attributes or {}),
        execute.name,
        dict(execute.attributes or {}),
        kept,
        requests[0],
    )


def bare_parts(world: World, recorded: Recorded) -> dict[str, Callable[[], object]]:
    """Return the parts of a call, each called with the values that it had there."""
    guard = world.guard
    enforcer = guard._enforcer
    assert enforcer is not None
    policies = enforcer.in_force.policies
    request = recorded.request
    action = policies.action(request.action)
    link = policies.link(request.invocation, action)
    handle = policies.slice(link, action, link.closure).handle
    context = json.dumps(request.context)
    delta = json.dumps(list(request.entities))
    asked = {
        "principal": link.principal,
        "action": action.uid,
        "resource": request.resource.as_json(),
        "context": context,
    }
    entities = link.base if not request.entities else link.base.with_added_json_str(delta, action.schema)
    # A provider of their own: nothing of the guard looks at these spans, and they are kept nowhere.
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    exporter.shutdown()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer, metrics, ledger = provider.get_tracer("bench"), guard._given.metrics, world.state.ledger
    # As in a call, where what is measured is an example of a span.
    current = tracer.start_span("current")
    counted = {
        "agentguard.decision.effect": "allow",
        "agentguard.decision.reason": "permit",
        "gen_ai.tool.name": request.action,
    }

    def cedar() -> None:
        if request.entities:
            cedarpy.is_authorized(asked, handle, link.base.with_added_json_str(delta, action.schema), action.schema)
        else:
            cedarpy.is_authorized(asked, handle, entities, action.schema)

    def spans() -> None:
        tracer.start_span(recorded.decision_name, attributes=recorded.decision).end()
        tracer.start_span(recorded.execution_name, attributes=recorded.execution).end()

    def measure() -> None:
        with use_span(current):
            metrics._decisions.add(1, counted)
            metrics._duration.record(0.0001, counted)
            metrics._append.record(0.0001)
        metrics._append.record(0.0001)

    def records() -> None:
        for record in recorded.records:
            ledger.append(record)

    store, run = world.state.store, ("https://issuer.example", "bench")
    version = iter(range(1_000_000))

    def tally() -> None:
        before = next(version)
        after = Tally(version=before + 1, calls=before, tools={"records read": before})
        store.exchange(Exchange(run=run, before=before, after=after, until=time.time() + 600))

    return {
        "one Cedar call": cedar,
        "two spans": spans,
        "counter and histograms": measure,
        "two records": records,
        "one tally": tally,
    }


@contextmanager
def timed_inside(spent: list[float]) -> Iterator[None]:
    """Add up, in the first of *spent*, what the parts take where they stand."""

    def timed(function: Callable[..., Any]) -> Callable[..., Any]:
        def part(*args: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                spent[0] += time.perf_counter() - began

        return part

    with ExitStack() as stack:
        for owner, name in PLACES:
            stack.enter_context(mock.patch.object(owner, name, timed(getattr(owner, name))))
        yield


async def inside(call: Way) -> float:
    """Return the median time of all parts of one call, where they stand, in microseconds."""
    taken = []
    for turn in range(ROUNDS + 1):
        spent = [0.0]
        with timed_inside(spent):
            for _ in range(CALLS):
                await call()
        if turn:
            taken.append(spent[0] / CALLS * 1e6)
    return statistics.median(taken)


async def measure(name: str, arguments: dict[str, Any]) -> None:
    """Measure one tool, guarded, bare, and in parts; print medians and ratios."""
    with tempfile.TemporaryDirectory() as folder:
        meters = MeterProvider([InMemoryMetricReader()])
        world = make_world(Path(folder), extend=quick, policies=POLICIES + QUICK, meter_provider=meters)
        call = function_call(world, name, arguments)
        recorded = await record_one(world, call)
        parts = bare_parts(world, recorded)
        guarded = next(f for f in world.guard._functions if f.function.__name__ == name)

        async def bare() -> object:
            return await guarded.run((), dict(arguments), arguments)

        def one(part: Callable[[], object]) -> Way:
            async def way() -> object:
                return part()

            return way

        async def floor() -> object:
            for part in parts.values():
                part()
            return await guarded.run((), dict(arguments), arguments)

        # From here on spans are made and ended, and kept nowhere.
        world.exporter.shutdown()
        ways: dict[str, Way] = {"bare tool": bare, "guarded tool": call, "bare tool and the parts": floor}
        ways |= {f"  {part}": one(function) for part, function in parts.items()}
        taken = await medians(ways, rounds=ROUNDS, calls=CALLS)
        adds = taken["guarded tool"] - taken["bare tool"]
        parts_add = taken["bare tool and the parts"] - taken["bare tool"]
        there = await inside(call)
        table(
            f"{name}: function to function, without a transport",
            {**taken, "the guard adds": adds, "its parts add": parts_add, "its parts, in the call": there},
            {
                "the guard adds": f"{adds / parts_add:.2f} x its parts (aim: at most 1.30)",
                "its parts, in the call": f"{there / parts_add:.2f} x, {there / adds:.2f} of what the guard adds",
            },
        )
