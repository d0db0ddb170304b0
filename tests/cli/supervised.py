"""`agentguard` in a process of its own, which a test can signal and kill.

It is forked from one that has imported everything: each would need a second for it.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from agentguard.cli.main import COMMANDS, main
from tests.heeding import heeding
from tests.lifecycle.processes import _CONTEXT

# Imported before it is forked.
_LOADED: Final = [lazy.loaded for lazy in COMMANDS if lazy.name == "run"]


class Supervisor:
    """A process that runs `agentguard`, with the reading ends of its streams."""

    def __init__(self, arguments: tuple[str, ...], folder: Path, environment: Mapping[str, str]) -> None:
        pipes = [folder / "stdout", folder / "stderr"]
        for pipe in pipes:
            os.mkfifo(pipe)
        self._process = _CONTEXT.Process(target=_work, args=(arguments, pipes, dict(environment)))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.stdout: IO[str] = pipes[0].open()
        self.stderr: IO[str] = pipes[1].open()

    def send(self, number: int) -> None:
        """Send a signal to this process alone."""
        os.kill(self.pid, number)

    def wait(self) -> int:
        """Wait for its end, and return its exit status."""
        self._process.join(30)
        assert self._process.exitcode is not None, "the supervisor does not end"
        return self._process.exitcode

    def close(self) -> None:
        """Kill it if it still runs."""
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
        self.stdout.close()
        self.stderr.close()


def _work(arguments: tuple[str, ...], pipes: list[Path], environment: dict[str, str]) -> None:
    for number, pipe in enumerate(pipes, 1):
        opened = os.open(pipe, os.O_WRONLY)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.clear()
    os.environ.update(environment)
    with heeding():
        main(arguments)


@contextmanager
def supervisor(*arguments: str, folder: Path, **environment: str) -> Iterator[Supervisor]:
    """Give a process that runs `agentguard` with *arguments*, and kill it at the end."""
    started = Supervisor(arguments, folder, {**os.environ, **environment})
    try:
        yield started
    finally:
        started.close()
