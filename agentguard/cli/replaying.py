"""What the commands that replay evidence have in common: where it lies, of which time, how far they are."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.cli.options import point_in_time
from agentguard.cli.output import on_terminal
from agentguard.evidence.reading import read_sources
from agentguard.evidence.words import count, moment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agentguard.evidence.kept import Kept

EvidenceOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--evidence",
        metavar="SOURCE",
        help="A state folder, a chain, or a collector's export; may be repeated. Else the project's.",
    ),
]
SinceOption = Annotated[
    str | None,
    typer.Option("--since", metavar="TIME", help="Decisions from 2026-11-24T09:30, or 30d ago, on; else all."),
]
UntilOption = Annotated[str | None, typer.Option("--until", metavar="TIME", help="Decisions before that.")]

_EVERY: Final = 10_000
_GONE: Final = "\r\x1b[K"


def period(since: str | None, until: str | None) -> tuple[float | None, float | None]:
    """Return the ends of a time, unix seconds.

    Raises:
        ConfigurationError: One of them is no time.
    """
    now = time.time()
    begin, end = (None if text is None else point_in_time(text, now=now) for text in (since, until))
    return begin, end


def lasting(first: float | None, last: float | None) -> str:
    """Return from when to when decisions were made, in words."""
    begin, end = (moment(at or 0.0, "%Y-%m-%d") for at in (first, last))
    return f"on {begin}" if begin == end else f"from {begin} to {end}"


def records(sources: Sequence[Path], tell: Callable[[str], None]) -> Iterator[Kept]:
    """Yield all records, and show a person how far that is."""
    watched = on_terminal(sys.stderr)
    shown = False
    for number, record in enumerate(read_sources(sources, tell), 1):
        yield record
        if watched and number % _EVERY == 0:
            typer.echo(f"\r{count(number, 'record')} read …", err=True, nl=False)
            shown = True
    if shown:
        typer.echo(_GONE, err=True, nl=False)
