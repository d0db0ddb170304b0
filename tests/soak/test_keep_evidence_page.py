"""What the page on keeping evidence shows is what happens."""

import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.docs.pages import blocks, run_python
from tests.evidence.chains import exported

PAGE = "docs/pages/how-to/keep-evidence.md"
AGENTGUARD = Path(sysconfig.get_path("scripts")) / "agentguard"
COMMANDS = [block.text.splitlines() for block in blocks(PAGE, "text")]


def test_the_page_shows_its_commands() -> None:
    """Else the one below would test nothing."""
    assert [lines[0].split()[3] for lines in COMMANDS] == ["verify", "verify", "prune"]


@pytest.mark.parametrize("lines", COMMANDS, ids=lambda lines: lines[0])
def test_a_command_of_the_page_says_what_it_shows(lines: list[str], tmp_path: Path) -> None:
    """On the page's own state, with a decision that a collector has."""
    names = run_python(PAGE, tmp_path)
    kept = {"kind": "decision", "time_unix_nano": 1_800_000_000_000_000_000, "trace_id": "1" * 32, "span_id": "1" * 16}
    names["guard"].state.ledger.append({**kept, "attributes": {"agentguard.decision.id": "D1"}})
    names["guard"].state.close()
    shutil.copy(tmp_path / "state" / "evidence" / "head.jwk", tmp_path)
    exported(tmp_path / "state" / "evidence", tmp_path / "export.jsonl")
    command, *shown = lines

    done = subprocess.run(
        [str(AGENTGUARD), *shlex.split(command)[2:]], cwd=tmp_path, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr
    # That the clock of this test is ahead is noted, and is none of the page's.
    said = [line for line in (done.stdout + done.stderr).splitlines() if not line.startswith("note:")]
    assert said == shown or (not shown and (not said or said[0].startswith("the evidence holds")))
