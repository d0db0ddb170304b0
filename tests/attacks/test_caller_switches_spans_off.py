"""A caller sends a ``traceparent`` whose sampled flag is off.

Seen with OpenTelemetry 1.45.2 and mcp 2.3.0: a sampler that follows the parent, which is
the default, then drops every span of the call. The ledger does not ask the caller.
"""

from pathlib import Path
from typing import cast

import pytest
from mcp_types import RequestParamsMeta
from opentelemetry import context as otel_context
from opentelemetry.propagate import extract

from agentguard.evidence.ledger import MemoryLedger, verify_chain
from tests.world import World, connected, make_world

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331"
POLICIES = """
@id("exports")
permit (principal, action == Action::"export", resource) when { context.input.max_rows <= 500 };
"""


async def export(folder: Path, *, max_rows: int, flags: str) -> World:
    """Export as a caller that asks for spans, or for none."""
    world = make_world(folder, policies=POLICIES)
    caller = {"traceparent": f"{TRACE}-{flags}"}
    # The SDK's span for the request would take the caller's flag on; in a process
    # without a provider it does not, so the server's context does.
    token = otel_context.attach(extract(caller))
    try:
        async with connected(world, "memory", "2026-07-28") as client:
            await client.call_tool("export", {"max_rows": max_rows}, meta=cast("RequestParamsMeta", caller))
    finally:
        otel_context.detach(token)
    return world


@pytest.mark.parametrize(("max_rows", "effect"), [(500, "allow"), (501, "deny")])
async def test_a_caller_that_switches_spans_off_is_recorded_all_the_same(
    tmp_path: Path, max_rows: int, effect: str
) -> None:
    """There is no span, there is a record, and it says that the caller asked for none."""
    world = await export(tmp_path, max_rows=max_rows, flags="00")

    assert not world.exporter.get_finished_spans()
    (recorded,) = world.records()
    assert recorded["agentguard.decision.effect"] == effect
    assert recorded["agentguard.trace.caller_sampled"] is False
    assert isinstance(world.state.ledger, MemoryLedger)
    assert verify_chain(world.state.ledger) == ()


async def test_a_caller_that_leaves_spans_on_is_seen_in_both(tmp_path: Path) -> None:
    """The span stands in the caller's trace, and says the same as the record."""
    world = await export(tmp_path, max_rows=500, flags="01")

    (recorded,) = world.records()
    assert recorded["agentguard.trace.caller_sampled"] is True
    shown = {span.name: span for span in world.exporter.get_finished_spans()}["agentguard.authorize export"]
    assert shown.context is not None
    assert f"{shown.context.trace_id:032x}" == TRACE.split("-")[1]
