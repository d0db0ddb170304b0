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

from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar, cast

import anyio

from agentguard.errors import Refusal
from agentguard.evidence.runs import LiveRuns
from agentguard.evidence.vocabulary import Outcome, RecordKind
from agentguard.host.cancelled import is_stray
from agentguard.lifecycle.calls import LiveCalls
from agentguard.live.inforce import InForce
from agentguard.live.shadowing import Shadowing
from agentguard.model import Decision, Reason
from agentguard.policy.deciding.engine import never
from agentguard.steps.asking import Asking, is_own
from agentguard.steps.attending import Attending
from agentguard.steps.call import Denial
from agentguard.steps.counting import BUSY, MOST_TRIES, counted
from agentguard.steps.denying import Denying
from agentguard.steps.judging import Judging
from agentguard.steps.previewing import Previewing
from agentguard.steps.running import Contained, Ran
from agentguard.steps.stepping import allowed, answer, with_scopes_ever
from agentguard.steps.tallying import Tallying, origin_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from agentguard.approval import Approver
    from agentguard.evidence.trail import Trace, Trail
    from agentguard.lifecycle.store import Store
    from agentguard.limits import Limits
    from agentguard.model import Invocation
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.policy.deciding.entities import Loaders
    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.steps.asking import Answer
    from agentguard.steps.call import Call, Rule
    from agentguard.steps.counting import Outcome as Counted
    from agentguard.steps.judging import Judged

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What every decision is made with, fixed when the guard was built."""

    store: Store
    trail: Trail
    loaders: Loaders
    server: str
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
        self.trail = setting.trail
        self._live = LiveCalls(setting.store)
        self.attend = Attending(self._live, self._check_alive, self.refuse)
        self.tallying = Tallying(setting.store, clock=setting.clock, shared=setting.trail.shared)
        self._judging = Judging(
            loaders=setting.loaders,
            limits=setting.limits,
            environment=setting.environment,
            time_zone=setting.time_zone,
            clock=setting.clock,
            tallying=self.tallying,
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
        self._denying = Denying(self._runs)

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

            denied = self._denying.deny(trace, error, compared)
        await self._count(call, trace.invocation, denied.decision)
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
        decision = self._denying.deny(trace, why).decision
        if call is not None:
            await self._count(call, trace.invocation, decision)
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
        ran = Ran()
        scope = anyio.CancelScope()
        try:
            with scope:
                judged, contained = await self._admit(call, rule, arguments, scope, trace)
                # 7. Run. What the tool raises is withheld like what it returns.
                ran = await contained.run(body)
        except Denial as denial:
            await self._count(call, trace.invocation, denial.decision)
            answer(call, denial.decision)
            raise
        except BaseException:
            # The request was cancelled from outside: by the client, or the server's end.
            if trace.is_asked and trace.decision is None:
                # Nobody may bother people and leave no evidence of it.
                why = Refusal(Reason.APPROVAL_UNAVAILABLE, "the call was cancelled, and a person asked")
                await self._count(call, trace.invocation, self._denying.deny(trace, why).decision)
            else:
                trace.ended(Outcome.CANCELLED)
            raise
        finally:
            self._live.remove(trace.invocation, scope)
        if not ran.began:
            await self.tallying.give_back(judged.invocation, judged.change)
        # 8. Withhold, and 9. Outcome.
        self._denying.let_out(trace, ran, scope, self._end_of(trace.invocation))
        return cast("T", ran.result)

    async def _admit(
        self, call: Call, rule: Rule, arguments: Mapping[str, object], scope: anyio.CancelScope, trace: Trace
    ) -> tuple[Judged, Contained]:
        """Take steps 1 to 6: return what was counted, and what runs the tool if it may run, raise Denial if not."""
        trace.policies = self.in_force.policies
        try:
            await self._identify(call, scope, trace)

            async def again() -> Judged:
                # An answer to what other policies asked is for nothing: see `in_force`.
                call.policies = None
                await self._identify(call, scope, trace)
                return await self._judge(call, rule, arguments, trace, anew=True)

            answered, outcome = await self._decided(call, await self._judge(call, rule, arguments, trace), again, trace)
            for request, decision in outcome:
                trace.resource, trace.run, trace.above = request.resource, request.context["run"], request.runs[:-1]
                named = trace.decided(decision)
                self.shadow.judged(trace, request, named)
                if not named.allowed:
                    # What was not recorded is not asked either.
                    call.question = answered.question
                    raise self._denying.denial(trace, named)
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
            contained = Contained(self._s.trail, trace, invocation, call.token, rule.tool)
            allowed(call)
        except Denial:
            raise
        except BaseException as error:
            # The guard's edge: whatever went wrong, the call is denied.
            if isinstance(error, Exception) or is_stray(error):
                raise self._denying.deny(trace, error) from None
            raise
        return answered.judged, contained

    async def _decided(
        self, call: Call, judged: Judged, again: Callable[[], Awaitable[Judged]], trace: Trace
    ) -> tuple[Answer, Counted]:
        """Take step 5, and count the call by what its run has done when that is known for sure."""
        for _ in range(MOST_TRIES):
            # 5. Approval. Nobody is asked about what the run had done a while ago.
            if judged.liftable and not judged.tallied.rests_on(await self.tallying.fresh(judged.invocation)):
                judged = await again()
            answered = await self._asking.settle(call, judged, again, trace)
            # 6. Record: in the tallies first, so that what is on record has counted.
            outcome = await counted(
                self.tallying, answered.judged, answered.outcome, runs=not call.rehearse, answered=answered.final
            )
            if outcome is not None:
                return answered, outcome
            judged = await again()
        raise Refusal(Reason.STORE_UNAVAILABLE, BUSY)

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

    async def _judge(
        self, call: Call, rule: Rule, arguments: Mapping[str, object], trace: Trace, *, anew: bool = False
    ) -> Judged:
        """Take steps 3 and 4, by the policies that judge this call from start to end."""
        in_force = self.in_force
        own = is_own(call, rule)
        trace.policies = policies = in_force.pinned(call, rule.tool) if own else in_force.confirmed_policies()
        invocation = cast("Invocation", trace.invocation)
        if anew or (own and call.given is not None):
            # A person was asked about what the run had done then, at another server perhaps.
            await self.tallying.fresh(invocation)
        return await self._judging.judge(call, rule, arguments, invocation=invocation, policies=policies, trace=trace)

    @staticmethod
    def _check_open(call: Call) -> None:
        """Pass while the request is being answered; a task that outlives it has lost its identity.

        Raises:
            Refusal: UNAUTHENTICATED.
        """
        if not call.open:
            raise Refusal(Reason.UNAUTHENTICATED, "the request that brought the identity is over")

    async def _count(self, call: Call, invocation: Invocation | None, denial: Decision) -> None:
        """Count a denial for its run; a question is none."""
        if invocation is not None and denial.reason is not Reason.APPROVAL_REQUIRED and not call.rehearse:
            await self.tallying.denied(invocation, server=self._s.server, origin=origin_of(call, invocation))

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
