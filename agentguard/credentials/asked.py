"""Ask a broker one thing, and let through nothing of what it raises but a description."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

import anyio

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
    late = FailedError(detail=f"the broker did not answer in {seconds} s", retry=True)
    answers: list[T | FailedError] = []

    async def alone() -> None:
        answers.append(await _answer(operation, late))

    with anyio.move_on_after(seconds) as limit:
        # In a task of its own: one that cancels the task that it runs in must cancel none of ours.
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(alone)
    if not answers:
        answers.append(late if limit.cancelled_caught else FailedError(detail="the broker was cancelled", retry=None))
    answer = answers[0]
    if isinstance(answer, FailedError):
        raise answer
    return answer


async def _answer(operation: Callable[[], Awaitable[T]], late: FailedError) -> T | FailedError:
    try:
        return await operation()
    except asyncio.CancelledError:
        raise
    except TimeoutError:
        return late
    except BaseException as error:  # noqa: BLE001  it ends this one operation, and never the thread that all share
        # Returned, since what is raised here would take along what the broker raised.
        return FailedError(detail=raised(error), retry=error.retry if isinstance(error, CredentialError) else None)
