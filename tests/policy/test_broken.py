"""One broken folder for each lint and each error, with the exact words that the command has for it."""

import ast
import re
from pathlib import Path

import pytest

from agentguard.analysis.checking.refusals import REFUSALS
from agentguard.analysis.lints.run import LINTS
from agentguard.policy.baselines import NAMES
from tests.policy.broken_folders import BROKEN, EXPECTED, lay_out, names, said_of

PACKAGE = Path(__file__).parent.parent.parent / "agentguard"
# Written in kebab-case too, and nothing that a folder is refused for.
OTHERS = {"read-only", "open-world", "utf-8", "lost-comment", "changed-policy", *NAMES}
# Cedar has other words for what it refuses, or will have; none is known that comes here.
UNSEEN = {"invalid"}
# More than one folder shows the same kind of mistake where people make it in more than one way.
MORE = {"principal-is-a-run": "impossible-comparison", "user-is-no-text": "type-mismatch"}


@pytest.mark.parametrize("name", names())
def test_a_broken_folder_is_told_in_these_words(name: str, tmp_path: Path) -> None:
    """Where it stands, what is wrong, and how to mend it. `broken_folders` writes the words anew."""
    root = tmp_path.resolve()
    lay_out(name, root / "policies")

    assert said_of(name, root) == (BROKEN / name / EXPECTED).read_text("utf-8")


@pytest.mark.parametrize("name", names())
def test_a_broken_folder_shows_what_it_is_named_after(name: str) -> None:
    """And hardly anything else."""
    text = (BROKEN / name / EXPECTED).read_text("utf-8")
    told = re.findall(r" (?:error|warning|note)\[([a-z0-9-]+)\]: ", text)

    if name == "no-folder":
        assert text.endswith("create it, or pass the path it has\nexit 2\n")
    else:
        assert MORE.get(name, name) in told
        assert len(told) <= 2


def test_each_lint_and_each_error_has_a_broken_folder() -> None:
    """What nobody has seen fail is not known to work."""
    assert {*LINTS, *REFUSALS} - {*names()} == UNSEEN
    assert {*names()} - {*LINTS, *REFUSALS} == {*MORE}
    assert not {*LINTS} & {*REFUSALS}


def test_each_error_that_the_guard_can_tell_is_explained() -> None:
    """Names are found in the code as they are written there."""
    named = {
        node.value
        for path in (*(PACKAGE / "policy").glob("*.py"), PACKAGE / "analysis" / "checking" / "check.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and re.fullmatch(r"[a-z]+(-[a-z0-9]+)+", node.value)
    }

    assert named - OTHERS - {*LINTS} <= {*REFUSALS}


def test_each_explanation_is_one_or_two_sentences() -> None:
    """They stand in a table and under a heading."""
    assert all(why.endswith(".") and "\n" not in why for why in REFUSALS.values())
