from dataclasses import replace

import pytest

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import EntityUid, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding import compiled
from agentguard.policy.deciding.compiled import PolicySet
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, READ, policy_set, tool

GRANT = 'permit (principal, action == Action::"read", resource);'


@pytest.fixture
def policies() -> PolicySet:
    """Return policies of which one names an agent and one an action."""
    return policy_set(
        ALL,
        '@id("mine") permit (principal in Agent::"a", action, resource);',
        '@id("search") permit (principal, action == Action::"search", resource);',
    )


def test_an_action_that_no_tool_has_is_refused(policies: PolicySet) -> None:
    """What is not guarded here is not decided here."""
    with pytest.raises(Refusal) as caught:
        policies.action("delete")

    assert caught.value.reason is Reason.UNGUARDED


def test_an_invocation_is_prepared_once_for_each_action(policies: PolicySet) -> None:
    """A second run of the same agent is another one."""
    one, two = unsafe_invocation("a", run_id="r"), unsafe_invocation("a", run_id="r")
    read, search = policies.action("read"), policies.action("search")

    assert policies.link(one, read) is policies.link(one, read)
    assert policies.link(one, read) is not policies.link(one, search)
    assert policies.link(one, read) is not policies.link(two, read)


def test_what_many_runs_leave_behind_is_bounded() -> None:
    """Each run would otherwise keep its entities and policies for as long as its token is remembered."""
    policies = policy_set(
        ALL, *(f'@id("p{n}") permit (principal in Agent::"{n}", action, resource);' for n in range(3))
    )
    read = policies.action("read")
    runs = [unsafe_invocation(str(n), grant=f"{GRANT} // {n % 1_100}") for n in range(1_200)]

    links = [policies.link(run, read) for run in runs]
    for link in links:
        policies.slice(link, read, link.closure)

    assert (len(policies._links), len(policies._grants)) == (1_000, 1_000)
    assert policies.link(runs[-1], read) is links[-1]
    assert policies.link(runs[0], read) is not links[0]


def test_slices_are_bounded_by_the_policies_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large folder makes large slices, and each agent or grant that is named makes another."""
    monkeypatch.setattr(compiled, "_KEPT_POLICIES", 30)
    policies = policy_set(
        ALL, *(f'@id("p{n}") permit (principal in Agent::"{n}", action, resource);' for n in range(9))
    )
    read = policies.action("read")
    links = [policies.link(unsafe_invocation(str(n), grant=GRANT), read) for n in range(9)]
    first = policies.slice(links[0], read, links[0].closure)

    for link in links:
        policies.slice(link, read, link.closure)

    # Each has two policies and its grant, and counts ten more.
    assert (len(policies._slices), len(policies._granted)) == (2, 2)
    again = policies.slice(links[0], read, links[0].closure)
    assert again is not first
    assert again.names == first.names


def test_runs_with_the_same_grant_share_their_policies(policies: PolicySet) -> None:
    """A copy for each run and action came to gigabytes."""
    read = policies.action("read")
    one, two, other = (policies.link(unsafe_invocation("b", grant=text), read) for text in (GRANT, GRANT, f" {GRANT}"))

    shared = policies.slice(one, read, one.closure)

    assert policies.slice(two, read, two.closure) is shared
    assert policies.slice(other, read, other.closure) is not shared


def test_slices_hold_what_could_decide_and_are_shared(policies: PolicySet) -> None:
    """Two runs that are in the same named entities need the same policies."""
    read = policies.action("read")
    mine, others = (policies.link(unsafe_invocation(agent), read) for agent in ("a", "b"))

    assert set(policies.slice(mine, read, mine.closure).names.values()) == {"all", "mine"}
    assert set(policies.slice(others, read, others.closure).names.values()) == {"all"}
    more = policies.link(unsafe_invocation("c"), read)
    assert policies.organisation(read, more.closure) is policies.organisation(read, others.closure)


def test_a_grant_stands_behind_the_organisations_policies(policies: PolicySet) -> None:
    """The ids of those that were there stay, so the others are the grant's."""
    read = policies.action("read")
    link = policies.link(unsafe_invocation("b", grant=GRANT + GRANT), read)

    chosen = policies.slice(link, read, link.closure)

    assert chosen.names == {"policy0": "all"}
    assert chosen.granted
    assert len(chosen.handle) == 3


@pytest.mark.parametrize(
    ("grant", "detail"),
    [
        ("", "the grant is not valid: a grant wants a `permit`, got none"),
        ("permit (principal, action, resource)", "the grant is not valid: "),
        ("#", "the grant is not valid: "),
        ("\ud800", "the grant is not valid: "),
        (GRANT.replace("read", "reads"), "the grant names `reads`, which is no tool here: did you mean `read`?"),
        (
            GRANT.replace("read", "zap"),
            "the grant names `zap`, which is no tool here: grant tools that this server has",
        ),
        (
            GRANT.replace(";", " when { context.nothing };"),
            "the grant is not valid here: attribute `nothing` in context",
        ),
        (f'@id("x") {GRANT}', "the grant is not valid: "),
        (f"{GRANT} // {'x' * 4096}", "the grant is not valid: a grant holds at most 4096 bytes"),
        (
            'permit (principal, action, resource) when { User::"alice" in Group::"staff" };',
            "the grant asks about an entity that the request does not bring",
        ),
        (
            'permit (principal, action, resource) when { principal == Agent::"\\u{0_1}" };',
            "the grant is not valid",
        ),
    ],
)
def test_a_grant_that_is_not_valid_here_is_refused_each_time(policies: PolicySet, grant: str, detail: str) -> None:
    """It is looked at once, and the answer kept."""
    for _ in range(2):
        with pytest.raises(Refusal) as caught:
            policies.link(unsafe_invocation("a", grant=grant), policies.action("read"))

        assert caught.value.reason is Reason.GRANT
        assert caught.value.detail.startswith(detail)


@pytest.mark.parametrize(
    ("condition", "detail"),
    [
        ("context.input has path", "the grant asks for argument `path` of `look`, which policies do not see"),
        ("context.input has text", None),
    ],
)
def test_a_grant_that_takes_out_what_it_never_sees_is_refused(condition: str, detail: str | None) -> None:
    """`has` is quietly false there, and the grant would reach further than whoever wrote it meant."""
    look = replace(tool("look", record_of({"text": Field(str)}, where="look")), unseen=("path",))
    read = 'permit (principal, action == Action::"read", resource) when { context.input has path };'
    grant = f"permit (principal, action, resource) unless {{ {condition} }}; {read}"
    policies = policy_set(ALL, tools=[READ, look])
    refused = None
    try:
        policies.link(unsafe_invocation("a", grant=grant), policies.action("read"))
    except Refusal as refusal:
        refused = refusal.detail

    assert refused == detail


def test_a_claim_of_another_type_than_declared_is_refused() -> None:
    """A policy would compare it with what it never equals."""
    policies = policy_set(ALL, claims={"level": int})

    with pytest.raises(Refusal) as caught:
        policies.link(unsafe_invocation("a", claims={"level": "3"}), policies.action("read"))

    assert caught.value.reason is Reason.INTERNAL_ERROR
    assert caught.value.detail == "the invocation does not fit the schema: entity does not conform to the schema"
    assert policies.link(unsafe_invocation("a", claims={"level": 3}), policies.action("read")).unresolved == set()


def test_what_a_run_is_in_is_known_as_far_as_the_entity_file_goes() -> None:
    """Groups of groups too; what only a request can bring is told."""
    entities = """[
      { "uid": { "type": "Agent", "id": "a" }, "attrs": {}, "parents": [{ "type": "Group", "id": "inner" }] },
      { "uid": { "type": "Group", "id": "inner" }, "attrs": {}, "parents": [{ "type": "Group", "id": "outer" }] },
      { "uid": { "type": "Group", "id": "outer" }, "attrs": {}, "parents": [] }
    ]"""
    policies = policy_set(ALL, types="entity Group in [Group];", entities=entities, loaders=[])
    read = policies.action("read")

    known = policies.link(unsafe_invocation("a", run_id="r", task="t"), read)
    assert known.closure == {
        ("Invocation", "r"), ("Agent", "a"), ("Task", "t"), ("Group", "inner"), ("Group", "outer"),
    }  # fmt: skip
    assert known.unresolved == set()
    assert policies.link(unsafe_invocation("b"), read).unresolved == {("Agent", "b")}
    assert policies.missing({("Agent", "b"), ("Task", "t"), ("Nothing", "n")}) == {"Agent"}


def test_a_set_is_activated_by_whoever_uses_it(policies: PolicySet) -> None:
    """Compiling has no clock."""
    assert policies.activated_at is None
    policies.activated_at = 7
    assert policies.activated_at == 7
    assert policies.static_uids == {EntityUid("User", "alice"), EntityUid("User", "bob")}
    assert policies.limits == Limits()
