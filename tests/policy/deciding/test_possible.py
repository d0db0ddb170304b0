"""What policies can come to where not all of a request is known."""

from dataclasses import replace

import pytest

from agentguard.errors import Refusal
from agentguard.model import AccessRequest, EntityUid
from agentguard.policy.deciding import possible as module
from agentguard.policy.deciding.possible import ANYTHING, ERRS, FAILS, HOLDS, Possible, doubts, learn, outcome
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import workspace
from tests.policy.records import context, reads, searches

ROWS = ("context", "input", "rows")
TEXT = ("context", "input", "text")
LOADED = ("entities", "Record")
TWO = (
    '@id("a") permit (principal, action == Action::"search", resource) '
    'when { context.input.rows > 5 && context.input.text == "x" };'
)
OVERFLOW = "context.input.rows + 9223372036854775807 > 0"


def asked(
    clause: str,
    *unknown: tuple[str, ...],
    request: AccessRequest | None = None,
    head: str = 'principal, action == Action::"search", resource',
) -> int:
    """Return what one policy can come to where some paths of a request are not known."""
    folder = workspace(f'@id("a") permit ({head}) {clause};')
    question = Possible(folder.policies, folder.types)
    request = request or searches()
    values, _ = question.values(request, frozenset(unknown), len(request.invocation.ancestors))
    (part,) = question.asked(request.action).policies
    return outcome(part.tree, values)


@pytest.mark.parametrize(
    ("clause", "came_to"),
    [
        ("", HOLDS),
        ("when { true }", HOLDS),
        ("unless { true }", FAILS),
        ("when { context.input.rows > 5 }", HOLDS | FAILS),
        ('when { context.input.text == "x" }', HOLDS),
        ('when { context.input.text == "y" && context.input.rows > 5 }', FAILS),
        ('when { context.input.rows > 5 && context.input.text == "y" }', FAILS),
        ('when { context.input.text == "x" || context.input.rows > 5 }', HOLDS),
        ('when { context.input.text == "y" || context.input.rows > 5 }', HOLDS | FAILS),
        ('unless { context.input.text == "y" && context.input.rows > 5 }', HOLDS),
        ('when { !(context.input.text == "y") }', HOLDS),
        (f"when {{ {OVERFLOW} }}", ANYTHING),
        (f'when {{ context.input.text == "y" && {OVERFLOW} }}', FAILS),
        (f'when {{ context.input.text == "x" || {OVERFLOW} }}', HOLDS),
        (f"unless {{ {OVERFLOW} }}", ANYTHING),
        ("when { if context.input.rows > 5 then true else true }", HOLDS),
        ("when { if context.input.rows > 5 then true else false }", HOLDS | FAILS),
        ('when { if context.input.text == "x" then false else context.input.rows > 5 }', FAILS),
        (f"when {{ if {OVERFLOW} then false else false }}", FAILS | ERRS),
    ],
)
def test_policy_comes_to_all_that_it_could(clause: str, came_to: int) -> None:
    """The rows are unknown, all else is known: a part that is known may settle the whole."""
    assert asked(clause, ROWS) == came_to


@pytest.mark.parametrize(
    ("clause", "came_to"),
    [
        ("when { context.input.rows > 5 }", FAILS),
        (f"when {{ {OVERFLOW} }}", ERRS),
        ('when { context.input.text == "x" } unless { principal has purpose && principal.purpose == "a" }', HOLDS),
    ],
)
def test_what_is_known_is_cedars_own_answer(clause: str, came_to: int) -> None:
    """With nothing unknown, a policy comes to one thing, a failure among them."""
    assert asked(clause) == came_to


@pytest.mark.parametrize(
    ("head", "came_to"),
    [
        ('principal in Agent::"reader", action, resource', HOLDS),
        ('principal in Agent::"other", action, resource', FAILS),
        ('principal is Invocation, action in Action::"read-only", resource is Record', HOLDS),
        ('principal, action, resource == Record::"r2"', FAILS),
    ],
)
def test_head_is_a_condition_too(head: str, came_to: int) -> None:
    """What is not known of a loaded record does not matter to it."""
    assert asked("", LOADED, request=replace(reads(), entities=()), head=head) == came_to


def test_what_a_loader_knows_is_open() -> None:
    """Its attributes are not there, and Cedar would take them for missing."""
    request = replace(reads(), entities=())
    assert (
        asked(
            'when { resource.sensitivity == "normal" }',
            LOADED,
            request=request,
            head="principal, action, resource is Record",
        )
        == HOLDS | FAILS
    )


def test_listed_entities_are_known() -> None:
    """Who is in which group is in the folder."""
    staff = searches(unsafe_invocation("reader", user="alice"))
    others = searches(unsafe_invocation("reader", user="bob"))
    clause = 'when { principal has user && principal.user in Group::"staff" }'

    assert asked(clause, request=staff) == HOLDS
    assert asked(clause, request=others) == FAILS


def test_what_only_the_request_could_bring_is_missing() -> None:
    """A user that nobody listed, and a record that nobody loaded."""
    folder = workspace('@id("a") permit (principal, action, resource);')
    question = Possible(folder.policies, folder.types)
    request = replace(reads(unsafe_invocation("reader", user="zoe")), entities=())

    assert question.values(request, frozenset(), 0)[1].missing == {("User", "zoe"), ("Record", "r1")}
    assert question.values(searches(), frozenset(), 0)[1].missing == frozenset()


def test_listed_resource_is_in_its_tool() -> None:
    """As it is when the guard acts on it, with what it refers to."""
    listed = (
        '[{"uid": {"type": "Record", "id": "r1"}, "attrs": {"sensitivity": "normal", "owner": {"__entity": '
        '{"type": "User", "id": "alice"}}}, "parents": []}, {"uid": {"type": "User", "id": "alice"}, "attrs": {}, '
        '"parents": []}]'
    )
    folder = workspace(
        '@id("a") permit (principal, action == Action::"read", resource in Tool::"read") '
        'when { resource.sensitivity == "normal" };',
        entities=listed,
        loaders=(),
    )
    question = Possible(folder.policies, folder.types)
    values, reached = question.values(replace(reads(), entities=()), frozenset(), 0)
    (part,) = question.asked("read").policies

    assert outcome(part.tree, values) == HOLDS
    assert reached.missing == frozenset()


def test_entity_that_is_not_as_declared_settles_nothing() -> None:
    """The guard would deny such a call: it is missing what the schema demands."""
    listed = '[{"uid": {"type": "Record", "id": "r2"}, "attrs": {"sensitivity": "normal"}, "parents": []}]'
    folder = workspace(
        '@id("a") permit (principal, action, resource is Record) when { resource.sensitivity == "normal" };',
        entities=listed,
        loaders=(),
    )
    question = Possible(folder.policies, folder.types)
    made = {"uid": {"type": "Record", "id": "r1"}, "attrs": {}, "parents": [{"type": "Tool", "id": "read"}]}
    values, reached = question.values(replace(reads(), entities=(made,)), frozenset(), 0)

    assert set(values.values()) == {HOLDS | FAILS}
    assert reached.missing == {("Record", "r1")}


@pytest.mark.parametrize("value", ["\ud800", {"__extn": {"fn": "decimal", "arg": "no"}}])
def test_forged_values_settle_nothing(value: object) -> None:
    """Evidence that somebody else wrote ends no command, and is believed in nothing."""
    request = replace(searches(), context=context(text=value, rows=1))

    assert asked("when { context.input.rows > 5 }", request=request) & (HOLDS | FAILS) == HOLDS | FAILS


def test_action_that_is_not_there_is_refused() -> None:
    """As the engine refuses it."""
    folder = workspace('@id("a") permit (principal, action, resource);')

    with pytest.raises(Refusal, match="nothing of the action"):
        Possible(folder.policies, folder.types).asked("nothing")


def test_what_is_parsed_is_kept_and_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many sets of unknown paths do not fill the memory."""
    folder = workspace(TWO)
    question = Possible(folder.policies, folder.types)
    monkeypatch.setattr(module, "_KEPT", 1)
    for unknown in (frozenset[tuple[str, ...]](), frozenset((ROWS,)), frozenset((TEXT,)), frozenset((TEXT,))):
        question.values(searches(), unknown, 0)

    assert len(question.asked("search").kept) == 1
    assert len(question.asked("search").hidden) == 1


@pytest.mark.parametrize(
    ("clause", "came_to", "learned"),
    [
        ("when { context.input.rows > 1 && context.input.rows > 2 }", HOLDS, [HOLDS, HOLDS]),
        ("when { context.input.rows > 1 && context.input.rows > 2 }", FAILS, [HOLDS | FAILS, HOLDS | FAILS]),
        ('when { context.input.rows > 1 && context.input.text == "x" }', FAILS, [FAILS, HOLDS]),
        ('when { context.input.rows > 1 || context.input.text == "y" }', HOLDS, [HOLDS, FAILS]),
        ("when { context.input.rows > 1 || context.input.rows > 2 }", FAILS, [FAILS, FAILS]),
        ("unless { context.input.rows > 1 }", HOLDS, [FAILS]),
        ('when { if context.input.text == "x" then context.input.rows > 1 else true }', HOLDS, [HOLDS, HOLDS, HOLDS]),
        ('when { if context.input.text == "y" then true else context.input.rows > 1 }', FAILS, [FAILS, HOLDS, FAILS]),
        ("when { if context.input.rows > 1 then true else false }", HOLDS, [HOLDS | FAILS, HOLDS, FAILS]),
        ('when { context.input.text == "y" }', HOLDS, [0]),
    ],
)
def test_what_a_policy_came_to_tells_of_its_conditions(clause: str, came_to: int, learned: list[int]) -> None:
    """As far as only one of them could have made it so; what cannot be comes to nothing."""
    folder = workspace(f'@id("a") permit (principal, action == Action::"search", resource) {clause};')
    question = Possible(folder.policies, folder.types)
    values, _ = question.values(searches(), frozenset((ROWS,)), 0)
    (part,) = question.asked("search").policies

    learn(part.tree, came_to, values)

    assert list(values.values()) == learned


def test_doubts_are_what_open_conditions_look_at() -> None:
    """What a settled condition looks at would not help."""
    folder = workspace(TWO)
    question = Possible(folder.policies, folder.types)
    unknown = frozenset((ROWS, ("context", "facts")))
    values, _ = question.values(searches(), unknown, 0)
    parts = question.asked("search").policies

    assert doubts(parts, values, question.asked("search"), unknown) == {ROWS}
    assert doubts((), values, question.asked("search"), unknown) == frozenset()


def test_other_actions_policies_are_not_asked() -> None:
    """A head that lets the action not pass settles the policy."""
    folder = workspace(
        '@id("a") permit (principal, action == Action::"read", resource);',
        '@id("b") permit (principal, action in Action::"open-world", resource);',
    )
    question = Possible(folder.policies, folder.types)

    assert [part.policy.id for part in question.asked("search").policies] == ["b"]
    assert question.asked("search").action.tool.itself == EntityUid("Tool", "search")
