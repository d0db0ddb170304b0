"""Whether a yes by a known way could lift a denial: never a no where somebody's yes would do."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.limits import Limits
from agentguard.model import AccessRequest, EntityUid, Invocation, Reason
from agentguard.policy.conversion.values import Field, datetime_json, record_of, to_cedar
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.lifting import might_lift
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.request import base_context
from agentguard.testing import unsafe_invocation

NOW = 1_728_900_000
LIMITS = Limits()
SHAPE = record_of(
    {"amount": Field(Decimal), "rates": Field(list[Decimal]), "due": Field(datetime), "note": Field(str)}, where="pay"
)
TOOL = GuardedTool(name="pay", server="s", input=SHAPE, groups=frozenset({"tools/call"}))
ALICE = unsafe_invocation("agent", user="alice")


@cache
def policies(*conditions: str) -> PolicySet:
    """Compile a permit of everything, and a forbid for each of *conditions*."""
    with TemporaryDirectory() as folder:
        text = ['@id("all") permit (principal, action, resource);']
        text += [f'@id("p{n}") forbid (principal, action, resource) {one};' for n, one in enumerate(conditions)]
        (Path(folder) / "a.cedar").write_text("\n".join(text), "utf-8")
        return compile_policies(
            read_folder(Path(folder), LIMITS), [TOOL], loaders=frozenset(), claims={}, limits=LIMITS
        )


def asked(
    *, approver: str | None = None, channel: str = "desk", at: int = NOW, invocation: Invocation = ALICE, **more: object
) -> AccessRequest:
    """Return a request with an approval."""
    values = {"amount": Decimal("7.5"), "rates": [Decimal("0.1")], "due": datetime(2024, 1, 1, tzinfo=UTC), "note": "x"}
    approval: dict[str, object] = {"channel": channel, "at": datetime_json(at)}
    if approver is not None:
        approval["approver"] = {"__entity": {"type": "User", "id": approver}}
    context = {
        **base_context(NOW, ZoneInfo("UTC"), "production", "stdio"),
        "input": to_cedar({**values, **more}, SHAPE, LIMITS),
        "approval": approval,
    }
    return AccessRequest(invocation=invocation, action="pay", resource=EntityUid("Tool", "pay"), context=context)


LARGE = 'context.input.amount.greaterThan(decimal("5.0"))'
HERE = 'context has approval && context.approval.channel == "desk"'
THERE = 'context has approval && context.approval.channel == "board"'
NAMED = "context has approval && context.approval has approver"
OTHER = f"{NAMED} && principal has user && context.approval.approver != principal.user"


@pytest.mark.parametrize(
    ("condition", "possible"),
    [
        (f"when {{ {LARGE} }} unless {{ {HERE} }}", True),
        (f"when {{ {LARGE} }} unless {{ {THERE} }}", False),
        (f"unless {{ {THERE} }} when {{ {LARGE} }}", False),
        (f"when {{ {LARGE} }} unless {{ {THERE} && context.approval has approver }}", False),
        (f"when {{ {LARGE} }} unless {{ {OTHER} }}", True),
        (f"when {{ {LARGE} }} unless {{ {NAMED} && {LARGE} }}", True),
        (f'when {{ {LARGE} }} unless {{ {NAMED} && context.input.note == "y" }}', False),
        (f"when {{ {LARGE} && {NAMED} }}", True),
        (f"when {{ {LARGE} && {HERE} }}", False),
        (f'when {{ {HERE} && context.now > datetime("2024-01-01") }}', False),
        (f'when {{ {HERE} && context.approval.at > datetime("2024-01-01") }}', True),
        (
            f'when {{ {HERE} && context.input.due < context.now && context.input.rates.contains(decimal("0.1")) }}',
            False,
        ),
        (f'when {{ {HERE} && context.input.rates.contains(decimal("0.2")) }}', True),
    ],
)
def test_what_no_answer_could_change_is_known_before(condition: str, possible: bool) -> None:
    """Also where the policy looks at amounts and times, which partial evaluation cannot compute."""
    assert might_lift(asked(), policies(condition)) is possible


def test_every_link_has_to_accept_the_answer() -> None:
    """What is denied for the run above is denied."""
    parent = unsafe_invocation("planner")
    child = unsafe_invocation("agent", user="alice", ancestors=(parent,))
    only_planner = f'when {{ principal in Agent::"planner" }} unless {{ {THERE} }}'

    assert might_lift(asked(), policies(only_planner))
    assert not might_lift(asked(invocation=child), policies(only_planner))


def test_call_that_nothing_permits_is_not_lifted() -> None:
    """There is no forbid to name, and no answer helps."""
    assert not might_lift(asked(channel="board"), policies("when { true }"))


PARTS = [
    f"unless {{ {HERE} }}",
    f"unless {{ {THERE} }}",
    f"unless {{ {OTHER} }}",
    f"when {{ {LARGE} }} unless {{ {NAMED} }}",
    f'when {{ {LARGE} }} unless {{ {HERE} && context.approval.at > datetime("2024-10-14T12:00:00Z") }}',
    f'when {{ {NAMED} && context.approval.approver == User::"alice" }}',
    f'when {{ {NAMED} && context.approval.approver == User::"?" }}',
    f'when {{ {NAMED} && [User::"bob", User::"?"].contains(context.approval.approver) }}',
    f"when {{ {NAMED} }} unless {{ {LARGE} }}",
    f'when {{ !({NAMED}) && context.input.note like "x*" }}',
    f"when {{ {HERE} && context.approval.at < context.input.due }}",
    f"when {{ {HERE} && context.now < context.input.due }}",
]
SETS = [(*pair,) for pair in combinations(PARTS, 2)]


@settings(deadline=None)
@given(
    conditions=st.sampled_from(SETS),
    approver=st.sampled_from([None, "alice", "bob", "?", "carol"]),
    channel=st.sampled_from(["desk", "board"]),
    later=st.integers(0, 10_000),
    amount=st.sampled_from([Decimal("7.5"), Decimal("1.0")]),
    due=st.sampled_from([-1, 1, 5_000]),
)
def test_answer_that_would_do_is_never_ruled_out(
    *, conditions: tuple[str, str], approver: str | None, channel: str, later: int, amount: Decimal, due: int
) -> None:
    """Whoever says yes, and whenever: if the policies accept it, a person is asked."""
    more: dict[str, Any] = {"amount": amount, "due": datetime.fromtimestamp(NOW, UTC) + timedelta(seconds=due)}
    compiled = policies(*conditions)
    answered = decide(asked(approver=approver, channel=channel, at=NOW + later, **more), compiled)

    possible = might_lift(asked(channel=channel, **more), compiled)

    assert possible or answered.reason is Reason.POLICY
