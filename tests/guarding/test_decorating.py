"""`record_inputs=`: which arguments the evidence keeps as they were judged, and nothing beside them."""

import itertools
import json
import logging
import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from pydantic import BaseModel

from agentguard import ConfigurationError, Entity
from agentguard.evidence.kept import UnfitRecordError, kept_of
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.otlp import records_of_line
from agentguard.evidence.showing import explained, row_of
from agentguard.testing import acting_as
from tests.evidence.history import export_line
from tests.world import World, make_world

ALL = '@id("all") permit (principal, action, resource);'
LIMIT = (
    '@id("limit") forbid (principal, action == Action::"pay", resource) '
    'when { context.input.amount.greaterThan(decimal("5.0")) };'
)
NOBODY = '@id("some") permit (principal in Agent::"some", action, resource);'
AMOUNT = "4.2500"


class Payee(BaseModel):
    """Whom to pay."""

    name: str
    iban: str


def paying(**options: Any) -> Callable[[World], None]:
    """Return what adds a tool with many arguments, guarded so."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(**options)
        def pay(
            amount: Decimal, to: Payee, memo: str = "memo-secret", tags: tuple[str, ...] = (), off: str | None = None
        ) -> str:
            """Pay."""
            return memo

    return extend


async def call(world: World, agent: str = "some", **arguments: Any) -> None:
    """Call the tool."""
    given = {"amount": AMOUNT, "to": {"name": "payee-secret", "iban": "iban-secret"}, **arguments}
    async with Client(world.server) as client:
        with acting_as(agent):
            await client.call_tool("pay", given)


def inputs(world: World) -> list[Any]:
    """Return what each decision's record keeps of its arguments."""
    ledger: Any = world.state.ledger
    return [entry.record.get("inputs", "none") for entry in ledger if entry.record["kind"] == "decision"]


async def test_named_arguments_are_kept_as_they_were_judged(tmp_path: Path) -> None:
    """In Cedar's JSON, defaults among them; what the call does not have is kept as absent."""
    options = {"record_inputs": ("amount", "tags", "off")}
    world = make_world(tmp_path, policies=ALL, agent=None, extend=paying(**options))
    await call(world, tags=["a", "b"])
    await call(world, off="x")

    amount = {"__extn": {"fn": "decimal", "arg": AMOUNT}}
    assert inputs(world) == [
        {"amount": amount, "tags": ["a", "b"], "off": None},
        {"amount": amount, "tags": [], "off": "x"},
    ]


async def test_nothing_that_is_not_named_is_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither in a record, nor in a span, nor in the log; of what is named, the record alone has the value."""
    caplog.set_level(logging.DEBUG, logger="agentguard")
    world = make_world(tmp_path, policies=f"{ALL}\n{LIMIT}", agent=None, extend=paying(record_inputs=["amount"]))
    await call(world)
    await call(world, amount="7.7500")

    ledger: Any = world.state.ledger
    kept = "".join(entry.text for entry in ledger)
    logged = "".join(entry.getMessage() for entry in caplog.records if entry.name == "agentguard")
    shown = "".join(span.to_json() for span in world.exporter.get_finished_spans())
    for secret in ("payee-secret", "iban-secret", "memo-secret"):
        assert secret not in kept + shown + logged, secret
    for value in (AMOUNT, "7.7500"):
        assert value in kept
        assert value not in shown + logged
    assert [set(one) for one in inputs(world)] == [{"amount"}, {"amount"}]
    # The digest is over all of them, as ever.
    digests = {record["agentguard.arguments.digest"] for record in world.records()}
    assert len(digests) == 2


async def test_call_that_was_stopped_before_its_arguments_has_none(tmp_path: Path) -> None:
    """Nobody looked at them."""
    world = make_world(tmp_path, policies=NOBODY, agent=None, extend=paying(record_inputs=["amount"]))
    await call(world, "other")

    assert inputs(world) == ["none"]


async def test_without_a_name_nothing_is_kept(tmp_path: Path) -> None:
    """A record without named arguments has no place for any."""
    world = make_world(tmp_path, policies=ALL, agent=None, extend=paying())
    await call(world)

    assert inputs(world) == ["none"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"record_inputs": "amount"},
            "record_inputs= wants several names, got `amount`: write record_inputs=(`amount`,)",
        ),
        ({"record_inputs": ["ammount"]}, "tool `pay` has no argument `ammount`: mend record_inputs="),
        ({"record_inputs": ["amount", 5]}, "tool `pay` has no argument `5`: mend record_inputs="),
        (
            {"record_inputs": ["memo"], "exclude": ["memo"]},
            "tool `pay` keeps `memo` from policies: take it out of record_inputs= or of exclude=",
        ),
    ],
)
def test_name_that_cannot_be_kept_is_refused_when_the_server_starts(
    tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    """A slip would keep nothing, and nobody would notice."""
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        make_world(tmp_path, policies=ALL, agent=None, extend=paying(**options))


def private(world: World) -> None:
    """Add a tool on something whose ids are private."""

    @world.guard.entity("Patient", private=True)
    def patient(patient_id: str) -> Entity:
        return Entity()


def visiting(world: World) -> Callable[[str], str]:
    """Return a guarded tool that keeps the id that it acts on."""

    @world.guard.tool(resource="Patient::{patient_id}", record_inputs=("patient_id", "ward"))
    def visit(patient_id: str, ward: str = "w1") -> str:
        """Visit."""
        return ward

    return visit  # type: ignore[return-value]


def test_private_id_is_not_kept_in_clear(tmp_path: Path) -> None:
    """Its digest beside it would be for nothing."""

    def extend(world: World) -> None:
        private(world)
        world.server.add_tool(visiting(world))

    message = "tool `visit` keeps `patient_id`, the id of a `Patient`, which is private: take it out of record_inputs="
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        make_world(tmp_path, policies=ALL, types="entity Patient in [Tool];", agent=None, extend=extend)


async def test_private_id_of_a_later_tool_is_left_out(tmp_path: Path) -> None:
    """Where nobody can refuse it any more; what else it keeps is kept."""
    world = make_world(tmp_path, policies=ALL, types="entity Patient in [Tool];", agent=None, extend=private)
    world.server.add_tool(visiting(world))
    async with Client(world.server) as client:
        with acting_as("some"):
            await client.call_tool("visit", {"patient_id": "p-secret"})

    assert inputs(world) == [{"ward": "w1"}]
    assert "p-secret" not in "".join(entry.text for entry in world.state.ledger)  # type: ignore[attr-defined]


async def test_kept_arguments_are_shown_and_not_forwarded(tmp_path: Path) -> None:
    """`evidence show` has them; a span, and what is read back from one, has not."""
    world = make_world(tmp_path, policies=ALL, agent=None, extend=paying(record_inputs=["amount", "off"]))
    await call(world)
    ledger: Any = world.state.ledger
    (record,) = [kept_of(entry) for entry in ledger if entry.record["kind"] == "decision"]

    assert row_of(record)["inputs"] == {"amount": {"__extn": {"fn": "decimal", "arg": AMOUNT}}, "off": None}
    told, _, run = explained(record).partition("; run: ")
    assert told.endswith('permit, by all; amount={"__extn":{"arg":"4.2500","fn":"decimal"}}, off=null')
    assert run.startswith("calls=0, ")
    line = export_line([record])
    assert AMOUNT not in line
    (back,) = records_of_line(line.encode(), "x", print)
    assert back.inputs == {}
    assert row_of(back)["inputs"] is None


def test_what_steers_a_terminal_is_not_shown() -> None:
    """A named argument is what a caller wrote; and it may be long."""
    ledger = MemoryLedger()
    ledger.append(
        {"kind": "decision", "time_unix_nano": 1, "attributes": {}, "inputs": {"a\x1b[2J": "\u202e" + "x" * 9_000}}
    )
    (entry,) = ledger
    shown = explained(kept_of(entry))

    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert len(shown) < 1_100


@pytest.mark.parametrize("forged", [5, "x", [1], None])
def test_inputs_that_are_no_object_are_no_record(forged: object) -> None:
    """Whoever reads it is told, and the others are read."""
    ledger = MemoryLedger()
    ledger.append({"kind": "decision", "time_unix_nano": 1, "attributes": {}, "inputs": forged})
    (entry,) = ledger

    with pytest.raises(UnfitRecordError, match="`inputs` wants an object"):
        kept_of(entry)
    assert json.loads(entry.text)["inputs"] == forged


async def test_record_says_by_which_moment_a_call_was_judged(tmp_path: Path) -> None:
    """Later moments are those of its record: the clock goes on between the two."""
    ticks = itertools.count(2_000_000_000)
    seen: list[float] = []

    def clock() -> float:
        seen.append(float(next(ticks)))
        return seen[-1]

    world = make_world(tmp_path, policies=ALL, agent=None, extend=paying(), clock=clock)
    async with Client(world.server) as client:
        with acting_as("some", at=2_000_000_000.0):
            await client.call_tool("pay", {"amount": AMOUNT, "to": {"name": "n", "iban": "i"}})

    ledger: Any = world.state.ledger
    (kept,) = [entry.record for entry in ledger if entry.record["kind"] == "decision"]
    judged = kept["attributes"]["agentguard.now"]
    assert judged in seen
    assert judged < kept["time_unix_nano"] / 1_000_000_000
