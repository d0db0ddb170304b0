"""The local issuer: one key in a folder of the user's own, for stdio servers and loopback.

Whoever can read the key can be anybody, and no other machine can ask the store. So it
vouches for servers of this host alone, and a guard trusts it only where the code says
`UnsafeLocalIssuer`: no variable of the environment can.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import stat
import time
import uuid
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentguard.errors import ConfigurationError
from agentguard.host.unkept import UNKEPT
from agentguard.identity.issuers import TrustedIssuer
from agentguard.identity.keys import FixedKeys
from agentguard.identity.sources import STDIO_AUDIENCE
from agentguard.identity.token import LOCAL_ISSUER
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentguard.lifecycle.store import Store

ISSUER: Final = LOCAL_ISSUER

_LOG: Final = logging.getLogger("agentguard")
_KEY: Final = "issuer.pem"
_STORE: Final = "store.db"
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_KEY_BYTES: Final = 4096


def local_folder(environ: Mapping[str, str] | None = None) -> Path:
    """Return where the local issuer keeps its key and its store.

    Args:
        environ: The environment; this process's own if left out.

    Raises:
        ConfigurationError: The user has no home.
    """
    # As the XDG Base Directory Specification has it: a path that is not absolute is ignored.
    given = Path((os.environ if environ is None else environ).get("XDG_STATE_HOME", ""))
    return (given if given.is_absolute() else _home() / ".local" / "state") / "agentguard"


def _home() -> Path:
    # A container's user may have no entry that names one.
    with suppress(RuntimeError):
        home = Path.home()
        if home.is_absolute():
            return home
    message = "the local issuer wants a home, got none: set XDG_STATE_HOME or HOME to an absolute path"
    raise ConfigurationError(message)


def local_issuer(folder: Path | None = None, *, audience: str | None = None, store: Store | None = None) -> Issuer:
    """Return the local issuer as whoever begins runs needs it: with its key.

    Args:
        folder: Where key and store are; the user's own if left out.
        audience: The server that its tokens are for.
        store: Another store than the folder's.

    Raises:
        ConfigurationError: The folder or the key is not ours alone, or the audience is
            not on this host.
    """
    require_local_audience(audience)
    folder = folder or local_folder()
    key = _read_key(folder)
    kept = _opened_store(folder) if store is None else store
    return Issuer(issuer=ISSUER, key=key, audience=audience, store=kept)


class UnsafeLocalIssuer:
    """The local issuer as a guard trusts it, on this host alone.

    Every program of this user can read the key and so be any agent. For development, and
    for servers that this user starts for their own agents.

    Attributes:
        trusted: What is asked of its tokens.
        keys: Its public key.
        store: Where its runs are on record.
    """

    __slots__ = ("folder", "keys", "store", "trusted")

    def __init__(self, folder: Path | str | None = None) -> None:
        """Read the key, or make one.

        Args:
            folder: Where key and store are; the user's own if left out.

        Raises:
            ConfigurationError: The folder or the key is not ours alone.
        """
        self.folder = local_folder() if folder is None else Path(folder).absolute()
        issuer = Issuer(issuer=ISSUER, key=_read_key(self.folder))
        self.trusted = TrustedIssuer(issuer=ISSUER)
        self.keys = FixedKeys(issuer.jwks())
        self.store = _opened_store(self.folder)
        _LOG.warning("the local issuer is trusted: whoever can read `%s` can be any agent", self.folder / _KEY)

    def issuer(self, *, audience: str | None = None) -> Issuer:
        """Return the issuer that begins runs with this key, and keeps them in this store.

        Args:
            audience: The server that its tokens are for, on this host.

        Raises:
            ConfigurationError: The audience is not on this host.
        """
        return local_issuer(self.folder, audience=audience, store=self.store)

    def has(self, store: object) -> bool:
        """Return whether *store* is the file that this issuer's runs are ended in."""
        if store is self.store:
            return True
        return isinstance(store, SQLiteStore) and store.path.resolve() == self.path.resolve()

    @property
    def path(self) -> Path:
        """The file that its runs are on record in."""
        return self.folder / _STORE


def require_local_audience(audience: str | None) -> None:
    """Pass only if a server of this audience is one of this host.

    Raises:
        ConfigurationError: It is elsewhere.
    """
    if audience is None or audience.startswith(STDIO_AUDIENCE) or _is_loopback(audience):
        return
    message = (
        f"the local issuer is for stdio servers and URLs on loopback, got `{audience}`: "
        "name an issuer of your own for a server that others can reach"
    )
    raise ConfigurationError(message)


def _is_loopback(url: str) -> bool:
    try:
        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or parts.hostname is None:
            return False
        return parts.hostname == "localhost" or ipaddress.ip_address(parts.hostname).is_loopback
    except ValueError:
        return False


def _opened_store(folder: Path) -> SQLiteStore | MemoryStore:
    return MemoryStore(clock=time.time) if UNKEPT.get() else SQLiteStore(folder / _STORE)


def _new_key() -> bytes:
    key = generate_private_key(SECP256R1())
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _read_key(folder: Path) -> bytes:
    """Return the PEM text of the key, and make one if there is none."""
    if UNKEPT.get():
        # Nobody has to believe what it signs, and the one in the folder stays unread.
        return _new_key()
    try:
        with _opened(folder) as place:
            with suppress(FileNotFoundError):
                return _read(folder, place)
            _make(place)
            return _read(folder, place)
    except OSError as error:
        message = (
            f"`{folder / _KEY}` cannot be read or made: {os.strerror(error.errno or 0)}: "
            "the folder wants to be ours, with mode 0700, and the key a file in it"
        )
        raise ConfigurationError(message) from error


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open the folder, made if it is not there, if it is ours alone."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    # What is in it is reached through this descriptor: a folder that is exchanged after the
    # check is not the one that is used.
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        _require_ours(os.fstat(place), folder, wanted="a folder that is ours alone", fix="chmod 700")
        yield place
    finally:
        os.close(place)


def _read(folder: Path, place: int) -> bytes:
    # Neither through a link nor from a pipe, which would wait for a writer.
    file = os.open(_KEY, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
    with open(file, "rb") as opened:  # noqa: PTH123  the descriptor is what is checked
        _require_ours(os.fstat(file), folder / _KEY, wanted="a key that is ours alone", fix="chmod 600, or remove it")
        return opened.read(_KEY_BYTES)


def _make(place: int) -> None:
    """Make a key that appears whole, or not at all where another process was first."""
    text = _new_key()
    new = f".{uuid.uuid4().hex}"
    file = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
    try:
        with open(file, "wb") as opened:  # noqa: PTH123  made with its mode, not given it after
            opened.write(text)
            opened.flush()
            os.fsync(file)
        # A link never replaces what is there, as a rename would.
        with suppress(FileExistsError):
            os.link(new, _KEY, src_dir_fd=place, dst_dir_fd=place)
    finally:
        os.unlink(new, dir_fd=place)


def _require_ours(found: os.stat_result, path: Path, *, wanted: str, fix: str) -> None:
    if found.st_uid != os.geteuid():
        message = f"`{path}` wants {wanted}, got one of user {found.st_uid}: name another folder"
        raise ConfigurationError(message)
    if found.st_mode & _OTHERS:
        message = f"`{path}` wants {wanted}, got mode {stat.S_IMODE(found.st_mode):o}: {fix}"
        raise ConfigurationError(message)
