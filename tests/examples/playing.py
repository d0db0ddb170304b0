"""The demos of the examples, played as whoever starts them plays them."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True)
class Played:
    """How a demo ended."""

    exit_code: int
    output: str
    errors: str
    group: int


def play(demo: str, *options: str) -> Played:
    """Run a demo to its end, in a process group of its own, as a pipe sees it."""
    command = [sys.executable, "-m", demo, *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        output, errors = process.communicate(timeout=150)
    return Played(process.returncode, output, errors, process.pid)
