"""What a command says: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

import typer
from rich.console import Console

from agentguard.model import Reason, printable

if TYPE_CHECKING:
    from agentguard.errors import Refusal

REFUSED: Final = 1
"""The exit status of a finding, or of what was refused."""

USAGE: Final = 2
"""The exit status of a command that could not run: it was called wrongly, or something is set up so."""

# Nobody's window: what is read by a program, or kept in a file, is not cut.
_WIDTH: Final = 200

_REFUSED: Final = {
    Reason.REVOKED: "the run cannot begin",
    Reason.EXPIRED: "the run's time is over",
    Reason.STORE_UNAVAILABLE: "the store cannot be used",
    Reason.EVIDENCE_UNAVAILABLE: "the evidence cannot be written",
}


def result(text: str) -> None:
    """Write a result."""
    typer.echo(text)


def result_json(value: object) -> None:
    """Write a result for a program, in fixed form whatever is at the other end."""
    # ASCII alone: what steers a terminal exists beyond it too, and any locale can write it.
    typer.echo(json.dumps(value, indent=2))


def terminal() -> Console:
    """Return where tables are drawn: standard output, in colour and in its width if it is a terminal."""
    console = Console(highlight=False, soft_wrap=False)
    return console if console.is_terminal or "COLUMNS" in os.environ else Console(highlight=False, width=_WIDTH)


def say(text: str) -> None:
    """Say something beside the result, if somebody is there to read it."""
    try:
        typer.echo("\n".join(printable(line) for line in text.split("\n")), err=True)
    except OSError:
        # What is left in the stream would fail again at the exit, and change its status.
        sys.stderr = None


def hint(text: str) -> None:
    """Say something to a person alone, if one is there."""
    if on_terminal(sys.stdout):
        say(text)


def on_terminal(stream: TextIO | None) -> bool:
    """Return whether a person is at the other end; a stream that was closed is None."""
    return stream is not None and stream.isatty()


def confirmed(question: str) -> bool:
    """Ask a person, and return whether they said yes."""
    typer.echo(f"{printable(question)} [y/N] ", err=True, nl=False)
    return sys.stdin.readline().strip().lower() in {"y", "yes"}


def fail(message: str, status: int = USAGE) -> NoReturn:
    """End the command with one line on standard error.

    Args:
        message: What was wrong, and the fix after a colon.
        status: The exit status.
    """
    say(f"agentguard: {message}")
    raise typer.Exit(status)


def refused(refusal: Refusal) -> str:
    """Return a refusal in plain words: whoever runs a command may read the detail."""
    words = _REFUSED.get(refusal.reason, f"refused, {refusal.reason}")
    return f"{words}: {refusal.detail}" if refusal.detail else words
