"""Run the `agentguard` command in this process, as a shell would see it."""

from __future__ import annotations

import io
import json
import sys
from dataclasses import dataclass
from typing import Any

import pytest

from agentguard.cli.main import main

TERM = "xterm-256color"


@dataclass(frozen=True, slots=True)
class Ran:
    """What a command left behind.

    Attributes:
        status: Its exit status.
        stdout: What it wrote to standard output.
        stderr: What it wrote to standard error.
    """

    status: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        """What standard output says as JSON."""
        return json.loads(self.stdout)


class Stream(io.StringIO):
    """A stream in memory, which may say that it is a terminal."""

    def __init__(self, text: str = "", *, terminal: bool = False) -> None:
        super().__init__(text)
        self._terminal = terminal

    def isatty(self) -> bool:
        """Return what was asked for."""
        return self._terminal


def agentguard(*arguments: str, typed: str | None = None, terminal: bool = False) -> Ran:
    """Run `agentguard` with *arguments*.

    Args:
        *arguments: What follows the command's name.
        typed: What a person types; None for an input that is no terminal.
        terminal: Whether standard output is one.
    """
    stdin = Stream(typed or "", terminal=typed is not None)
    stdout, stderr = Stream(terminal=terminal), Stream(terminal=terminal)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", stdin)
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        patch.setenv("TERM", TERM)
        with pytest.raises(SystemExit) as left:
            main(arguments)
    return Ran(int(left.value.code or 0), stdout.getvalue(), stderr.getvalue())
