"""The inbox demo as a process: it ends by itself, and only ends well if everything is as expected."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from examples.inbox.server import POLICIES
from tests.examples.playing import play

DEMO = "examples.inbox.demo"


def test_demo_ends_well_and_leaves_its_evidence_and_its_log(tmp_path: Path) -> None:
    """That nobody could be asked at night is in the log, and nothing is on the screen beside the story."""
    kept = tmp_path / "kept"

    played = play(DEMO, "--keep", str(kept))

    assert (played.exit_code, played.errors) == (0, ""), played.output
    assert "each as expected" in played.output
    assert "the phone is off" in (kept / "server.log").read_text()
    assert list((kept / "state" / "evidence").glob("*.db"))
    with pytest.raises(ProcessLookupError):
        os.killpg(played.group, 0)


def test_demo_without_the_policy_ends_with_1(tmp_path: Path) -> None:
    """Each line that is not as it should be is named."""
    weak = tmp_path / "policies"
    shutil.copytree(POLICIES, weak, ignore=shutil.ignore_patterns("untrusted-to-egress.cedar"))

    played = play(DEMO, "--policies", str(weak))

    assert played.exit_code == 1, played.errors
    assert "WRONG: what was paid is" in played.output
    assert "checks failed" in played.output
