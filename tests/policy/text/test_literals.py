import pytest

from agentguard.model import EntityUid
from agentguard.policy.text.lexer import tokens
from agentguard.policy.text.literals import literals

BOSS = 'User::"boss"'


@pytest.mark.parametrize(
    "condition",
    [
        f"principal.user == {BOSS}",
        f"{BOSS} == principal.user",
        f"principal.user != {BOSS} && true",
        f"principal.user in {BOSS}",
        f"principal.user in [{BOSS}, {BOSS}]",
        f"[{BOSS}].contains(principal.user)",
        f"context.users.contains({BOSS})",
    ],
)
def test_an_entity_that_is_compared_with_is_not_asked_about(condition: str) -> None:
    """Whether it is known does not change the answer."""
    assert [literal.asked for literal in literals(tokens(condition))] == [False] * condition.count("User")


@pytest.mark.parametrize(
    "condition",
    [
        f'{BOSS}.name == "x"',
        f'{BOSS}["name"] == "x"',
        f"{BOSS} has name",
        f'{BOSS} in Group::"board"',
        f"{BOSS} is User",
        f"{BOSS}",
        f'({BOSS}).name == "x"',
        f"principal.user in {BOSS}.team",
        f"[{BOSS}.name].contains(1)",
        f"{{a: {BOSS}}}.a.level == 1",
        f"(if principal.old then {BOSS} else principal.user).level == 1",
    ],
)
def test_an_entity_that_is_not_merely_compared_with_is_asked_about(condition: str) -> None:
    """What is not recognised as a comparison counts as a question."""
    assert literals(tokens(condition))[0].asked


@pytest.mark.parametrize(
    ("condition", "against"),
    [
        ('resource == Tool::"x"', "resource"),
        ('Tool::"x" != resource', "resource"),
        ('Tool::"x" == resource.tool', ""),
        ('Tool::"x" == resource["tool"]', ""),
        ('principal.tool == Tool::"x"', ""),
        ('resource in Tool::"x"', ""),
        ('Tool::"x" == Other::"y"', ""),
        ('Tool::"x"', ""),
    ],
)
def test_the_bare_name_on_the_other_side_is_told(condition: str, against: str) -> None:
    """A comparison of an attribute is another thing than one of the resource itself."""
    assert literals(tokens(condition))[0].against == against


def test_names_have_namespaces_values_and_places() -> None:
    """Offsets count from the policy's first token, and blanks inside a name do not matter."""
    found = literals(tokens('  permit A :: B::"\\u{e9}" "no" ::'))

    assert [(literal.uid, literal.offset) for literal in found] == [(EntityUid("A::B", "é"), 7)]
