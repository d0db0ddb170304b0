"""The tree is Cedar's own: each is held against what Cedar makes of the same text."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.limits import Limits
from agentguard.model import EntityUid
from agentguard.policy.files.reader import read_policies
from agentguard.policy.text.lexer import LexError
from agentguard.policy.text.syntax import syntax_of, syntax_of_text
from agentguard.policy.text.tree import Node, Op, Syntax, fold, path_of, terms, walk

ROOT = Path(__file__).parent.parent.parent.parent
_METHODS_OF_ONE = {"isEmpty"}
_METHODS_OF_TWO = {"contains", "containsAll", "containsAny", "hasTag", "getTag"}


def cedars(text: str) -> dict[str, Any]:
    """Return the tree that Cedar makes of one policy."""
    tree: dict[str, Any] = json.loads(cedarpy.policies_to_json_str(text))["staticPolicies"]["policy0"]
    return tree


def as_cedars(node: Node) -> Any:
    """Return a node as Cedar writes it."""
    return fold(node, _as_cedars)


def _as_cedars(node: Node, parts: tuple[Any, ...]) -> Any:
    return _leaf(node) or _by_form(node, parts) or _by_name(node, parts)


def _leaf(node: Node) -> Any:
    value: Any = node.value
    match node.op:
        case Op.LITERAL:
            return {"Value": value}
        case Op.VARIABLE:
            return {"Var": value}
        case Op.ENTITY:
            return {"Value": {"__entity": {"type": value.type, "id": value.id}}}
    return None


def _by_form(node: Node, parts: tuple[Any, ...]) -> Any:
    value: Any = node.value
    match node.op:
        case Op.RECORD:
            return {"Record": dict(zip(value, parts, strict=True))}
        case Op.ATTRIBUTE:
            return {".": {"left": parts[0], "attr": value}}
        case Op.HAS:
            return _has(parts[0], value)
        case Op.LIKE:
            pieces: list[Any] = []
            for piece in value:
                pieces += ["Wildcard"] if piece is None else [{"Literal": char} for char in piece]
            return {"like": {"left": parts[0], "pattern": pieces}}
        case Op.IS:
            return {"is": {"left": parts[0], "entity_type": value} | ({"in": parts[1]} if len(parts) > 1 else {})}
    return None


def _has(left: Any, names: tuple[str, ...]) -> Any:
    whole = None
    for name in names:
        one = {"has": {"left": left, "attr": name}}
        whole = one if whole is None else {"&&": {"left": whole, "right": one}}
        left = {".": {"left": left, "attr": name}}
    return whole


def _by_name(node: Node, parts: tuple[Any, ...]) -> Any:
    value: Any = node.value
    if node.op is Op.SET:
        return {"Set": list(parts)}
    if node.op is Op.IF:
        return {"if-then-else": dict(zip(("if", "then", "else"), parts, strict=True))}
    if node.op is Op.CALL or (node.op is Op.METHOD and value not in _METHODS_OF_ONE | _METHODS_OF_TWO):
        return {value: list(parts)}
    name = value if node.op is Op.METHOD else node.op
    return {name: {"arg": parts[0]} if len(parts) == 1 else {"left": parts[0], "right": parts[1]}}


def separate(tree: Any) -> Any:
    """Return Cedar's tree with the letters of a pattern one by one: it is not always so in its own."""
    if isinstance(tree, dict):
        return {
            key: [
                piece if piece == "Wildcard" else {"Literal": char}
                for piece in value
                for char in (piece["Literal"] if piece != "Wildcard" else "*")
            ]
            if key == "pattern"
            else separate(value)
            for key, value in tree.items()
        }
    return [separate(part) for part in tree] if isinstance(tree, list) else tree


def same(text: str) -> Syntax:
    """Return the tree of a policy, after holding its conditions against Cedar's."""
    syntax, wanted = syntax_of_text(text), cedars(text)
    assert syntax.effect == wanted["effect"]
    assert {note.name: note.value or None for note in syntax.annotations} == wanted.get("annotations", {})
    assert [(clause.kind, as_cedars(clause.body)) for clause in syntax.clauses] == [
        (condition["kind"], separate(condition["body"])) for condition in wanted["conditions"]
    ]
    return syntax


CONDITIONS = [
    "-5 == context.a", "--5 == 1", "-(5) == 1", "- 5 == 1", "!!true", "-context.x > -9223372036854775808",
    "context has a.b.c", 'context has "a b"', 'principal is A::Agent in B::Group::"x"', "principal is A::B",
    'context["x"].y.contains(3)', '{"a": 1, b: 2,}.a == 1', r'context.a like "x*\*y\n\u{41}*"', 'context.a like ""',
    "if true then 1 == 1 else false", "1 * 2 * context.n + 3 - 4 > 5", "context.a.isEmpty()",
    'principal.hasTag("a") && principal.getTag("a") == 1', 'ip("1.1.1.1").isInRange(ip("1.1.1.1/8"))',
    "true && (if true then true else false) || !(false)", "[1, 2,].contains(1)", "{} == []", "5 - -5 == 3",
    'principal in [Agent::"x", Group::"\\""]', "(1 < 2) == (3 >= 2 && 4 != 5)", "((context)).a.b in resource",
    'principal is Agent in Group::"x" || principal.a has b', 'action == Action::"read" // why\n && true',
    'a::b::c::"x" == resource', "1 + 2 == 3 && 4 * 5 <= 6 || 7 > 8",
]  # fmt: skip


@pytest.mark.parametrize("condition", CONDITIONS)
def test_a_condition_has_the_tree_that_cedar_gives_it(condition: str) -> None:
    """Each form of an expression, and how strongly it binds."""
    same(f"permit (principal, action, resource) when {{ {condition} }} unless {{ {condition} }};")


def _literals() -> st.SearchStrategy[str]:
    return st.sampled_from(["1", "-2", "true", '"a\\"b"', "context.a", 'A::"x"', "principal", "[1, [2]]", "{a: 1}"])


def _larger(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def joined(parts: tuple[str, str, str, bool]) -> str:
        left, op, right, brackets = parts
        # Cedar chains no relations.
        return f"({left}) {op} ({right})" if brackets or op not in {"&&", "||", "+", "*", "-"} else f"{left}{op}{right}"

    operators = st.sampled_from(["&&", "||", "+", "-", "*", "==", "!=", "<", "<=", ">", ">=", "in"])
    return st.one_of(
        st.tuples(inner, operators, inner, st.booleans()).map(joined),
        inner.map(lambda text: f"!({text})"),
        inner.map(lambda text: f"-({text})"),
        inner.map(lambda text: f"({text}).a"),
        inner.map(lambda text: f'({text})["b c"]'),
        inner.map(lambda text: f"(({text}) has a.b)"),
        inner.map(lambda text: f'(({text}) like "a*\\*")'),
        inner.map(lambda text: f"(({text}) is A::B)"),
        inner.map(lambda text: f'(({text}) is A in A::"b")'),
        inner.map(lambda text: f"({text}).contains({text})"),
        inner.map(lambda text: f"(if {text} then {text} else {text})"),
    )


@settings(max_examples=100, deadline=None)
@given(st.recursive(_literals(), _larger, max_leaves=12))
def test_every_expression_has_the_tree_that_cedar_gives_it(condition: str) -> None:
    """Not those alone that somebody thought of."""
    same(f"forbid (principal, action, resource) when {{ {condition} }};")


@pytest.mark.parametrize("file", sorted((ROOT / "examples").rglob("*.cedar")), ids=lambda path: path.name)
def test_policies_of_the_examples_have_the_tree_that_cedar_gives_them(file: Path) -> None:
    """Annotations and heads included."""
    policies, problems = read_policies(file.name, file.read_text("utf-8"), Limits())

    assert problems == []
    for policy in policies:
        syntax = syntax_of(policy)
        same(policy.text)
        for clause in syntax.clauses:
            assert policy.text[clause.start :].startswith(clause.kind)
            assert policy.text[clause.end - 1] == "}"
        assert policy.text[syntax.start :].startswith(syntax.effect)


def test_a_head_is_three_expressions() -> None:
    """What a head demands is read as what a condition demands."""
    syntax = syntax_of_text(
        'permit (principal is Invocation in Agent::"a", action in [Action::"x", Action::"y"], resource,);'
    )

    assert (syntax.principal.op, syntax.principal.value) == (Op.IS, "Invocation")
    assert [part.value for part in syntax.action.parts[1].parts] == [
        EntityUid("Action", "x"),
        EntityUid("Action", "y"),
    ]
    assert (syntax.resource.op, syntax.resource.value) == (Op.VARIABLE, "resource")


def test_a_node_knows_where_it_stands() -> None:
    """A caret, and a change to the text, need the place."""
    syntax = syntax_of_text("permit (principal, action, resource) when { (context.input.n\t+ 1) * 2 >\r\n   (3) };")
    (body,) = [clause.body for clause in syntax.clauses]
    written = [syntax.written(node) for node in walk(body)]

    assert written == [
        "(context.input.n + 1) * 2 > (3)",
        "(context.input.n + 1) * 2",
        "context.input.n + 1",
        "context.input.n",
        "context.input",
        "context",
        "1",
        "2",
        "3",
    ]
    assert syntax.text[body.sign] == ">"


def test_an_annotation_knows_where_it_stands() -> None:
    """One that says nothing is there too."""
    syntax = syntax_of_text('@id("a") @b\n@c("\\"")permit (principal, action, resource);')

    assert [(note.name, note.value, syntax.text[note.start : note.end]) for note in syntax.annotations] == [
        ("id", "a", '@id("a")'),
        ("b", "", "@b"),
        ("c", '"', '@c("\\"")'),
    ]


@pytest.mark.parametrize(
    ("condition", "path"),
    [
        ("context.input.x", ("context", "input", "x")),
        ('context["a b"].c', ("context", "a b", "c")),
        ("principal", ("principal",)),
        ("{a: 1}.a", ()),
        ("(context).input", ("context", "input")),
    ],
)
def test_a_path_is_read_from_its_variable_on(condition: str, path: tuple[str, ...]) -> None:
    """What does not start at a variable is no path."""
    (clause,) = syntax_of_text(f"permit (principal, action, resource) when {{ {condition} }};").clauses

    assert path_of(clause.body) == path


def test_a_chain_is_flat_however_it_is_bracketed() -> None:
    """`a && (b && c)` has three terms, and a clause knows what it has to be."""
    syntax = syntax_of_text(
        "permit (principal, action, resource) when { context.a && (context.b && context.c) } unless { true || false };"
    )
    when, unless = syntax.clauses

    assert [syntax.written(term) for term in terms(when.body)] == ["context.a", "context.b", "context.c"]
    assert [term.value for term in terms(unless.body, Op.OR)] == [True, False]
    assert (when.holds, unless.holds) == (True, False)


def longest(limits: Limits) -> list[str]:
    """Return conditions as deep and as long as bounds let pass."""
    deep = limits.policy_nesting - 2
    return [
        "(" * deep + "true" + ")" * deep,
        " && ".join(["true"] * 400),
        "context" + ".a" * 450,
        " + ".join(["1"] * 400) + " == 1",
        "if true then true else " * deep + "true",
        "[" * deep + "]" * deep + " == 1",
        "(1 + 2 * (" * (deep // 2) + "3" + "))" * (deep // 2) + " == 1",
    ]


@pytest.mark.parametrize("place", range(7))
def test_a_policy_at_its_bounds_has_a_tree(place: int) -> None:
    """What the loader takes never ends in a stack that is too deep."""
    text = f'@id("a") permit (principal, action, resource) when {{ {longest(Limits())[place]} }};'
    (policy,), problems = read_policies("a.cedar", text, Limits())
    (clause,) = syntax_of(policy).clauses
    size: Callable[[Node, tuple[int, ...]], int] = lambda _, parts: 1 + sum(parts)  # noqa: E731

    assert problems == []
    assert fold(clause.body, size) == len(list(walk(clause.body)))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "permit",
        "permit (principal",
        "permit (principal, action, resource)",
        "permit (principal, action, resource) when { };",
        "permit (principal, action, resource) when { 1 like 2 };",
        "permit (principal, action, resource) when { A:: };",
        "permit (principal, action, resource) when { A::1 };",
        "permit (principal, action, resource) when { ) };",
        "permit (principal, action, resource) when { -true };;",
        "permit (principal, action, resource) when { a ",
        "permit (principal, action, resource) when { {a: 1 b: 2} };",
        "permit (principal, action, resource) when { [1 2] };",
        "permit (principal, action, resource) when { if true ",
    ],
)
def test_what_is_no_policy_is_refused(text: str) -> None:
    """It never comes here; if it does, nothing is made up."""
    with pytest.raises(LexError, match="no policy that Cedar takes"):
        syntax_of_text(text)
