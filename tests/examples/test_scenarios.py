"""The policies of the examples: what each of them decides is written down in scenarios beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from agentguard.analysis.scenarios.coverage import coverage, survivors
from agentguard.analysis.scenarios.suites import open_suites, run
from agentguard.analysis.workspace import open_workspace

EXAMPLES: Final = Path(__file__).parents[2] / "examples"
FOLDERS: Final = tuple(EXAMPLES / name / "policies" for name in ("records", "inbox", "tau2/airline", "tau2/retail"))


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.parent.name)
def test_each_policy_of_the_examples_is_seen_to_fire_and_to_stay_silent(folder: Path) -> None:
    """Every case comes out as its file expects it."""
    workspace = open_workspace(folder)
    results = [result for suite in open_suites(workspace) for result in run(workspace, suite)]

    assert workspace.stale == ()
    assert [(result.name, result.got.reason) for result in results if not result.passed] == []
    assert coverage(results, workspace.policies).findings() == []


@pytest.mark.parametrize(("folder", "mutants"), [(FOLDERS[0], 90), (FOLDERS[1], 70)], ids=["records", "inbox"])
def test_each_change_of_the_policies_is_noticed(folder: Path, mutants: int) -> None:
    """Nobody has to explain a mutant: there is no survivor."""
    workspace = open_workspace(folder)

    report = survivors(workspace, open_suites(workspace))

    assert report.findings() == []
    assert report.explained == ()
    assert report.killed > mutants
