"""What the demo plays on: an issuer, the server, the evidence, and what is expected of each call.

All of it is in this process, on the loopback interface, on ports that the system picks.
"""

import secrets
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from pathlib import Path
from textwrap import wrap
from typing import Any, Final

from mcp import Client

from agentguard import Issuer, Run, SQLiteLedger, SQLiteStore, State
from agentguard.evidence.ledger import Entry
from examples.inbox.agent import USER, Agent, Answer, Phone
from examples.inbox.data import sample_office
from examples.inbox.server import build
from examples.loopback import serving, url_of
from examples.records.issuer import issuer_app
from examples.story import WIDTH, Story

ASSISTANT: Final = "assistant"
EVIDENCE: Final = "evidence"

_QUOTED: Final = "      ┆ "


class Stage:
    """Lets agents call, tells what was decided, and compares it with what should have been.

    Attributes:
        story: Where it is told.
        url: The server's.
        office: What the tools act on.
        phone: Where the user can be asked.
        calls: How many calls were made so far.
    """

    def __init__(self, story: Story, issuer: Issuer, ledger: Iterable[Entry], url: str) -> None:
        self.story = story
        self.url = url
        self.office = sample_office()
        self.phone = Phone()
        self.calls = 0
        self._issuer = issuer
        self._ledger = ledger
        self._told = 0

    @asynccontextmanager
    async def run(self, **options: Any) -> AsyncIterator[Agent]:
        """Begin a run of the assistant, for its user; *options* are those of `Issuer.run`."""
        async with (
            self._issuer.run(agent=ASSISTANT, user=USER, audience=self.url, **options) as run,
            self._acting(run) as agent,
        ):
            yield agent

    @asynccontextmanager
    async def below(self, above: Agent, **options: Any) -> AsyncIterator[Agent]:
        """Delegate from one run to another; *options* are those of `Run.delegate`."""
        async with above.run.delegate(**options) as run, self._acting(run) as agent:
            yield agent

    @asynccontextmanager
    async def _acting(self, run: Run) -> AsyncIterator[Agent]:
        async with Client(run.http(self.url)) as client:
            yield Agent(run, client, self._ledger)

    def chapter(self, title: str, *lines: str) -> None:
        """Begin a chapter."""
        self.story.line(f"\n{title}", style="bold")
        for line in lines:
            self.story.line(f"   {line}")

    def quote(self, text: str) -> None:
        """Print what somebody reads."""
        for line in text.splitlines():
            for part in wrap(line, WIDTH - len(_QUOTED)):
                self.story.line(f"{_QUOTED}{part}", style="dim")

    def acts(self, agent: Agent) -> None:
        """Print who makes the calls that follow."""
        facts = agent.run.facts
        who = " → ".join([*(str(above["agent"]) for above in facts.ancestors), facts.agent])
        columns = f"{f'{who}, {facts.task}':<31}{'result':<7}{'decided by':<30}carries"
        self.story.line(f"   {columns}", style="bold")

    async def allowed(self, agent: Agent, shown: str, arguments: Mapping[str, object], *by: str) -> Answer:
        """Make a call that these policies should allow.

        Args:
            agent: Who calls.
            shown: The call, as it is printed, with the tool's name in front.
            arguments: What to call it with, as JSON.
            by: The organisation's policies that should permit it.
        """
        answer = await self._call(agent, shown, arguments)
        self.story.expect("the decision", answer.decided.verdict, ("allow", "permit", list(by)))
        self.story.expect("is_error", answer.result.is_error or False, wanted=False)
        return answer

    async def denied(
        self, agent: Agent, shown: str, arguments: Mapping[str, object], *by: str, reason: str, told: str
    ) -> Answer:
        """Make a call that should be denied.

        Args:
            agent: Who calls.
            shown: As for `allowed`; likewise *arguments*.
            arguments: What to call it with.
            by: The organisation's policies that should deny it.
            reason: Why, as the evidence should have it.
            told: What the agent should read.
        """
        answer = await self._call(agent, shown, arguments)
        self.story.note(f"agent was told: “{answer.text}”")
        self.story.expect("the decision", answer.decided.verdict, ("deny", reason, list(by)))
        self.story.expect("is_error", answer.result.is_error, wanted=True)
        self.story.expect("what the agent was told", told in answer.text, wanted=True)
        self.story.expect("the decision id in _meta", answer.decision.get("id"), answer.decided.id)
        return answer

    async def _call(self, agent: Agent, shown: str, arguments: Mapping[str, object]) -> Answer:
        self.calls += 1
        answer = await agent.call(shown.partition("(")[0], arguments)
        effect, reason, by = answer.decided.verdict
        rest = f"{', '.join(by) or reason:<30}{' '.join(answer.decided.labels)}"
        self.story.decided(f"{shown:<30}", effect, rest.rstrip())
        return answer

    def bank(self, paid: Sequence[tuple[str, str]]) -> None:
        """Tell what the bank has paid since this was asked last, and compare it with account and amount of each."""
        new = self.office.paid[self._told :]
        self._told = len(self.office.paid)
        got = [(payment.account, f"{payment.amount:.2f}") for payment in new]
        counts = Counter(f"{amount} to {account[:4]}…" for account, amount in got)
        told = ", ".join(f"{f'{count} times ' * (count > 1)}{what}" for what, count in counts.items())
        self.story.line(f"    the bank has paid {told or 'nothing'}", style="bold")
        self.story.expect("what was paid", got, list(paid))


@asynccontextmanager
async def staged(story: Story, *, policies: Path, state: Path) -> AsyncIterator[Stage]:
    """Serve everything until the block is left, and close the evidence in *state* then.

    Raises:
        PolicyError: If the policies do not fit the server.
    """
    async with AsyncExitStack() as opened:
        store = opened.enter_context(closing(SQLiteStore(state / "store.db")))
        ledger = opened.enter_context(closing(SQLiteLedger(state / EVIDENCE)))
        here, there = (opened.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(2))
        issuer = Issuer(issuer=url_of(there), store=store)
        stage = Stage(story, issuer, ledger, f"{url_of(here)}/mcp")
        # Before anything is served: policies that do not fit are refused here.
        server = build(
            issuer=issuer.issuer,
            audience=stage.url,
            policies=policies,
            office=stage.office,
            approver=stage.phone,
            state=State(store=store, ledger=ledger, key=secrets.token_bytes(32)),
        )
        await opened.enter_async_context(serving(issuer_app(issuer), there))
        await opened.enter_async_context(serving(server.streamable_http_app(), here))
        yield stage
