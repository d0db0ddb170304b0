import pytest

from agentguard.errors import PolicyError
from agentguard.policy.checks import invalid_schema
from agentguard.policy.fragments import read_fragment
from agentguard.policy.reader import did_you_mean
from tests.policy.records import ALL, ENTITIES, LIMITS, policy_set


def problems(*policies: str, **setting: object) -> list[str]:
    """Return why policies are refused, one line each."""
    with pytest.raises(PolicyError) as caught:
        policy_set(*policies, **setting)  # type: ignore[arg-type]
    return list(caught.value.problems)


def forbid(condition: str, head: str = "principal, action, resource") -> str:
    """Return a policy on two lines."""
    return f'@id("a") forbid ({head})\nwhen {{ {condition} }};'


SEARCH_ONLY = 'principal, action == Action::"search", resource'


def test_a_close_word_is_offered_and_else_all_of_them() -> None:
    """A fix is a thing to do, so it names what there is."""
    assert did_you_mean("serach", ["search", "read"]) == "did you mean `search`?"
    assert did_you_mean("zzz", ["search", "read"]) == "there is `read`, `search`"
    assert did_you_mean("zzz", []) == "there is none"


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (
            forbid("true", 'principal, action == Action::"serach", resource'),
            "a.cedar:1: no tool is called `serach`: did you mean `search`?",
        ),
        (
            forbid("true", "principal is Invocatoin, action, resource"),
            "a.cedar:1: there is no entity type `Invocatoin`: did you mean `Invocation`?",
        ),
        (
            forbid("context.input.row > 5", SEARCH_ONLY),
            "a.cedar:2: `search` has no argument `row`: did you mean `rows`?",
        ),
        (
            forbid("context.input.rows > 5"),
            (
                "a.cedar:2: this applies to `read` too, which has no argument `rows`: "
                "name the actions that it is for in its head"
            ),
        ),
        (
            forbid("context.inputs.rows > 5", SEARCH_ONLY),
            "a.cedar:2: the context of `search` has no `inputs`: correct the name",
        ),
        (
            forbid('principal.purposes == "x"'),
            "a.cedar:2: `Invocation` has no attribute `purposes`: correct the name, or declare it",
        ),
        (
            forbid('principal.purpose == "x"'),
            "a.cedar:2: `purpose` may be absent: test it first, `… has purpose && …`",
        ),
        (
            forbid('context.input.price == decimal("1.0")', SEARCH_ONLY),
            "a.cedar:2: `input.price` may be absent: test it first, `context.input has price && …`",
        ),
        (
            forbid('context.approval.channel == "x"', SEARCH_ONLY),
            "a.cedar:2: `approval` may be absent: test it first, `context has approval && …`",
        ),
        (
            forbid("true", 'principal, action == Action::"search", resource is Record'),
            "a.cedar:1: no tool fits principal, action and resource together: compare them with the tools' resources",
        ),
        (
            forbid('context.input.rows < "a"', SEARCH_ONLY),
            "a.cedar:1: does not fit the tools: unexpected type: expected Long but saw String: change one of the two",
        ),
        (
            forbid('context.input.rows == "a"', SEARCH_ONLY),
            "a.cedar:1: does not fit the tools: the types Long and String are not compatible: change one of the two",
        ),
        (
            forbid('resource == Tool::"read"'),
            (
                "a.cedar:2: `resource` is a `Record` when `read` is called, never the tool: "
                'write `action == Action::"read"`, or `resource in Tool::"read"`'
            ),
        ),
        (forbid('Tool::"read" != resource'), "a.cedar:2: `resource` is a `Record` when `read` is called"),
        (
            forbid("true", 'principal, action, resource == Tool::"read"'),
            "a.cedar:1: `resource` is a `Record` when `read` is called",
        ),
        (forbid('resource in Tool::"raed"'), "a.cedar:2: no tool is called `raed`: did you mean `read`?"),
        (
            forbid('User::"carol" in Group::"staff"'),
            (
                'a.cedar:2: asks about `User::"carol"`, which cedarentities.json does not have: '
                "add it there, or compare with `==`"
            ),
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
        forbid('Group::"nobody" in Group::"staff"'),
        forbid('principal has user && principal.user == User::"carol"'),
    ],
)
def test_a_policy_that_can_have_an_effect_is_taken(policy: str) -> None:
    """A bare entity has nothing to miss, and to compare with one is not to ask about it."""
    assert "a" in policy_set(policy).policies


def test_each_policy_that_is_refused_is_told_at_its_own_line() -> None:
    """A consequence of a problem is not told beside it."""
    first = forbid("true", 'principal, action == Action::"reed", resource')
    second = forbid("context.input.idd == 1", 'principal, action == Action::"read", resource').replace('"a"', '"b"')

    assert problems(ALL, first, second) == [
        "a.cedar:2: no tool is called `reed`: did you mean `read`?",
        "a.cedar:5: `read` has no argument `idd`: did you mean `id`?",
    ]


@pytest.mark.parametrize(
    ("entities", "wanted"),
    [
        (
            ENTITIES.replace('"User", "id": "bob"', '"Usre", "id": "bob"'),
            "cedarentities.json:3: there is no entity type `Usre`: did you mean `User`?",
        ),
        (
            ENTITIES.replace('"attrs": {}, "parents": [] }', '"attrs": {"a": 1}, "parents": [] }'),
            (
                'cedarentities.json:3: `User::"bob"` does not fit its type: '
                "compare attributes and parents with its declaration"
            ),
        ),
        (
            ENTITIES.replace('"type": "Group"', '"type": "Task"'),
            'cedarentities.json:2: `User::"alice"` does not fit its type',
        ),
        (
            ENTITIES.replace('"attrs": {}', '"attrs": {"a": {"__extn": {"fn": "unknown", "arg": "x"}}}', 1),
            (
                'cedarentities.json:2: `User::"alice"`: a value uses a function that values are not made of: '
                "write plain values, and __extn with decimal, datetime, duration or ip"
            ),
        ),
    ],
)
def test_an_entity_that_does_not_fit_the_types_is_refused(entities: str, wanted: str) -> None:
    """With the line in the file, which Cedar does not tell."""
    (found,) = problems(ALL, entities=entities)

    assert found.startswith(wanted)


TEAMS = "entity Group in [Group];"


def test_an_entity_that_refers_to_one_that_is_not_there_is_refused() -> None:
    """Cedar would take the absent one for one that is in nothing."""
    assert problems(ALL, types=TEAMS, loaders=["Record", "Group"]) == [
        'cedarentities.json:2: `User::"alice"` refers to `Group::"staff"`, which is not here: add it'
    ]


def test_entities_that_are_in_each_other_are_refused() -> None:
    """No order of them is the right one."""
    one = '[{ "uid": { "type": "Group", "id": "a" }, "attrs": {}, "parents": [{ "type": "Group", "id": "b" }] },\n'
    two = one.replace("[{ ", "{ ", 1).replace('"a"', '"c"').replace('"b"', '"a"').replace('"c"', '"b"')

    (found,) = problems(ALL, types=TEAMS, entities=one + two.replace("},\n", "}]"))

    assert found.startswith("cedarentities.json:1: the entities do not fit together: ")


def test_a_schema_that_cedar_refuses_is_told_where_it_can_be() -> None:
    """By the word that Cedar names, or else by the files that were joined."""
    fragments = [read_fragment(f"types/{name}.cedarschema", f"\nentity {name};", LIMITS) for name in ("A", "B")]

    assert invalid_schema(fragments, "`B` is declared twice") == (
        "types/B.cedarschema:2: `B` is declared twice: correct or declare it"
    )
    assert invalid_schema(fragments, "failed to resolve type: C").startswith(
        "types/A.cedarschema, types/B.cedarschema: "
    )
    assert invalid_schema([], "failed to resolve type: C").startswith("the generated schema: failed to resolve")
