"""Policies that Cedar takes, and that would never do anything."""

from dataclasses import replace
from typing import TypedDict

import pytest

from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.schemas.schema import OwnType, method_tool
from tests.policy.records import ALL, ENTITIES, READ, SEARCH, TYPES, forbid, policy_set, problems, tool


class Person(TypedDict):
    """Somebody at school."""

    grade: str


TAGGED = tool("search", record_of({"tags": Field(list[str]), "principal": Field(Person)}, where="search"), "read-only")
SEARCH_ONLY = 'principal, action == Action::"search", resource'


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (
            forbid('resource == Tool::"read"'),
            (
                "a.cedar:2: `resource` is a `Record` when `read` is used, never the tool: "
                'write `action == Action::"read"`, or `resource in Tool::"read"`'
            ),
        ),
        (forbid('Tool::"read" != resource'), "a.cedar:2: `resource` is a `Record` when `read` is used"),
        (
            forbid("true", 'principal, action, resource == Tool::"read"'),
            "a.cedar:1: `resource` is a `Record` when `read` is used",
        ),
        (forbid('resource in Tool::"raed"'), "a.cedar:2: no tool is called `raed`: did you mean `read`?"),
        (
            forbid('User::"carol" in Group::"staff"'),
            (
                'a.cedar:2: asks about `User::"carol"`, which cedarentities.json does not have: '
                "add it there, or compare with `==`"
            ),
        ),
        (
            forbid('principal == Agent::"a"'),
            'a.cedar:2: `principal` is a run, and never equals `Agent::"a"`: write `principal in Agent::"a"`',
        ),
        (
            forbid("true", 'principal == Task::"t", action, resource'),
            'a.cedar:1: `principal` is a run, and never equals `Task::"t"`: write `principal in Task::"t"`',
        ),
        (
            forbid('User::"carol" != principal'),
            (
                'a.cedar:2: `principal` is a run, and never equals `User::"carol"`: '
                'write `principal has user && principal.user == User::"carol"`'
            ),
        ),
        (
            forbid('principal has user && principal.user == User::"alise"'),
            (
                'a.cedar:2: no call can have to do with `User::"alise"`, which cedarentities.json does not have: '
                "did you mean `alice`?"
            ),
        ),
        (
            forbid('principal has user && [User::"bob", User::"carol"].contains(principal.user)'),
            (
                'a.cedar:2: no call can have to do with `User::"carol"`, which cedarentities.json does not have: '
                "add it there"
            ),
        ),
        (
            forbid('principal has user && principal.user in Group::"stuff"'),
            (
                'a.cedar:2: no call can have to do with `Group::"stuff"`, which cedarentities.json does not have: '
                "did you mean `staff`?"
            ),
        ),
        (forbid('Group::"nobody" in Group::"staff"'), 'a.cedar:2: no call can have to do with `Group::"nobody"`'),
        (forbid('principal.grade == "runn"'), "a.cedar:2: `principal.grade` is never `runn`: did you mean `run`?"),
        (forbid('"x" != principal["grade"]'), "a.cedar:2: `principal.grade` is never `x`: there is `run`, `shared`"),
        (
            forbid('["token", "Run"].contains(principal.grade)'),
            "a.cedar:2: `principal.grade` is never `Run`: did you mean `run`?",
        ),
        (
            forbid('context.transport == "sse"'),
            "a.cedar:2: `context.transport` is never `sse`: there is `http`, `stdio`",
        ),
    ],
)
def test_a_policy_that_would_have_no_effect_is_refused_with_the_fix(policy: str, wanted: str) -> None:
    """One line, at the line of the word that has to change."""
    (found,) = problems(policy)

    assert found.startswith(wanted)


@pytest.mark.parametrize(
    "policy",
    [
        forbid('resource == Tool::"search"'),
        forbid('resource in Tool::"read"'),
        forbid('User::"alice" in Group::"staff"'),
        forbid('principal has user && principal.user == User::"bob"'),
        forbid('principal in Agent::"anyone"'),
        forbid('principal == Invocation::"run-1"'),
        forbid('principal.grade == "token" && ["run", "shared"].contains(principal["grade"])'),
        forbid('"http" != context.transport && context["transport"] == "stdio"'),
        forbid("context.input.tags.contains(context.transport)", SEARCH_ONLY),
        forbid('context["input"]["tags"].contains(context.transport)', SEARCH_ONLY),
        forbid('context.input.principal.grade == "A"', SEARCH_ONLY),
        forbid('principal.grade like "r*"'),
        forbid("principal.grade == context.transport"),
    ],
)
def test_a_policy_that_can_have_an_effect_is_taken(policy: str) -> None:
    """What can be met is nobody's mistake."""
    assert "a" in policy_set(policy, tools=[READ, TAGGED]).policies


@pytest.mark.parametrize(
    ("loaders", "types", "taken"),
    [
        (["Record"], TYPES, False),
        (["Record", "User"], TYPES, True),
        (["Record", "Agent"], TYPES, True),
        (["Record"], TYPES.replace("owner?: User", "team?: Team") + "type Team = { of: Group };", True),
        (["Record"], TYPES.replace("[Tool]", "[Tool, Group]"), True),
        (["Record", "Group"], f"{TYPES} entity Group in [Group];", True),
    ],
)
def test_a_group_that_only_a_loader_can_know_is_taken(loaders: list[str], types: str, taken: bool) -> None:
    """Who is in it shows at the call."""
    policy = forbid('principal has user && principal.user in Group::"nobody"')
    entities = '[{ "uid": { "type": "User", "id": "bob" }, "attrs": {}, "parents": [] }]'

    if taken:
        assert "a" in policy_set(ALL, policy, loaders=loaders, types=types, entities=entities).policies
    else:
        assert 'with `Group::"nobody"`' in problems(ALL, policy, loaders=loaders, types=types, entities=entities)[0]


def test_a_user_that_only_a_loader_can_know_is_taken() -> None:
    """The file then lists some by name, and not all there are."""
    policy = forbid('principal has user && principal.user == User::"carol"')

    assert "a" in policy_set(policy, loaders=["Record", "User"]).policies


def test_an_entity_of_a_bare_type_need_not_be_listed() -> None:
    """A call for an unlisted one is not denied for it."""
    types = f"{TYPES} entity Agent;"
    entities = f"""{ENTITIES[:-1]}, {{ "uid": {{ "type": "Agent", "id": "a" }}, "attrs": {{}}, "parents": [] }}]"""

    policies = policy_set(forbid('principal in Agent::"b"'), types=types, entities=entities)

    assert "a" in policies.policies


def test_an_entity_that_is_refused_itself_is_not_searched_for_groups() -> None:
    """The mistake is told, and no other that follows from it."""
    unknown = '"attrs": {"a": {"__extn": {"fn": "unknown", "arg": "x"}}}'

    (found,) = problems(
        forbid('principal has user && principal.user in Group::"nobody"'),
        entities=ENTITIES.replace('"attrs": {}', unknown, 1),
    )

    assert found.startswith('cedarentities.json:2: `User::"alice"`: a value uses a function')


def test_a_group_counts_wherever_the_entity_file_names_it() -> None:
    """As an entity, as what another is in, or in an attribute."""
    types = TYPES + "entity Task in [Group] = { team: Group }; entity Group;"
    listed = '[{ "uid": { "type": "Group", "id": "one" }, "attrs": {}, "parents": [] }]'
    task = """[
      { "uid": { "type": "Task", "id": "t" }, "parents": [{ "type": "Group", "id": "one" }],
        "attrs": { "team": { "__entity": { "type": "Group", "id": "two" } } } }
    ]"""

    assert (
        "a"
        in policy_set(
            forbid('Group::"one" in Group::"one"'), types=f"{TYPES} entity Group in [Group];", entities=listed
        ).policies
    )
    named = [f'principal in Group::"{name}"' for name in ("one", "two")]
    assert "a" in policy_set(forbid(" || ".join(named)), types=types, entities=task).policies


def test_a_group_that_others_are_in_is_listed_where_groups_are() -> None:
    """Mistyped, it would suspend nobody."""
    entities = """[
  { "uid": { "type": "Group", "id": "suspended" }, "attrs": {}, "parents": [] },
  { "uid": { "type": "Agent", "id": "a" }, "attrs": {}, "parents": [{ "type": "Group", "id": "suspendd" }] },
  { "uid": { "type": "Agent", "id": "b" }, "attrs": {}, "parents": [{ "type": "Group", "id": "other" }] }
]"""

    assert problems(forbid('principal in Group::"suspended"'), entities=entities) == [
        f"cedarentities.json:{line}: {what}"
        for line, what in (
            (3, '`Agent::"a"` refers to `Group::"suspendd"`, which is not here: did you mean `suspended`?'),
            (4, '`Agent::"b"` refers to `Group::"other"`, which is not here: add it'),
        )
    ]


HIDING = replace(SEARCH, name="hiding", unseen=("path", "odd name"))


@pytest.mark.parametrize(
    "condition",
    [
        'context.input has path && context.input.path == "/etc"',
        'context.input has "path"',
        "context has input.path",
        'context["input"] has path',
        "(context.input) has path",
        'context.input has "p\\u{61}th"',
        'context.input has "odd name"',
        "{i: context.input}.i has path",
        '{"i": context.input}["i"] has path',
        "{i: context.input} has i.path",
    ],
)
def test_a_policy_that_asks_for_what_it_never_sees_is_refused(condition: str) -> None:
    """`has` is quietly false there, and a forbid on it would not fire."""
    name = "odd name" if "odd" in condition else "path"
    (found,) = problems(forbid(condition), tools=[READ, HIDING])
    (alone,) = problems(forbid(condition, 'principal, action == Action::"hiding", resource'), tools=[READ, HIDING])

    said = f"a.cedar:2: policies do not see argument `{name}` of `hiding`, so this says nothing of it: "
    assert found == f"{said}name the actions that it is for in its head"
    assert alone == f"{said}ask for another argument"


@pytest.mark.parametrize(
    "policy",
    [
        forbid("context.input has path", 'principal, action == Action::"read", resource'),
        forbid("context.input has path", 'principal, action in [Action::"read"], resource'),
        forbid('context.input has text && context.input.text == "path"', SEARCH_ONLY),
        forbid("context has path"),
        forbid("principal has path || principal.agent has path"),
    ],
)
def test_a_policy_that_is_for_other_tools_or_asks_for_something_else_is_taken(policy: str) -> None:
    """Only what is asked of the arguments counts, and only of the tools that it is for."""
    assert "a" in policy_set(policy, tools=[READ, SEARCH, HIDING]).policies


def test_a_policy_on_what_nobody_guards_says_nothing_of_what_somebody_does() -> None:
    """The method is an action of its own, and the group of the others."""
    hiding = replace(HIDING, name="resources/read/notes", kind=OwnType.RESOURCE, groups=frozenset({"resources/read"}))
    tools = [method_tool("resources/read", "records"), hiding]
    equals = forbid("context.input has path", 'principal, action == Action::"resources/read", resource')

    assert "a" in policy_set(equals, tools=tools, loaders=()).policies
    assert (
        "argument `path` of `resources/read/notes`" in problems(equals.replace("==", "in"), tools=tools, loaders=())[0]
    )
