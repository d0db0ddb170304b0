"""The page on who can do what: its commands print what it shows."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import pytest

from tests.analysis.folders import RECORDS
from tests.cli.commands import agentguard
from tests.docs.pages import blocks

PAGE: Final = "docs/pages/how-to/who-can-do-what.md"


@pytest.mark.parametrize("shown", [block.text for block in blocks(PAGE, "console")])
def test_commands_print_what_the_page_shows(shown: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the policies of the example."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(RECORDS, tmp_path / "policies")
    command, _, output = shown.partition("\n")

    ran = agentguard(*shlex.split(command)[2:])

    printed = ran.stdout.replace(str(tmp_path), "/home/you")
    assert (ran.status, without_version(printed)) == (0, without_version(output))


def without_version(text: str) -> str:
    """Return a text without what is another one with every change of the example."""
    return re.sub(r"sha256:[0-9a-f]{64}", "sha256:…", text)
