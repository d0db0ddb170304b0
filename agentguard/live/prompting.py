"""What has policies reloaded while a server runs: news of the folder, and SIGHUP.

Both only leave word for one thread, which looks. So a signal that comes in the middle of
anything takes no lock, and a thousand of them are answered by a look or two.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import threading
import weakref
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, raised
from agentguard.host.atend import call_at_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from types import FrameType

    from agentguard.live.watching import Watch

_LOG: Final = logging.getLogger("agentguard")

PAUSE_SECONDS: Final = 2.0
"""How often somebody looks without being told."""


class Asked(Enum):
    """Why somebody looks."""

    BY_NAME = auto()
    """Whoever asked reads the log."""
    BY_NEWS = auto()
    """Something may have changed, or nobody has looked for a while."""


class Prompting:
    """Calls for a look at some folders.

    Args:
        folders: Their absolute paths.
        look: Looks, told why.
        watches: Whether changes are looked for.
        pause: How often changes are looked for at least, seconds.
        after_fork: Called in the child of a fork, where whoever looked in the parent does so no more.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        look: Callable[[Asked], object],
        *,
        watches: bool,
        pause: float = PAUSE_SECONDS,
        after_fork: Callable[[], None],
    ) -> None:
        self._folders = folders
        self._look = look
        self._watches = watches
        self._pause = pause
        self._reset = after_fork
        self._begun = self._hears = False
        self._before: Callable[[int, FrameType | None], object] | int = signal.SIG_DFL
        self._worker: threading.Thread | None = None
        self._watch: Watch | None = None
        # The one kind of queue that a signal's handler may put something into.
        self._asked: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        _EVERY.add(self)

    def begin(self) -> None:
        """Begin, as far as anybody asked for it."""
        self._begun = True
        if not (self._watches or self._hears):
            return
        if self._worker is None:
            self._worker = threading.Thread(target=self._work, name="agentguard policies", daemon=True)
            self._worker.start()
            call_at_end(self.stop)
        if self._watches and self._watch is None:
            from agentguard.live.watching import Watch  # noqa: PLC0415  nobody else needs what watches

            self._watch = Watch(self._folders, lambda: self._asked.put(Asked.BY_NEWS), pause=self._pause)
            self._watch.start()

    def on_sighup(self) -> None:
        """Look whenever the process gets SIGHUP; a handler that was there is called after.

        Raises:
            ConfigurationError: This is not the main thread, the system has no such signal, or what
                handles it cannot be put back.
        """
        number = getattr(signal, "SIGHUP", None)
        if number is None or threading.current_thread() is not threading.main_thread():
            message = "SIGHUP wants the main thread of a system that has it, got another: call guard.reload() instead"
            raise ConfigurationError(message)
        if self._hears:
            return
        before = signal.getsignal(number)
        if before is None:
            # Python can neither call it nor put it back, and without it the signal would be lost for whoever it is for.
            message = "SIGHUP has a handler that is not Python's, which would be lost: call guard.reload() instead"
            raise ConfigurationError(message)
        self._before, self._hears = before, True

        def heard(number: int, frame: FrameType | None) -> None:
            self._asked.put(Asked.BY_NAME)
            if callable(before):
                before(number, frame)

        self._heard = heard
        signal.signal(number, heard)
        if self._begun:
            self.begin()

    def stop(self) -> None:
        """End it, and wait until that is done."""
        # Whoever asks for the signal from now on asks for nothing else.
        self._watches = False
        if self._watch is not None:
            self._watch.stop()
        if self._worker is not None:
            self._asked.put(None)
            # What it runs may be what stops it.
            if self._worker is not threading.current_thread():
                self._worker.join()
        self._watch = self._worker = None
        if self._hears and threading.current_thread() is threading.main_thread():
            self._hears = False
            # Whoever took the signal since calls ours, which is for nothing from now on.
            if signal.getsignal(signal.SIGHUP) is self._heard:
                signal.signal(signal.SIGHUP, self._before)

    def _work(self) -> None:
        asked = self._asked
        while (ask := asked.get()) is not None:
            # What else was asked for by now is answered by the same look, which begins after it.
            while not asked.empty():
                more = asked.get()
                if more is None:
                    return
                ask = Asked.BY_NAME if Asked.BY_NAME in {ask, more} else ask
            try:
                self._look(ask)
            except BaseException as error:  # noqa: BLE001  the thread must outlive a panic of the engine too
                _LOG.error("the policies could not be looked at: %s", raised(error))

    def after_fork(self) -> None:
        """Go on in the child of a fork, where no thread of the parent is."""
        self._asked = queue.SimpleQueue()
        self._reset()
        ran = self._worker is not None
        self._watch = self._worker = None
        if ran:
            self.begin()


_EVERY: Final[weakref.WeakSet[Prompting]] = weakref.WeakSet()


def _after_fork() -> None:
    for prompting in list(_EVERY):
        prompting.after_fork()


os.register_at_fork(after_in_child=_after_fork)
