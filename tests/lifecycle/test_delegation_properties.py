"""Delegation only narrows: whatever a child may do, each of its ancestors may do.

Random runs are begun and delegated by the real issuer, their tokens verified as a server
does, and each run of a chain judged by itself by the real engine.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.errors import ConfigurationError
from agentguard.identity.jwk import read_key_set
from agentguard.identity.token import TrustedIssuer
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import AccessRequest, EntityUid, Invocation
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import decide, may_ever
from tests.policy.deciding.test_engine_properties import CAROL, policies, records
from tests.policy.records import NOW, context, policy_set
from tests.tokens import AUDIENCE, ISSUER, KEY, Clock, verified

CLAIMS: dict[str, type] = {"level": int, "teams": frozenset}
TRUSTED = TrustedIssuer(issuer=ISSUER, claims=CLAIMS)
EVERYTHING = "permit (principal, action, resource);"
# `NOW` is 16:00.
OF_A_RUN = [
    'principal.lifetime > duration("5m")',
    'principal.lifetime < duration("4m")',
    'principal.ends_at > datetime("2025-11-24T16:04:00Z")',
    'principal.ends_at < datetime("2025-11-24T16:06:00Z")',
    'principal.issued_at < datetime("2025-11-24T16:01:00Z")',
    'principal.issued_at > datetime("2025-11-24T16:01:00Z")',
    "principal.delegation_depth == 0",
    "principal.delegation_depth < 2",
    "principal has level && principal.level > 1",
    'principal has teams && principal.teams.contains("x")',
    'principal has task && principal.task == Task::"t"',
    'principal.agent == Agent::"a"',
]
TOOLS = ["read", "search"]


@st.composite
def rules(draw: st.DrawFn) -> str:
    """Return a policy without its id, often about a fact that delegation changes."""
    if draw(st.booleans()):
        return draw(policies())
    effect, kind = draw(st.sampled_from(["permit", "forbid"])), draw(st.sampled_from(["when", "unless"]))
    return f"{effect} (principal, action, resource) {kind} {{ {draw(st.sampled_from(OF_A_RUN))} }};"


@st.composite
def grants(draw: st.DrawFn) -> dict[str, Any]:
    """Return what a run is asked to be granted: tools, values of arguments, Cedar, or both."""
    texts = draw(st.lists(rules(), max_size=2))
    text = " ".join(
        [draw(st.sampled_from([EVERYTHING, EVERYTHING, 'permit (principal in Agent::"a", action, resource);'])), *texts]
    )
    tools = draw(st.lists(st.sampled_from(TOOLS), min_size=1, unique=True))
    listed: dict[str, Any] = {"tools": tools}
    if "read" in tools and draw(st.booleans()):
        listed["arguments"] = {"read": {"id": draw(st.lists(st.sampled_from(["r1", "x"]), min_size=1))}}
    return draw(st.sampled_from([{"grant": text}, {"grant": text, "tools": tools}, listed]))


@dataclass(frozen=True)
class Wish:
    """What one run of a chain is asked to be, and how long after the one above it begins."""

    asked: dict[str, Any]
    later: int


@st.composite
def wishes(draw: st.DrawFn, *, root: bool) -> Wish:
    """Return a run that may well ask for more than there is."""
    asked: dict[str, Any] = {
        "agent": draw(st.sampled_from("ab")),
        "scopes": draw(st.sampled_from([[], ["write"], ["read", "write"]] if root else [[], [], ["write"]])),
        "claims": draw(
            st.fixed_dictionaries({}, optional={"level": st.integers(0, 3), "teams": st.just(frozenset("x"))})
        ),
        "ends_in": draw(st.sampled_from([200, 280, 400, 2000] if root else [None, None, 100, 250, 1000])),
        **draw(grants()),
    }
    if root:
        asked["user"] = draw(st.sampled_from([None, "alice", "bob", "carol"]))
        asked["task"] = draw(st.sampled_from([None, "t"]))
        asked["purpose"] = draw(st.sampled_from([None, "billing"]))
    return Wish(asked, draw(st.integers(0, 90)))


@st.composite
def calls(draw: st.DrawFn) -> tuple[str, EntityUid, dict[str, object], tuple[dict[str, object], ...]]:
    """Return what is asked of the server."""
    if draw(st.booleans()):
        values = context(id=draw(st.sampled_from(["r1", "x"])))
        return "read", EntityUid("Record", "r1"), values, (CAROL, draw(records()))
    values = context(text=draw(st.sampled_from(["abc", "x"])), rows=draw(st.integers(-3, 3)))
    return "search", EntityUid("Tool", "search"), values, (CAROL,)


@lru_cache(maxsize=4)
def compiled(texts: tuple[str, ...]) -> PolicySet:
    """Return an organisation's policies, compiled."""
    return policy_set(*(f'@id("p{place}") {text}' for place, text in enumerate(texts)), claims=CLAIMS)


async def chain_of(stack: AsyncExitStack, clock: Clock, wanted: Sequence[Wish]) -> tuple[Issuer, list[Run]]:
    """Begin the root, and delegate from each run to the next, unless that is refused."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, store=MemoryStore(clock=clock), clock=clock)
    runs = [await stack.enter_async_context(issuer.run(**wanted[0].asked))]
    for wish in wanted[1:]:
        clock.now = min(clock.now + wish.later, runs[-1].facts.ends_at - 1)
        try:
            runs.append(await stack.enter_async_context(runs[-1].delegate(**wish.asked)))
        except ConfigurationError:
            # It asked for more than there is; the next may ask for less.
            continue
    return issuer, runs


def judged(invocation: Invocation, call: Any, policies: PolicySet) -> bool:
    """Return whether a run may do it; a call that is allowed is one that was not refused in advance."""
    action, resource, values, entities = call
    request = AccessRequest(invocation=invocation, action=action, resource=resource, context=values, entities=entities)
    allowed = decide(request, policies).allowed
    assert not allowed or may_ever(invocation, action, policies)
    return allowed


any_chain = given(
    st.lists(rules(), max_size=4),
    st.tuples(wishes(root=True), *[wishes(root=False)] * 2) | st.tuples(wishes(root=True), *[wishes(root=False)] * 4),
    st.lists(calls(), min_size=1, max_size=4),
)


@settings(deadline=None, max_examples=25)
@any_chain
async def test_whatever_a_child_may_do_each_of_its_ancestors_may_do(
    organisation: list[str], wanted: tuple[Wish, ...], asked: list[Any]
) -> None:
    """By its own token, at the same moment; and its end, its scopes and its server are no others."""
    await check_chain(organisation, wanted, asked)


async def check_chain(organisation: list[str], wanted: tuple[Wish, ...], asked: list[Any]) -> None:
    """Begin runs as they are wanted, and hold each against the one that it stems from."""
    clock = Clock(NOW)
    async with AsyncExitStack() as stack:
        issuer, runs = await chain_of(stack, clock, wanted)
        keys, _ = read_key_set(issuer.jwks())
        links = [verified(run.renew(), trusted=TRUSTED, keys=keys, now=clock.now) for run in runs]

    policies = compiled((EVERYTHING, *organisation))
    for call in asked:
        may = [judged(link, call, policies) for link in links]
        # Once something is not permitted, it is not permitted further down either.
        assert may == sorted(may, reverse=True)
    for parent, child in pairwise(links):
        assert child.run_ends_at <= parent.run_ends_at
        assert child.ends_at <= parent.ends_at
        assert child.scopes <= parent.scopes
        assert (child.user, child.task, child.purpose) == (parent.user, parent.task, parent.purpose)
        assert [link.run_id for link in child.ancestors] == [link.run_id for link in parent.chain]
        for known, own in zip(child.ancestors, parent.chain, strict=True):
            assert (known.grant, known.claims, known.scopes) == (own.grant, own.claims, own.scopes)
