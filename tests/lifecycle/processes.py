"""Further processes, which a test can kill at any moment.

They are forked from one that has imported everything: each would need seconds for it.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from tests.heeding import heeding

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "tests.lifecycle.writers", "tests.cli.supervised"])


class Other:
    """Another process, and what it says."""

    def __init__(self, run: Callable[..., None], *arguments: Any) -> None:
        self._says, says = _CONTEXT.Pipe(duplex=False)
        self._process = _CONTEXT.Process(target=_heeding, args=(run, says, *arguments))
        self._process.start()
        # Ours would keep the pipe open after the process is dead.
        says.close()

    def hear(self, count: int = 1) -> list[Any]:
        """Wait for what it says next."""
        heard = []
        for _ in range(count):
            assert self._says.poll(60), "the other process says nothing"
            heard.append(self._says.recv())
        return heard

    def kill(self) -> list[Any]:
        """Kill it with SIGKILL, and return all that it had said until then."""
        self._process.kill()
        self._process.join()
        heard = []
        with suppress(EOFError, OSError):
            while True:
                heard.append(self._says.recv())
        self._says.close()
        return heard


def _heeding(run: Callable[..., None], *arguments: Any) -> None:
    with heeding():
        run(*arguments)


@contextmanager
def other(run: Callable[..., None], *arguments: Any) -> Iterator[Other]:
    """Give another process that runs *run*, and kill it at the end."""
    process = Other(run, *arguments)
    try:
        yield process
    finally:
        process.kill()
