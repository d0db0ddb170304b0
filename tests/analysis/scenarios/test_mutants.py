import json
from dataclasses import replace
from typing import Final

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.analysis.scenarios.edits import edits_of
from agentguard.analysis.scenarios.mutants import Mutant, mutants_of
from agentguard.limits import Limits
from agentguard.policy.deciding.compiled import Policy
from agentguard.policy.files.reader import read_policies

LIMITS: Final = Limits()
HEAD: Final = '@id("p") permit (principal, action, resource)'


def policy(text: str) -> Policy:
    """Return one policy, as the reader gives it."""
    (read,), problems = read_policies("a.cedar", text, LIMITS)
    assert problems == []
    return read


def changes(condition: str) -> dict[str, str]:
    """Return what happens to the condition of a policy, by what is said of it; the clause that goes is left out."""
    before = f"{HEAD} when {{ "
    text = f"{before}{condition} }};"
    return {
        edit.what: f"{text[: edit.start]}{edit.text}{text[edit.end :]}".removeprefix(before).removesuffix(" };")
        for edit in edits_of(text)
        if edit.start >= len(before)
    }


def test_a_policy_is_dropped_its_effect_turned_and_each_clause_dropped() -> None:
    """Those are the largest changes."""
    one = policy(f"{HEAD} when {{ true }} unless {{ context has approval }};")

    found = mutants_of(one, LIMITS).found

    assert [(mutant.what, None if mutant.policy is None else mutant.policy.text) for mutant in found] == [
        ("the policy was dropped", None),
        (
            "`permit` became `forbid`",
            '@id("p") forbid (principal, action, resource) when { true } unless { context has approval };',
        ),
        ("`when { true }` was dropped", f"{HEAD}  unless {{ context has approval }};"),
        ("`true` was negated", f"{HEAD} when {{ !(true) }} unless {{ context has approval }};"),
        ("`unless { context has approval }` was dropped", f"{HEAD} when {{ true }} ;"),
        (
            "`context has approval` was negated",
            f"{HEAD} when {{ true }} unless {{ !(context has approval) }};",
        ),
    ]


@pytest.mark.parametrize(
    ("head", "wanted"),
    [
        ("principal, action, resource", []),
        ('principal in Agent::"a", action, resource', ["principal, action, resource"]),
        ('principal == Invocation::"a", action, resource', ["principal, action, resource"]),
        (
            'principal is Invocation in Agent::"a", action, resource',
            ["principal, action, resource", "principal is Invocation, action, resource"],
        ),
        ('principal, action == Action::"x", resource', ["principal, action, resource"]),
        ('principal, action in [Action::"x"], resource', ["principal, action, resource"]),
        (
            'principal, action in [Action::"x", Action::"y", Action::"z"], resource',
            [
                "principal, action, resource",
                'principal, action in [Action::"y", Action::"z"], resource',
                'principal, action in [Action::"x", Action::"z"], resource',
                'principal, action in [Action::"x", Action::"y"], resource',
            ],
        ),
        ("principal, action, resource is Record", ["principal, action, resource"]),
        (
            'principal, action, resource is Record in Tool::"read",',
            ["principal, action, resource,", "principal, action, resource is Record,"],
        ),
    ],
)
def test_a_head_demands_less(head: str, wanted: list[str]) -> None:
    """Of principal, action and resource, one at a time."""
    before = '@id("p")@owner("o")@bare permit ('
    text = f"{before}{head});"

    found = [f"{text[: edit.start]}{edit.text}{text[edit.end :]}" for edit in edits_of(text)[1:]]

    assert found == [f"{before}{less});" for less in wanted]


@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("a.b", {"`a.b` was negated": "!(a.b)"}),
        ("!a.b", {"`!a.b` was negated": "a.b"}),
        ("!!a.b", {"`!!a.b` was negated": "!a.b"}),
        (
            "a.b && c.d",
            {
                "`a.b` was dropped": "c.d",
                "`a.b` was negated": "!(a.b) && c.d",
                "`c.d` was dropped": "a.b",
                "`&&` became `||` in `a.b && c.d`": "a.b || c.d",
                "`c.d` was negated": "a.b && !(c.d)",
            },
        ),
        (
            "a.b || c.d",
            {
                "`a.b` was dropped": "c.d",
                "`a.b` was negated": "!(a.b) || c.d",
                "`c.d` was dropped": "a.b",
                "`||` became `&&` in `a.b || c.d`": "a.b && c.d",
                "`c.d` was negated": "a.b || !(c.d)",
            },
        ),
        (
            "a.b > 5",
            {
                "`a.b > 5` was negated": "!(a.b > 5)",
                "`>` became `>=` in `a.b > 5`": "a.b >= 5",
                "`5` became `6` in `a.b > 5`": "a.b > 6",
            },
        ),
        ("a.b == a.c", {"`==` became `!=` in `a.b == a.c`": "a.b != a.c"}),
        (
            'a.b != "x"',
            {
                '`!=` became `==` in `a.b != "x"`': 'a.b == "x"',
                '`"x"` became `"x~"` in `a.b != "x"`': 'a.b != "x~"',
            },
        ),
        (
            'a.b like "x*\\*"',
            {
                '`a.b like "x*\\*"` was negated': '!(a.b like "x*\\*")',
                '`"x*\\*"` became `"*"` in `a.b like "x*\\*"`': 'a.b like "*"',
                '`"x*\\*"` became `"x\\*"` in `a.b like "x*\\*"`': 'a.b like "x\\*"',
            },
        ),
        (
            'a.b like "*"',
            {'`a.b like "*"` was negated': '!(a.b like "*")', '`"*"` became `""` in `a.b like "*"`': 'a.b like ""'},
        ),
        ("a has b", {"`a has b` was negated": "!(a has b)"}),
        ('a has "b > 1"', {'`a has "b > 1"` was negated': '!(a has "b > 1")'}),
        ('a.b in Group::"c"', {'`a.b in Group::"c"` was negated': '!(a.b in Group::"c")'}),
        (
            "a.b.containsAny([7])",
            {
                "`a.b.containsAny([7])` was negated": "!(a.b.containsAny([7]))",
                "`7` became `6` in `a.b.containsAny([7])`": "a.b.containsAny([6])",
                "`7` became `8` in `a.b.containsAny([7])`": "a.b.containsAny([8])",
            },
        ),
        ("a.b is User", {"`a.b is User` was negated": "!(a.b is User)"}),
        (
            'a.b is User in Group::"g"',
            {
                '`a.b is User in Group::"g"` was negated': '!(a.b is User in Group::"g")',
                '`in Group::"g"` was dropped': "a.b is User",
            },
        ),
        (
            'a.b like "*@x*"',
            {
                '`a.b like "*@x*"` was negated': '!(a.b like "*@x*")',
                '`"*@x*"` became `"*"` in `a.b like "*@x*"`': 'a.b like "*"',
                '`"*@x*"` became `"@x*"` in `a.b like "*@x*"`': 'a.b like "@x*"',
                '`"*@x*"` became `"*@x"` in `a.b like "*@x*"`': 'a.b like "*@x"',
            },
        ),
        (
            'a.b in [Group::"c", Group::"d",]',
            {
                '`a.b in [Group::"c", Group::"d",]` was negated': '!(a.b in [Group::"c", Group::"d",])',
                '`Group::"c"` was dropped': 'a.b in [Group::"d",]',
                '`Group::"d"` was dropped': 'a.b in [Group::"c",]',
            },
        ),
        (
            '["x"].contains(a.b)',
            {
                '`["x"].contains(a.b)` was negated': '!(["x"].contains(a.b))',
                '`"x"` became `"x~"` in `["x"].contains(a.b)`': '["x~"].contains(a.b)',
            },
        ),
        (
            "a.b.containsAll(a.c)",
            {
                "`a.b.containsAll(a.c)` was negated": "!(a.b.containsAll(a.c))",
                "`containsAll` became `containsAny` in `a.b.containsAll(a.c)`": "a.b.containsAny(a.c)",
            },
        ),
        (
            'a["x"] - 3 < -1',
            {
                '`a["x"] - 3 < -1` was negated': '!(a["x"] - 3 < -1)',
                '`-` became `+` in `a["x"] - 3 < -1`': 'a["x"] + 3 < -1',
                '`3` became `2` in `a["x"] - 3 < -1`': 'a["x"] - 2 < -1',
                '`3` became `4` in `a["x"] - 3 < -1`': 'a["x"] - 4 < -1',
                '`<` became `<=` in `a["x"] - 3 < -1`': 'a["x"] - 3 <= -1',
                '`1` became `2` in `a["x"] - 3 < -1`': 'a["x"] - 3 < -2',
            },
        ),
        (
            'a.b.greaterThan(decimal("1.5"))',
            {
                '`a.b.greaterThan(decimal("1.5"))` was negated': '!(a.b.greaterThan(decimal("1.5")))',
                '`greaterThan` became `greaterThanOrEqual` in `a.b.greaterThan(decimal("1.5"))`': (
                    'a.b.greaterThanOrEqual(decimal("1.5"))'
                ),
                '`decimal("1.5")` became `decimal("1.5001")` in `a.b.greaterThan(decimal("1.5"))`': (
                    'a.b.greaterThan(decimal("1.5001"))'
                ),
            },
        ),
        (
            'a.b < datetime("2026-01-01")',
            {
                '`a.b < datetime("2026-01-01")` was negated': '!(a.b < datetime("2026-01-01"))',
                '`<` became `<=` in `a.b < datetime("2026-01-01")`': 'a.b <= datetime("2026-01-01")',
                '`datetime("2026-01-01")` became `datetime("2026-01-01").offset(duration("-1ms"))` in '
                '`a.b < datetime("2026-01-01")`': 'a.b < datetime("2026-01-01").offset(duration("-1ms"))',
            },
        ),
        (
            'a.b >= duration("-1h2s")',
            {
                '`a.b >= duration("-1h2s")` was negated': '!(a.b >= duration("-1h2s"))',
                '`>=` became `>` in `a.b >= duration("-1h2s")`': 'a.b > duration("-1h2s")',
                '`duration("-1h2s")` became `duration("-3602001ms")` in `a.b >= duration("-1h2s")`': (
                    'a.b >= duration("-3602001ms")'
                ),
            },
        ),
        (
            'a.b.isInRange(ip("10.0.0.0/8"))',
            {
                '`a.b.isInRange(ip("10.0.0.0/8"))` was negated': '!(a.b.isInRange(ip("10.0.0.0/8")))',
                '`ip("10.0.0.0/8")` became `ip("10.0.0.0/7")` in `a.b.isInRange(ip("10.0.0.0/8"))`': (
                    'a.b.isInRange(ip("10.0.0.0/7"))'
                ),
                '`ip("10.0.0.0/8")` became `ip("10.0.0.0/9")` in `a.b.isInRange(ip("10.0.0.0/8"))`': (
                    'a.b.isInRange(ip("10.0.0.0/9"))'
                ),
            },
        ),
        # There is no smaller range, and what is no range has no size.
        (
            'a.b == ip("::1/128")',
            {
                '`==` became `!=` in `a.b == ip("::1/128")`': 'a.b != ip("::1/128")',
                '`ip("::1/128")` became `ip("::1/127")` in `a.b == ip("::1/128")`': 'a.b == ip("::1/127")',
            },
        ),
        ('a.b == ip("10.0.0.1")', {'`==` became `!=` in `a.b == ip("10.0.0.1")`': 'a.b != ip("10.0.0.1")'}),
        ('a.b == decimal("much")', {'`==` became `!=` in `a.b == decimal("much")`': 'a.b != decimal("much")'}),
        (
            "if a.b then a.c else a.d",
            {
                "`if a.b then a.c else a.d` became its `then`": "a.c",
                "`if a.b then a.c else a.d` became its `else`": "a.d",
                "`a.b` was negated": "if !(a.b) then a.c else a.d",
                "`a.d` was negated": "if a.b then a.c else !(a.d)",
            },
        ),
        (
            "if if a.b then a.c else a.d then if a.e then a.f else a.g else a.h",
            {
                "`if if a.b then a.c else a.d then if a.e then a.f else a.g else a.h` became its `then`": (
                    "if a.e then a.f else a.g"
                ),
                "`if if a.b then a.c else a.d then if a.e then a.f else a.g else a.h` became its `else`": "a.h",
                "`if a.b then a.c else a.d` became its `then`": ("if a.c then if a.e then a.f else a.g else a.h"),
                "`if a.b then a.c else a.d` became its `else`": "if a.d then if a.e then a.f else a.g else a.h",
                "`a.b` was negated": "if if !(a.b) then a.c else a.d then if a.e then a.f else a.g else a.h",
                "`a.d` was negated": "if if a.b then a.c else !(a.d) then if a.e then a.f else a.g else a.h",
                "`if a.e then a.f else a.g` became its `then`": "if if a.b then a.c else a.d then a.f else a.h",
                "`if a.e then a.f else a.g` became its `else`": "if if a.b then a.c else a.d then a.g else a.h",
                "`a.e` was negated": "if if a.b then a.c else a.d then if !(a.e) then a.f else a.g else a.h",
                "`a.h` was negated": "if if a.b then a.c else a.d then if a.e then a.f else a.g else !(a.h)",
            },
        ),
        (
            "(a.b > 1) == a.c",
            {
                "`>` became `>=` in `(a.b > 1) == a.c`": "(a.b >= 1) == a.c",
                "`1` became `2` in `(a.b > 1) == a.c`": "(a.b > 2) == a.c",
                "`==` became `!=` in `(a.b > 1) == a.c`": "(a.b > 1) != a.c",
            },
        ),
        (
            '{x: a.b, "y": 1} == a.c',
            {
                '`1` became `0` in `{x: a.b, "y": 1} == a.c`': '{x: a.b, "y": 0} == a.c',
                '`1` became `2` in `{x: a.b, "y": 1} == a.c`': '{x: a.b, "y": 2} == a.c',
                '`==` became `!=` in `{x: a.b, "y": 1} == a.c`': '{x: a.b, "y": 1} != a.c',
            },
        ),
        (
            "a.in.if.has in a.then",
            {"`a.in.if.has in a.then` was negated": "!(a.in.if.has in a.then)"},
        ),
    ],
)
def test_each_part_of_a_condition_is_changed(condition: str, wanted: dict[str, str]) -> None:
    """And nothing twice: what one change shows is not asked again by another."""
    assert changes(condition) == wanted


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("a.b > 5", {"6"}),
        ("a.b >= 5", {"4"}),
        ("a.b < 5", {"4"}),
        ("a.b <= 5", {"6"}),
        ("5 > a.b", {"4"}),
        ("5 >= a.b", {"6"}),
        ("5 < a.b", {"6"}),
        ("5 <= a.b", {"4"}),
        ("a.b > -5", {"4"}),
        ("a.b == 5", {"4", "6"}),
        ("a.b.contains(5)", {"4", "6"}),
        ("a.b + 5 > 1000", {"4", "6"}),
    ],
)
def test_a_number_is_not_moved_to_where_the_comparison_moves(condition: str, kept: set[str]) -> None:
    """`> 499` and `>= 500` are one question, and whoever answers it has answered both."""
    text = f"{HEAD} when {{ {condition} }};"

    moved = {edit.text for edit in edits_of(text) if text[edit.start : edit.end] == "5"}

    assert moved == kept


@pytest.mark.parametrize(
    ("method", "kept"),
    [
        ("greaterThan", "1.0001"),
        ("greaterThanOrEqual", "0.9999"),
        ("lessThan", "0.9999"),
        ("lessThanOrEqual", "1.0001"),
    ],
)
def test_a_decimal_is_not_moved_to_where_the_comparison_moves(method: str, kept: str) -> None:
    """As with whole numbers: there is no decimal between two steps."""
    found = changes(f'a.b.{method}(decimal("1.0"))')

    assert [text for what, text in found.items() if what.startswith("`decimal")] == [f'a.b.{method}(decimal("{kept}"))']


def test_changes_that_read_alike_are_numbered() -> None:
    """Whoever explains one of them in a file names it, and no other."""
    found = changes("a.b > 5 || (c.d && a.b > 5)")

    assert [what for what in found if what.startswith("`>`")] == [
        "`>` became `>=` in `a.b > 5`",
        "`>` became `>=` in `a.b > 5` (2)",
    ]


def test_what_was_changed_is_one_line_whatever_stands_in_the_policy() -> None:
    """It goes to a terminal, and into tables."""
    found = changes('a.b == "\x1b[31m\n" && // why\n' + " || ".join(f"a.long_name_{n}" for n in range(20)))

    assert all(what.isprintable() and len(what) < 250 for what in found)
    assert '`==` became `!=` in `a.b == "�[31m�"`' in found


def test_a_mutant_says_where_it_differs() -> None:
    """In the file, where the policy may begin in the middle of a line."""
    one = replace(policy(f"{HEAD} when {{ true\n  && context.input.n > 1 }};"), line=7, column=5)

    found = {mutant.what: (mutant.line, mutant.column) for mutant in mutants_of(one, LIMITS).found}

    assert found["`permit` became `forbid`"] == (7, 14)
    assert found["`>` became `>=` in `context.input.n > 1`"] == (8, 22)


@pytest.mark.parametrize(
    "refused",
    ["`unless { context has approval }` was dropped", "`forbid` became `permit`", "`context has approval` was negated"],
)
def test_what_the_reader_refuses_is_no_mutant(refused: str) -> None:
    """A forbid that a person can lift, for one, has to keep what they lift it by."""
    text = '@id("p") @obligation("approval") forbid (principal, action, resource) unless { context has approval };'

    assert refused in {edit.what for edit in edits_of(text)}
    assert refused not in {mutant.what for mutant in mutants_of(policy(text), LIMITS).found}


@pytest.mark.parametrize(
    ("annotations", "left"),
    [
        ('@obligation("approval")', [""]),
        ('@owner("o") @obligation("approval") @approval_prompt("Sure?") @bare', ['@owner("o")  @bare']),
        # A question that nobody puts is refused.
        ('@approval_prompt("Sure?") @obligation("approval")', []),
    ],
)
def test_a_person_is_no_longer_asked(annotations: str, left: list[str]) -> None:
    """What asks them decides, and so does it when it is gone, with the question that it put."""
    rest = "forbid (principal, action, resource) unless { context has approval };"
    found = mutants_of(policy(f'@id("p") {annotations} {rest}'), LIMITS).found

    changed = [mutant.policy for mutant in found if mutant.what.startswith("`@obligation")]
    assert [one.text for one in changed if one is not None] == [f'@id("p") {annotation} {rest}' for annotation in left]
    assert not any(one is None or one.approval for one in changed)


def test_of_many_changes_some_from_all_over_are_made() -> None:
    """And it is known how many were left out."""
    one = policy(f"{HEAD} when {{ {' || '.join(f'context.input.n == {n}' for n in range(20))} }};")

    everything, few = mutants_of(one, LIMITS, most=1_000), mutants_of(one, LIMITS, most=15)

    assert everything.left_out == 0
    assert len(few.found) <= 15
    assert len(few.found) + few.left_out == len(everything.found)
    assert few.found[-1].offset > everything.found[-15].offset


def test_the_bounds_of_policies_hold_for_mutants_too() -> None:
    """Cedar's parser must not see what is larger, or deeper nested."""
    one = policy(f"{HEAD} when {{ ({'(' * 5}true{')' * 5}) && context.input.n == 1 }};")

    found = mutants_of(one, Limits(policy_nesting=7)).found

    assert "`context.input.n == 1` was dropped" in {mutant.what for mutant in found}
    assert not any(mutant.what.endswith("was negated") for mutant in found)


TRUTHS: Final = st.sampled_from(
    [
        "true",
        "principal has user",
        'principal has "some word"',
        "context.input.n > 5",
        "-5 <= context.input.n - 3",
        "context.input.n * 2 + 1 == 7",
        'context.input.s == "x"',
        'context.input.s like "a*\\*"',
        '["a", "b"].contains(context.input.s)',
        "[1].containsAny(context.input.list)",
        'context.input.price.lessThan(decimal("-0.0001"))',
        'context.now < datetime("2026-01-01T00:00:00Z")',
        'principal.lifetime <= duration("1d2h3m4s5ms")',
        'resource is Record in Tool::"x"',
        'action in [Action::"a", Action::"b"]',
        '{a: 1, "b": [context.input.n]} == context.input["some record"]',
        'context.input.ip.isInRange(ip("10.0.0.0/8"))',
        'principal.user in Group::"a, (b"',
    ]
)
CONDITIONS: Final = st.recursive(
    TRUTHS,
    lambda inner: st.one_of(
        st.builds("({} && {})".format, inner, inner),
        st.builds("({}\n  || {} // why ) not\n)".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("(if {} then {} else {})".format, inner, inner, inner),
        st.builds("([{}, {}].contains({}))".format, inner, inner, inner),
    ),
    max_leaves=8,
)
HEADS: Final = st.builds(
    "{}, {}, {}".format,
    st.sampled_from(["principal", 'principal in Agent::"a"', 'principal is Invocation in Agent::"a"']),
    st.sampled_from(["action", 'action == Action::"a"', 'action in [Action::"a", Action::"b"]']),
    st.sampled_from(["resource", "resource is Record", 'resource == Tool::"a",']),
)
CLAUSES: Final = st.lists(st.builds("{} {{ {} }}".format, st.sampled_from(["when", "unless"]), CONDITIONS), max_size=3)
POLICIES: Final = st.builds(
    lambda effect, head, clauses: f'@id("p")\n{effect} ({head})\n{" ".join(clauses)};',
    st.sampled_from(["permit", "forbid"]),
    HEADS,
    CLAUSES,
)


def tree(text: str) -> object:
    """Return Cedar's own tree of a policy."""
    return json.loads(cedarpy.policies_to_json_str(text))


@settings(deadline=None, max_examples=20)
@given(POLICIES)
def test_a_mutant_is_another_policy_and_the_same_text_elsewhere(text: str) -> None:
    """Cedar reads it, as another policy; nothing but the named place differs; no two say the same."""
    original = policy(text)

    found = mutants_of(original, LIMITS, most=10_000).found

    said = [mutant.what for mutant in found]
    assert len(set(said)) == len(said)
    assert all(place(mutant) for mutant in found)
    changed = [mutant.policy for mutant in found if mutant.policy is not None]
    assert len(changed) == len(edits_of(text)) == len(found) - 1
    assert all(mutant.text not in (text, original.text) for mutant in changed)
    before = tree(text)
    assert all(tree(mutant.text) != before for mutant in changed)
    assert all((mutant.id, mutant.file, mutant.line) == ("p", "a.cedar", 1) for mutant in changed)


def place(mutant: Mutant) -> bool:
    """Return whether everything outside of the place is as it was, and the place is where it says."""
    text, end = mutant.original.text, mutant.offset + mutant.length
    after = "" if mutant.policy is None else mutant.policy.text
    before = text[: mutant.offset]
    assert (mutant.line, mutant.column) == (before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1)
    return after == f"{before}{mutant.text}{text[end:]}"


def test_conditions_nested_as_deep_as_they_may_be_are_walked() -> None:
    """Python's own stack is not the bound."""
    deep = policy(f"{HEAD} when {{ {'(' * 97}true{')' * 97} }};")
    chain = policy(f"{HEAD} when {{ {'if true then true else ' * 98}true }};")

    assert len(mutants_of(deep, LIMITS).found) == 4
    assert len(edits_of(chain.text)) > 98 * 3
