"""What is kept of a decision, an execution, a run: values in, attributes and records out.

Pure: no clock, no key, no file. The names come from `evidence.vocabulary`, and what has
no row there is not kept. A short value is never hashed without a key: whoever holds
the hash could try every value.
"""

from __future__ import annotations

import hmac
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.errors import ConfigurationError
from agentguard.model import EntityUid, Reason, canonical_json, naming, not_there

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.evidence.vocabulary import AttributeValue, Outcome, RecordKind
    from agentguard.model import Decision, Invocation

_TEXT_CHARACTERS: Final = 256
_DIGEST_KEY_BYTES: Final = 32
_TRACEPARENT: Final = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?")
_SAMPLED: Final = 0x01
_TOLD: Final = frozenset((Reason.INVALID_ARGUMENT, Reason.MISSING_ENTITY, Reason.APPROVAL_UNAVAILABLE))


class SpanOf(NamedTuple):
    """The span that shows what a record says, as far as the record does not say it already.

    Attributes:
        trace_id: Its trace, hex.
        span_id: Its id, hex.
        parent_span_id: The span above it, hex; empty if there is none.
        span_name: Its name.
        start_time_unix_nano: When it began; None if the record's own attributes say so.
        links: The spans that it links to, as ``trace id-span id``.
    """

    trace_id: str
    span_id: str
    parent_span_id: str
    span_name: str
    start_time_unix_nano: int | None = None
    links: tuple[str, ...] = ()


def wire_text(value: str) -> str:
    """Return text from outside as an exporter can carry it: bounded, and valid Unicode.

    A lone surrogate would make an exporter drop the whole batch, and a tool's name
    that nobody registered may be as long as the caller likes. What is cut here was
    never judged: what is judged is kept whole.
    """
    if len(value) <= _TEXT_CHARACTERS and value.isascii():
        return value
    return value[:_TEXT_CHARACTERS].encode("utf-8", "replace").decode()


def _keyed_digest(key: bytes, label: bytes, text: str) -> str:
    if not len(key) >= _DIGEST_KEY_BYTES:
        message = f"a digest key wants at least {_DIGEST_KEY_BYTES} bytes, got {len(key)}: make one with os.urandom"
        raise ConfigurationError(message)
    # The label keeps a resource's digest from ever equalling some arguments' digest.
    return "hmac-sha256:" + hmac.digest(key, label + text.encode("ascii"), "sha256").hex()


def arguments_digest(key: bytes, cedar_input: object) -> str:
    """Return the keyed digest of the arguments that were judged.

    Args:
        key: At least 32 random bytes, kept by the server.
        cedar_input: Cedar JSON, as it stood in ``context.input``.

    Raises:
        ConfigurationError: If the key is too short to hide a short value.
    """
    return _keyed_digest(key, b"arguments\0", canonical_json(cedar_input))


def private_resource(key: bytes, resource: EntityUid) -> EntityUid:
    """Return *resource* with a keyed digest for its id: equal ids stay equal, and unreadable.

    Raises:
        ConfigurationError: If the key is too short to hide a short value.
    """
    return EntityUid(resource.type, _keyed_digest(key, b"resource\0", canonical_json([resource.type, resource.id])))


def call_attributes(
    *,
    method: str,
    tool: str | None = None,
    request_id: str | int | None = None,
    session_id: str | None = None,
    traceparent: str | None = None,
) -> dict[str, AttributeValue]:
    """Return what the protocol says of one call, for its decision, execution and records.

    Args:
        method: The MCP method, ``tools/call``.
        tool: The tool's name, as the caller wrote it.
        request_id: The JSON-RPC id.
        session_id: The streamable-HTTP session, where there is one.
        traceparent: The caller's W3C ``traceparent``. A caller that clears its sampled
            flag silences the spans of a parent-based sampler; the record says so.
    """
    found: dict[str, AttributeValue] = {"mcp.method.name": wire_text(method)}
    if tool is not None:
        found["gen_ai.tool.name"] = wire_text(tool)
    if request_id is not None:
        found["jsonrpc.request.id"] = wire_text(str(request_id))
    if session_id is not None:
        found["mcp.session.id"] = wire_text(session_id)
    if traceparent is not None and (parent := _TRACEPARENT.fullmatch(traceparent)):
        found["agentguard.trace.caller_sampled"] = bool(int(parent[1], 16) & _SAMPLED)
    return found


def approval_attributes(question: str, channel: str, approver: str | None = None) -> dict[str, AttributeValue]:
    """Return what is kept of a person's being asked, for the decisions about that call."""
    found: dict[str, AttributeValue] = {"agentguard.approval.id": question, "agentguard.approval.channel": channel}
    if approver is not None:
        found["agentguard.approval.approver"] = wire_text(approver)
    return found


def arrival_attributes(transport: str, now: float) -> dict[str, AttributeValue]:
    """Return what is kept of the way by which a call came, and of the moment, as policies see them.

    A record is made later than its call is judged, by minutes if a person thinks it over.
    """
    return {"agentguard.transport": transport, "agentguard.now": float(now)}


def setting_attributes(*, environment: str, time_zone: str) -> dict[str, AttributeValue]:
    """Return what a guard keeps, when it starts, of the context that all its calls share."""
    return {"agentguard.environment": environment, "agentguard.time_zone": time_zone}


def decision_attributes(
    *,
    decision: Decision,
    invocation: Invocation | None,
    action: str,
    resource: EntityUid | None,
    now: float,
    digest: str | None = None,
    policy_label: str | None = None,
    policy_activated_at: int | None = None,
    call: Mapping[str, AttributeValue] | None = None,
) -> dict[str, AttributeValue]:
    """Return everything that is kept of one decision.

    Args:
        decision: What was decided.
        invocation: For whom; None when no identity could be verified.
        action: The Cedar action's id.
        resource: What it is about, already through `private_resource` where its type
            is private; None when there was no request yet.
        now: The time of the decision, unix seconds.
        digest: Of the judged arguments, from `arguments_digest`.
        policy_label: The policy set's name for people.
        policy_activated_at: When it came into force, unix seconds.
        call: What `call_attributes` gave for this call.
    """
    found: dict[str, AttributeValue] = {
        "agentguard.decision.id": decision.id,
        "agentguard.decision.effect": decision.effect.value,
        "agentguard.decision.reason": decision.reason.value,
        "agentguard.policy.version": decision.policy_version,
        "agentguard.action.id": wire_text(action),
    }
    found.update(_detail(decision, invocation, resource))
    if decision.policy_ids:
        found["agentguard.policy.ids"] = decision.policy_ids
        found["agentguard.policy.id"] = decision.policy_ids[0]
    if policy_label is not None:
        found["agentguard.policy.label"] = policy_label
    if policy_activated_at is not None:
        found["agentguard.policy.activated_at"] = policy_activated_at
    if resource is not None:
        found["agentguard.resource.type"] = resource.type
        # Whole, for it was judged whole; only what no exporter can carry is replaced.
        found["agentguard.resource.id"] = resource.id.encode("utf-8", "replace").decode()
    if digest is not None:
        found["agentguard.arguments.digest"] = digest
    if invocation is not None:
        found.update(_authority(invocation))
        found["agentguard.authority.remaining"] = max(0.0, invocation.run_ends_at - now)
        if invocation.token_id:
            found["agentguard.invocation.id"] = invocation.token_id
        if decision.scopes:
            found["agentguard.scopes.missing"] = tuple(sorted(set(decision.scopes) - invocation.scopes))
    if call is not None:
        found.update(call)
    return found


_SHADOWED: Final = (
    "agentguard.decision.id",
    "agentguard.decision.effect",
    "agentguard.decision.reason",
    "agentguard.policy.version",
    "agentguard.action.id",
    "agentguard.resource.type",
    "agentguard.resource.id",
    "agentguard.run.id",
    "agentguard.invocation.issuer",
    "agentguard.agent.id",
    "agentguard.user.id",
    "agentguard.task.id",
    "mcp.method.name",
    "gen_ai.tool.name",
)
UNCONFIRMED: Final = "the policies in force were not confirmed in time"
"""Why every call is denied while `Guard(max_policy_age=…)` is passed."""


def _detail(decision: Decision, invocation: Invocation | None, resource: EntityUid | None) -> dict[str, AttributeValue]:
    if (missing := decision.missing) is not None and invocation is not None:
        # By its id only if the record has that already; what else a loader knows of is nobody's to read here.
        named = {"Agent": invocation.agent, "User": invocation.user, "Task": invocation.task}
        known = {resource, *(EntityUid(type_, id_) for type_, id_ in named.items() if id_ is not None)}
        text = not_there(missing)
        return {"agentguard.decision.detail": wire_text(naming(text, missing) if missing in known else text)}
    # They hold names that tools declare, kinds of values, types of entities, and why no person said yes. The errors of
    # other reasons are for the log alone.
    if not (decision.reason in _TOLD or decision.errors == (UNCONFIRMED,)) or not decision.errors:
        return {}
    return {"agentguard.decision.detail": wire_text("; ".join(decision.errors))}


def shadowed_attributes(decision: Mapping[str, AttributeValue]) -> dict[str, AttributeValue]:
    """Return what of a decision stands again beside what would have been decided instead."""
    return {name: decision[name] for name in _SHADOWED if name in decision}


def _who(invocation: Invocation) -> dict[str, AttributeValue]:
    found: dict[str, AttributeValue] = {
        "agentguard.run.id": invocation.run_id,
        "agentguard.agent.id": invocation.agent,
    }
    if invocation.user is not None:
        found["agentguard.user.id"] = invocation.user
    if invocation.task is not None:
        found["agentguard.task.id"] = invocation.task
    return found


def _authority(invocation: Invocation) -> dict[str, AttributeValue]:
    found = _who(invocation)
    found["agentguard.run.ends_at"] = invocation.run_ends_at
    found["agentguard.authority.granted"] = float(invocation.lifetime)
    found["agentguard.invocation.grade"] = invocation.grade.value
    found["agentguard.invocation.issuer"] = invocation.issuer
    found["agentguard.delegation.depth"] = len(invocation.ancestors)
    if invocation.purpose is not None:
        found["agentguard.purpose"] = invocation.purpose
    if invocation.ancestors:
        found["agentguard.run.parent"] = invocation.ancestors[-1].run_id
    return found


def execution_attributes(
    *,
    decision_id: str,
    invocation: Invocation | None,
    outcome: Outcome,
    seconds: float,
    reason: Reason | None = None,
    error: BaseException | None = None,
    call: Mapping[str, AttributeValue] | None = None,
) -> dict[str, AttributeValue]:
    """Return what is kept of an allowed call's execution.

    Args:
        decision_id: The decision that allowed it.
        invocation: For whom it ran.
        outcome: How it came out.
        seconds: How long it ran.
        reason: Why it was cancelled or its result withheld.
        error: What the tool raised; the name of its class is kept and nothing else.
        call: What `call_attributes` gave for this call.
    """
    found: dict[str, AttributeValue] = {} if invocation is None else _who(invocation)
    found["agentguard.decision.id"] = decision_id
    found["agentguard.execution.outcome"] = outcome.value
    found["agentguard.execution.duration"] = seconds
    if reason is not None:
        found["agentguard.execution.reason"] = reason.value
    if error is not None:
        found["error.type"] = error_type(error)
    if call is not None:
        found.update(call)
    return found


def error_type(error: BaseException) -> str:
    """Return the full name of an exception's class, as the semantic conventions ask."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    return wire_text(name)


def run_attributes(
    invocation: Invocation, *, ended_at: float | None = None, reason: str = ""
) -> dict[str, AttributeValue]:
    """Return what is kept of a run when its state changes.

    Args:
        invocation: The run.
        ended_at: When it ended, unix seconds; None while it lives.
        reason: Why, in the words of whoever ended it.
    """
    found = _authority(invocation)
    if ended_at is not None:
        found["agentguard.authority.lasted"] = max(0.0, ended_at - invocation.issued_at)
    if reason:
        found["agentguard.run.reason"] = wire_text(reason)
    return found


def record(
    kind: RecordKind,
    attributes: Mapping[str, AttributeValue],
    *,
    at: float,
    trace: SpanOf | tuple[str, str] | None = None,
    inputs: Mapping[str, object] | None = None,
) -> dict[str, object]:
    """Return one record for the ledger.

    Args:
        kind: What happened.
        attributes: From the table.
        at: When, unix seconds.
        trace: The span that shows the same; or only the trace and span ids, hex, of one
            that it belongs to.
        inputs: The arguments, as judged, that the developer named for the record.
    """
    # Whole microseconds first: a float of this size holds no more, and nanoseconds
    # straight from it would show digits that the clock never gave.
    kept: dict[str, object] = {
        "kind": kind.value,
        "time_unix_nano": round(at * 1_000_000) * 1_000,
        "attributes": attributes,
    }
    if trace is not None:
        kept["trace_id"], kept["span_id"] = trace[0], trace[1]
    if isinstance(trace, SpanOf):
        kept["span_name"] = trace.span_name
        if trace.parent_span_id:
            kept["parent_span_id"] = trace.parent_span_id
        if trace.start_time_unix_nano is not None:
            kept["start_time_unix_nano"] = trace.start_time_unix_nano
        if trace.links:
            kept["links"] = trace.links
    if inputs is not None:
        kept["inputs"] = inputs
    return kept
