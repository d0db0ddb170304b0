"""Ask a broker one thing, and let through nothing of what it raises but a description."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import anyio

from agentguard.cancelled import is_stray
from agentguard.errors import CredentialError, raised

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

T = TypeVar("T")


class FailedError(Exception):
    """A broker did not do what it was asked for.

    Attributes:
        detail: What happened, for the log.
        retry: Whether the same may go well a little later; None if nobody knows.
    """

    def __init__(self, *, detail: str, retry: bool | None) -> None:
        super().__init__("failed")
        self.detail = detail
        self.retry = retry


async def asked(operation: Callable[[], Awaitable[T]], seconds: float) -> T:
    """Return what a broker's *operation* does, if it takes no longer than that.

    Raises:
        FailedError: It took longer, or raised something.
    """
    try:
        with anyio.fail_after(seconds):
            # In a task of its own: one that cancels the task that it runs in must cancel none of ours.
            return await asyncio.create_task(_answer(operation))
    except TimeoutError:
        raise FailedError(detail=f"the broker did not answer in {seconds} s", retry=True) from None
    except asyncio.CancelledError as error:
        if not is_stray(error):
            raise
        raise FailedError(detail=raised(error), retry=None) from None


async def _answer(operation: Callable[[], Awaitable[T]]) -> T:
    try:
        return await operation()
    except (TimeoutError, asyncio.CancelledError):
        raise
    except BaseException as error:  # noqa: BLE001  it ends this one operation, and never the thread that all share
        retry = error.retry if isinstance(error, CredentialError) else None
        raise FailedError(detail=raised(error), retry=retry) from None
