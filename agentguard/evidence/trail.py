"""One call's evidence, as it comes about: its record, its spans and its metrics, in step.

The record comes first; the spans and metrics say what was recorded.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from time import perf_counter
from typing import TYPE_CHECKING, Final, Protocol

from agentguard.evidence.denied import denied
from agentguard.evidence.ledger import evidence_attributes
from agentguard.evidence.record import (
    approval_attributes,
    arguments_digest,
    arrival_attributes,
    decision_attributes,
    execution_attributes,
    private_resource,
    record,
    run_attributes,
    shadowed_attributes,
)
from agentguard.evidence.refusals import Refusals
from agentguard.evidence.runstate import link_attributes, run_state_attributes
from agentguard.evidence.vocabulary import Outcome, RecordKind
from agentguard.evidence.withheld import without_secrets
from agentguard.model import Decision, EntityUid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from opentelemetry.trace import SpanContext

    from agentguard.evidence.ledger import Entry, Ledger
    from agentguard.evidence.metrics import Metrics
    from agentguard.evidence.record import SpanOf
    from agentguard.evidence.spans import OpenSpan, Spans
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.model import Invocation, Reason

_LOG: Final = logging.getLogger("agentguard")

# Crockford's base 32: what a person reads aloud has no I, L, O or U in it. Two at a time.
_CROCKFORD: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS: Final = tuple(first + second for first in _CROCKFORD for second in _CROCKFORD)


def decision_id(now: float, random: bytes) -> str:
    """Return a name for one decision: 26 characters that sort by time.

    Args:
        now: Unix seconds; its milliseconds come first.
        random: Ten bytes.
    """
    number = int(now * 1000) << 80 | int.from_bytes(random)
    return "".join([_PAIRS[number >> shift & 1023] for shift in range(120, -1, -10)])


class PolicyFacts(Protocol):
    """What evidence says of the policies that were asked."""

    @property
    def version(self) -> str:
        """The digest of everything that decides."""

    @property
    def label(self) -> str | None:
        """A name for people."""

    @property
    def activated_at(self) -> int | None:
        """When they came into force, unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trail:
    """Where a guard's evidence goes.

    Attributes:
        ledger: The record.
        spans: Its view for people.
        metrics: Its view for machines.
        key: For keyed digests; at least 32 random bytes.
        private: Entity types whose ids are kept as digests alone.
        clock: Gives unix seconds.
        entropy: Gives random bytes.
        refusals: The refused tokens that are still to be recorded.
        stops: Returns whether a value would show a secret, and tells of it.
    """

    ledger: Ledger
    spans: Spans
    metrics: Metrics
    key: bytes
    private: frozenset[str]
    clock: Callable[[], float]
    entropy: Callable[[int], bytes]
    refusals: Refusals = field(default_factory=Refusals)
    stops: Callable[[object], bool] | None = None

    def begin(self, action: str, call: Mapping[str, AttributeValue], *, known: bool = True) -> Trace:
        """Begin one decision.

        Args:
            action: The action that is asked for.
            call: From `call_attributes`.
            known: Whether the server has this action; a name that a caller made up
                must make neither span names nor time series.
        """
        return Trace(self, action, call, known=known)

    def keep(
        self,
        kind: RecordKind,
        attributes: Mapping[str, AttributeValue],
        *,
        trace: SpanOf | tuple[str, str] | None = None,
        at: float | None = None,
        inputs: Mapping[str, object] | None = None,
    ) -> Entry:
        """Append one record, of something that happened now, or at another time *at*.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """
        began = perf_counter()
        at = self.clock() if at is None else at
        entry = self.ledger.append(record(kind, attributes, at=at, trace=trace, inputs=inputs))
        self.metrics.appended(perf_counter() - began)
        return entry

    def shared(self, invocation: Invocation) -> None:
        """Keep that a run is used from elsewhere than where it was used first.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """
        self.keep(RecordKind.SHARED_RUN, run_attributes(invocation))

    def leaked(self, invocation: Invocation, place: str, name: str, *, decision: str = "") -> None:
        """Keep that a secret of a run was stopped on its way out.

        Args:
            invocation: The run.
            place: Where it would have come out.
            name: What it is called; never the secret.
            decision: The decision that the tool ran by, where that is known.
        """
        found = {"agentguard.credential.name": name, "agentguard.credential.place": place}
        if decision:
            found["agentguard.decision.id"] = decision
        self.keep(RecordKind.CREDENTIAL_LEAK, {**run_attributes(invocation), **found})

    def refused_token(self, reason: Reason) -> None:
        """Keep that a token was refused; a flood of them becomes one record a second, with their number."""
        self.refusals.count(reason, self.clock(), self.keep)


class Trace:
    """One call, from its arrival to its outcome.

    Attributes:
        invocation: For whom; None until it is verified.
        policies: By what it is judged.
        resource: What is acted on, as soon as it is known.
        input: The judged arguments, as Cedar JSON.
        inputs: Those of them whose values are kept; None where none are.
        run: ``context.run`` as Cedar JSON, as soon as it is known.
        above: The same for each run that delegated to it, root first.
        decision: What was decided and recorded; None before that.
    """

    __slots__ = (
        "_action",
        "_approval",
        "_arrived",
        "_attributes",
        "_began",
        "_call",
        "_came_by",
        "_entry",
        "_execution",
        "_known",
        "_open",
        "_ran",
        "_span",
        "_trail",
        "_tried",
        "above",
        "decision",
        "input",
        "inputs",
        "invocation",
        "policies",
        "resource",
        "run",
    )  # fmt: skip

    def __init__(self, trail: Trail, action: str, call: Mapping[str, AttributeValue], *, known: bool) -> None:
        self._trail = trail
        self._action = action
        self._call = call
        self._known = action if known else None
        self._began = perf_counter()
        self._ran = self._began
        self._arrived = trail.clock()
        self._span = trail.spans.authorize(self._known).__enter__()
        self._open = True
        self._tried = False
        self._execution: OpenSpan | None = None
        self._entry: Entry | None = None
        self._attributes: Mapping[str, AttributeValue] = {}
        self._approval: Mapping[str, AttributeValue] = {}
        self._came_by: Mapping[str, AttributeValue] = {}
        self.invocation: Invocation | None = None
        self.policies: PolicyFacts | None = None
        self.resource: EntityUid | None = None
        self.input: object = None
        self.inputs: Mapping[str, object] | None = None
        self.run: object = None
        self.above: Sequence[Mapping[str, object]] = ()
        self.decision: Decision | None = None

    def asked(self, question: str, channel: str, approver: str | None = None) -> None:
        """Take which question a person was asked about this call, where, and who approved it.

        Args:
            question: Its id.
            channel: How policies name where it was asked.
            approver: The user who approved, when known.
        """
        if approver is not None and "User" in self._trail.private:
            approver = private_resource(self._trail.key, EntityUid("User", approver)).id
        self._approval = approval_attributes(question, channel, approver)

    def came_by(self, transport: str, now: float) -> None:
        """Take how policies name the way by which the call came, and the moment at which they judge it."""
        self._came_by = arrival_attributes(transport, now)

    @property
    def private(self) -> frozenset[str]:
        """The entity types whose ids are kept as digests alone."""
        return self._trail.private

    @property
    def is_asked(self) -> bool:
        """Whether a person was asked about this call."""
        return bool(self._approval)

    def decided(self, decision: Decision) -> Decision:
        """Record a decision, and return it with its id; each has a span of its own.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE; then nothing was decided.
        """
        trail, policies = self._trail, self.policies
        if self._tried:
            self._begin_another()
        now = trail.clock()
        named = Decision(
            effect=decision.effect,
            reason=decision.reason,
            policy_ids=decision.policy_ids,
            policy_version=decision.policy_version or (policies.version if policies is not None else ""),
            errors=decision.errors,
            advice=decision.advice,
            link=decision.link,
            scopes=decision.scopes,
            missing=self._shown(decision.missing),
            id=decision_id(now, trail.entropy(10)),
        )
        attributes = decision_attributes(
            decision=named,
            invocation=self.invocation,
            action=self._action,
            resource=self._shown(self.resource),
            now=now,
            digest=None if self.input is None else arguments_digest(trail.key, self.input),
            policy_label=policies.label if policies is not None else None,
            policy_activated_at=policies.activated_at if policies is not None else None,
            call={
                **self._call,
                **self._approval,
                **self._came_by,
                **run_state_attributes(self.run, self.above),
                **link_attributes(named, self.invocation),
            },
        )
        kept, inputs = without_secrets(attributes, self.inputs, trail.stops)
        self._tried = True
        shows = self._span.kept(started_at=min(self._arrived, now))
        entry = self._entry = trail.keep(RecordKind.DECISION, kept, trace=shows, inputs=inputs)
        self._attributes = {**kept, **evidence_attributes(entry)}
        return self._take(named)

    def _shown(self, entity: EntityUid | None) -> EntityUid | None:
        """Return an entity as it may be named: with a digest for the id where its type is private."""
        if entity is None or entity.type not in self._trail.private:
            return entity
        return private_resource(self._trail.key, entity)

    def shadowed(self, found: Mapping[str, AttributeValue]) -> None:
        """Record what other policies would have decided, beside the decision, and show it in its span.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """
        self._trail.keep(
            RecordKind.SHADOW, {**shadowed_attributes(self._attributes), **found}, trace=self._span.trace_ids
        )
        self._attributes = {**self._attributes, **found}

    def _begin_another(self) -> None:
        """Put another span in the place of one that a record may have by now."""
        if self.decision is not None:
            self.close()
        else:
            # Its record may be kept all the same, but nothing was decided that it could show.
            self._span.__exit__()
        self._arrived = self._trail.clock()
        self._span = self._trail.spans.authorize(self._known, beside=self.span).__enter__()
        self._open, self._tried = True, False

    async def settled(self) -> None:
        """Wait until the decision is kept as lastingly as the ledger keeps anything.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """
        settle = getattr(self._trail.ledger, "settled", None)
        if settle is not None:
            await settle(self._entry)

    def unrecorded(self, decision: Decision) -> Decision:
        """Take a denial that could not be recorded; spans and metrics still show it."""
        named = Decision(
            effect=decision.effect,
            reason=decision.reason,
            policy_version=self.policies.version if self.policies is not None else "",
            id=decision_id(self._trail.clock(), self._trail.entropy(10)),
        )
        self._attributes = {
            "agentguard.decision.id": named.id,
            "agentguard.decision.effect": named.effect.value,
            "agentguard.decision.reason": named.reason.value,
        }
        return self._take(named)

    def _take(self, named: Decision) -> Decision:
        if not named.allowed:
            _LOG.info("%s", denied(named, tool=self._known, invocation=self.invocation))
        self._trail.metrics.decided(named, tool=self._known, seconds=perf_counter() - self._began)
        self.decision = named
        return named

    @property
    def span(self) -> SpanContext:
        """What links to the decision span."""
        return self._span.context

    def close(self) -> None:
        """End the decision span, before any line of the tool runs."""
        if self._open:
            self._open = False
            self._span.__exit__()
            self._span.end(self._attributes)

    def execution(self) -> OpenSpan:
        """Return the span under which the tool's own spans stand; `ended` ends it."""
        self._ran = perf_counter()
        self._execution = self._trail.spans.execute(self._known, beside=self.span)
        return self._execution

    def ended(self, outcome: Outcome, *, reason: Reason | None = None, error: BaseException | None = None) -> None:
        """Record what became of an allowed call; nothing, if none was allowed."""
        self.close()
        if self.decision is None or self.invocation is None:
            return
        attributes = execution_attributes(
            decision_id=self.decision.id,
            invocation=self.invocation,
            outcome=outcome,
            reason=reason,
            seconds=perf_counter() - self._ran,
            error=error,
            call=self._call,
        )
        kept, _ = without_secrets(attributes, None, self._trail.stops)
        # A call that ended before it ran has no span for that.
        shows = self._span.trace_ids if self._execution is None else self._execution.kept()
        try:
            self._trail.keep(RecordKind.OUTCOME, kept, trace=shows)
        except Exception:  # noqa: BLE001
            # The tool had its effect and its decision is kept: this cannot be taken back.
            _LOG.error("the outcome `%s` of decision %s could not be recorded", outcome, self.decision.id)
        if self._execution is not None:
            self._execution.end(kept, failed=error is not None)
