"""Step 5 of a call: ask a person about exactly this call, and take a yes for this call alone.

A person is asked only if a yes could help: where something else denies the call too, it is
denied for that. Whatever is not a clear yes, in time, is a denial. A question has one
answer: it is used up in the store by a yes and by a no.
"""

from __future__ import annotations

import hmac
import inspect
import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final, cast

import anyio
import anyio.to_thread

from agentguard.approval import (
    APPROVER,
    CHANNEL,
    CLIENT,
    Approval,
    ApprovalRequest,
    Approved,
    Declined,
    Question,
    plain,
)
from agentguard.errors import ConfigurationError, Refusal, raised
from agentguard.evidence.trail import decision_id
from agentguard.host.cancelled import is_stray
from agentguard.model import Reason
from agentguard.steps.stepping import with_scopes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from agentguard.approval import Approver
    from agentguard.evidence.trail import Trace
    from agentguard.lifecycle.store import Store
    from agentguard.limits import Limits
    from agentguard.model import AccessRequest, Decision
    from agentguard.steps.call import Call, Rule
    from agentguard.steps.judging import Judged, Judging

_LOG: Final = logging.getLogger("agentguard")
_APPROVER_CHARACTERS: Final = 256
_REHEARSED: Final = "nothing would run, so nobody is asked"
_NESTED: Final = "a tool that another tool calls cannot ask the client in this protocol: give the guard an `approver=`"


def channel_of(approver: object) -> str:
    """Return how policies name the channel of the guard's own *approver*; without one, the client's.

    Raises:
        ConfigurationError: If it cannot be asked, or has no name that policies could use.
    """
    if approver is None:
        return CLIENT
    called = inspect.getattr_static(type(approver), "__call__", None)
    if not (inspect.iscoroutinefunction(approver) or inspect.iscoroutinefunction(called)):
        message = f"approver= wants an async callable, got `{approver!r}`: write `async def`, and return an Approval"
        raise ConfigurationError(message)
    channel = getattr(approver, "channel", APPROVER)
    if not isinstance(channel, str) or CHANNEL.fullmatch(channel) is None or channel == CLIENT:
        message = (
            f"the `channel` of an approver wants 1 to 32 of `a-z0-9_-`, got `{channel}`: "
            f"name it, for policies, other than `{CLIENT}`"
        )
        raise ConfigurationError(message)
    return channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What step 5 comes to.

    Attributes:
        judged: How the call was judged in the end.
        outcome: What there is to record: a decision on each resource, or one denial.
        final: Whether it rests on what a person said, or did not say when asked: nobody is asked twice.
        approved: The approval that allowed it.
        question: What has to go out, in place of the denial that is recorded.
    """

    judged: Judged
    outcome: list[tuple[AccessRequest, Decision]]
    final: bool = False
    approved: Approved | None = None
    question: Question | None = None


class Asking:
    """How the guard of one server asks a person, and whether it may take the answer."""

    def __init__(
        self,
        judging: Judging,
        *,
        approver: Approver | None,
        prefixes: tuple[str, ...],
        store: Store,
        limits: Limits,
        clock: Callable[[], float],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._judging = judging
        self._approver = approver
        self._channel = channel_of(approver)
        self._prefixes = prefixes
        self._store = store
        self._limits = limits
        self._clock = clock
        self._entropy = entropy

    async def settle(self, call: Call, judged: Judged, again: Callable[[], Awaitable[Judged]], trace: Trace) -> Answer:
        """Take step 5 for a call that was judged without an approval.

        Args:
            call: The request.
            judged: What came of steps 1 to 4.
            again: Takes steps 1 to 4 again, after a person was asked.
            trace: The call's evidence.

        Raises:
            Refusal: The approval that came is not for this call, is over, or was used before.
        """
        given = self._given(call, judged.rule, trace)
        if isinstance(given, Declined):
            await self._spend(given.key, given.expires_at)
            if not judged.liftable:
                raise Refusal(Reason.APPROVAL_DECLINED)
            ((asked, denial),) = judged.outcome
            declined = replace(denial, reason=Reason.APPROVAL_DECLINED)
            return Answer(judged=judged, outcome=[(asked, declined)], final=True)
        if given is not None:
            return await self._lift(given, judged, trace)
        if not judged.liftable:
            return Answer(judged=judged, outcome=judged.outcome)
        answer = await self._ask(call, judged, trace)
        if isinstance(answer, Approved):
            # Much may have happened while a person thought it over.
            return await self._lift(answer, await again(), trace)
        return answer

    def _given(self, call: Call, rule: Rule, trace: Trace) -> Approved | Declined | None:
        """Return what this request brought as the answer to an earlier question.

        Raises:
            Refusal: APPROVAL_INVALID.
        """
        given = call.given
        if given is None or not is_own(call, rule):
            return None
        if isinstance(given, Refusal):
            raise Refusal(given.reason, given.detail)
        trace.asked(given.id, given.channel)
        # Where another channel is to be asked, the client's word counts for nothing.
        if given.channel != self._channel:
            raise Refusal(Reason.APPROVAL_INVALID, "the answer is of another channel")
        return given

    async def _lift(self, approved: Approved, judged: Judged, trace: Trace) -> Answer:
        """Judge again, with an approval of exactly this call, and use it up.

        Raises:
            Refusal: It is for another call, or was used before, or who gave it is not known.
        """
        trace.asked(approved.id, approved.channel, approved.approver)
        if not (judged.allowed or judged.liftable):
            return Answer(judged=judged, outcome=judged.outcome, final=True)
        if not hmac.compare_digest(approved.binding, judged.binding):
            detail = "the approval is for another call, or what was approved has changed since"
            raise Refusal(Reason.APPROVAL_INVALID, detail)
        lifted = await self._judging.lift(judged, approved)
        await self._spend(approved.key, approved.expires_at)
        return Answer(judged=lifted, outcome=lifted.outcome, final=True, approved=approved)

    async def _ask(self, call: Call, judged: Judged, trace: Trace) -> Approved | Answer:
        """Return a person's yes, or what there is without one."""
        ((asked, denial),) = judged.outcome
        back = self._approver or call.ask
        if call.rehearse:
            return Answer(judged=judged, outcome=[(asked, replace(denial, errors=(_REHEARSED,)))])
        # Also where there is nobody to ask: a caller is not told to find somebody, if that would not help.
        if (vain := await self._in_vain(call, judged)) is not None:
            return Answer(judged=judged, outcome=[vain])
        if back is None and not (call.rounds and is_own(call, judged.rule)):
            unasked = _NESTED if call.rounds else call.unasked
            return Answer(judged=judged, outcome=[(asked, replace(denial, errors=(unasked,)))])
        request = self._request(judged)
        trace.asked(request.id, self._channel)
        if back is None:
            required = replace(denial, reason=Reason.APPROVAL_REQUIRED)
            question = Question(request=request, binding=judged.binding)
            return Answer(judged=judged, outcome=[(asked, required)], question=question)
        try:
            answer = await self._wait(back, request)
        except Refusal as refusal:
            why = replace(denial, reason=refusal.reason, errors=(refusal.detail,) if refusal.detail else ())
            return Answer(judged=judged, outcome=[(asked, why)], final=True)
        return Approved(
            id=request.id,
            key=request.id,
            binding=judged.binding,
            channel=self._channel,
            at=self._clock(),
            expires_at=request.expires_at,
            approver=answer.approver,
        )

    async def _wait(self, back: Approver, request: ApprovalRequest) -> Approval:
        """Return a person's yes.

        Raises:
            Refusal: APPROVAL_DECLINED, or APPROVAL_UNAVAILABLE for whatever is neither yes nor no.
        """
        try:
            with anyio.move_on_after(self._limits.approval_seconds) as waiting:
                answer = await back(request)
        except BaseException as error:
            if not isinstance(error, Exception) and not is_stray(error):
                raise
            # A refusal's detail is for the log; what any other exception says may hold a password.
            told = error.detail if isinstance(error, Refusal) else ""
            _LOG.error("question %s could not be asked, because %s", request.id, told or raised(error))
            why = told or f"{type(error).__qualname__} was raised"
            raise Refusal(Reason.APPROVAL_UNAVAILABLE, f"nobody could be asked, because {why}") from None
        # Whoever swallows the cancellation is late all the same.
        if waiting.cancel_called:
            raise Refusal(Reason.APPROVAL_UNAVAILABLE, "nobody answered in time")
        if answer is None:
            raise Refusal(Reason.APPROVAL_DECLINED)
        if type(answer) is not Approval or not _is_user(answer.approver):
            _LOG.error("the answer to question %s is no Approval, and counts for nothing", request.id)
            raise Refusal(Reason.APPROVAL_UNAVAILABLE, "the answer is no approval")
        # Without its issuer's alias a name is nobody's here, so it would differ even from the caller's own.
        name = answer.approver
        if name is not None and not any(name.startswith(prefix) and name != prefix for prefix in self._prefixes):
            _LOG.error("the answer to question %s names its user without an issuer's alias: put it first", request.id)
            raise Refusal(Reason.APPROVAL_UNAVAILABLE, "the approver is named without the alias of an issuer")
        return answer

    async def _spend(self, key: str, expires_at: float) -> None:
        """Use an answer up, before anything runs by it.

        Raises:
            Refusal: APPROVAL_INVALID, if it was used before or is over; STORE_UNAVAILABLE.
        """
        if not self._clock() < expires_at:
            raise Refusal(Reason.APPROVAL_INVALID, "the answer came too late")
        # Kept for as long again: another host's clock may be behind.
        until = expires_at + self._limits.approval_seconds
        # A store may wait for a disk or a network.
        first = await anyio.to_thread.run_sync(partial(self._store.spend, f"approval:{key}", until))
        if first is not True:
            raise Refusal(Reason.APPROVAL_INVALID, "the answer was used before")

    async def _in_vain(self, call: Call, judged: Judged) -> tuple[AccessRequest, Decision] | None:
        """Return the denial that would remain whatever a person said."""
        lifted = judged.with_approval(Approved.supposed(self._channel, self._clock()))
        if (found := lifted.in_vain(self._channel)) is None:
            return None
        requests = [one for one, _ in lifted.judged]
        denial = await with_scopes(found[1], call, judged.rule, requests, judged.policies)
        if denial.reason is Reason.APPROVAL_UNAVAILABLE:
            why = f"nobody was asked: these policies accept no yes that comes by channel `{self._channel}`"
            denial = replace(denial, errors=(why,))
        return found[0], denial

    def _request(self, judged: Judged) -> ApprovalRequest:
        now = self._clock()
        invocation = judged.invocation
        arguments = cast("dict[str, object]", judged.judged[0][0].context["input"])
        prompts = [judged.policies.policies[id_].prompt for id_ in judged.forbids]
        return ApprovalRequest(
            id=decision_id(now, self._entropy(10)),
            prompt=" ".join(dict.fromkeys(prompt for prompt in prompts if prompt)),
            server=judged.rule.tool.server,
            action=judged.rule.tool.name,
            resources=tuple(request.resource for request, _ in judged.judged),
            arguments={name: plain(value) for name, value in arguments.items()},
            run=invocation.run_id,
            issuer=invocation.issuer,
            agent=invocation.agent,
            user=invocation.user,
            task=invocation.task,
            purpose=invocation.purpose,
            unseen=judged.rule.tool.unseen,
            policy_ids=judged.forbids,
            policy_version=judged.policies.version,
            # The token of the next request may be a newer one; the run is the same.
            expires_at=min(now + self._limits.approval_seconds, invocation.run_ends_at),
        )


def is_own(call: Call, rule: Rule) -> bool:
    """Whether *rule* is what the request itself calls, and not something below it."""
    return call.depth == 1 and (call.rule is None or call.rule is rule)


def _is_user(approver: object) -> bool:
    if approver is None:
        return True
    return (
        type(approver) is str
        and 0 < len(approver) <= _APPROVER_CHARACTERS
        and not any("\ud800" <= character <= "\udfff" for character in approver)
    )
