"""What a guard keeps beside its policies: who was ended, and the evidence.

A state folder holds ``store.db``, the chains of the evidence with the key of their heads
in ``evidence/``, and ``digest.key``.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.evidence.chainfile import FOLDER
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.ledger import Ledger, MemoryLedger
from agentguard.host.atend import call_at_end
from agentguard.host.private import private_bytes, private_folder, write_whole
from agentguard.host.unkept import UNKEPT
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import MemoryStore, Store

if TYPE_CHECKING:
    from agentguard.evidence.durable import Durability

STORE: Final = "store.db"
KEY: Final = "digest.key"

_LOG: Final = logging.getLogger("agentguard")
_KEY_BYTES: Final = 32
_IGNORE: Final = ".gitignore"


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A store, a ledger, and the key of the ledger's digests.

    Attributes:
        store: Where the ends of runs are kept.
        ledger: Where the evidence is kept.
        key: At least 32 random bytes. Whoever can guess it can guess arguments from their digests,
            and approve calls in a person's place.

    Raises:
        ConfigurationError: If one of them is not what it has to be.
    """

    store: Store
    ledger: Ledger
    key: bytes = field(repr=False)

    def __post_init__(self) -> None:
        for name, protocol in (("store", Store), ("ledger", Ledger)):
            part = getattr(self, name)
            for method in sorted(vars(protocol)):
                if not method.startswith("_") and not callable(getattr(part, method, None)):
                    message = (
                        f"`{name}` wants a {protocol.__name__}, got `{type(part).__name__}` without `{method}`: "
                        "pass one, or open_state(FOLDER) for the whole state"
                    )
                    raise ConfigurationError(message)
            if isinstance(part, type):
                message = f"`{name}` wants a {protocol.__name__}, got the class `{part.__name__}`: make one of it"
                raise ConfigurationError(message)
        if type(self.key) is not bytes or len(self.key) < _KEY_BYTES:
            got = f"{len(self.key)} bytes" if type(self.key) is bytes else f"`{type(self.key).__name__}`"
            message = (
                f"`key` wants at least {_KEY_BYTES} bytes, got {got}: make it once with os.urandom(32), and keep it"
            )
            raise ConfigurationError(message)

    def close(self) -> None:
        """Keep that this was a clean stop, and let go of files; every call is refused afterwards."""
        for part in (self.ledger, self.store):
            close = getattr(part, "close", None)
            if close is not None:
                close()


def open_state(
    folder: str | os.PathLike[str], *, durability: Durability = "process", store: Store | None = None
) -> State:
    """Return the state that a folder keeps, as ``Guard(state=FOLDER)`` does.

    It is closed when the process ends, if that ends by itself or with SIGTERM.

    Args:
        folder: Made if it is not there; on a disk of this host, and ours alone.
        durability: What evidence survives: the process being killed, or with ``"host"``
            a loss of power too, for the time of a write to the disk before each call.
        store: Another store than a file in the folder, such as one that several hosts share.

    Raises:
        ConfigurationError: The folder cannot be used; the message says what to do.
    """
    if UNKEPT.get():
        return _unkept(store)
    path = Path(folder).absolute()
    private_folder(path)
    # Where a folder lies in a checkout, its keys are not to be committed with the rest.
    with suppress(OSError):
        write_whole(path / _IGNORE, b"*\n", sync=False)
    key = private_bytes(path / KEY, lambda: os.urandom(_KEY_BYTES))
    opened = SQLiteStore(path / STORE) if store is None else store
    try:
        state = State(store=opened, ledger=SQLiteLedger(path / FOLDER, durability=durability), key=key)
    except BaseException:
        if store is None:
            opened.close()
        raise
    call_at_end(state.close)
    return state


def read_state(given: object, *, store: Store | None = None) -> State:
    """Return the state that a guard was asked to have: a `State`, or that of a folder.

    Args:
        given: What the guard was given.
        store: The store to use with a folder, in place of one in it.

    Raises:
        ConfigurationError: It is neither, or the folder cannot be used.
    """
    if isinstance(given, State):
        return given
    if isinstance(given, str | os.PathLike) and given:
        return open_state(given, store=store)
    message = (
        f"a guard wants state to keep the evidence and the ends of runs in, got `{given!r}`: "
        "pass state=FOLDER, or state=UnsafeMemoryState()"
    )
    raise ConfigurationError(message)


def UnsafeMemoryState() -> State:  # noqa: N802  named like the weaker choice that it is
    """Return a state that the process takes with it when it ends.

    Revocations and evidence are lost with it, and no other process shares them. For
    tests, demonstrations and development.
    """
    _LOG.warning("state is kept in memory: revocations and evidence are lost when this process ends")
    return _unkept(None)


def _unkept(store: Store | None) -> State:
    kept = MemoryStore(clock=time.time) if store is None else store
    return State(store=kept, ledger=MemoryLedger(), key=os.urandom(_KEY_BYTES))
