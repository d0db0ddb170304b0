"""What a server prints while it speaks stdio."""

from __future__ import annotations

import os
import sys
from contextlib import ExitStack

import pytest

from agentguard.cli.serving import prints_aside


@pytest.mark.parametrize("closed", [False, True])
def test_nothing_but_the_protocol_is_left_in_standard_output(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, closed: bool
) -> None:
    """Neither text, nor bytes that wait below it until the descriptor is the protocol's again."""
    with ExitStack() as closing:
        stdout = closing.enter_context(os.fdopen(1, "w", closefd=False))
        monkeypatch.setattr(sys, "stdout", stdout)
        with prints_aside():
            assert sys.stdout.buffer is stdout.buffer
            sys.stdout.write("text\n")
            sys.stdout.buffer.write(b"bytes\n")
            stdout.write("kept before\n")
            if closed:
                # Some close it, and what waited is gone to wherever it led.
                os.dup2(2, 1)
                stdout.close()
        assert sys.stdout is stdout

    out, err = capfd.readouterr()
    assert out == ""
    assert sorted(err.split("\n")) == ["", "bytes", "kept before", "text"]


def test_what_is_printed_has_somewhere_to_go_without_standard_error(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command takes its own away where nobody reads it; a tool that prints does not fail of that."""
    monkeypatch.setattr(sys, "__stderr__", sys.stderr)
    monkeypatch.setattr(sys, "stderr", None)

    with prints_aside():
        sys.stdout.write("text\n")

    assert capfd.readouterr() == ("", "text\n")
