"""The tutorial, followed word for word."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.docs.pages import blocks, without_ids

PAGE: Final = "docs/pages/tutorial.md"


def steps(text: str) -> list[tuple[str, list[str]]]:
    """Return the commands of a block, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            found.append((line.removeprefix("$ "), []))
        else:
            found[-1][1].append(line)
    return found


def run(command: str, folder: Path) -> tuple[list[str], str]:
    """Run a command as a reader does.

    Returns:
        What it printed, or the last line of its error; and all that a terminal shows.
    """
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "80"},
    )
    if done.returncode:
        return done.stderr.strip().splitlines()[-1:], done.stderr
    return done.stdout.splitlines(), done.stderr + done.stdout


def plain(terminal: str) -> str:
    """Return what a terminal shows without what differs: times, places in the code, ids."""
    text = re.sub(r"\[\d\d/\d\d/\d\d \d\d:\d\d:\d\d\]|\w+\.py:\d+", "", terminal)
    return re.sub(r"run `test-\w+`", "run `test-…`", without_ids(" ".join(text.split())))


def test_tutorial_prints_what_it_says_to_the_first_denial(tmp_path: Path) -> None:
    """Each file is written where it stands in the page, each command is run, each output is compared."""
    # The commands name the environment that `make` makes.
    (tmp_path / ".venv").symlink_to(sys.prefix)
    ran, compared = 0, 0
    terminal = ""
    for block in blocks(PAGE):
        if block.title:
            file = tmp_path / block.title
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(block.text, "utf-8")
        if block.language == "text":
            assert plain(terminal) == plain(block.text)
            compared += 1
        for command, shown in steps(block.text) if block.language == "console" else ():
            if command.startswith("make "):
                continue
            lines, terminal = run(command, tmp_path)
            printed = [without_ids(line) for line in lines]
            wanted = [re.escape(without_ids(line)).replace("…/", ".*/") for line in shown]
            assert len(printed) == len(wanted), (block.line, command, printed)
            for line, pattern in zip(printed, wanted, strict=True):
                assert re.fullmatch(pattern, line), (block.line, command, line)
            ran += 1

    assert ran >= 8
    assert compared == 1
