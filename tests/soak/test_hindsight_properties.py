"""What hindsight says is never contradicted by the guard's own decision, for policies and calls made at random."""

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from hypothesis import event, given, settings
from hypothesis import strategies as st

from agentguard.analysis.history.hindsight import Hindsight, MisfitError
from agentguard.analysis.history.replay import NoRequestError, Setting, replay
from agentguard.analysis.workspace import Workspace
from agentguard.lifecycle.tally import Tally
from agentguard.model import VERIFIED, AccessRequest, Invocation, Reason
from agentguard.policy.deciding.engine import decide
from agentguard.request import run_record
from tests.analysis.kept import kept, workspace
from tests.policy.deciding.test_engine_properties import CAROL, World, policies, worlds
from tests.policy.records import ENTITIES, NOW

LIFTABLE = "unless { context has approval };"


@lru_cache(maxsize=8)
def opened(texts: tuple[str, ...], entities: str, loaders: tuple[str, ...]) -> Workspace:
    """Return a folder; hypothesis likes to repeat them."""
    return workspace(*texts, entities=entities, loaders=loaders)


@st.composite
def changed(draw: st.DrawFn, texts: tuple[str, ...]) -> tuple[str, ...]:
    """Return policies that somebody made of others: some removed, some new, some with one more condition."""
    left = []
    for before in texts:
        text = before
        how = draw(st.sampled_from(["keep", "keep", "keep", "remove", "narrow", "invert"]))
        if how == "narrow":
            extra = draw(st.sampled_from(['principal.grade == "run"', "principal has task", "1 > 2"]))
            text = f"{before.removesuffix(';')} when {{ {extra} }};"
        elif how == "invert" and "@obligation" not in before:
            first, second = ("permit", "forbid") if " permit " in before else ("forbid", "permit")
            text = before.replace(f" {first} ", f" {second} ", 1)
        if how != "remove":
            left.append(text)
    new = draw(st.lists(policies(), min_size=0 if left else 1, max_size=3))
    return (*left, *(f'@id("n{place}") {text}' for place, text in enumerate(new)))


@st.composite
def approvals(draw: st.DrawFn) -> str:
    """Return a forbid that a person can lift."""
    action = draw(st.sampled_from(["action", 'action == Action::"search"', 'action in Action::"read-only"']))
    return f'@id("ask") @obligation("approval") forbid (principal, {action}, resource) {LIFTABLE}'


@st.composite
def busy(draw: st.DrawFn, id_: str) -> str:
    """Return a policy about what a run has done, which a person can lift or not."""
    how = draw(st.sampled_from(["", '@obligation("approval") ']))
    lifted = f" {LIFTABLE}" if how else ";"
    calls = draw(st.integers(0, 3))
    return f'@id("{id_}") {how}forbid (principal, action, resource) when {{ context.run.calls > {calls} }}{lifted}'


def having_done(request: AccessRequest, calls: Sequence[int]) -> AccessRequest:
    """Return a request of whose chain each run has made some calls before."""
    runs = tuple(run_record(Tally(calls=number), now=NOW) for number in calls)
    return replace(request, context={**request.context, "run": runs[-1]}, runs=runs if runs[1:] else ())


def entities(*, staff: bool, carol: bool) -> str:
    """Return listed entities: bob is in the staff or not, and there may be one more."""
    listed = json.loads(ENTITIES)
    if staff:
        listed[1]["parents"] = listed[0]["parents"]
    if carol:
        listed.append({"uid": {"type": "User", "id": "carol"}, "attrs": {}, "parents": []})
    return json.dumps(listed)


def ungranted(invocation: Invocation) -> Invocation:
    """Return a run without its grants."""
    above = tuple(ungranted(link) for link in invocation.ancestors)
    return replace(invocation, grant=None, ancestors=above, seal=VERIFIED)


def plainly(reason: Reason) -> Reason:
    """Return a reason as hindsight has it."""
    return Reason.APPROVAL_REQUIRED if reason is Reason.APPROVAL_UNAVAILABLE else reason


@given(data=st.data(), world=worlds(deep=True))
@settings(max_examples=2000, report_multiple_bugs=False, deadline=None)
def test_what_is_told_is_what_the_guard_would_have_decided(data: st.DataObject, world: World) -> None:
    """An answer is given only if it is right; a record by the old policies fits them always."""
    draw = data.draw
    texts = world.policies + ((draw(approvals()),) if draw(st.booleans()) else ())
    request = world.request
    if draw(st.booleans()):
        count = len(request.invocation.chain)
        request = having_done(request, draw(st.lists(st.integers(0, 4), min_size=count, max_size=count)))
        texts += (draw(busy("busy")),)
    if request.action == "read":
        # The resource is the one that the argument names.
        request = replace(request, context={**request.context, "input": {"id": request.resource.id}})
    # Only a loader brings a user that is not listed.
    loaders = ("Record", "User") if CAROL in request.entities or draw(st.booleans()) else ("Record",)
    listed = entities(staff=draw(st.booleans()), carol=draw(st.booleans()) and CAROL not in request.entities)
    old = opened(texts, listed, loaders)
    if draw(st.booleans()):
        listed = entities(staff=draw(st.booleans()), carol=draw(st.booleans()) and CAROL not in request.entities)
    after = draw(changed(texts))
    if draw(st.booleans()):
        after += (draw(busy("busier")),)
    new = opened(after, listed, loaders)
    decision = decide(request, old.policies)
    names = draw(st.sets(st.sampled_from(["id", "text", "rows", "price"])))
    record = kept(request, decision, inputs=names, transport=draw(st.sampled_from([None, "stdio"])))
    same = draw(st.integers(0, 4)) > 0
    if not same:
        attributes = {**record.attributes, "agentguard.policy.version": "sha256:other"}
        record = replace(record, attributes=attributes)
    setting = draw(st.sampled_from([Setting(), Setting(environment="production")]))
    try:
        replayed = replay(record, old, setting=setting)
    except NoRequestError:
        assert decision.reason is Reason.INVALID_ARGUMENT
        return
    try:
        answer = Hindsight(old, new).answer(replayed)
    except MisfitError:
        assert not same
        event("misfit")
        return

    event("told" if answer.effect else "open")
    bare = replace(request, invocation=ungranted(request.invocation)) if answer.within_grant else request
    truth = decide(bare, new.policies)
    assert answer.effect in {None, truth.effect}
    assert answer.reason in {None, plainly(truth.reason)}
    assert answer.effect or answer.doubts or answer.why
