"""Why a call that is on record was decided as it was."""

from dataclasses import replace
from typing import Any

import pytest

from agentguard.analysis.explanations.onrecord import OnRecord, explain_record
from agentguard.analysis.workspace import Workspace
from agentguard.model import AccessRequest, Decision, Effect, Invocation, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.engine import decide
from agentguard.request import ResourceTemplate
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import NOW, context, reads, record, reference, searches, tool, uid

CLOSES = """@id("closes") permit (principal in Agent::"a", action == Action::"search", resource)
when { principal has purpose && principal.purpose == "monthly close" };"""
LIMIT = """@id("limit") @owner("dpo@example.com") forbid (principal, action == Action::"search", resource)
when { context.input.rows > 500 };"""
SCOPED = """@id("scoped") forbid (principal, action == Action::"search", resource)
when { principal.scopes.contains("bad") };"""
FOLDER = workspace(
    CLOSES,
    LIMIT,
    SCOPED,
    '@id("reads") permit (principal in Agent::"a", action == Action::"read", resource);',
    """@id("secret") forbid (principal, action == Action::"read", resource is Record)
    when { resource.sensitivity == "secret" };""",
)


def run(**facts: Any) -> Invocation:
    """Return a run that began at the time of the requests."""
    return unsafe_invocation("a", at=NOW, run_id="r", **{"purpose": "monthly close", **facts})


def on_record(
    request: AccessRequest, *, folder: Workspace = FOLDER, told: Workspace | None = None, **options: Any
) -> OnRecord:
    """Decide a request, and explain the record of that."""
    decision = decide(request, folder.policies)
    return explain_record(kept(request, decision, **options), told or folder)


def policies(found: OnRecord) -> list[tuple[str, bool | None, bool]]:
    """Return each policy, whether it matched, and whether it decided."""
    assert found.link is not None
    return [(one.id, one.matched, one.decided) for one in found.link.organisation]


def values(found: OnRecord, id_: str) -> list[tuple[str, bool | None, bool, str]]:
    """Return each condition of a policy, what it came to, whether that is open, and its values."""
    assert found.link is not None
    (one,) = [one for one in found.link.organisation if one.id == id_]
    return [(each.text, each.holds, each.unknown, each.shown) for each in one.conditions]


def test_what_the_record_says_of_the_policies_stands_in_for_what_it_does_not_hold() -> None:
    """The forbid that decided matched, so its one condition held; the other forbid did not."""
    found = on_record(searches(run(), rows=501))

    assert found.same
    assert policies(found) == [("closes", True, False), ("limit", True, True), ("scoped", False, False)]
    assert values(found, "limit") == [
        ('action == Action::"search"', True, False, ""),
        ("context.input.rows > 500", True, False, "unknown > 500"),
    ]
    assert values(found, "scoped")[1] == ('principal.scopes.contains("bad")', False, False, "unknown")
    assert values(found, "closes")[2][3] == '"monthly close"'
    assert found.unknown == ()
    assert (found.grants, found.delegated, found.early, found.why) == (None, False, False, "")
    assert found.suggestions == ()
    assert [one.text for one in found.mended] == ["limit did not exist"]


def test_with_an_argument_on_record_a_change_of_it_is_suggested() -> None:
    """Whatever is not on record: the record says that no other forbid matched."""
    found = on_record(searches(run(), rows=501), inputs=["rows"])

    assert values(found, "limit")[1][3] == "501 > 500"
    assert [one.text for one in found.suggestions] == ["rows ≤ 500"]


def test_a_change_of_the_identity_that_is_on_record_is_suggested() -> None:
    """The record says that no forbid matched, and none looks at the purpose."""
    found = on_record(searches(run(purpose="x"), rows=1))

    assert found.meaning == "no permit of the organisation matched"
    assert policies(found) == [("closes", False, False), ("limit", False, False), ("scoped", False, False)]
    assert [one.text for one in found.suggestions] == ['principal.purpose == "monthly close"']
    assert found.mended == ()


def test_another_agent_may_be_in_anything() -> None:
    """So what the record says of conditions on the principal is not believed of it, only that of others."""
    someone = unsafe_invocation("b", at=NOW, purpose="monthly close")
    some = workspace(CLOSES, LIMIT)
    grouped = workspace(
        CLOSES,
        """@id("scopes") forbid (principal, action == Action::"search", resource)
        when { principal.scopes.contains("bad") };""",
    )

    assert [one.text for one in on_record(searches(someone, rows=1), folder=some).suggestions] == [
        'principal.agent == Agent::"a"'
    ]
    assert on_record(searches(someone, rows=1), folder=grouped).suggestions == ()


STAFF = """@id("staff") permit (principal, action == Action::"search", resource)
when { principal has user && principal.user in Group::"staff" };"""


def test_another_user_is_suggested_who_is_listed() -> None:
    """What that one is in is known."""
    owned = """@id("owned") forbid (principal, action == Action::"search", resource)
    when { principal has user && principal.user == User::"bob" };"""
    found = on_record(searches(run(user="bob"), rows=1), folder=workspace(STAFF, owned))

    assert [one.text for one in found.suggestions] == ['principal.user other than User::"bob", such as User::"alice"']


def test_what_a_loader_said_of_an_entity_is_not_on_record() -> None:
    """So nobody can tell what another group would have changed."""
    folder = workspace(STAFF, entities="[]", loaders=("Record", "User"))
    carol: dict[str, Any] = {"uid": {"type": "User", "id": "carol"}, "attrs": {}, "parents": []}
    found = on_record(replace(searches(run(user="carol"), rows=1), entities=(carol,)), folder=folder)

    assert values(found, "staff")[2] == (
        'principal.user in Group::"staff"',
        False,
        False,
        'User::"carol" in what is unknown',
    )
    assert found.suggestions == ()


def test_an_allow_says_it_of_every_policy() -> None:
    """It names all permits that matched."""
    found = on_record(searches(run(), rows=1))

    assert policies(found) == [("closes", True, True), ("limit", False, False), ("scoped", False, False)]
    assert (found.grants, found.suggestions, found.mended) == (True, (), ())


def test_by_other_policies_it_is_told_what_these_would_say() -> None:
    """And nothing that the record says of the ones that decided is believed of them."""
    other = workspace(CLOSES, LIMIT.replace("500", "400"), SCOPED)
    found = on_record(searches(run(), rows=501), told=other)

    assert not found.same
    assert policies(found) == [("closes", True, False), ("limit", None, False), ("scoped", None, False)]
    assert found.unknown == ("context.input.rows", "principal.scopes")
    assert (found.suggestions, found.mended) == ((), ())
    # One of the same name is another policy, and has decided nothing.
    assert policies(on_record(searches(run(), rows=501), told=other, inputs=["rows"]))[1] == ("limit", True, False)


def test_what_an_entity_said_is_not_on_record() -> None:
    """Only that the forbid matched; its attribute could have been anything else."""
    found = on_record(reads(run(), record("r1", sensitivity="secret")))

    assert values(found, "secret") == [
        ('action == Action::"read"', True, False, ""),
        ("resource is Record", True, False, 'Record::"r1"'),
        ('resource.sensitivity == "secret"', True, False, "unknown"),
    ]
    assert found.suggestions == ()
    assert [one.text for one in found.mended] == ["secret did not exist"]


def test_of_a_chain_the_run_itself_is_told() -> None:
    """Which link denied is not on record, and neither is who stood above."""
    found = on_record(searches(run(ancestors=(unsafe_invocation("z"),)), rows=501))

    assert found.delegated
    assert policies(found) == [("closes", True, False), ("limit", None, False), ("scoped", None, False)]
    assert (found.suggestions, found.mended) == ((), ())


def test_a_call_that_was_stopped_early_had_no_argument_looked_at() -> None:
    """So nothing is said of forbids."""
    request = searches(run(purpose="x"), rows=501)
    denial = Decision(effect=Effect.DENY, reason=Reason.NO_PERMIT, policy_version=FOLDER.policies.version)
    found = explain_record(kept(request, denial, early=True), FOLDER)

    assert found.early
    assert policies(found)[0] == ("closes", False, False)
    assert policies(found)[1] == ("limit", None, False)


def test_a_policy_that_failed_is_told_so() -> None:
    """If all that it looks at is on record."""
    broken = """@id("broken") permit (principal, action == Action::"search", resource)
    when { context.input.rows + 9223372036854775807 > 0 };"""
    found = on_record(searches(run(), rows=1), folder=workspace(CLOSES, broken), inputs=["rows"])

    assert found.link is not None
    assert [(one.id, one.matched, one.error, one.decided) for one in found.link.organisation] == [
        ("closes", True, "", False),
        ("broken", None, "it cannot be evaluated", True),
    ]
    lacking = searches(run(user="nobody"), rows=1)
    missing = on_record(lacking, folder=workspace(CLOSES, broken, STAFF), inputs=["rows"])
    assert missing.record.text("agentguard.decision.reason") == Reason.MISSING_ENTITY
    assert policies(missing)[1] == ("broken", None, False)
    assert [one.text for one in found.suggestions] == ["rows == -9223372036854775807", "rows == 0"]


def test_conditions_of_every_form_are_told() -> None:
    """A choice, a no, and operands of operands."""
    policy = """@id("p") forbid (principal in Agent::"a", action == Action::"search", resource)
    when { if principal has user then context.input.rows > 1
      else !(context.input.rows > 2 || context.input.rows > 3) };"""
    found = on_record(searches(run(), rows=1), folder=workspace(CLOSES, policy))

    assert [one[1:3] for one in values(found, "p")] == [(True, False), (True, False), (True, False)]


@pytest.mark.parametrize("reason", [Reason.UNAUTHENTICATED, Reason.REVOKED, Reason.INVALID_ARGUMENT])
def test_a_denial_that_no_policy_made_is_told_by_its_reason(reason: Reason) -> None:
    """With what the record says of it."""
    request = searches(run(), rows=1)
    denial = Decision(effect=Effect.DENY, reason=reason, errors=("`rows` wants a whole number",))
    found = explain_record(kept(request, denial), FOLDER)

    assert found.link is None
    assert found.why == ""
    assert found.meaning.endswith("so no policy was asked: `rows` wants a whole number") is (
        reason is Reason.INVALID_ARGUMENT
    )
    assert "no policy was asked" in found.meaning


def test_a_record_that_these_policies_cannot_be_asked_about_says_why() -> None:
    """A tool that is none here, a reason of a later version, facts that no principal can have."""
    request = searches(run(), rows=1)
    denial = Decision(effect=Effect.DENY, reason=Reason.NO_PERMIT)
    written = kept(request, denial)
    attributes = dict(written.attributes)

    other = explain_record(replace(written, attributes={**attributes, "agentguard.action.id": "gone"}), FOLDER)
    later = explain_record(replace(written, attributes={**attributes, "agentguard.decision.reason": "later"}), FOLDER)
    odd = explain_record(replace(written, attributes={**attributes, "agentguard.invocation.issuer": "\ud800"}), FOLDER)

    assert (other.link, other.meaning) == (None, "no permit of the organisation matched")
    assert other.why == "the server has no `gone`"
    assert (later.meaning, later.why) == ("", "policies were not asked: later")
    assert odd.link is None
    assert odd.why


def test_a_record_that_does_not_fit_its_own_policies_is_not_believed() -> None:
    """Evidence can be forged: what is known to be otherwise is told as it is known."""
    request = searches(run(), rows=1)
    forged = Decision(
        effect=Effect.DENY, reason=Reason.POLICY, policy_ids=("limit",), policy_version=FOLDER.policies.version
    )
    found = explain_record(kept(request, forged, inputs=["rows"]), FOLDER)

    assert found.why == "the record says of these policies what they cannot have come to"
    assert policies(found)[1] == ("limit", False, False)
    assert (found.suggestions, found.mended) == ((), ())


def test_everything_that_is_not_on_record_has_a_stand_in_while_changes_are_looked_for() -> None:
    """Of each type, and for what it leads to."""
    types = """entity Record in [Tool] = { sensitivity: String, owner: User, price: decimal, seen: datetime,
      kept: duration, from: ipaddr, tags: Set<String>, more: { level: Long, sure?: Bool } };
    entity User in [Group] = { manager: User };"""
    folder = workspace(
        '@id("reads") permit (principal in Agent::"a", action == Action::"read", resource);',
        '@id("none") forbid (principal, action == Action::"read", resource) when { context.input.id like "x*" };',
        types=types,
        entities="[]",
        loaders=("Record", "User"),
    )
    run_ = run(user="carol", task="t")
    carol = {
        "uid": {"type": "User", "id": "carol"},
        "attrs": {"manager": reference("User", "carol")},
        "parents": [],
    }
    attributes: dict[str, Any] = {
        "sensitivity": "normal",
        "owner": reference("User", "carol"),
        "price": {"__extn": {"fn": "decimal", "arg": "1.0"}},
        "seen": {"__extn": {"fn": "datetime", "arg": "2026-01-01"}},
        "kept": {"__extn": {"fn": "duration", "arg": "1h"}},
        "from": {"__extn": {"fn": "ip", "arg": "10.0.0.1"}},
        "tags": [],
        "more": {"level": 1},
    }
    request = reads(run_, record("x1", **attributes), carol, id_="x1")
    found = on_record(request, folder=folder)

    assert decide(request, folder.policies).policy_ids == ("none",)
    assert policies(found) == [("reads", True, False), ("none", True, True)]
    assert found.suggestions == ()


ASKED = '@id("asked") @obligation("approval") forbid (principal, action == Action::"search", resource) unless { context has approval };'  # noqa: E501


def test_each_policy_that_a_hard_denial_names_decided_it() -> None:
    """Whether or not a person's yes was supposed meanwhile: that is not on record, and is said not to be."""
    folder = workspace(CLOSES, LIMIT, ASKED)
    found = on_record(searches(run(), rows=501), folder=folder, inputs=["rows"])

    assert policies(found) == [("closes", True, False), ("limit", True, True), ("asked", True, True)]
    assert [(text, holds, shown) for text, holds, _, shown in values(found, "asked")[1:]] == [
        ("context has approval", False, "unknown")
    ]
    assert found.why == ""
    assert found.mended == ()
    assert [one.text for one in found.suggestions] == ["rows ≤ 500 and a person's approval"]


def test_yes_that_was_supposed_does_not_stand_in_what_is_suggested() -> None:
    """The call came without one: nobody would be asked without the policy that asks, and then nothing denies it."""
    lifted = """@id("lifted") forbid (principal, action == Action::"search", resource)
    when { context has approval && context.input.rows > 500 };"""
    folder = workspace(CLOSES, lifted, ASKED)
    denial = Decision(
        effect=Effect.DENY, reason=Reason.POLICY, policy_ids=("lifted",), policy_version=folder.policies.version
    )
    found = explain_record(kept(searches(run(), rows=501), denial, inputs=["rows"]), folder)

    assert policies(found) == [("closes", True, False), ("lifted", True, True), ("asked", False, False)]
    assert found.why == ""
    assert [one.text for one in found.mended] == ["asked did not exist"]
    assert [one.text for one in found.suggestions] == ["a person's approval and rows ≤ 500"]


def test_yes_counts_only_where_somebody_would_ask_for_it() -> None:
    """A permit that wants one is of no use without a policy that asks; and nobody approves without a yes."""
    wants = """@id("wants") permit (principal, action == Action::"search", resource)
    when { context has approval && context.approval has approver && context.approval.approver == User::"bob" };"""

    assert on_record(searches(run(), rows=1), folder=workspace(wants)).suggestions == ()
    asked = on_record(searches(run(), rows=1), folder=workspace(wants, ASKED))
    assert [one.text for one in asked.suggestions] == [
        'a person\'s approval and context.approval.approver == User::"bob"'
    ]


def test_denial_by_a_failure_names_the_forbids_that_matched_beside_it() -> None:
    """Cedar goes on after a policy that fails."""
    failing = f"""@id("failing") permit (principal, action == Action::"search", resource)
    when {{ context.input.rows + {2**63 - 1} > 0 }};"""
    found = on_record(searches(run(), rows=501), folder=workspace(CLOSES, failing, ASKED))

    assert found.record.text("agentguard.decision.reason") == Reason.POLICY_ERROR
    assert policies(found) == [("closes", True, False), ("failing", None, False), ("asked", True, True)]


def test_no_change_is_suggested_of_a_call_that_may_name_others_too() -> None:
    """What would become of those is not on record; a list that is on record may say that there are none."""
    many = tool("many", record_of({"ids": Field(list[str])}, where="many"), resource="Record")
    folder = workspace(
        '@id("all") permit (principal, action, resource);',
        """@id("closing") forbid (principal, action, resource is Record)
        when { principal has purpose && principal.purpose == "monthly close" };""",
        tools=(many,),
        templates=(("many", ResourceTemplate.parse("Record::{ids[*]}")),),
    )
    loaded = {**record("r1"), "parents": [uid("Tool", "many")]}
    request = replace(reads(run(), loaded), action="many", context=context(ids=["r1"]))
    others = replace(request, context=context(ids=["r1", "r2"]))

    assert [one.text for one in on_record(request, folder=folder, inputs=["ids"]).suggestions] == [
        "no principal.purpose",
        'principal.purpose other than "monthly close", such as "other"',
    ]
    for found in (on_record(request, folder=folder), on_record(others, folder=folder, inputs=["ids"])):
        assert policies(found)[1] == ("closing", True, True)
        assert (found.suggestions, found.mended) == ((), ())


def test_nothing_helps_a_call_that_lacks_an_entity() -> None:
    """Neither where that denied it, nor where a policy of its grant denied it first; another user may be there."""
    nobody = unsafe_invocation("a", at=NOW, run_id="r", user="nobody", purpose="monthly close")
    folder = workspace(CLOSES, LIMIT, STAFF)
    missing = on_record(searches(nobody, rows=501), folder=folder, inputs=["rows"])
    early = Decision(effect=Effect.DENY, reason=Reason.POLICY, policy_ids=("limit",))
    first = explain_record(
        kept(searches(nobody, rows=501), replace(early, policy_version=folder.policies.version), inputs=["rows"]),
        folder,
    )

    assert missing.record.text("agentguard.decision.reason") == Reason.MISSING_ENTITY
    for found in (missing, first):
        assert (found.mended, [one.text for one in found.suggestions if len(one.changes) == 1]) == ((), [])
