"""What one call must not let out, and who is told when it would.

    with Containment(...) as contained:        # around the tool
        result = await body()
    contained.look(result, Place.RESULT)          # before it is handed out

A result or an exception is looked through once, for the secrets of its run. A log line or
an attribute of a span is looked through where it is made, for all secrets of the process:
what stops it asks `stops`.
"""

from __future__ import annotations

import logging
import threading
from contextlib import suppress
from contextvars import ContextVar
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Self

from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import LIVE, Place
from agentguard.credentials.shown import text_of

if TYPE_CHECKING:
    from collections.abc import Hashable
    from contextvars import Token
    from types import TracebackType

    from agentguard.credentials.live import Live, Told

TOKEN: Final = "invocation token"  # noqa: S105  its name
"""What the caller's own token is called."""

UNREADABLE: Final = "unreadable"
"""What is named where a value could not be looked through: it is stopped as well."""

_TOKENS: Final = 256
_LOG: Final = logging.getLogger("agentguard")

_CURRENT: Final[ContextVar[Containment | None]] = ContextVar("agentguard_containment", default=None)
# Whoever is told writes a record and may log: what comes of that is not told again.
_TELLING: Final = threading.local()


@lru_cache(maxsize=_TOKENS)
def token_secret(token: str) -> Secret:
    """Return the caller's token as a secret; that of the last 256 tokens is kept, since it takes a while to make.

    Raises:
        ValueError: If it is too short to be looked for.
    """
    return Secret(TOKEN, token)


class Containment:
    """What one call must not let out: its token, and every credential that its run got.

    While its ``with`` block runs, also in threads and tasks that it starts, `told` is told
    of log lines and spans; a task that outlives it is watched over like the rest of the
    process.

    Args:
        run: The run, as credentials were added to `Live`.
        token: The text of the token that was verified; None where there is none.
        told: Is called with the place and the name of a secret, once for each two.
        outside: Is called likewise when the token is found while no block runs.
        holder: Who acts in the run, and for whom, as credentials are made for; None where none are used.
        live: Where the process's secrets are.

    Raises:
        ValueError: If the token is too short to be looked for.
    """

    __slots__ = ("_live", "_open", "_reset", "_run", "_seen", "_token", "_told", "holder")

    _reset: Token[Containment | None]

    def __init__(
        self,
        *,
        run: Hashable,
        token: str | None,
        told: Told,
        outside: Told | None = None,
        holder: Hashable = None,
        live: Live = LIVE,
    ) -> None:
        self.holder: Final = holder
        self._run = run
        self._token = None if token is None else token_secret(token)
        self._told = told
        self._live = live
        self._seen: set[tuple[Place, str]] = set()
        self._open = False
        if self._token is not None:
            live.add(self._token, run=run, told=outside)

    def __enter__(self) -> Self:
        self._open = True
        self._reset = _CURRENT.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        _CURRENT.reset(self._reset)

    @property
    def run(self) -> Hashable:
        """The run."""
        return self._run

    @property
    def open(self) -> bool:
        """Whether its block runs."""
        return self._open

    def look(self, value: object, place: Place) -> str | None:
        """Return the name of a secret that a value holds, and tell of it; None if it may be handed out.

        Args:
            value: Whatever the tool returned, raised or sends.
            place: Which of these.

        Returns:
            Also `UNREADABLE`, where a value cannot be looked through: an iterator, which
            could be looked at only once, or one that raises.
        """
        if not self._live.has(self._run):
            return None
        try:
            found = self._live.find_of(self._run, text_of(value))
            name = None if found is None else found.name
        except Exception:  # noqa: BLE001  what cannot be looked through is not handed out
            name = UNREADABLE
        if name is not None:
            self.leaked(place, name)
        return name

    def leaked(self, place: Place, name: str) -> None:
        """Tell that a secret would have come out. It is stopped, recorded or not."""
        if (place, name) in self._seen:
            return
        self._seen.add((place, name))
        try:
            self._told(place, name)
        except Exception:  # noqa: BLE001  evidence that cannot be written makes nothing go out
            _LOG.error("`%s` was stopped in the %s of a call, and that could not be recorded", name, place)


def runs_for_another(holder: Hashable) -> bool:
    """Return whether a tool runs here for anybody else than *holder*."""
    current = _CURRENT.get()
    return current is not None and current.open and current.holder not in {None, holder}


def stops(value: object, place: Place, live: Live = LIVE) -> bool:
    """Return whether a log line or an attribute would show a secret, and tell of it.

    Whoever asks logs or traces, which must go on whatever becomes of it: nothing is raised.
    """
    if not live:
        return False
    current = _CURRENT.get()
    try:
        found = live.find(text_of(value, whole=False), None if current is None else current.run)
    except Exception:  # noqa: BLE001  what cannot be looked through is stopped
        return True
    if found is None:
        return False
    secret, kept = found
    if getattr(_TELLING, "now", False):
        return True
    to = current if current is not None and current.open else kept
    _TELLING.now = True
    # It is stopped, recorded or not.
    with suppress(Exception):
        to.leaked(place, secret.name)
    _TELLING.now = False
    return True
