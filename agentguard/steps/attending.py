"""What needs an identity and nothing more, for as long as the run lasts.

A stream of changes is open for hours, and no decision is made in it. It still belongs to
a run: without one it does not begin, and it ends when the run does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import anyio

from agentguard.errors import Refusal, raised
from agentguard.model import Reason
from agentguard.steps.call import Denial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentguard.lifecycle.calls import LiveCalls
    from agentguard.model import Decision, Invocation
    from agentguard.steps.call import Call

T = TypeVar("T")


class Attending:
    """Lets something run under the identity of its request alone."""

    def __init__(
        self,
        live: LiveCalls,
        alive: Callable[[Invocation | None], float],
        refuse: Callable[[Call, str, Refusal], Awaitable[Decision]],
    ) -> None:
        """Set it up.

        Args:
            live: The calls that the end of a run cancels.
            alive: Returns the time now if a run lives; raises `Refusal` if not.
            refuse: Records a denial.
        """
        self._live = live
        self._alive = alive
        self._refuse = refuse

    async def __call__(self, call: Call, method: str, body: Callable[[Invocation], Awaitable[T]]) -> T:
        """Await *body*, and cancel it when the run ends.

        Args:
            call: The request.
            method: What it asks for.
            body: What answers it, told for whom.

        Raises:
            Denial: There is no identity, or its run ended before *body* did.
            Exception: Whatever *body* raises.
        """
        invocation: Invocation | None = None
        scope = anyio.CancelScope()
        try:
            with scope:
                try:
                    invocation = await call.identify()
                    # Registered before it is asked whether the run lives: the other order loses a race.
                    self._live.add(invocation, scope)
                    scope.deadline = anyio.current_time() + invocation.ends_at - self._alive(invocation)
                except Exception as error:  # noqa: BLE001  the guard's edge: whatever went wrong, it is denied
                    raise Denial(await self._refuse(call, method, refusal_of(error))) from None
                result = await body(invocation)
                if not scope.cancel_called and self._end_of(invocation) is None:
                    return result
        finally:
            self._live.remove(invocation, scope)
        end = self._end_of(invocation) or Refusal(Reason.EXPIRED)
        raise Denial(await self._refuse(call, method, end))

    def _end_of(self, invocation: Invocation | None) -> Refusal | None:
        try:
            self._alive(invocation)
        except Exception as error:  # noqa: BLE001  a store that fails must not let anything out
            return refusal_of(error)
        return None


def refusal_of(error: Exception) -> Refusal:
    """Return what an error amounts to: it denies, whatever it is."""
    return error if isinstance(error, Refusal) else Refusal(Reason.INTERNAL_ERROR, raised(error))
