"""An event loop in a daemon thread of its own, and how other loops wait for what it does.

What runs there belongs to no request: cancelling one cancels none of it, and it goes on
after the last. Whatever hangs there holds up no server.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from collections import deque
from contextlib import suppress
from threading import Lock, Thread
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

import anyio
from anyio.lowlevel import current_token

from agentguard.errors import raised

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")

_LOG: Final = logging.getLogger("agentguard")


class _Loop(asyncio.SelectorEventLoop):
    """One that finds a host even while the process ends, when no thread can be had for it any more."""

    async def getaddrinfo(self, host: Any, port: Any, **options: Any) -> Any:
        try:
            return await super().getaddrinfo(host, port, **options)
        except RuntimeError:
            # Nothing but what is being closed waits for this thread by now.
            return socket.getaddrinfo(host, port, **options)


class Waiter(Generic[T]):
    """Waits in one event loop for what comes from another thread, which never waits for it."""

    def __init__(self) -> None:
        self._event = anyio.Event()
        self._loop: Any = current_token().native_token
        self._result: T | None = None

    def put(self, result: T) -> None:
        """Give it what it waits for, if anybody still does."""
        self._result = result
        # asyncio and trio name the same thing differently.
        schedule = getattr(self._loop, "call_soon_threadsafe", None) or self._loop.run_sync_soon
        with suppress(RuntimeError):  # a loop that is gone waits for nothing
            schedule(self._event.set)

    async def get(self, seconds: float) -> T | None:
        """Return what was put, or None if that did not come in time."""
        with anyio.move_on_after(seconds):
            await self._event.wait()
        return self._result


class Worker:
    """Runs coroutines in a thread of its own, which begins with the first of them.

    Args:
        name: What the thread is for.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self.forked()

    def forked(self) -> None:
        """Begin anew, as a fork's child has to: the thread is the parent's."""
        self._jobs: deque[Callable[[], Awaitable[object]]] = deque()
        self._thread: Thread | None = None
        self._wake: Callable[[], object] | None = None
        self._cancel: Callable[[], object] | None = None
        self._beginning = Lock()

    def start(self, job: Callable[[], Awaitable[object]]) -> None:
        """Have *job* run there; from any thread, and without waiting. After `finish`, it never does.

        Raises:
            RuntimeError: No thread can be had.
        """
        if self._thread is None:
            with self._beginning:
                if self._thread is None:
                    thread = Thread(target=self._run, name=f"agentguard {self._name}", daemon=True)
                    thread.start()
                    self._thread = thread
        # After that: what no thread could be had for is not done later either.
        self._jobs.append(job)
        if self._wake is not None:
            with suppress(RuntimeError):  # it has finished
                self._wake()

    def _run(self) -> None:
        anyio.run(self._work, backend_options={"loop_factory": _Loop})

    async def _work(self) -> None:
        loop, woken = asyncio.get_running_loop(), asyncio.Event()
        async with anyio.create_task_group() as tasks:
            self._cancel = tasks.cancel_scope.cancel
            # Before the first look: whoever comes later finds it, and wakes this.
            self._wake = lambda: loop.call_soon_threadsafe(woken.set)
            while True:
                woken.clear()
                while self._jobs:
                    tasks.start_soon(_done, self._jobs.popleft())
                await woken.wait()

    @property
    def begun(self) -> bool:
        """Whether there is a thread, or was one."""
        return self._thread is not None

    def finish(self) -> None:
        """Cancel everything that runs there, and end the thread; called there."""
        if self._cancel is not None:
            self._cancel()

    def join(self, seconds: float) -> bool:
        """Wait for the thread to end, and return whether there is none."""
        if self._thread is None:
            return True
        self._thread.join(seconds)
        return not self._thread.is_alive()


async def _done(job: Callable[[], Awaitable[object]]) -> None:
    try:
        await job()
    except Exception as error:  # noqa: BLE001  the thread must outlive whatever goes wrong
        _LOG.error("%s", raised(error))
