"""What a caller might be allowed at all: what its lists show.

A preview decides nothing and runs nothing, so it leaves no record. It still needs an
identity whose run lives, and where there is none, that is recorded like any other denial.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.policy.deciding.listing import possible
from agentguard.steps.attending import refusal_of
from agentguard.steps.call import Denial

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentguard.errors import Refusal
    from agentguard.model import Decision, Invocation
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.steps.call import Call
    from agentguard.steps.judging import Judging


class Previewing:
    """Tells what callers might be allowed."""

    def __init__(
        self,
        judging: Judging,
        alive: Callable[[Invocation | None], float],
        refuse: Callable[[Call, str, Refusal], Awaitable[Decision]],
        policies: Callable[[], PolicySet | None],
    ) -> None:
        """Set it up.

        Args:
            judging: What requests are made with.
            alive: Returns the time now if a run lives; raises `Refusal` if not.
            refuse: Records a denial.
            policies: Returns those that are in force; None if nobody may be judged by them.
        """
        self._judging = judging
        self._alive = alive
        self._refuse = refuse
        self._policies = policies

    async def __call__(self, call: Call, method: str) -> frozenset[str]:
        """Return the ids of the actions that the caller might be allowed with some argument, on some resource.

        Where the transport can ask for a token with more scopes, that includes what the
        caller might be allowed with these: the call is then answered so, and not as if
        there were no such thing.

        Args:
            call: The request for a list.
            method: What it asks for.

        Raises:
            Denial: There is no identity, its run is over, or something is out of order.
        """
        try:
            invocation = await call.identify()
            policies = self._policies()
            if policies is None:
                # Clients list by themselves, after a call that was judged in time: an error would
                # take the place of its result.
                self._alive(invocation)
                return frozenset()
            wanted = self._judging.principal(invocation)
            load, known = self._judging.loaders.load, policies.static_uids
            entities = await load(wanted, known=known, tool=None) if wanted else ()
            actions = possible(invocation, policies, entities)
            if call.step_up is not None and not invocation.ancestors:
                scopes = invocation.scopes.union(*(policy.scopes for policy in policies.policies.values()))
                if scopes != invocation.scopes:
                    actions |= possible(invocation, policies, entities, supposing=scopes)
            self._alive(invocation)
        except Exception as error:  # noqa: BLE001  the guard's edge: whatever went wrong, nothing is shown
            raise Denial(await self._refuse(call, method, refusal_of(error))) from None
        return actions
