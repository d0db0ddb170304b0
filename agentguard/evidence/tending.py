"""The thread that does for a ledger what takes long, until the ledger is closed or gone."""

from __future__ import annotations

import logging
import os
from threading import Thread
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence.chainfile import NotAChain
from agentguard.evidence.heads import BadSignature

if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

_LOG: Final = logging.getLogger("agentguard")


def tend_from_now_on(find: Callable[[], Callable[[], None] | None], over: Event, pause: float, *, name: str) -> Thread:
    """Start a thread that takes one step after the other.

    Args:
        find: Gives the step, or None when whoever it belongs to is gone: whoever waits
            must not keep alive what it waits for.
        over: Ends it.
        pause: Seconds between two steps.
        name: What is tended, for the log.
    """
    thread = Thread(target=tend, args=(find, over, pause, name), name=f"agentguard {name}", daemon=True)
    thread.start()
    return thread


def tend(find: Callable[[], Callable[[], None] | None], over: Event, pause: float, name: str) -> None:
    """Take the steps, and outlive whatever goes wrong with one."""
    failing = False
    while not over.wait(pause):
        step = find()
        if step is None:
            return
        try:
            step()
            failing = False
        except Exception as error:  # noqa: BLE001  the thread must outlive whatever goes wrong
            if not failing:
                _LOG.warning("%s could not be tended: %s", name, what_of(error))
            failing = True
        del step


def what_of(error: Exception) -> str:
    """Return what is said of an error: it is about the file, and has nothing of a record."""
    if isinstance(error, Refusal):
        return error.detail
    if isinstance(error, OSError):
        return os.strerror(error.errno or 0)
    told = isinstance(error, ConfigurationError | NotAChain | BadSignature)
    return str(error) if told else f"{type(error).__name__}: {error}"
