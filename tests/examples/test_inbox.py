"""The inbox example: what becomes of an agent that obeys its mail, held against the bank and the evidence."""

from __future__ import annotations

import io
import shutil
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import anyio
import pytest
import typer
from mcp import Client
from rich.console import Console

from agentguard.evidence.reading import read_sources
from agentguard.evidence.verify import verify_folder
from agentguard.policy.baselines import chosen
from agentguard.testing import acting_as
from examples.inbox.agent import Decided, demanded_by
from examples.inbox.data import STRANGER, SUPPLIER, Office, Payment, sample_office
from examples.inbox.demo import INVOICE, STATE, main, obeys, play
from examples.inbox.server import POLICIES, build
from examples.inbox.stage import staged
from examples.story import WIDTH, Story
from tests.docs.pages import ROOT, blocks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.evidence.kept import Kept

README: Final = "examples/inbox/README.md"
EGRESS: Final = "untrusted-to-egress"
ADVICE: Final = (
    "This run has read what others wrote, so a person has to approve what reaches outside or cannot be undone."
)


@dataclass(frozen=True, slots=True)
class Played:
    """What a demo has left.

    Attributes:
        story: What it expected.
        office: What its tools have done.
        output: What it printed.
        folder: Where its evidence is.
        records: What the evidence has.
    """

    story: Story
    office: Office
    output: str
    folder: Path
    records: Sequence[Kept]

    def decisions(self, task: str, *, agent: str = "assistant", run: int = 0) -> list[Decided]:
        """Return what was decided about one of the agent's runs for a task, which are counted from 0."""
        found: dict[object, list[Decided]] = {}
        for kept in self.records:
            of = kept.attributes
            if (kept.kind, of.get("agentguard.task.id"), of.get("agentguard.agent.id")) == ("decision", task, agent):
                found.setdefault(of["agentguard.run.id"], []).append(Decided(of))
        return list(found.values())[run]

    def about(self, decided: Decided) -> dict[str, Kept]:
        """Return what the evidence has of one call, by the kind of record."""
        of = (one for one in self.records if one.attributes.get("agentguard.decision.id") == decided.id)
        return {one.kind: one for one in of}

    def ran(self, decided: Decided) -> bool:
        """Whether the evidence has an outcome of what was decided: its tool has begun."""
        return "outcome" in self.about(decided)


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the demo once, unchanged."""
    folder, told = tmp_path_factory.mktemp("inbox"), io.StringIO()
    story, office = anyio.run(play, POLICIES, folder, Console(file=told, width=WIDTH, highlight=False))
    return Played(story, office, told.getvalue(), folder / STATE, tuple(read_sources([folder / STATE], pytest.fail)))


def test_everything_in_the_demo_is_as_expected(played: Played) -> None:
    """Each line is checked inside; the last ones say so."""
    assert played.story.wrong == 0, played.output
    assert "24 calls decided, each as expected" in played.output


def test_demo_writes_plain_lines_of_80_columns_into_a_pipe(played: Played) -> None:
    """Colours are for terminals."""
    assert "\x1b" not in played.output
    assert max(map(len, played.output.splitlines())) <= WIDTH


def test_what_the_page_shows_is_what_the_demo_prints(played: Played) -> None:
    """Line by line, and in this order."""
    printed = iter(played.output.splitlines())

    assert [line for block in blocks(README, "text") for line in block.text.splitlines() if line not in printed] == []


@pytest.mark.parametrize(("language", "file"), [("python", "server.py"), ("cedar", f"policies/{EGRESS}.cedar")])
def test_what_the_page_quotes_stands_in_the_file(language: str, file: str) -> None:
    """But for the bodies of functions."""
    text = " ".join((ROOT / README).parent.joinpath(file).read_text().split())
    quoted = [part for block in blocks(README, language) for part in block.text.replace(" ...", "").split("\n\n")]

    assert [part for part in quoted if " ".join(part.split()).rstrip(";") not in text] == []


def test_what_was_read_from_a_mail_is_not_paid(played: Played) -> None:
    """The evidence has the policy's id, and no outcome; the caller has the decision's id, and no payment."""
    calendar, read, pay, send = played.decisions("tidy-up")

    assert calendar.verdict == read.verdict == ("allow", "permit", ["assistant-reads"])
    assert (read.labels, pay.labels) == ([], ["untrusted"])
    assert pay.verdict == send.verdict == ("deny", "approval_unavailable", [EGRESS])
    assert played.about(pay)["decision"].inputs["account"] == SUPPLIER
    assert not played.ran(pay)
    assert not played.ran(send)
    assert played.office.outbox == []
    assert f"decision {pay.id}" in played.output


def test_what_the_user_has_ordered_is_paid_once_and_to_nobody_else(played: Played) -> None:
    """The very arguments that were denied before, in a run that has read the same mail, and nobody was asked."""
    _, _, denied, _ = played.decisions("tidy-up")
    read, paid, again, stranger = played.decisions(INVOICE)

    assert read.verdict == ("allow", "permit", ["assistant-reads"])
    assert paid.verdict == ("allow", "permit", ["assistant-acts"])
    assert paid.labels == denied.labels == ["untrusted"]
    assert paid.record["agentguard.arguments.digest"] == denied.record["agentguard.arguments.digest"]
    assert paid.approved_by == (None, None)
    assert again.verdict == stranger.verdict == ("deny", "grant", [])
    assert [played.ran(one) for one in (paid, again, stranger)] == [True, False, False]


def test_what_a_person_says_yes_to_is_paid_and_nothing_else(played: Played) -> None:
    """The yes is for this call: another one is asked about anew, and she says no."""
    _, paid, stranger = played.decisions("tidy-up", run=1)

    assert (paid.verdict, paid.labels) == (("allow", "permit", ["assistant-acts"]), ["untrusted"])
    assert paid.approved_by == ("alice", "phone")
    assert stranger.verdict == ("deny", "approval_declined", [EGRESS])
    assert [played.ran(one) for one in (paid, stranger)] == [True, False]


def test_another_run_in_between_is_no_way_around(played: Played) -> None:
    """Neither where a child reads for its parent, nor where one pays for it."""
    (read,) = played.decisions("tidy-up", agent="reader")
    (pay,) = played.decisions("tidy-up", run=2)
    (paid_below,) = played.decisions("tidy-up", agent="cashier")

    assert read.verdict == ("allow", "permit", ["assistant-reads", "reader-reads"])
    assert pay.labels == paid_below.labels == ["untrusted"]
    assert pay.verdict == paid_below.verdict == ("deny", "approval_unavailable", [EGRESS])
    assert not played.ran(pay)
    assert not played.ran(paid_below)


def test_of_ten_payments_at_once_exactly_those_run_that_fit(played: Played) -> None:
    """Each was judged with another total, and the bank has paid exactly what was allowed."""
    decided = played.decisions("bills")
    allowed = [one for one in decided if one.verdict == ("allow", "permit", ["assistant-acts"])]
    denied = [one for one in decided if one.verdict == ("deny", "policy", ["budget-payments"])]

    assert sorted(one.payments for one in allowed) == [Decimal(60) * count for count in range(1, 9)]
    assert [one.payments for one in denied] == [Decimal(540)] * 2
    assert all(map(played.ran, allowed))
    assert not any(map(played.ran, denied))


def test_the_bank_has_paid_what_was_allowed_and_nothing_else(played: Played) -> None:
    """One payment was ordered, one approved, and eight bills fit the budget."""
    first, second, *bills = played.office.paid

    assert first == second == Payment(account=SUPPLIER, amount=Decimal("240.00"), reference="as the mail says")
    assert {(bill.account, bill.amount) for bill in bills} == {(SUPPLIER, Decimal("60.00"))}
    assert len({bill.reference for bill in bills}) == len(bills) == 8
    assert STRANGER not in {payment.account for payment in played.office.paid}


def test_the_evidence_holds(played: Played) -> None:
    """One chain, its end signed, and nothing in it that is worth a look."""
    report = verify_folder(played.folder)

    assert (report.problems, report.notes) == ((), ())
    assert len(report.chains) == 1


@pytest.mark.anyio
async def test_without_the_policy_the_demo_says_what_became_possible(tmp_path: Path) -> None:
    """The mail's payment is made, and is named."""
    weak, told = tmp_path / "policies", io.StringIO()
    shutil.copytree(POLICIES, weak, ignore=shutil.ignore_patterns(f"{EGRESS}.cedar"))
    story = Story(Console(file=told, width=WIDTH, highlight=False))

    async with staged(story, policies=weak, state=tmp_path / STATE) as stage:
        await obeys(stage)
    story.ends("3 calls decided", policies="policies")

    assert [payment.account for payment in stage.office.paid] == [SUPPLIER]
    assert "WRONG: what was paid is" in told.getvalue()
    assert f"3 calls decided, {story.wrong} checks failed" in told.getvalue()


def test_demo_with_a_broken_policy_says_so_and_ends_with_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The server refuses to start, and its words reach whoever started the demo."""
    broken = tmp_path / "policies"
    shutil.copytree(POLICIES, broken)
    (broken / "budget.cedar").write_text((broken / "budget.cedar").read_text().replace("spent.payments", "spent.paid"))

    with pytest.raises(typer.Exit) as ended:
        main(policies=broken, keep=tmp_path / "kept")

    assert ended.value.exit_code == 1
    assert "the server did not start" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tool", "arguments", "allowed"),
    [
        ("list_mail", {}, False),
        ("read_mail", {"mail_id": "m1"}, False),
        ("read_calendar", {"day": "2026-11-30"}, True),
        ("read_calendar", {"day": "2026-12-01"}, False),
    ],
)
@pytest.mark.anyio
async def test_what_a_run_has_read_decides_whether_it_may_write(
    tool: str, arguments: dict[str, object], allowed: bool
) -> None:
    """A calendar is as trustworthy as those who wrote into it on that day. Nobody can be asked here."""
    office = sample_office()
    server = build(issuer="https://issuer.example", audience="https://inbox.example/mcp", office=office)
    with acting_as("assistant", user="alice", task="tidy-up"):
        async with Client(server) as client:
            await client.call_tool(tool, arguments)
            sent = await client.call_tool("send_mail", {"to": ["bea@atelier.example"], "subject": "", "text": "yes"})

    assert (sent.is_error or False) is not allowed
    assert len(office.outbox) == int(allowed)
    assert (ADVICE in str(sent.content)) is not allowed


@pytest.mark.anyio
async def test_a_mail_that_is_not_there_is_the_tools_own_error() -> None:
    """It is allowed, and fails."""
    server = build(issuer="https://issuer.example", audience="https://inbox.example/mcp")
    with acting_as("assistant", user="alice"):
        async with Client(server) as client:
            result = await client.call_tool("read_mail", {"mail_id": "m9"})

    assert result.is_error
    assert "agentguard/decision" not in (result.meta or {})


def test_a_text_that_asks_for_no_payment_makes_none() -> None:
    """The gullible model needs something to believe."""
    with pytest.raises(LookupError, match="no payment"):
        demanded_by("Shall we fire the first batch on Monday?")


@pytest.mark.parametrize("name", ["lifetime-caps", "shared-principal"])
def test_policies_that_are_taken_as_they_come_are_the_baseline(name: str) -> None:
    """The page says so."""
    (baseline,) = chosen([name])

    assert (POLICIES / f"{name}.cedar").read_text() == baseline.without_credentials().policies
