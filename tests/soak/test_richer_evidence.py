"""What is told of calls on record is never wrong, whatever policies look at and whatever is not on record."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from agentguard.analysis.explanations.changes import applied
from agentguard.analysis.explanations.conditions import conditions_of
from agentguard.analysis.explanations.onrecord import OnRecord, explain_record
from agentguard.analysis.history.hindsight import Answer, Hindsight, MisfitError
from agentguard.analysis.history.replay import NoRequestError, Replayed, Setting, replay
from agentguard.analysis.history.tighter import tighter_of
from agentguard.analysis.history.unused import usage_of
from agentguard.analysis.known import Known
from agentguard.analysis.supposed import _known_before, judge
from agentguard.analysis.workspace import Workspace
from agentguard.errors import PolicyError, Refusal
from agentguard.model import VERIFIED, AccessRequest, Effect, Invocation, Reason
from agentguard.policy.deciding.engine import decide, never
from agentguard.policy.deciding.trial import Question, trials
from tests.soak.richer import LIFTABLE, OTHER, Dice, Past

CALLS = 40
SEEN: Counter[str] = Counter()


def folders(seed: int) -> Iterator[tuple[Dice, Workspace, Workspace]]:
    """Yield folders, each with what somebody made of it."""
    dice = Dice(seed)
    while True:
        texts = dice.policies()
        loaders = ["Box", *dice.some(["Doc", "Doc", "User", "Agent"])]
        listed = dice.entities(loaders)
        old = dice.folder(texts, listed, loaders)
        other = listed if dice.chance.random() < 2 / 3 else dice.entities(loaders)
        new = dice.folder(dice.changed(texts), other, loaders)
        if old is not None and new is not None:
            yield dice, old, new


def ungranted(invocation: Invocation) -> Invocation:
    """Return a run without its grants."""
    above = tuple(map(ungranted, invocation.ancestors))
    return replace(invocation, grant=None, ancestors=above, seal=VERIFIED)


def reasons(past: Past, answer: Answer, new: Workspace) -> set[tuple[Effect, Reason]]:
    """Return what the guard would answer: a call that is never allowed is denied before all else."""
    request = past.request
    if answer.within_grant:
        request = replace(request, invocation=ungranted(request.invocation))
    found = [decide(request, new.policies)]
    if past.early:
        try:
            known = _known_before(request, new.policies)
            early = never(request.invocation, request.action, new.policies, known)
        except Refusal:
            early = None
        found += [] if early is None else [early]
    return {(one.effect, plainly(one.reason)) for one in found}


def plainly(reason: Reason) -> Reason:
    """Return a reason as hindsight has it."""
    return Reason.APPROVAL_REQUIRED if reason in LIFTABLE else reason


def replayed(dice: Dice, past: Past, folder: Workspace) -> Replayed | None:
    """Return what a record says, perhaps with what its guard said when it started."""
    environment = str(past.request.context["environment"])
    try:
        return replay(past.record, folder, setting=dice.chance.choice([Setting(), Setting(environment=environment)]))
    except NoRequestError:
        return None


@pytest.mark.parametrize("seed", range(4))
def test_an_answer_is_given_only_if_it_is_right(seed: int) -> None:
    """And a record fits the policies that decided."""
    worlds = folders(seed)
    for _ in range(50):
        dice, old, new = next(worlds)
        hindsight = Hindsight(old, new)
        for _ in range(CALLS):
            same = dice.chance.random() < 0.8
            past = dice.past(old, version=None if same else OTHER)
            found = replayed(dice, past, old)
            if found is None:
                assert past.decision.reason not in {Reason.PERMIT, Reason.POLICY, Reason.NO_PERMIT}
                continue
            try:
                answer = hindsight.answer(found)
            except MisfitError:
                assert not same
                continue
            SEEN["open" if answer.effect is None else answer.effect] += 1
            truth = reasons(past, answer, new)
            assert answer.effect is None or answer.effect in {effect for effect, _ in truth}
            assert answer.reason is None or plainly(answer.reason) in {reason for _, reason in truth}


@pytest.mark.parametrize("seed", range(2))
def test_what_is_explained_of_a_record_is_so(seed: int) -> None:
    """Which policies matched, which decided, each value, and each change after which the call is allowed."""
    worlds = folders(100 + seed)
    for _ in range(50):
        dice, old, new = next(worlds)
        for _ in range(CALLS // 2):
            past = dice.past(old)
            for folder in (old, new):
                found = explain_record(past.record, folder)
                if found.link is not None:
                    check_policies(found, past, folder, same=folder is old)
                    check_ways(found, past, folder)


def check_policies(found: OnRecord, past: Past, folder: Workspace, *, same: bool) -> None:
    """Hold what is told of policies against Cedar's own word."""
    assert found.link is not None
    assert not (same and found.why)
    request = past.request
    tried = trials(request, folder.policies)[-1]
    if tried.refusal is not None:
        return
    matched = {trial.id: trial.matched for trial in tried.organisation}
    depth = len(request.invocation.ancestors)
    question, known = Question(request, folder.policies), Known(request, folder.policies, depth)
    for one in found.link.organisation:
        assert one.matched is None or one.matched is matched[one.id]
        assert not (one.error and matched[one.id] is not None)
        failed = bool(one.error) and past.decision.reason is Reason.POLICY_ERROR
        decided = one.id in past.decision.policy_ids or failed
        assert decided or not (same and one.decided)
        assert one.decided or not (same and decided and not depth)
        assert one.policy is not None
        (true,) = conditions_of([one.policy.text], question, known)
        for told, truth in zip(one.conditions, true, strict=True):
            assert told.holds is None or not (told.looked_at and truth.looked_at) or told.holds is truth.holds
            for (_, value), (_, there) in zip(told.values, truth.values, strict=True):
                assert "unknown" in value or value == there


def check_ways(found: OnRecord, past: Past, folder: Workspace) -> None:
    """Try each change on the whole call; what the grants say is not on record."""
    request = replace(past.request, invocation=ungranted(past.request.invocation))
    for suggestion in found.suggestions:
        changed = applied(suggestion.changes, [request])
        assert changed is not None
        check_allowed(changed, folder, past)
        SEEN["suggested"] += 1
    for one in found.mended:
        gone = {policy.id for policy in one.without}
        left = [policy for id_, policy in folder.policies.policies.items() if id_ not in gone]
        check_allowed([request], folder.with_policies(left), past)
        SEEN["mended"] += 1


def check_allowed(requests: Sequence[AccessRequest], folder: Workspace, past: Past) -> None:
    """Ask whether a call is allowed; of one that was denied early, what loaders would say is not on record."""
    found = judge(requests, folder.policies)
    assert found.allowed or (past.early and found.reason is Reason.MISSING_ENTITY)


@pytest.mark.parametrize("seed", range(2))
def test_a_tighter_folder_is_not_wider_and_loses_nothing(seed: int) -> None:
    """Some of the calls are on record, some of them by another version."""
    worlds = folders(200 + seed)
    for _ in range(100):
        dice, folder, older = next(worlds)
        decided = [
            (dice.past(dice.chance.choice([folder, folder, older])), dice.chance.random() < 0.7) for _ in range(20)
        ]
        usage = usage_of([past.record for past, seen in decided if seen], folder)
        try:
            found = tighter_of(usage)
        except PolicyError:
            continue
        assert not found.lost
        SEEN["tighter"] += bool(found.removed or found.narrowed)
        for past, seen in decided:
            before = decide(past.request, folder.policies).allowed
            after = decide(past.request, found.workspace.policies).allowed
            assert before or not after
            assert after or not (before and seen and past.decision.allowed)


def test_enough_was_told() -> None:
    """Else the properties would hold of little."""
    assert min(SEEN[word] for word in ("allow", "deny", "open", "suggested", "mended", "tighter")) >= 30
