"""An agent whose model believes what it reads, and the user who can be asked at her phone."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final

from mcp import Client
from mcp_types import CallToolResult, TextContent

from agentguard import Approval, ApprovalRequest, Reason, Refusal, Run
from agentguard.evidence.ledger import Entry

USER: Final = "alice"

_DEMAND: Final = re.compile(r"pay (?P<amount>[0-9.]+) to account (?P<account>[A-Z0-9]+)")
_GRANT: Final = "grant:"


@dataclass(frozen=True, slots=True)
class Decided:
    """What the evidence has of one decision.

    Attributes:
        record: Its attributes.
    """

    record: Mapping[str, Any]

    @property
    def id(self) -> str:
        """The decision's id, which the caller was told if it was a denial."""
        return str(self.record["agentguard.decision.id"])

    @property
    def verdict(self) -> tuple[str, str, list[str]]:
        """The effect, the reason, and the organisation's policies that decided."""
        by = [name for name in self.record.get("agentguard.policy.ids", ()) if not name.startswith(_GRANT)]
        return self.record["agentguard.decision.effect"], self.record["agentguard.decision.reason"], by

    @property
    def labels(self) -> list[str]:
        """What the run carried when this was decided."""
        return list(self.record.get("agentguard.run_state.labels", ()))

    @property
    def payments(self) -> Decimal:
        """What the run would have paid in all, with what this call declared."""
        totals = dict(total.split("=") for total in self.record.get("agentguard.run_state.spent", ()))
        return Decimal(totals.get("payments", 0))

    @property
    def approved_by(self) -> tuple[object, object]:
        """Who approved the call, and on which channel."""
        return self.record.get("agentguard.approval.approver"), self.record.get("agentguard.approval.channel")


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of one call.

    Attributes:
        result: What the agent got.
        decided: What was decided.
    """

    result: CallToolResult
    decided: Decided

    @property
    def text(self) -> str:
        """What the agent reads of a denial, without the decision's id."""
        blocks = (block.text for block in self.result.content if isinstance(block, TextContent))
        return " ".join(blocks).partition(" Decision ")[0]

    @property
    def value(self) -> dict[str, Any]:
        """The structured result."""
        return self.result.structured_content or {}

    @property
    def decision(self) -> Mapping[str, object]:
        """What a program reads of a denial."""
        told: Mapping[str, object] = (self.result.meta or {}).get("agentguard/decision", {})
        return told


class Agent:
    """One run of an agent, and what the evidence has of it.

    Attributes:
        run: The run.
    """

    def __init__(self, run: Run, client: Client, ledger: Iterable[Entry]) -> None:
        self.run = run
        self._client = client
        self._ledger = ledger

    async def call(self, tool: str, arguments: Mapping[str, object]) -> Answer:
        """Make one call, and no other of this run at the same time."""
        result = await self.only_call(tool, arguments)
        return Answer(result, self.decisions()[-1])

    async def only_call(self, tool: str, arguments: Mapping[str, object]) -> CallToolResult:
        """Make one call, perhaps among others; what was decided is for `decisions`."""
        return await self._client.call_tool(tool, dict(arguments))

    def decisions(self) -> list[Decided]:
        """Return what was decided about this run, the oldest first."""
        kept = (entry.record for entry in self._ledger)
        decided = (Decided(record["attributes"]) for record in kept if record["kind"] == "decision")
        return [of for of in decided if of.record["agentguard.run.id"] == self.run.id]


def demanded_by(text: str) -> dict[str, object]:
    """Return the payment that a text asks for, as arguments: a model that believes the text makes them of it.

    Raises:
        LookupError: If it asks for none.
    """
    if (demand := _DEMAND.search(text)) is None:
        message = "the text asks for no payment"
        raise LookupError(message)
    return {**demand.groupdict(), "reference": "as the mail says"}


class Phone:
    """The user's phone, which shows what an agent wants and takes her yes or no. No agent gets at it.

    Attributes:
        on: Whether she looks at it.
        wants: The payments that she says yes to, by account and amount.
        shown: The questions that she has read.
    """

    channel = "phone"

    def __init__(self) -> None:
        self.on = False
        self.wants: set[tuple[str, Decimal]] = set()
        self.shown: list[ApprovalRequest] = []

    async def __call__(self, request: ApprovalRequest) -> Approval | None:
        """Ask her."""
        if not self.on:
            raise Refusal(Reason.APPROVAL_UNAVAILABLE, "the phone is off")
        self.shown.append(request)
        account, amount = (str(request.arguments.get(name, 0)) for name in ("account", "amount"))
        return Approval(approver=USER) if (account, Decimal(amount)) in self.wants else None
