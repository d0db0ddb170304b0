"""What is still done when the process ends: by itself, or because it is told to.

A server that is told to end with SIGTERM mostly has a handler of its own, as uvicorn has.
It is left alone: ours is put in place only where there was none, so it runs where the
process would have ended on the spot, or after the server's own is done and gives the
signal back to whoever had it before. The process still ends by that signal.
"""

from __future__ import annotations

import atexit
import logging
import os
import signal
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_LOG: Final = logging.getLogger("agentguard")
# Less than what those who end a process wait before they kill it.
_SECONDS: Final = 3.0

_CALLS: Final[list[Callable[[], object]]] = []


def call_at_end(call: Callable[[], object]) -> None:
    """Call *call* once when this process ends, the last one given first.

    Not in a fork's child: what the parent holds is the parent's to close.
    """
    if not _CALLS:
        atexit.register(_end)
    _CALLS.append(call)
    here = threading.current_thread() is threading.main_thread()
    if here and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
        signal.signal(signal.SIGTERM, _ended_by)


def _end() -> None:
    while _CALLS:
        call = _CALLS.pop()
        try:
            call()
        except Exception as error:  # noqa: BLE001  what else has to be closed must be
            _LOG.error("%s was raised when this process ended", type(error).__qualname__)


def _ended_by(number: int, _frame: FrameType | None) -> None:
    # In a thread, and not for long: what this interrupted may hold the very locks that
    # closing needs, and a process that is told to end has to end.
    ending = threading.Thread(target=_end, daemon=True)
    try:
        ending.start()
        ending.join(_SECONDS)
    finally:
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)


os.register_at_fork(after_in_child=_CALLS.clear)
