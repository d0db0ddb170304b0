"""Options that several commands have, and what they stand for."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.errors import ConfigurationError
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.keys import read_signing_key
from agentguard.lifecycle.local import ISSUER, local_folder, local_issuer
from agentguard.lifecycle.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agentguard.evidence.ledger import Ledger
    from agentguard.lifecycle.keys import PrivateKey
    from agentguard.lifecycle.store import Store

_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_GRANT_BYTES: Final = 64 * 1024
_KEY_BYTES: Final = 64 * 1024
_VALKEY: Final = "pip install 'agentguard[valkey]', or from a clone pip install -e 'path/to/agentguard[valkey]'"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


def seconds(text: str) -> int:
    """Return a duration, ``90``, ``90s``, ``10m``, ``2h`` or ``1d``, as seconds."""
    found = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text)
    if found is None:
        message = f"a duration wants a number and s, m, h or d, got `{text}`: write 10m for ten minutes"
        raise ConfigurationError(message)
    return int(found[1]) * _UNITS[found[2]]


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
    return None if file is None else _read_text(file, "--grant", _GRANT_BYTES)


def open_store(text: str | None, *, existing: bool = False) -> Store:
    """Open a store: the local one, a file, or a server.

    Args:
        text: What was asked for.
        existing: Whether a file has to be there: a name that is mistyped would look like
            a store in which nothing happens.

    Raises:
        ConfigurationError: It cannot be used.
    """
    if text is None:
        return SQLiteStore(local_folder() / "store.db")
    scheme, sign, _ = text.partition("://")
    if not sign:
        if existing and not Path(text).exists():
            message = f"--store wants a file that is there, got `{text}`: name the one that the servers use"
            raise ConfigurationError(message)
        return SQLiteStore(text)
    if scheme not in {"valkey", "valkeys", "redis", "rediss", "unix"}:
        message = f"--store wants a file, or a URL such as valkey://host:6379, got `{scheme}://…`: name a store"
        raise ConfigurationError(message)
    try:
        from agentguard.lifecycle.valkey import ValkeyStore  # noqa: PLC0415  an extra that need not be there
    except ModuleNotFoundError:
        message = f"--store `{scheme}://…` wants the client of Valkey, got none: {_VALKEY}"
        raise ConfigurationError(message) from None
    return ValkeyStore(text)


def open_issuer(
    *,
    issuer: str | None,
    issuer_key: Path | None,
    store: str | None,
    audience: str | None,
    opens: Callable[[str], Store] = open_store,
    ledger: Ledger | None = None,
) -> Issuer:
    """Open the issuer that signs: the local one, or one whose key is at hand.

    Args:
        issuer: Its ``iss``; None for the local one.
        issuer_key: The file of its private key.
        store: Where its runs are on record; see `open_store`.
        audience: The server that its tokens are for, where nothing else is said.
        opens: Opens the store of an issuer that is not the local one.
        ledger: Where the evidence of such an issuer's runs is kept.

    Raises:
        ConfigurationError: One of them does not fit the others, or cannot be used.
    """
    if (issuer is None) is not (issuer_key is None):
        wanted, got = ("--issuer-key", "--issuer") if issuer_key is None else ("--issuer", "--issuer-key")
        message = f"another issuer than the local one wants --issuer and --issuer-key, got {got} alone: add {wanted}"
        raise ConfigurationError(message)
    if issuer is None or issuer_key is None:
        return local_issuer(audience=audience, store=None if store is None else open_store(store))
    if issuer == ISSUER:
        message = f"--issuer `{ISSUER}` is the local issuer, which has a key of its own: leave out --issuer-key"
        raise ConfigurationError(message)
    if store is None:
        message = f"runs of `{issuer}` want a store that its servers ask, got none: add --store FILE or valkey://…"
        raise ConfigurationError(message)
    key = _read_key(issuer_key)
    return Issuer(issuer=issuer, key=key, audience=audience, store=opens(store), ledger=ledger)


def _read_key(file: Path) -> PrivateKey:
    text = _read_text(file, "--issuer-key", _KEY_BYTES, private=True)
    try:
        return read_signing_key(text).private
    except ConfigurationError:
        # What is wrong with its content is not said: it may be half of a key.
        message = f"--issuer-key `{file}` holds no private key on P-256 or Ed25519: name a PEM or JWK file that does"
        raise ConfigurationError(message) from None


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


def _read_text(file: Path, option: str, most: int, *, private: bool = False) -> str:
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
