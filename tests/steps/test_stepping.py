"""A denial stands, whatever becomes of the question whether more scopes would have helped."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import Any

import pytest

from agentguard.adapters.answers import ANSWERS
from agentguard.model import AccessRequest, Decision, Invocation, Reason
from agentguard.policy.deciding.engine import decide, never
from agentguard.steps.call import Call, Rule
from agentguard.steps.stepping import allowed, answer, with_scopes, with_scopes_ever
from agentguard.testing import unsafe_invocation
from tests.policy.records import READ, SEARCH, policy_set, reads, searches

POLICIES = policy_set(
    '@id("s") @scopes("s") permit (principal, action, resource) when { principal.scopes.contains("s") };'
)
SEARCHES = Rule(tool=SEARCH)
SECRET = "secret"
DENIAL = decide(searches(), POLICIES)


@dataclass
class Told:
    """What a transport is told."""

    of: list[object] = field(default_factory=list)

    def offer(self, decision: Decision) -> None:
        """Keep what is offered."""
        self.of.append(decision.scopes)

    def close(self) -> None:
        """Keep that it is over."""
        self.of.append("closed")


async def nobody() -> Invocation:
    """Identify nobody."""
    raise NotImplementedError


def call(*, depth: int = 1, rule: Rule | None = SEARCHES, step_up: Told | None = None) -> Call:
    """Return a request as an adapter makes it."""
    return Call(identify=nobody, answers=ANSWERS, transport="http", depth=depth, rule=rule, step_up=step_up)


async def fails() -> AccessRequest:
    """Fail to load a record."""
    raise OSError(SECRET)


async def asked(of: Call, **options: Any) -> Decision:
    """Return the denial of a search, with its scopes."""
    return await with_scopes(DENIAL, of, SEARCHES, [searches()], POLICIES, **options)


@pytest.mark.parametrize(("depth", "rule"), [(1, SEARCHES), (0, SEARCHES), (1, None)])
async def test_denial_that_answers_the_request_has_its_scopes(depth: int, rule: Rule | None) -> None:
    """For the tool that the request names, or for a method that is judged itself."""
    assert (await asked(call(depth=depth, rule=rule))).scopes == ("s",)


@pytest.mark.parametrize(("depth", "rule"), [(2, SEARCHES), (2, None), (1, Rule(tool=READ))])
async def test_denial_inside_of_something_else_has_none(depth: int, rule: Rule | None) -> None:
    """The request is then about another call, which may still run."""
    assert await asked(call(depth=depth, rule=rule)) == DENIAL


async def test_what_cannot_be_loaded_leaves_the_denial_as_it_was(caplog: pytest.LogCaptureFixture) -> None:
    """The log says what happened, and nothing of what is in the exception."""
    with caplog.at_level(logging.INFO, "agentguard"):
        decision = await asked(call(), rest=[fails])

    assert decision == DENIAL
    assert "OSError was raised at" in caplog.text
    assert SECRET not in caplog.text


def test_question_before_the_arguments_leaves_the_denial_as_it_was_too() -> None:
    """An action that these policies do not know, for one."""
    denial = never(unsafe_invocation("reader"), "search", POLICIES)
    assert denial is not None

    assert with_scopes_ever(denial, unsafe_invocation("reader"), "search", POLICIES, ()).scopes == ("s",)
    assert with_scopes_ever(denial, unsafe_invocation("reader"), "unknown", POLICIES, ()) == denial


async def test_transport_is_told_of_each_denial_and_of_what_may_run() -> None:
    """One that has no such answer is told nothing."""
    told = Told()

    answer(call(step_up=told), await asked(call()))
    answer(call(step_up=told), decide(reads(), policy_set('@id("n") forbid (principal, action, resource);')))
    allowed(call(step_up=told))
    answer(call(), DENIAL)
    answer(None, DENIAL)
    allowed(call())

    assert told.of == [("s",), (), "closed"]


def test_no_decision_has_scopes_by_itself() -> None:
    """What may run, and what is denied for good, asks for none."""
    assert DENIAL.reason is Reason.NO_PERMIT
    assert DENIAL.scopes == ()
