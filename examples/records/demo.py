"""Two agents call a guarded server, and each answer is compared with what it should be.

``.venv/bin/python -m examples.records.demo`` starts an issuer and the server in
`examples.records.server` on free loopback ports, the server as a process of its own,
and talks to it as any MCP client would. What was decided is read from the spans that
the server wrote. It ends by itself: with 0 if every line is as expected, with 1 if
one is not.
"""

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from textwrap import wrap
from typing import Annotated, Final, cast
from uuid import uuid4

import anyio
import typer
from mcp import Client
from mcp_types import CallToolResult, RequestParamsMeta, TextContent
from rich.console import Console
from rich.text import Text

from agentguard import Issuer
from examples.records.issuer import billing_token, support_token
from examples.records.server import POLICIES
from examples.records.stage import (
    ServerFailedError,
    Span,
    Trace,
    connected,
    loopback_issuer,
    new_traceparent,
    read_trace,
    records_server,
)

WIDTH: Final = 80
NOTE: Final = 8
ANSWER: Final = 200
GRANT: Final = "grant:"
SECONDS: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Step:
    """One call and the answer that it should get.

    Attributes:
        shown: The call, as the demo prints it.
        tool: The tool to call.
        arguments: What to call it with, as JSON.
        by: The policy that should decide; None where the arguments themselves are refused.
        told: What the agent should read of a denial; None for a call to be allowed.
        gets: Parts of the result that an allowed call should have.
        remark: What to look at in this line.
    """

    shown: str
    tool: str
    arguments: Mapping[str, object]
    by: str | None
    told: str | None = None
    reason: str = "policy"
    gets: Mapping[str, object] = field(default_factory=dict)
    remark: str = ""

    @property
    def verdict(self) -> tuple[str, str, list[str]]:
        """The effect, the reason and the organisation's policies that the decision should have."""
        if self.by is None:
            return "deny", "invalid_argument", []
        return ("allow", "permit", [self.by]) if self.told is None else ("deny", self.reason, [self.by])


SUPPORT: Final = (
    Step(
        shown="read_record(r9)  restricted",
        tool="read_record",
        arguments={"record_id": "r9"},
        by="support-works-on-records",
    ),
    Step(
        shown="delete_record(r1)",
        tool="delete_record",
        arguments={"record_id": "r1"},
        by="destructive-needs-approval",
        told="A person has to approve this call.",
        reason="approval_unavailable",
    ),
)

_EXPORT_500: Final = Step(
    shown="export_records(max_rows=500)",
    tool="export_records",
    arguments={"max_rows": 500},
    by="billing-exports",
    gets={"max_rows": 500, "rows": 3},
)
_EXPORT_5_00: Final = Step(
    shown='export_records(max_rows="5_00")',
    tool="export_records",
    arguments={"max_rows": "5_00"},
    by="billing-exports",
    gets={"max_rows": 500, "rows": 3},
    remark="judged as 500, which is what the tool gets",
)
_EXPORT_501: Final = Step(
    shown="export_records(max_rows=501)",
    tool="export_records",
    arguments={"max_rows": 501},
    by="export-row-limit",
    told="An export holds at most 500 rows. Ask for fewer.",
)

BILLING: Final = (
    Step(shown="read_record(r1)", tool="read_record", arguments={"record_id": "r1"}, by="billing-reads"),
    Step(
        shown="read_record(r9)  restricted",
        tool="read_record",
        arguments={"record_id": "r9"},
        by="restricted-needs-a-person",
        told="This record is restricted. A member of staff has to be the user of the run.",
    ),
    _EXPORT_500,
    _EXPORT_5_00,
    _EXPORT_501,
    Step(
        shown="update_record(write_off=1000.00)",
        tool="update_record",
        arguments={"record_id": "r3", "write_off": "1000.00"},
        by="billing-settles",
        gets={"balance": "310.40"},
    ),
    Step(
        shown="update_record(write_off=1000.01)",
        tool="update_record",
        arguments={"record_id": "r3", "write_off": "1000.01"},
        by="large-write-off",
        told="More than 1000.00 is written off by a person.",
    ),
    Step(
        shown="update_record(write_off=1000.00001)",
        tool="update_record",
        arguments={"record_id": "r3", "write_off": "1000.00001"},
        by=None,
        told="The arguments cannot be judged safely",
        remark="never rounded: 1000.0000 would have been allowed",
    ),
    Step(
        shown="read_record(r3)",
        tool="read_record",
        arguments={"record_id": "r3"},
        by="billing-reads",
        gets={"balance": "310.40"},
        remark="owes 310.40: of the three write-offs, one happened",
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One run of one agent, as it stands in the demo and as its token says.

    Attributes:
        title: What stands above its calls.
        identity: What its decisions must say about who acts.
        token: Its bearer token.
        steps: What it does.
    """

    title: str
    identity: Mapping[str, object]
    token: str
    steps: Sequence[Step]


class Demo:
    """Prints what happens and counts what should not have."""

    def __init__(self, console: Console, folder: Path) -> None:
        self._console = console
        self._folder = folder
        self.calls = 0
        self.wrong = 0

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(text, style))

    def note(self, text: str, *, style: str = "dim") -> None:
        """Print what belongs to the line above, wrapped under it."""
        for place, part in enumerate(wrap(text, WIDTH - NOTE)):
            self.line(f"{'' if place else '↳ ':>{NOTE}}{part}", style=style)

    def expect(self, what: str, got: object, wanted: object) -> None:
        """Count and print a mistake unless *got* is *wanted*."""
        if got != wanted:
            self.wrong += 1
            self.note(f"WRONG: {what} is {got!r}, expected {wanted!r}", style="bold red")

    async def play(self, actor: Actor, client: Client) -> list[Trace]:
        """Make each of the actor's calls, print what was decided, and compare it."""
        self.line(f"   {actor.title:<37}{'result':<7}{'decided by':<26}{'µs':>7}", style="bold")
        return [await self._step(actor, client, step) for step in actor.steps]

    async def _step(self, actor: Actor, client: Client, step: Step) -> Trace:
        trace_id, traceparent = new_traceparent()
        meta = cast("RequestParamsMeta", {"traceparent": traceparent})
        result = await client.call_tool(step.tool, dict(step.arguments), meta=meta)
        trace = read_trace(self._folder, trace_id)
        decision = trace.decision
        effect, reason = (decision.attributes[f"agentguard.decision.{name}"] for name in ("effect", "reason"))
        ids = decision.attributes.get("agentguard.policy.ids", [])
        by = [name for name in ids if not name.startswith(GRANT)]
        line = Text(f"    {step.shown:<36}")
        line.append(*(("allow  ", "green") if effect == "allow" else ("DENY   ", "red")))
        line.append(f"{', '.join(by) or reason:<26}{decision.microseconds:>7,}")
        self._console.print(line)
        if step.remark:
            self.note(step.remark)
        self.calls += 1
        before = self.wrong
        self.expect("the decision", (effect, reason, by), step.verdict)
        self.expect("whether the run's own grant permits it too", ids != by, wanted=effect == "allow")
        for name, value in actor.identity.items():
            self.expect(name, decision.attributes.get(name), value)
        self._compare(step, result, trace)
        if before != self.wrong:
            self.note(f"the answer was: {_text(result)[:ANSWER]}", style="red")
        return trace

    def _compare(self, step: Step, result: CallToolResult, trace: Trace) -> None:
        ran = trace.named("agentguard.execute") is not None
        if step.told is None:
            got = result.structured_content or {}
            self.expect("is_error", result.is_error or False, wanted=False)
            self.expect("the result", {name: got.get(name) for name in step.gets}, step.gets)
            self.expect("whether the tool ran", ran, wanted=True)
            return
        meta = (result.meta or {}).get("agentguard/decision", {})
        told = _text(result)
        if step.told in told:
            self.note(f"agent was told: “{step.told}”")
        self.expect("is_error", result.is_error, wanted=True)
        self.expect("what the agent was told", step.told in told, wanted=True)
        self.expect("the effect in _meta", meta.get("effect"), "deny")
        self.expect("the decision id in _meta", meta.get("id"), trace.decision.attributes["agentguard.decision.id"])
        self.expect("whether the tool ran", ran, wanted=False)

    def show(self, trace: Trace) -> None:
        """Print the spans of one call as a tree."""
        request = trace.request
        decision = trace.decision
        execution = trace.named("agentguard.execute")
        self.line(f"   trace {trace.id[:8]}…  {request.name:<48}{_milliseconds(request)}")
        by = decision.attributes["agentguard.policy.id"]
        effect = decision.attributes["agentguard.decision.effect"]
        self.line(f"      ├─ agentguard.authorize  {effect:<7}{by:<31}{_milliseconds(decision)}")
        if execution is None:
            self.line("      └─ (the tool did not run)")
        else:
            outcome = execution.attributes["agentguard.execution.outcome"]
            self.line(f"      └─ agentguard.execute    {outcome:<38}{_milliseconds(execution)}")
            self.expect("the parent of agentguard.execute", execution.parent, request.id)
        self.expect("the parent of agentguard.authorize", decision.parent, request.id)
        self.expect("the status of agentguard.authorize", decision.status, "UNSET")


def _text(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def _count(policies: Path) -> int:
    return sum(path.read_text().count("@id(") for path in policies.glob("*.cedar"))


def _run(actor: Actor) -> str:
    return str(actor.identity["agentguard.run.id"])[:4]


def _digest(trace: Trace) -> object:
    return trace.decision.attributes["agentguard.arguments.digest"]


def _milliseconds(span: Span) -> str:
    return f"{span.microseconds / 1000:>6.1f} ms"


def _actors(issuer: Issuer, audience: str) -> tuple[Actor, Actor]:
    billing, support = uuid4().hex, uuid4().hex
    return (
        Actor(
            "support-agent, for alice",
            {
                "agentguard.run.id": support,
                "agentguard.agent.id": "support-agent",
                "agentguard.user.id": "alice",
                "agentguard.task.id": "ticket-7",
            },
            support_token(issuer, audience, run=support),
            SUPPORT,
        ),
        Actor(
            "billing-agent",
            {
                "agentguard.run.id": billing,
                "agentguard.agent.id": "billing-agent",
                "agentguard.user.id": None,
                "agentguard.task.id": "invoice-42",
            },
            billing_token(issuer, audience, run=billing),
            BILLING,
        ),
    )


async def play(policies: Path, folder: Path, console: Console) -> int:
    """Play the demo and return how many of its lines were wrong."""
    demo = Demo(console, folder)
    async with AsyncExitStack() as opened:
        issuer = await opened.enter_async_context(loopback_issuer())
        server = records_server(issuer.issuer, policies=policies, folder=folder)
        try:
            url = await opened.enter_async_context(server)
        except ServerFailedError as error:
            demo.line(f"the server did not start:\n{error}", style="bold red")
            return 1
        support, billing = _actors(issuer, url)
        clients = {actor: await opened.enter_async_context(connected(url, actor.token)) for actor in (support, billing)}
        tools = (await clients[billing].list_tools()).tools
        address = url.removeprefix("http://").removesuffix("/mcp")
        demo.line(
            f"agentguard demo · server `records` on {address} · {len(tools)} tools · {_count(policies)} policies",
            style="bold",
        )

        demo.line("\n1  Two runs of two agents, each with its own identity", style="bold")
        demo.line(f"   support-agent   task ticket-7     for alice         run {_run(support)}   5 min")
        demo.line(f"   billing-agent   task invoice-42   “monthly close”   run {_run(billing)}   5 min")

        demo.line("\n2  The same tools, judged on the values that the tool gets", style="bold")
        await demo.play(support, clients[support])
        traces = dict(zip(BILLING, await demo.play(billing, clients[billing]), strict=True))
        digests = {_digest(traces[step]) for step in (_EXPORT_500, _EXPORT_5_00)}
        demo.expect("the number of digests of 500 and “5_00”", len(digests), 1)

        demo.line("\n3  What is left: the spans of an allowed and of a denied call", style="bold")
        demo.show(traces[_EXPORT_500])
        demo.show(traces[_EXPORT_501])
        version = traces[_EXPORT_501].decision.attributes["agentguard.policy.version"]
        demo.line(f"   both under policies {version[:15]}…{version[-4:]}, for run {_run(billing)}")

    calls = f"{demo.calls} calls decided"
    if demo.wrong:
        demo.line(f"\n{calls}, {demo.wrong} checks failed", style="bold red")
    else:
        demo.line(f"\n{calls}, each as expected", style="bold green")
        demo.line("Now change a policy in examples/records/policies and run it again.")
    return demo.wrong


def main(policies: Annotated[Path, typer.Option(help="The folder of policies.")] = POLICIES) -> None:
    """Play the demo; end with 1 if an answer is not the expected one."""
    console = Console(width=WIDTH, highlight=False)

    async def bounded(folder: Path) -> int:
        with anyio.fail_after(SECONDS):
            return await play(policies.absolute(), folder, console)

    with TemporaryDirectory(prefix="agentguard-demo-") as folder:
        wrong = anyio.run(bounded, Path(folder))
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
