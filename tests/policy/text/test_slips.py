import pytest

from agentguard.limits import Limits
from agentguard.policy.files.reader import read_policies

HEAD = "permit (principal, action, resource)"
START = "a policy starts with `permit` or `forbid`, got"


def said(text: str) -> str:
    """Return what is wrong with a policy."""
    policies, (problem,) = read_policies("a.cedar", text, Limits())
    assert not policies
    return problem.what


@pytest.mark.parametrize(
    "word", ["deny", "Deny", "DENY", "block", "reject", "prohibit", "disallow", "refuse", "Forbid"]
)
def test_a_word_for_denying_is_never_taken_for_permit(word: str) -> None:
    """Who follows the advice would permit what should be denied."""
    assert said(f'@id("a") {word} (principal, action, resource);') == f"{START} `{word}`: write `forbid`"


@pytest.mark.parametrize(
    ("word", "fix"),
    [
        ("allow", "write `permit`"),
        ("grant", "write `permit`"),
        ("PERMIT", "write `permit`"),
        ("permti", "did you mean `permit`?"),
        ("forbit", "did you mean `forbid`?"),
        ("forbids", "did you mean `forbid`?"),
        ("unpermit", "write one of the two"),
        ("whatever", "write one of the two"),
        ("}", "write one of the two"),
    ],
)
def test_an_effect_is_suggested_only_where_it_is_beyond_doubt(word: str, fix: str) -> None:
    """Else both are named."""
    assert said(f'@id("a") {word} (principal, action, resource);') == f"{START} `{word}`: {fix}"


def test_an_annotation_without_its_sign_is_told() -> None:
    """It looks like an effect."""
    assert said(f'id("a") {HEAD};') == f"{START} `id`: an annotation begins with `@`, write `@id(…)`"


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (f"@id(a1) {HEAD};", '@id wants a text in quotation marks: write `@id("a1")`'),
        (f"@id(7) {HEAD};", '@id wants a text in quotation marks: write `@id("7")`'),
        (f"@id a1 {HEAD};", f'{START} `a1`: write `@id("a1")`'),
        (f'@id "a1" {HEAD};', f'{START} `"a1"`: write `@id("a1")`'),
        (f'@id("a") {HEAD} when {{ context.input.rows = 5 }};', "`=` is no operator of Cedar: write `==`"),
        (f'@id("a") {HEAD} when {{ true and false }};', "`and` is no operator of Cedar: write `&&`"),
        (f'@id("a") {HEAD} when {{ true or false }};', "`or` is no operator of Cedar: write `||`"),
        (f'@id("a") {HEAD} when {{ not true }};', "`not` is no operator of Cedar: write `!`"),
        (f'@id("a") {HEAD} when {{ true & false }};', "`&` is not part of Cedar: write `&&`"),
        (f'@id("a") {HEAD} when {{ true | false }};', "`|` is not part of Cedar: write `||`"),
        (f"@id('a') {HEAD};", "`'` is not part of Cedar: write text in `\"`"),
        (f"# a note\n{HEAD};", "`#` is not part of Cedar: write `//` before a comment"),
        (f'@id("a") {HEAD} if {{ true }};', "a condition starts with `when` or `unless`, got `if`: write `when`"),
        (
            f'@id("a") {HEAD} as {{ true }};',
            "a condition starts with `when` or `unless`, got `as`: write one of the two",
        ),
        (
            '@id("a") permit (principal, action == Action::read, resource);',
            'an entity\'s id is a text, got `Action::read`: write `Action::"read"`',
        ),
        (
            '@id("a") permit (principal, action == A::Action::read, resource);',
            'an entity\'s id is a text, got `A::Action::read`: write `A::Action::"read"`',
        ),
    ],
)
def test_what_other_languages_write_is_told_with_what_cedar_has_for_it(text: str, what: str) -> None:
    """Whoever writes it knows what it should mean."""
    assert said(text).startswith(what)
