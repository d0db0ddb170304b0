"""Evidence is read from wherever it lies, each record once, and nothing is dropped without a word."""

import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from mcp import Client

from agentguard import ConfigurationError
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.kept import Kept, UnfitRecordError, kept_of, visible
from agentguard.evidence.ledger import Entry
from agentguard.evidence.otlp import records_of_line
from agentguard.evidence.reading import VIEW_ALONE, read_sources
from agentguard.model import canonical_json
from tests.evidence.chains import stopped_chain
from tests.evidence.history import NINE_THIRTY, History, an_hour, any_value, export_line, run_of
from tests.world import make_world


def read(*paths: Path) -> tuple[list[Kept], list[str]]:
    """Return what is read, and what is told beside it."""
    told: list[str] = []
    return list(read_sources(paths, told.append)), told


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder with an hour of evidence in it."""
    ledger = SQLiteLedger(tmp_path / "state" / "evidence", clock=lambda: NINE_THIRTY)
    an_hour(History(ledger=ledger))
    ledger.close()
    return tmp_path / "state"


def export(folder: Path, *lines: str, name: str = "export.jsonl") -> Path:
    """Return a file with these lines."""
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def entry(record: object, **changes: Any) -> Entry:
    """Return an entry that holds a record."""
    text = record if isinstance(record, str) else canonical_json(record)
    return Entry(**{"chain_id": "c", "seq": 1, "hash": "h", "prev_hash": "p", "text": text, **changes})


SPANS = ("decision", "outcome")


def test_a_state_folder_its_evidence_and_its_chain_read_alike(state: Path) -> None:
    """Whoever looks names what they have."""
    (chain,) = (state / "evidence").glob("*.db")

    in_state, in_folder, in_chain = read(state), read(state / "evidence"), read(chain)

    assert in_state == in_folder == in_chain
    records, told = in_state
    assert told == []
    assert {record.kind for record in records} >= {"start", "decision", "outcome", "run", "policy", "refused_token"}
    assert [record.seq for record in records] == list(range(1, len(records) + 1))
    assert records[0].source == f"{chain}:1"


def test_a_path_that_is_named_twice_is_read_once(state: Path) -> None:
    """The figures would be doubled."""
    assert read(state, state / "evidence") == read(state)


def test_an_export_gives_the_decisions_and_outcomes_that_a_chain_has(state: Path, tmp_path: Path) -> None:
    """As far as spans go; the two are views of one thing."""
    kept = [record for record in read(state)[0] if record.kind in SPANS]

    exported, told = read(export(tmp_path, export_line(kept[:20]), "", export_line(kept[20:])))

    assert told == []
    assert [record.attributes for record in exported] == [record.attributes for record in kept]
    assert [(record.kind, record.trace_id, record.span_id) for record in exported] == [
        (record.kind, record.trace_id, record.span_id) for record in kept
    ]
    placed = [record for record in exported if record.kind == "decision"]
    assert [(record.chain_id, record.seq, record.hash) for record in placed] == [
        (record.chain_id, record.seq, record.hash) for record in kept if record.kind == "decision"
    ]
    assert exported[-1].source == f"{tmp_path / 'export.jsonl'}:3"


def test_what_a_chain_and_its_export_both_have_is_read_once(state: Path, tmp_path: Path) -> None:
    """Delivery is at least once; the figures are of calls."""
    records, _ = read(state)
    line = export_line(record for record in records if record.kind in SPANS)

    both, told = read(state, export(tmp_path, line, line))

    assert (both, told) == (records, [])


def test_records_of_a_guard_that_traces_nothing_are_read_once_too(state: Path, tmp_path: Path) -> None:
    """They name no span; whoever delivers them gives them ids of its own."""
    records, _ = read(state)
    moved = [
        replace(record, trace_id=f"{number + 900:032x}", span_id=f"{number + 900:016x}")
        for number, record in enumerate(records)
        if record.kind in SPANS
    ]

    both, told = read(state, export(tmp_path, export_line(moved)))

    assert (both, told) == (records, [])


def test_an_export_that_says_something_else_than_the_chain_is_told(state: Path, tmp_path: Path) -> None:
    """Nobody picks one of two stories silently."""
    records, _ = read(state)
    denied = next(record for record in records if record.text("agentguard.decision.effect") == "deny")
    line = export_line([denied]).replace('{"stringValue": "deny"}', '{"stringValue": "allow"}')

    both, told = read(state, export(tmp_path, line))

    assert both == records
    (said,) = told
    assert said == (
        f"{tmp_path / 'export.jsonl'}:1: chain {denied.chain_id}, seq {denied.seq}, says something else than "
        "where it was read before: see `agentguard evidence verify --against`"
    )


def test_an_outcome_that_says_something_else_is_told_by_its_decision(state: Path, tmp_path: Path) -> None:
    """Its span names no place in a chain."""
    records, _ = read(state)
    outcome = next(record for record in records if record.text("agentguard.execution.outcome") == "completed")
    line = export_line([outcome]).replace('{"stringValue": "completed"}', '{"stringValue": "withheld"}')

    _, (said,) = read(state, export(tmp_path, line))

    assert f":1: decision {outcome.text('agentguard.decision.id')} says something else than" in said


def test_a_record_that_the_export_alone_has_is_read(state: Path, tmp_path: Path) -> None:
    """On a cluster the local folder goes with the pod."""
    other = History(calls=500)
    other.call(run_of("other-agent", 99, NINE_THIRTY, 60), NINE_THIRTY, "read_record")
    records, _ = read(state)

    both, told = read(state, export(tmp_path, export_line(other.kept)))

    assert told == []
    assert [record.text("agentguard.agent.id") for record in both[len(records) :]] == ["other-agent"] * 2


def test_the_span_of_a_run_is_the_end_of_a_run() -> None:
    """Its state goes by the name that the record has."""
    attributes = {"agentguard.run.id": "r", "agentguard.run.end": "revoked", "agentguard.agent.id": "a"}
    run = Kept(kind="run", time_unix_nano=5, attributes=attributes, trace_id="1" * 32, span_id="2" * 16)

    (record,) = records_of_line(export_line([run]).encode(), "x:1", pytest.fail)

    assert (record.kind, record.text("agentguard.run.state")) == ("run", "revoked")


def span(**changes: object) -> dict[str, object]:
    """Return a span of ours."""
    made: dict[str, object] = {
        "name": "agentguard.authorize read",
        "traceId": "AB" * 16,
        "spanId": "cd" * 8,
        "endTimeUnixNano": 1_800_000_000_000_000_000,
        "attributes": [],
    }
    return {name: value for name, value in {**made, **changes}.items() if value is not None}


def line_of(*spans: object) -> bytes:
    """Return an export's line with these spans."""
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": spans}]}]}).encode()


def test_ids_are_read_in_either_case_and_other_spans_are_passed_over() -> None:
    """The specification asks readers for that."""
    spans = line_of(span(), {"name": "GET /"}, span(name="agentguard.policy", spanId="ef" * 8))

    records = list(records_of_line(spans, "x:1", pytest.fail))

    assert [(record.kind, record.trace_id, record.span_id) for record in records] == [
        ("decision", "ab" * 16, "cd" * 8),
        ("policy", "ab" * 16, "ef" * 8),
    ]


def attribute(name: object, value: object) -> dict[str, object]:
    """Return one attribute of a span."""
    return {"key": name, "value": value}


EFFECT = "agentguard.decision.effect"
GRANTED = "agentguard.authority.granted"
IDS = "agentguard.policy.ids"


@pytest.mark.parametrize(
    ("broken", "what"),
    [
        (None, "has no name"),
        ({"name": 5}, "has no name"),
        (span(endTimeUnixNano=None), "has no time"),
        (span(endTimeUnixNano="soon"), "has no time"),
        (span(endTimeUnixNano="-1"), "has no time"),
        (span(endTimeUnixNano=10**30), "has no time"),
        (span(endTimeUnixNano=True), "has no time"),
        (span(traceId="ab"), "has no `traceId`"),
        (span(spanId=None), "has no `spanId`"),
        (span(attributes={}), "has no list of attributes"),
        (span(attributes=[5]), "has an attribute without a key"),
        (span(attributes=[{"key": 5}]), "has an attribute without a key"),
        (span(attributes=[attribute(EFFECT, {"intValue": "5"})]), f"`{EFFECT}` wants string, got int"),
        (span(attributes=[attribute(EFFECT, {"boolValue": True})]), f"`{EFFECT}` wants string, got bool"),
        (span(attributes=[attribute(EFFECT, {"stringValue": None})]), f"`{EFFECT}` wants string, got NoneType"),
        (span(attributes=[attribute(EFFECT, None)]), f"`{EFFECT}` wants string, got NoneType"),
        (span(attributes=[attribute(EFFECT, {"bytesValue": "AA=="})]), f"`{EFFECT}` wants string, got NoneType"),
        (span(attributes=[attribute(EFFECT, {"stringValue": "a", "intValue": 1})]), "got NoneType"),
        (span(attributes=[attribute(GRANTED, {"doubleValue": "NaN"})]), f"`{GRANTED}` wants double, got NoneType"),
        (span(attributes=[attribute(GRANTED, {"doubleValue": math.nan})]), f"`{GRANTED}` wants double, got float"),
        (span(attributes=[attribute(GRANTED, {"doubleValue": 10**400})]), f"`{GRANTED}` wants double, got int"),
        (span(attributes=[attribute(GRANTED, {"stringValue": "5"})]), f"`{GRANTED}` wants double, got str"),
        (span(attributes=[attribute("agentguard.run.ends_at", {"intValue": str(2**63)})]), "wants int, got int"),
        (span(attributes=[attribute(IDS, {"arrayValue": {"values": 5}})]), f"`{IDS}` wants string[], got NoneType"),
        (span(attributes=[attribute(IDS, {"arrayValue": {"values": [{"intValue": 5}]}})]), f"`{IDS}` wants string[]"),
        (span(attributes=[attribute("agentguard.new", {"kvlistValue": {}})]), "wants a plain value"),
        (span(attributes=[attribute(EFFECT, any_value("deny")), attribute(EFFECT, any_value("allow"))]), "twice"),
    ],
)
def test_a_broken_span_is_told_and_the_others_are_read(broken: object, what: str) -> None:
    """With its file and line."""
    told: list[str] = []

    records = list(records_of_line(line_of(broken, span()), "x:7", told.append))

    assert len(records) == 1
    (said,) = told
    assert said.startswith("x:7: a span ")
    assert what in said


def test_attributes_that_nobody_named_are_left_out_and_later_ones_of_ours_stay() -> None:
    """A collector adds its own."""
    attributes = [
        attribute("k8s.pod.name", {"stringValue": "p"}),
        attribute("agentguard.later", {"stringValue": "x"}),
        attribute(IDS, {"arrayValue": {}}),
        attribute(GRANTED, {"doubleValue": 300}),
    ]

    (record,) = records_of_line(line_of(span(attributes=attributes)), "x:1", pytest.fail)

    assert record.attributes == {"agentguard.later": "x", IDS: (), GRANTED: 300}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("\x00", "is not JSON"),
        ('{"n": ' + "1" * 5000 + "}", "is not JSON"),
        ("[]", "is no export of spans"),
        ('{"resourceLogs": []}', "is no export of spans"),
        ('{"resourceSpans": [5]}', "`scopeSpans` wants a list"),
        ('{"resourceSpans": [{"scopeSpans": [{"spans": {}}]}]}', "`spans` wants a list"),
    ],
)
def test_a_line_that_is_no_export_is_told_and_the_others_are_read(line: str, what: str, tmp_path: Path) -> None:
    """A log that was cut in the middle is common."""
    path = export(tmp_path, line_of(span()).decode(), line, line_of(span(spanId="0" * 15 + "1")).decode())

    records, told = read(path)

    assert len(records) == 2
    (said,) = told
    assert said.startswith(f"{path}:2: ")
    assert what in said


@pytest.mark.parametrize(
    ("record", "what"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ([], "is no record"),
        ({"time_unix_nano": 5, "attributes": {}}, "it has no kind"),
        ({"kind": 5, "time_unix_nano": 5, "attributes": {}}, "it has no kind"),
        ({"kind": "decision", "attributes": {}}, "has no time"),
        ({"kind": "decision", "time_unix_nano": 5}, "has no attributes"),
        ({"kind": "decision", "time_unix_nano": 5, "attributes": {EFFECT: 5}}, f"`{EFFECT}` wants string, got int"),
        (
            {"kind": "decision", "time_unix_nano": 5, "attributes": {IDS: ["a", 5]}},
            f"`{IDS}` wants string[], got tuple",
        ),
        ({"kind": "decision", "time_unix_nano": 5, "attributes": {}, "trace_id": 5}, "`trace_id` wants a string"),
    ],
)
def test_an_entry_that_holds_no_record_is_refused(record: object, what: str) -> None:
    """Whoever writes into a chain by hand need not write records."""
    with pytest.raises(UnfitRecordError) as refused:
        kept_of(entry(record))

    assert what in str(refused.value)


def test_an_entry_that_holds_no_record_is_told_and_the_others_are_read(tmp_path: Path) -> None:
    """With its chain and its place."""
    ledger = SQLiteLedger(tmp_path, clock=lambda: NINE_THIRTY)
    ledger.append({"kind": "decision"})
    ledger.append({"kind": "start", "time_unix_nano": 5, "attributes": {}})
    ledger.close()
    (chain,) = tmp_path.glob("*.db")

    records, told = read(chain)

    assert "start" in {record.kind for record in records}
    (said,) = told
    assert said.startswith(f"{chain}:")
    assert said.endswith(": has no time")


def test_a_file_that_only_looks_like_a_chain_is_told(state: Path, tmp_path: Path) -> None:
    """And the chains beside it are read."""
    (tmp_path / "other.db").write_bytes(b"SQLite format 3\0" + b"\xff" * 5000)

    records, told = read(tmp_path / "other.db", state)

    assert records == read(state)[0]
    (said,) = told
    assert said.startswith(f"{tmp_path / 'other.db'}: cannot be read to its end: ")


def test_what_is_not_there_is_refused(tmp_path: Path) -> None:
    """A report about nothing looks like a report of nothing wrong."""
    with pytest.raises(ConfigurationError, match="nowhere` cannot be read: No such file or directory"):
        read(tmp_path / "nowhere")


def test_a_folder_without_a_chain_is_refused(tmp_path: Path) -> None:
    """The same."""
    with pytest.raises(ConfigurationError, match="holds no chain"):
        read(tmp_path)


@pytest.mark.parametrize("gone", [{".db"}, {".db", ".head"}])
def test_a_folder_whose_chain_is_gone_is_told(gone: set[str], tmp_path: Path) -> None:
    """It had one: that is not the same as a wrong name."""
    stopped_chain(tmp_path)
    for path in tmp_path.glob("*"):
        if path.suffix in gone:
            path.unlink()

    records, told = read(tmp_path)

    assert records == []
    assert told == [f"{tmp_path}: holds no chain any more, though what lay beside one lies there"]


def test_a_name_of_a_file_cannot_steer_a_terminal(tmp_path: Path) -> None:
    """Whoever can name a file may be anybody."""
    path = export(tmp_path, "{", name="\x1b[2Jexport.jsonl")

    _, (said,) = read(path)

    assert "\x1b" not in said


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("Größe 表", "Größe 表"),
        ("a\x1b[31mb", "a\N{REPLACEMENT CHARACTER}[31mb"),
        ("a\u202eb\nc\x85d\ud800", "a�b�c�d�"),
        ("x" * 300, "x" * 255 + "…"),
    ],
)
def test_text_is_shown_without_what_steers_or_hides(text: str, shown: str) -> None:
    """Controls, overriding directions and lone surrogates have no look of their own."""
    assert visible(text) == shown


def test_a_record_says_nothing_that_it_does_not_hold() -> None:
    """What is of another type than asked for is absent."""
    record = Kept(kind="decision", time_unix_nano=1_500_000_000, attributes={"a": "x", "b": True, "c": 5, IDS: "x"})

    assert (record.at, record.text("a"), record.text("c"), record.text("d")) == (1.5, "x", "", "")
    assert (record.number("c"), record.number("b"), record.number("a")) == (5, None, None)
    assert record.policy_ids == ()


def otlp_of(spans: Any) -> Iterator[str]:
    """Yield what a collector would write of real spans."""
    for made in spans:
        attributes = [attribute(name, any_value(value)) for name, value in made.attributes.items()]
        yield line_of(
            {
                "name": made.name,
                "traceId": f"{made.context.trace_id:032x}",
                "spanId": f"{made.context.span_id:016x}",
                "endTimeUnixNano": str(made.end_time),
                "attributes": attributes,
            }
        ).decode()


@pytest.mark.anyio
async def test_the_spans_of_a_real_guard_read_as_its_records(tmp_path: Path) -> None:
    """Real calls through a real server: the export tells what the ledger keeps."""
    world = make_world(tmp_path / "policies")
    async with Client(world.server) as client:
        await client.call_tool("read", {"record_id": "r1"})
        await client.call_tool("read", {"record_id": "r9"})
        await client.call_tool("export", {"max_rows": 501})
    run = world.records()[0]
    world.state.store.revoke(
        issuer=run["agentguard.invocation.issuer"], run_id=run["agentguard.run.id"], reason="seen enough"
    )
    world.guard._enforcer._runs.settle()  # type: ignore[union-attr]
    kept = [kept_of(one) for one in world.state.ledger if one.record["kind"] in SPANS]  # type: ignore[attr-defined]
    (ended,) = (one for one in map(kept_of, world.state.ledger) if one.text("agentguard.run.state") == "revoked")  # type: ignore[call-overload]
    ours = [made for made in world.exporter.get_finished_spans() if made.name.startswith("agentguard.")]

    records, told = read(export(tmp_path, *otlp_of(ours)))

    assert told == []
    shown = {
        (record.kind, record.span_id): {
            name: value for name, value in record.attributes.items() if name not in VIEW_ALONE
        }
        for record in records
        if record.kind in SPANS
    }
    assert shown == {(record.kind, record.span_id): record.attributes for record in kept}
    assert len(kept) == 4
    (exported,) = (record for record in records if record.kind == "run")
    assert exported.text("agentguard.run.reason") == "seen enough"
    assert {name: value for name, value in exported.attributes.items() if name not in VIEW_ALONE} == ended.attributes
    assert (exported.trace_id, exported.span_id) == (ended.trace_id, ended.span_id)


def test_a_moment_is_read_as_it_was_written() -> None:
    """To the millisecond that policies see: a quarter of a second is one."""
    for milliseconds in (1_764_000_001_250, 1_764_000_001_500, 1_795_654_246_626):
        assert Kept(kind="decision", time_unix_nano=milliseconds * 1_000_000).at == milliseconds / 1_000
