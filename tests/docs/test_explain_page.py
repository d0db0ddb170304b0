"""The page on explanations: its commands print what it shows."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.analysis.folders import RECORDS
from tests.cli.commands import agentguard
from tests.cli.test_explain import Recorded
from tests.docs.pages import blocks

PAGE: Final = "docs/pages/how-to/explain-a-denial.md"
DECISION: Final = "01KB2Q6SZ3XJ8V4T5R6W7Y9ABC"


def test_commands_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of calls that somebody describes, and of a decision on record."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    shutil.copytree(RECORDS, tmp_path / "policies")
    recorded = Recorded(tmp_path / "state")
    recorded.keep(DECISION, inputs=("max_rows",))
    recorded.ledger.close()

    shown = [block.text.partition("\n") for block in blocks(PAGE, "console")]
    assert len(shown) == 3
    for command, _, output in shown:
        ran = agentguard(*shlex.split(command)[2:])
        # Which version it is, and where in the file it stands, is another matter.
        said = re.sub(r"sha256:[0-9a-f]+…", "sha256:…", ran.stdout.partition("\nunknown ")[0])
        said = said.partition("\nevidence ")[0]
        assert (ran.status, said.rstrip()) == (0, output.rstrip())


def test_the_line_that_the_page_names_is_a_case() -> None:
    """It can be copied."""
    ran = agentguard("explain", str(RECORDS), "--scenario", "scenarios/records.test.yaml:45")

    assert ran.status == 0
