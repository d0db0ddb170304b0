"""What other policies would have made of the decisions on record."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from agentguard.analysis import beside
from agentguard.analysis.history import remembered as module
from agentguard.analysis.history.hindsight import Hindsight
from agentguard.analysis.history.impact import Change, Impact, Untold, impact_of
from agentguard.analysis.history.remembered import Remembered
from agentguard.analysis.history.replay import replay
from agentguard.analysis.workspace import Workspace
from agentguard.evidence.kept import Kept
from agentguard.evidence.record import setting_attributes
from agentguard.model import AccessRequest, Effect, EntityUid, Invocation
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import NOW, context, reads, searches

READS = '@id("reads") permit (principal, action == Action::"read", resource);'
SEARCHES = '@id("searches") permit (principal, action == Action::"search", resource);'
LIMIT = '@id("limit") forbid (principal, action == Action::"search", resource) when { context.input.rows > 5 };'
ASK = (
    '@id("ask") @obligation("approval") forbid (principal, action == Action::"search", resource) '
    "unless { context has approval };"
)
OLD = workspace(READS, SEARCHES, LIMIT)
LOWER = workspace(READS, SEARCHES, LIMIT.replace("> 5", "> 2"))
AGENTS = {name: unsafe_invocation(name, run_id=f"run-{name}", at=NOW) for name in "ab"}


def on_record(request: AccessRequest, folder: Workspace = OLD, **options: Any) -> Kept:
    """Return the record of what a folder decides."""
    return kept(request, decide(request, folder.policies), **options)


def impact(records: Iterable[Kept], new: Workspace, old: Workspace = OLD, **options: Any) -> Impact:
    """Return what new policies would have made of them."""
    return impact_of(records, Hindsight(old, new), **options)


def changes(found: Impact) -> list[tuple[object, ...]]:
    """Return what would change, in few words."""
    return [
        (one.change.value, one.agent, one.action, one.before, one.before_ids, one.after, one.after_ids, tally.calls)
        for one, tally in sorted(found.changed.items(), key=lambda item: item[0])
    ]


def searched(rows: int, *, inputs: Iterable[str] = ("rows",), agent: str = "a", **options: Any) -> Kept:
    """Return the record of a search."""
    return on_record(searches(AGENTS[agent], rows=rows), inputs=inputs, **options)


def test_changes_are_counted_by_agent_tool_and_policy() -> None:
    """Each way: what would be denied, and what would be allowed."""
    calls = [searched(1), searched(3), searched(4), searched(3, agent="b"), searched(9)]

    assert changes(impact(calls, LOWER)) == [
        ("newly denied", "a", "search", "permit", ("searches",), "policy", ("limit",), 2),
        ("newly denied", "b", "search", "permit", ("searches",), "policy", ("limit",), 1),
    ]
    found = impact(calls, workspace(READS, SEARCHES))
    assert changes(found) == [
        ("newly allowed", "a", "search", "policy", ("limit",), "permit", ("searches",), 1),
    ]
    assert (found.decisions, found.same, found.changes, found.cannot_tell) == (5, 4, 1, 0)
    assert [one.within_grant for one in found.changed] == [True]
    assert found.of(Change.ALLOWED) == 1
    assert found.of(Change.DENIED) == 0


def test_call_that_nothing_permits_any_more_names_what_did() -> None:
    """Somebody looks for that."""
    assert changes(impact([searched(1)], workspace(READS))) == [
        ("newly denied", "a", "search", "permit", ("searches",), "no_permit", (), 1)
    ]


def test_person_who_would_be_asked_is_a_change_of_its_own() -> None:
    """Such a call need not be lost."""
    asked = workspace(READS, SEARCHES, LIMIT, ASK)

    assert changes(impact([searched(1)], asked)) == [
        ("newly needs a person", "a", "search", "permit", ("searches",), "approval", ("ask",), 1)
    ]
    assert impact([on_record(searches(AGENTS["a"]), asked)], asked, asked).same == 1


def test_other_reason_for_a_denial_is_a_change_only_if_it_is_told() -> None:
    """A denial stays one; why is told where that is certain."""
    none = workspace(READS)
    early = on_record(searches(AGENTS["a"]), none, early=True)

    denied = workspace(READS, '@id("x") forbid (principal, action, resource);')
    assert changes(impact([early], denied, none)) == [
        ("denied for another reason", "a", "search", "no_permit", (), "policy", ("x",), 1)
    ]
    # Its grant may have had a say too, and that is not on record.
    assert impact([searched(9)], none).same == 1
    assert impact([early], workspace(READS, LIMIT), none).same == 1


def test_what_cannot_be_told_is_counted_with_what_it_would_take() -> None:
    """And an argument that alone would settle it is worth recording."""
    secret = '@id("secret") forbid (principal, action, resource is Record) when { resource.sensitivity == "secret" };'
    new = workspace(READS, SEARCHES, LIMIT.replace("> 5", "> 2"), secret)
    calls = [searched(1, inputs=()), searched(3, inputs=()), on_record(reads(AGENTS["a"]))]
    found = impact(calls, new)

    assert {untold: tally.calls for untold, tally in found.untold.items()} == {
        Untold("search", ("context.input.rows",), ("rows",), ""): 2,
        Untold("read", ("Record.*",), (), ""): 1,
    }
    assert (found.cannot_tell, found.changes) == (3, 0)
    assert found.worth_recording() == [("search", ("rows",), 2)]


def test_record_that_does_not_fit_is_not_told_of() -> None:
    """It says why."""
    forged = replace(searched(1), inputs={"rows": 9})
    (untold,) = impact([forged], LOWER).untold

    assert untold == Untold("search", (), (), "its policies cannot have come to what it says of them")
    assert impact([forged], LOWER).worth_recording() == []


def test_what_no_policy_decided_is_counted_by_why() -> None:
    """No other policy would make anything else of it."""
    ended = replace(searched(9), attributes={**searched(9).attributes, "agentguard.decision.reason": "expired"})
    found = impact([ended, replace(ended, kind="outcome")], LOWER)

    assert found.not_judged == {"policies were not asked: expired": 1}
    assert (found.decisions, found.same) == (1, 0)


def test_time_is_that_of_the_decisions() -> None:
    """From the first moment on, and before the last one."""
    calls = [searched(1, at=NOW + second) for second in (0, 10, 20, 30)]
    found = impact(calls, LOWER, since=NOW + 10, until=NOW + 30)

    assert (found.decisions, found.first, found.last) == (2, NOW + 10, NOW + 20)
    assert impact(reversed(calls), LOWER).first == NOW
    assert impact([], LOWER).first is None


def test_versions_are_counted() -> None:
    """Whoever asks sees how much of the evidence is of the folder that is asked about."""
    other = searched(1, more={"agentguard.policy.version": "sha256:other"})

    assert impact([searched(1), other, other], LOWER).versions == {OLD.policies.version: 1, "sha256:other": 2}


def test_newest_of_many_is_the_example() -> None:
    """In whatever order they come."""
    calls = [searched(3, at=NOW + second) for second in (5, 9, 7)]
    calls = [
        replace(call, attributes={**call.attributes, "agentguard.decision.id": f"D{place}"})
        for place, call in enumerate(calls)
    ]
    (tally,) = impact(calls, LOWER).changed.values()

    assert (tally.calls, tally.example, tally.latest) == (3, "D1", NOW + 9)


def start(zone: str, environment: str = "production") -> Kept:
    """Return the record of a guard's start."""
    return Kept(
        kind="start",
        time_unix_nano=NOW * 10**9,
        attributes=setting_attributes(environment=environment, time_zone=zone),
        chain_id="c1",
    )


def test_start_of_a_guard_says_how_it_was_set_up() -> None:
    """The last one of the decision's own chain; a zone that nobody knows is not known."""
    here = SEARCHES.replace(";", ' when { context.environment == "production" && context.local.weekday == 1 };')
    new = workspace(READS, here, LIMIT)
    call = replace(searched(1), chain_id="c1")

    assert impact([call, replace(start("UTC"), chain_id="c2")], new).cannot_tell == 1
    for zone, told in (("UTC", 1), ("Nowhere/Else", 0), ("../etc", 0)):
        found = impact([start("UTC", "other"), start(zone), call], new)
        assert (found.same, found.cannot_tell) == (told, 1 - told), zone


def answered(calls: Iterable[Kept], hindsight: Hindsight) -> int:
    """Return how many answers had to be found for some calls."""
    asking = Remembered(hindsight, keep=100)
    for call in calls:
        asking.answer(replay(call, hindsight.old))
    return len(asking.examples)


def read(id_: str, agent: Invocation = AGENTS["a"]) -> AccessRequest:
    """Return a request to read a record."""
    return AccessRequest(
        invocation=agent, action="read", resource=EntityUid("Record", id_), context=context(id=id_), entities=()
    )


def test_calls_that_no_policy_tells_apart_are_asked_about_once() -> None:
    """Whatever else they differ in: time, run, and arguments that no policy looks at."""
    hindsight = Hindsight(OLD, LOWER)
    alike = [
        on_record(searches(unsafe_invocation("a", run_id=f"r{at}", at=NOW), text=f"t{at}", rows=1), at=NOW + at,
                  inputs=["rows", "text"])
        for at in range(5)
    ]  # fmt: skip
    permit = searched(1)
    records = [kept(read(f"r{at}"), decide(reads(AGENTS["a"]), OLD.policies)) for at in range(3)]

    assert answered(alike, hindsight) == 1
    assert answered([searched(1), searched(2), searched(1, agent="b"), searched(9)], hindsight) == 4
    assert answered([permit, replace(permit, inputs={})], hindsight) == 2
    assert answered(records, hindsight) == 1


@pytest.mark.parametrize(
    ("condition", "apart"),
    [
        ('context.now < datetime("2040-01-01")', 3),
        ('principal.ends_at < datetime("2040-01-01")', 3),
        ('principal == Invocation::"r1"', 3),
        ('principal in Agent::"a"', 1),
        ("context == context", 3),
        ("context.input == context.input", 3),
        ('context.environment == "x"', 1),
    ],
)
def test_calls_are_told_apart_by_what_a_policy_looks_at(condition: str, apart: int) -> None:
    """Their time, their run and all of their arguments, where one does."""
    folder = workspace(SEARCHES.replace(";", f" when {{ {condition} }};"), READS)
    runs = [unsafe_invocation("a", run_id=f"r{at}", issued_at=NOW, run_ends_at=NOW + 60 + at) for at in range(3)]
    calls = [on_record(searches(runs[at], text=f"t{at}"), folder, at=NOW + at, inputs=["text"]) for at in range(3)]
    # Its lifetime counts in any case: a run that lasts as long is meant.
    calls = [replace(call, attributes={**call.attributes, "agentguard.authority.granted": 60.0}) for call in calls]
    calls = [call for call in calls if call.text("agentguard.decision.effect") in set(Effect)]

    assert answered(calls, Hindsight(folder, OLD)) in {apart, 2 if "Invocation" in condition else apart}


def test_resource_tells_calls_apart_where_it_can_count() -> None:
    """Where a policy names one, or where what is listed says something of it."""
    one = workspace(READS.replace("resource)", 'resource == Record::"r1")'), SEARCHES)
    listed = '[{"uid": {"type": "Record", "id": "r1"}, "attrs": {"sensitivity": "normal"}, "parents": []}]'
    static = workspace(READS, SEARCHES, entities=listed, loaders=())
    calls = [kept(read(f"r{at}"), decide(reads(AGENTS["a"]), OLD.policies)) for at in range(3)]

    assert answered(calls, Hindsight(one, one)) == 3
    assert answered(calls, Hindsight(static, static)) == 3


def test_answers_are_let_go_when_there_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are found again; and no more examples are kept than were asked for."""
    monkeypatch.setattr(module, "_KEPT", 2)
    asking = Remembered(Hindsight(OLD, LOWER), keep=2)
    found = [asking.answer(replay(searched(rows), OLD)).effect for rows in (1, 2, 3, 4, 1)]

    assert found == [Effect.ALLOW, Effect.ALLOW, Effect.DENY, Effect.DENY, Effect.ALLOW]
    assert len(asking.examples) == 2
    permits = {asking.could_permit(replay(searched(rows), OLD)) for rows in (1, 2, 3, 1)}
    assert permits == {Hindsight(OLD, LOWER).could_permit(replay(searched(1), OLD))}


def shadow(of: Kept, new: Workspace, **attributes: object) -> Kept:
    """Return what policies in the shadow said of a decision on record."""
    said = {
        "effect": "deny",
        "reason": "policy",
        "policy.version": new.policies.version,
        "policy.ids": ("limit", "grant:0"),
        **{name.replace("_", "."): value for name, value in attributes.items()},
    }
    kept_again: dict[str, Any] = {
        name: of.attributes[name] for name in of.attributes if name.startswith("agentguard.decision")
    }
    kept_again["agentguard.action.id"] = "search"
    shown: dict[str, Any] = {f"agentguard.shadow.{name}": value for name, value in said.items() if value is not None}
    return replace(of, kind="shadow", attributes={**kept_again, **shown})


def test_what_the_very_policies_said_in_the_shadow_is_taken() -> None:
    """They were put the call with all its arguments, of which the evidence has a digest."""
    call = searched(3, inputs=())
    found = impact([call, shadow(call, LOWER), searched(4)], LOWER)

    assert impact([call], LOWER).cannot_tell == 1
    assert changes(found) == [("newly denied", "a", "search", "permit", ("searches",), "policy", ("limit",), 2)]
    assert (found.cannot_tell, found.by_shadow, found.decisions) == (0, 1, 2)


@pytest.mark.parametrize(
    "attributes",
    [
        {"policy_version": OLD.policies.version},
        {"effect": "possible", "reason": None},
        {"effect": "allow"},
        {"reason": "whim"},
    ],
)
def test_shadow_that_does_not_tell_leaves_it_untold(attributes: dict[str, object]) -> None:
    """Another version, a call that might be allowed, or words that no policy says."""
    call = searched(3, inputs=())

    found = impact([call, shadow(call, LOWER, **attributes)], LOWER)

    assert (found.changes, found.cannot_tell, found.by_shadow) == (0, 1, 0)


def test_shadow_of_another_decision_says_nothing_of_this_one() -> None:
    """Nor does one of another chain, and of two decisions under one id it is told of one at most."""
    call = searched(3, inputs=())
    other = replace(shadow(call, LOWER), chain_id="another")
    of_a_denial = shadow(on_record(searches(AGENTS["a"], rows=9)), LOWER)

    assert impact([call, other, of_a_denial], LOWER).cannot_tell == 1
    twice = impact([call, call, shadow(call, LOWER, policy_ids=None)], LOWER)
    assert (twice.changes, twice.cannot_tell) == (1, 1)


def test_shadow_that_comes_too_late_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits is bounded, and what is not told is counted as that."""
    monkeypatch.setattr(beside, "_MOST", 1)
    first = searched(3, inputs=())
    second = replace(first, attributes={**first.attributes, "agentguard.decision.id": "D2"})

    found = impact([first, second, shadow(first, LOWER), shadow(second, LOWER)], LOWER)

    assert (found.changes, found.cannot_tell) == (1, 1)
