"""The records example: what its policies decide, for whom, on which values."""

import json
import re
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client
from mcp_types import CallToolResult, TextContent
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from agentguard import Grade
from agentguard.testing import Facts, acting_as, unsafe_invocation
from examples.records.data import Records, sample_records
from examples.records.server import POLICIES, build

BILLING: Final = "billing-agent"
SUPPORT: Final = "support-agent"
CLOSE: Final[Facts] = {"task": "invoice-42", "purpose": "monthly close"}
FOR_ALICE: Final[Facts] = {"task": "ticket-7", "user": "alice"}
RESTRICTED: Final = {"sensitivity": "restricted"}
MAILER: Final = "mailer-agent"
# It begins when the tests are collected, and has to outlive all that run before these.
LASTING: Final[Facts] = {**CLOSE, "run_ends_at": int(time.time()) + 86_400}
HANDED_ON: Final[Facts] = {**CLOSE, "ancestors": (unsafe_invocation(BILLING, **LASTING),)}
FOR_BOB: Final[Facts] = {"task": "ticket-8", "user": "bob"}


@dataclass(frozen=True, slots=True)
class Answer:
    """What a call ended with, and what was decided on the way."""

    result: CallToolResult
    reason: object
    policies: object

    @property
    def value(self) -> dict[str, Any]:
        """The structured result."""
        return self.result.structured_content or {}

    @property
    def text(self) -> str:
        """What the agent reads."""
        return " ".join(block.text for block in self.result.content if isinstance(block, TextContent))


async def call(
    agent: str,
    facts: Facts,
    tool: str,
    arguments: Mapping[str, object],
    *,
    records: Records | None = None,
    policies: Path = POLICIES,
) -> Answer:
    """Call one tool of a new server as *agent*."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    server = build(
        issuer="https://issuer.example",
        audience="https://records.example/mcp",
        records=records,
        policies=policies,
        tracer_provider=provider,
    )
    with acting_as(agent, **facts):
        async with Client(server) as client:
            result = await client.call_tool(tool, dict(arguments))
    spans = [span for span in exporter.get_finished_spans() if span.name.startswith("agentguard.authorize")]
    attributes = spans[0].attributes or {}
    return Answer(result, attributes["agentguard.decision.reason"], attributes.get("agentguard.policy.ids"))


def case(agent: str, facts: Facts, tool: str, by: str | tuple[str, ...], **arguments: object) -> Any:
    """Name one row of a table: who calls what, and which policies decide."""
    who = agent.removesuffix("-agent")
    shown = ", ".join(f"{name}={json.dumps(value)}" for name, value in arguments.items())
    by = (by,) if isinstance(by, str) else by
    return pytest.param(agent, facts, tool, arguments, by, id=f"{who}-{tool}({shown})-{'+'.join(by)}")


ALLOWED: Final = (
    case(BILLING, CLOSE, "read_record", "billing-reads", record_id="r1"),
    case(BILLING, CLOSE, "search_records", "billing-reads", text="ada"),
    case(BILLING, CLOSE, "search_records", "billing-reads", text="", filters={"owes_at_least": "1000.00"}, limit=5),
    case(BILLING, CLOSE, "export_records", "billing-exports", max_rows=500),
    case(BILLING, CLOSE, "export_records", "billing-exports", max_rows=1, format="json", columns=["name", "balance"]),
    case(BILLING, CLOSE, "update_record", "billing-settles", record_id="r3", write_off="1000.00"),
    case(BILLING, CLOSE, "update_record", "billing-settles", record_id="r3", write_off="1000"),
    case(BILLING, CLOSE, "update_record", "billing-settles", record_id="r1", next_visit="2999-12-31"),
    case(MAILER, HANDED_ON, "read_record", ("billing-reads", "mailer-sends"), record_id="r1"),
    case(MAILER, HANDED_ON, "export_records", ("billing-exports", "mailer-sends"), max_rows=1),
    case(SUPPORT, FOR_ALICE, "read_record", "support-works-on-records", record_id="r9"),
    case(SUPPORT, FOR_ALICE, "update_record", "support-works-on-records", record_id="r9", contact={"email": "d@e.f"}),
    case(SUPPORT, FOR_ALICE, "search_records", "support-works-on-records", text="", filters=RESTRICTED),
)

FORBIDDEN: Final = (
    case(BILLING, CLOSE, "read_record", "restricted-needs-a-person", record_id="r9"),
    case(BILLING, CLOSE, "update_record", "restricted-needs-a-person", record_id="r9", note="paid"),
    case(BILLING, CLOSE, "search_records", "restricted-search-needs-a-person", text="", filters=RESTRICTED),
    case(BILLING, CLOSE, "export_records", "restricted-search-needs-a-person", max_rows=1, filters=RESTRICTED),
    case(BILLING, CLOSE, "export_records", "export-row-limit", max_rows=501),
    case(BILLING, CLOSE, "export_records", "export-names-nobody", max_rows=1, columns=["name", "email"]),
    case(BILLING, CLOSE, "update_record", "large-write-off", record_id="r3", write_off="1000.01"),
    case(BILLING, CLOSE, "update_record", "large-write-off", record_id="r3", write_off=1000.0001),
    case(BILLING, CLOSE, "update_record", "next-visit-is-ahead", record_id="r1", next_visit="2020-01-01"),
    case(SUPPORT, FOR_ALICE, "delete_record", "destructive-needs-approval", record_id="r1"),
)

NEVER: Final = frozenset({"export-names-its-run", "suspended-agents-stop"})
"""Guardrails that depend on who calls alone: such a call ends before its arguments are looked at."""

each_case = pytest.mark.parametrize(("agent", "facts", "tool", "arguments", "by"), ALLOWED)
each_forbidden = pytest.mark.parametrize(("agent", "facts", "tool", "arguments", "by"), FORBIDDEN)


@each_case
async def test_call_that_its_task_needs_is_allowed(
    agent: str, facts: Facts, tool: str, arguments: Mapping[str, object], by: tuple[str, ...]
) -> None:
    """Each agent does what it is for, and the decision names the permit."""
    answer = await call(agent, facts, tool, arguments)

    assert not answer.result.is_error, answer.text
    assert (answer.reason, answer.policies) == ("permit", by)


@each_forbidden
async def test_call_past_a_guardrail_is_denied(
    agent: str, facts: Facts, tool: str, arguments: Mapping[str, object], by: tuple[str, ...]
) -> None:
    """Each guardrail stops a call that a permit alone would have let through."""
    answer = await call(agent, facts, tool, arguments)

    assert answer.result.is_error
    reason = "approval_unavailable" if by == ("destructive-needs-approval",) else "policy"
    assert (answer.reason, answer.policies) == (reason, by)


def test_every_policy_decides_a_case() -> None:
    """A policy that no case shows at work might as well not be there."""
    text = "".join(path.read_text() for path in POLICIES.glob("*.cedar"))

    decided = {policy for parameters in (*ALLOWED, *FORBIDDEN) for policy in parameters.values[-1]}

    assert decided | NEVER == set(re.findall(r'@id\("([^"]+)"\)', text))


@pytest.mark.parametrize("grade", [Grade.TOKEN, Grade.SHARED])
async def test_export_without_an_identity_that_names_its_run_is_denied(grade: Grade) -> None:
    """The same call with the run's own identity is among those that are allowed."""
    answer = await call(BILLING, {**CLOSE, "grade": grade}, "export_records", {"max_rows": 500})

    assert answer.result.is_error


async def test_suspended_agent_is_denied_what_it_could_do_before(tmp_path: Path) -> None:
    """Whoever edits the entities stops an agent; it reads what a stranger would read."""
    policies = tmp_path / "policies"
    shutil.copytree(POLICIES, policies)
    entities = json.loads((policies / "cedarentities.json").read_text())
    agent = next(entity for entity in entities if entity["uid"] == {"type": "Agent", "id": BILLING})
    agent["parents"].append({"type": "Group", "id": "suspended"})
    (policies / "cedarentities.json").write_text(json.dumps(entities))

    before = await call(BILLING, CLOSE, "read_record", {"record_id": "r1"})
    after = await call(BILLING, CLOSE, "read_record", {"record_id": "r1"}, policies=policies)
    unknown = await call(BILLING, CLOSE, "no_such_tool", {}, policies=policies)

    assert not before.result.is_error
    assert after.result.is_error
    assert after.text.partition("Decision")[0] == unknown.text.partition("Decision")[0]


@pytest.mark.parametrize(
    ("agent", "facts", "tool", "arguments"),
    [
        pytest.param(BILLING, CLOSE, "delete_record", {"record_id": "r1"}, id="billing-deletes"),
        pytest.param(BILLING, {"task": "invoice-42"}, "export_records", {"max_rows": 1}, id="export-without-purpose"),
        pytest.param(BILLING, {}, "read_record", {"record_id": "r1"}, id="billing-without-task"),
        pytest.param(SUPPORT, FOR_ALICE, "export_records", {"max_rows": 1}, id="support-exports"),
        pytest.param(SUPPORT, FOR_BOB, "read_record", {"record_id": "r1"}, id="user-outside-the-staff"),
        pytest.param(SUPPORT, {"task": "ticket-7"}, "read_record", {"record_id": "r1"}, id="support-for-nobody"),
        pytest.param(MAILER, CLOSE, "read_record", {"record_id": "r1"}, id="mailer-that-nobody-delegated-to"),
    ],
)
async def test_call_that_nobody_permits_is_denied(
    agent: str, facts: Facts, tool: str, arguments: Mapping[str, object]
) -> None:
    """What no permit names is denied."""
    answer = await call(agent, facts, tool, arguments)

    assert answer.result.is_error
    assert answer.reason == "no_permit"


@pytest.mark.parametrize(
    ("agent", "arguments"),
    [
        pytest.param(BILLING, {"record_id": "r404"}, id="unknown-record"),
        pytest.param("new-agent", {"record_id": "r1"}, id="unknown-agent"),
    ],
)
async def test_call_that_reaches_something_unknown_is_denied(agent: str, arguments: Mapping[str, object]) -> None:
    """A policy cannot judge what nobody knows."""
    answer = await call(agent, CLOSE, "read_record", arguments)

    assert answer.result.is_error
    assert answer.reason in {"missing_entity", "no_permit"}


async def test_amount_that_cedar_cannot_hold_exactly_is_denied() -> None:
    """Rounded to four places it would pass the limit; it is never rounded."""
    answer = await call(BILLING, CLOSE, "update_record", {"record_id": "r3", "write_off": "1000.00001"})

    assert answer.result.is_error
    assert answer.reason == "invalid_argument"


async def test_tool_gets_the_value_that_was_judged() -> None:
    """The SDK reads ``"5_00"`` as 500, and 500 is what the policies see."""
    answer = await call(BILLING, CLOSE, "export_records", {"max_rows": "5_00"})

    assert answer.value["max_rows"] == 500
    assert answer.value["content"].splitlines() == [
        "record_id,last_visit,balance",
        "r1,2026-11-03,240.00",
        "r2,2026-10-21,0.00",
        "r3,2026-06-09,1310.40",
    ]


async def test_denied_call_leaves_the_records_as_they_were() -> None:
    """Nothing of a tool runs before the decision."""
    records = sample_records()

    await call(SUPPORT, FOR_ALICE, "delete_record", {"record_id": "r1"}, records=records)
    await call(BILLING, CLOSE, "update_record", {"record_id": "r3", "write_off": "1000.01"}, records=records)

    assert records.get("r1") == sample_records().get("r1")
    assert records.get("r3") == sample_records().get("r3")


async def test_allowed_change_is_made_and_signed_by_its_agent() -> None:
    """A tool knows for whom it runs from the verified identity, not from an argument."""
    records = sample_records()

    await call(
        BILLING, CLOSE, "update_record", {"record_id": "r3", "write_off": "310.40", "note": "settled"}, records=records
    )

    assert str(records.get("r3").balance) == "1000.00"
    assert records.get("r3").notes == ("pays by instalments", "billing-agent: settled")


async def test_denied_caller_reads_the_policys_advice_and_nothing_else() -> None:
    """The advice says what to change; the policy's name stays inside."""
    answer = await call(BILLING, CLOSE, "export_records", {"max_rows": 501})

    assert "An export holds at most 500 rows. Ask for fewer." in answer.text
    assert "export-row-limit" not in answer.result.model_dump_json()
