"""Ship the ledger to an OTLP endpoint: at least once, past any sampler, queue or limit.

Spans are built from the kept records, chain by chain and in order. A batch counts as
delivered when the receiver took it; until then it is sent again, without end, with
longer and longer pauses. Whatever ends the process in between, the next one goes on from
the cursor, and what is sent twice has the same span ids.
"""

from __future__ import annotations

import logging
import os
import time
import weakref
from random import SystemRandom
from threading import Event, Thread
from typing import TYPE_CHECKING, Final

from opentelemetry import context as otel_context
from opentelemetry.context import _SUPPRESS_INSTRUMENTATION_KEY

from agentguard.evidence.chainfile import NotAChain, chain_files, read_chain
from agentguard.evidence.claim import Claim
from agentguard.evidence.cursor import Cursor, Delivered
from agentguard.evidence.delivery.forwarded import span_of
from agentguard.evidence.delivery.sender import UndeliveredError
from agentguard.evidence.tending import what_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agentguard.evidence.delivery.sender import Endpoint, Sender
    from agentguard.evidence.ledger import Entry

_LOG: Final = logging.getLogger("agentguard")

_RECORDS: Final = 512
_BYTES: Final = 1024 * 1024
# The span says some things that the record's text does not: its place in the chain, its kind.
_VIEW_BYTES: Final = 512
_SMALLEST: Final = 16 * 1024

_FIRST_PAUSE: Final = 0.5
_LONGEST_PAUSE: Final = 30.0
_DOUBLINGS: Final = 6
# Its own: who has seeded the numbers of `random` wants the same ones again.
_CHANCE: Final = SystemRandom().random

# The chain's file and its log, as they were when all that was in them had been delivered.
_Looks = tuple[tuple[int, int, int] | None, ...]


class Forwarder:
    """Ships one folder to one address. Several may be there: one of them ships, the others wait.

    Args:
        folder: Where the chains are.
        endpoint: Where to.
        sender: Who carries them there.
        pause: Seconds between two looks for more.
        monotonic: Gives seconds that never run backwards.
        chance: Gives a number from 0 to 1: not all forwarders are to come back at once.
    """

    def __init__(
        self,
        folder: Path,
        endpoint: Endpoint,
        sender: Sender,
        *,
        pause: float = 1.0,
        monotonic: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = _CHANCE,
    ) -> None:
        self.folder = folder
        self.endpoint = endpoint
        self._sender = sender
        self._pause = pause
        self._monotonic = monotonic
        self._chance = chance
        self._cursor = Cursor(folder, endpoint.name, endpoint.url)
        self._claim: Claim | None = None
        self._waiting = False
        self._last: Path | None = None
        self._done: dict[Path, _Looks] = {}
        self._unreadable: set[Path] = set()
        self._most = _BYTES
        self._failures = 0
        self._failing = ""
        self.delivered = 0
        self._over = Event()
        self._until = float("inf")
        self._thread: Thread | None = None
        _FORWARDERS.add(self)

    @property
    def ships(self) -> bool:
        """Whether it is this one that ships, and no other process."""
        return self._claim is not None

    @property
    def failing(self) -> str:
        """Why the last batch was not taken; empty if it was."""
        return self._failing

    @property
    def cursor(self) -> Path:
        """The file that says how far each chain was delivered."""
        return self._cursor.path

    def start(self) -> None:
        """Ship from now on, in a thread."""
        self._thread = Thread(target=self.run, name=f"agentguard forward {self.endpoint.place}", daemon=True)
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """Ship what is left, as far as that takes no longer than *seconds*, and end."""
        self._until = self._monotonic() + seconds
        self._over.set()
        if self._thread is not None:
            self._thread.join(seconds)

    def run(self) -> None:
        """Ship until stopped; nothing that goes wrong ends it."""
        # What instruments HTTP clients would make a span of each delivery.
        token = otel_context.attach(otel_context.set_value(_SUPPRESS_INSTRUMENTATION_KEY, True))  # noqa: FBT003
        while True:
            ending = self._over.is_set()
            try:
                wait = self.step()
            except Exception as error:  # noqa: BLE001  evidence is to arrive, whatever went wrong once
                wait = self._failed(UndeliveredError(what_of(error)))
            if ending and (wait or not self._monotonic() < self._until):
                break
            self._over.wait(wait)
        otel_context.detach(token)
        self.close()

    def close(self) -> None:
        """Let another one ship."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()
        self._sender.close()

    def step(self) -> float:
        """Ship one batch, and return how many seconds to wait before the next; 0 if there may be more.

        Raises:
            OSError: The folder cannot be used.
        """
        if self._claim is None and not self._take_over():
            return self._pause
        for path in self._in_turn():
            looks = _looks(path)
            if self._done.get(path) == looks:
                continue
            batch = self._read(path)
            if not batch:
                self._done[path] = looks
                continue
            self._last = path
            return self._ship(path, batch)
        return self._pause

    def _take_over(self) -> bool:
        self._claim = Claim.take(self._cursor.path)
        if self._claim is None:
            if not self._waiting:
                _LOG.info("evidence in `%s` is forwarded by another process, this one waits", self.folder)
            self._waiting = True
            return False
        self._waiting = False
        self._cursor.load()
        self._done.clear()
        return True

    def _in_turn(self) -> list[Path]:
        """Return the chains, the one behind the last that was shipped first."""
        paths = list(chain_files(self.folder))
        self._done = {path: looks for path, looks in self._done.items() if path in paths}
        behind = next((n for n, path in enumerate(paths) if self._last is not None and path > self._last), 0)
        return paths[behind:] + paths[:behind]

    def _read(self, path: Path) -> list[Entry]:
        """Return what comes next in a chain, within the bounds of one batch."""
        batch: list[Entry] = []
        size = 0
        try:
            for entry in self._behind_delivered(path):
                size += len(entry.text) + _VIEW_BYTES
                if batch and size > self._most:
                    break
                batch.append(entry)
                if len(batch) == _RECORDS:
                    break
        except (NotAChain, OSError) as error:
            if path not in self._unreadable:
                _LOG.error("the chain in `%s` cannot be forwarded to its end: %s", path, what_of(error))
            self._unreadable.add(path)
        else:
            self._unreadable.discard(path)
        return batch

    def _behind_delivered(self, path: Path) -> Iterator[Entry]:
        """Yield what follows the record that was delivered last; everything, if that is not there any more."""
        seq, digest = self._cursor.get(path.stem)
        entries = read_chain(path, after=max(0, seq - 1))
        if seq:
            first = next(entries, None)
            if first is None or (first.seq == seq and first.hash != digest):
                # A loss of power took the end along, and others were written in its place; or
                # somebody changed it. What is there now is sent beside what was there.
                _LOG.error("chain `%s` is not what was delivered up to seq %d: it is sent anew", path.stem, seq)
                self._cursor.begin_anew(path.stem)
                yield from read_chain(path)
                return
            if first.seq != seq:
                # That one was pruned.
                yield first
        yield from entries

    def _ship(self, path: Path, batch: list[Entry]) -> float:
        try:
            objection = self._sender.send([span_of(entry) for entry in batch])
        except UndeliveredError as error:
            if error.too_large and len(batch) > 1 and self._most > _SMALLEST:
                self._most //= 2
                return 0.0
            return self._failed(error)
        if objection:
            _LOG.warning("%s has something against the evidence: %s", self.endpoint.place, objection)
        if self._failing:
            _LOG.warning("evidence is delivered to %s again", self.endpoint.place)
        self._failures, self._failing = 0, ""
        last = batch[-1]
        gone = last.seq - self._cursor.get(path.stem).seq - len(batch)
        if gone > 0:
            _LOG.warning("%d records of chain `%s` were pruned before they could be delivered", gone, path.stem)
        known = [chain.stem for chain in chain_files(self.folder)]
        self._cursor.advance(path.stem, Delivered(last.seq, last.hash), known)
        self.delivered += len(batch)
        return 0.0

    def _failed(self, error: UndeliveredError) -> float:
        """Return how long to wait: longer each time, and long at once where somebody has to mend something."""
        if error.what != self._failing:
            level = logging.ERROR if error.lasting else logging.WARNING
            _LOG.log(level, "evidence is not delivered to %s, and kept until it is: %s", self.endpoint.url, error.what)
        self._failing = error.what
        self._failures += 1
        pause = _FIRST_PAUSE * 2 ** min(self._failures - 1, _DOUBLINGS)
        return (_LONGEST_PAUSE if error.lasting else min(_LONGEST_PAUSE, pause)) * (0.5 + self._chance() / 2)

    def forked(self) -> None:
        """Leave the shipping to the parent."""
        claim, self._claim = self._claim, None
        if claim is not None:
            claim.release()


def _looks(path: Path) -> _Looks:
    return tuple(_look(file) for file in (path, path.with_name(f"{path.name}-wal")))


def _look(file: Path) -> tuple[int, int, int] | None:
    try:
        found = file.stat()
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


_FORWARDERS: Final[weakref.WeakSet[Forwarder]] = weakref.WeakSet()


def _after_fork() -> None:
    for forwarder in tuple(_FORWARDERS):
        forwarder.forked()


os.register_at_fork(after_in_child=_after_fork)
