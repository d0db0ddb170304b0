from dataclasses import replace
from typing import TypedDict

import cedarpy
import pytest

from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.faults.checks import invalid_policies, invalid_schema, invalid_types
from agentguard.policy.files.reader import read_policies
from agentguard.policy.problem import did_you_mean
from agentguard.policy.schemas.fragments import read_fragment
from agentguard.policy.schemas.schema import GuardedTool, schema_texts
from agentguard.policy.text.lexer import LexError
from tests.policy.records import ALL, ENTITIES, LIMITS, SEARCH, TOOLS, forbid, problems, tool


class Order(TypedDict):
    """A record inside of the arguments."""

    total: int


SEARCH_ONLY = 'principal, action == Action::"search", resource'


def test_a_close_word_is_offered_and_else_all_of_them() -> None:
    """A fix is a thing to do, so it names what there is."""
    assert did_you_mean("serach", ["search", "read"]) == "did you mean `search`?"
    assert did_you_mean("zzz", ["search", "read"]) == "there is `read`, `search`"
    assert did_you_mean("zzz", []) == "there is none"


def test_total_that_no_tool_adds_to_is_a_slip_of_the_pen() -> None:
    """Those that there are are known."""
    pay = replace(SEARCH, totals=("paper", "payments"))

    assert problems(forbid('context.run.spent.payment.greaterThan(decimal("5.0"))'), tools=[pay]) == [
        "a.cedar:2: the context has no `run.spent.payment`: did you mean `payments`?"
    ]
    assert problems(forbid("context.run.spent.paper > 5"), tools=[pay])[0].startswith(
        "a.cedar:2: Cedar compares decimals by name, not with `<` or `>`"
    )


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [
        (
            forbid("true", 'principal, action == Action::"serach", resource'),
            "a.cedar:1: there is no action `serach`: did you mean `search`?",
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
            "a.cedar:2: the context has no `inputs`: did you mean `input`?",
        ),
        (
            forbid('context.enviroment == "production"'),
            "a.cedar:2: the context has no `enviroment`: did you mean `environment`?",
        ),
        (
            forbid("context.local.minutes < 540"),
            "a.cedar:2: the context has no `local.minutes`: did you mean `minute`?",
        ),
        (
            forbid("context.local.hour < 9"),
            "a.cedar:2: the context has no `local.hour`: compare `context.local.minute`, the minute of the day",
        ),
        (
            forbid('context.run.labls.contains("untrusted")'),
            "a.cedar:2: the context has no `run.labls`: did you mean `labels`?",
        ),
        (
            forbid('context.run.spent.payments.greaterThan(decimal("5.0"))'),
            (
                "a.cedar:2: the context has no `run.spent.payments`: "
                "no tool adds to a total, so declare it, with `Spend` or spends="
            ),
        ),
        (
            forbid("context.facts.total > 9"),
            (
                "a.cedar:2: the context of `read` and 1 more has no `facts`: "
                "give the tool facts=, or name other actions in the head"
            ),
        ),
        (
            forbid("context.input.rwos > 5"),
            "a.cedar:2: no tool has an argument `rwos`: did you mean `rows`?",
        ),
        (
            forbid("context.input.rwos > 5", 'principal, action in [Action::"search", Action::"read"], resource'),
            "a.cedar:2: `read` and 1 more has no argument `rwos`: did you mean `rows`?",
        ),
        (
            forbid('principal.purposes == "x"'),
            "a.cedar:2: `Invocation` has no attribute `purposes`: did you mean `purpose`?",
        ),
        (
            forbid('principal.colour == "x"'),
            "a.cedar:2: `Invocation` has no attribute `colour`: correct the name, or declare it",
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
            forbid("true", 'principal in User::"alice", action, resource'),
            (
                "a.cedar:1: a run is never in a user: leave `principal` alone in the head, and write "
                '`when { principal has user && principal.user == User::"alice" }`'
            ),
        ),
        *(
            (forbid(f"context.input has price && {condition}", SEARCH_ONLY), f"a.cedar:2: {what}")
            for condition, what in {
                "context.input.price > 100": "Cedar compares decimals by name, not with `<` or `>`: write `….greater",
                'context.input.price <= decimal("1.0")': "Cedar compares decimals by name, not with `<` or `>`: write",
                "100 < context.input.price": "Cedar compares decimals by name, not with `<` or `>`: write `….greater",
                "context.input.price == 100": "a decimal equals nothing but a decimal: write `== decimal",
                "100 != context.input.price": "a decimal equals nothing but a decimal: write `== decimal",
            }.items()
        ),
        *(
            (forbid(condition, SEARCH_ONLY), 'a.cedar:2: a set equals no single value: write `….contains("x")`')
            for condition in ('principal.scopes == "a"', '"a" != principal.scopes')
        ),
        (
            forbid("true", 'principal, action == Action::"read-only", resource'),
            'a.cedar:1: `read-only` is a group of actions, and no call is one: write `action in Action::"read-only"`',
        ),
        (
            forbid("true", 'principal, action in Action::"destructive", resource'),
            'a.cedar:1: no tool here is in `Action::"destructive"`: annotate those that are, or remove this policy',
        ),
        (
            forbid("true", "principal is Agent, action, resource"),
            "a.cedar:1: `principal` is a run, and never of type `Agent`: leave `is Agent` out",
        ),
        (
            forbid("true", 'principal in Group::"staff", action, resource'),
            (
                "a.cedar:1: a run is never in a group of users: leave `principal` alone in the head, and write "
                '`when { principal has user && principal.user in Group::"staff" }`'
            ),
        ),
    ],
)
def test_a_policy_that_does_not_fit_the_tools_is_refused_with_the_fix(policy: str, wanted: str) -> None:
    """One line, at the line of the word that has to change."""
    (found,) = problems(policy)

    assert found.startswith(wanted)


def test_facts_and_deeper_records_are_told_with_their_tools() -> None:
    """The names that there are belong to those tools alone."""
    deep = record_of({"order": Field(Order)}, where="buy")
    facts = record_of({"total": Field(int)}, where="buy")
    buy = GuardedTool(name="buy", server="records", input=deep, facts=facts, groups=frozenset({"tools/call"}))
    head = 'principal, action == Action::"buy", resource'

    for condition, what in {
        "context.facts.totl > 1": "the context of `buy` has no `facts.totl`: did you mean `total`?",
        "context.facts.x > 1": "the context of `buy` has no `facts.x`: give the tool facts=, or name",
        "context.input.order.sum > 1": "the context of `buy` has no `input.order.sum`: correct the name",
        "context.input.order.totl > 1": "the context of `buy` has no `input.order.totl`: did you mean `total`?",
    }.items():
        (found,) = problems(forbid(condition, head), tools=[buy], types="", loaders=[])
        assert found.startswith(f"a.cedar:2: {what}")


def test_one_mistake_is_told_once_for_all_actions() -> None:
    """With forty tools it would be forty lines, and hide the next mistake."""
    tools = [tool(f"t{n}", record_of({"a": Field(int)}, where="t"), "read-only") for n in range(40)]

    found = problems(
        forbid('context.enviroment == "x" && context.input.rows > 1 && context.local.hour > 1'),
        tools=[SEARCH, *tools],
        types="",
        loaders=[],
    )

    assert [problem.partition(":2: ")[2].partition(":")[0] for problem in found] == [
        "the context has no `enviroment`",
        "the context has no `local.hour`",
        "this applies to `t0` and 39 more too, which has no argument `rows`",
    ]


def test_each_policy_that_is_refused_is_told_at_its_own_line() -> None:
    """A consequence of a problem is not told beside it."""
    first = forbid("true", 'principal, action == Action::"reed", resource')
    second = forbid("context.input.idd == 1", 'principal, action == Action::"read", resource').replace('"a"', '"b"')

    assert problems(ALL, first, second) == [
        "a.cedar:2: there is no action `reed`: did you mean `read`?",
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

    assert str(invalid_schema(fragments, "`B` is declared twice")) == (
        "types/B.cedarschema:2: `B` is declared twice: correct or declare it"
    )
    assert str(invalid_schema(fragments, "failed to resolve type: C")).startswith(
        "types/A.cedarschema, types/B.cedarschema: "
    )
    assert str(invalid_schema([], "failed to resolve type: C")).startswith("the generated schema: failed to resolve")


def test_what_is_wrong_with_types_is_told_in_their_file() -> None:
    """They are read one after the other, before what is generated."""
    fragments = [read_fragment(f"types/{name}.cedarschema", f"\nentity {name};", LIMITS) for name in ("A", "B")]
    text = "\n".join(fragment.text for fragment in fragments) + "\nentity C;"

    def told(word: str) -> tuple[str, int, int]:
        problem = invalid_types(fragments, LexError(text, text.index(word), "wrong: mend it"))
        assert problem.what.endswith("wrong: mend it")
        return str(problem), problem.column, problem.length

    assert told("A") == ("types/A.cedarschema:2: wrong: mend it", 8, 1)
    assert told("entity B") == ("types/B.cedarschema:2: wrong: mend it", 1, 6)
    assert told(";\nentity C") == ("types/B.cedarschema:2: wrong: mend it", 9, 1)
    assert told("C;") == ("the generated schema: wrong: mend it", 0, 1)


def test_common_policy_about_a_group_need_not_have_a_tool_in_it() -> None:
    """A baseline that forbids what is destructive is for servers without such a tool too, unless it can be for none."""
    schema = cedarpy.Schema.from_str(schema_texts(TOOLS, [], grouped=frozenset(), claims={}).full)

    def told(action: str, file: str) -> list[str]:
        (policy,), _ = read_policies(file, f'@id("a") forbid (principal, {action}, resource);', LIMITS)
        return [problem.name for problem in invalid_policies([policy], schema, TOOLS, {}, ())]

    assert told('action in Action::"destructive"', "common/a.cedar") == []
    assert told('action in [Action::"destructive", Action::"idempotent"]', "common/a.cedar") == []
    assert told('action in Action::"destructive"', "a.cedar") == ["impossible-head"]
    assert told('action == Action::"destructive"', "common/a.cedar") == ["impossible-head"]
