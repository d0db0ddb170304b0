"""The store and the issuer that options name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.cli.options import read_text
from agentguard.errors import ConfigurationError
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.keys import read_signing_key
from agentguard.lifecycle.local import ISSUER, local_folder, local_issuer
from agentguard.lifecycle.sqlite import SQLiteStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from agentguard.evidence.ledger import Ledger
    from agentguard.lifecycle.keys import PrivateKey
    from agentguard.lifecycle.store import Store

_KEY_BYTES: Final = 64 * 1024
_VALKEY: Final = "pip install 'agentguard[valkey]', or from a clone pip install -e 'path/to/agentguard[valkey]'"


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
    text = read_text(file, "--issuer-key", _KEY_BYTES, private=True)
    try:
        return read_signing_key(text).private
    except ConfigurationError:
        # What is wrong with its content is not said: it may be half of a key.
        message = f"--issuer-key `{file}` holds no private key on P-256 or Ed25519: name a PEM or JWK file that does"
        raise ConfigurationError(message) from None
