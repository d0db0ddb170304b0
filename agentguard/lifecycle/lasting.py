"""Begin and end runs from an event loop, which must not wait for a disk or a network."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from threading import Event, Lock
from typing import TYPE_CHECKING, Final

import anyio
import anyio.to_thread

from agentguard.errors import Refusal, raised
from agentguard.lifecycle.states import COMPLETED

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from agentguard.lifecycle.runs import Run

_LOG: Final = logging.getLogger("agentguard")

GIVEN_UP: Final = f"{COMPLETED}: given up before it began"
"""Why a run ended that nobody got."""


@asynccontextmanager
async def lasting(begin: Callable[[], Run]) -> AsyncGenerator[Run, None]:
    """Begin a run, and end it with the block: as completed, or with the exception's class."""
    run = await begun(begin)
    try:
        yield run
    except BaseException as error:
        try:
            await _ended(run, f"{COMPLETED}: {type(error).__name__}")
        except Exception as failure:  # noqa: BLE001  the block's own exception is the one to see
            why = failure.reason if isinstance(failure, Refusal) else type(failure).__name__
            error.add_note(f"the end of run `{run.id}` could not be kept: {why}")
            # The block's own exception is its context: a traceback would show the text of both.
            _LOG.error("the end of run `%s` could not be kept: %s", run.id, raised(failure))
        raise
    await _ended(run, COMPLETED)


async def begun(begin: Callable[[], Run]) -> Run:
    """Begin a run in a thread, since the store may wait for a disk or a network.

    Args:
        begin: Begins it. Whoever is cancelled while this waits has begun none.
    """
    runs: list[Run] = []
    lock, given_up = Lock(), Event()

    def work() -> None:
        run = begin()
        with lock:
            runs.append(run)
            if not given_up.is_set():
                return
        run.end(GIVEN_UP)

    try:
        await anyio.to_thread.run_sync(work)
    except anyio.get_cancelled_exc_class():
        # A task that is cancelled while it waits gets no run, whether the thread has made
        # one or still does.
        with lock:
            given_up.set()
            made = tuple(runs)
        for run in made:
            run.end(GIVEN_UP)
        raise
    return runs[0]


async def _ended(run: Run, reason: str) -> None:
    try:
        # A cancelled block is where ending matters most. A limiter of its own: others may
        # have taken all threads.
        with anyio.CancelScope(shield=True):
            await anyio.to_thread.run_sync(run.end, reason, limiter=anyio.CapacityLimiter(1))
    except anyio.get_cancelled_exc_class():
        # asyncio's own `Task.cancel` passes the shield, perhaps before the thread began.
        run.end(reason)
        raise
