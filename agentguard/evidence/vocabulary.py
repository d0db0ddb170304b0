"""The words of the evidence: one table for spans, metrics, records and the reference page.

What has no row here is not kept. Raw arguments and results, tokens, headers, unmapped
claims, the text of an exception and the text of an evaluation error (which quotes
values) have none, so they cannot end up in a span, a record or a log line.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Literal

AttributeValue = str | int | float | bool | tuple[str, ...]
"""What OpenTelemetry and canonical JSON both carry unchanged."""

AttributeType = Literal["string", "int", "double", "bool", "string[]"]
Place = Literal["decision", "execution", "run", "record", "metric"]


class RecordKind(StrEnum):
    """What happened, as the ledger keeps it. The list is closed."""

    DECISION = "decision"
    OUTCOME = "outcome"
    RUN = "run"
    POLICY = "policy"
    REFUSED_TOKEN = "refused_token"  # noqa: S105  a kind, not a secret
    START = "start"
    STOP = "stop"
    HEAD = "head"
    SHADOW = "shadow"
    SHARED_RUN = "shared_run"
    CREDENTIAL = "credential"
    CREDENTIAL_LEAK = "credential_leak"


class Outcome(StrEnum):
    """How a call that was allowed came out."""

    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    WITHHELD = "withheld"


class RunEnd(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    REVOKED = "revoked"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attribute:
    """One row of the table.

    Attributes:
        name: Its name everywhere.
        type: Its OpenTelemetry type.
        unit: Its unit where it has one.
        description: What it says.
        on: Where it occurs: the three spans, the ledger's records, the metrics.
    """

    name: str
    type: AttributeType
    description: str
    on: frozenset[Place]
    unit: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One instrument: its name, what it counts or measures, and by which attributes."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    description: str
    attributes: tuple[str, ...] = ()


def _row(name: str, type_: AttributeType, places: tuple[Place, ...], description: str, *, unit: str = "") -> Attribute:
    return Attribute(name=name, type=type_, on=frozenset(places), description=description, unit=unit)


_JUDGED: Final[tuple[Place, ...]] = ("decision", "record")
_CALL: Final[tuple[Place, ...]] = ("decision", "execution", "record")
_LIFE: Final[tuple[Place, ...]] = ("decision", "execution", "run", "record")
_ENDED: Final[tuple[Place, ...]] = ("run", "record")
_SHOWN: Final[tuple[Place, ...]] = ("decision", "execution", "run")

ATTRIBUTES: Final[tuple[Attribute, ...]] = (
    _row("agentguard.decision.id", "string", _CALL, "The decision; the caller is told the same id."),
    _row("agentguard.decision.effect", "string", (*_JUDGED, "metric"), "`allow` or `deny`."),
    _row("agentguard.decision.reason", "string", (*_JUDGED, "metric"), "Why, one of the closed list of reasons."),
    _row(
        "agentguard.decision.detail",
        "string",
        _JUDGED,
        "Of `invalid_argument`: which declared argument did not fit, and its kind. Of `approval_unavailable`: why. "
        "Of `policy_error`: that the policies were not confirmed in time. Of `missing_entity`: of which type, and "
        "which one if the record names it anyway. Never a value.",
    ),
    _row(
        "agentguard.decision.link",
        "int",
        _JUDGED,
        "Of a delegated call that was denied: the first run of its chain that is why; the root is 0.",
    ),
    _row("agentguard.policy.version", "string", _JUDGED, "Digest of everything that decides; empty: nothing asked."),
    _row("agentguard.policy.label", "string", _JUDGED, "A name for people, beside the version."),
    _row(
        "agentguard.policy.ids",
        "string[]",
        _JUDGED,
        "The `@id`s that decided, sorted, then `grant:N` for the grant of run N of the chain; the root is 0.",
    ),
    _row("agentguard.policy.id", "string", _JUDGED, "The first of them, to group by."),
    _row("agentguard.policy.activated_at", "int", _JUDGED, "When these policies came into force, unix time.", unit="s"),
    _row("agentguard.policy.previous", "string", ("record",), "The version that this one replaced, while it ran."),
    _row(
        "agentguard.policy.refused",
        "string",
        ("record",),
        "Why a change of them was not taken: `incomplete`, `invalid` or `unreadable`; the log has file, line and fix.",
    ),
    _row(
        "agentguard.policy.outcome",
        "string",
        ("metric",),
        "What a change of them came to: `loaded`, why it was refused, or `unrecorded` if no evidence could be kept.",
    ),
    _row(
        "agentguard.shadow.effect",
        "string",
        _JUDGED,
        "What the policies in the shadow would have done instead: `allow`, `deny`, or `possible` for a call that was "
        "denied before its arguments were looked at.",
    ),
    _row("agentguard.shadow.reason", "string", _JUDGED, "Why they would have, one of the closed list of reasons."),
    _row("agentguard.shadow.policy.version", "string", _JUDGED, "Digest of everything that decides there."),
    _row("agentguard.shadow.policy.ids", "string[]", _JUDGED, "Those of their policies that would have decided."),
    _row(
        "agentguard.shadow.policy.refused",
        "string",
        ("record",),
        "Why a change of them was not taken, as of the others.",
    ),
    _row(
        "agentguard.scopes.missing", "string[]", _JUDGED, "The scopes that the token lacked, if that alone stopped it."
    ),
    _row("agentguard.run.id", "string", _LIFE, "The run, constant across renewal of its token."),
    _row("agentguard.run.ends_at", "int", (*_JUDGED, "run"), "The run's absolute end, unix time.", unit="s"),
    _row("agentguard.run.parent", "string", (*_JUDGED, "run"), "The run that delegated to this one."),
    _row("agentguard.run.state", "string", ("record",), "What the run is from now on."),
    _row("agentguard.run.end", "string", ("run",), "`completed`, `revoked` or `expired`."),
    _row("agentguard.run.reason", "string", _ENDED, "Why it ended, in the words of whoever ended it, at most 256."),
    _row("agentguard.run.calls", "int", _ENDED, "The calls that this guard let run.", unit="{call}"),
    _row("agentguard.run.denied", "int", _ENDED, "The calls that it denied from the first of those on.", unit="{call}"),
    _row("agentguard.authority.granted", "double", (*_JUDGED, "run"), "From the run's begin to its end.", unit="s"),
    _row("agentguard.authority.remaining", "double", _JUDGED, "From this decision to the run's end.", unit="s"),
    _row("agentguard.authority.lasted", "double", _ENDED, "From the run's begin until it was over.", unit="s"),
    _row("agentguard.invocation.id", "string", _JUDGED, "The token's `jti` (or `uti`)."),
    _row("agentguard.invocation.grade", "string", (*_JUDGED, "run"), "`run`, `token` or `shared`."),
    _row("agentguard.invocation.issuer", "string", (*_JUDGED, "run"), "The `iss` that vouches for the identity."),
    _row("agentguard.agent.id", "string", _LIFE, "The workload that acts."),
    _row("agentguard.user.id", "string", _LIFE, "On whose behalf, when somebody."),
    _row("agentguard.task.id", "string", _LIFE, "The task, when named."),
    _row("agentguard.purpose", "string", (*_JUDGED, "run"), "The purpose, when named."),
    _row("agentguard.delegation.depth", "int", (*_JUDGED, "run"), "The number of ancestors."),
    _row("agentguard.action.id", "string", _JUDGED, "The Cedar action."),
    _row("agentguard.resource.type", "string", _JUDGED, "The resource's Cedar type."),
    _row("agentguard.resource.id", "string", _JUDGED, "Its id; for a type declared private, a keyed digest."),
    _row("agentguard.arguments.digest", "string", _JUDGED, "Keyed HMAC-SHA-256 over what was judged."),
    _row("agentguard.transport", "string", _JUDGED, "`context.transport` of a call that was judged."),
    _row("agentguard.now", "double", _JUDGED, "`context.now` of a call that was judged, unix time.", unit="s"),
    _row("agentguard.run_state.calls", "int", _JUDGED, "`context.run.calls`, as judged.", unit="{call}"),
    _row("agentguard.run_state.calls_of_this_tool", "int", _JUDGED, "`context.run.calls_of_this_tool`.", unit="{call}"),
    _row("agentguard.run_state.denied", "int", _JUDGED, "`context.run.denied`.", unit="{call}"),
    _row("agentguard.run_state.labels", "string[]", _JUDGED, "`context.run.labels`, sorted, if there are any."),
    _row(
        "agentguard.run_state.spent",
        "string[]",
        _JUDGED,
        "`context.run.spent`: each total of the server's tools, as `name=12.5000`, this call's part included.",
    ),
    _row("agentguard.run_state.shared", "bool", _JUDGED, "`context.run.shared`: it was used from several places."),
    _row("agentguard.run_state.started_at", "string", _JUDGED, "`context.run.started_at`, as Cedar writes it."),
    _row(
        "agentguard.run_state.above",
        "string",
        _JUDGED,
        "Of a delegated call: what `context.run` was for each run above its own, root first, as a JSON list.",
    ),
    _row("agentguard.environment", "string", ("record",), "`context.environment` of all that this guard judges."),
    _row("agentguard.time_zone", "string", ("record",), "Where `context.local` holds, for the same."),
    _row("agentguard.approval.id", "string", _JUDGED, "The question that a person was asked, in each of its records."),
    _row("agentguard.approval.channel", "string", _JUDGED, "Where: `client`, or the name of the guard's own approver."),
    _row(
        "agentguard.approval.approver",
        "string",
        _JUDGED,
        "The user who approved, when that is known; if users are declared private, a keyed digest.",
    ),
    _row(
        "agentguard.credential.name",
        "string",
        ("record",),
        "What the guard's broker calls the credential; `invocation token`, or `unreadable` for what could not be "
        "looked through.",
    ),
    _row(
        "agentguard.credential.place",
        "string",
        ("record",),
        "Where a secret was stopped on its way out: `result`, `exception`, `message`, `log`, `span`, `record`.",
    ),
    _row(
        "agentguard.credential.event",
        "string",
        ("record",),
        "What became of it: `issued`, `renewed`, `released`, or `release_failed`: it may be good until its own end.",
    ),
    _row("agentguard.credential.lease_id", "string", ("record",), "What names it at the broker; never the secret."),
    _row("agentguard.credential.expires_at", "int", ("record",), "When it ends by itself, unix time.", unit="s"),
    _row("agentguard.evidence.chain_id", "string", _SHOWN, "The ledger's chain."),
    _row("agentguard.evidence.seq", "int", _SHOWN, "The record's place in the chain, from 1."),
    _row("agentguard.evidence.hash", "string", _SHOWN, "The record's SHA-256, hex."),
    _row("agentguard.evidence.prev_hash", "string", _SHOWN, "The hash of the record before it, hex."),
    _row(
        "agentguard.evidence.head", "string", ("record",), "How far the chain went, signed by the server's key (JWS)."
    ),
    _row("agentguard.execution.outcome", "string", ("execution", "record"), "How an allowed call came out."),
    _row("agentguard.execution.reason", "string", ("execution", "record"), "Why it was cancelled or withheld."),
    _row("agentguard.execution.duration", "double", ("execution", "record"), "How long the tool ran.", unit="s"),
    _row("agentguard.trace.caller_sampled", "bool", _CALL, "Whether the caller's `traceparent` asked for spans."),
    _row("agentguard.tokens.refused", "int", ("record",), "Tokens refused for this reason since the last such record."),
    _row("mcp.method.name", "string", _CALL, "The MCP method."),
    _row("gen_ai.tool.name", "string", (*_CALL, "metric"), "The tool; in metrics `_OTHER` for one that is unknown."),
    _row("gen_ai.operation.name", "string", ("execution",), "`execute_tool`."),
    _row("jsonrpc.request.id", "string", _CALL, "The request's id, as text."),
    _row("mcp.session.id", "string", _CALL, "The transport's session, where it has one."),
    _row("error.type", "string", ("execution", "record"), "The class of what the tool raised, never its text."),
    _row("openinference.span.kind", "string", ("decision", "execution", "run"), "`GUARDRAIL`, `TOOL` or `AGENT`."),
)

DECISIONS: Final = Metric(
    name="agentguard.decisions",
    kind="counter",
    unit="{decision}",
    description="Decisions, each counted once.",
    attributes=("agentguard.decision.effect", "agentguard.decision.reason", "gen_ai.tool.name"),
)
DECISION_DURATION: Final = Metric(
    name="agentguard.decision.duration",
    kind="histogram",
    unit="s",
    description="From the call's arrival to its decision, approvals included.",
    attributes=("agentguard.decision.effect", "agentguard.decision.reason", "gen_ai.tool.name"),
)
APPEND_DURATION: Final = Metric(
    name="agentguard.evidence.append.duration",
    kind="histogram",
    unit="s",
    description="What one record costs until it is kept.",
)
BACKLOG: Final = Metric(
    name="agentguard.evidence.backlog",
    kind="gauge",
    unit="{record}",
    description="Records that are kept but not yet delivered elsewhere.",
)
STALENESS: Final = Metric(
    name="agentguard.revocation.staleness",
    kind="gauge",
    unit="s",
    description="The age of what this process knows of revocations.",
)
RELOADS: Final = Metric(
    name="agentguard.policy.reloads",
    kind="counter",
    unit="{reload}",
    description="Changes of the policy folder, taken or not.",
    attributes=("agentguard.policy.outcome",),
)
POLICY_AGE: Final = Metric(
    name="agentguard.policy.age",
    kind="gauge",
    unit="s",
    description="How long ago the policies in force were last found to be those of their folder, whole and valid.",
)
METRICS: Final = (DECISIONS, DECISION_DURATION, APPEND_DURATION, BACKLOG, STALENESS, RELOADS, POLICY_AGE)
