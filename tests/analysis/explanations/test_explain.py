"""Why a call was decided as it was."""

from dataclasses import replace

import pytest
from hypothesis import given, settings

from agentguard.analysis.explanations.explain import MEANINGS, Explanation, explain, explain_requests
from agentguard.analysis.explanations.mended import mended
from agentguard.analysis.supposed import judge
from agentguard.analysis.workspace import Workspace
from agentguard.model import AccessRequest, Invocation, Reason
from agentguard.testing import unsafe_invocation
from tests.analysis.explaining import check
from tests.analysis.kept import workspace
from tests.policy.deciding.test_engine_properties import World, worlds
from tests.policy.records import NOW, reads, record, searches

LONGEST = 9_223_372_036_854_775_807
CLOSES = """@id("closes") permit (principal in Agent::"a", action == Action::"search", resource)
when { principal has purpose && principal.purpose == "monthly close" };"""
LIMIT = """@id("limit") @owner("dpo@example.com") @advice("Fewer.")
forbid (principal, action == Action::"search", resource) when { context.input.rows > 500 };"""
EVERYTHING = '@id("all") permit (principal, action, resource);'


def run(agent: str = "a", **facts: object) -> Invocation:
    """Return a run that began at the time of the requests."""
    facts.setdefault("purpose", "monthly close")
    return unsafe_invocation(agent, at=NOW, run_id="r", **facts)  # type: ignore[arg-type]


def explained(request: AccessRequest, folder: Workspace) -> Explanation:
    """Explain one request."""
    return explain_requests([request], folder.policies, workspace=folder)


@settings(deadline=None, max_examples=30)
@given(worlds(deep=True))
def test_every_explanation_is_true(world: World) -> None:
    """The named policies are the engine's, and what is suggested flips the decision; thousands more in `tests/soak`."""
    check(world)


def test_every_policy_about_the_action_is_told_with_what_decided() -> None:
    """And with each condition's value, and what would have changed the answer."""
    found = explained(
        searches(run(), rows=501),
        workspace(CLOSES, LIMIT, '@id("r") permit (principal, action == Action::"read", resource);'),
    )

    ((link,),) = [answer.links for answer in found.answers]
    assert [(one.id, one.permit, one.matched, one.decided) for one in link.organisation] == [
        ("closes", True, True, False),
        ("limit", False, True, True),
    ]
    assert [condition.shown for condition in link.organisation[1].conditions] == ["", "501 > 500"]
    assert link.grant is None
    assert (found.meaning, found.verdict.advice) == ("", "Fewer.")
    assert [one.text for one in found.suggestions] == ["rows ≤ 500"]
    assert [(one.text, one.owners) for one in found.mended] == [("limit did not exist", ("dpo@example.com",))]
    assert not found.loose


def test_an_allow_needs_no_change() -> None:
    """What permitted it is marked."""
    found = explained(searches(run(), rows=1), workspace(CLOSES, LIMIT))

    ((link,),) = [answer.links for answer in found.answers]
    assert [(one.id, one.decided) for one in link.organisation] == [("closes", True), ("limit", False)]
    assert (found.suggestions, found.mended, found.meaning) == ((), (), "")


def test_what_a_person_could_lift_decides_nothing_where_nothing_permits() -> None:
    """A yes would help nobody, so it is not what stands in the way."""
    lift = """@id("lift") @obligation("approval") forbid (principal, action == Action::"search", resource)
    unless { context has approval };"""
    found = explained(searches(run(purpose="other"), rows=1), workspace(CLOSES, lift))

    ((link,),) = [answer.links for answer in found.answers]
    assert found.verdict.reason is Reason.NO_PERMIT
    assert [(one.id, one.matched, one.decided) for one in link.organisation] == [
        ("closes", False, False),
        ("lift", True, False),
    ]


def test_each_link_and_its_grant_are_told() -> None:
    """What decided is marked at the link that denied, and at no other."""
    few = 'permit (principal, action == Action::"search", resource) when { context.input.rows < 5 };'
    root = run("root", grant="permit (principal, action, resource);")
    child = run("a", grant=few, ancestors=(root,))

    found = explained(searches(child, rows=7), workspace(EVERYTHING))

    (answer,) = found.answers
    assert [link.invocation.agent for link in answer.links] == ["root", "a"]
    assert [[(one.id, one.matched) for one in link.grant or ()] for link in answer.links] == [
        [("grant:0", True)],
        [("grant:1", False)],
    ]
    assert found.meaning == "the grant of a run in the chain does not permit it"
    assert [one.text for one in found.suggestions] == ["rows ≤ 4", "a grant for a that permits search"]
    assert found.mended == ()

    forbids = few.replace("permit", "forbid") + "permit (principal, action, resource);"
    (answer,) = explained(searches(run(grant=forbids), rows=1), workspace(EVERYTHING)).answers
    assert [(one.id, one.decided) for one in answer.links[0].grant or ()] == [("grant:0", True), ("grant:0", False)]


def test_a_forbid_that_matches_at_several_links_decided_at_the_first() -> None:
    """The others were not asked any more."""
    (answer,) = explained(searches(run(ancestors=(run("z"),)), rows=501), workspace(EVERYTHING, LIMIT)).answers

    assert [[(one.id, one.matched, one.decided) for one in link.organisation] for link in answer.links] == [
        [("all", True, False), ("limit", True, True)],
        [("all", True, False), ("limit", True, False)],
    ]


def test_a_call_that_may_never_be_made_is_told_by_what_was_decided_before_it() -> None:
    """Forbids of its arguments matched too, or fail, and decided nothing: nobody looked at them."""
    broken = f"""@id("broken") forbid (principal, action == Action::"search", resource)
    when {{ context.input.rows + {LONGEST} > 0 }};"""
    found = explained(searches(run(purpose="x"), rows=501), workspace(CLOSES, LIMIT, broken))

    assert (found.verdict.reason, found.verdict.early) == (Reason.NO_PERMIT, True)
    ((link,),) = [answer.links for answer in found.answers]
    assert [(one.id, one.matched, one.decided) for one in link.organisation] == [
        ("closes", False, False),
        ("limit", True, False),
        ("broken", None, False),
    ]
    found = explained(searches(run(purpose="x"), rows=501), workspace(CLOSES, LIMIT))
    assert [one.text for one in found.suggestions] == ['rows ≤ 500 and principal.purpose == "monthly close"']


def test_what_a_person_can_lift_is_told_so() -> None:
    """Of all links that it stops; without the approval that would have counted for nothing."""
    lift = """@id("lift") @obligation("approval") forbid (principal, action == Action::"search", resource)
    unless { context has approval && context.approval.channel == "desk" };"""
    folder = workspace(EVERYTHING, lift, LIMIT)
    request = searches(run(ancestors=(run("root"),)), rows=1)
    yes = {"channel": "client", "at": request.context["now"]}

    found = explained(request, folder)
    assert found.verdict.reason is Reason.APPROVAL_REQUIRED
    assert found.meaning == MEANINGS[Reason.APPROVAL_REQUIRED]
    assert [[one.id for one in link.organisation if one.decided] for link in found.answers[0].links] == [
        ["lift"],
        ["lift"],
    ]
    assert [one.text for one in found.suggestions] == ["a person's approval"]

    wrong = explained(replace(request, context={**request.context, "approval": yes}), folder)
    assert wrong.verdict.reason is Reason.APPROVAL_UNAVAILABLE
    assert "approval" in wrong.answers[0].request.context
    assert [one.text for one in wrong.suggestions] == ['context.approval.channel == "desk"']

    hard = explained(searches(run(), rows=501), folder)
    asked = searches(run(), rows=501)
    asked = replace(asked, context={**asked.context, "approval": yes})
    denied = explained(asked, folder)
    assert denied.verdict.policy_ids == hard.verdict.policy_ids == ("lift", "limit")
    assert "approval" not in denied.answers[0].request.context


def test_several_resources_are_each_told() -> None:
    """With their own decisions."""
    secret = """@id("secret") forbid (principal, action == Action::"read", resource is Record)
    when { resource.sensitivity == "secret" };"""
    folder = workspace(EVERYTHING, secret)
    requests = [reads(run(), record("r1")), reads(run(), record("r2", sensitivity="secret"), id_="r2")]

    found = explain_requests(requests, folder.policies, workspace=folder)

    assert [answer.decision.reason for answer in found.answers] == [Reason.PERMIT, Reason.POLICY]
    assert found.verdict.policy_ids == ("secret",)
    assert [one.text for one in found.mended] == ["secret did not exist"]


def test_a_policy_that_failed_is_told_with_what_failed() -> None:
    """It counts as an objection; without it, or with another number, the call would pass."""
    broken = f"""@id("broken") @owner("me") permit (principal, action == Action::"search", resource)
    when {{ context.input.rows + {LONGEST} > 0 }};"""
    found = explained(searches(run(), rows=1), workspace(EVERYTHING, broken))

    ((link,),) = [answer.links for answer in found.answers]
    assert [(one.id, one.matched, bool(one.error), one.decided) for one in link.organisation] == [
        ("all", True, False, False),
        ("broken", None, True, True),
    ]
    assert found.meaning.startswith("a policy could not be evaluated, which counts as an objection: policy `broken`")
    assert [one.text for one in found.suggestions] == [f"rows == {-LONGEST}", "rows == 0"]
    assert [one.text for one in found.mended] == ["broken did not exist"]


@pytest.mark.parametrize(
    ("request_", "reason", "said"),
    [
        (searches(run(), rows="1"), Reason.INVALID_ARGUMENT, "the request does not fit the action's schema"),
        (reads(run(), record("r2")), Reason.MISSING_ENTITY, '`Record::"r1"` is not there: list it in'),
        (replace(searches(run()), action="other"), Reason.UNGUARDED, "nothing of the action `other` is guarded"),
    ],
)
def test_what_could_not_be_asked_says_why(request_: AccessRequest, reason: Reason, said: str) -> None:
    """No policy is blamed, and none would have to change."""
    found = explained(request_, workspace(EVERYTHING))

    assert found.verdict.reason is reason
    assert said in found.meaning
    ((link,),) = [answer.links for answer in found.answers]
    assert link.organisation == ()
    assert link.refusal is not None
    assert (found.suggestions, found.mended) == ((), ())


def test_in_a_chain_the_links_that_can_be_asked_are() -> None:
    """A grant that is not valid refuses its own link; an argument that is not, all of them."""
    root = run("root", grant='permit (principal, action == Action::"gone", resource);')
    child = run(ancestors=(root,))

    (answer,) = explained(searches(child), workspace(EVERYTHING)).answers
    (wrong,) = explained(searches(run(ancestors=(run("root"),)), rows="1"), workspace(EVERYTHING)).answers
    (gone,) = explained(replace(searches(child), action="other"), workspace(EVERYTHING)).answers

    assert [link.refusal is None for link in answer.links] == [False, True]
    assert [link.refusal is None for link in wrong.links] == [False, False]
    assert [link.refusal is None for link in gone.links] == [False, False]


def test_a_call_with_facts_is_told_to_have_some() -> None:
    """Other arguments may make other facts."""
    folder = workspace(EVERYTHING, LIMIT)
    request = searches(run(), rows=501)
    verdict = judge([replace(request, context={**request.context, "facts": {}})], folder.policies)

    assert explain(verdict, folder.policies).loose


def test_forbids_that_stand_together_go_together() -> None:
    """Each alone would leave the other; a denial that other policies would give too has no such change."""
    second = LIMIT.replace('"limit"', '"second"')
    together = explained(searches(run(), rows=501), workspace(EVERYTHING, LIMIT, second))
    never = explained(searches(run(purpose="x"), rows=501), workspace(CLOSES, LIMIT))

    (one,) = together.mended
    assert (one.text, one.owners) == ("limit and second did not exist", ("dpo@example.com",))
    assert never.mended == ()


def test_a_permit_would_help_where_none_matches() -> None:
    """For this agent and this tool; with a name that no other policy has."""
    folder = workspace(
        CLOSES, '@id("new-permit") permit (principal in Agent::"z", action == Action::"search", resource);'
    )
    found = explained(searches(run('o"dd'), rows=1), folder)
    delegated = explained(searches(run("b", ancestors=(run("c"),)), rows=1), folder)

    (one,) = found.mended
    assert one.permit == 'permit (principal in Agent::"o\\u{22}dd", action == Action::"search", resource);'
    assert one.text == f"there were a permit such as {one.permit}"
    assert one.owners == ()
    assert delegated.mended == ()


def test_what_no_folder_could_say_is_not_suggested() -> None:
    """An agent that is listed nowhere; and there is nothing to mend where nothing was asked."""
    agents = '[{"uid": {"type": "Agent", "id": "a"}, "attrs": {}, "parents": [{"type": "Group", "id": "g"}]}]'
    folder = workspace(CLOSES, entities=agents)
    stranger = {"uid": {"type": "Agent", "id": "b"}, "attrs": {}, "parents": []}
    verdict = judge([replace(searches(run("b")), entities=(stranger,))], folder.policies)

    assert verdict.reason is Reason.NO_PERMIT
    assert mended(verdict, folder) == ()
    assert mended(replace(verdict, requests=()), folder) == ()
