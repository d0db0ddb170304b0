"""Who may do what: what is proved holds for every call, and what is left is what is asked of it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Final

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from agentguard.analysis.proofs.access import Access, May, Who, access, agents_of
from agentguard.analysis.supposed import requests_of
from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace
from agentguard.errors import PolicyError
from agentguard.model import AccessRequest, EntityUid, Grade
from agentguard.policy.conversion.scalars import CedarJson
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.trial import holds
from tests.analysis.folders import NOW, opened, read

ANYTHING: Final = '@id("anything") permit (principal, action, resource);'
BILLING, SUPPORT, MAILER = (EntityUid("Agent", f"{name}-agent") for name in ("billing", "support", "mailer"))
ALICE, BOB = EntityUid("User", "alice"), EntityUid("User", "bob")
APPROVAL: Final[dict[str, CedarJson]] = {
    "channel": "client",
    "at": {"__extn": {"fn": "datetime", "arg": "2026-11-24T10:00:00.000Z"}},
}


def asked(
    folder: Path,
    policies: str,
    *,
    agent: EntityUid | None = None,
    user: EntityUid | None = None,
    action: str = "read_record",
) -> Access:
    """Return who may do what under these policies of the records server."""
    return access(opened(folder, policies), action, Who(agent=agent, user=user))


def when(folder: Path, condition: str, *, agent: EntityUid | None = None, user: EntityUid | None = None) -> str:
    """Return what is left of a condition."""
    policy = f'@id("a") permit (principal, action == Action::"read_record", resource) when {{ {condition} }};'
    return asked(folder, policy, agent=agent, user=user).condition


IS_STAFF: Final = 'principal has user && principal.user in Group::"support-staff"'


@pytest.mark.parametrize(
    ("condition", "left"),
    [
        ("true", "true"),
        ('principal in Agent::"support-agent"', "true"),
        ('principal in Agent::"billing-agent"', "false"),
        ('principal in Group::"suspended"', "false"),
        ('principal is Invocation in Agent::"support-agent"', "true"),
        ('principal is Invocation in Agent::"billing-agent"', "false"),
        ('principal is Invocation in Task::"a"', 'principal is Invocation in Task::"a"'),
        ("context.input has record_id", "true"),
        ("context has approval.approver", "context has approval.approver"),
        ("context has local.minute", "context has local.minute"),
        ("context has local && context.local has minute", "true"),
        ('principal.agent in Group::"suspended"', "false"),
        ('principal in [Agent::"billing-agent", Agent::"support-agent"]', "true"),
        ('principal in [Agent::"billing-agent", Agent::"mailer-agent"]', "false"),
        ('principal.agent == Agent::"support-agent"', "true"),
        ('principal.agent != Agent::"support-agent"', "false"),
        ('Agent::"billing-agent" == principal.agent', "false"),
        ("principal has user", "true"),
        ("!(principal has user)", "false"),
        ("principal has task", "principal has task"),
        (IS_STAFF, "true"),
        ('principal has user && principal.user == User::"bob"', "false"),
        ('principal has user && [User::"bob", User::"alice"].contains(principal.user)', "true"),
        ('[Agent::"mailer-agent"].contains(principal.agent)', "false"),
        ("principal has user && [principal.user].contains(principal.user)", "true"),
        ('[resource.patient].contains(Patient::"a")', '[resource.patient].contains(Patient::"a")'),
        ("principal is Invocation", "true"),
        ('action in Action::"read-only"', "true"),
        ("principal has task || principal has user", "true"),
        ('principal.agent == Agent::"mailer-agent" || principal has task', "principal has task"),
        ('principal has task || principal.agent == Agent::"mailer-agent"', "principal has task"),
        ('principal has task && principal.agent == Agent::"mailer-agent"', "false"),
        ("principal has task || principal has purpose", "principal has task || principal has purpose"),
        ('(principal has task || principal.grade == "run") && resource.sensitivity == "normal"',
         '(principal has task || principal.grade == "run") && resource.sensitivity == "normal"'),
        ('!(principal has task && principal.grade == "run")', '!(principal has task && principal.grade == "run")'),
        ("!!(principal has task)", "principal has task"),
        ('if principal has user then principal.grade == "run" else true', 'principal.grade == "run"'),
        ('if !(principal has user) then principal.grade == "run" else false', "false"),
        ("if principal has task then true else principal has user", "true"),
        ("if principal has task then false else !(principal has user)", "false"),
        ('(if principal has task then principal.grade == "run" else false) || resource.sensitivity == "normal"',
         '(if principal has task then principal.grade == "run" else false) || resource.sensitivity == "normal"'),
        ('context.input.record_id // the one\n == "r//1"', 'context.input.record_id == "r//1"'),
        ("principal.delegation_depth + 1 > 0", "principal.delegation_depth + 1 > 0"),
        ("principal.delegation_depth + 1 > 0 || true", "principal.delegation_depth + 1 > 0 || true"),
        ('principal has task && principal.task in Task::"a"', 'principal has task && principal.task in Task::"a"'),
        ("resource in principal.agent", "false"),
    ],
)  # fmt: skip
def test_what_is_left_of_a_condition(tmp_path: Path, condition: str, left: str) -> None:
    """Of what is known of agent and user nothing, and of the rest what it was."""
    assert when(tmp_path, condition, agent=SUPPORT, user=ALICE) == left


@pytest.mark.parametrize("condition", ['principal in Agent::"support-agent"', "principal has user", IS_STAFF])
def test_what_is_not_given_is_unknown(tmp_path: Path, condition: str) -> None:
    """Nothing is claimed of an agent or a user that was not named."""
    assert when(tmp_path, condition) == condition


def test_always_is_proved_from_all_policies(tmp_path: Path) -> None:
    """A forbid that could match is enough for sometimes, and a policy that could fail too."""
    forbid = (
        '@id("no") forbid (principal, action, resource) when { principal has user && principal.user == User::"bob" };'
    )

    assert asked(tmp_path, ANYTHING).may is May.ALWAYS
    assert asked(tmp_path, ANYTHING).why == "by anything"
    assert asked(tmp_path, ANYTHING + forbid).may is May.SOMETIMES
    assert asked(tmp_path, ANYTHING + forbid, user=ALICE).may is May.ALWAYS
    failing = '@id("b") permit (principal, action, resource) when { principal.delegation_depth + 1 < 0 };'
    assert asked(tmp_path, ANYTHING + failing).may is May.SOMETIMES


def test_never_says_why(tmp_path: Path) -> None:
    """No permit, a forbid that always matches, or policies that contradict each other."""
    stop = '@id("stop") forbid (principal, action in Action::"destructive", resource);'
    task = '@id("task") permit (principal, action, resource) when { principal has task };'
    none = '@id("none") forbid (principal, action, resource) when { principal has task };'
    other = '@id("other") permit (principal in Agent::"billing-agent", action, resource);'

    assert asked(tmp_path, other, agent=SUPPORT).why == "no permit can match"
    assert asked(tmp_path, ANYTHING + stop, action="delete_record").why == "stop always stops it"
    assert asked(tmp_path, task + none).why == "whatever permits it, something forbids it or it cannot be"
    assert asked(tmp_path, task + none).condition == "false"
    assert [one.policy.id for one in asked(tmp_path, task + none).permits] == ["task"]


def test_contradiction_among_very_many_policies_is_not_looked_for(tmp_path: Path) -> None:
    """Nothing is claimed then: it is sometimes, with what is left of each."""
    task = "".join(
        f'@id("task-{at}") permit (principal, action, resource) when {{ principal has task }};' for at in range(50)
    )
    none = '@id("none") forbid (principal, action, resource) when { principal has task };'

    found = asked(tmp_path, task + none)

    assert (found.may, found.permits[0].when) == (May.SOMETIMES, "principal has task")


def test_policy_that_may_fail_is_told(tmp_path: Path) -> None:
    """Whatever it would permit: an evaluation that fails denies the call, and no condition says so."""
    failing = '@id("b") permit (principal, action, resource) when { principal.delegation_depth + 1 > 0 };'

    found = asked(tmp_path, ANYTHING + failing)
    both = asked(tmp_path, ANYTHING + failing + failing.replace('"b"', '"c"').replace("permit", "forbid"))

    assert (found.may, found.condition, found.why) == (May.SOMETIMES, "true", "denied where b cannot be evaluated")
    assert both.why == "denied where b or c cannot be evaluated"


def test_calculation_with_written_numbers_does_not_fail(tmp_path: Path) -> None:
    """`8 * 60` is a number."""
    hours = '@id("b") permit (principal, action, resource) when { context.local.minute < 8 * 60 };'
    failing = hours.replace("8 * 60", "9223372036854775807 * 60")

    assert asked(tmp_path, hours).why == ""
    assert asked(tmp_path, failing).why == "denied where b cannot be evaluated"


def test_who_is_not_listed_may_nothing(tmp_path: Path) -> None:
    """As soon as agents or users are listed, a call of another is denied."""
    found = asked(tmp_path, ANYTHING, agent=EntityUid("Agent", "other"))

    assert (found.may, found.why, found.permits) == (
        May.NEVER,
        "its agent is not listed in cedarentities.json",
        (),
    )
    assert asked(tmp_path, ANYTHING, user=EntityUid("User", "carol")).why == (
        "its user is not listed in cedarentities.json"
    )


def test_who_has_to_be_listed_is_told(tmp_path: Path) -> None:
    """Always is said of those alone: a call on behalf of a user that nobody lists is denied."""
    found = asked(tmp_path, ANYTHING, agent=SUPPORT)

    assert (found.may, found.listed) == (May.ALWAYS, ("User",))
    assert asked(tmp_path, ANYTHING, user=ALICE).listed == ("Agent",)
    assert asked(tmp_path, ANYTHING, agent=SUPPORT, user=ALICE).listed == ()


def test_agents_are_those_that_are_listed_or_named(tmp_path: Path) -> None:
    """Sorted, each once."""
    workspace = opened(tmp_path, ANYTHING)

    assert [uid.id for uid in agents_of(workspace)] == [
        "billing-agent",
        "intake-agent",
        "mailer-agent",
        "support-agent",
    ]


def test_what_a_loader_would_know_is_not_known_here(tmp_path: Path) -> None:
    """Groups of an agent that is listed nowhere are its loader's to say."""
    policy = '@id("a") permit (principal, action, resource) when { principal.agent in Group::"suspended" };'
    workspace = opened(tmp_path, policy)
    workspace = replace(workspace, written=replace(workspace.written, loaders=frozenset({"Record", "Agent"})))

    found = access(workspace, "read_record", Who(agent=EntityUid("Agent", "new")))

    assert (found.may, found.condition) == (May.SOMETIMES, 'principal.agent in Group::"suspended"')


AGENTS: Final = (BILLING, SUPPORT, MAILER)
CONDITIONS: Final = (
    "principal has user",
    IS_STAFF,
    'principal has user && principal.user == User::"alice"',
    'principal has user && [User::"bob", User::"alice"].contains(principal.user)',
    "principal has task",
    'principal has task && principal.task == Task::"close"',
    'principal in Task::"close"',
    'principal.agent == Agent::"billing-agent"',
    'principal.agent != Agent::"mailer-agent"',
    'principal in Agent::"support-agent"',
    'principal in [Agent::"billing-agent", Agent::"mailer-agent"]',
    'principal is Invocation in Agent::"billing-agent"',
    'principal in Group::"suspended"',
    'principal.grade == "run"',
    "principal.delegation_depth > 0",
    "principal.delegation_depth + 9223372036854775807 > 0",
    'action in Action::"read-only"',
    'action == Action::"delete_record"',
    "context has approval",
    'context.input.record_id == "r1"',
    'resource.sensitivity == "restricted"',
    "resource is Record",
    'resource in Tool::"read_record"',
    'resource in Server::"records"',
    "true",
)
HEADS: Final = ("principal", 'principal in Agent::"billing-agent"', 'principal is Invocation in Agent::"support-agent"')
ACTIONS: Final = (
    'action in [Action::"read_record", Action::"delete_record"]',
    'action == Action::"read_record"',
    'action in [Action::"delete_record", Action::"update_record", Action::"read_record"]',
)

_CONDITIONS = st.recursive(
    st.sampled_from(CONDITIONS).map(lambda text: f"({text})"),
    lambda inner: st.one_of(
        inner.map(lambda one: f"!{one}"),
        st.tuples(inner, st.sampled_from(["&&", "||"]), inner).map(lambda parts: f"({' '.join(parts)})"),
        st.tuples(inner, inner, inner).map(lambda parts: "(if {} then {} else {})".format(*parts)),
    ),
    max_leaves=4,
)
_CLAUSES = st.tuples(st.sampled_from(["when", "unless"]), _CONDITIONS).map(lambda parts: "{} {{ {} }}".format(*parts))
POLICIES = st.tuples(
    st.sampled_from(["permit", "permit", "forbid"]),
    st.sampled_from(HEADS),
    st.sampled_from(ACTIONS),
    st.sampled_from(["resource", "resource is Record", 'resource in Server::"records"']),
    st.lists(_CLAUSES, max_size=2),
).map(lambda parts: f"{parts[0]} ({', '.join(parts[1:4])}) {' '.join(parts[4])};")


def calls(workspace: Workspace) -> Iterator[tuple[EntityUid, EntityUid | None, AccessRequest]]:
    """Yield requests that differ in all that the conditions ask, with their agent and user."""
    for agent, user, rest in product(AGENTS, (None, ALICE, BOB), range(8)):
        root = Identity(agent="support-agent", user="alice", task="close")
        identity = Identity(
            agent=agent.id,
            user=None if user is None else user.id,
            task="close" if rest & 1 else None,
            grade=Grade.RUN if rest & 2 else Grade.TOKEN,
            ancestors=(root,) if rest == 7 and agent == SUPPORT else (),
        )
        sensitivity = "restricted" if rest & 4 else "normal"
        record = {
            "uid": {"type": "Record", "id": f"r{rest}"},
            "attrs": {"sensitivity": sensitivity, "patient": {"__entity": {"type": "Patient", "id": "p"}}},
            "parents": [],
        }
        for action in ("read_record", "delete_record"):
            call = SupposedCall(
                identity=identity,
                action=action,
                input={"record_id": f"r{rest}"},
                entities=(record,),
                approval=APPROVAL if rest & 1 else None,
                now=NOW,
            )
            (request,) = requests_of(workspace, call)
            yield agent, user, request


@cache
def everything(folder: Path) -> Workspace:
    """Return the records server under one policy, in whose place others come."""
    return opened(folder, ANYTHING)


@settings(max_examples=4, deadline=None)
@given(policies=st.lists(POLICIES, min_size=1, max_size=4))
def test_what_is_proved_is_never_contradicted_by_a_decision(
    tmp_path_factory: pytest.TempPathFactory, policies: list[str]
) -> None:
    """Always is allowed and never is denied, for any call; and what is left decides the others as Cedar does."""
    assert_never_contradicted(everything(tmp_path_factory.getbasetemp() / "records"), policies)


def assert_never_contradicted(workspace: Workspace, policies: list[str]) -> None:
    """Fail if a decision is another than is claimed of it."""
    text = "\n".join(f'@id("p{place}")\n{policy}' for place, policy in enumerate(policies))
    try:
        workspace = workspace.with_policies(read(text))
    except PolicyError:
        assume(False)
    claims: dict[tuple[EntityUid | None, EntityUid | None, str], Access] = {}
    for agent, user, request in calls(workspace):
        decision = decide(request, workspace.policies)
        for key in ((agent, user, request.action), (agent, None, request.action), (None, user, request.action)):
            if key not in claims:
                claims[key] = access(workspace, key[2], Who(agent=key[0], user=key[1]))
            found = claims[key]
            if found.may is not May.SOMETIMES and not request.invocation.ancestors:
                assert decision.allowed is (found.may is May.ALWAYS), (found, decision)
            if not decision.errors and not request.invocation.ancestors:
                assert holds(found.condition, request, workspace.policies) is decision.allowed, (found, decision)
            # Who delegated can take away, and never adds.
            assert not (decision.allowed and found.may is May.NEVER)
