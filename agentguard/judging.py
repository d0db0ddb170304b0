"""Steps 3 and 4 of a call: what Cedar is asked about it, and the decision on each resource."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from agentguard.approval import binding_of
from agentguard.errors import Refusal
from agentguard.model import AccessRequest, Reason
from agentguard.policy.engine import decide
from agentguard.policy.values import check_readings, to_cedar
from agentguard.request import agent_uid, base_context, task_uid, user_uid
from agentguard.stepping import with_scopes

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from agentguard.approval import Approved
    from agentguard.call import Call, Rule
    from agentguard.evidence.trail import Trace
    from agentguard.limits import Limits
    from agentguard.model import Decision, EntityUid, Invocation
    from agentguard.policy.engine import PolicySet
    from agentguard.policy.entities import Loaders


def _recorded(rule: Rule, judged: object, private: Collection[str]) -> dict[str, object] | None:
    """Return the arguments that the evidence keeps, as they were judged: None for one that the call does not have."""
    if not rule.record_inputs or not isinstance(judged, dict):
        return None
    names = rule.resource
    # What is kept as a digest where it is the resource's id must not stand in clear beside it.
    hidden = {names.argument} if names is not None and names.type in private else set()
    return {name: judged.get(name) for name in rule.record_inputs if name not in hidden}


def is_liftable(decision: Decision) -> bool:
    """Return whether a person could lift all that denies it: the engine itself has nobody to ask."""
    return decision.reason is Reason.APPROVAL_UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A call, judged on each resource up to the first that is denied for good.

    Attributes:
        rule: What was called.
        policies: What it was judged by.
        judged: The request for each resource, and its decision.
    """

    rule: Rule
    policies: PolicySet
    judged: tuple[tuple[AccessRequest, Decision], ...]

    @property
    def invocation(self) -> Invocation:
        """For whom."""
        return self.judged[0][0].invocation

    @property
    def allowed(self) -> bool:
        """Whether it is allowed on every resource."""
        return all(decision.allowed for _, decision in self.judged)

    @property
    def liftable(self) -> bool:
        """Whether a person could lift all that denies it."""
        return not self.allowed and all(decision.allowed or is_liftable(decision) for _, decision in self.judged)

    @property
    def outcome(self) -> list[tuple[AccessRequest, Decision]]:
        """What there is to record: every allow, or one denial, before all one that no person can lift."""
        denied = [one for one in self.judged if not one[1].allowed]
        hard = [one for one in denied if not is_liftable(one[1])]
        return (hard or denied)[:1] or list(self.judged)

    @property
    def forbids(self) -> tuple[str, ...]:
        """The ids of all policies that an approval would lift."""
        return tuple(sorted({id_ for _, one in self.judged if not one.allowed for id_ in one.policy_ids}))

    @property
    def binding(self) -> str:
        """What an approval of it is bound to."""
        requests = (request for request, _ in self.judged)
        server, version = self.rule.tool.server, self.policies.version
        return binding_of(requests, server=server, forbids=self.forbids, policy_version=version)

    def with_approval(self, approved: Approved, known: Sequence[Mapping[str, object]] = ()) -> Judged:
        """Return it judged again, on the same, with an approval.

        Args:
            approved: The approval.
            known: What loaders know of whoever gave it. What was judged stays as it was.
        """
        judged = []
        for request, _ in self.judged:
            present = [entity["uid"] for entity in request.entities]
            more = (entity for entity in known if entity["uid"] not in present)
            context = {**request.context, "approval": approved.as_context()}
            asked = replace(request, context=context, entities=(*request.entities, *more))
            judged.append((asked, decide(asked, self.policies)))
        return replace(self, judged=tuple(judged))


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """What every request is made with, fixed when the guard was built."""

    loaders: Loaders
    limits: Limits
    environment: str
    time_zone: ZoneInfo
    clock: Callable[[], float]

    async def judge(
        self,
        call: Call,
        rule: Rule,
        arguments: Mapping[str, object],
        *,
        invocation: Invocation,
        policies: PolicySet,
        trace: Trace,
    ) -> Judged:
        """Take steps 3 and 4: judge a call of *invocation* on *arguments* by *policies*.

        Raises:
            Refusal: It cannot be judged.
        """
        # 3. Request.
        now = self.clock()
        context = self._context(call, rule, arguments, now)
        trace.came_by(call.transport, now)
        trace.input = context["input"]
        trace.inputs = _recorded(rule, context["input"], trace.private)
        # An argument that names several entities makes a request for each.
        uids = (rule.tool.itself,) if rule.resource is None else rule.resource.uids(arguments, self.limits)
        check_readings(context, len(uids) * len(invocation.chain), self.limits)

        async def request(resource: EntityUid) -> AccessRequest:
            entities = await self._entities(rule, resource, invocation, policies)
            return AccessRequest(
                invocation=invocation, action=rule.tool.name, resource=resource, context=context, entities=entities
            )

        judged: list[tuple[AccessRequest, Decision]] = []
        for place, resource in enumerate(uids):
            if judged:
                # Many may take a while, and the run may end meanwhile.
                await checkpoint()
            trace.resource = resource
            asked = await request(resource)
            # 4. Decide.
            decision = decide(asked, policies)
            if decision.allowed or is_liftable(decision):
                judged.append((asked, decision))
                continue
            requests = [*(earlier for earlier, _ in judged), asked]
            rest = [partial(request, uid) for uid in uids[place + 1 :]]
            denial = await with_scopes(decision, call, rule, requests, policies, rest=rest)
            judged.append((asked, denial))
            break
        return Judged(rule=rule, policies=policies, judged=tuple(judged))

    async def lift(self, judged: Judged, approved: Approved) -> Judged:
        """Return a call judged again with an approval.

        Raises:
            Refusal: MISSING_ENTITY, if a loader does not know who gave it.
        """
        known: tuple[dict[str, object], ...] = ()
        if approved.user is not None and approved.user.type in self.loaders.types:
            known = await self.loaders.load((approved.user,), known=judged.policies.static_uids, tool=None)
        return judged.with_approval(approved, known)

    def principal(self, invocation: Invocation) -> list[EntityUid]:
        """Return the chain's agents, users and tasks, where a loader knows their types."""
        types = self.loaders.types & {"Agent", "User", "Task"}
        if not types:
            return []
        uids = [uid for link in invocation.chain for uid in (agent_uid(link), user_uid(link), task_uid(link))]
        return [uid for uid in uids if uid is not None and uid.type in types]

    def _context(self, call: Call, rule: Rule, arguments: Mapping[str, object], now: float) -> dict[str, object]:
        """Return ``context``, with the arguments as they are now: what comes later cannot change it."""
        context = base_context(now, self.time_zone, self.environment, call.transport)
        context["input"] = to_cedar(arguments, rule.tool.input, self.limits)
        if rule.facts is not None and rule.tool.facts is not None:
            # Copies: what the function does to its arguments must not reach the tool.
            own = {name: copy.deepcopy(arguments[name]) for name in rule.facts_arguments}
            try:
                facts = rule.facts(**own)
            except Exception as error:  # noqa: BLE001  the developer's function; whatever it raises denies
                detail = f"the facts of `{rule.tool.name}` raised {type(error).__qualname__}"
                raise Refusal(Reason.INVALID_ARGUMENT, detail) from None
            context["facts"] = to_cedar(facts, rule.tool.facts, self.limits)
        return context

    async def _entities(
        self, rule: Rule, resource: EntityUid, invocation: Invocation, policies: PolicySet
    ) -> tuple[dict[str, object], ...]:
        """Return what loaders know of the resource and of the principal."""
        wanted = self.principal(invocation)
        known, load = policies.static_uids, self.loaders.load
        if rule.resource is None:
            return await load(wanted, known=known, tool=None) if wanted else ()
        # One that is the principal's and the resource too is loaded once.
        return await load((resource, *wanted), known=known, tool=rule.tool.itself)
