"""What other processes do, for the long tests that race or kill them."""

from __future__ import annotations

import resource
import signal
import time
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from agentguard.errors import Refusal
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.valkey import ValkeyStore
from tests.world import AUDIENCE, ISSUER

_DISK_BYTES = 2_000_000


@dataclass(frozen=True)
class Place:
    """Where a store is, for whichever process opens it."""

    kind: str
    where: str

    def open(self, **options: Any) -> SQLiteStore | ValkeyStore:
        """Open the store there."""
        return SQLiteStore(self.where, **options) if self.kind == "sqlite" else ValkeyStore(self.where, **options)


def revoke_when_told(says: Connection, orders: Connection, place: Place) -> None:
    """Revoke each run that is named, at the moment that is named, and say when that was done."""
    store = place.open()
    says.send("ready")
    while True:
        run_id, at = orders.recv()
        while time.perf_counter_ns() < at:
            pass
        called = time.perf_counter_ns()
        store.revoke(issuer=ISSUER, run_id=run_id, until=time.time() + 600)
        says.send((run_id, called, time.perf_counter_ns()))


def issue_for_ever(says: Connection, path: Path, key: str, name: str) -> None:
    """Begin runs, end every other one, and say of each step that it comes and that it is done."""
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, key=key, store=SQLiteStore(path))
    number = 0
    while True:
        run_id = f"{name}-{number}"
        run = issuer.begin(agent="reader", tools=["quick"], run=run_id, ends_in=600)
        says.send(("began", run_id, run.token()))
        if number % 2:
            says.send(("ending", run_id, ""))
            run.end()
            says.send(("ended", run_id, ""))
        number += 1


def fill_the_disk(says: Connection, orders: Connection, path: Path) -> None:
    """End runs until there is no room, say which were kept and which were not, and go on when told."""
    # The limit on a file's size stands for the disk: a write beyond it fails.
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    store = SQLiteStore(path, wait=0.2)
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (_DISK_BYTES, most))
    kept: list[str] = []
    refused: list[str] = []
    while len(refused) < 3:
        run_id = f"run-{len(kept) + len(refused)}"
        try:
            store.revoke(issuer=ISSUER, run_id=run_id, reason="x" * 200)
        except Refusal:
            refused.append(run_id)
        else:
            kept.append(run_id)
    says.send((kept, refused))
    orders.recv()
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    orders.recv()
