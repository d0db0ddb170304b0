"""What other processes do with the local issuer's key, for tests that let them race."""

from __future__ import annotations

import json
import time
from multiprocessing.connection import Connection
from pathlib import Path

from agentguard.lifecycle.local import local_issuer
from agentguard.lifecycle.store import MemoryStore


def make_keys(says: Connection, root: Path, name: str, other: str, rounds: int) -> None:
    """Make a key in each of several folders, at the same time as another process, and say which it was."""
    for number in range(rounds):
        (root / f"{name}-{number}").touch()
        until = time.monotonic() + 30
        while not (root / f"{other}-{number}").exists() and time.monotonic() < until:
            pass
        issuer = local_issuer(root / f"folder-{number}", store=MemoryStore(clock=time.time))
        says.send(json.dumps(issuer.jwks()))
