"""Mail, calendar and payments as one MCP server that knows what each run has read and spent.

Two things are said with the tools, and all policies can ask about them: which tools bring
text of strangers into a run (``labels=``, `guard.label`), and which argument is money
(`Spend`). Nothing in the tools decides anything.
"""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Final

from mcp.server import MCPServer
from mcp_types import ToolAnnotations
from pydantic import Field

from agentguard import Entity, Guard, Spend, State, UnsafeMemoryState
from examples.inbox.data import Account, Amount, Envelope, Event, Mail, Office, Payment, from_outside, sample_office

POLICIES: Final = Path(__file__).with_name("policies")
"""The folder that the security team owns."""

READS: Final = ToolAnnotations(read_only_hint=True, open_world_hint=False)
LEAVES_THE_HOUSE: Final = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=True)


def build(
    *,
    issuer: str,
    audience: str,
    policies: Path = POLICIES,
    office: Office | None = None,
    state: State | None = None,
    **options: Any,
) -> MCPServer:
    """Make the server, guarded.

    Args:
        issuer: Whose tokens are believed; its keys are found through its metadata.
        audience: The URL of this server, which a token has to be meant for.
        policies: The folder of policies.
        office: What the tools act on; an invented one if none is given.
        state: Where the evidence is kept, and what each run has done; without it, in memory.
        options: Further options of `Guard`, such as an approver.
    """
    of = office or sample_office()
    guard = Guard(policies, issuer=issuer, audience=audience, state=state or UnsafeMemoryState(), **options)
    server = MCPServer("inbox", instructions="A user's mail, calendar and payments.", **guard.http_auth())

    @guard.entity("Task")
    async def load_task(task_id: str) -> Entity:
        # What a user has ordered is kept by the server: no mail and no agent can write it.
        order = of.orders.get(task_id)
        return Entity() if order is None else Entity({"payee": order.account, "at_most": order.at_most})

    # A subject is a stranger's text too, and so may be every mail: a sender is forged easily.
    @server.tool(annotations=READS)
    @guard.tool(labels={"untrusted"})
    async def list_mail() -> list[Envelope]:
        """List the mail that came."""
        return [Envelope(mail_id=mail.mail_id, sender=mail.sender, subject=mail.subject) for mail in of.inbox.values()]

    @server.tool(annotations=READS)
    @guard.tool(labels={"untrusted"})
    async def read_mail(mail_id: str) -> Mail:
        """Read one mail."""
        return of.find(mail_id)

    @server.tool(annotations=READS)
    @guard.tool
    def read_calendar(day: date) -> list[Event]:
        """Read one day of the calendar."""
        events = [event for event in of.calendar if event.day == day]
        # Only now it is known who has written them.
        if from_outside(event.organiser for event in events):
            guard.label("untrusted")
        return events

    @server.tool(annotations=LEAVES_THE_HOUSE)
    @guard.tool
    async def send_mail(
        to: Annotated[Sequence[str], Field(min_length=1, max_length=20)], subject: str, text: str
    ) -> str:
        """Send a mail."""
        of.outbox += [Mail(mail_id=f"s{len(of.outbox)}", sender=address, subject=subject, text=text) for address in to]
        return f"sent to {len(to)}"

    @server.tool(annotations=LEAVES_THE_HOUSE)
    @guard.tool(record_inputs={"account", "amount"})
    async def pay(account: Account, amount: Annotated[Amount, Spend("payments")], reference: str) -> Payment:
        """Pay from the user's account."""
        payment = Payment(account=account, amount=amount, reference=reference)
        of.paid.append(payment)
        return payment

    guard.attach(server)
    return server


def described() -> MCPServer:
    """Make the server as `agentguard schema examples.inbox.server:described` reads it: it serves nobody."""
    return build(issuer="http://127.0.0.1:8900", audience="http://127.0.0.1:8000/mcp")
