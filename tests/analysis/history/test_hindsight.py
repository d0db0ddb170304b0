"""What other policies say of calls that are on record."""

import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from agentguard.analysis.history.hindsight import Answer, Hindsight, MisfitError
from agentguard.analysis.history.remembered import Remembered
from agentguard.analysis.history.replay import Setting, replay
from agentguard.analysis.workspace import Workspace
from agentguard.evidence.kept import Kept
from agentguard.evidence.record import approval_attributes
from agentguard.model import AccessRequest, Decision, Effect, Invocation, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.engine import decide
from agentguard.request import ResourceTemplate
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import ENTITIES, TOOLS, TYPES, context, reads, record, searches, tool, uid

SEARCH = 'action == Action::"search"'
READS = '@id("reads") permit (principal, action == Action::"read", resource);'
SEARCHES = f'@id("searches") permit (principal, {SEARCH}, resource);'
LIMIT = f'@id("limit") forbid (principal, {SEARCH}, resource) when {{ context.input.rows > 5 }};'
SECRET = '@id("secret") forbid (principal, action, resource is Record) when { resource.sensitivity == "secret" };'
STAFF = f'@id("staff") permit (principal, {SEARCH}, resource) when {{ principal.user in Group::"staff" }};'.replace(
    "{ principal.user", "{ principal has user && principal.user"
)
IDLE = '@id("idle") permit (principal in Agent::"nobody", action, resource);'
ASK = f'@id("ask") @obligation("approval") forbid (principal, {SEARCH}, resource) unless {{ context has approval }};'
ALICE = unsafe_invocation("a", run_id="r1", user="alice")
BOB = unsafe_invocation("a", run_id="r2", user="bob")
GRANTED = unsafe_invocation("a", run_id="r3", grant="forbid (principal, action, resource) when { 1 > 2 };")
OTHER_VERSION = {"agentguard.policy.version": "sha256:other"}


def on_record(request: AccessRequest, folder: Workspace, **options: Any) -> Kept:
    """Return the record of what a folder decides."""
    return kept(request, decide(request, folder.policies), **options)


def ask(record: Kept, old: Workspace, new: Workspace, setting: Setting | None = None) -> Answer:
    """Return what the new policies say of what the old ones decided."""
    return Hindsight(old, new).answer(replay(record, old, setting=setting or Setting()))


def told(
    request: AccessRequest, old: Iterable[str], new: Iterable[str], *, inputs: Iterable[str] = (), **options: Any
) -> Answer:
    """Return what new policies say of a request that old ones decided."""
    before = workspace(*old)
    return ask(on_record(request, before, inputs=inputs, **options), before, workspace(*new))


def words(answer: Answer) -> str:
    """Return an answer in few words."""
    effect = "open" if answer.effect is None else answer.effect.value
    return " ".join(filter(None, (effect, answer.reason, *answer.policy_ids, "?" * answer.within_grant)))


def doubts(answer: Answer) -> list[str]:
    """Return on what an answer hangs."""
    return sorted(".".join(path) for path in answer.doubts)


def test_policies_that_stay_say_what_they_said() -> None:
    """Whatever the arguments were, and whatever a loader answered."""
    old = (SEARCHES, READS, LIMIT, SECRET)
    secret = reads(ALICE, record(sensitivity="secret"))

    assert words(told(searches(rows=1), old, old)) == "allow permit searches"
    assert words(told(searches(rows=9), old, old)) == "deny policy limit"
    assert words(told(reads(ALICE), old, old)) == "allow permit reads"
    assert words(told(secret, old, old)) == "deny policy secret"
    assert words(told(searches(), (READS,), (READS,))) == "deny no_permit"


def test_limit_that_moves_is_told_where_the_argument_is_on_record() -> None:
    """And nowhere else: a digest says nothing of its size."""
    old, new = (SEARCHES, LIMIT), (SEARCHES, LIMIT.replace("> 5", "> 2"))

    assert words(told(searches(rows=3), old, new, inputs=["rows"])) == "deny policy limit"
    assert words(told(searches(rows=1), old, new, inputs=["rows"])) == "allow permit searches"
    assert words(told(searches(rows=3), old, new)) == "open"
    assert doubts(told(searches(rows=3), old, new)) == ["context.input.rows"]


def test_exception_to_a_forbid_that_did_not_match_changes_nothing() -> None:
    """What the record says of the forbid, it says of its conditions."""
    spared = LIMIT.replace(" };", ' } unless { principal.grade == "run" };')

    assert words(told(searches(rows=3), (SEARCHES, LIMIT), (SEARCHES, spared))) == "allow permit searches"
    assert words(told(searches(rows=9), (SEARCHES, LIMIT), (SEARCHES, spared))) == "allow permit searches ?"


def test_permit_with_one_more_condition_still_permits_where_that_holds() -> None:
    """The others held: the record says so."""
    narrow = SEARCHES.replace(";", ' when { principal has user && principal.user == User::"alice" };')

    assert words(told(searches(ALICE), (SEARCHES,), (narrow,))) == "allow permit searches"
    assert words(told(searches(BOB), (SEARCHES,), (narrow,))) == "deny no_permit"


def test_forbid_that_is_new_denies_where_it_is_known_to_match() -> None:
    """Its reason and its id are told."""
    alone = f'@id("never") forbid (principal, {SEARCH}, resource);'
    assert words(told(searches(), (SEARCHES,), (SEARCHES, alone))) == "deny policy never"
    assert words(told(reads(ALICE), (READS,), (READS, SECRET))) == "open"
    assert doubts(told(reads(ALICE), (READS,), (READS, SECRET))) == ["entities.Record"]


def test_allow_that_a_grant_has_a_say_in_is_told_as_that() -> None:
    """Of a denied call it is not on record what the run's own grant would have said."""
    new = (SEARCHES,)

    assert words(told(searches(), (READS,), new)) == "allow permit searches ?"
    assert words(told(searches(), new, new)) == "allow permit searches"
    by_grant = told(searches(GRANTED), new, new)
    assert words(by_grant) == "deny grant"
    assert words(told(searches(GRANTED), new, (READS,))) == "deny"
    # What comes before a grant is told, whatever that says.
    assert words(told(searches(rows=9), (READS,), (SEARCHES, LIMIT), inputs=["rows"])) == "deny policy limit"


def test_who_is_listed_anew_changes_what_groups_say() -> None:
    """What the record says of policies that look at listed entities holds for the old list alone."""
    listed = json.loads(ENTITIES)
    listed[0]["parents"], listed[1]["parents"] = [], listed[0]["parents"]
    old, new = workspace(STAFF, SEARCHES), workspace(STAFF, entities=json.dumps(listed))
    alone = workspace(STAFF)

    assert words(ask(on_record(searches(ALICE), old), old, new)) == "deny no_permit"
    assert words(ask(on_record(searches(BOB), old), old, new)) == "allow permit staff"
    assert words(ask(on_record(searches(BOB), alone), alone, new)) == "allow permit staff ?"


def test_who_is_listed_no_more_is_missing() -> None:
    """Without that nothing is allowed."""
    old = workspace(SEARCHES)
    new = workspace(SEARCHES, entities=json.dumps(json.loads(ENTITIES)[:1]))

    assert words(ask(on_record(searches(BOB), old), old, new)) == "deny missing_entity"
    assert words(ask(on_record(searches(ALICE), old), old, new)) == "allow permit searches"


def test_permit_that_may_fail_denies_as_a_forbid_does() -> None:
    """A call is allowed only if every policy comes to something."""
    failing = (
        f'@id("sum") permit (principal, {SEARCH}, resource) when {{ context.input.rows + 9223372036854775807 > 0 }};'
    )

    assert words(told(searches(), (SEARCHES,), (SEARCHES, failing), inputs=["rows"])) == "deny"
    assert words(told(searches(), (SEARCHES,), (SEARCHES, failing))) == "open"
    assert (
        words(told(searches(rows=0), (SEARCHES,), (SEARCHES, failing), inputs=["rows"])) == "allow permit searches sum"
    )
    assert words(told(searches(), (SEARCHES, failing), (SEARCHES,))) == "allow permit searches ?"
    maybe = failing.replace("permit", "forbid")
    assert words(told(searches(), (READS,), (maybe,))) == "deny"


def test_permit_that_may_match_too_changes_nothing() -> None:
    """One that does is enough, if no other one can fail."""
    maybe = f'@id("some") permit (principal, {SEARCH}, resource) when {{ context.input.rows > 5 }};'

    assert words(told(searches(), (SEARCHES,), (SEARCHES, maybe))) == "allow permit searches"
    assert words(told(searches(), (SEARCHES,), (maybe,))) == "open"


def test_forbid_that_a_person_can_lift_asks_for_one() -> None:
    """A call that was allowed with a yes is allowed with it again."""
    old, new = (SEARCHES,), (SEARCHES, ASK)
    assert words(told(searches(), old, new)) == "deny approval_required ask"
    assert words(told(searches(), old, (SEARCHES, ASK, LIMIT), inputs=["rows"])) == "deny approval_required ask"
    assert words(told(searches(), old, (SEARCHES, ASK, LIMIT))) == "deny ask"
    assert words(told(searches(rows=9), old, (SEARCHES, ASK, LIMIT), inputs=["rows"])) == "deny policy ask limit"

    before = workspace(*new)
    allowed = Decision(
        effect=Effect.ALLOW, reason=Reason.PERMIT, policy_ids=("searches",), policy_version=before.policies.version
    )
    lifted = kept(searches(), allowed, more=approval_attributes("Q", "client"))
    assert words(ask(lifted, before, workspace(SEARCHES, ASK))) == "allow permit searches"


@pytest.mark.parametrize(
    ("reason", "ids", "said", "unchanged"),
    [
        (Reason.APPROVAL_REQUIRED, ("ask",), "deny approval_required ask", "deny approval_required ask"),
        (Reason.APPROVAL_UNAVAILABLE, ("ask",), "deny approval_required ask", "deny approval_required ask"),
        (Reason.APPROVAL_DECLINED, (), "deny ask", "deny approval_required"),
        # As if a person had said yes, to see whether to ask one.
        (Reason.POLICY, ("limit",), "deny policy ask limit", "deny policy limit"),
        (Reason.POLICY_ERROR, (), "deny ask", "deny policy_error"),
    ],
)
def test_call_that_a_person_did_not_let_pass_is_denied_by_the_same(
    reason: Reason, ids: tuple[str, ...], said: str, unchanged: str
) -> None:
    """Whether it was asked, or could not be. Where no policy changes, it is what is on record."""
    old = workspace(SEARCHES, ASK, LIMIT)
    denial = Decision(effect=Effect.DENY, reason=reason, policy_ids=ids, policy_version=old.policies.version)

    assert words(ask(kept(searches(), denial), old, workspace(SEARCHES, ASK, LIMIT, IDLE))) == said
    assert words(ask(kept(searches(), denial), old, old)) == unchanged


def delegated(*, grant: str | None = None) -> Invocation:
    """Return a run that another one delegated to."""
    root = unsafe_invocation("root", run_id="root", grant=grant)
    return unsafe_invocation("a", run_id="child", ancestors=(root,))


def test_delegated_run_is_told_of_where_no_ancestor_counts() -> None:
    """Nothing is known of who delegated, so a policy that asks for it leaves all open."""
    child = delegated()
    agents = f'@id("agents") permit (principal in Agent::"a", {SEARCH}, resource);'
    roots = f'@id("roots") permit (principal in Agent::"root", {SEARCH}, resource);'

    assert words(told(searches(child), (SEARCHES,), (SEARCHES,))) == "allow permit searches"
    assert words(told(searches(child), (agents, roots), (agents, roots))) == "allow permit agents roots"
    assert words(told(searches(child), (SEARCHES,), (SEARCHES, LIMIT), inputs=["rows"])) == "allow permit searches"
    assert words(told(searches(child, rows=9), (SEARCHES,), (SEARCHES, LIMIT), inputs=["rows"])) == "deny limit"
    assert words(told(searches(child), (SEARCHES,), (agents, roots))) == "open"
    assert doubts(told(searches(child), (SEARCHES,), (agents, roots))) == ["ancestors"]
    assert words(told(searches(child), (SEARCHES,), (READS,))) == "deny"
    assert words(told(searches(child, rows=9), (SEARCHES, LIMIT), (SEARCHES, LIMIT, IDLE))) == "deny limit"
    assert words(told(searches(child, rows=9), (SEARCHES, LIMIT), (SEARCHES, LIMIT))) == "deny policy limit"


def test_permits_of_a_chain_are_told_apart_only_if_there_is_one() -> None:
    """With two, each may have matched at one link alone."""
    child = delegated()
    one = f'@id("one") permit (principal, {SEARCH}, resource) when {{ context.input.rows > 0 }};'
    two = f'@id("two") permit (principal, {SEARCH}, resource) when {{ context.input.rows > 0 }};'

    assert words(told(searches(child), (one,), (one,))) == "allow permit one"
    assert words(told(searches(child), (one, two), (one, IDLE))) == "allow permit"
    some = two.replace("> 0", "> 1 && 2 > 1")
    assert words(told(searches(child, rows=2), (one, some), (one, IDLE))) == "open"
    assert words(told(searches(child, rows=2), (one, some), (one, some, IDLE))) == "allow permit"


def test_what_a_loader_was_asked_for_may_be_missing_elsewhere() -> None:
    """Where the new list lacks what a loaded entity may refer to, nothing is told to be allowed."""
    old = workspace(READS)
    fewer = workspace(READS, entities=json.dumps(json.loads(ENTITIES)[:1]))
    other = json.loads(ENTITIES)
    other[1]["parents"] = [{"type": "Group", "id": "staff"}]
    allowed = on_record(reads(), old)

    assert words(ask(allowed, old, workspace(READS, entities=json.dumps(other)))) == "allow permit reads"
    answer = ask(allowed, old, fewer)
    assert (words(answer), doubts(answer)) == ("open", ["entities"])
    # Nothing that is loaded refers to a user here.
    plain = TYPES.replace("owner?: User, ", "")
    assert words(ask(on_record(reads(), workspace(READS, types=plain)), workspace(READS, types=plain),
                     workspace(READS, types=plain, entities="[]"))) == "allow permit reads"  # fmt: skip


def test_record_of_another_version_is_told_where_it_fits() -> None:
    """What the record says of its own policies says nothing of the old ones, but for its effect."""
    old, new = workspace(SEARCHES, LIMIT), workspace(SEARCHES)
    small = on_record(searches(rows=1), old, inputs=["rows"], more=OTHER_VERSION)
    large = on_record(searches(rows=9), old, inputs=["rows"], more=OTHER_VERSION)
    digest = on_record(searches(rows=1), old, more=OTHER_VERSION)

    assert words(ask(small, old, new)) == "allow permit searches"
    assert words(ask(large, old, new)) == "allow permit searches ?"
    with pytest.raises(MisfitError, match="it was decided under another version"):
        ask(digest, old, new)
    with pytest.raises(MisfitError, match="the old policies allow it, and it says deny, and it was decided under"):
        ask(large, new, old)


def test_what_a_loader_knows_may_refer_to_what_another_one_knows() -> None:
    """Then nothing has to be listed."""
    both = ("Record", "User")
    old, new = workspace(READS, loaders=both), workspace(READS, IDLE, loaders=both, entities="[]")

    assert words(ask(on_record(reads(), old), old, new)) == "allow permit reads"


def test_record_of_another_version_needs_all_that_is_loaded_to_be_listed_still() -> None:
    """What was listed then is not known, so an owner may be missing."""
    old = workspace(READS)
    allowed = on_record(reads(), old, more=OTHER_VERSION)

    with pytest.raises(MisfitError, match="another version"):
        ask(allowed, old, old)


def test_record_that_the_old_policies_cannot_have_made_has_no_answer() -> None:
    """Evidence that was changed, or a clock that was wrong."""
    old = workspace(SEARCHES, LIMIT)
    allowed = on_record(searches(rows=1), old, inputs=["rows"])
    denied = {"agentguard.decision.effect": "deny", "agentguard.decision.reason": "policy"}

    with pytest.raises(MisfitError, match="the old policies allow it, and it says deny"):
        ask(replace(allowed, attributes={**allowed.attributes, **denied, "agentguard.policy.ids": ()}), old, old)
    with pytest.raises(MisfitError, match="its policies cannot have come to what it says of them"):
        ask(replace(allowed, inputs={"rows": 9}), old, old)


def test_early_denial_is_told_of_as_far_as_no_argument_counts() -> None:
    """Its arguments were never looked at, nor what it would have acted on."""
    old = workspace(STAFF, READS)
    early = on_record(searches(BOB), old, early=True)

    assert words(ask(early, old, old)) == "deny no_permit"
    assert words(ask(early, old, workspace(STAFF, READS, IDLE))) == "deny"
    assert words(ask(early, old, workspace(STAFF, READS, SEARCHES))) == "allow permit searches ?"
    assert words(ask(early, old, workspace(STAFF, READS, SEARCHES, LIMIT))) == "open"
    limited = workspace(STAFF, READS, LIMIT)
    assert words(ask(on_record(searches(BOB), limited, early=True), limited, workspace(SEARCHES, LIMIT))) == "open"
    none = workspace(SEARCHES)
    stopped = on_record(reads(BOB), none, early=True)
    assert words(ask(stopped, none, workspace(SEARCHES, IDLE))) == "deny"
    assert words(ask(stopped, none, workspace(READS))) == "open"
    never = workspace(SEARCHES, f'@id("never") forbid (principal, {SEARCH}, resource);')
    assert words(ask(on_record(searches(), never, early=True), never, never)) == "deny policy never"


def test_resource_that_is_not_known_may_be_listed() -> None:
    """A digest in place of its id does not say that it is missing."""
    listed = '[{"uid": {"type": "Record", "id": "r1"}, "attrs": {"sensitivity": "normal"}, "parents": []}]'
    old = workspace(READS, entities=listed, loaders=())
    found = on_record(replace(reads(), entities=()), old)
    private = replace(found, attributes={**found.attributes, "agentguard.resource.id": f"hmac-sha256:{'0' * 64}"})

    assert words(ask(found, old, old)) == "allow permit reads"
    assert words(ask(private, old, old)) == "allow permit reads"
    assert words(ask(private, old, workspace(READS, IDLE, entities=listed, loaders=()))) == "open"


MANY = tool("many", record_of({"ids": Field(list[str])}, where="many"), resource="Record")


def several(*policies: str) -> Workspace:
    """Return a folder of a server whose tool acts on as many records as are named."""
    return workspace(*policies, tools=(MANY,), templates=(("many", ResourceTemplate.parse("Record::{ids[*]}")),))


@pytest.mark.parametrize(
    ("named", "inputs", "said"),
    [
        (["r1", "r2"], ["ids"], "open"),
        (["r1", "r2"], [], "open"),
        (["r1"], [], "open"),
        (["r1"], ["ids"], "allow permit all"),
    ],
)
def test_call_that_was_denied_for_one_of_several_may_be_denied_for_the_others(
    named: list[str], inputs: list[str], said: str
) -> None:
    """Those were not judged, and nothing is on record of them; a call that is allowed was judged on each."""
    request = replace(reads(ALICE, record(sensitivity="secret")), action="many", context=context(ids=named))
    request = replace(request, entities=({**request.entities[0], "parents": [uid("Tool", "many")]},))
    everything = '@id("all") permit (principal, action, resource);'
    old, new = several(everything, SECRET), several(everything)
    denied = on_record(request, old, inputs=inputs)
    answer = Remembered(Hindsight(old, new)).answer(replay(denied, old))

    assert words(replace(answer, within_grant=False)) == said
    assert doubts(answer) == (["resource"] if said == "open" else [])
    # What was kept of one such call says nothing of the other.
    single = on_record(replace(request, context=context(ids=["r1"])), old, inputs=["ids"])
    both = Remembered(Hindsight(old, new))
    assert words(both.answer(replay(single, old))) == "allow permit all ?"
    assert words(replace(both.answer(replay(denied, old)), within_grant=False)) == said
    assert words(ask(on_record(request, new), new, several(everything, IDLE))) == "allow permit all"


def test_no_to_another_question_does_not_say_that_all_was_there() -> None:
    """The call may lack an entity, which nobody is told of who brings such an answer."""
    never = '@id("never") forbid (principal, action == Action::"read", resource);'
    old = workspace(READS, never)
    denial = Decision(effect=Effect.DENY, reason=Reason.APPROVAL_DECLINED, policy_version=old.policies.version)

    assert words(ask(kept(reads(ALICE), denial), old, workspace(READS))) == "open"


def test_tool_that_is_another_one_cannot_be_compared() -> None:
    """Its arguments may mean something else; nor can one that is gone."""
    old = workspace(SEARCHES, READS)
    more = tool(
        "search", record_of({"text": Field(str), "rows": Field(str)}, where="search"), "read-only", "open-world"
    )
    found = on_record(searches(), old)

    assert ask(found, old, workspace(SEARCHES, READS, tools=(TOOLS[0], more))).why == (
        "`search` is not the same in the new folder's schema"
    )
    assert ask(found, old, workspace(READS, tools=TOOLS[:1])).why == "the new folder's schema has no `search`"


def test_all_that_policies_look_at_is_told() -> None:
    """Of both versions, and of an action that one of them does not have."""
    old, new = workspace(SEARCHES, LIMIT), workspace(SEARCHES, STAFF, READS)

    assert ("context", "input", "rows") in Hindsight(old, new).looks("search")
    assert ("principal", "user") in Hindsight(old, new).looks("search")
    assert Hindsight(old, old).looks("nothing") == frozenset()


def test_policy_that_has_another_name_now_is_the_same() -> None:
    """Answers name what the new folder calls it; a change of an obligation is a change."""
    old, new = workspace(SEARCHES, ASK), workspace(SEARCHES.replace("searches", "finds"), ASK)
    allowed = on_record(searches(), workspace(SEARCHES), more={"agentguard.policy.version": old.policies.version})
    hindsight = Hindsight(workspace(SEARCHES), workspace(SEARCHES.replace("searches", "finds")))

    assert {words(hindsight.answer(replay(on_record(searches(), hindsight.old), hindsight.old))) for _ in "12"} == {
        "allow permit finds"
    }
    assert words(ask(on_record(searches(), old), old, new)) == "deny approval_required ask"
    assert words(
        ask(on_record(searches(), old), old, workspace(SEARCHES, ASK.replace('@obligation("approval") ', "")))
    ) == ("deny policy ask")
    assert allowed.policy_ids == ("searches",)


def test_how_the_guard_was_set_up_settles_what_looks_at_it() -> None:
    """Where its start is on record."""
    here = SEARCHES.replace(";", ' when { context.environment == "production" };')
    old, new = workspace(SEARCHES), workspace(here)
    found = on_record(searches(), old)

    assert words(ask(found, old, new)) == "open"
    assert words(ask(found, old, new, Setting(environment="production"))) == "allow permit searches"
    assert words(ask(found, old, new, Setting(environment="test"))) == "deny no_permit"


def test_grant_that_may_look_at_what_has_changed_need_not_say_what_it_said() -> None:
    """What a grant says is not on record; that there is one, an allow and a denial by it say."""
    new = workspace(SEARCHES, entities=ENTITIES.replace('[{ "type": "Group", "id": "staff" }]', "[]", 1))
    old = workspace(SEARCHES)
    staff = 'permit (principal, action, resource) when { principal.user in Group::"staff" };'.replace(
        "{ principal.user", "{ principal has user && principal.user"
    )
    permitted = on_record(searches(unsafe_invocation("a", user="alice", grant=staff)), old)
    refused = on_record(searches(unsafe_invocation("a", user="bob", grant=staff)), old)
    plain = on_record(searches(unsafe_invocation("a", user="alice")), old)

    assert [words(ask(one, old, old)) for one in (permitted, refused)] == ["allow permit searches", "deny grant"]
    assert [words(ask(one, old, new)) for one in (permitted, refused)] == ["open", "open"]
    assert doubts(ask(permitted, old, new)) == ["grant"]
    assert words(ask(plain, old, new)) == "allow permit searches"
    assert words(ask(refused, old, workspace(READS, entities=ENTITIES.replace("alice", "carol")))) == "deny"


def test_grant_that_failed_is_why_a_call_was_denied_that_the_policies_allow() -> None:
    """It fails again, whatever becomes of the policies."""
    old, new = (SEARCHES, LIMIT), (SEARCHES, LIMIT.replace("> 5", "> 4"))
    failing = f"permit (principal, {SEARCH}, resource) when {{ context.input.rows + {2**63 - 1} > 0 }};"
    run = unsafe_invocation("a", grant=failing)

    assert words(told(searches(run, rows=2), old, old, inputs=["rows"])) == "deny policy_error"
    assert words(told(searches(run, rows=2), old, new, inputs=["rows"])) == "deny policy_error"
    assert words(told(searches(run, rows=5), old, new, inputs=["rows"])) == "deny limit"


@pytest.mark.parametrize(
    ("types", "fits"),
    [
        (TYPES.replace("sensitivity: String", "sensitivity: String, level?: Long"), True),
        (TYPES.replace("sensitivity: String", "sensitivity: String, level: Long"), False),
        (TYPES.replace(", sealed?: Bool", ""), False),
        (TYPES.replace("in [Tool]", "in [Tool, Group]"), True),
        (TYPES.replace(";", " tags String;"), True),
    ],
)
def test_what_was_loaded_may_not_fit_another_schema(types: str, fits: bool) -> None:
    """Then the loader would have said something else, and nobody knows what; a tool that loads nothing is told of."""
    old, new = workspace(READS, SEARCHES), workspace(READS, SEARCHES, types=types)
    read = ask(on_record(reads(ALICE), old), old, new)

    assert words(read) == ("allow permit reads" if fits else "open")
    assert read.why == ("" if fits else "`Record` is not the same in the new folder's schema")
    assert words(ask(on_record(searches(), old), old, new)) == "allow permit searches"


def test_forbid_that_looks_at_an_approval_said_what_is_on_record_where_nobody_asks() -> None:
    """Without a policy that a person can lift, no call is judged as if one had said yes."""
    kind = f'@id("kind") forbid (principal, {SEARCH}, resource) unless {{ context has approval }};'
    old = (SEARCHES, kind.replace("};", "|| context.input.rows > 5 };"))

    assert words(told(searches(rows=2), old, (*old, IDLE))) == "deny policy kind"
