"""The secrets that are looked for in what belongs to no call's result: log lines and spans."""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import StrEnum
from threading import Lock
from typing import TYPE_CHECKING, Final

from agentguard.credentials.leaks import BLOCK, LONGEST_STRIDE, flattened, sampled

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Sequence

    from agentguard.credentials.leaks import Secret


class Place(StrEnum):
    """Where a secret would have come out."""

    RESULT = "result"
    EXCEPTION = "exception"
    MESSAGE = "message"
    LOG = "log"
    SPAN = "span"
    RECORD = "record"


Told = Callable[[Place, str], object]
"""Is called with the place and the name of a secret."""

MOST: Final = 1_024
"""Of more secrets, those that came last are looked for."""

# With more pieces of secrets in a text, all of it is compared: digits with blanks between have many by chance.
_PIECES: Final = 64


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


class _Group:
    """Secrets that are looked for together, in one set of blocks."""

    def __init__(self, *, short: bool = False) -> None:
        self.kept: dict[weakref.ref[Secret], Kept] = {}
        self._short = short
        self._blocks: AbstractSet[int] = set()
        self._stride = LONGEST_STRIDE
        # Of so many secrets that are gone there are blocks yet: they cost a look now and then.
        self._stale = 0

    def add(self, secret: Secret, kept: Kept) -> None:
        if self._short:
            self._blocks |= secret.first_blocks
        else:
            # Most runs have a token and no more: then there is nothing to copy.
            self._blocks = self._blocks | secret.blocks if self.kept else secret.blocks
        self.kept[kept.secret] = kept
        self._stride = min(self._stride, BLOCK if self._short else secret.stride)

    def drop(self, ref: weakref.ref[Secret]) -> None:
        if self.kept.pop(ref, None) is None:
            return
        self._stale += 1
        if self._stale > max(len(self.kept), 16):
            alive = [secret for ref in self.kept if (secret := ref()) is not None]
            # Whoever looks meanwhile has the old set, which knows them all.
            self._blocks = set().union(*[one.first_blocks if self._short else one.blocks for one in alive])
            self._stale = 0

    def find(self, text: str | bytes) -> tuple[Secret, Kept] | None:
        flat, stride = flattened(text), self._stride
        sample = sampled(flat, stride)
        if self._blocks.isdisjoint(sample):
            return None
        places = [number * stride for number, block in enumerate(sample) if block in self._blocks]
        pieces = {sample[place // stride] for place in places}
        for kept in list(self.kept.values()):
            secret = kept.secret()
            # Whoever knows one secret can write its pieces a thousand times: none of the others is compared for that.
            if secret is None or not secret.is_near(pieces):
                continue
            if any(map(secret.is_in, _parts(flat, places, secret))):
                return secret, kept
        return None


def _parts(flat: bytes, places: Sequence[int], secret: Secret) -> Iterable[bytes]:
    """Yield those parts of a text that may hold a secret, pieces of some being at these places."""
    if len(places) > _PIECES:
        yield flat
        return
    for place in places:
        if not secret.blocks.isdisjoint(sampled(flat[place : place + BLOCK])):
            yield flat[max(place - secret.reach, 0) : place + secret.reach]


class Live:
    """All secrets of a process that may still be good. Safe to share between threads.

    A secret is forgotten when nobody else holds it. Looking takes no lock, since a log
    line may come from anywhere, and costs the same for one secret and for many.

    Args:
        most: How many are looked for at once outside of their own runs; of more, the first
            are dropped.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._all = _Group(short=True)
        self._runs: dict[Hashable, _Group] = {}
        self._gone: deque[tuple[weakref.ref[Secret], Hashable]] = deque()
        self._lock = Lock()

    def __bool__(self) -> bool:
        """Return whether there may be any."""
        return bool(self._all.kept)

    def add(self, secret: Secret, *, run: Hashable = None, told: Told | None = None) -> None:
        """Look for a secret from now on; adding it again changes nothing.

        Args:
            secret: It is held weakly: keep it for as long as it may be good.
            run: Whose it is; None if that need not be known.
            told: Is called with the place (``log``, ``span``) and the secret's name when it
                is found outside of any call, once for each. In whatever thread, so it must
                not wait for a lock that is held where anything is logged.
        """
        if weakref.ref(secret) in self._runs.get(run, self._all).kept:
            return
        gone = self._gone
        ref = weakref.ref(secret, lambda ref: gone.append((ref, run)))
        with self._lock:
            self._sweep()
            kept = Kept(ref, told)
            self._all.add(secret, kept)
            if run is not None:
                self._runs.setdefault(run, _Group()).add(secret, kept)
            while len(self._all.kept) > self._most:
                self._all.drop(next(iter(self._all.kept)))

    @property
    def _full(self) -> bool:
        return len(self._all.kept) >= self._most

    def has(self, run: Hashable) -> bool:
        """Return whether a run may have any."""
        return run in self._runs

    def find(self, text: str | bytes, run: Hashable = None) -> tuple[Secret, Kept] | None:
        """Return a secret of any run that *text* holds, or None. For short texts.

        Args:
            text: What is looked through.
            run: A run whose secrets are looked for in any case, however many there are.
        """
        found = self._all.find(text)
        own = self._runs.get(run)
        return own.find(text) if found is None and own is not None and self._full else found

    def find_of(self, run: Hashable, text: str | bytes) -> Secret | None:
        """Return a secret of one run that *text* holds, or None. For texts of any length."""
        group = self._runs.get(run)
        found = None if group is None else group.find(text)
        return None if found is None else found[0]

    def _sweep(self) -> None:
        """Forget those that nobody holds."""
        while self._gone:
            ref, run = self._gone.popleft()
            self._all.drop(ref)
            if run in self._runs:
                self._runs[run].drop(ref)
                if not self._runs[run].kept:
                    del self._runs[run]


LIVE: Final = Live()
"""Those of this process."""
