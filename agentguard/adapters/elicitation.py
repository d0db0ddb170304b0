"""Asking at the caller's own client, in both protocol eras, and what it carries between two rounds.

Up to 2025-11-25 the guard asks in the middle of the call, by an `elicitation/create` of its
own. From 2026-07-28 on a server has no requests: the call is answered with the question and
a sealed state, and the client calls again with both the person's answer and the state. The
state is encrypted under a key of the guard's own, so that no client can make or change one;
that one is for one call and for one use is seen to by `asking`.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from mcp.server.request_state import AESGCMRequestStateCodec, InvalidRequestState
from mcp_types import ElicitRequest, ElicitRequestFormParams, InputRequiredResult
from mcp_types.methods import INPUT_REQUIRED_METHODS, is_input_required
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentguard.approval import CLIENT, Approval, Approved, Declined
from agentguard.errors import Refusal
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.context import HandlerResult, ServerRequestContext

    from agentguard.approval import ApprovalRequest, Approver, Question
    from agentguard.limits import Limits
    from agentguard.steps.call import Call

    Context = ServerRequestContext[Any, Any]

KEY: Final = "agentguard/approval"
"""How the question is named among those that one answer asks."""

FORM: Final[dict[str, Any]] = {
    "type": "object",
    "properties": {
        "approve": {
            "type": "boolean",
            "title": "Approve",
            "description": "Yes lets exactly this call run, once.",
            "default": False,
        }
    },
    "required": ["approve"],
}

_NO_FORMS: Final = "the client cannot show forms: use one that declares `elicitation`, or give the guard an `approver=`"
_NO_WAY_BACK: Final = "stateless HTTP has no way back to the client: give the guard an `approver=`"
_PREFIX: Final = "agentguard."
_LABEL: Final = b"state of an approval\0"
_STATE: Final = "requestState"
_REQUESTS: Final = "inputRequests"
_RESPONSES: Final = "inputResponses"


def says_yes(action: object, content: object) -> bool:
    """Return whether a form came back with a clear yes. Everything else is a no."""
    return action == "accept" and isinstance(content, Mapping) and content.get("approve") is True


@dataclass(frozen=True, slots=True, kw_only=True)
class _Carried:
    """What a client carries from one round of a call to the next.

    Attributes:
        id: The question's.
        key: What is spent when it is used.
        binding: What an approval is bound to.
        expires_at: Until when it counts, unix seconds.
        wire: The digest of what the call asked for, as the client sent it.
        state: The tool's own state.
        responses: The answers to the tool's own questions, while the guard's is asked.
        asks: What the tool itself asked, by the names of its questions.
        channel: Where the call was approved; None as long as it is not.
        at: When, unix seconds.
        approver: By whom, when known.
    """

    id: str
    key: str
    binding: str
    expires_at: float
    wire: str
    state: str | None = None
    responses: dict[str, Any] | None = None
    asks: Sequence[str] = ()
    channel: str | None = None
    at: float | None = None
    approver: str | None = None


class Rounds:
    """How the guard of one server asks the caller's own client."""

    def __init__(self, key: bytes, *, limits: Limits, clock: Callable[[], float]) -> None:
        """Set it up.

        Args:
            key: The guard's own; states are sealed under one that is derived from it.
            limits: The bounds.
            clock: Gives unix seconds.
        """
        self._codec = AESGCMRequestStateCodec([hmac.digest(key, _LABEL, "sha256")])
        self._limits = limits
        self._clock = clock

    def begin(self, ctx: Context, call: Call) -> Round:
        """Take out of a request what is the guard's, and tell *call* how a person can be asked."""
        if ctx.method not in INPUT_REQUIRED_METHODS:
            return Round(self, ctx, call)
        call.unasked = _NO_FORMS
        if ctx.protocol_version not in MODERN_PROTOCOL_VERSIONS:
            # Over stateless HTTP nothing is known of the client either.
            call.unasked = _NO_FORMS if ctx.session.can_send_request else _NO_WAY_BACK
            call.ask = _back_channel(ctx)
            return Round(self, ctx, call)
        call.rounds = _can_show_forms(ctx)
        params = dict(ctx.params or {})
        found = params.get(_RESPONSES)
        responses = dict(found) if isinstance(found, Mapping) else {}
        answer = responses.pop(KEY, None)
        state = params.get(_STATE)
        if isinstance(state, str) and state.startswith(_PREFIX):
            carried = self._open(state.removeprefix(_PREFIX), ctx)
            call.given = carried if isinstance(carried, Refusal) else self._given(carried, answer, responses)
            state = None if isinstance(carried, Refusal) else carried.state
            if not isinstance(carried, Refusal) and carried.channel is None:
                # While the guard asked, the answers to the tool's own questions waited here.
                responses = carried.responses or {}
        if answer is not None or state is not params.get(_STATE):
            # A tool sees its own state and its own answers alone.
            params = {name: value for name, value in params.items() if name not in {_STATE, _RESPONSES}}
            params |= {_STATE: state} if state is not None else {}
            params |= {_RESPONSES: responses} if responses else {}
            ctx = call.framework = replace(ctx, params=params)
        return Round(self, ctx, call)

    def _given(self, carried: _Carried, answer: object, responses: Mapping[str, Any]) -> Approved | Declined | Refusal:
        """Return what a state and its answer amount to."""
        if carried.channel is None or carried.at is None:
            if not (isinstance(answer, Mapping) and says_yes(answer.get("action"), answer.get("content"))):
                return Declined(id=carried.id, key=carried.key, channel=CLIENT, expires_at=carried.expires_at)
            channel, at = CLIENT, self._clock()
        elif not all(isinstance(responses.get(name), Mapping) for name in carried.asks):
            # A tool would take this for the round before it, and one yes would do for any number of those.
            return Refusal(Reason.APPROVAL_INVALID, "a later round came without the answers that it is for")
        else:
            channel, at = carried.channel, carried.at
        return Approved(
            id=carried.id,
            key=carried.key,
            binding=carried.binding,
            channel=channel,
            at=at,
            expires_at=carried.expires_at,
            approver=carried.approver,
        )

    def ask(self, ctx: Context, question: Question) -> InputRequiredResult:
        """Return the answer that asks *question* first."""
        request = question.request
        params = ctx.params or {}
        state, responses = params.get(_STATE), params.get(_RESPONSES)
        carried = _Carried(
            id=request.id,
            key=request.id,
            binding=question.binding,
            expires_at=request.expires_at,
            wire=_wire(ctx),
            state=state if isinstance(state, str) else None,
            responses=dict(responses) if isinstance(responses, Mapping) else None,
        )
        form = ElicitRequestFormParams(message=request.message, requested_schema=FORM)
        return InputRequiredResult(input_requests={KEY: ElicitRequest(params=form)}, request_state=self._seal(carried))

    def go_on(self, ctx: Context, approved: Approved, state: object, asks: object) -> str:
        """Return the state of an approved call whose tool asks a question of its own.

        Its next round goes on under the same approval, so that a person is asked once. It is
        a use of its own: no round runs twice.
        """
        carried = _Carried(
            id=approved.id,
            key=f"{approved.id}:{secrets.token_hex(10)}",
            binding=approved.binding,
            expires_at=self._clock() + self._limits.approval_seconds,
            wire=_wire(ctx),
            state=state if isinstance(state, str) else None,
            asks=list(asks) if isinstance(asks, Mapping) else (),
            channel=approved.channel,
            at=approved.at,
            approver=approved.approver,
        )
        return self._seal(carried)

    def _seal(self, carried: _Carried) -> str:
        values = {name: getattr(carried, name) for name in _Carried.__slots__}
        return _PREFIX + self._codec.seal(json.dumps(values).encode())

    def _open(self, sealed: str, ctx: Context) -> _Carried | Refusal:
        try:
            carried = _Carried(**json.loads(self._codec.unseal(sealed)))
        except (InvalidRequestState, ValueError, TypeError):
            return Refusal(Reason.APPROVAL_INVALID, "the state is not one of ours, or was changed")
        if not hmac.compare_digest(carried.wire, _wire(ctx)):
            return Refusal(Reason.APPROVAL_INVALID, "the approval is for a call with other arguments")
        return carried


@dataclass(frozen=True, slots=True)
class Round:
    """One request of a call that may take several.

    Attributes:
        rounds: How the guard asks.
        ctx: The request without what is the guard's.
        call: What the enforcer is told of it, and tells back.
    """

    rounds: Rounds
    ctx: Context
    call: Call

    async def answer(self, handle: Callable[[Context], Awaitable[HandlerResult]]) -> HandlerResult:
        """Return the answer to this request: what *handle* gives, or the question that comes first.

        Raises:
            Exception: Whatever *handle* raises.
        """
        try:
            result = await handle(self.ctx)
        except Exception:
            # Where a denial is an error, the one that stands for a question is one too.
            if self.call.question is None:
                raise
            result = None
        return self._end(result)

    def _end(self, result: HandlerResult) -> HandlerResult:
        if self.call.question is not None:
            return self.rounds.ask(self.ctx, self.call.question)
        if self.call.approved is None or not is_input_required(result):
            return result
        if isinstance(result, InputRequiredResult):
            state = self.rounds.go_on(self.ctx, self.call.approved, result.request_state, result.input_requests)
            return result.model_copy(update={"request_state": state})
        state = self.rounds.go_on(self.ctx, self.call.approved, result.get(_STATE), result.get(_REQUESTS))
        return {**result, _STATE: state}


def _back_channel(ctx: Context) -> Approver | None:
    """Return how to ask in the middle of the call, if the client can be asked."""
    if not (_can_show_forms(ctx) and ctx.session.can_send_request):
        return None

    async def ask(request: ApprovalRequest) -> Approval | None:
        # On the stream of this very request: another run of the agent has no part in it.
        answer = await ctx.session.elicit_form(request.message, FORM, related_request_id=ctx.request_id)
        return Approval() if says_yes(answer.action, answer.content) else None

    return ask


def _can_show_forms(ctx: Context) -> bool:
    capabilities = ctx.session.client_capabilities
    elicitation = None if capabilities is None else capabilities.elicitation
    # Before there were two modes, a client that had any had this one.
    return elicitation is not None and (elicitation.form is not None or elicitation.url is None)


def _wire(ctx: Context) -> str:
    """Return the digest of what a request asks for: also of what policies do not see."""
    params = ctx.params or {}
    asked = [ctx.method, params.get("name"), params.get("uri"), params.get("arguments") or {}]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
