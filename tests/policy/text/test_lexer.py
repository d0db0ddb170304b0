import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.limits import Limits
from agentguard.policy.text.lexer import (
    Kind,
    LexError,
    check_bounds,
    check_schema_bounds,
    position,
    statements,
    tokens,
    unquote,
)

LIMITS = Limits(policy_bytes=200, policy_nesting=4, policy_operators=5)
HEAD = "permit(principal,action,resource) when "


def bounded(text: str) -> None:
    """Check one policy against small bounds."""
    check_bounds(text, tokens(text), LIMITS)


def test_every_kind_of_token_is_told_apart() -> None:
    """Keywords are names, since Cedar takes some of them as attributes."""
    found = tokens('when ?principal "a\\"b" 12 :: != // rest\n _x9')

    assert [(token.kind, token.text) for token in found] == [
        (Kind.NAME, "when"),
        (Kind.SLOT, "?principal"),
        (Kind.STRING, '"a\\"b"'),
        (Kind.INTEGER, "12"),
        (Kind.SYMBOL, "::"),
        (Kind.SYMBOL, "!="),
        (Kind.NAME, "_x9"),
    ]


def test_a_token_knows_where_it_stands() -> None:
    """Cedar's errors do not say it."""
    text = "a\n  bc"

    assert tokens(text)[1].offset == 4
    assert position(text, 4) == (2, 3)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("permit #", "`#` is not part of Cedar: write `//` before a comment"),
        ('permit "abc', 'this string never ends: close it with `"`'),
        ('permit "ab\\\nc"', 'this string never ends: close it with `"`'),
        ("\ufeffpermit", "the file starts with a byte order mark: save it as UTF-8 without one"),
        ("permit \x1c", "`U+001C` is not part of Cedar: remove it"),
    ],
)
def test_text_that_is_not_cedar_is_refused_with_the_fix(text: str, what: str) -> None:
    """The message says what to change, and where."""
    with pytest.raises(LexError) as caught:
        tokens(text)

    assert caught.value.what == what
    assert str(caught.value) == f"1:{caught.value.column}: {what}"


def test_a_comment_ends_at_a_carriage_return_as_in_cedar() -> None:
    """Else a policy behind it would be a comment here and in force there."""
    found = statements("permit(principal,action,resource); // x\rforbid(principal,action,resource);")

    assert [statement.tokens[0].text for statement in found] == ["permit", "forbid"]


@settings(deadline=None)
@given(st.text(alphabet='permit(),; @"\\\n\r/x:=!{}[]?7\x1c\u00a0é', max_size=40))
def test_what_cedar_reads_is_never_refused_by_the_lexer(text: str) -> None:
    """The two agree on what a token is, so a policy cannot hide from one of them."""
    try:
        policies = cedarpy.PolicySet.from_str(text)
    except ValueError:
        return

    assert len(statements(text)) == len(policies)


def test_statements_are_split_at_semicolons_with_their_places() -> None:
    """Comments before a policy are not part of it."""
    found = statements("// one\npermit (a);\n\n  forbid (b); // two\n")

    assert [(s.text, s.line, s.column) for s in found] == [("permit (a);", 2, 1), ("forbid (b);", 4, 3)]
    assert found[1].offset == 22


def test_an_unclosed_bracket_does_not_swallow_the_next_policy() -> None:
    """A policy holds no semicolon but the one that ends it."""
    assert len(statements("permit ((a; forbid (b);")) == 2


def test_a_last_policy_without_a_semicolon_is_returned() -> None:
    """It is for Cedar to refuse, not for the lexer to drop."""
    assert [s.text for s in statements("permit (a); forbid (b)")] == ["permit (a);", "forbid (b)"]


@pytest.mark.parametrize(
    "condition",
    [
        "{ ((true)) };",
        "{ if a then 1 else if b then 2 else 3 };",
        "{ [if a then 1 else 2, if b then 1 else 2, if c then 1 else 2] };",
        "{ a || b || c || d };",
        "))))",
    ],
)
def test_a_policy_within_the_bounds_passes(condition: str) -> None:
    """Siblings do not add up, and brackets that were never opened do no harm."""
    bounded(HEAD + condition)


def test_no_tokens_pass() -> None:
    """An empty file is nothing to bound."""
    check_bounds("", (), LIMITS)


@pytest.mark.parametrize(
    ("condition", "what"),
    [
        ("{ ((((true)))) };", "brackets and `if` are nested at most 4 deep"),
        ("{ [{a: [1, {}]}] };", "brackets and `if` are nested at most 4 deep"),
        ("{ if a then 1 else if b then 2 else if c then 3 else if d then 4 else 5 };", "nested at most 4 deep"),
        ("{ a || b || c || d || e || f || g };", "at most 5 operators"),
        ("{ a.b.c.d.e.f.g };", "at most 5 operators"),
        ('{ a["b"]["c"]["d"]["e"]["f"]["g"] };', "at most 5 operators"),
        ("{ !!!!!!true };", "at most 5 operators"),
        ("{ ------1 };", "at most 5 operators"),
        (f'{{ "{"é" * 100}" }};', "at most 200 bytes, this one 246"),
    ],
)
def test_a_policy_past_a_bound_is_refused(condition: str, what: str) -> None:
    """Cedar's parser recurses, and cannot be caught when it runs out of stack."""
    with pytest.raises(LexError, match=what):
        bounded(HEAD + condition)


def test_a_schema_past_the_nesting_is_refused() -> None:
    """Sets and records of a schema recurse like brackets of a policy."""
    shallow, deep = "type A = Set<Set<{a: Long}>>;", "type A = Set<Set<Set<Set<Set<Long>>>>>;"
    check_schema_bounds(shallow, tokens(shallow), LIMITS)

    with pytest.raises(LexError, match="nested at most 4 deep"):
        check_schema_bounds(deep, tokens(deep), LIMITS)


@pytest.mark.parametrize(
    ("literal", "value"),
    [
        ('"a"', "a"),
        (r'"\n\r\t\0\'\"\\"', "\n\r\t\0'\"\\"),
        (r'"\x41\u{e9}\u{1F600}"', "Aé😀"),
        ('"é\n"', "é\n"),
    ],
)
def test_a_string_has_the_value_that_cedar_gives_it(literal: str, value: str) -> None:
    """An entity's id is compared by its value, not by its spelling."""
    assert unquote(literal) == value
    assert cedarpy.PolicySet.from_str(f"@id({literal}) permit(principal,action,resource);")


@pytest.mark.parametrize("literal", [r'"\q"', r'"\xff"', r'"\u{d800}"', r'"\u{110000}"', '"\r"'])
def test_an_escape_that_cedar_does_not_know_is_refused(literal: str) -> None:
    """No value is guessed."""
    with pytest.raises(ValueError, match=r"Cedar knows|carriage return"):
        unquote(literal)
    with pytest.raises(ValueError, match="escape"):
        cedarpy.PolicySet.from_str(f"@id({literal}) permit(principal,action,resource);")
