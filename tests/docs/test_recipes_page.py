"""The page of recipes: each policy is good, and its scenarios prove it."""

from pathlib import Path

import pytest

from tests.cli.commands import agentguard
from tests.docs.recipes import BESIDE, FILES, NAMES, put


def test_each_policy_has_scenarios() -> None:
    """And there are no others."""
    wanted = {BESIDE, *(f"{name}.cedar" for name in NAMES), *(f"scenarios/{name}.test.yaml" for name in NAMES)}

    assert FILES.keys() == wanted
    assert len(NAMES) == 19


@pytest.mark.parametrize("recipe", NAMES)
def test_recipe_is_good_and_decides_as_its_scenarios_say(recipe: str, tmp_path: Path) -> None:
    """There is nothing to find in it, and each of its policies is seen to match and not to match."""
    put(recipe, tmp_path / "policies")

    checked = agentguard("check", str(tmp_path / "policies"), "--json")
    tested = agentguard("test", str(tmp_path / "policies"))

    findings = [found for found in checked.json["findings"] if found["severity"] != "note"]
    assert {found["file"] for found in findings} <= {BESIDE}
    assert tested.status == 0, tested.stdout + tested.stderr
