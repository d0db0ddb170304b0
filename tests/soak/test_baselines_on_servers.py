"""Every baseline on every odd server: with and without totals, nothing is found and every mutant noticed."""

from pathlib import Path

import pytest

from agentguard.analysis.scenarios.coverage import survivors
from agentguard.analysis.scenarios.suites import open_suites
from agentguard.analysis.workspace import open_workspace
from tests.analysis.scenarios.test_baselines import records, shown_to_work
from tests.cli.commands import agentguard
from tests.cli.test_init import SERVERS, works


@pytest.mark.parametrize("totals", [(), ("eur", "tokens")])
@pytest.mark.parametrize("name", SERVERS)
def test_all_baselines_that_fit_are_shown_to_work(name: str, totals: tuple[str, ...], tmp_path: Path) -> None:
    """Each policy covered both ways, each change of one noticed, or explained where nobody could."""
    shown_to_work(name, totals, tmp_path / "policies")


@pytest.mark.parametrize("name", ["records", "airline", "retail"])
def test_examples_take_all_baselines_that_fit(name: str, tmp_path: Path) -> None:
    """`check` finds that tools are not annotated, where they are not, and no mutant of a baseline survives."""
    folder = records(tmp_path / "policies", name)
    before = {finding["name"] for finding in agentguard("check", str(folder), "--json").json["findings"]}

    assert agentguard("init", str(folder), "--baseline", "all").status == 0
    found = {finding["name"] for finding in agentguard("check", str(folder), "--json").json["findings"]}
    assert found - before == (set() if name == "records" else {"unannotated-tool"})
    workspace = open_workspace(folder)
    ours = {policy.id for policy in workspace.source.policies if policy.file.startswith("30-")}
    report = survivors(workspace, open_suites(workspace))
    assert [mutant.what for mutant in report.survivors if mutant.original.id in ours] == []


def test_new_folder_with_all_of_them_works(tmp_path: Path) -> None:
    """As the command makes it, and with the command's own words."""
    assert agentguard("init", str(tmp_path / "policies"), "--baseline", "all").status == 0

    works(tmp_path / "policies")
    tested = agentguard("test", str(tmp_path / "policies"), "--mutate")
    assert (tested.status, "not noticed" in tested.stdout) == (0, False)
