import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from agentguard.cli.project import find_project
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT
from tests.test_hooks import ACTION, EXAMPLE, HOOKS

PAGE = (Path(__file__).parents[2] / "docs" / "pages" / "how-to" / "policies-in-a-pipeline.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """Return the blocks of the page in a language."""
    return re.findall(rf'^```{language}(?: title="[^"]*")?\n(.*?)^```', PAGE, re.DOTALL | re.MULTILINE)


def test_hooks_of_the_page_are_those_that_there_are() -> None:
    """In the file as it stands, and in the table."""
    config, *_ = map(yaml.safe_load, blocks("yaml"))

    shown = {hook["id"] for hook in config["repos"][0]["hooks"]}
    assert shown == {hook["id"] for hook in HOOKS}
    assert set(re.findall(r"^\| `(agentguard-[\w-]+)` \|", PAGE, re.MULTILINE)) == shown


def test_action_of_the_page_has_what_it_is_given() -> None:
    """Its inputs are called so."""
    _, workflow, *_ = map(yaml.safe_load, blocks("yaml"))

    rows = re.findall(r'^\| `([\w-]+)` \| (?:`"([^"]*)"`|what the project says) \|', PAGE, re.MULTILINE)
    assert dict(rows) == {name: given["default"] for name, given in ACTION["inputs"].items()}
    assert workflow["steps"][1]["with"].keys() <= dict(rows).keys()


def test_project_of_the_page_is_read(tmp_path: Path) -> None:
    """As it stands there."""
    (toml,) = blocks("toml")
    (tmp_path / "agentguard.toml").write_text(toml)

    project = find_project(tmp_path)

    assert project is not None
    assert project.policies == tmp_path / "servers/records/policies"
    assert project.evidence == (tmp_path / "servers/records/state",)


def test_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a folder that is good, and not yet laid out."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "policies").symlink_to(EXAMPLE)

    found = [re.findall(r"agentguard (.*?) > ", line) for line in blocks("console")[0].splitlines()]

    assert [agentguard(*line[0].split()).status for line in found] == [0, 0, 0]


def test_steps_of_the_page_pass_for_a_folder_that_is_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As `init` makes it, and locked; each of them then stops what it is there for."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    shutil.copy(ROOT / "examples/records/plain.py", tmp_path / "server.py")
    steps = [line.split()[1:] for line in blocks("sh")[0].splitlines() if line.startswith("agentguard ")]
    agentguard("init", "policies", "--server", "server.py")
    agentguard("lock", "policies")

    assert [agentguard(*step).status for step in steps] == [0] * 5

    permits = tmp_path / "policies/10-permits.cedar"
    permits.write_text(permits.read_text().replace('@owner("security@example.com")\n', "") + "\n\n")
    schema = tmp_path / "policies/agentguard.cedarschema"
    schema.write_text(schema.read_text().replace("max_rows", "most_rows"))
    assert [agentguard(*step).status for step in steps] == [1, 1, 2, 1, 1]
