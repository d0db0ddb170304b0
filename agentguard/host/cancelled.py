"""Tell a cancellation that was meant for the running task from one that strayed into it."""

from __future__ import annotations

import asyncio


def is_stray(error: BaseException) -> bool:
    """Tell whether *error* is a cancellation that nobody meant for the running task.

    Awaiting something that was cancelled raises the same exception as being cancelled. Let
    through, it would end the whole session of whoever called.
    """
    if not isinstance(error, asyncio.CancelledError):
        return False
    task = asyncio.current_task()
    return task is not None and not task.cancelling()
