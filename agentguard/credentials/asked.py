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
            return await operation()
    except TimeoutError:
        raise FailedError(detail=f"the broker did not answer in {seconds} s", retry=True) from None
    except BaseException as error:
        # Whatever a broker raises ends this one operation, and never the thread that all share.
        if isinstance(error, asyncio.CancelledError) and not is_stray(error):
            raise
        retry = error.retry if isinstance(error, CredentialError) else None
        raise FailedError(detail=raised(error), retry=retry) from None
