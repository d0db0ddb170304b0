"""What a guard keeps beside its policies: who was ended, and the evidence."""

from __future__ import annotations

import logging
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore

if TYPE_CHECKING:
    from agentguard.evidence.ledger import Ledger
    from agentguard.lifecycle.store import Store

_LOG: Final = logging.getLogger("agentguard")


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """A store, a ledger, and the key of the ledger's digests."""

    store: Store
    ledger: Ledger
    key: bytes = field(repr=False)


def UnsafeMemoryState() -> State:  # noqa: N802  named like the weaker choice that it is
    """Return a state that the process takes with it when it ends.

    Revocations and evidence are lost with it, and no other process shares them. For
    tests, demonstrations and development.
    """
    _LOG.warning("state is kept in memory: revocations and evidence are lost when this process ends")
    return State(store=MemoryStore(clock=time.time), ledger=MemoryLedger(), key=os.urandom(32))
