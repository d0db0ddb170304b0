"""The command as a person meets it: a process of its own, on a terminal."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

from tests.cli.commands import agentguard
from tests.cli.terminals import Received


def on_a_terminal(typed: str, *arguments: str) -> tuple[int, str]:
    """Run `agentguard` on a terminal where somebody types, and return its status and what is seen."""
    ours, theirs = pty.openpty()
    received = Received(ours, theirs)
    program = Path(sys.executable).with_name("agentguard")
    environ = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "80"}
    with subprocess.Popen(
        [program, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environ, start_new_session=True
    ) as process:
        os.write(ours, typed.encode())
    return process.returncode, received.text()


def test_person_is_asked_and_sees_what_was_ended() -> None:
    """The question counts what lives; yes ends it."""
    agentguard("token", "--agent", "reader", "--tool", "read", "--server", "records")

    status, seen = on_a_terminal("y\n", "revoke", "--agent", "reader", "--reason", "by hand")

    assert status == 0
    assert "End 1 live run of agent `reader`? [y/N]" in seen
    assert "ended 1 live run of agent `reader`" in seen
    (run,) = agentguard("runs", "--all", "--json").json
    assert (run["state"], run["reason"]) == ("revoked", "by hand")


def test_table_on_a_terminal_has_colours_and_80_columns() -> None:
    """Colours mark the state, and no line is wrapped."""
    agentguard("token", "--agent", "a" * 70, "--user", "u" * 70, "--tool", "read", "--server", "records")

    status, seen = on_a_terminal("", "runs")

    assert status == 0
    assert "\x1b[36missued" in seen
    assert max(len(line) for line in re.sub(r"\x1b\[[0-9;]*m", "", seen).splitlines()) <= 80
