"""Steps 3 and 4 of a call: what Cedar is asked about it, and the decision on each resource."""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from anyio.lowlevel import checkpoint

from agentguard.approval import CLIENT, binding_of
from agentguard.errors import Refusal
from agentguard.lifecycle.tally import Change
from agentguard.model import AccessRequest, Effect, Reason
from agentguard.policy.conversion.values import check_readings, to_cedar
from agentguard.policy.deciding.engine import decide
from agentguard.policy.deciding.lifting import might_lift
from agentguard.policy.schemas.schema import CREDENTIALS
from agentguard.request import agent_uid, base_context, task_uid, user_uid
from agentguard.steps.stepping import with_scopes
from agentguard.steps.tallying import Tallied, origin_of, spent_by

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from zoneinfo import ZoneInfo

    from agentguard.approval import Approved
    from agentguard.evidence.trail import Trace
    from agentguard.lifecycle.tally import Tally
    from agentguard.limits import Limits
    from agentguard.model import Decision, EntityUid, Invocation
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.policy.deciding.entities import Loaders
    from agentguard.steps.call import Call, Rule
    from agentguard.steps.tallying import Tallying


def _recorded(rule: Rule, judged: object, private: Collection[str]) -> dict[str, object] | None:
    """Return the arguments that the evidence keeps, as they were judged: None for one that the call does not have."""
    if not rule.record_inputs or not isinstance(judged, dict):
        return None
    names = rule.resource
    # What is kept as a digest where it is the resource's id must not stand in clear beside it.
    hidden = {names.argument} if names is not None and names.type in private else set()
    return {name: judged.get(name) for name in rule.record_inputs if name not in hidden}


def _of_links(records: tuple[dict[str, object], ...]) -> tuple[dict[str, object], ...]:
    """Return what each link is judged by; nothing where the request's own context has it already."""
    return records if len(records) > 1 else ()


def _with_records(request: AccessRequest, records: tuple[dict[str, object], ...]) -> AccessRequest:
    """Return a request with what the run, and each link of the chain, has done by now."""
    return replace(request, context={**request.context, "run": records[-1]}, runs=_of_links(records))


def without_approval(request: AccessRequest) -> AccessRequest:
    """Return a request as it is without the approval that it has."""
    return replace(request, context={name: value for name, value in request.context.items() if name != "approval"})


def is_liftable(decision: Decision) -> bool:
    """Return whether a person could lift all that denies it: the engine itself has nobody to ask."""
    return decision.reason is Reason.APPROVAL_UNAVAILABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """A call, judged on each resource up to the first that is denied for good.

    Attributes:
        rule: What was called.
        policies: What it was judged by.
        tallied: What its run had done, likewise.
        judged: The request for each resource, and its decision.
    """

    rule: Rule
    policies: PolicySet
    tallied: Tallied
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
        denials = [decision for _, decision in self.judged if not decision.allowed]
        return bool(denials) and all(map(is_liftable, denials))

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

    @property
    def change(self) -> Change:
        """What the call adds to what its run has done, if it runs."""
        tool = self.rule.tool
        # What a tool gets for itself is no call of the caller's.
        calls = 0 if tool.name == CREDENTIALS else 1
        return Change(calls=calls, tool=self.tallied.tool, labels=tool.labels, spent=self.tallied.spent)

    def by(
        self, read: tuple[Tally, ...], outcome: Sequence[tuple[AccessRequest, Decision]]
    ) -> tuple[Tallied, list[tuple[AccessRequest, Decision]]]:
        """Return what requests that were allowed come to by other tallies of the runs.

        Args:
            read: The tallies.
            outcome: The requests, with an approval where there is one.

        Returns:
            What they are judged by, and each with its decision; or the first that is denied, alone.

        Raises:
            Refusal: INVALID_ARGUMENT, if what the call declares to spend cannot be added.
        """
        tallied = replace(self.tallied, read=read)
        records = tallied.records(self.policies.totals)
        again = []
        for request, _ in outcome:
            asked = _with_records(request, records)
            decision = self._as_approved(request, asked, decide(asked, self.policies))
            if not decision.allowed:
                return tallied, [(asked, decision)]
            again.append((asked, decision))
        return tallied, again

    def denied_by(
        self, read: tuple[Tally, ...], outcome: Sequence[tuple[AccessRequest, Decision]]
    ) -> list[tuple[AccessRequest, Decision]] | None:
        """Return the denial that it came to as it is by other tallies; None if that is another one, or none.

        Args:
            read: The tallies.
            outcome: The request that was denied, and the denial.

        Raises:
            Refusal: INVALID_ARGUMENT, if what the call declares to spend cannot be added.
        """
        ((request, denial),) = outcome
        if self.tallied.rests_on(read):
            return [(request, denial)]
        asked = _with_records(request, replace(self.tallied, read=read).records(self.policies.totals))
        found = decide(asked, self.policies)
        same = (found.reason, found.policy_ids, found.link) == (denial.reason, denial.policy_ids, denial.link)
        return [(asked, denial)] if same else None

    def _as_approved(self, request: AccessRequest, asked: AccessRequest, decision: Decision) -> Decision:
        """Return *decision*, if all that the approval in *asked* lifts was lifted by it in *request*."""
        if "approval" not in asked.context or not decision.allowed:
            return decision
        lifted = [decide(without_approval(one), self.policies) for one in (request, asked)]
        if set(lifted[1].policy_ids) <= set(lifted[0].policy_ids) or lifted[1].allowed:
            return decision
        # A person said yes before the run had done what would have to be asked about now.
        return replace(decision, effect=Effect.DENY, reason=Reason.APPROVAL_INVALID, policy_ids=lifted[1].policy_ids)

    def in_vain(self, channel: str) -> tuple[AccessRequest, Decision] | None:
        """Return the denial that no answer could change, where it was judged with a yes of nobody in particular.

        Args:
            channel: Where the answer would come from.
        """
        for request, decision in self.judged:
            # The client's person is never named, so of that yes all is known.
            may_depend = channel != CLIENT and decision.reason in {Reason.POLICY, Reason.APPROVAL_UNAVAILABLE}
            if not decision.allowed and not (may_depend and might_lift(request, self.policies)):
                return request, decision
        return None

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
    tallying: Tallying

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
        values = self._values(rule, arguments)
        tallied = await self._tallied(call, rule, values, invocation, now)
        records = tallied.records(policies.totals)
        base = base_context(now, self.time_zone, self.environment, call.transport, records[-1])
        context: dict[str, object] = {**base, **values}
        trace.run, trace.above = records[-1], records[:-1]
        trace.came_by(call.transport, now)
        trace.input = context["input"]
        trace.inputs = _recorded(rule, context["input"], trace.private)
        # An argument that names several entities makes a request for each.
        uids = (rule.tool.itself,) if rule.resource is None else rule.resource.uids(arguments, self.limits)
        check_readings(context, len(uids) * len(invocation.chain), self.limits)

        async def request(resource: EntityUid) -> AccessRequest:
            entities = await self._entities(rule, resource, invocation, policies)
            return AccessRequest(
                invocation=invocation,
                action=rule.tool.name,
                resource=resource,
                context=context,
                entities=entities,
                runs=_of_links(records),
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
        return Judged(rule=rule, policies=policies, tallied=tallied, judged=tuple(judged))

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

    async def _tallied(
        self, call: Call, rule: Rule, values: Mapping[str, object], invocation: Invocation, now: float
    ) -> Tallied:
        """Return what the runs of the chain have done, as far as is known here, and what this call adds to it."""
        tool = rule.tool
        return Tallied(
            invocation=invocation,
            read=await self.tallying.known(invocation),
            server=tool.server,
            origin=origin_of(call, invocation),
            now=now,
            # Neither may hold it, so that no two of them are one.
            tool=f"{tool.server}\0{tool.name}",
            spent=spent_by(tool, values),
            # The call that wants a credential was let run, and is not one too many for itself.
            within=1 if tool.name == CREDENTIALS else 0,
        )

    def _values(self, rule: Rule, arguments: Mapping[str, object]) -> dict[str, object]:
        """Return the context's ``input`` and ``facts``, as the arguments are now: what comes later cannot change it."""
        values: dict[str, object] = {"input": to_cedar(arguments, rule.tool.input, self.limits)}
        if rule.facts is not None and rule.tool.facts is not None:
            # Copies: what the function does to its arguments must not reach the tool.
            own = {name: copy.deepcopy(arguments[name]) for name in rule.facts_arguments}
            try:
                facts = rule.facts(**own)
            except Exception as error:  # noqa: BLE001  the developer's function; whatever it raises denies
                detail = f"the facts of `{rule.tool.name}` raised {type(error).__qualname__}"
                raise Refusal(Reason.INVALID_ARGUMENT, detail) from None
            values["facts"] = to_cedar(facts, rule.tool.facts, self.limits)
        return values

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
