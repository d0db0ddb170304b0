"""Decisions as events of the Open Cybersecurity Schema Framework, for a SIEM.

Each decision is one API Activity, class 6003 of OCSF 1.6.0, with the facts of the profile
``security_control``. What OCSF has no place for stands under ``unmapped``, by the names of
our own table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from agentguard.evidence.reporting.story import OVER, REASONS
from agentguard.evidence.showing import acted, by
from agentguard.evidence.vocabulary import Outcome, RecordKind
from agentguard.model import Effect, Reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agentguard.evidence.kept import Kept

VERSION: Final = "1.6.0"
"""The version of OCSF."""

_CATEGORY, _CLASS, _OTHER = 6, 6003, 99
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = (1, "Informational"), (2, "Low"), (3, "Medium"), (4, "High")
_ALLOWED, _BLOCKED, _ACCESS_REVOKED = (1, "Allowed"), (2, "Blocked"), (24, "Access Revoked")
_UNAUTHORIZED, _ERROR = (26, "Unauthorized"), (27, "Error")

_UNKNOWN: Final = "unidentified"

# What the guard could not do its work for: a denial that says more of us than of the caller.
_FAILED: Final = frozenset(
    (Reason.EVIDENCE_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.POLICY_ERROR)
)
_STRANGER: Final = frozenset((Reason.UNAUTHENTICATED, Reason.INVALID_TOKEN))

# What stands elsewhere in the event.
_MAPPED: Final = frozenset(
    (
        "agentguard.decision.id",
        "agentguard.decision.effect",
        "agentguard.decision.reason",
        "agentguard.policy.version",
        "agentguard.policy.label",
        "agentguard.policy.ids",
        "agentguard.policy.id",
        "agentguard.agent.id",
        "agentguard.user.id",
        "agentguard.run.id",
        "agentguard.run.ends_at",
        "agentguard.invocation.issuer",
        "agentguard.resource.type",
        "agentguard.resource.id",
        "gen_ai.tool.name",
        "jsonrpc.request.id",
        "mcp.method.name",
    )
)


def ocsf_events(records: Iterable[Kept], *, version: str) -> Iterator[dict[str, Any]]:
    """Yield an event for each decision.

    Args:
        records: Records; those of other kinds give no event, but the outcome of a call
            is told with its decision if it comes along.
        version: The version of what writes them.
    """
    kept = list(records)
    outcomes = {one.text("agentguard.decision.id"): one for one in kept if one.kind == RecordKind.OUTCOME}
    for record in kept:
        if record.kind == RecordKind.DECISION:
            yield _event(record, outcomes.get(record.text("agentguard.decision.id")), version)


def _event(record: Kept, outcome: Kept | None, version: str) -> dict[str, Any]:
    text = record.text
    allowed = text("agentguard.decision.effect") == Effect.ALLOW
    reason = text("agentguard.decision.reason")
    tool = acted(record)
    stopped_by = outcome.text("agentguard.execution.reason") if allowed and outcome is not None else ""
    severity = _severity(reason, outcome, stopped_by, allowed=allowed)
    disposition = _disposition(reason, stopped_by, allowed=allowed)
    event: dict[str, Any] = _without_empty(
        {
            "category_uid": _CATEGORY,
            "category_name": "Application Activity",
            "class_uid": _CLASS,
            "class_name": "API Activity",
            "activity_id": _OTHER,
            "activity_name": text("mcp.method.name") or "call",
            "type_uid": _CLASS * 100 + _OTHER,
            "type_name": "API Activity: Other",
            "time": record.time_unix_nano // 1_000_000,
            "severity_id": severity[0],
            "severity": severity[1],
            "status_id": 1 if allowed else 2,
            "status": "Success" if allowed else "Failure",
            "status_code": reason,
            "status_detail": REASONS.get(stopped_by or reason, ""),
            "message": f"{'allowed' if allowed else 'denied'} {tool}: {by(record)}"
            + (f", stopped: {REASONS.get(stopped_by, stopped_by)}" if stopped_by else ""),
            "action_id": 1 if allowed else 2,
            "action": "Allowed" if allowed else "Denied",
            "disposition_id": disposition[0],
            "disposition": disposition[1],
            "is_alert": severity[0] >= _MEDIUM[0],
            "policy": _policy(record),
            "authorizations": [
                {"decision": text("agentguard.decision.effect"), "policy": {"uid": id_, "type": "Cedar"}}
                for id_ in _determining(record)
            ],
            "actor": _actor(record),
            "api": {
                "operation": tool or "unknown",
                "group": {"name": text("mcp.method.name")} if text("mcp.method.name") else None,
                "service": {"name": "MCP"},
                "request": {"uid": text("jsonrpc.request.id")} if text("jsonrpc.request.id") else None,
            },
            "src_endpoint": {"svc_name": text("agentguard.agent.id") or _UNKNOWN},
            "resources": [{"type": text("agentguard.resource.type"), "uid": text("agentguard.resource.id")}]
            if text("agentguard.resource.type")
            else None,
            "metadata": _metadata(record, version),
            "unmapped": _unmapped(record, outcome),
        }
    )
    return event


def _severity(reason: str, outcome: Kept | None, stopped_by: str, *, allowed: bool) -> tuple[int, str]:
    if allowed:
        withheld = outcome is not None and outcome.text("agentguard.execution.outcome") == Outcome.WITHHELD
        if withheld:
            # The tool may have had its effect after its run was ended.
            return _HIGH
        return _LOW if stopped_by in OVER else _INFORMATIONAL
    return _MEDIUM if reason in _FAILED | _STRANGER else _LOW


def _disposition(reason: str, stopped_by: str, *, allowed: bool) -> tuple[int, str]:
    if allowed:
        # It was allowed, and did not come to its end with the authority that it had then.
        return _ACCESS_REVOKED if stopped_by in OVER else _ALLOWED
    if reason in _FAILED:
        return _ERROR
    if reason in _STRANGER:
        return _UNAUTHORIZED
    return _ACCESS_REVOKED if reason in OVER else _BLOCKED


def _policy(record: Kept) -> dict[str, Any] | None:
    version = record.text("agentguard.policy.version")
    if not version:
        return None
    named = next(iter(_determining(record)), "")
    return {
        "type": "Cedar",
        "uid": named,
        "version": version,
        "desc": record.text("agentguard.policy.label"),
        "is_applied": True,
    }


def _determining(record: Kept) -> Sequence[str]:
    """Return the policies that decided; a grant that permits too little has none of its own to name."""
    if record.policy_ids or record.text("agentguard.decision.reason") != Reason.GRANT:
        return record.policy_ids
    # The record of a run with others above it does not say whose grant it was.
    return ("grant" if record.number("agentguard.delegation.depth") else "grant:0",)


def _actor(record: Kept) -> dict[str, Any]:
    user, run = record.text("agentguard.user.id"), record.text("agentguard.run.id")
    ends_at = record.number("agentguard.run.ends_at")
    session = {
        "uid": run,
        "issuer": record.text("agentguard.invocation.issuer"),
        "expiration_time": None if ends_at is None else int(ends_at * 1000),
    }
    return {
        "app_name": record.text("agentguard.agent.id") or _UNKNOWN,
        "user": {"uid": user, "name": user} if user else None,
        "session": session if run else None,
    }


def _metadata(record: Kept, version: str) -> dict[str, Any]:
    return {
        "version": VERSION,
        "product": {"name": "agentguard", "vendor_name": "agentguard", "version": version},
        "profiles": ["security_control"],
        "uid": record.text("agentguard.decision.id"),
        "correlation_uid": record.trace_id,
        "log_name": record.chain_id,
        "sequence": record.seq or None,
    }


def _unmapped(record: Kept, outcome: Kept | None) -> dict[str, Any]:
    kept = {name: value for name, value in record.attributes.items() if name not in _MAPPED}
    if outcome is not None:
        kept |= {name: value for name, value in outcome.attributes.items() if name.startswith("agentguard.execution.")}
    if record.hash:
        kept["agentguard.evidence.hash"] = record.hash
    if record.span_id:
        kept["span_id"] = record.span_id
    return kept


def _without_empty(value: Any) -> Any:
    """Return *value* without what says nothing: OCSF has no empty attributes."""
    if isinstance(value, dict):
        kept = {name: _without_empty(one) for name, one in value.items()}
        return {name: one for name, one in kept.items() if one not in (None, "", [], {})}
    if isinstance(value, list):
        return [_without_empty(one) for one in value]
    return value
