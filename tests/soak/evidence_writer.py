"""Appends to a ledger until it is killed, and tells of each record after it was acknowledged."""

from __future__ import annotations

import os
import sys
from typing import cast

import anyio

from agentguard.evidence import durable
from agentguard.evidence.durable import Durability, SQLiteLedger
from tests.evidence.chains import decision


async def write(folder: str, log: str, durability: str) -> None:
    """Append without end: to the ledger first, then to a log of its own."""
    # Moved all the time, so that kills come in the middle of that too.
    durable._MOVE = 40  # type: ignore[misc]
    ledger = SQLiteLedger(folder, durability=cast("Durability", durability), heads_every=50, pause=0.01)
    acknowledged = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    n = os.getpid() * 1_000_000
    while True:
        n += 1
        entry = ledger.append(decision(n))
        await ledger.settled(entry)
        os.write(acknowledged, f"{entry.chain_id} {entry.seq} {entry.hash}\n".encode())


if __name__ == "__main__":
    anyio.run(write, sys.argv[1], sys.argv[2], sys.argv[3])
