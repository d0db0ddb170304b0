"""The pages on scenarios: their files are read, and the command prints what they show."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Final

import pytest

from agentguard.analysis.scenarios.done import DONE
from agentguard.analysis.scenarios.fields import Fields
from agentguard.analysis.scenarios.parties import IDENTITY
from agentguard.analysis.scenarios.scenariofile import CASE, FILE
from agentguard.analysis.scenarios.yamltext import MOST_BYTES, MOST_NODES, read_yaml
from tests.analysis.folders import RECORDS
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, write_files

PAGE: Final = "docs/pages/how-to/test-policies.md"
REFERENCE: Final = "docs/pages/reference/scenarios.md"
BILLING: Final = "policies/scenarios/billing.test.yaml"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with the example's policies and the page's scenarios."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    shutil.copytree(RECORDS, tmp_path / "policies", ignore=shutil.ignore_patterns("scenarios"))
    write_files(PAGE, tmp_path)
    return tmp_path


def shown() -> dict[str, str]:
    """Return what the page shows of each command's output."""
    found = {}
    for block in blocks(PAGE, "console"):
        command, _, output = block.text.partition("\n")
        found[command.removeprefix("$ agentguard ")] = output
    return found


def test_command_prints_what_the_page_shows(folder: Path) -> None:
    """For files that pass, for a case that fails, and for what is not covered."""
    outputs = shown()
    billing = folder / BILLING

    passing = agentguard("test", "policies", "--filter", "billing.test")
    (folder / "policies/scenarios/incidents.test.yaml").unlink()
    covered = agentguard("test", "policies")
    billing.write_text(
        billing.read_text().replace("purpose: monthly close }\n  shared", "purpose: month close }\n  shared")
    )
    failing = agentguard("test", "policies", "--filter", "an export")

    assert {
        "test policies --filter billing.test": passing.stdout,
        "test policies": covered.stdout,
        'test policies --filter "an export"': failing.stdout,
    } == outputs
    assert (passing.status, covered.status, failing.status) == (0, 1, 1)


def test_incidents_of_the_page_come_out_as_it_says(folder: Path) -> None:
    """Suspension, delegation and a grant."""
    ran = agentguard("test", "policies", "--filter", "incidents")

    assert (ran.status, ran.stdout.splitlines()[-1]) == (0, "3 cases")


def test_reference_has_every_key() -> None:
    """Each has its row, and there is no row for anything else."""
    text = (ROOT / REFERENCE).read_text("utf-8")

    def keys(heading: str) -> set[str]:
        section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
        rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
        return {key for row in rows for key in re.findall(r"`(\w+)`", row)}

    assert keys("A file") == set(FILE)
    assert keys("An identity") == set(IDENTITY)
    assert keys("A scenario and its cases") == set(CASE)
    assert keys("What the run has done") == set(DONE)
    assert f"{MOST_BYTES // 1024} KiB or {MOST_NODES:,} nodes" in text


def test_blocks_without_a_file_are_read() -> None:
    """They are parts of files, with keys that there are."""
    for page in (PAGE, REFERENCE):
        for block in blocks(page, "yaml"):
            if not block.title and not block.text.startswith("#"):
                Fields(read_yaml(block.text), FILE, "a file of scenarios")
