"""A mail tells an assistant to pay, and it obeys: what becomes of that depends on what its run has read.

``.venv/bin/python -m examples.inbox.demo`` starts an issuer and the server in
`examples.inbox.server` on free loopback ports, and plays an agent whose model believes
whatever it reads. That takes no model: a script does what such a one would do. What was
decided is read from the evidence, what happened from the bank. It ends by itself: with 0
if everything is as expected, with 1 if something is not.
"""

import logging
from contextlib import ExitStack
from decimal import Decimal
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Final

import anyio
import typer
from rich.console import Console
from rich.text import Text

from agentguard import PolicyError
from agentguard.evidence.verify import verify_folder
from examples.inbox.agent import USER, Agent, Answer, demanded_by
from examples.inbox.data import STRANGER, SUPPLIER, Office, Order
from examples.inbox.server import POLICIES
from examples.inbox.stage import Stage, staged
from examples.story import WIDTH, Story

STATE: Final = "state"
LOG: Final = "server.log"
SECONDS: Final = 60

EVERYTHING: Final = ("list_mail", "read_mail", "read_calendar", "send_mail", "pay")
INVOICE: Final = "invoice-2041"
DUE: Final = "240.00"
FROM_A_MAIL: Final = "This run has read what others wrote"
AT_ONCE: Final = 10
BILL: Final = "60.00"
BUDGET: Final = "500.00"
FIT: Final = 8


def grant_for(order: Order) -> str:
    """Write what the run of an order may do: read, and pay this account, in all no more than was ordered."""
    # An account is letters and digits, and an amount a decimal: neither can become policy text.
    return f"""
permit (principal, action in Action::"read-only", resource);
permit (principal, action == Action::"pay", resource)
when {{
  context.input.account == "{order.account}" &&
  context.run.spent.payments.lessThanOrEqual(decimal("{order.at_most:.2f}"))
}};"""


async def read(stage: Stage, agent: Agent, *by: str) -> dict[str, object]:
    """Let an agent read the mail that speaks to it; returns the payment that the mail makes it want."""
    answer = await stage.allowed(agent, 'read_mail("m2")', {"mail_id": "m2"}, *by)
    # Where changed policies have denied it, the rest is told all the same.
    return demanded_by(answer.value.get("text", stage.office.find("m2").text))


def to_a_stranger(payment: dict[str, object]) -> dict[str, object]:
    """Return a small payment to somebody else, as a model may make it up."""
    return {**payment, "account": STRANGER, "amount": "20.00"}


async def is_denied(stage: Stage, agent: Agent, payment: dict[str, object]) -> Answer:
    """Let an agent pay what a mail says, which nobody wants."""
    shown = f"pay({str(payment['account'])[:4]}…, {payment['amount']})"
    return await stage.denied(
        agent, shown, payment, "untrusted-to-egress", reason="approval_unavailable", told=FROM_A_MAIL
    )


async def obeys(stage: Stage) -> Answer:
    """Play chapter 1: the agent does what the mail says."""
    stage.chapter(
        "1  A mail says “pay this account”, and the agent obeys",
        "alice asked for her inbox to be tidied. It is night, and her phone is off.",
    )
    async with stage.run(task="tidy-up", tools=EVERYTHING) as agent:
        stage.acts(agent)
        await stage.allowed(agent, "read_calendar(2026-11-30)", {"day": "2026-11-30"}, "assistant-reads")
        payment = await read(stage, agent, "assistant-reads")
        stage.quote(stage.office.find("m2").text)
        denial = await is_denied(stage, agent, payment)
        await stage.denied(
            agent,
            "send_mail(office@kiln…)",
            {"to": ["office@kiln.example"], "subject": "Your ten mails", "text": "…"},
            "untrusted-to-egress",
            reason="approval_unavailable",
            told=FROM_A_MAIL,
        )
    stage.bank([])
    stage.story.expect("what was sent", stage.office.outbox, [])
    return denial


async def was_ordered(stage: Stage) -> None:
    """Play chapter 2: the same payment, in a run whose task it is."""
    order = Order(account=SUPPLIER, at_most=Decimal(DUE))
    stage.office.orders[INVOICE] = order
    stage.chapter(
        "2  The same payment, which alice has ordered herself",
        f"She knows the invoice. Task {INVOICE} is to pay {DUE} to {SUPPLIER[:4]}…,",
        "and the run's grant, signed into its token, is for that and no more.",
    )
    async with stage.run(task=INVOICE, grant=grant_for(order)) as agent:
        stage.acts(agent)
        payment = await read(stage, agent, "assistant-reads")
        await stage.allowed(agent, f"pay({SUPPLIER[:4]}…, {DUE})", payment, "assistant-acts")
        refused = partial(stage.denied, agent, reason="grant", told="Denied by policy.")
        await refused(f"pay({SUPPLIER[:4]}…, {DUE})  again", payment)
        await refused(f"pay({STRANGER[:4]}…, 20.00)", to_a_stranger(payment))
        stage.story.note("no yes could reach further than the grant, so nobody is asked")
    stage.bank([(SUPPLIER, DUE)])


async def is_approved(stage: Stage) -> None:
    """Play chapter 3: the same payment, which a person says yes to."""
    stage.chapter(
        "3  The same payment, which alice says yes to when she is asked",
        "It is morning, and her phone is on. Her inbox is tidied once more.",
    )
    stage.phone.on = True
    async with stage.run(task="tidy-up", tools=EVERYTHING) as agent:
        stage.acts(agent)
        payment = await read(stage, agent, "assistant-reads")
        stage.phone.wants.add((SUPPLIER, Decimal(DUE)))
        answer = await stage.allowed(agent, f"pay({SUPPLIER[:4]}…, {DUE})", payment, "assistant-acts")
        for question in stage.phone.shown:
            stage.quote(question.message)
        stage.story.expect("who approved, and where", answer.decided.approved_by, (USER, "phone"))
        stage.story.note("she says yes to this call and no other")
        await stage.denied(
            agent,
            f"pay({STRANGER[:4]}…, 20.00)",
            to_a_stranger(payment),
            "untrusted-to-egress",
            reason="approval_declined",
            told="A person declined this call.",
        )
    stage.phone.on = False
    stage.bank([(SUPPLIER, DUE)])


async def takes_a_detour(stage: Stage) -> None:
    """Play chapter 4: one run reads, another one pays."""
    stage.chapter(
        "4  Another run reads the mail, or another one pays: that is no way around",
        "What a child has read its parent carries too, and the other way round.",
    )
    async with stage.run(task="tidy-up", tools=EVERYTHING) as agent:
        async with stage.below(agent, agent="reader", tools=["read_mail"]) as reader:
            stage.acts(reader)
            payment = await read(stage, reader, "assistant-reads", "reader-reads")
        stage.acts(agent)
        await is_denied(stage, agent, payment)
        async with stage.below(agent, agent="cashier", tools=["pay"]) as cashier:
            stage.acts(cashier)
            await is_denied(stage, cashier, payment)
    stage.bank([])


async def pays_at_once(stage: Stage) -> None:
    """Play chapter 5: ten payments at the same time, of which the budget covers eight."""
    stage.chapter(
        f"5  {AT_ONCE} bills of {BILL} at the same time, and a budget of {BUDGET} for a run",
        "This run reads no mail. Each call is judged with what it would add.",
    )
    bills = [{"account": SUPPLIER, "amount": BILL, "reference": f"bill {number}"} for number in range(AT_ONCE)]
    async with stage.run(task="bills", tools=["pay"]) as agent, anyio.create_task_group() as paying:
        for bill in bills:
            paying.start_soon(agent.only_call, "pay", bill)
    stage.calls += AT_ONCE
    stage.acts(agent)
    decided = sorted(agent.decisions(), key=lambda one: one.payments)
    for effect, reason, by, count in (
        ("allow", "permit", "assistant-acts", FIT),
        ("deny", "policy", "budget-payments", AT_ONCE - FIT),
    ):
        these = [one for one in decided if one.verdict == (effect, reason, [by])]
        stage.story.decided(f"{f'pay({SUPPLIER[:4]}…, {BILL})  {len(these)} times':<30}", effect, by)
        stage.story.note(f"with it, the run has paid {', '.join(f'{one.payments:.2f}' for one in these)}")
        stage.story.expect(f"how many times it was {effect}", len(these), count)
    stage.bank([(SUPPLIER, BILL)] * FIT)


def is_on_record(stage: Stage, denial: Answer) -> None:
    """Play chapter 6: what an auditor finds of the denial in chapter 1, whose id its caller was told."""
    record = denial.decided.record
    stage.chapter(f"6  What is left of the first denial, decision {denial.decided.id}")
    for name, attribute in (
        ("who", "agentguard.agent.id"),
        ("for whom", "agentguard.user.id"),
        ("in which task", "agentguard.task.id"),
        ("what", "gen_ai.tool.name"),
        ("denied by", "agentguard.policy.ids"),
        ("what it carried", "agentguard.run_state.labels"),
        ("what it would pay", "agentguard.run_state.spent"),
    ):
        value = record.get(attribute)
        shown = ", ".join(value) if isinstance(value, list) else value
        stage.story.line(f"    {name:<20}{shown!s:<28}{attribute}")


def prove(story: Story, state: Path) -> None:
    """Verify the evidence that the server has left, now that it has stopped."""
    report = verify_folder(state)
    story.expect("what is wrong with the evidence", [str(problem) for problem in report.problems], [])
    (chain,) = report.chains
    story.line(f"   {chain.records} records in 1 chain, its end signed: the evidence holds", style="green")
    story.line("   .venv/bin/python -m examples.inbox.demo --keep demo   leaves it to look at")


async def play(policies: Path, folder: Path, console: Console) -> tuple[Story, Office]:
    """Play the demo; returns what was wrong with it, and what its tools have done."""
    story = Story(console)
    with anyio.fail_after(SECONDS):
        async with staged(story, policies=policies, state=folder / STATE) as stage:
            address = stage.url.removeprefix("http://").removesuffix("/mcp")
            story.line(f"agentguard demo · server `inbox` on {address} · the model is a script", style="bold")
            denial = await obeys(stage)
            await was_ordered(stage)
            await is_approved(stage)
            await takes_a_detour(stage)
            await pays_at_once(stage)
            is_on_record(stage, denial)
    prove(story, folder / STATE)
    story.ends(f"{stage.calls} calls decided", policies="examples/inbox/policies")
    return story, stage.office


def main(
    policies: Annotated[Path, typer.Option(help="The folder of policies.")] = POLICIES,
    keep: Annotated[Path | None, typer.Option(help="Leave the evidence and the log in this folder.")] = None,
) -> None:
    """Play the demo; end with 1 if something is not as expected."""
    console = Console(width=WIDTH, highlight=False)
    with ExitStack() as opened:
        if keep is None:
            folder = Path(opened.enter_context(TemporaryDirectory(prefix="agentguard-inbox-")))
        else:
            keep.mkdir(mode=0o700, parents=True)
            folder = keep.absolute()
        # That nobody could be asked at night is in the server's log, and no word of the story.
        logging.basicConfig(filename=folder / LOG)
        try:
            story, _ = anyio.run(play, policies.absolute(), folder, console)
        except PolicyError as mistake:
            console.print(Text(f"the server did not start:\n{mistake}", "bold red"))
            raise typer.Exit(1) from None
    raise typer.Exit(1 if story.wrong else 0)


if __name__ == "__main__":
    typer.run(main)
