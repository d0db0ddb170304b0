"""What a guard keeps beside its policies: who was ended, and the evidence."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from typing import Final

from agentguard.errors import ConfigurationError
from agentguard.evidence.ledger import Ledger, MemoryLedger
from agentguard.lifecycle.store import MemoryStore, Store

_LOG: Final = logging.getLogger("agentguard")
_KEY_BYTES: Final = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A store, a ledger, and the key of the ledger's digests.

    Attributes:
        store: Where the ends of runs are kept.
        ledger: Where the evidence is kept.
        key: At least 32 random bytes. Whoever can guess it can guess arguments from their digests.

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
                        "pass one, or UnsafeMemoryState() for the whole state"
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


def UnsafeMemoryState() -> State:  # noqa: N802  named like the weaker choice that it is
    """Return a state that the process takes with it when it ends.

    Revocations and evidence are lost with it, and no other process shares them. For
    tests, demonstrations and development.
    """
    _LOG.warning("state is kept in memory: revocations and evidence are lost when this process ends")
    return State(store=MemoryStore(clock=time.time), ledger=MemoryLedger(), key=os.urandom(32))
