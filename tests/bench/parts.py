"""What one guarded call adds to a tool, against its parts called bare in the same sequence.

The parts are what no implementation of the same promises can leave out: one Cedar call
with handles and a schema, two spans, the counter and the histograms, two records. They
are called with the very values of a real call.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import cedarpy
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentguard import Decision, judging
from agentguard.adapters.answers import ANSWERS
from agentguard.call import Call
from agentguard.evidence.record import call_attributes
from agentguard.lifecycle.tally import Exchange, Tally
from agentguard.model import AccessRequest
from agentguard.policy import engine
from agentguard.policy.engine import PolicySet
from tests.bench.timing import Way, medians, table
from tests.world import POLICIES, World, make_world

CALLS = 300
ROUNDS = 15
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

    async def identify() -> Any:
        return await guard._verifier.verify(token)

    async def call() -> object:
        facts = call_attributes(method="tools/call", tool=name, request_id=7)
        one = Call(identify=identify, answers=ANSWERS, transport="http", facts=facts)
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
    given = guard._given
    tracer, metrics, ledger = given.spans._tracer, given.metrics, world.state.ledger
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
        table(
            f"{name}: function to function, without a transport",
            {**taken, "the guard adds": adds, "its parts add": parts_add},
            {"the guard adds": f"{adds / parts_add:.2f} x its parts (aim: at most 1.30)"},
        )
