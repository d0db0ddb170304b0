"""Three agents call a guarded server, and each answer is compared with what it should be.

``.venv/bin/python -m examples.records.demo`` starts an issuer and the server in
`examples.records.server` on free loopback ports, the server as a process of its own,
and talks to it as any MCP client would. What was decided is read from the spans that
the server wrote. It ends by itself: with 0 if every line is as expected, with 1 if
one is not.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Annotated, Final, cast

import anyio
import anyio.to_thread
import typer
from mcp import Client
from mcp_types import CallToolResult, RequestParamsMeta, TextContent
from rich.console import Console

from agentguard import Issuer, Run, SQLiteStore
from agentguard.evidence.verify import verify_folder
from examples.records.issuer import BILLING_TOOLS, SUPPORT_TOOLS
from examples.records.server import POLICIES
from examples.records.stage import (
    SEARCH_SECONDS,
    STATE,
    ServerFailedError,
    Span,
    Trace,
    copied,
    loopback_issuer,
    new_traceparent,
    read_trace,
    records_server,
)
from examples.records.steps import BILLING, EXPORT_5_00, EXPORT_500, EXPORT_501, MAILER, SUPPORT, Step
from examples.story import WIDTH, Story

ANSWER: Final = 200
GRANT: Final = "grant:"
SECONDS: Final = 120
SOON: Final = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Actor:
    """One run of one agent, as it stands in the demo and as its token says.

    Attributes:
        title: What stands above its calls.
        run: The run.
        steps: What it does.
    """

    title: str
    run: Run
    steps: Sequence[Step]

    @property
    def identity(self) -> Mapping[str, object]:
        """What its decisions must say about who acts."""
        facts = self.run.facts
        return {
            "agentguard.run.id": facts.run_id,
            "agentguard.agent.id": facts.agent,
            "agentguard.user.id": facts.user,
            "agentguard.task.id": facts.task,
            "agentguard.delegation.depth": len(facts.ancestors),
        }


class Demo:
    """Makes calls, and tells what was decided about each.

    Attributes:
        story: Where it is told.
        calls: How many were made so far.
    """

    def __init__(self, story: Story, folder: Path) -> None:
        self.story = story
        self._folder = folder
        self.calls = 0

    async def play(self, actor: Actor, client: Client) -> list[Trace]:
        """Make each of the actor's calls, print what was decided, and compare it."""
        self.story.line(f"   {actor.title:<37}{'result':<7}{'decided by':<27}{'µs':>6}", style="bold")
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
        self.story.decided(f"{step.shown:<36}", effect, f"{', '.join(by) or reason:<27}{decision.microseconds:>6,}")
        if step.remark:
            self.story.note(step.remark)
        self.calls += 1
        before = self.story.wrong
        self.story.expect("the decision", (effect, reason, by), step.verdict)
        self.story.expect("whether the run's own grant permits it too", ids != by, wanted=effect == "allow")
        for name, value in actor.identity.items():
            self.story.expect(name, decision.attributes.get(name), value)
        self._compare(step, result, trace)
        if before != self.story.wrong:
            self.story.note(f"the answer was: {_text(result)[:ANSWER]}", style="red")
        return trace

    def _compare(self, step: Step, result: CallToolResult, trace: Trace) -> None:
        ran = trace.named("agentguard.execute") is not None
        if step.told is None:
            got = result.structured_content or {}
            self.story.expect("is_error", result.is_error or False, wanted=False)
            self.story.expect("the result", {name: got.get(name) for name in step.gets}, step.gets)
            self.story.expect("whether the tool ran", ran, wanted=True)
            return
        meta = (result.meta or {}).get("agentguard/decision", {})
        told = _text(result)
        if step.told in told:
            self.story.note(f"agent was told: “{step.told}”")
        self.story.expect("is_error", result.is_error, wanted=True)
        self.story.expect("what the agent was told", step.told in told, wanted=True)
        self.story.expect("the effect in _meta", meta.get("effect"), "deny")
        self.story.expect(
            "the decision id in _meta", meta.get("id"), trace.decision.attributes["agentguard.decision.id"]
        )
        self.story.expect("whether the tool ran", ran, wanted=False)

    async def end(self, run: Run, client: Client) -> None:
        """End *run* in the store while *client* searches with its token; time the end and what follows."""
        trace_id, traceparent = new_traceparent()
        meta = cast("RequestParamsMeta", {"traceparent": traceparent})
        ended: list[tuple[CallToolResult, float]] = []

        async def search() -> None:
            ended.append((await client.call_tool("search_records", {"text": ""}, meta=meta), perf_counter()))

        self.story.line(f'    search_records("")                  … takes {SEARCH_SECONDS} s in the archive')
        async with anyio.create_task_group() as calling:
            calling.start_soon(search)
            await self._decided(trace_id)
            revoked = perf_counter()
            await anyio.to_thread.run_sync(run.end, "revoked by the demo")
        result, stopped = ended[0]
        again = perf_counter()
        refused = await client.call_tool("read_record", {"record_id": "r1"})
        took, answered = stopped - revoked, perf_counter() - again
        self.story.line(f"    {f'revoke run {run.id[:4]}':<36}call cancelled after {took * 1000:.1f} ms")
        self.story.line(f"    {'read_record(r1)':<36}refused after {answered * 1000:.0f} ms: its token is good")
        self.calls += 2
        self.story.expect("how the search ended", (result.is_error, _end_of(result)), (True, "ended"))
        self.story.expect("how the next call ended", (refused.is_error, _end_of(refused)), (True, "ended"))
        self.story.expect("whether the search was stopped soon", took < SOON, wanted=True)
        execution = read_trace(self._folder, trace_id).named("agentguard.execute")
        outcome = execution and execution.attributes["agentguard.execution.outcome"]
        self.story.expect("the outcome of the search", outcome, "cancelled")

    async def _decided(self, trace_id: str) -> None:
        while not read_trace(self._folder, trace_id).spans:  # noqa: ASYNC110  another process writes them
            await anyio.sleep(0.01)

    def prove(self, state: Path) -> None:
        """Verify the evidence that the server has left, now that it has stopped."""
        report = verify_folder(state)
        self.story.expect("what is wrong with the evidence", [str(problem) for problem in report.problems], [])
        self.story.expect("what is worth a look in the evidence", [str(note) for note in report.notes], [])
        (chain,) = report.chains
        kept = f"{chain.records} records in 1 chain, its end signed: the evidence holds"
        self.story.line(f"   {kept}", style="green")
        self.story.line("   .venv/bin/python -m examples.records.demo --keep demo   leaves it to look at")

    def show(self, trace: Trace) -> None:
        """Print the spans of one call as a tree."""
        request = trace.request
        decision = trace.decision
        execution = trace.named("agentguard.execute")
        self.story.line(f"   trace {trace.id[:8]}…  {request.name:<48}{_milliseconds(request)}")
        by = decision.attributes["agentguard.policy.id"]
        effect = decision.attributes["agentguard.decision.effect"]
        self.story.line(f"      ├─ agentguard.authorize  {effect:<7}{by:<31}{_milliseconds(decision)}")
        if execution is None:
            self.story.line("      └─ (the tool did not run)")
        else:
            outcome = execution.attributes["agentguard.execution.outcome"]
            self.story.line(f"      └─ agentguard.execute    {outcome:<38}{_milliseconds(execution)}")
            self.story.expect("the parent of agentguard.execute", execution.parent, request.id)
        self.story.expect("the parent of agentguard.authorize", decision.parent, request.id)
        self.story.expect("the status of agentguard.authorize", decision.status, "UNSET")


def _text(result: CallToolResult) -> str:
    return " ".join(block.text for block in result.content if isinstance(block, TextContent))


def _count(policies: Path) -> int:
    return sum(path.read_text().count("@id(") for path in policies.glob("*.cedar"))


def _digest(trace: Trace) -> object:
    return trace.decision.attributes["agentguard.arguments.digest"]


def _milliseconds(span: Span) -> str:
    return f"{span.microseconds / 1000:>6.1f} ms"


def _end_of(result: CallToolResult) -> object:
    return (result.meta or {}).get("agentguard/decision", {}).get("reason")


async def play(policies: Path, folder: Path, console: Console) -> int:
    """Play the demo and return how many of its lines were wrong."""
    demo = Demo(Story(console), folder)
    async with AsyncExitStack() as opened:
        store = SQLiteStore(folder / STATE / "store.db")
        opened.callback(store.close)
        issuer = await opened.enter_async_context(loopback_issuer(store))
        server = records_server(issuer.issuer, policies=policies, folder=folder)
        try:
            url = await opened.enter_async_context(server)
        except ServerFailedError as error:
            demo.story.line(f"the server did not start:\n{error}", style="bold red")
            return 1
        async with _support(issuer, url) as support, _billing(issuer, url) as billing:
            await _acts(demo, url, policies, support, billing)
    demo.prove(folder / STATE)
    demo.story.ends(f"{demo.calls} calls decided", policies="examples/records/policies")
    return demo.story.wrong


def _support(issuer: Issuer, url: str) -> AbstractAsyncContextManager[Run]:
    return issuer.run(agent="support-agent", user="alice", task="ticket-7", tools=SUPPORT_TOOLS, audience=url)


def _billing(issuer: Issuer, url: str) -> AbstractAsyncContextManager[Run]:
    return issuer.run(
        agent="billing-agent", task="invoice-42", purpose="monthly close", tools=BILLING_TOOLS, audience=url
    )


async def _acts(demo: Demo, url: str, policies: Path, support: Run, billing: Run) -> None:
    async with Client(support.http(url)) as of_support, Client(billing.http(url)) as of_billing:
        tools = (await of_billing.list_tools()).tools
        address = url.removeprefix("http://").removesuffix("/mcp")
        demo.story.line(
            f"agentguard demo · server `records` on {address} · {len(tools)} tools · {_count(policies)} policies",
            style="bold",
        )

        demo.story.line("\n1  Two runs of two agents, each with its own identity", style="bold")
        demo.story.line(f"   support-agent   task ticket-7     for alice         run {support.id[:4]}   5 min")
        demo.story.line(f"   billing-agent   task invoice-42   “monthly close”   run {billing.id[:4]}   5 min")

        demo.story.line("\n2  The same tools, judged on the values that the tool gets", style="bold")
        await demo.play(Actor("support-agent, for alice", support, SUPPORT), of_support)
        answers = await demo.play(Actor("billing-agent", billing, BILLING), of_billing)
        traces = dict(zip(BILLING, answers, strict=True))
        digests = {_digest(traces[step]) for step in (EXPORT_500, EXPORT_5_00)}
        demo.story.expect("the number of digests of 500 and “5_00”", len(digests), 1)

    demo.story.line("\n3  Delegation narrows: read_record alone is handed on, for 60 s", style="bold")
    async with (
        billing.delegate(agent="mailer-agent", tools=["read_record"], ends_in=60) as mailer,
        Client(mailer.http(url)) as of_mailer,
    ):
        await demo.play(Actor("billing-agent → mailer-agent", mailer, MAILER), of_mailer)

    demo.story.line("\n4  A run is ended while a call of it is running", style="bold")
    async with copied(url, support.token()) as of_thief:
        await demo.end(support, of_thief)

    demo.story.line("\n5  What is left: the spans of an allowed and of a denied call", style="bold")
    demo.show(traces[EXPORT_500])
    demo.show(traces[EXPORT_501])
    version = traces[EXPORT_501].decision.attributes["agentguard.policy.version"]
    demo.story.line(f"   both under policies {version[:15]}…{version[-4:]}, for run {billing.id[:4]}")


def main(
    policies: Annotated[Path, typer.Option(help="The folder of policies.")] = POLICIES,
    keep: Annotated[Path | None, typer.Option(help="Leave the evidence, the spans and the log in this folder.")] = None,
) -> None:
    """Play the demo; end with 1 if an answer is not the expected one."""
    console = Console(width=WIDTH, highlight=False)

    async def bounded(folder: Path) -> int:
        with anyio.fail_after(SECONDS):
            return await play(policies.absolute(), folder, console)

    if keep is not None:
        keep.mkdir(mode=0o700, parents=True)
        wrong = anyio.run(bounded, keep.absolute())
        console.print(f"agentguard evidence report report.html {keep / STATE} --policies {policies}", soft_wrap=True)
        raise typer.Exit(1 if wrong else 0)
    with TemporaryDirectory(prefix="agentguard-demo-") as folder:
        wrong = anyio.run(bounded, Path(folder))
    raise typer.Exit(1 if wrong else 0)


if __name__ == "__main__":
    typer.run(main)
