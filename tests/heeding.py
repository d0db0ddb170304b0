"""Signals that this process was started to ignore, as `nohup` and a shell's background do.

Everything that it starts ignores them too, and a shell cannot even trap them.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

_DEFAULT: Final[dict[int, Any]] = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGQUIT: signal.SIG_DFL,
}


@contextmanager
def heeding() -> Iterator[None]:
    """Heed them for as long as the block lasts."""
    ignored = [number for number in _DEFAULT if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, _DEFAULT[number])
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)
