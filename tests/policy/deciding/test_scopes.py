"""Which scopes would have made a denied call allowed."""

import pytest

from agentguard.model import AccessRequest, Decision, Effect, EntityUid, Invocation, Reason
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.policy.deciding.engine import bearing, decide, never
from agentguard.policy.deciding.scopes import scopes_ever_for, scopes_for
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, reads, record, reference, searches, uid

WRITES = '@id("writes") @scopes("records:write") permit (principal, action == Action::"search", resource)'
WRITER = f'{WRITES} when {{ principal.scopes.contains("records:write") }};'
EXPORTER = """
@id("exporter") @scopes("records:export")
forbid (principal, action == Action::"search", resource)
when { context.input.rows > 10 } unless { principal.scopes.contains("records:export") };
"""


def run(*scopes: str, **facts: object) -> Invocation:
    """Return a run whose token has *scopes*."""
    return unsafe_invocation("reader", scopes=frozenset(scopes), **facts)  # type: ignore[arg-type]


def asked(policies: PolicySet, *requests: AccessRequest) -> tuple[str, ...]:
    """Return the scopes that the first request of several which is denied would need, with all the others."""
    denial = next(answer for answer in (decide(request, policies) for request in requests) if not answer.allowed)
    return scopes_for(denial, requests, policies)


def test_the_scope_that_the_permit_names_is_what_is_missing() -> None:
    """With it, the same call would be allowed."""
    assert asked(policy_set(WRITER), searches(run())) == ("records:write",)


def test_a_policy_without_the_annotation_asks_for_nothing() -> None:
    """That it looks for a scope is its own affair until it says so."""
    assert asked(policy_set(WRITER.replace('@scopes("records:write")', "")), searches(run())) == ()


def test_scopes_that_the_token_has_are_named_if_the_policy_names_them() -> None:
    """A client that asks for just these loses none of what the call needs."""
    both = """
    @id("a") @scopes("records:write records:read") permit (principal, action, resource)
    when { principal.scopes.containsAll(["records:read", "records:write"]) };
    """

    assert asked(policy_set(both), searches(run("records:read", "mail"))) == ("records:read", "records:write")


def test_a_scope_that_would_not_do_is_not_asked_for() -> None:
    """The annotation is a hint; what counts is the decision."""
    wrong = WRITER.replace('@scopes("records:write")', '@scopes("records:wirte")')

    assert asked(policy_set(wrong), searches(run())) == ()


def test_a_forbid_that_no_scope_lifts_leaves_an_ordinary_denial() -> None:
    """Whoever came back with the scope would be denied all the same."""
    policies = policy_set(WRITER, '@id("never") forbid (principal, action, resource) when { context.input has text };')

    assert asked(policies, searches(run())) == ()


def test_permit_and_forbid_are_asked_for_together() -> None:
    """One scope after the other would be two rounds."""
    policies = policy_set(WRITER, EXPORTER)

    assert asked(policies, searches(run(), rows=11)) == ("records:export", "records:write")
    assert asked(policies, searches(run(), rows=1)) == ("records:write",)
    assert asked(policies, searches(run("records:write"), rows=11)) == ("records:export",)


def test_of_two_ways_the_one_with_fewer_new_scopes_is_asked_for() -> None:
    """And of two equals the one that stands first."""
    policies = policy_set(
        """
        @id("admin") @scopes("admin audit") permit (principal, action, resource)
        when { principal.scopes.containsAll(["admin", "audit"]) };
        """,
        WRITER,
        '@id("c") @scopes("late") permit (principal, action, resource) when { principal.scopes.contains("late") };',
    )

    assert asked(policies, searches(run())) == ("records:write",)


def test_a_scope_that_another_policy_forbids_is_tried_alone() -> None:
    """All together would be denied, and one of them would do."""
    policies = policy_set(
        WRITER,
        """
        @id("admin") @scopes("admin") permit (principal, action, resource)
        when { principal.scopes.contains("admin") };
        @id("not-both") forbid (principal, action, resource) when { principal.scopes.contains("admin") };
        """,
    )

    assert asked(policies, searches(run())) == ("records:write",)


def test_no_more_than_eight_ways_are_tried() -> None:
    """A denial must not cost as many decisions as there are policies."""
    dead = [
        f'@id("p{n}") @scopes("s{n}") permit (principal, action, resource) when {{ context.environment == "nowhere" }};'
        for n in range(8)
    ]

    assert asked(policy_set(*dead, WRITER), searches(run())) == ()
    assert asked(policy_set(*dead[1:], WRITER), searches(run())) == ("records:write",)


def test_a_policy_for_another_agent_or_action_does_not_bear_on_the_call() -> None:
    """What it names is nothing that this caller could use, and is not told."""
    policies = policy_set(
        """
        @id("a") @scopes("a") permit (principal in Agent::"other", action, resource)
        when { principal.scopes.contains("a") };
        @id("b") @scopes("b") permit (principal, action == Action::"read", resource)
        when { principal.scopes.contains("b") };
        """
    )

    assert asked(policies, searches(run())) == ()
    assert [policy.id for policy in bearing(run(), "search", policies)] == []
    assert asked(policies, reads(run())) == ("b",)


def test_groups_that_come_with_the_request_count() -> None:
    """A policy for a group bears on those whom a loader puts into it."""
    policies = policy_set(
        """
        @id("a") @scopes("a") permit (principal in Group::"staff", action, resource)
        when { principal.scopes.contains("a") };
        """,
        entities="[]",
        loaders=("Record", "Agent"),
        types="entity Record in [Tool] = { sensitivity: String }; entity Group;",
    )
    agent = {"uid": uid("Agent", "reader"), "attrs": {}, "parents": [uid("Group", "staff")]}
    request = AccessRequest(
        invocation=run(),
        action="search",
        resource=EntityUid("Tool", "search"),
        context=searches().context,
        entities=(agent,),
    )

    assert asked(policies, request) == ("a",)


def test_every_entity_of_a_call_must_be_allowed_with_the_scopes() -> None:
    """A call on two records is stopped by one that no scope opens."""
    policies = policy_set(
        """
        @id("a") @scopes("a") permit (principal, action == Action::"read", resource)
        when { principal.scopes.contains("a") };
        @id("secret") forbid (principal, action == Action::"read", resource)
        when { resource.sensitivity == "secret" };
        """
    )
    open_, secret = reads(run(), record("r1")), reads(run(), record("r2", sensitivity="secret"), id_="r2")

    assert asked(policies, open_) == ("a",)
    assert asked(policies, open_, secret) == ()


def test_a_grant_that_does_not_permit_it_leaves_an_ordinary_denial() -> None:
    """The hypothesis changes the scopes and nothing else."""
    grant = 'permit (principal, action == Action::"read", resource);'

    assert asked(policy_set(WRITER), searches(run(grant=grant))) == ()
    assert asked(policy_set(WRITER, ALL), searches(run(grant=grant))) == ()
    assert asked(policy_set(WRITER), searches(run(grant="permit (principal, action, resource);"))) == ("records:write",)


def test_an_approval_may_still_be_wanted() -> None:
    """With the scope a person could be asked, so the scope is worth getting."""
    policies = policy_set(
        ALL,
        EXPORTER,
        """
        @id("asks") @obligation("approval") forbid (principal, action, resource)
        unless { context has approval };
        """,
    )

    assert asked(policies, searches(run(), rows=11)) == ("records:export",)


def test_a_delegated_run_is_not_sent_for_more() -> None:
    """A child cannot get more than its parent has."""
    child = run(ancestors=(run("records:write"),))

    assert asked(policy_set(WRITER), searches(child)) == ()
    denial = never(child, "search", policy_set(WRITER))
    assert denial is not None
    assert scopes_ever_for(denial, child, "search", policy_set(WRITER)) == ()


@pytest.mark.parametrize(
    "reason", sorted({reason for reason in Reason if reason not in {Reason.POLICY, Reason.NO_PERMIT}})
)
def test_no_other_reason_is_a_missing_scope(reason: Reason) -> None:
    """A missing record, a broken policy or an ended run: more scopes mend none of them."""
    denial = Decision(effect=Effect.DENY, reason=reason)
    policies = policy_set(WRITER)

    assert scopes_for(denial, [searches(run())], policies) == ()
    assert scopes_ever_for(denial, run(), "search", policies) == ()


def test_a_policy_that_fails_to_evaluate_is_mended_by_no_scope() -> None:
    """It would fail with the scope too."""
    policies = policy_set(
        WRITER,
        '@id("broken") forbid (principal, action == Action::"search", resource)'
        " when { context.input.rows + 9223372036854775807 > 0 };",
    )

    assert asked(policy_set(WRITER), searches(run())) == ("records:write",)
    assert scopes_for(decide(searches(run()), policies), [searches(run())], policies) == ()


def test_before_the_arguments_it_is_asked_whether_any_call_could_be_allowed() -> None:
    """What a tool needs in any case is known without an argument."""
    policies = policy_set(WRITER, EXPORTER)
    denial = never(run(), "search", policies)

    assert denial is not None
    assert scopes_ever_for(denial, run(), "search", policies) == ("records:write",)
    assert never(run("records:write"), "search", policies) is None


def test_what_no_scope_opens_names_none() -> None:
    """A caller who may never use a tool learns nothing of what it takes."""
    policies = policy_set(WRITER, '@id("not-you") forbid (principal in Agent::"reader", action, resource);')
    denial = never(run(), "search", policies)

    assert denial is not None
    assert scopes_ever_for(denial, run(), "search", policies) == ()


def test_the_hypothesis_leaves_no_trace() -> None:
    """Nothing is kept under the run, so that its next call is judged by the scopes that it has."""
    policies = policy_set(WRITER)
    request = searches(run())

    assert decide(request, policies, supposing=frozenset({"records:write"})).allowed
    assert decide(request, policies).reason is Reason.NO_PERMIT
    assert never(request.invocation, "search", policies, supposing=frozenset({"records:write"})) is None
    assert never(request.invocation, "search", policies) is not None


def test_a_reference_in_the_resource_is_judged_as_in_the_call() -> None:
    """The hypothesis sees the same entities."""
    policies = policy_set(
        """
        @id("own") @scopes("own") permit (principal, action == Action::"read", resource)
        when { principal.scopes.contains("own") && resource has owner && principal has user
               && resource.owner == principal.user };
        """
    )
    mine, other = record(owner=reference("User", "alice")), record(owner=reference("User", "bob"))

    assert asked(policies, reads(run(user="alice"), mine)) == ("own",)
    assert asked(policies, reads(run(user="alice"), other)) == ()
