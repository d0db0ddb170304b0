"""`Guard(forward=…)`: the spans come from the ledger, and from there alone."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentguard import ConfigurationError, Guard, open_state
from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.delivery import forwarding
from agentguard.evidence.delivery.forwarding import read_forwarding
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.metrics import Metrics
from agentguard.evidence.reading import read_sources
from agentguard.evidence.verify import prove
from tests.evidence.exporting import metrics_of, tracing
from tests.evidence.receiver import Receiver, attributes_of, export_line, receiving
from tests.world import World, connected, make_world, write_policies

POLICIES = '@id("all") permit (principal, action, resource);'


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a real receiver."""
    with receiving() as found:
        yield found


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Give what is to be called when the process ends, in place of calling it then."""
    calls: list[Any] = []
    monkeypatch.setattr(forwarding, "call_at_end", calls.append)
    # Nobody waits to kill this process: what is shipped at the end is to arrive, however slow the disk is.
    monkeypatch.setattr(forwarding, "_LAST_SECONDS", 60.0)
    return calls


def forwarded_world(folder: Path, forward: str | bool, **options: Any) -> World:
    """Return a guard whose ledger is forwarded."""
    return make_world(
        folder / "policies", policies=POLICIES, state=open_state(folder / "state"), forward=forward, **options
    )


async def test_a_call_arrives_from_the_ledger_alone(tmp_path: Path, receiver: Receiver, ends: list[Any]) -> None:
    """Its spans have their place in the trace, what the tool traces stands below, and nothing is sent twice."""
    provider, exporter = tracing()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{keys[*]}")
        async def many(keys: list[str]) -> str:
            with provider.get_tracer("tool").start_as_current_span("query"):
                return "done"

    world = forwarded_world(tmp_path, receiver.url, extend=extend)
    async with connected(world, "memory", "2026-07-28") as client:
        await client.call_tool("many", {"keys": ["r1", "r2", "r3"]})
    (end,) = ends
    end()

    entries = [e for path in chain_files(tmp_path / "state" / "evidence") for e in read_chain(path)]
    decisions = receiver.named("agentguard.authorize many")
    (execution,) = receiver.named("agentguard.execute many")
    assert sorted(attributes_of(span)["agentguard.evidence.seq"] for span in receiver.spans) == [
        entry.seq for entry in entries
    ]
    assert len({span.span_id for span in receiver.spans}) == len(entries)
    assert {span.name for span in receiver.spans} > {"agentguard.evidence stop", "agentguard.evidence start"}
    assert [attributes_of(span)["agentguard.resource.id"] for span in decisions] == ["r1", "r2", "r3"]
    assert {span.trace_id for span in decisions} == {decisions[0].trace_id}
    assert all(span.start_time_unix_nano <= span.end_time_unix_nano for span in receiver.spans)
    assert world.exporter.get_finished_spans() == ()
    (query,) = exporter.get_finished_spans()
    assert query.parent is not None
    assert f"{query.parent.span_id:016x}" == execution.span_id.hex()
    assert receiver.resources[0]["service.name"] == "records"


async def test_what_arrived_is_what_the_chains_are_compared_with(
    tmp_path: Path, receiver: Receiver, ends: list[Any]
) -> None:
    """Every record of every kind: a collector's file holds, and shows, what the folder does."""
    world = forwarded_world(tmp_path, receiver.url)
    async with connected(world, "memory", "2026-07-28") as client:
        await client.call_tool("export", {"max_rows": 1})
        await client.call_tool("none", {})
    ends.pop()()
    export = tmp_path / "export.jsonl"
    export.write_text(export_line(receiver.spans))
    told: list[str] = []

    proof = prove([tmp_path / "state"], told.append, key=None, against=export)
    alone = list(read_sources([export], told.append))
    both = list(read_sources([tmp_path / "state", export], told.append))

    assert proof is not None
    assert (proof.problems, told) == ((), [])
    assert len(alone) == len(both) == len(receiver.spans)
    assert {record.kind for record in alone} == {"head", "start", "stop", "decision", "outcome", "run"}
    assert [(r.kind, r.seq, r.time_unix_nano) for r in sorted(alone, key=lambda r: r.seq)] == [
        (r.kind, r.seq, r.time_unix_nano) for r in both
    ]


async def test_a_changed_record_is_found_by_what_arrived_before(
    tmp_path: Path, receiver: Receiver, ends: list[Any]
) -> None:
    """Whatever kind of record it is: each was delivered with its hash."""
    world = forwarded_world(tmp_path, receiver.url)
    async with connected(world, "memory", "2026-07-28") as client:
        await client.call_tool("export", {"max_rows": 1})
    ends.pop()()
    last = receiver.spans.pop()
    for pair in last.attributes:
        if pair.key == "agentguard.evidence.hash":
            pair.value.string_value = "0" * 64
    export = tmp_path / "export.jsonl"
    export.write_text(export_line([*receiver.spans, last]))

    proof = prove([tmp_path / "state"], lambda _: None, key=None, against=export)

    assert proof is not None
    assert [problem for problem in proof.problems if "history was rewritten" in problem]


async def test_what_another_process_ships_is_shipped_by_none_here(tmp_path: Path, ends: list[Any]) -> None:
    """Nothing is started, nothing is exported, and the records name their spans."""
    world = forwarded_world(tmp_path, True)
    async with connected(world, "memory", "2026-07-28") as client:
        await client.call_tool("export", {"max_rows": 1})
    world.state.close()

    (decision,) = [
        entry.record
        for path in chain_files(tmp_path / "state" / "evidence")
        for entry in read_chain(path)
        if entry.record["kind"] == "decision"
    ]
    assert decision["span_name"] == "agentguard.authorize export"
    assert decision["start_time_unix_nano"] <= decision["time_unix_nano"]
    assert ends == []
    assert world.exporter.get_finished_spans() == ()


def test_the_backlog_is_a_metric(tmp_path: Path, receiver: Receiver, ends: list[Any]) -> None:
    """Zero once all was delivered; of a guard that forwards nothing there is none."""
    readings: list[float] = []
    forwards: tuple[str | bool, ...] = (receiver.url, True, False)
    for number, forward in enumerate(forwards):
        reader = InMemoryMetricReader()
        folder = tmp_path / str(number)
        world = forwarded_world(folder, forward, meter_provider=MeterProvider([reader]))
        if ends:
            ends.pop()()
        else:
            world.state.close()
        found = metrics_of(reader).get("agentguard.evidence.backlog")
        if found is not None:
            readings += [point.value for point in found.data.data_points]  # type: ignore[union-attr]

    # Another process delivered nothing: the head, the start, the stop and the last head.
    assert readings == [0, 4]


def test_before_it_is_known_what_is_shipped_nothing_waits() -> None:
    """A metric may be read while a guard is being made."""
    asked = read_forwarding(True)
    reader = InMemoryMetricReader()
    assert asked is not None
    Metrics(MeterProvider([reader]), backlog=asked.backlog)
    asked.stop()

    assert [p.value for p in metrics_of(reader)["agentguard.evidence.backlog"].data.data_points] == [0]  # type: ignore[union-attr]


@pytest.mark.parametrize("given", ["", 7, b"http://collector:4318/v1/traces"])
def test_what_is_no_endpoint_is_refused(given: Any) -> None:
    """With what there is to choose from."""
    with pytest.raises(ConfigurationError, match=r"forward= wants an endpoint .* got `.*`: pass one of them"):
        read_forwarding(given)


@pytest.mark.parametrize("given", [None, False])
def test_nothing_is_forwarded_unless_asked(given: Any) -> None:
    """The process's own tracer then has the spans."""
    assert read_forwarding(given) is None


@pytest.mark.parametrize("forward", [True, "http://127.0.0.1:1/v1/traces"])
def test_a_ledger_in_memory_cannot_be_forwarded(forward: str | bool, tmp_path: Path) -> None:
    """It is gone with the process, delivered or not."""
    with pytest.raises(ConfigurationError, match="got `MemoryLedger`: pass state=FOLDER"):
        make_world(tmp_path, forward=forward)
    assert not isinstance(read_forwarding(forward), MemoryLedger)


def test_a_wrong_endpoint_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    """A guard that could not be made leaves no folder behind."""
    write_policies(tmp_path / "policies")
    with pytest.raises(ConfigurationError, match="an endpoint wants"):
        Guard(
            tmp_path / "policies",
            issuer="https://issuer.example",
            audience="https://records.example/mcp",
            state=tmp_path / "state",
            forward="collector",
        )

    assert not (tmp_path / "state").exists()
