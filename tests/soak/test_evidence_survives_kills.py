"""A writer that is killed in the middle of its work, again and again."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.verify import verify_folder

ROOT = Path(__file__).parents[2]
KILLS = 20


def start(folder: Path, log: Path, durability: str) -> subprocess.Popen[bytes]:
    """Start a writer."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.soak.evidence_writer", str(folder), str(log), durability], cwd=ROOT
    )


def lines_of(log: Path) -> list[str]:
    """Return what was acknowledged; the last line may be cut off by the kill."""
    text = log.read_text() if log.exists() else ""
    return text.splitlines() if text.endswith("\n") else text.splitlines()[:-1]


@pytest.mark.parametrize(("durability", "writers"), [("process", 1), ("process", 2), ("host", 1)])
def test_no_acknowledged_record_is_missing_after_a_kill(durability: str, writers: int, tmp_path: Path) -> None:
    """Counted from a log of the writer's own; and the chains verify after each."""
    chance = random.Random(writers)  # noqa: S311  a time to wait
    folder = tmp_path / "evidence"
    logs = [tmp_path / f"{n}.log" for n in range(writers)]
    for _ in range(KILLS):
        before = sum(len(lines_of(log)) for log in logs)
        processes = [start(folder, log, durability) for log in logs]
        deadline = time.monotonic() + 60
        while sum(len(lines_of(log)) for log in logs) < before + 20 * writers:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(chance.random() / 10)
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            process.wait()
        report = verify_folder(folder)
        assert report.problems == ()
    kept = {f"{e.chain_id} {e.seq} {e.hash}" for path in chain_files(folder) for e in read_chain(path)}
    acknowledged = [line for log in logs for line in lines_of(log)]

    assert len(chain_files(folder)) == writers
    assert len(acknowledged) > KILLS * writers * 20
    assert [line for line in acknowledged if line not in kept] == []
