"""Which records are shown, and each of them under names that stay.

Pure. A program that reads ``evidence show --json`` finds each name of `row_of` in every
record, null where the record does not say it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.evidence.kept import visible
from agentguard.evidence.runstate import state_of, states_above
from agentguard.evidence.vocabulary import RecordKind
from agentguard.evidence.words import iso
from agentguard.model import Reason, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.evidence.kept import Kept

NAMES: Final[Mapping[str, str]] = {
    "effect": "agentguard.decision.effect",
    "reason": "agentguard.decision.reason",
    "detail": "agentguard.decision.detail",
    "decision_id": "agentguard.decision.id",
    "decision_link": "agentguard.decision.link",
    "tool": "gen_ai.tool.name",
    "action": "agentguard.action.id",
    "resource_type": "agentguard.resource.type",
    "resource_id": "agentguard.resource.id",
    "agent": "agentguard.agent.id",
    "user": "agentguard.user.id",
    "task": "agentguard.task.id",
    "purpose": "agentguard.purpose",
    "run_id": "agentguard.run.id",
    "run_parent": "agentguard.run.parent",
    "run_ends_at": "agentguard.run.ends_at",
    "run_state": "agentguard.run.state",
    "run_reason": "agentguard.run.reason",
    "issuer": "agentguard.invocation.issuer",
    "grade": "agentguard.invocation.grade",
    "token_id": "agentguard.invocation.id",
    "delegation_depth": "agentguard.delegation.depth",
    "authority_granted_s": "agentguard.authority.granted",
    "authority_remaining_s": "agentguard.authority.remaining",
    "authority_lasted_s": "agentguard.authority.lasted",
    "policy_version": "agentguard.policy.version",
    "policy_label": "agentguard.policy.label",
    "policy_ids": "agentguard.policy.ids",
    "policy_refused": "agentguard.policy.refused",
    "shadow_effect": "agentguard.shadow.effect",
    "shadow_reason": "agentguard.shadow.reason",
    "shadow_policy_ids": "agentguard.shadow.policy.ids",
    "shadow_policy_version": "agentguard.shadow.policy.version",
    "shadow_policy_refused": "agentguard.shadow.policy.refused",
    "approval_id": "agentguard.approval.id",
    "approval_channel": "agentguard.approval.channel",
    "approver": "agentguard.approval.approver",
    "credential": "agentguard.credential.name",
    "credential_event": "agentguard.credential.event",
    "credential_place": "agentguard.credential.place",
    "credential_lease_id": "agentguard.credential.lease_id",
    "credential_expires_at": "agentguard.credential.expires_at",
    "outcome": "agentguard.execution.outcome",
    "outcome_reason": "agentguard.execution.reason",
    "duration_s": "agentguard.execution.duration",
    "error_type": "error.type",
    "tokens_refused": "agentguard.tokens.refused",
    "arguments_digest": "agentguard.arguments.digest",
    "request_id": "jsonrpc.request.id",
    "session_id": "mcp.session.id",
}
"""What is shown of a record besides its kind, time and place, and the attribute that says it."""


def row_of(record: Kept) -> dict[str, object]:
    """Return a record under names that stay."""
    row: dict[str, object] = {
        "time": iso(record.at),
        "time_unix_nano": record.time_unix_nano,
        "kind": record.kind,
        **{name: record.attributes.get(attribute) for name, attribute in NAMES.items()},
    }
    row["inputs"] = dict(record.inputs) or None
    row["context_run"] = state_of(record)
    above = states_above(record)
    row["context_run_above"] = None if above is None else list(above)
    row["chain_id"] = record.chain_id or None
    row["seq"] = record.seq or None
    row["hash"] = record.hash or None
    row["prev_hash"] = record.prev_hash or None
    row["trace_id"] = record.trace_id or None
    row["span_id"] = record.span_id or None
    row["source"] = record.source
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """Which records to show. What is left out or empty selects nothing away.

    Attributes:
        agents: One of these agents.
        users: One of these users.
        tasks: One of these tasks.
        runs: A run whose id begins so.
        tools: One of these tools.
        kinds: One of these kinds.
        effect: This effect.
        reasons: One of these reasons: of a decision, of a stopped call, of a refused token.
        policy_ids: A decision that one of these policies determined, or would have in the shadow.
        decisions: What belongs to a decision whose id begins so.
        versions: Under a policy version that begins so, with or without its ``sha256:``.
        since: No earlier, unix seconds.
        until: Earlier than that.
    """

    agents: frozenset[str] = frozenset()
    users: frozenset[str] = frozenset()
    tasks: frozenset[str] = frozenset()
    runs: tuple[str, ...] = ()
    tools: frozenset[str] = frozenset()
    kinds: frozenset[str] = frozenset()
    effect: str = ""
    reasons: frozenset[str] = frozenset()
    policy_ids: frozenset[str] = frozenset()
    decisions: tuple[str, ...] = ()
    versions: tuple[str, ...] = ()
    since: float | None = None
    until: float | None = None

    def takes(self, record: Kept) -> bool:
        """Return whether a record is one of them."""
        version = record.text("agentguard.policy.version")
        return all(
            (
                not self.agents or record.text("agentguard.agent.id") in self.agents,
                not self.users or record.text("agentguard.user.id") in self.users,
                not self.tasks or record.text("agentguard.task.id") in self.tasks,
                not self.runs or record.text("agentguard.run.id").startswith(self.runs),
                not self.tools or record.text("gen_ai.tool.name") in self.tools,
                not self.kinds or record.kind in self.kinds,
                not self.effect or record.text("agentguard.decision.effect") == self.effect,
                not self.reasons or not self.reasons.isdisjoint(map(record.text, _REASONS)),
                not self.policy_ids or not self.policy_ids.isdisjoint((*record.policy_ids, *record.shadow_policy_ids)),
                not self.decisions or record.text("agentguard.decision.id").startswith(self.decisions),
                not self.versions or version.startswith(self.versions) or _digest(version).startswith(self.versions),
                self.since is None or record.at >= self.since,
                self.until is None or record.at < self.until,
            )
        )


def part_of(records: Iterable[Kept], selection: Selection) -> list[Kept]:
    """Return a part of the records that tells a story of its own.

    What became of a call belongs to its decision, and how a run ended to the run, whenever
    that was: cut off, a call would look as if it had none, and a run as if it still lasted.
    """
    kept = list(records)
    taken = [record for record in kept if selection.takes(record) and record.kind != RecordKind.OUTCOME]
    decisions = {record.text("agentguard.decision.id") for record in taken} - {""}
    decided = {record.text("agentguard.decision.id") for record in kept if record.kind == RecordKind.DECISION}
    runs = {_run(record) for record in taken} - {("", "")}
    more = [
        record
        for record in kept
        if (record.kind == RecordKind.OUTCOME and _belongs(record, decisions, decided, selection))
        or (record.kind == RecordKind.RUN and _run(record) in runs and not selection.takes(record))
    ]
    return [*taken, *more]


def _belongs(outcome: Kept, decisions: set[str], decided: set[str], selection: Selection) -> bool:
    """Return whether an outcome is of a decision that was taken, or of none at all, which has to be seen."""
    decision = outcome.text("agentguard.decision.id")
    return decision in decisions or (decision not in decided and selection.takes(outcome))


def _run(record: Kept) -> tuple[str, str]:
    return record.text("agentguard.invocation.issuer"), record.text("agentguard.run.id")


# Of the arguments that are kept; --json shows all.
_INPUTS: Final = 1_000
_REFUSED: Final = ("agentguard.policy.refused", "agentguard.shadow.policy.refused")
_CREDENTIAL: Final = ("agentguard.credential.name", "agentguard.credential.place")
# What a tool that wants a credential is judged by.
_ISSUE: Final = "credentials/issue"
# Where a record has, in one word, what it says.
_VERDICTS: Final[Mapping[str, str]] = {
    RecordKind.DECISION: "agentguard.decision.effect",
    RecordKind.OUTCOME: "agentguard.execution.outcome",
    RecordKind.RUN: "agentguard.run.state",
    RecordKind.CREDENTIAL: "agentguard.credential.event",
}
_REASONS: Final = ("agentguard.decision.reason", "agentguard.execution.reason")


def _digest(version: str) -> str:
    return version.rpartition(":")[2]


def by(record: Kept) -> str:
    """Return, in few words, what a record comes down to: by which policy, or why, or to what."""
    if record.kind == RecordKind.DECISION:
        named = [id_ for id_ in record.policy_ids if ":" not in id_]
        reason = record.text("agentguard.decision.reason")
        return ", ".join(named) if named and reason in {Reason.PERMIT, Reason.POLICY} else reason
    if record.kind == RecordKind.OUTCOME:
        return record.text("agentguard.execution.reason") or record.text("error.type")
    if record.kind == RecordKind.RUN:
        return record.text("agentguard.run.reason")
    if record.kind == RecordKind.REFUSED_TOKEN:
        refused = int(record.number("agentguard.tokens.refused") or 1)
        return f"{refused:,} of {record.text('agentguard.decision.reason')}"
    if record.kind == RecordKind.SHADOW:
        return _shadow_by(record)
    plain = next(filter(None, map(record.text, (*_REFUSED, "agentguard.policy.label"))), "")
    return plain or ", ".join(filter(None, map(record.text, _CREDENTIAL)))


def _shadow_by(record: Kept) -> str:
    """Return what would have been decided otherwise, and by which policies, and in place of what."""
    ids = record.attributes.get("agentguard.shadow.policy.ids")
    named = [id_ for id_ in ids if ":" not in id_] if isinstance(ids, tuple) else []
    would, was = record.text("agentguard.shadow.effect"), record.text("agentguard.decision.effect")
    why = ", ".join(named) or record.text("agentguard.shadow.reason")
    instead = was if would != was else record.text("agentguard.decision.reason")
    return f"{would}{f': {why}' if why else ''}, not {instead}"


def acted(record: Kept) -> str:
    """Return what a record says was done: by which tool, or which action it was where that is no tool."""
    if record.text("agentguard.action.id") == _ISSUE:
        # The tool is the one that wanted it, and its own decision stands beside this one.
        return f"{_ISSUE} {record.text('agentguard.resource.id')}".rstrip()
    names = ("gen_ai.tool.name", "agentguard.action.id", "mcp.method.name")
    return next(filter(None, map(record.text, names)), "")


def explained(record: Kept) -> str:
    """Return a decision in a line: its id and reason, the policies, what did not fit, the arguments that are kept."""
    policies = ", ".join(record.policy_ids)
    link, depth = record.number("agentguard.decision.link"), record.number("agentguard.delegation.depth")
    return "".join(
        (
            f"{record.text('agentguard.decision.id')}: {record.text('agentguard.decision.reason')}",
            f", by {policies}" if policies else "",
            f": {detail}" if (detail := record.text("agentguard.decision.detail")) else "",
            f"; {inputs}" if (inputs := _shown(record.inputs)) else "",
            f"; run: {done}" if (done := _shown(_said(state_of(record)))) else "",
            "" if link is None or depth is None else f"; denied for run {link + 1:.0f} of {depth + 1:.0f}",
        )
    )


def _said(state: Mapping[str, object] | None) -> dict[str, object]:
    """Return of what a run had done what there is to say: no label and no total is nothing."""
    return {name: value for name, value in (state or {}).items() if value not in (None, [], {})}


def _shown(inputs: Mapping[str, object]) -> str:
    return visible(", ".join(f"{name}={canonical_json(value)}" for name, value in sorted(inputs.items())), _INPUTS)


def verdict(record: Kept) -> str:
    """Return, in one word, what a record says."""
    if record.kind in _VERDICTS:
        return record.text(_VERDICTS[record.kind])
    if record.kind == RecordKind.REFUSED_TOKEN or any(map(record.text, _REFUSED)):
        return "refused"
    return "stopped" if record.kind == RecordKind.CREDENTIAL_LEAK else record.kind


def is_quiet(record: Kept) -> bool:
    """Return whether a table for people leaves a record out: it says only that all goes on."""
    if record.kind == RecordKind.OUTCOME:
        return record.text("agentguard.execution.outcome") == "completed"
    return record.kind == RecordKind.HEAD
