"""Where every call of a guarded function passes, whichever framework made it."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from anyio.lowlevel import checkpoint

from agentguard.adapters.answers import Rehearsed, UnjudgedDenial
from agentguard.credentials.broker import CredentialRequest
from agentguard.errors import AccessDenied, Refusal
from agentguard.guarding.guarded import direct_call
from agentguard.guarding.raw import snapshot
from agentguard.model import Decision, Effect, Reason
from agentguard.steps.call import ACTING, Call, Denial
from agentguard.steps.running import running

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextvars import ContextVar

    from agentguard.adapters.lowlevel import LowLevelSurface, Result
    from agentguard.credentials.credential import Credential
    from agentguard.credentials.leases import Leases
    from agentguard.enforce import Enforcer
    from agentguard.guarding.guarded import GuardedFunction
    from agentguard.guarding.raw import Body, RawTool
    from agentguard.steps.call import Rule

_LOG: Final = logging.getLogger("agentguard")


@dataclass(frozen=True, slots=True)
class Lender:
    """Where credentials come from, and how it is judged who gets one."""

    leases: Leases
    rule: Rule


class Gate:
    """The way into the guarded functions of one guard.

    Attributes:
        current: The request that is being answered here.
        enforcer: What judges; None until the guard is attached.
        lowlevel: The server, where it is a low-level one.
        lender: Where credentials come from, if anywhere.
    """

    def __init__(self, current: ContextVar[Call | None]) -> None:
        self.current = current
        self.enforcer: Enforcer | None = None
        self.lowlevel: LowLevelSurface | None = None
        self.lender: Lender | None = None

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
        return await self._judged(
            self.enforcer,
            call,
            guarded.rule,
            lambda: guarded.named(args, kwargs),
            lambda arguments: guarded.run(args, kwargs, arguments),
        )

    async def enter_raw(self, tool: RawTool, arguments: object, body: Body) -> Any:
        """Answer one call of a tool that has no function within reach."""
        call, enforcer = self.current.get(), self.enforcer
        if enforcer is None or call is None:
            _LOG.error("denied: tool `%s` was called outside of any request", tool.rule.tool.name)
            raise UnjudgedDenial(Decision(effect=Effect.DENY, reason=Reason.UNAUTHENTICATED))
        return await self._judged(enforcer, call, tool.rule, lambda: snapshot(arguments), body)

    async def call(self, name: str, arguments: Mapping[str, Any] | None) -> Result:
        """Call the guarded function of a low-level server's tool, from the server's own handler."""
        call, enforcer = self.current.get(), self.enforcer
        if enforcer is None or self.lowlevel is None:
            _LOG.error("denied: guard.call is for a low-level server: attach it with guard.attach(server, tools=…)")
            raise UnjudgedDenial(Decision(effect=Effect.DENY, reason=Reason.UNAUTHENTICATED))
        return await self.lowlevel.call(
            call,
            name,
            arguments,
            lambda refusal: enforcer.refuse(call, name, refusal, known=refusal.reason is not Reason.UNGUARDED),
        )

    async def credential(self, name: str) -> Credential:
        """Get a credential for the tool that is running, if policies allow it.

        Raises:
            AccessDenied: If they do not, or none can be had.
            LookupError: If no guarded tool ran here.
        """
        asking, call, lender = running(), self.current.get(), self.lender
        if self.enforcer is None or call is None or lender is None:
            _LOG.error("denied: credential `%s` was asked for outside of any request", name)
            raise UnjudgedDenial(Decision(effect=Effect.DENY, reason=Reason.UNAUTHENTICATED))
        if call.open and not call.depth:
            # What outlives the tool has its context, and is nothing that was allowed.
            over = Refusal(Reason.UNAUTHENTICATED, f"`{asking.action}`, which asks for credential `{name}`, is over")
            raise call.answers.denied_nested(await self.enforcer.refuse(call, lender.rule.tool.name, over))
        wanted = {"credential": name, "tool": asking.action}

        async def lend(_: Mapping[str, object]) -> Credential:
            invocation = running().invocation
            request = CredentialRequest(
                name=name,
                invocation=invocation,
                token=call.token or "",
                server=lender.rule.tool.server,
                tool=asking.action,
                until=float(invocation.run_ends_at),
            )
            return await lender.leases.lease(request)

        lent: Credential = await self._judged(self.enforcer, call, lender.rule, lambda: wanted, lend)
        return lent

    async def _judged(
        self,
        enforcer: Enforcer,
        call: Call,
        rule: Rule,
        read: Callable[[], dict[str, Any]],
        run: Body,
    ) -> Any:
        """Judge what *read* gives, and *run* with it.

        Raises:
            Rehearsed: It would have run, and was not to.
        """
        outermost = call.open and call.depth == 0
        # A validator may call guarded functions too: that is not yet the tool itself.
        call.entered |= rule is call.rule
        call.depth += 1
        try:
            try:
                arguments = read()
            except Refusal as refusal:
                raise Denial(await enforcer.refuse(call, rule.tool.name, refusal)) from None
            if not call.rehearse:
                return await enforcer.enforce(call, rule, arguments, lambda: run(arguments))
            await enforcer.enforce(call, rule, arguments, checkpoint)
            call.rehearsed |= rule is call.rule
            raise Rehearsed
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
            return "but its server does not have it: register it before guard.attach(server)"
        return "outside of any request: in a test, use agentguard.testing.acting_as"
