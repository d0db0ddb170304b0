"""Resources and prompts: reading and getting them, completing their arguments, subscribing.

What is guarded is judged by its own function, as a tool is. What nobody guards is judged
by the action that is the method itself, on the URI or the name. Either way also from
inside the process, where no message passes that could be stopped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final
from urllib.parse import unquote

from agentguard.adapters.again import while_allowed
from agentguard.adapters.answers import ErrorAnswers, protocol_denial
from agentguard.adapters.misfit import UNFIT, has_no_escapes, hearing, unfit
from agentguard.adapters.surface import Offer
from agentguard.errors import Refusal
from agentguard.guarding.guarded import direct_call
from agentguard.model import Reason
from agentguard.policy.schemas.schema import METHODS
from agentguard.steps.call import ACTING, Denial
from agentguard.steps.denial import told

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextvars import ContextVar
    from typing import NoReturn

    from mcp.server.context import CallNext, HandlerResult

    from agentguard.adapters.mcp import Handler
    from agentguard.adapters.misfit import Heard
    from agentguard.adapters.surface import Context
    from agentguard.enforce import Enforcer
    from agentguard.guarding.rulebook import Rulebook
    from agentguard.limits import Limits
    from agentguard.model import Decision
    from agentguard.steps.call import Call

_REFERENCES: Final = {"ref/prompt": (Offer.PROMPT, "name"), "ref/resource": (Offer.RESOURCE, "uri")}


class Reading:
    """How the methods of resources and prompts are judged.

    Attributes:
        handlers: The handler of each, by the method.
    """

    def __init__(self, book: Rulebook, enforcer: Enforcer, *, current: ContextVar[Call | None], limits: Limits) -> None:
        self._book = book
        self._enforcer = enforcer
        self._current = current
        self._limits = limits
        self.handlers: Mapping[str, Handler] = {
            Offer.RESOURCE: self._use,
            Offer.PROMPT: self._use,
            "completion/complete": self._complete,
            "resources/subscribe": self._subscribe,
            "resources/unsubscribe": self._subscribe,
            "subscriptions/listen": self._listen,
        }

    async def inside(self, offer: Offer, named: str) -> None:
        """Judge what is read or got from inside the process, unless its own function does.

        Raises:
            AccessDenied: It may not be.
        """
        if self._book.rule(offer, named) is not None:
            return
        call, acting = self._current.get(), ACTING.get()
        if call is None and acting is not None:
            call = direct_call(acting)
        if call is None:
            refusal = Refusal(Reason.UNAUTHENTICATED, f"`{named}` was used outside of any request")
            decision = await self._enforcer.refuse(None, offer, refusal)
        elif call.open and call.judged == (offer, named):
            # It is what the request itself asks for.
            return
        else:
            # A question about it would be no answer to the request, and an answer none to it.
            call.depth += 1
            try:
                await self._enforcer.enforce(call, self._book.methods[offer], _arguments(offer, named), _nothing)
            except Denial as denial:
                decision = denial.decision
            else:
                return
            finally:
                call.depth -= 1
        raise self._book.surface.answers.denied_nested(decision)

    async def _use(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        """Answer `resources/read` or `prompts/get`."""
        offer = Offer(ctx.method)
        named = (ctx.params or {}).get(METHODS[offer])
        rule = self._book.rule(offer, named) if isinstance(named, str) else None
        if rule is None:
            return await self._plain(call, offer, named, lambda: call_next(ctx))
        call.rule, call.answers = rule, (answers := ErrorAnswers(self._book.surface.answers))
        try:
            await self._enforcer.preflight(call, rule.tool.name, rule.tool)
        except Denial as denial:
            await self._hide(call, offer, str(named), denial.decision)
        with hearing() as heard:
            result = await self._run(ctx, call, answers, call_next, heard)
        # Frameworks wrap what a function raises: what was decided counts, and not what became of it.
        if answers.decision is None and (call.rehearsed if call.rehearse else call.entered):
            return result
        # No guarded function was reached, so whatever this is, nobody decided on it.
        refusal = unfit(rule.tool, heard)
        raise protocol_denial(answers.decision or await self._enforcer.refuse(call, rule.tool.name, refusal))

    async def _run(
        self, ctx: Context, call: Call, answers: ErrorAnswers, call_next: CallNext, heard: Heard
    ) -> HandlerResult:
        """Run what is guarded; without a result where it was not reached, or was denied."""
        if not has_no_escapes((ctx.params or {}).get("arguments"), self._limits):
            return None
        try:
            return await call_next(ctx)
        except Exception as error:
            # What the function raises is its own; what validation raises would tell the schema.
            if answers.decision is None and call.entered and not call.rehearse:
                raise
            heard.append(error)
            return None

    async def _hide(self, call: Call, offer: Offer, named: str, decision: Decision) -> NoReturn:
        """Answer as if there were no such thing, as far as the caller may know of things at all.

        Raises:
            MCPError: The denial; or what the framework says of something that it does not have.
        """
        absent = self._book.surface.absent(offer, named)

        async def nothing_there() -> NoReturn:
            raise absent

        if told(decision).meta["reason"] == "denied" and not decision.scopes and not call.rehearse:
            await self._plain(call, offer, named, nothing_there)
        raise protocol_denial(decision)

    async def _plain(
        self, call: Call, offer: Offer, named: object, body: Callable[[], Awaitable[HandlerResult]]
    ) -> HandlerResult:
        """Judge what nobody guards, and answer by *body*."""
        if isinstance(named, str):
            call.judged = (offer, named)
        # What the handler calls in turn is nested in it.
        call.depth += 1
        try:
            return await self._enforcer.enforce(
                call,
                self._book.methods[offer],
                _arguments(offer, named),
                _nothing if call.rehearse else body,
            )
        except Denial as denial:
            raise protocol_denial(denial.decision) from None

    async def _complete(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        """Complete an argument of what the caller could ever use; of all else, it is as if it did not exist."""
        reference = (ctx.params or {}).get("ref")
        reference = reference if isinstance(reference, dict) else {}
        offer, argument = _REFERENCES.get(str(reference.get("type")), _REFERENCES["ref/prompt"])
        named = str(reference.get(argument))
        surface = self._book.surface
        # A template goes by its own text, which an earlier template may match as if it were a URI.
        key = named if surface.knows(offer, named) else surface.key(offer, named)
        rule = self._book.rule_of(offer, key)
        known = rule is not None or surface.knows(offer, key)
        tool = (rule or self._book.methods[offer]).tool
        try:
            refusal = Refusal(Reason.UNGUARDED, f"the server has no {offer.word} of this name")
            await self._enforcer.preflight(call, tool.name, tool if known else refusal)
        except Denial as denial:
            raise protocol_denial(denial.decision) from None
        return await self._attend(ctx, call, call_next)

    async def _subscribe(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        """Let those subscribe to a resource, and unsubscribe, who may read it."""
        await self._rehearse(ctx, call, (ctx.params or {}).get("uri"), call_next)
        return await self._attend(ctx, call, call_next)

    async def _listen(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        """Let those listen for a resource who may read it, for as long as they may, and as their run lasts."""
        notifications = (ctx.params or {}).get("notifications")
        uris = notifications.get("resourceSubscriptions") if isinstance(notifications, dict) else None
        uris = [] if uris is None else uris
        if not isinstance(uris, list) or len(uris) > self._limits.entities_per_request:
            raise protocol_denial(await self._enforcer.refuse(call, ctx.method, UNFIT))
        if not uris:
            return await self._attend(ctx, call, call_next)

        async def judge() -> None:
            # All by one version, and each time by the one that is in force then.
            judging = replace(call, policies=self._enforcer.in_force.policies)
            for uri in uris:
                await self._rehearse(ctx, judging, uri, call_next)

        return await while_allowed(self._enforcer.in_force, judge, lambda: self._attend(ctx, call, call_next))

    async def _rehearse(self, ctx: Context, call: Call, uri: object, call_next: CallNext) -> None:
        """Decide as if *uri* were read, by the way that this goes, and run nothing.

        Raises:
            MCPError: It may not be read.
        """
        rehearsal = replace(call, rehearse=True)
        params = {"uri": uri, **{key: value for key, value in (ctx.params or {}).items() if key == "_meta"}}
        outer = self._current.set(rehearsal)
        try:
            await self._use(replace(ctx, method=Offer.RESOURCE.value, params=params), rehearsal, call_next)
        finally:
            rehearsal.close()
            self._current.reset(outer)

    async def _attend(self, ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
        call.depth += 1
        try:
            return await self._enforcer.attend(call, ctx.method, lambda _: call_next(ctx))
        except Denial as denial:
            raise protocol_denial(denial.decision) from None


def _arguments(offer: Offer, named: object) -> dict[str, object]:
    """Return what the action of a method is judged on."""
    # The SDK decodes what it takes out of a URI, so what is judged is decoded too.
    judged = unquote(named) if offer is Offer.RESOURCE and isinstance(named, str) else named
    return {METHODS[offer]: judged}


async def _nothing() -> None:
    """Run in place of what is only judged."""
