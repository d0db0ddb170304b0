"""Options that several commands have, and what they stand for."""

from __future__ import annotations

import os
import re
import stat
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.errors import ConfigurationError
from agentguard.identity.sources import stdio_audience

if TYPE_CHECKING:
    from collections.abc import Sequence

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_RELATIVE: Final = re.compile(r"[0-9]{1,9}[smhd]")
_GRANT_BYTES: Final = 64 * 1024
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def seconds(text: str) -> int:
    """Return a duration, ``90``, ``90s``, ``10m``, ``2h`` or ``1d``, as seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        message = f"a duration wants a number and s, m, h or d, got `{text}`: write 10m for ten minutes"
        raise ConfigurationError(message)
    return int(found[1]) * _UNITS[found[2]]


def point_in_time(text: str, *, now: float) -> float:
    """Return a time, unix seconds: ISO 8601, UTC if it names no zone, or how long ago.

    Args:
        text: ``2026-11-24``, ``2026-11-24T09:30+01:00``, ``2h``.
        now: Unix seconds.

    Raises:
        ConfigurationError: It is none.
    """
    if _RELATIVE.fullmatch(text):
        return now - seconds(text)
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        message = f"a time wants 2026-11-24T09:30, or 2h for two hours ago, got `{text}`: write it so"
        raise ConfigurationError(message) from None
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


STORE_VARIABLE: Final = "AGENTGUARD_STORE"

AgentOption = Annotated[str, typer.Option("--agent", metavar="NAME", help="The agent that acts.")]
UserOption = Annotated[str | None, typer.Option("--user", metavar="NAME", help="On whose behalf it acts.")]
TaskOption = Annotated[str | None, typer.Option("--task", metavar="NAME", help="The task that it works on.")]
PurposeOption = Annotated[str | None, typer.Option("--purpose", metavar="TEXT", help="What for.")]
ToolOption = Annotated[
    list[str] | None,
    typer.Option("--tool", metavar="NAME", help="A tool that it may call; may be repeated. This or --grant is needed."),
]
GrantOption = Annotated[
    Path | None,
    typer.Option(
        "--grant",
        metavar="FILE",
        help="Cedar text that bounds it; given with --tool, a call has to satisfy both. This or --tool is needed.",
    ),
]
ScopeOption = Annotated[
    list[str] | None, typer.Option("--scope", metavar="NAME", help="An OAuth scope; may be repeated.")
]
EndsInOption = Annotated[
    str, typer.Option("--ends-in", metavar="TIME", help="Its end, for good: 300, 10m, 2h.", show_default=True)
]
AudienceOption = Annotated[
    str | None,
    typer.Option(
        "--audience", metavar="URI", help="The server that it is for, by its URL. This or --server is needed."
    ),
]
ServerOption = Annotated[
    str | None,
    typer.Option(
        "--server",
        metavar="NAME",
        help="The server that it is for, over stdio, by its name. This or --audience is needed.",
    ),
]
IssuerOption = Annotated[str | None, typer.Option("--issuer", metavar="URL", help="Another issuer than the local one.")]
IssuerKeyOption = Annotated[
    Path | None, typer.Option("--issuer-key", metavar="FILE", help="That issuer's private key, PEM or JWK.")
]
StoreOption = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        envvar=STORE_VARIABLE,
        show_envvar=False,
        help=f"Where runs are on record: a file, or valkey://…; else local. {STORE_VARIABLE} hides it from ps.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", metavar="", help="Write JSON.")]


def audience_of(*, audience: str | None, server: str | None) -> str:
    """Return what a token is for.

    Raises:
        ConfigurationError: It is not said, or said twice.
    """
    if audience is not None and server is None:
        return audience
    if server is not None and audience is None:
        return stdio_audience(server)
    got = "neither" if server is None else "both"
    message = f"a run is for one server; wants --audience URL or --server NAME, got {got}: give one of them"
    raise ConfigurationError(message)


def require_bounds(*, tools: Sequence[str] | None, grant: Path | None) -> None:
    """Pass only if it is said what a run may call.

    Raises:
        ConfigurationError: It is not.
    """
    if not tools and grant is None:
        message = "a run wants --tool or --grant, got neither: say what it may call"
        raise ConfigurationError(message)


def read_grant(file: Path | None) -> str | None:
    """Return the Cedar text of a file.

    Raises:
        ConfigurationError: It cannot be read.
    """
    return None if file is None else read_text(file, "--grant", _GRANT_BYTES)


def require_private(found: os.stat_result, named: str, *, ours: int) -> None:
    """Pass only for a file that we alone can read, or that is root's and that its group can read.

    Args:
        found: What the open file says of itself.
        named: How the message calls it.
        ours: The user that we are.

    Raises:
        ConfigurationError: It is somebody else's, or others can read or change it.
    """
    # Where systemd or Kubernetes hands out a credential, it is root's, and a group or an
    # access list (which shows as the group's mode) lets the service read it.
    by_root = found.st_uid == 0
    if found.st_uid != ours and not by_root:
        message = f"{named} wants a key that is ours alone, got one of user {found.st_uid}: name another file"
        raise ConfigurationError(message)
    if found.st_mode & (_OTHERS & ~stat.S_IRGRP if by_root else _OTHERS):
        got = f"got mode {stat.S_IMODE(found.st_mode):o}: chmod 600, or make a new key if others could read it"
        message = f"{named} wants a key that is ours alone, {got}"
        raise ConfigurationError(message)


def read_text(file: Path, option: str, most: int, *, private: bool = False) -> str:
    """Return the text of the file that an option names.

    Args:
        file: The file.
        option: The option, for the message.
        most: How many bytes it may have.
        private: Whether it holds a key; see `require_private`.

    Raises:
        ConfigurationError: It cannot be read, or is not to be used.
    """
    try:
        with file.open("rb") as opened:
            if private:
                # The open file is checked, not its name, which could lead elsewhere by now.
                require_private(os.fstat(opened.fileno()), f"{option} `{file}`", ours=os.geteuid())
            text = opened.read(most + 1).decode()
    except (OSError, ValueError) as error:
        why = "it is not UTF-8 text" if isinstance(error, ValueError) else error.strerror or type(error).__name__
        message = f"{option} `{file}` cannot be read: {why}: name a file that can"
        raise ConfigurationError(message) from None
    if len(text.encode()) > most:
        message = f"{option} wants a file of {most} bytes at most, got more in `{file}`: name the right file"
        raise ConfigurationError(message)
    return text
