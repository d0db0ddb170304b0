"""What other processes do in a store, for tests that kill them."""

from __future__ import annotations

from multiprocessing.connection import Connection
from pathlib import Path

from agentguard.lifecycle.sqlite import SQLiteStore
from tests.lifecycle.stores import ISSUER, Clock, record


def write_for_ever(says: Connection, path: Path, name: str) -> None:
    """Record runs, end every other one, use keys up, and say each one that is done."""
    # Beside another one that does the same, the turn comes by chance: on a slow disk not within two seconds.
    store = SQLiteStore(path, clock=Clock(), wait=60)
    number = 0
    while True:
        run_id = f"{name}-{number}"
        store.record_run(record(run_id))
        if number % 2:
            store.revoke(issuer=ISSUER, run_id=run_id, reason="completed", until=330)
        store.spend(run_id, 330)
        says.send(run_id)
        number += 1


def revoke_once(says: Connection, path: Path, run_id: str) -> None:
    """End one run, and say so."""
    store = SQLiteStore(path)
    store.revoke(issuer=ISSUER, run_id=run_id, reason="from afar")
    says.send(run_id)
    store.close()
