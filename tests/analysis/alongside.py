"""A guard in use, and beside each of its calls what a scenario, a replay and an impact say of the same call."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Annotated, Any, Final, NotRequired, TypedDict

from mcp import Client, MCPError
from mcp.server.mcpserver import MCPServer
from mcp_types import ToolAnnotations

from agentguard import Approval, ApprovalRequest, Guard, MemoryStore, Spend, State
from agentguard.analysis.explanations.explain import explain
from agentguard.analysis.history.hindsight import Hindsight
from agentguard.analysis.history.replay import NoRequestError, Setting, replay
from agentguard.analysis.scenarios.cases import Case
from agentguard.analysis.scenarios.scenariofile import read_suite
from agentguard.analysis.supposed import Verdict, judge, suppose
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.evidence.kept import Kept, kept_of
from agentguard.evidence.ledger import MemoryLedger
from agentguard.guarding.offering import COLLECTING, Collected
from agentguard.lifecycle.tally import Tally
from agentguard.limits import Limits
from agentguard.model import Invocation
from agentguard.policy.conversion.values import datetime_json, decimal_json
from agentguard.policy.files.source import read_folder
from agentguard.policy.files.written import FILE, write_schema
from agentguard.testing import acting_as, unsafe_invocation
from tests.world import EVERYTHING, write_policies

START: Final = 1_800_000_000
ISSUER: Final = "urn:agentguard:testing"
POLICIES: Final = """
@id("all") permit (principal, action, resource);
@id("cap") forbid (principal, action, resource) when {{ context.run.calls >= {cap} }};
@id("cap-of-tool") forbid (principal, action, resource) when {{ context.run.calls_of_this_tool >= {of_tool} }};
@id("budget") forbid (principal, action, resource)
when {{ context.run.spent.payments.greaterThan(decimal("{budget}")) }};
@id("tokens") forbid (principal, action == Action::"think", resource)
when {{ context.run.spent.tokens.greaterThanOrEqual(decimal("{tokens}")) }};
@id("egress") @obligation("approval") forbid (principal, action == Action::"pay", resource)
when {{ context.run.labels.contains("untrusted") }} unless {{ context has approval }};
@id("thoughtful") forbid (principal, action == Action::"pay_all", resource)
when {{ context.run.labels.containsAny(["thoughtful", "hot"]) }};
@id("denied") forbid (principal, action, resource) when {{ context.run.denied >= {denied} }};
@id("age") forbid (principal, action, resource)
when {{ context.now.durationSince(context.run.started_at) > duration("{age}ms") }};
@id("several") forbid (principal, action == Action::"file", resource)
when {{ context.run.calls_of_this_tool >= 2 && resource != Doc::"a" }};
@id("quiet") forbid (principal, action in Action::"resources/read", resource)
when {{ context.run.calls > 3 && context.run.labels.isEmpty() }};
{never}
"""
NEVER: Final = [
    "",
    '@id("never") forbid (principal, action == Action::"nested", resource);',
    '@id("leaf") forbid (principal, action == Action::"think", resource) when { principal.delegation_depth > 0 };',
]
GRANTS: Final = [
    EVERYTHING,
    EVERYTHING,
    "permit (principal, action, resource) when { context.run.calls < 5 };",
    'permit (principal, action, resource) unless { context.run.labels.contains("hot") };',
    """permit (principal, action in Action::"tools/call", resource);
    forbid (principal, action == Action::"pay", resource)
    when { context.run.spent.payments.greaterThan(decimal("12.0")) };""",
    'permit (principal, action == Action::"look", resource);',
]
TOOLS: Final = ["look", "read_mail", "pay", "pay_all", "think", "nested", "file", "notes"]
# To look for changes takes as long as many calls.
_EXPLAINED: Final = 0.2
LOCAL: Final = ToolAnnotations(destructive_hint=False, open_world_hint=False)


class Batch(TypedDict):
    """What a batch comes to."""

    total: Annotated[Decimal, Spend("payments")]
    fee: NotRequired[Annotated[int, Spend("payments")]]


def batch(amounts: list[Decimal]) -> Batch:
    """Return the sum, and a fee for more than two."""
    total: Batch = {"total": sum(amounts, Decimal(0))}
    return {**total, "fee": len(amounts)} if len(amounts) > 2 else total


class Desk:
    """A guarded server of every kind of tool that adds to what a run has done."""

    def __init__(self, folder: Path, *, approves: bool) -> None:
        self.now = float(START)
        self.state = State(store=MemoryStore(clock=lambda: self.now), ledger=MemoryLedger(), key=b"k" * 32)
        self.server = MCPServer("desk")
        options: dict[str, Any] = {"approver": _yes} if approves else {}
        self.guard = Guard(
            folder,
            issuer="https://issuer.example",
            audience="https://desk.example/mcp",
            state=self.state,
            clock=lambda: self.now,
            **options,
        )
        guard, tool = self.guard, self.server.tool

        @tool(annotations=LOCAL)
        @guard.tool
        async def look() -> str:
            return "seen"

        @tool()
        @guard.tool(labels={"untrusted"})
        async def read_mail(fails: bool) -> str:
            if fails:
                raise ValueError
            return "a mail"

        @tool()
        @guard.tool(spends={"other"})
        async def pay(
            amount: Annotated[Decimal, Spend("payments")] | None = None,
            fee: Annotated[float, Spend("payments")] = 0.0,
            pages: Annotated[int, Spend("paper")] = 1,
        ) -> str:
            return "paid"

        @tool()
        @guard.tool(facts=batch)
        async def pay_all(amounts: list[Decimal]) -> str:
            return "paid"

        @tool()
        @guard.tool(spends={"tokens"})
        def think(tokens: int) -> str:
            guard.spend("tokens", tokens)
            guard.label("thoughtful")
            return "thought"

        @tool()
        @guard.tool
        async def nested() -> str:
            await look()
            return "seen"

        @tool()
        @guard.tool(resource="Doc::{ids[*]}", labels={"filed"})
        async def file(ids: list[str], cost: Annotated[Decimal, Spend("payments")] = Decimal("0.5")) -> str:
            return "filed"

        @self.server.resource("notes://all")
        @guard.resource(labels={"hot"})
        async def notes() -> str:
            return "notes"

        guard.attach(self.server)

    def decisions(self) -> list[Kept]:
        """Return the records of all decisions."""
        found = [kept_of(entry) for entry in self.state.ledger]  # type: ignore[attr-defined]
        return [one for one in found if one.kind == "decision"]


async def _yes(request: ApprovalRequest) -> Approval:
    return Approval()


async def opened(folder: Path, policies: str, *, approves: bool) -> tuple[Desk, Workspace]:
    """Return a server in use, and its policy folder as the commands have it."""
    write_policies(folder, policies, types=None)
    collected = Collected()
    before = COLLECTING.set(collected)
    try:
        Desk(folder, approves=approves)
    finally:
        COLLECTING.reset(before)
    ((_, book, _),) = collected.guarded
    (folder / FILE).write_text(write_schema(await book.offered(), read_folder(folder, Limits())), "utf-8")
    return Desk(folder, approves=approves), open_workspace(folder)


def some_policies(chance: Random) -> str:
    """Return policies with limits that some calls reach."""
    return POLICIES.format(
        cap=chance.randint(6, 25),
        of_tool=chance.randint(3, 9),
        budget=chance.choice(["30.0", "50.5", "99.9999", "0.0"]),
        tokens=chance.choice(["3.0", "10.0"]),
        denied=chance.randint(4, 12),
        age=chance.choice([3_000, 10_001, 60_000]),
        never=chance.choice(NEVER),
    )


def some_arguments(chance: Random, tool: str) -> dict[str, Any]:
    """Return arguments as a caller sends them, some of which cannot be spent."""
    if tool == "read_mail":
        return {"fails": chance.random() < 0.2}
    if tool == "pay":
        amounts = ["1", "10.5", "0", "0.0001", "25", "-1", "922337203685477.5807", None]
        given = {"amount": chance.choice(amounts), "fee": chance.choice([0.5, 1.25, -2.0])}
        given["pages"] = chance.choice([1, 2, -1, 2**63 - 1])
        return {name: value for name, value in given.items() if chance.random() < 0.6}
    if tool == "pay_all":
        return {"amounts": [chance.choice(["1", "2.5", "-1", "0"]) for _ in range(chance.randint(0, 4))]}
    if tool == "think":
        return {"tokens": chance.randint(0, 4)}
    if tool == "file":
        ids = chance.sample(["a", "b", "c"], chance.randint(1, 3))
        return {"ids": ids, **({"cost": chance.choice(["1", "0", "3.25"])} if chance.random() < 0.5 else {})}
    return {}


def in_scenario(tool: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the same call as a scenario says it."""

    def exact(value: object) -> str:
        return f"{Decimal(str(value)):.4f}"

    if tool == "pay":
        amount = {} if given.get("amount") is None else {"amount": exact(given["amount"])}
        return {"with": {**amount, "fee": exact(given.get("fee", 0)), "pages": given.get("pages", 1)}}
    if tool == "pay_all":
        facts = batch([Decimal(one) for one in given["amounts"]])
        said = {**facts, "total": exact(facts["total"])}
        return {"with": {"amounts": sorted({exact(one) for one in given["amounts"]})}, "facts": said}
    if tool == "file":
        return {"with": {"ids": given["ids"], "cost": exact(given.get("cost", "0.5"))}}
    return {"with": dict(given)}


def moment(at: float) -> str:
    """Return a clock's reading as it is written."""
    return str(datetime_json(at)["__extn"]["arg"])  # type: ignore[index,call-overload]


def said_of(tally: Tally, tool: str) -> dict[str, Any]:
    """Return what a run has done, as a scenario says it."""
    found: dict[str, Any] = {
        "calls": tally.calls,
        "calls_of_this_tool": tally.tools.get(f"desk\0{tool}", 0),
        "denied": tally.denied,
        "labels": sorted(tally.labels),
        "spent": {name: decimal_json(units)["__extn"]["arg"] for name, units in tally.spent.items()},  # type: ignore[index,call-overload]
    }
    return found if tally.started_at is None else {**found, "started_at": moment(tally.started_at)}


@dataclass(slots=True)
class Alongside:
    """Random calls of a guard, each compared with what is said of it.

    Attributes:
        folder: A folder for this alone.
        seed: What decides which.
        seen: How often something came of it.
    """

    folder: Path
    seed: int
    seen: dict[str, int] = field(default_factory=dict)
    chance: Random = field(init=False)

    def __post_init__(self) -> None:
        self.chance = Random(self.seed)  # noqa: S311  a test's dice

    async def compared(self, calls: int) -> dict[str, int]:
        """Make calls, and return how many were allowed, denied, and told of by an impact."""
        approves = self.chance.random() < 0.5
        desk, workspace = await opened(self.folder / "old", some_policies(self.chance), approves=approves)
        _, other = await opened(self.folder / "new", some_policies(self.chance), approves=approves)
        enforcer = desk.guard._enforcer
        assert enforcer is not None
        assert enforcer.in_force.policies.version == workspace.policies.version
        hindsights = (Hindsight(workspace, workspace), Hindsight(workspace, other))
        async with Client(desk.server) as client:
            for _ in range(calls):
                await self._one(desk, client, hindsights, approves=approves)
        return self.seen

    async def _one(self, desk: Desk, client: Client, hindsights: tuple[Hindsight, ...], *, approves: bool) -> None:
        chance, old = self.chance, hindsights[0].old
        desk.now += chance.choice([0, 0.001, 0.5, 1.0004, 0.123456, 2])
        tool = chance.choice(TOOLS)
        given, action = some_arguments(chance, tool), "resources/read/notes" if tool == "notes" else tool
        runs = self._chain()
        before = desk.state.store.tallies(*((ISSUER, run) for run, _ in runs))
        decided = len(desk.decisions())
        await _call(client, runs, tool, given)
        record = desk.decisions()[decided]

        text = _scenario(runs, before, action, in_scenario(tool, given), desk.now, approves=approves)
        verdict = suppose(old, _case(old, text).call)
        reason = record.text("agentguard.decision.reason").replace("approval_unavailable", "approval_required")
        real = (record.text("agentguard.decision.effect"), reason, record.policy_ids)
        assert (verdict.effect.value, verdict.reason.value, verdict.policy_ids) == real, text
        self._count(real[0])
        self._later(record, verdict, hindsights, text)
        if not verdict.allowed and chance.random() < _EXPLAINED:
            for suggestion in explain(verdict, old.policies, workspace=old).suggestions[:2]:
                assert judge(suggestion.requests, old.policies).allowed, (suggestion.text, text)

    def _later(self, record: Kept, verdict: Verdict, hindsights: tuple[Hindsight, ...], text: str) -> None:
        """See that what is said of the record afterwards is so."""
        old = hindsights[0].old
        try:
            replayed = replay(record, old, setting=Setting(environment="production"))
        except NoRequestError:
            assert record.text("agentguard.decision.reason") == "invalid_argument"
            return
        if verdict.requests and "run" in replayed.request.context:
            assert replayed.request.context["run"] == verdict.requests[0].context["run"], text
        for hindsight in hindsights:
            call = _case(hindsight.new, text).call
            if not record.text("agentguard.approval.channel") or not verdict.allowed:
                call = replace(call, approval=None)
            answer = hindsight.answer(replayed)
            # What a grant says is not on record, and a person's yes to what was denied neither.
            supposed = verdict if hindsight.new is old else suppose(hindsight.new, call)
            assert answer.effect in {None, supposed.effect} or answer.within_grant, text
            self._count("told" if answer.effect is not None else "untold")

    def _chain(self) -> list[tuple[str, str]]:
        """Return some runs, root first, each with its grant."""
        chance = self.chance
        names = [chance.choice(["r1", "r2"])]
        for _ in range(chance.choice([0, 0, 1, 2])):
            names.append(f"{names[-1]}.{chance.choice(['1', '2'])}")
        return [(name, chance.choice(GRANTS)) for name in names]

    def _count(self, what: str) -> None:
        self.seen[what] = self.seen.get(what, 0) + 1


async def _call(client: Client, runs: list[tuple[str, str]], tool: str, given: dict[str, Any]) -> None:
    above: tuple[Invocation, ...] = ()
    for run, grant in runs[:-1]:
        above = (*above, unsafe_invocation("agent", at=START, run_id=run, ancestors=above, grant=grant))
    run, grant = runs[-1]
    with acting_as("agent", at=START, run_id=run, ancestors=above, grant=grant):
        if tool == "notes":
            with suppress(MCPError):
                await client.read_resource("notes://all")
        else:
            await client.call_tool(tool, given)


def _scenario(
    runs: list[tuple[str, str]],
    before: tuple[Tally, ...],
    action: str,
    call: dict[str, Any],
    now: float,
    *,
    approves: bool,
) -> str:
    identities: dict[str, dict[str, Any]] = {}
    for place, ((_, grant), tally) in enumerate(zip(runs, before, strict=True)):
        who = {"agent": "agent", "lifetime": "1h", "grant": grant, "run": said_of(tally, action)}
        identities[f"link-{place}"] = who | ({"delegated_by": f"link-{place - 1}"} if place else {})
    approved = {"approved": {"channel": "desk"}} if approves else {}
    scenario = {"name": "one", "as": f"link-{len(runs) - 1}", "call": action, "expect": "allow", **call, **approved}
    where = {"now": moment(now), "transport": "stdio"}
    return json.dumps({"identities": identities, **where, "scenarios": [scenario]})


def _case(workspace: Workspace, text: str) -> Case:
    (case,) = read_suite(workspace, "one.test.yaml", text).cases
    return case
