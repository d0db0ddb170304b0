"""What the commands for policies work on in their scenes: the records server, its policies, and evidence.

The evidence is what a real guard kept, by a clock that goes on as it is told. The functions
that take a folder change it, as somebody may who works there.
"""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import anyio
from mcp import Client

from agentguard import State
from agentguard.evidence.durable import SQLiteLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.policy.files.folder import WRITTEN
from agentguard.testing import acting_as
from examples.records.server import POLICIES, build

NOW: Final = 1_795_514_400.0
"""What the time is in every scene."""

_MINUTE: Final = 60.0
_DAY: Final = 86_400.0


class _Clock:
    """A clock that goes on by a minute each time somebody calls."""

    def __init__(self) -> None:
        self.now = NOW - 3 * _DAY

    def __call__(self) -> float:
        return self.now


_Call = Callable[..., Awaitable[None]]


@asynccontextmanager
async def _serving(folder: Path, clock: _Clock) -> AsyncIterator[_Call]:
    """Give what calls a tool of the server as a run of some agent; the server is stopped afterwards.

    It stops before a run is over by its clock: when exactly a thread would see that is left to chance.
    """
    evidence = SQLiteLedger(folder / "state" / "evidence", clock=clock)
    state = State(store=MemoryStore(clock=clock), ledger=evidence, key=b"k" * 32)
    options: dict[str, Any] = {"state": state, "clock": clock}
    server = build(
        issuer="https://issuer.example",
        audience="https://records.example/mcp",
        policies=folder / "policies",
        **options,
    )
    async with Client(server) as client:

        async def call(agent: str, run: str, tool: str, facts: Mapping[str, Any], **arguments: Any) -> None:
            clock.now += _MINUTE
            with acting_as(agent, at=clock.now - _MINUTE, run_id=run, **facts):
                await client.call_tool(tool, arguments)

        yield call
    state.close()


async def _use(folder: Path, clock: _Clock) -> None:
    """Use the server on two days, so that evidence is left."""
    closing = {"task": "invoice-42", "purpose": "monthly close"}
    async with _serving(folder, clock) as call:
        for run in ("close-1", "close-2"):
            await call("billing-agent", run, "read_record", closing, record_id="r1")
            await call("billing-agent", run, "search_records", closing, text="a")
            await call("billing-agent", run, "export_records", closing, max_rows=500)
    clock.now += _DAY
    async with _serving(folder, clock) as call:
        await call("billing-agent", "close-3", "export_records", closing, max_rows=501)
        alice, bob = ({"user": user, "task": "ticket-7"} for user in ("alice", "bob"))
        await call("support-agent", "ticket-7", "read_record", alice, record_id="r9")
        await call("support-agent", "ticket-7", "delete_record", alice, record_id="r1")
        await call("support-agent", "ticket-8", "read_record", bob, record_id="r1")
        await call("mailer-agent", "letter-1", "read_record", {}, record_id="r1")


_SERVER: Final = """\
from pathlib import Path

from examples.records.server import build

server = build(
    issuer="https://issuer.example",
    audience="https://records.example/mcp",
    policies=Path(__file__).with_name("policies"),
)
"""


def prepare(folder: Path) -> None:
    """Write what the commands work on: a server, its policies, those that may come next, and evidence."""
    shutil.copytree(POLICIES, folder / "policies")
    (folder / "server.py").write_text(_SERVER)
    (folder / ".git").mkdir()
    anyio.run(_use, folder, _Clock())


def _replace(file: Path, *changes: tuple[str, str]) -> None:
    text = file.read_text("utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    file.write_text(text, "utf-8")


def with_next(folder: Path) -> None:
    """Put a folder beside it that is stricter in two ways and looser in one."""
    shutil.copytree(folder / "policies", folder / "next")
    _replace(
        folder / "next" / "20-guardrails.cedar",
        ("context.input.max_rows > 500", "context.input.max_rows > 100"),
        ('action in Action::"destructive"', "action"),
    )
    _replace(folder / "next" / "10-permits.cedar", ("when { principal.delegation_depth > 0 }", ""))


def with_mistakes(folder: Path) -> None:
    """Misspell an argument, a value and a group, and leave out an owner."""
    _replace(
        folder / "policies" / "20-guardrails.cedar",
        ("context.input.max_rows > 500", "context.input.maxrows > 500"),
        ("context.facts.identifying_columns > 1", 'context.input.format == "cvs"'),
    )
    _replace(
        folder / "policies" / "10-permits.cedar",
        ('@owner("support-team@example.com")\n', ""),
        ('Group::"support-staff"', 'Group::"support-stuff"'),
    )


def with_unreadable(folder: Path) -> None:
    """Break off in the middle of two conditions."""
    _replace(folder / "policies" / "10-permits.cedar", ("when { principal has task };", "when { principal has };"))


def with_stale_schema(folder: Path) -> None:
    """Let the server have another argument than was written down."""
    _replace(folder / "policies" / WRITTEN, ("max_rows: Long", "rows: Long"))


def with_failing_cases(folder: Path) -> None:
    """Let an identity have another purpose than its cases want, and take the case of a limit away."""
    file = folder / "policies" / "scenarios" / "records.test.yaml"
    _replace(
        file,
        ("      - { as: billing, with: { max_rows: 501 }, expect: deny, by: [export-row-limit] }\n", ""),
        (
            "billing: { agent: billing-agent, task: invoice-42, purpose: monthly close }",
            "billing: { agent: billing-agent, task: invoice-42, purpose: month close }",
        ),
    )


def with_few_cases(folder: Path) -> None:
    """Leave three policies, and cases that see too little of them."""
    policies = folder / "policies"
    for name in ("10-permits.cedar", "20-guardrails.cedar", "scenarios/records.test.yaml"):
        (policies / name).unlink()
    (policies / "policies.cedar").write_text(_FEW_POLICIES, "utf-8")
    (policies / "scenarios" / "few.test.yaml").write_text(_FEW_CASES, "utf-8")


_FEW_POLICIES: Final = """\
@id("reads")
@owner("billing-team@example.com")
permit (principal in Agent::"billing-agent", action == Action::"read_record", resource)
when { principal has task };

@id("exports")
@owner("billing-team@example.com")
permit (principal in Agent::"billing-agent", action == Action::"export_records", resource)
when { principal has purpose && principal.purpose == "monthly close" };

@id("row-limit")
@owner("data-protection@example.com")
forbid (principal, action == Action::"export_records", resource)
when { context.input.max_rows > 500 };
"""
_FEW_CASES: Final = """\
now: 2026-11-24T10:00:00Z
identities:
  billing: { agent: billing-agent, task: invoice-42, purpose: monthly close }
  curious: { agent: billing-agent, purpose: curiosity }
scenarios:
  - name: an export is small
    call: export_records
    with: { max_rows: 100, format: csv, columns: [record_id] }
    facts: { identifying_columns: 0 }
    cases:
      - { as: billing, expect: allow, by: [exports] }
      - { as: curious, expect: deny, reason: no_permit }
      - { as: billing, with: { max_rows: 1000 }, expect: deny, by: [row-limit] }
"""


def without_scenarios(folder: Path) -> None:
    """Leave nothing to test."""
    shutil.rmtree(folder / "policies" / "scenarios")


def laid_out_badly(folder: Path) -> None:
    """Run a policy together, and add a file that cannot be read."""
    _replace(
        folder / "policies" / "10-permits.cedar",
        (
            'permit (\n  principal in Agent::"billing-agent",\n  action in Action::"read-only",\n  resource\n)',
            'permit(principal in Agent::"billing-agent", action in Action::"read-only",resource)',
        ),
    )
    (folder / "policies" / "30-more.cedar").write_text('@id("more")\npermit (principal, action resource);\n')
