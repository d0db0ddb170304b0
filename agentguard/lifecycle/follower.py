"""A thread that keeps a mirror up to date, and goes on trying when it cannot."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG: Final = logging.getLogger("agentguard")


class Follower:
    """Takes one step after the other until it is closed, in a thread of its own.

    Args:
        step: Brings the mirror up to date once; it may wait for news, but not long.
        name: What is followed, for the log.
        pause: Seconds between two steps.
        retry: Seconds to wait after a step that failed.
        first: Whether to take one step at once, before anything is asked.
    """

    def __init__(self, step: Callable[[], None], *, name: str, pause: float, retry: float, first: bool = False) -> None:
        self._step = step
        self._name = name
        self._pause = pause
        self._retry = retry
        self._closed = threading.Event()
        self._failing = False
        if first:
            self._take()
        self._thread = threading.Thread(target=self._run, name=f"agentguard {name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._closed.wait(self._retry if self._failing else self._pause):
            self._take()

    def _take(self) -> None:
        try:
            self._step()
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever goes wrong
            # Once for each time it goes down: a store that is away for a night fills no disk.
            if not self._failing:
                detail = error.detail if isinstance(error, Refusal) else type(error).__qualname__
                _LOG.warning("%s cannot be followed: %s", self._name, detail)
            self._failing = True
        else:
            if self._failing:
                _LOG.warning("%s is followed again", self._name)
            self._failing = False

    def close(self) -> None:
        """Take no further step; return when the last one is over."""
        self._closed.set()
        if self._thread is not threading.current_thread():
            self._thread.join()
