"""The page on reading the evidence, followed word for word."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agentguard.cli.evidence import show
from agentguard.evidence.kept import Kept
from agentguard.evidence.reading import read_sources
from agentguard.evidence.showing import row_of
from agentguard.evidence.vocabulary import RecordKind
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python
from tests.evidence.history import export_line

PAGE: Final = "docs/pages/how-to/read-evidence.md"


@pytest.fixture(scope="module")
def followed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Mapping[str, Any]]:
    """Return the page's folder with its evidence, and the names of its programs."""
    folder = tmp_path_factory.mktemp("page")
    names = run_python(PAGE, folder)
    names["guard"]
    records = [
        replace(one, trace_id=f"{one.seq:032x}", span_id=f"{one.seq:016x}")
        for one in read_sources([folder / "state"], pytest.fail)
        if one.kind in {"decision", "outcome"}
    ]
    (folder / "export.jsonl").write_text(export_line(records) + "\n")
    return folder, names


def plain(text: str) -> list[str]:
    """Return lines without what differs: times, run ids, blanks, and the number of records."""
    text = re.sub(r"\b\d\d:\d\d:\d\d\b", "TIME", text)
    text = re.sub(r"\b\d\d [A-Z][a-z]{2}\b", "DAY", text)
    text = re.sub(r"\btest-[0-9a-f]+\b", "RUN", text)
    text = re.sub(r"\d+ records in 1 chain, \d+ signed heads?", "RECORDS", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("shown", [block.text for block in blocks(PAGE, "text")])
def test_the_commands_of_the_page_say_what_it_shows(
    shown: str, followed: tuple[Path, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Times and ids differ."""
    command, _, said = shown.partition("\n")
    program, *arguments = shlex.split(command.removeprefix("$ "))
    monkeypatch.chdir(followed[0])
    monkeypatch.setenv("COLUMNS", "80")

    ran = agentguard(*arguments)

    assert program == "agentguard"
    assert ran.status == 0, ran.stderr
    assert plain(ran.stdout + ran.stderr) == plain(said)


def test_the_programs_of_the_page_can_use_what_is_written(
    followed: tuple[Path, Mapping[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names that it gives are there."""
    folder, names = followed

    class Done:
        stdout = agentguard("evidence", "show", str(folder / "state"), "--effect", "deny", "--json").stdout

    monkeypatch.setattr(names["subprocess"], "run", lambda *_, **__: Done)

    assert names["denials"](folder / "state") == {"row-limit": 1}
    assert json.loads(Done.stdout)[0]["agent"] == "billing-agent"


def test_the_page_names_every_option_and_every_kind() -> None:
    """And no name of a record that there is not."""
    page = (ROOT / PAGE).read_text("utf-8")
    row = row_of(Kept(kind="decision", time_unix_nano=0))
    (named,) = re.findall(r"names stay as they are; (.*?) are some of them", " ".join(page.split()))

    options = {f"--{name.replace('_', '-')}" for name in show.__annotations__} - {
        "--sources", "--form", "--as-json", "--return",
    }  # fmt: skip
    assert {option for option in options if f"`{option}`" not in page} == set()
    assert {kind for kind in RecordKind if f"`{kind}`" not in page} == set()
    assert set(re.findall("`([a-z_]+)`", named)) <= set(row)
