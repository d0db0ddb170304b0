"""What a command says: results to standard output, everything else to standard error."""

from __future__ import annotations

import json
import os
import re
import sys
from typing import TYPE_CHECKING, Final, NoReturn, TextIO

import typer
from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from agentguard.model import Reason, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.table import Table

    from agentguard.errors import Refusal

REFUSED: Final = 1
"""The exit status of a finding, or of what was refused."""

USAGE: Final = 2
"""The exit status of a command that could not run: it was called wrongly, or something is set up so."""

# Nobody's window: what is read by a program, or kept in a file, is not cut.
_WIDTH: Final = 200

_POSSIBLE: Final = re.compile(r" \(Possible options: (.*)\)")
_QUOTED: Final = re.compile(r"'([^']*)'")
_SET_IN: Final = 2
_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "m"), (1, "s"))
# What is in backticks is copied, so it stays in one piece if it can.
_WORDS: Final = re.compile(r"(?:`[^`]*`|[^\s`]|`)+")
_PLAIN_WORDS: Final = re.compile(r"\S+")
# Blanks at the end of a line, and what changes its style there.
_END: Final = re.compile(r"(?: |\x1b\[[0-9;]*m)+$", re.MULTILINE)

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


def draw(*parts: str | Text | Table) -> None:
    """Write a result for a person: lines, which are folded if a terminal is too narrow for them, and tables."""
    console = terminal()
    with console.capture() as drawn:
        for part in parts:
            if not isinstance(part, str | Text):
                console.print(part)
                continue
            for line in (Text(part) if isinstance(part, str) else part).split("\n", allow_blank=True):
                for piece in fold(line, console.width) if console.is_terminal else (line,):
                    console.print(piece, soft_wrap=True)
    # Without the blanks that fill the last column: they would wrap in a narrower pager.
    result(_END.sub(lambda found: found[0].replace(" ", ""), drawn.get()).removesuffix("\n"))


def fold(line: Text, width: int, *, set_in: int | None = None) -> Iterator[Text]:
    """Yield a line in pieces that fit, at whole words.

    A word that is longer than that stays whole: nobody finds half of a path.

    Args:
        line: The line.
        width: How wide a piece may be.
        set_in: How far the further pieces are set in; a little more than the first one, if left out.
    """
    plain = line.plain
    margin = " " * (len(plain) - len(plain.lstrip(" ")) + _SET_IN if set_in is None else set_in)
    begin = end = 0
    for start, stop in _words(plain, width - len(margin)):
        room = width - (len(margin) if begin else 0)
        if end > begin and cell_len(plain[begin:stop]) > room:
            yield _set_in(line[begin:end], margin if begin else "")
            begin = start
        end = stop
    yield _set_in(line[begin:], margin if begin else "")


def _words(plain: str, room: int) -> Iterator[tuple[int, int]]:
    """Yield where each word begins and ends; what is in backticks is one, if it fits into a line."""
    for found in _WORDS.finditer(plain):
        if cell_len(found[0]) <= room:
            yield found.span()
        else:
            yield from (word.span() for word in _PLAIN_WORDS.finditer(plain, *found.span()))


def _set_in(piece: Text, margin: str) -> Text:
    return Text.assemble(margin, piece)


def say(text: str) -> None:
    """Say something beside the result, if somebody is there to read it."""
    lines = [printable(line) for line in text.split("\n")]
    if on_terminal(sys.stderr):
        width = Console(stderr=True).width
        # A line that is set in is there to be copied.
        lines = [
            piece.plain
            for line in lines
            for piece in ((Text(line),) if line.startswith(" ") else fold(Text(line), width))
        ]
    try:
        typer.echo("\n".join(lines), err=True)
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


def mistyped(text: str) -> str:
    """Return what typer says of a command line, worded as all other mistakes are."""
    text = _POSSIBLE.sub(r": did you mean \1?", text).replace(": Value error, ", ": ").rstrip(".")
    return _QUOTED.sub(r"`\1`", f"{text[0].lower()}{text[1:]}")


def refused(refusal: Refusal) -> str:
    """Return a refusal in plain words: whoever runs a command may read the detail."""
    words = _REFUSED.get(refusal.reason, f"refused, {refusal.reason}")
    return f"{words}: {refusal.detail}" if refusal.detail else words


def duration(seconds: float) -> str:
    """Return a time in its two largest units: ``3m 20s``."""
    left = max(0, int(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        count, left = divmod(left, size)
        if count or (size == 1 and not parts):
            parts.append(f"{count}{unit}")
    return " ".join(parts[:2])
