"""Run the `agentguard` command in this process on a terminal, or with its output piped.

The terminal is a real one: a pair of pseudo terminals for its two outputs, with a size that
the operating system tells. Starting a Python for each command would take a second.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Thread
from typing import Final

import pytest

from agentguard.cli.main import main
from tests.cli.commands import TERM, Ran

ESCAPES: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
"""What moves a cursor or changes a style."""

_SIZED: Final = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TERMINAL_WIDTH", "PY_COLORS", "GITHUB_ACTIONS")
_ROWS: Final = 40
_READ: Final = 65_536


_END: Final = b"\0end\0"


class Received:
    """What arrives at the other end of a terminal or a pipe, read while it is written.

    A terminal may lose what was written last when it is closed before that was read: a mark that
    no program writes comes after it, and is waited for before the terminal is closed.
    """

    def __init__(self, ours: int, theirs: int) -> None:
        self._descriptor = ours
        self._theirs = theirs
        self._read_so_far = b""
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while True:
            try:
                chunk = os.read(self._descriptor, _READ)
            # Linux says so when the last one closes a terminal; a pipe gives nothing.
            except OSError:
                return
            if not chunk:
                return
            self._read_so_far += chunk
            if self._read_so_far.endswith(_END):
                return

    def text(self) -> str:
        """Return all of it, once nobody writes any more."""
        os.write(self._theirs, _END)
        self._thread.join()
        os.close(self._theirs)
        os.close(self._descriptor)
        assert self._read_so_far.endswith(_END)
        return self._read_so_far.removesuffix(_END).decode()


def run_on(columns: int | None, *arguments: str, environ: Mapping[str, str] | None = None) -> Ran:
    """Run `agentguard` with *arguments*.

    Args:
        columns: How wide the terminal is; None for no terminal at all.
        arguments: What follows the command's name.
        environ: What is in the environment besides.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name in _SIZED:
            patch.delenv(name, raising=False)
        patch.setenv("TERM", TERM)
        for name, value in (environ or {}).items():
            patch.setenv(name, value)
        ends = [open_terminal(columns) if columns else os.pipe() for _ in range(2)]
        received = [Received(ours, theirs) for ours, theirs in ends]
        stdin = ends[0][1] if columns else None
        with _standard(*(theirs for _, theirs in ends), stdin=stdin), pytest.raises(SystemExit) as left:
            main(arguments)
        stdout, stderr = (one.text() for one in received)
    return Ran(int(left.value.code or 0), stdout, stderr)


def open_terminal(columns: int) -> tuple[int, int]:
    """Return both ends of a terminal that passes on what is written as it is."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", _ROWS, columns, 0, 0))
    attributes = termios.tcgetattr(theirs)
    attributes[1] &= ~termios.OPOST
    termios.tcsetattr(theirs, termios.TCSANOW, attributes)
    return ours, theirs


@contextmanager
def _standard(stdout: int, stderr: int, *, stdin: int | None) -> Iterator[None]:
    """Have these as standard streams: the descriptors, whose size is asked, and Python's own."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in range(3)]
    nothing = os.open(os.devnull, os.O_RDONLY)
    try:
        for number, descriptor in enumerate((nothing if stdin is None else stdin, stdout, stderr)):
            os.dup2(descriptor, number)
        with (
            pytest.MonkeyPatch.context() as patch,
            os.fdopen(os.dup(0), encoding="utf-8") as typed,
            os.fdopen(os.dup(1), "w", encoding="utf-8") as out,
            os.fdopen(os.dup(2), "w", encoding="utf-8") as err,
        ):
            patch.setattr(sys, "stdin", typed)
            patch.setattr(sys, "stdout", out)
            patch.setattr(sys, "stderr", err)
            yield
    finally:
        for number, descriptor in enumerate(kept):
            os.dup2(descriptor, number)
        for descriptor in (nothing, *kept):
            os.close(descriptor)
