"""What the page on reloading shows is what happens."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.evidence.vocabulary import ATTRIBUTES, METRICS
from agentguard.live.prompting import Prompting
from agentguard.policy.files.keeping import PolicyFolder, Refused
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python
from tests.policy.records import LIMITS
from tests.publishing import EVERYBODY, put
from tests.world import POLICIES

PAGE = "docs/pages/how-to/reload-policies.md"
TEXT = (ROOT / PAGE).read_text("utf-8")


@pytest.fixture
def names(tmp_path: Path) -> Iterator[Any]:
    """Run the page's code, and give its names."""
    before = signal.getsignal(signal.SIGHUP)
    yield (found := run_python(PAGE, tmp_path))
    found["guard"].stop_watching()
    assert signal.getsignal(signal.SIGHUP) is before


def test_code_of_the_page_watches_and_takes_the_signal(names: Any) -> None:
    """As it says."""
    prompting = names["guard"]._reloading._prompting
    assert isinstance(prompting, Prompting)
    assert (prompting._watches, prompting._hears) == (True, True)
    assert names["observed"]._reloading._shadow is not None


def test_lock_says_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the example's policies."""
    monkeypatch.chdir(tmp_path)
    (shown,) = [block.text for block in blocks(PAGE, "text") if "agentguard lock" in block.text]
    shutil.copytree(ROOT / "examples" / "records" / "policies", tmp_path / "policies")

    ran = agentguard("lock", "policies")

    _, *lines = shown.splitlines()
    assert [re.sub(r"[0-9a-f]{64}", "…", line) for line in ran.stdout.splitlines()] == [
        re.sub(r"[0-9a-f]{64}", "…", line) for line in lines
    ]


def test_link_that_is_swapped_as_the_page_shows_is_taken(tmp_path: Path) -> None:
    """With these very commands."""
    put(tmp_path / "policies", {"a.cedar": EVERYBODY})
    put(tmp_path / "releases" / "42", {"a.cedar": EVERYBODY})
    (tmp_path / "current").symlink_to("releases/42")
    there = PolicyFolder(tmp_path / "current", LIMITS)
    put(tmp_path / "policies", {"a.cedar": POLICIES})
    (script,) = [block.text for block in blocks(PAGE, "sh")]

    subprocess.run(["sh", "-e", "-c", script], cwd=tmp_path, check=True)

    assert there.look().is_new


def test_folder_for_several_servers_is_laid_out_as_the_page_shows(tmp_path: Path) -> None:
    """Each name of it is read from where it stands."""
    put(
        tmp_path,
        {
            "common/10-guests.cedar": EVERYBODY.replace("permit", "forbid").replace('"all"', '"guests"'),
            "common/cedarentities.json": "[]",
            "common/types/people.cedarschema": "entity Person;",
            "servers/records/10-permits.cedar": EVERYBODY,
            "servers/records/types/records.cedarschema": "entity Record;",
        },
    )

    source = PolicyFolder(tmp_path, LIMITS).source_for("records")

    assert len(source.files) == 5


def test_every_name_of_the_page_is_in_the_tables() -> None:
    """Of attributes, metrics and reasons."""
    known = {row.name for row in ATTRIBUTES} | {row.name for row in METRICS}
    assert set(re.findall(r"`(agentguard\.(?:policy|shadow)\.[a-z_.]+)`", TEXT)) <= known
    assert set(re.findall(r"^\| `([a-z]+)` \|", TEXT, re.MULTILINE)) == {why.value for why in Refused}
