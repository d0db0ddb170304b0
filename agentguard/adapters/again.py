"""Judge again what goes on for hours, when other policies come into force.

A stream is judged when it opens. Policies that would not let it open have to end it too,
or a caller would go on hearing of what it may not read any more.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

import anyio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentguard.live.inforce import InForce

T = TypeVar("T")


class Bell:
    """Wakes what waits for it, on the event loop where it was made, from whichever thread it is rung."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._rung = anyio.Event()
        # Nothing but asyncio lets another thread do that, and it is what servers run on.
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def ring(self) -> None:
        """Ring it."""
        if self._loop is not None:
            # A loop that is closed has nobody waiting.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._set)

    def _set(self) -> None:
        self._rung.set()

    async def wait(self) -> None:
        """Wait until it rings, or return at once if it has rung since the last time."""
        await self._rung.wait()
        self._rung = anyio.Event()


async def while_allowed(in_force: InForce, judge: Callable[[], Awaitable[None]], body: Callable[[], Awaitable[T]]) -> T:
    """Await *body* if *judge* passes, and as long as it does each time that other policies are in force.

    Args:
        in_force: The policies.
        judge: Raises if it may not go on.
        body: What goes on.

    Raises:
        Exception: What *judge* raises, or *body*.
    """
    bell = Bell()
    raised: list[Exception] = []
    results: list[T] = []
    waiting = anyio.CancelScope()

    async def judging() -> None:
        with waiting:
            try:
                while True:
                    await bell.wait()
                    await judge()
            except Exception as error:  # noqa: BLE001  raised below, out of the group
                raised.append(error)
                tasks.cancel_scope.cancel()

    # Before it is judged: what changes meanwhile has to be noticed.
    with in_force.telling(bell.ring):
        await judge()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(judging)
            try:
                results.append(await body())
            except Exception as error:  # noqa: BLE001  likewise
                raised.append(error)
            waiting.cancel()
    if raised:
        raise raised[0]
    return results[0]
