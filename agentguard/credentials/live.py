"""The secrets that are looked for in what belongs to no call's result: log lines and spans."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Final

from agentguard.credentials.leaks import flattened, sampled

if TYPE_CHECKING:
    from collections.abc import Hashable

    from agentguard.credentials.leaks import Secret


class Place(StrEnum):
    """Where a secret would have come out."""

    RESULT = "result"
    EXCEPTION = "exception"
    LOG = "log"
    SPAN = "span"


Told = Callable[[Place, str], object]
"""Is called with the place and the name of a secret."""

MOST: Final = 1_024
"""Of more secrets, those that came last are looked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Kept:
    """A secret that is looked for, as long as somebody else holds it.

    Attributes:
        secret: Gives it, or None.
        told: Is told where it was found, when no call in progress is.
        places: Where it was found.
    """

    secret: weakref.ref[Secret]
    told: Told | None
    places: set[Place] = field(default_factory=set)

    def leaked(self, place: Place, name: str) -> None:
        """Tell of it, once for each place."""
        if self.told is not None and place not in self.places:
            self.places.add(place)
            self.told(place, name)


class Live:
    """All secrets of a process that may still be good. Safe to share between threads.

    A secret is forgotten when nobody else holds it. Looking takes no lock, since a log
    line may come from anywhere, and costs the same for one secret and for many.

    Args:
        most: How many are looked for at once; of more, the first are dropped.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._kept: dict[weakref.ref[Secret], Kept] = {}
        self._runs: dict[Hashable, dict[weakref.ref[Secret], None]] = {}
        self._blocks: set[int] = set()
        # Those that are gone, and how many of them `_blocks` still knows.
        self._gone: deque[tuple[weakref.ref[Secret], Hashable]] = deque()
        self._stale = 0
        self._lock = Lock()

    def __bool__(self) -> bool:
        """Return whether there may be any."""
        return bool(self._kept)

    def add(self, secret: Secret, *, run: Hashable = None, told: Told | None = None) -> None:
        """Look for a secret from now on; adding it again changes nothing.

        Args:
            secret: It is held weakly: keep it for as long as it may be good.
            run: Whose it is, for `of`; None if that need not be known.
            told: Is called with the place (``log``, ``span``) and the secret's name when it
                is found outside of any call, once for each. In whatever thread, so it must not wait for a
                lock that is held where anything is logged.
        """
        if weakref.ref(secret) in self._kept:
            return
        gone = self._gone
        ref = weakref.ref(secret, lambda ref: gone.append((ref, run)))
        with self._lock:
            self._sweep()
            self._kept[ref] = Kept(ref, told)
            if run is not None:
                self._runs.setdefault(run, {})[ref] = None
            self._blocks |= secret.first_blocks
            while len(self._kept) > self._most:
                del self._kept[next(iter(self._kept))]
                self._stale += 1

    def of(self, run: Hashable) -> tuple[Secret, ...]:
        """Return all secrets of one run, also those that are no longer looked for elsewhere."""
        return tuple([secret for ref in list(self._runs.get(run, ())) if (secret := ref()) is not None])

    def find(self, text: str | bytes) -> tuple[Secret, Kept] | None:
        """Return a secret that *text* holds, or None."""
        flat = flattened(text)
        if self._blocks.isdisjoint(sampled(flat)):
            return None
        for kept in list(self._kept.values()):
            secret = kept.secret()
            if secret is not None and secret.is_in(flat):
                return secret, kept
        return None

    def _sweep(self) -> None:
        """Forget those that nobody holds, and their blocks once they are most of all."""
        while self._gone:
            ref, run = self._gone.popleft()
            self._stale += self._kept.pop(ref, None) is not None
            of_run = self._runs.get(run, {})
            if of_run.pop(ref, ref) is None and not of_run:
                del self._runs[run]
        if self._stale > max(len(self._kept), 16):
            alive = [secret for ref in self._kept if (secret := ref()) is not None]
            # Whoever looks meanwhile has the old set, which knows them all.
            self._blocks = {block for secret in alive for block in secret.first_blocks}
            self._stale = 0


LIVE: Final = Live()
"""Those of this process."""
