import pytest

from agentguard.limits import Limits
from agentguard.model import AccessRequest, Decision, Effect, EntityUid, Invocation, Reason
from agentguard.policy.deciding import engine
from agentguard.policy.deciding.engine import decide, may_ever, never
from agentguard.testing import unsafe_invocation
from tests.policy.records import (
    ALL,
    ENTITIES,
    READ,
    SEARCH,
    TYPES,
    context,
    policy_set,
    reads,
    record,
    reference,
    searches,
    uid,
)

ONLY_READ = 'permit (principal, action == Action::"read", resource);'
ANYTHING = "permit (principal, action, resource);"
READER = '@id("reader") permit (principal in Agent::"reader", action == Action::"read", resource);'
NO_SECRETS = """
@id("no-secrets")
@advice("This record is secret.")
forbid (principal, action, resource is Record) when { resource.sensitivity == "secret" };
"""
OVERFLOWS = """
@id("overflows") forbid (principal, action == Action::"search", resource)
when { context.input.rows + 9223372036854775807 < 0 };
"""


def child(parent: Invocation, agent: str, grant: str | None) -> Invocation:
    """Return a run that *parent* delegated to."""
    return unsafe_invocation(agent, run_id=f"{agent}-run", grant=grant, ancestors=parent.chain)


def test_a_permit_that_matches_allows() -> None:
    """The decision names it, and the version it was made by."""
    policies = policy_set(READER, NO_SECRETS)

    assert decide(reads(), policies) == Decision(
        effect=Effect.ALLOW, reason=Reason.PERMIT, policy_ids=("reader",), policy_version=policies.version
    )


def test_the_same_question_gets_the_same_answer() -> None:
    """From the cache, or not."""
    policies = policy_set(READER, ALL)
    request = reads()

    assert decide(request, policies) == decide(request, policies)
    assert decide(request, policies).policy_ids == ("all", "reader")


def test_a_forbid_that_matches_denies_with_its_advice() -> None:
    """Whatever else permits."""
    decision = decide(reads(None, record(sensitivity="secret")), policy_set(ALL, NO_SECRETS))

    assert decision.reason is Reason.POLICY
    assert decision.policy_ids == ("no-secrets",)
    assert decision.advice == "This record is secret."


def test_the_first_forbid_that_has_advice_gives_it() -> None:
    """In the order of ids, which is the same each time."""
    policies = policy_set(
        ALL,
        '@id("c") @advice("C") forbid (principal, action, resource);',
        '@id("b") @advice("B") forbid (principal, action, resource);',
        '@id("a") forbid (principal, action, resource);',
    )

    decision = decide(reads(), policies)

    assert (decision.policy_ids, decision.advice) == (("a", "b", "c"), "B")


def test_nothing_that_matches_denies() -> None:
    """What is not permitted is forbidden."""
    decision = decide(searches(), policy_set(READER))

    assert (decision.effect, decision.reason, decision.policy_ids) == (Effect.DENY, Reason.NO_PERMIT, ())


def test_a_policy_that_fails_to_evaluate_denies_without_its_values() -> None:
    """Cedar alone would skip it. The numbers that it quotes are arguments, and stay out."""
    decision = decide(searches(), policy_set(ALL, OVERFLOWS))

    assert decision.reason is Reason.POLICY_ERROR
    assert decision.errors == ("policy `overflows` failed: integer overflow while attempting to add the values",)


def test_a_forbid_beside_a_failing_policy_is_the_reason_and_the_error_is_kept() -> None:
    """Both would have denied."""
    policies = policy_set(ALL, OVERFLOWS, '@id("no") forbid (principal, action, resource);')

    decision = decide(searches(), policies)

    assert (decision.reason, decision.policy_ids) == (Reason.POLICY, ("no",))
    assert len(decision.errors) == 1


def test_a_failing_permit_alone_is_an_error_and_not_a_missing_permit() -> None:
    """Whoever reads the record looks for the right thing."""
    policies = policy_set(OVERFLOWS.replace("forbid", "permit"))

    assert decide(searches(), policies).reason is Reason.POLICY_ERROR


def test_an_error_of_an_unknown_form_is_kept_without_its_text() -> None:
    """It may hold values."""
    chosen = policy_set(ALL).organisation(policy_set(ALL).action("read"), frozenset())

    assert engine._named(["odd `secret`", "error while evaluating policy `policy0`: `x` odd"], chosen, 0) == (
        "policy `?` failed: it cannot be evaluated",
        "policy `all` failed: it cannot be evaluated",
    )


def test_an_action_without_a_tool_denies() -> None:
    """It is not guarded."""
    request = AccessRequest(
        invocation=unsafe_invocation("a"), action="delete", resource=EntityUid("Tool", "delete"), context=context()
    )

    assert decide(request, policy_set(ALL)).reason is Reason.UNGUARDED
    assert not may_ever(request.invocation, "delete", policy_set(ALL))


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        (1, 1),
        ("x", "1"),
        ("x", 1.0),
        ("x", None),
        ("x", 2**63),
        ("\ud800", 1),
        ({"__extn": {"fn": "unknown", "arg": "x"}}, 1),
        ("x", {"__extn": {"fn": "unknown", "arg": "x"}}),
        ("x", object()),
    ],
)
def test_a_context_of_other_types_denies(text: object, rows: object) -> None:
    """A policy would compare it with what it never equals."""
    decision = decide(searches(text=text, rows=rows), policy_set(ALL))

    assert decision.reason is Reason.INVALID_ARGUMENT
    assert decision.errors != ()


@pytest.mark.parametrize(
    ("user", "reason"),
    [("alice", Reason.PERMIT), ("carol", Reason.MISSING_ENTITY)],
)
def test_the_approver_has_to_be_known(user: str, reason: Reason) -> None:
    """The context can refer to an entity there, so it has to be present."""
    request = searches()
    approval = {"channel": "x", "at": request.context["now"], "approver": reference("User", user)}

    decision = decide(
        AccessRequest(
            invocation=request.invocation,
            action="search",
            resource=request.resource,
            context={**request.context, "approval": approval},
        ),
        policy_set(ALL),
    )

    assert decision.reason is reason


def test_a_value_in_the_approval_that_is_not_plain_denies() -> None:
    """Here the entity check reads the context itself."""
    request = searches()
    approval = {"channel": {"__expr": "x"}, "at": request.context["now"]}

    decision = decide(
        AccessRequest(
            invocation=request.invocation,
            action="search",
            resource=request.resource,
            context={**request.context, "approval": approval},
        ),
        policy_set(ALL),
    )

    assert decision.reason is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize(
    "entities",
    [
        (record("r2"),),
        (record(owner=reference("User", "carol")),),
        (record(owner=uid("User", "carol")),),
        (record(owner=["User", "carol"]),),
        (record(sensitivity=1),),
        (record(more=1),),
        (record(price={"fn": "unknown", "arg": "x"}),),
        (record(), record(sensitivity="secret")),
        (record(), {"uid": uid("User", "alice"), "attrs": {}, "parents": []}),
        (record(), {"uid": uid("Tool", "read"), "attrs": {}, "parents": []}),
        (record(sensitivity="\ud800"),),
        ({**record(), "parents": [uid("Group", "g")]},),
    ],
)
def test_an_entity_that_is_missing_or_not_as_declared_denies(entities: tuple[dict[str, object], ...]) -> None:
    """In whatever way it is written; two versions of one are no entity either."""
    decision = decide(reads(None, *entities), policy_set(ALL))

    assert decision.reason is Reason.MISSING_ENTITY
    assert decision.errors != ()


@pytest.mark.parametrize(
    "entities",
    [
        (record(owner=reference("User", "alice")),),
        (record(), record()),
        (record(), record("r2")),
        (record(), {"uid": uid("User", "carol"), "attrs": {}, "parents": [uid("Group", "new")]}),
        (record(price={"__extn": {"fn": "decimal", "arg": "1.0"}}, sealed=True),),
    ],
)
def test_entities_that_are_all_there_allow(entities: tuple[dict[str, object], ...]) -> None:
    """From the entity file, from the loaders, or of a type that has nothing to miss."""
    assert decide(reads(None, *entities), policy_set(ALL)).allowed


def test_a_resource_that_is_another_tool_denies() -> None:
    """Only the tool that is called is there."""
    request = AccessRequest(
        invocation=unsafe_invocation("a"),
        action="search",
        resource=EntityUid("Tool", "read"),
        context=context(text="x", rows=1),
    )

    assert decide(request, policy_set(ALL)).reason is Reason.MISSING_ENTITY


def test_a_resource_of_another_type_denies() -> None:
    """The action's schema says what it acts on."""
    request = AccessRequest(
        invocation=unsafe_invocation("a"),
        action="read",
        resource=EntityUid("Server", "records"),
        context=context(id="x"),
    )

    assert decide(request, policy_set(ALL)).reason is Reason.INVALID_ARGUMENT


def test_a_user_that_nobody_knows_denies() -> None:
    """Users are in groups here, and hers are not known."""
    policies = policy_set(ALL)

    assert decide(reads(unsafe_invocation("a", user="alice")), policies).allowed
    assert decide(reads(unsafe_invocation("a", user="carol")), policies).reason is Reason.MISSING_ENTITY
    carol: dict[str, object] = {"uid": uid("User", "carol"), "attrs": {}, "parents": []}
    assert decide(reads(unsafe_invocation("a", user="carol"), record(), carol), policies).allowed


def test_more_entities_than_the_limit_deny() -> None:
    """Before they are looked at."""
    policies = policy_set(ALL, limits=Limits(entities_per_request=2))

    assert decide(reads(None, record(), record("r2")), policies).allowed
    assert decide(reads(None, record(), record("r2"), record("r3")), policies).reason is Reason.MISSING_ENTITY


def test_a_group_that_a_loader_brings_counts_for_the_slice() -> None:
    """Which policies could apply depends on what the agent is in."""
    policies = policy_set(
        '@id("team") permit (principal in Group::"team", action, resource);',
        '@id("top") permit (principal in Group::"top", action, resource);',
        loaders=["Record", "Agent"],
    )
    invocation = unsafe_invocation("a")

    def agent(*groups: str) -> dict[str, object]:
        return {"uid": uid("Agent", "a"), "attrs": {}, "parents": [uid("Group", group) for group in groups]}

    assert decide(reads(invocation, record(), agent("team", "top")), policies).policy_ids == ("team", "top")
    assert decide(reads(invocation, record(), agent("team")), policies).policy_ids == ("team",)
    assert decide(reads(invocation, record(), agent()), policies).reason is Reason.NO_PERMIT
    assert decide(reads(invocation, record()), policies).reason is Reason.MISSING_ENTITY
    assert may_ever(invocation, "read", policies)
    assert may_ever(invocation, "read", policies, [agent("team")])
    assert not may_ever(invocation, "read", policies, [agent()])


def test_a_grant_has_to_permit_too() -> None:
    """The organisation's permit is not enough, nor is the grant's."""
    policies = policy_set(READER)
    reader = unsafe_invocation("reader", grant=ONLY_READ)

    assert decide(reads(reader), policies).policy_ids == ("reader", "grant:0")
    assert decide(searches(unsafe_invocation("other", grant=ANYTHING)), policies).reason is Reason.NO_PERMIT
    assert decide(searches(reader), policy_set(ALL)).reason is Reason.GRANT
    assert decide(searches(reader), policies).reason is Reason.NO_PERMIT


def test_a_forbid_of_the_grant_is_the_grants() -> None:
    """The organisation did not object."""
    grant = f'{ANYTHING} forbid (principal, action == Action::"search", resource);'

    decision = decide(searches(unsafe_invocation("a", grant=grant)), policy_set(ALL))

    assert (decision.reason, decision.policy_ids, decision.advice) == (Reason.GRANT, ("grant:0",), None)


def test_a_grant_that_is_not_valid_denies() -> None:
    """The detail is kept for the evidence."""
    decision = decide(searches(unsafe_invocation("a", grant="permit")), policy_set(ALL))

    assert decision.reason is Reason.GRANT
    assert decision.errors[0].startswith("the grant is not valid")
    assert not may_ever(unsafe_invocation("a", grant="permit"), "search", policy_set(ALL))


def test_every_link_has_to_be_allowed_root_first() -> None:
    """The permits of all are named; a denial tells whose it is."""
    policies = policy_set(READER, '@id("search") permit (principal in Agent::"exporter", action, resource);')
    reader = unsafe_invocation("reader", grant=ANYTHING)
    exporter = child(reader, "exporter", ANYTHING)

    allowed = decide(reads(exporter), policies)
    assert allowed.policy_ids == ("reader", "search", "grant:0", "grant:1")
    assert allowed.link == 1
    denied = decide(searches(exporter), policies)
    assert (denied.reason, denied.link) == (Reason.NO_PERMIT, 0)
    narrow = decide(reads(child(reader, "exporter", ONLY_READ.replace("read", "search"))), policies)
    assert (narrow.reason, narrow.link) == (Reason.GRANT, 1)


def test_a_refusal_names_its_link() -> None:
    """It was the child's grant that is not valid."""
    decision = decide(reads(child(unsafe_invocation("reader", grant=ANYTHING), "x", "permit")), policy_set(ALL))

    assert (decision.reason, decision.link) == (Reason.GRANT, 1)


def test_answers_that_are_too_many_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is decided otherwise for it."""
    monkeypatch.setattr(engine, "_ANSWERS", 1)
    policies = policy_set(ALL, NO_SECRETS)
    invocation = unsafe_invocation("a")
    secret = reads(invocation, record(sensitivity="secret"))

    assert [decide(request, policies).allowed for request in (reads(invocation), secret, reads(invocation))] == [
        True,
        False,
        True,
    ]
    read = policies.action("read")
    link = policies.link(invocation, read)
    assert len(policies.slice(link, read, link.closure).answers) == 1


@pytest.mark.parametrize(
    ("policies", "action", "possible"),
    [
        ((READER,), "read", True),
        ((READER,), "search", False),
        ((ALL, '@id("no") forbid (principal, action, resource);'), "read", False),
        ((ALL, '@id("no") forbid (principal, action == Action::"search", resource);'), "search", False),
        ((ALL, NO_SECRETS), "read", True),
        ((ALL, OVERFLOWS), "search", True),
        (('@id("no") permit (principal in Agent::"other", action, resource);',), "read", False),
        (('@id("no") permit (principal, action, resource) when { principal has task };',), "read", False),
        (('@id("yes") permit (principal, action, resource) when { principal.grade == "run" };',), "read", True),
        (('@id("t") permit (principal, action, resource == Tool::"search");',), "search", True),
        (('@id("s") permit (principal, action, resource in Server::"other");',), "search", False),
        (('@id("r") permit (principal, action, resource is Record);',), "read", True),
    ],
)
def test_what_can_never_be_allowed_is_told_before_the_arguments_are_known(
    policies: tuple[str, ...], action: str, possible: bool
) -> None:
    """Everything that depends on them counts as possible."""
    compiled = policy_set(*policies)
    invocation = unsafe_invocation("reader")

    assert may_ever(invocation, action, compiled) is possible
    assert may_ever(invocation, action, compiled) is possible


def test_a_grant_or_an_ancestor_can_make_it_impossible() -> None:
    """Every link counts."""
    policies = policy_set(ALL)
    reader = unsafe_invocation("reader", grant=ONLY_READ)

    assert may_ever(reader, "read", policies)
    assert not may_ever(reader, "search", policies)
    assert not may_ever(child(reader, "x", ANYTHING), "search", policies)


def test_what_is_missing_before_the_call_may_be_there_at_the_call() -> None:
    """A doubt is not a no."""
    policies = policy_set('@id("a") permit (principal in Agent::"other", action, resource);')

    assert may_ever(unsafe_invocation("a", user="carol"), "read", policies)
    assert not may_ever(unsafe_invocation("a", user="alice"), "read", policies)


def test_policies_may_name_what_the_entity_file_has() -> None:
    """Such entities are present in every request."""
    policies = policy_set(
        '@id("a") permit (principal, action, resource) when { User::"alice" in Group::"staff" };',
        '@id("b") permit (principal, action, resource) when { User::"bob" in Group::"staff" };',
    )

    assert decide(reads(), policies).policy_ids == ("a",)


def test_the_schema_of_all_tools_is_not_needed_for_one() -> None:
    """A decision is the same with the other tools and without them."""
    alone = policy_set(ALL, NO_SECRETS, tools=[READ])
    assert (
        decide(reads(), alone).policy_ids
        == decide(reads(), policy_set(ALL, NO_SECRETS, tools=[READ, SEARCH])).policy_ids
    )


ASK = """
@id("ask") @obligation("approval") @advice("A person has to approve this.")
forbid (principal, action, resource) unless { context has approval };
"""


@pytest.mark.parametrize(
    ("more", "reason", "advice"),
    [
        ("", Reason.APPROVAL_UNAVAILABLE, "A person has to approve this."),
        ('@id("no") forbid (principal, action, resource);', Reason.POLICY, None),
    ],
)
def test_a_forbid_that_a_person_can_lift_is_told_apart_if_it_is_all_that_stands_in_the_way(
    more: str, reason: Reason, advice: str | None
) -> None:
    """It forbids all the same, and its advice is kept from whoever another one would still stop."""
    decision = decide(searches(), policy_set(ALL, ASK, more))

    assert (decision.effect, decision.reason) == (Effect.DENY, reason)
    assert decision.advice == advice


def test_a_forbid_of_the_grant_cannot_be_lifted() -> None:
    """A person lifts what the organisation says, not what the run was given."""
    grant = f"{ANYTHING} forbid (principal, action, resource);"

    assert decide(searches(unsafe_invocation("a", grant=grant)), policy_set(ALL, ASK)).reason is Reason.POLICY


def test_a_record_of_the_entity_file_is_in_the_tool_that_acts_on_it() -> None:
    """So a policy may say which tool's records it means, wherever they are known from."""
    in_file = (
        '{ "uid": { "type": "Record", "id": "r9" }, "attrs": { "sensitivity": "normal", '
        '"owner": { "__entity": { "type": "User", "id": "alice" } } }, "parents": [] }'
    )
    policies = policy_set(
        '@id("in") permit (principal, action, resource in Tool::"read");',
        entities=f"{ENTITIES[:-1]}, {in_file}]",
        loaders=[],
    )
    request = AccessRequest(
        invocation=unsafe_invocation("a"), action="read", resource=EntityUid("Record", "r9"), context=context(id="r9")
    )

    assert decide(request, policies).policy_ids == ("in",)
    assert decide(reads(None, record("r8"), id_="r8"), policies).policy_ids == ("in",)


def test_a_record_that_another_entity_refers_to_is_there_too() -> None:
    """As it stands in the entity file, unless it is what the call acts on."""
    in_file = '{ "uid": { "type": "Record", "id": "r9" }, "attrs": { "sensitivity": "secret" }, "parents": [] }'
    policies = policy_set(
        '@id("a") permit (principal, action, resource) when { principal.agent.record.sensitivity == "secret" };',
        types=f"{TYPES} entity Agent = {{ record: Record }};",
        entities=f"""{ENTITIES[:-1]}, {in_file}, {{ "uid": {{ "type": "Agent", "id": "a" }}, "parents": [],
        "attrs": {{ "record": {{ "__entity": {{ "type": "Record", "id": "r9" }} }} }} }}]""",
        loaders=[],
    )

    assert decide(reads(unsafe_invocation("a")), policies).policy_ids == ("a",)
    own = AccessRequest(
        invocation=unsafe_invocation("a"), action="read", resource=EntityUid("Record", "r9"), context=context(id="r9")
    )
    assert decide(own, policies).policy_ids == ("a",)


def test_the_denial_that_every_call_would_get_names_its_policies() -> None:
    """As far as they are known before the arguments are."""
    policies = policy_set(ALL, '@id("no") @advice("Never.") forbid (principal in Agent::"a", action, resource);')

    denial = never(unsafe_invocation("a"), "search", policies)

    assert denial is not None
    assert (denial.reason, denial.policy_ids, denial.advice) == (Reason.POLICY, ("no",), "Never.")
    assert never(unsafe_invocation("b"), "search", policies) is None
    nothing = never(
        unsafe_invocation("b"), "search", policy_set('@id("x") forbid (principal, action, resource) when { false };')
    )
    assert nothing is not None
    assert nothing.reason is Reason.NO_PERMIT


def test_an_approval_does_not_lift_what_cannot_be_evaluated() -> None:
    """Nobody is asked to approve a call that a broken policy denies too."""
    decision = decide(searches(), policy_set(ALL, ASK, OVERFLOWS))

    assert (decision.reason, decision.policy_ids) == (Reason.POLICY_ERROR, ("ask",))
    assert len(decision.errors) == 1


def test_links_without_a_grant_are_told_apart() -> None:
    """The same policies give the same answer, and it is not the same link that it is about."""
    policies = policy_set(ALL)
    parent = unsafe_invocation("a")

    assert decide(searches(parent), policies).link == 0
    assert decide(searches(child(parent, "b", None)), policies).link == 1


def test_policies_of_one_action_do_not_answer_for_another() -> None:
    """A slice that was made for reading has no forbid on searching in it."""
    policies = policy_set(ALL, '@id("no") forbid (principal, action == Action::"search", resource);')
    invocation = unsafe_invocation("a")

    for _ in range(2):
        assert decide(reads(invocation), policies).allowed
        assert decide(searches(invocation), policies).policy_ids == ("no",)
        assert may_ever(invocation, "read", policies)
        assert not may_ever(invocation, "search", policies)


def test_what_loaders_know_of_a_run_is_not_remembered_for_the_next_call() -> None:
    """An agent that is taken into a group may at once what its group may, and the other way round."""
    policies = policy_set(
        '@id("team") permit (principal in Group::"team", action, resource);', loaders=["Record", "Agent"]
    )
    invocation = unsafe_invocation("a")

    def agent(*groups: str) -> dict[str, object]:
        return {"uid": uid("Agent", "a"), "attrs": {}, "parents": [uid("Group", group) for group in groups]}

    assert not may_ever(invocation, "read", policies, [agent()])
    assert may_ever(invocation, "read", policies)
    assert may_ever(invocation, "read", policies, [agent("team")])
    assert not may_ever(invocation, "read", policies, [agent()])


def test_a_record_that_is_not_what_the_call_acts_on_is_not_in_its_tool() -> None:
    """Only what a call acts on is in the tool, and it stays in what the entity file says too."""
    in_file = """{ "uid": { "type": "Folder", "id": "f" }, "attrs": {}, "parents": [] },
    { "uid": { "type": "Record", "id": "r9" }, "attrs": { "sensitivity": "secret" },
      "parents": [{ "type": "Folder", "id": "f" }] },
    { "uid": { "type": "Agent", "id": "a" }, "parents": [],
      "attrs": { "record": { "__entity": { "type": "Record", "id": "r9" } } } }"""
    policies = policy_set(
        ALL,
        '@id("tool") forbid (principal, action, resource) when { principal.agent.record in Tool::"read" };',
        '@id("folder") forbid (principal, action == Action::"read", resource in Folder::"f");',
        types="""entity Folder; entity Agent = { record: Record };
        entity Record in [Tool, Folder] = { sensitivity: String };""",
        entities=f"{ENTITIES[:-1]}, {in_file}]",
        loaders=[],
    )
    invocation = unsafe_invocation("a")
    own = AccessRequest(
        invocation=invocation, action="read", resource=EntityUid("Record", "r9"), context=context(id="r9")
    )

    assert decide(reads(invocation), policies).allowed
    assert decide(own, policies).policy_ids == ("folder", "tool")


def test_an_entity_that_does_not_fit_is_not_quoted() -> None:
    """Its id may be private, and its attributes are."""
    one = record("alices-record")
    for entities in ((record("alices-record", sensitivity=5),), (one, record("alices-record", sensitivity="secret"))):
        decision = decide(reads(None, *entities, id_="alices-record"), policy_set(ALL))

        assert decision.reason is Reason.MISSING_ENTITY
        assert decision.errors[0].startswith("the entities are not as the schema says: ")
        assert "alice" not in str(decision.errors)


def asks_of(agent: str) -> str:
    """Return a forbid on an agent that a person can lift."""
    return (
        f'@id("ask-{agent}") @obligation("approval") '
        f'forbid (principal in Agent::"{agent}", action, resource) unless {{ context has approval }};'
    )


@pytest.mark.parametrize(
    ("policies", "reason", "ids", "link"),
    [
        ([asks_of("a")], Reason.APPROVAL_UNAVAILABLE, ("ask-a",), 0),
        ([asks_of("b")], Reason.APPROVAL_UNAVAILABLE, ("ask-b",), 1),
        ([asks_of("a"), asks_of("b")], Reason.APPROVAL_UNAVAILABLE, ("ask-a", "ask-b"), 0),
        (
            [asks_of("a"), '@id("never") forbid (principal in Agent::"b", action, resource);'],
            Reason.POLICY,
            ("never",),
            1,
        ),
    ],
)
def test_what_no_person_can_lift_comes_first_at_whichever_link(
    policies: list[str], reason: Reason, ids: tuple[str, ...], link: int
) -> None:
    """Whoever is asked about a delegated call hears of all that a yes would lift."""
    request = searches(child(unsafe_invocation("a"), "b", None))

    decision = decide(request, policy_set(ALL, *policies))

    assert (decision.reason, decision.policy_ids, decision.link) == (reason, ids, link)
