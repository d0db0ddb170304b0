"""The way of a call: the one place that orders the steps.

    1  identity     verify who calls; register the call, then check that its run lives
    2  preflight    could this principal ever be allowed this?
    3  request      the values that the tool will get, as Cedar sees them
    4  decide       every link of the delegation chain
    5  approval     a person, where every matching forbid asks for one
    6  record       no evidence, no action; then check once more that the run lives
    7  run          under a cancel scope that ends with the run
    8  withhold     what comes out after the run ended
    9  outcome      what became of it

Step 2 is `Enforcer.preflight`, which an adapter calls before the framework looks at the
arguments; the others are `Enforcer.enforce`, around the tool's own function. This module
knows no framework: an adapter describes a request as a `Call`. Every unexpected exception
in steps 1 to 6 is a denial. There is no switch that turns a step off.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar, cast

import anyio

from agentguard.asking import Asking, is_own
from agentguard.attending import Attending
from agentguard.call import Denial
from agentguard.cancelled import is_stray
from agentguard.errors import Refusal, raised
from agentguard.evidence.runs import LiveRuns
from agentguard.evidence.vocabulary import Outcome, RecordKind
from agentguard.inforce import InForce
from agentguard.judging import Judging
from agentguard.lifecycle.calls import LiveCalls
from agentguard.model import Decision, Effect, Reason
from agentguard.policy.engine import never
from agentguard.previewing import Previewing
from agentguard.shadowing import Shadowing
from agentguard.stepping import allowed, answer, with_scopes_ever

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from agentguard.approval import Approver
    from agentguard.call import Call, Rule
    from agentguard.evidence.trail import Trace, Trail
    from agentguard.judging import Judged
    from agentguard.lifecycle.store import Store
    from agentguard.limits import Limits
    from agentguard.model import Invocation
    from agentguard.policy.engine import PolicySet
    from agentguard.policy.entities import Loaders
    from agentguard.policy.schema import GuardedTool

T = TypeVar("T")

_LOG: Final = logging.getLogger("agentguard")

_CURRENT: Final[ContextVar[Invocation | None]] = ContextVar("agentguard_invocation", default=None)


def current_invocation() -> Invocation:
    """Return the verified identity on whose behalf the running tool was called.

    Raises:
        LookupError: If no guarded tool is running here.
    """
    invocation = _CURRENT.get()
    if invocation is None:
        message = "no guarded tool is running here"
        raise LookupError(message)
    return invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every decision is made with, fixed when the guard was built."""

    store: Store
    trail: Trail
    loaders: Loaders
    limits: Limits
    environment: str
    time_zone: ZoneInfo
    clock: Callable[[], float]
    approver: Approver | None = None
    prefixes: tuple[str, ...] = ("",)


class Enforcer:
    """Judges each call by one policy set, from start to end, and runs it if it may run."""

    def __init__(self, setting: Setting, policies: PolicySet) -> None:
        self._s = setting
        self.in_force = InForce(policies, trail=setting.trail, clock=setting.clock)
        self.shadow = Shadowing()
        self.store = setting.store
        self._live = LiveCalls(setting.store)
        self.attend = Attending(self._live, self._check_alive, self.refuse)
        self._judging = Judging(
            loaders=setting.loaders,
            limits=setting.limits,
            environment=setting.environment,
            time_zone=setting.time_zone,
            clock=setting.clock,
        )
        self.preview = Previewing(self._judging, self._check_alive, self.refuse, lambda: self.in_force.trusted)
        self._asking = Asking(
            self._judging,
            approver=setting.approver,
            prefixes=setting.prefixes,
            store=setting.store,
            limits=setting.limits,
            clock=setting.clock,
            entropy=setting.trail.entropy,
        )
        self._runs = LiveRuns(
            store=setting.store,
            keep=partial(setting.trail.keep, RecordKind.RUN),
            clock=setting.clock,
            limits=setting.limits,
            spans=setting.trail.spans,
        )

    async def preflight(self, call: Call, action: str, tool: GuardedTool | Refusal) -> None:
        """Deny, before an argument is looked at, what no argument could make allowed.

        Args:
            call: The request.
            action: The action that the caller named.
            tool: What it names, or why that is nothing guarded: for the log and no caller.

        Raises:
            Denial: In the same words for what is never allowed, what is not
                guarded and what does not exist.
        """
        invocation: Invocation | None = None
        entities: Sequence[Mapping[str, object]] = ()
        try:
            # 1. Identity.
            invocation = await call.identify()
            self._check_alive(invocation)
            # 2. Preflight.
            policies = self.in_force.pinned(call)
            if isinstance(tool, Refusal):
                raise tool
            wanted = self._judging.principal(invocation)
            if wanted:
                entities = await self._s.loaders.load(wanted, known=policies.static_uids, tool=None)
            denial = never(invocation, action, policies, entities)
            if denial is None:
                return
            # The caller's words are those for a tool that does not exist; the record has the policies.
            raise Denial(with_scopes_ever(replace(denial, advice=None), invocation, action, policies, entities))
        except Exception as error:  # noqa: BLE001  the guard's edge: whatever went wrong, the call is denied
            trace = self._s.trail.begin(action, call.facts, known=not isinstance(tool, Refusal))
            trace.invocation, trace.policies = invocation, call.policies or self.in_force.policies

            by_policies = isinstance(error, Denial)

            def compared(denial: Decision) -> None:
                if invocation is not None and by_policies:
                    self.shadow.refused(trace, invocation, action, entities, denial)

            denied = self._deny(trace, error, compared)
        answer(call, denied.decision)
        raise denied

    async def refuse(self, call: Call | None, action: str, refusal: Refusal, *, known: bool = True) -> Decision:
        """Record a denial that comes before any guarded function, or in place of one.

        Args:
            call: The request, if there is one.
            action: The name that the caller gave.
            refusal: Why; a caller whose identity ended meanwhile is told that instead.
            known: Whether the name is one of the server's guarded tools.
        """
        trace = self._s.trail.begin(action, {} if call is None else call.facts, known=known)
        trace.policies = (None if call is None else call.policies) or self.in_force.policies
        why: Exception = refusal
        try:
            trace.invocation = None if call is None else await call.identify()
        except Exception as error:  # noqa: BLE001  the guard's edge: whatever went wrong, the call is denied
            why = error
        decision = self._deny(trace, why).decision
        answer(call, decision)
        return decision

    async def enforce(
        self, call: Call, rule: Rule, arguments: Mapping[str, object], body: Callable[[], Awaitable[T]]
    ) -> T:
        """Judge one call on *arguments*, and await *body* if it is allowed.

        Args:
            call: The request that this call is part of.
            rule: The guarded tool.
            arguments: The validated arguments, by name, exactly as *body* will use them.
            body: The tool, and all that has to run for it alone.

        Raises:
            Denial: Nothing of the tool ran, or its result is withheld.
            Exception: Whatever *body* raises.
        """
        trace = self._s.trail.begin(rule.tool.name, call.facts)
        result: T | None = None
        failure: Exception | None = None
        scope = anyio.CancelScope()
        try:
            with scope:
                await self._admit(call, rule, arguments, scope, trace)
                # 7. Run. What the tool raises is withheld like what it returns.
                running = _CURRENT.set(trace.invocation)
                try:
                    with trace.execution():
                        result = await body()
                except Exception as raised:  # noqa: BLE001  raised again in step 9
                    failure = raised
                except BaseException as raised:
                    if not is_stray(raised):
                        raise
                    failure = RuntimeError("the tool waited for something that was cancelled")
                finally:
                    _CURRENT.reset(running)
        except Denial as denial:
            answer(call, denial.decision)
            raise
        except BaseException:
            # The request was cancelled from outside: by the client, or the server's end.
            if trace.is_asked and trace.decision is None:
                # Nobody may bother people and leave no evidence of it.
                self._deny(trace, Refusal(Reason.APPROVAL_UNAVAILABLE, "the call was cancelled, and a person asked"))
            else:
                trace.ended(Outcome.CANCELLED)
            raise
        finally:
            self._live.remove(trace.invocation, scope)
        # 8. Withhold. A tool that swallows its cancellation, or runs in a thread, may have
        # had its effect all the same; the record says so.
        end = self._end_of(trace.invocation)
        if scope.cancel_called or end is not None:
            outcome = Outcome.CANCELLED if scope.cancelled_caught else Outcome.WITHHELD
            error = end or Refusal(Reason.EXPIRED)
            if trace.decision is None:
                # It ended while it was still being judged.
                raise self._deny(trace, error)
            raise self._end(trace, trace.decision, error, outcome)
        # 9. Record the outcome.
        if failure is not None:
            trace.ended(Outcome.FAILED, error=failure)
            raise failure
        trace.ended(Outcome.COMPLETED)
        return cast("T", result)

    async def _admit(
        self, call: Call, rule: Rule, arguments: Mapping[str, object], scope: anyio.CancelScope, trace: Trace
    ) -> None:
        """Take steps 1 to 6: return if the tool may run, raise Denial if not."""
        trace.policies = self.in_force.policies
        try:
            await self._identify(call, scope, trace)
            judged = await self._judge(call, rule, arguments, trace)

            async def again() -> Judged:
                # An answer to what other policies asked is for nothing: see `in_force`.
                call.policies = None
                await self._identify(call, scope, trace)
                return await self._judge(call, rule, arguments, trace)

            # 5. Approval.
            answered = await self._asking.settle(call, judged, again, trace)
            # 6. Record.
            for request, decision in answered.outcome:
                trace.resource = request.resource
                named = trace.decided(decision)
                self.shadow.judged(trace, request, named)
                if not named.allowed:
                    # What was not recorded is not asked either.
                    call.question = answered.question
                    raise self._denial(trace, named)
            await trace.settled()
            trace.close()
            self._check_alive(trace.invocation)
            self._check_open(call)
            # That the run is active now is evidence too; without it nothing runs.
            invocation = cast("Invocation", trace.invocation)
            self._runs.used(invocation, trace.span)
            self._s.store.used(invocation)
            if is_own(call, rule):
                call.approved = answered.approved
            allowed(call)
        except Denial:
            raise
        except BaseException as error:
            # The guard's edge: whatever went wrong, the call is denied.
            if isinstance(error, Exception) or is_stray(error):
                raise self._deny(trace, error) from None
            raise

    async def _identify(self, call: Call, scope: anyio.CancelScope, trace: Trace) -> None:
        """Take step 1, and register the call under its run.

        Raises:
            Refusal: It has no identity, or one whose run is over.
        """
        self._check_open(call)
        # 1. Identity.
        invocation = await call.identify()
        # The second time, another token of the same run may have come.
        self._live.remove(trace.invocation, scope)
        trace.invocation = invocation
        self._live.add(invocation, scope)
        now = self._check_alive(invocation)
        scope.deadline = anyio.current_time() + (invocation.ends_at - now)

    async def _judge(self, call: Call, rule: Rule, arguments: Mapping[str, object], trace: Trace) -> Judged:
        """Take steps 3 and 4, by the policies that judge this call from start to end."""
        in_force = self.in_force
        own = is_own(call, rule)
        trace.policies = policies = in_force.pinned(call, rule.tool) if own else in_force.confirmed_policies()
        invocation = cast("Invocation", trace.invocation)
        return await self._judging.judge(call, rule, arguments, invocation=invocation, policies=policies, trace=trace)

    @staticmethod
    def _check_open(call: Call) -> None:
        """Pass while the request is being answered; a task that outlives it has lost its identity.

        Raises:
            Refusal: UNAUTHENTICATED.
        """
        if not call.open:
            raise Refusal(Reason.UNAUTHENTICATED, "the request that brought the identity is over")

    def _check_alive(self, invocation: Invocation | None) -> float:
        """Return the time now, if the run and every run above it lives.

        Raises:
            Refusal: EXPIRED, REVOKED or STORE_UNAVAILABLE.
        """
        now = self._s.clock()
        if invocation is None or not now < invocation.ends_at:
            raise Refusal(Reason.EXPIRED)
        self._s.store.require_healthy()
        if self._s.store.ended(invocation):
            raise Refusal(Reason.REVOKED)
        return now

    def _end_of(self, invocation: Invocation | None) -> Exception | None:
        """Return why the result may not be handed out; doubt is a reason."""
        try:
            self._check_alive(invocation)
        except Exception as error:  # noqa: BLE001  a store that fails must not let a result out
            return error
        return None

    def _deny(self, trace: Trace, error: BaseException, recorded: Callable[[Decision], None] | None = None) -> Denial:
        """Return the recorded denial that *error* amounts to; *recorded* is told of it, before its span ends."""
        if trace.decision is not None:
            # It was allowed and recorded, and ended before the tool began.
            return self._end(trace, trace.decision, error, Outcome.CANCELLED)
        denial = error.decision if isinstance(error, Denial) else _decision_of(error)
        try:
            named = trace.decided(denial)
        except Exception as unrecorded:  # noqa: BLE001  a denial stands, recorded or not
            errors = _decision_of(unrecorded).errors
            named = trace.unrecorded(
                Decision(effect=Effect.DENY, reason=Reason.EVIDENCE_UNAVAILABLE, errors=(*denial.errors, *errors))
            )
        else:
            if recorded is not None:
                recorded(named)
        return self._denial(trace, named)

    def _denial(self, trace: Trace, named: Decision) -> Denial:
        """Return the denial of what was decided, and count it for its run."""
        trace.close()
        self._runs.denied(trace.invocation, trace.span)
        return Denial(named)

    def _end(self, trace: Trace, decision: Decision, error: BaseException, outcome: Outcome) -> Denial:
        """Return the denial of a call that was allowed, under the id of its decision."""
        end = _decision_of(error)
        trace.ended(outcome, reason=end.reason)
        return Denial(replace(end, id=decision.id, policy_version=decision.policy_version))


def _decision_of(error: BaseException) -> Decision:
    """Return the denial that *error* amounts to; what nobody expected is logged."""
    if isinstance(error, Refusal):
        return Decision(effect=Effect.DENY, reason=error.reason, errors=(error.detail,) if error.detail else ())
    what = raised(error)
    _LOG.error("a call is denied, because %s", what)
    return Decision(effect=Effect.DENY, reason=Reason.INTERNAL_ERROR, errors=(what,))
