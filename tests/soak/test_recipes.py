"""The recipes of the page: their scenarios would notice any small change."""

from pathlib import Path

import pytest

from tests.cli.commands import agentguard
from tests.docs.recipes import NAMES, put


@pytest.mark.parametrize("recipe", NAMES)
def test_scenarios_notice_each_change_of_a_recipe(recipe: str, tmp_path: Path) -> None:
    """As the page says, or the page says why not."""
    put(recipe, tmp_path / "policies")

    ran = agentguard("test", str(tmp_path / "policies"), "--mutate")

    assert ran.status == 0, ran.stdout + ran.stderr
