"""Where every call of a guarded function passes, whichever framework made it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Final

from agentguard.adapters.answers import UnjudgedDenial
from agentguard.call import ACTING, Call, Denial
from agentguard.errors import AccessDenied
from agentguard.guarded import direct_call
from agentguard.model import Decision, Effect, Reason

if TYPE_CHECKING:
    from contextvars import ContextVar

    from agentguard.enforce import Enforcer
    from agentguard.guarded import GuardedFunction

_LOG: Final = logging.getLogger("agentguard")


class Gate:
    """The way into the guarded functions of one guard.

    Attributes:
        current: The request that is being answered here.
        enforcer: What judges; None until the guard is attached.
    """

    def __init__(self, current: ContextVar[Call | None]) -> None:
        self.current = current
        self.enforcer: Enforcer | None = None

    async def enter(self, guarded: GuardedFunction, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer one call of a guarded function."""
        call = self.current.get()
        acting = ACTING.get()
        if call is None and acting is not None:
            # A test calls the function itself; what it calls in turn is nested in that.
            direct = self.current.set(direct_call(acting))
            try:
                return await self.enter(guarded, args, kwargs)
            finally:
                self.current.reset(direct)
        if self.enforcer is None or guarded.rule is None or call is None:
            _LOG.error("denied: `%s` was called %s", guarded.function.__name__, self._why_not(guarded))
            raise UnjudgedDenial(Decision(effect=Effect.DENY, reason=Reason.UNAUTHENTICATED))
        outermost = call.open and call.depth == 0
        # A validator may call guarded functions too: that is not yet the tool itself.
        call.entered |= guarded.rule is call.rule
        call.depth += 1
        try:
            arguments = guarded.named(args, kwargs)
            return await self.enforcer.enforce(
                call, guarded.rule, arguments, lambda: guarded.run(args, kwargs, arguments)
            )
        except Denial as denial:
            if outermost:
                return call.answers.denied(denial.decision)
            raise call.answers.denied_nested(denial.decision) from None
        except AccessDenied as nested:
            # A call inside the tool was denied, and the tool left it at that.
            if outermost:
                return call.answers.denied(nested.decision)
            raise
        finally:
            call.depth -= 1

    def _why_not(self, guarded: GuardedFunction) -> str:
        if self.enforcer is None:
            return "through a guard that was never attached: call guard.attach(server) after the last tool"
        if guarded.rule is None:
            return "but its server does not have it as a tool: register it before guard.attach(server)"
        return "outside of any request: in a test, use agentguard.testing.acting_as"
