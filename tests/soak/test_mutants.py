"""Mutants that take a while: of the larger examples, and of a server that is a program."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agentguard.analysis.scenarios.coverage import survivors
from agentguard.analysis.scenarios.suites import open_suites
from agentguard.analysis.workspace import open_workspace
from tests.cli.commands import agentguard
from tests.cli.serving import RECORDS
from tests.examples.test_scenarios import FOLDERS


@pytest.mark.parametrize(
    "folder", [one for one in FOLDERS if "tau2" in one.parts], ids=lambda folder: folder.parent.name
)
def test_each_change_of_the_airlines_and_the_shops_policies_is_noticed(folder: Path) -> None:
    """Nobody has to explain a mutant: there is no survivor."""
    workspace = open_workspace(folder)

    report = survivors(workspace, open_suites(workspace))

    assert report.findings() == []
    assert report.killed > 90


def test_a_folder_is_made_for_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given as its command; nothing is found in what is made."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "server.py").write_text(RECORDS)

    made = agentguard("init", "policies", "--", sys.executable, "server.py")
    checked = agentguard("check", "policies")
    tested = agentguard("test", "policies", "--mutate")

    assert made.stdout.endswith(f"  agentguard schema --write policies -- {sys.executable} server.py\n")
    assert [made.status, checked.status, tested.status] == [0, 0, 0]
    assert open_workspace(tmp_path / "policies").written.server == "records"
