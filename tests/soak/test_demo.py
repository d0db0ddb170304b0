"""The demo: it ends by itself, and only ends well if every decision is the expected one."""

import os
import shutil
from pathlib import Path

import pytest

from examples.records.server import POLICIES
from tests.examples.playing import Played, play

DEMO = "examples.records.demo"


def changed_policies(folder: Path, old: str, new: str) -> Path:
    """Copy the example's policies with one text replaced."""
    copy = folder / "policies"
    shutil.copytree(POLICIES, copy)
    guardrails = copy / "20-guardrails.cedar"
    text = guardrails.read_text()
    assert old in text
    guardrails.write_text(text.replace(old, new))
    return copy


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> Played:
    """Play the demo once, unchanged, and leave what it leaves."""
    return play(DEMO, "--keep", str(tmp_path_factory.mktemp("demo") / "kept"))


def test_demo_ends_well_and_shows_what_was_decided(played: Played) -> None:
    """Every line is checked inside; the last one says so."""
    assert played.exit_code == 0, played.output + played.errors
    assert "15 calls decided, each as expected" in played.output
    assert "allow  billing-reads, mailer-sends" in played.output
    assert "call cancelled after" in played.output
    assert "records in 1 chain, its end signed: the evidence holds" in played.output
    assert "agentguard evidence report report.html" in played.output
    assert "DENY   export-row-limit" in played.output
    assert "(the tool did not run)" in played.output


def test_demo_writes_plain_lines_of_80_columns_into_a_pipe(played: Played) -> None:
    """Colours are for terminals."""
    assert "\x1b" not in played.output
    assert max(len(line) for line in played.output.splitlines() if "/kept/" not in line) <= 80


def test_demo_leaves_no_process_behind(played: Played) -> None:
    """The server that it started has ended with it."""
    with pytest.raises(ProcessLookupError):
        os.killpg(played.group, 0)


def test_demo_with_a_wrong_decision_ends_with_1(tmp_path: Path) -> None:
    """With a guardrail moved, the call that it should have stopped is named."""
    policies = changed_policies(tmp_path, "context.input.max_rows > 500", "context.input.max_rows > 5000")

    wrong = play(DEMO, "--policies", str(policies))

    assert wrong.exit_code == 1, wrong.output + wrong.errors
    assert "WRONG: the decision is ('allow', 'permit', ['billing-exports'])" in wrong.output
    assert "each as expected" not in wrong.output


def test_demo_with_a_broken_policy_says_so_and_ends_with_1(tmp_path: Path) -> None:
    """The server refuses to start, and its words reach whoever started the demo."""
    policies = changed_policies(tmp_path, "context.input.max_rows > 500", "context.input.maxrows > 500")

    broken = play(DEMO, "--policies", str(policies))

    assert broken.exit_code == 1
    assert "the server did not start" in broken.output
    assert "maxrows" in broken.output
