"""An explanation as a JSON document, under names that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.analysis.explanations.changes import Value
from agentguard.analysis.known import ABSENT
from agentguard.analysis.notation import entity_text, of_units, path_text, written
from agentguard.cli.explained import WEEKDAYS, local_time
from agentguard.evidence.showing import row_of
from agentguard.evidence.words import iso
from agentguard.model import naming

if TYPE_CHECKING:
    from collections.abc import Sequence
    from zoneinfo import ZoneInfo

    from agentguard.analysis.explanations.changes import Change, Span
    from agentguard.analysis.explanations.conditions import Condition
    from agentguard.analysis.explanations.explain import Answered, Explanation, Found, LinkFound
    from agentguard.analysis.explanations.mended import Mended
    from agentguard.analysis.explanations.onrecord import OnRecord
    from agentguard.analysis.explanations.suggestions import Suggestion
    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.evidence.proof import ProvenChain
    from agentguard.model import Invocation


def explanation_json(found: Explanation, version: str, *, call: SupposedCall | None = None) -> dict[str, object]:
    """Return the explanation of a call that somebody supposed, by the policies of a version."""
    verdict = found.verdict
    return {
        "effect": verdict.effect.value,
        "reason": verdict.reason.value,
        "meaning": found.meaning or None,
        "policies": list(verdict.policy_ids),
        "errors": list(verdict.errors),
        "advice": verdict.advice,
        "early": verdict.early,
        **({} if call is None else _when(call.now, call.time_zone)),
        "policy_version": version,
        "answers": [_answer(answer) for answer in found.answers],
        "suggestions": [_suggestion(suggestion) for suggestion in found.suggestions],
        "facts_may_change": found.loose,
        "policy_changes": [_mended(one) for one in found.mended],
    }


def record_json(found: OnRecord, version: str, chain: ProvenChain | None = None) -> dict[str, object]:
    """Return the explanation of a decision that is on record, by policies of a version, and whether its chain holds."""
    return {
        "record": row_of(found.record),
        "evidence_holds": None if chain is None else chain.whole,
        "policy_version": version,
        "same_version": found.same,
        "meaning": found.meaning or None,
        "why": found.why or None,
        "early": found.early,
        "link": found.place,
        "links": _links(found),
        "delegated": found.delegated,
        "grants_permit": found.grants,
        **_when(found.record.at, found.setting.time_zone),
        "not_on_record": list(found.unknown),
        "suggestions": [_suggestion(suggestion) for suggestion in found.suggestions],
        "policy_changes": [_mended(one) for one in found.mended],
    }


def _links(found: OnRecord) -> list[dict[str, object]]:
    """Return what is told of a chain: the run above that a call was denied for, if it was, and the run itself."""
    if found.link is None:
        return []
    own = {"place": len(found.link.invocation.ancestors), **_link(found.link)}
    # Who acted there is not on record.
    nobody = dict.fromkeys(("agent", "user", "task", "purpose", "grade"))
    return [own] if found.above is None else [{"place": found.place, **_link(found.above), **nobody}, own]


def _when(now: float, zone: ZoneInfo | None) -> dict[str, object]:
    """Return when a call is judged, and where the clocks are that show its day; nothing of a zone that is unknown."""
    weekday = None if zone is None else WEEKDAYS[local_time(now, zone).weekday()]
    return {"now": iso(now), "time_zone": None if zone is None else zone.key, "weekday": weekday}


def _answer(answer: Answered) -> dict[str, object]:
    request, decision = answer.request, answer.decision
    return {
        "action": request.action,
        "resource": entity_text(request.resource.type, request.resource.id),
        "effect": decision.effect.value,
        "reason": decision.reason.value,
        "policies": list(decision.policy_ids),
        "link": decision.link,
        "links": [_link(link) for link in answer.links],
    }


def _link(link: LinkFound) -> dict[str, object]:
    refusal = link.refusal
    return {
        **_who(link.invocation),
        "refused": None
        if refusal is None
        else {"reason": refusal.reason.value, "detail": naming(refusal.detail, refusal.missing)},
        "organisation": _policies(link.organisation),
        "grant": None if link.grant is None else _policies(link.grant),
    }


def _who(invocation: Invocation) -> dict[str, object]:
    return {
        "agent": invocation.agent,
        "user": invocation.user,
        "task": invocation.task,
        "purpose": invocation.purpose,
        "grade": invocation.grade.value,
    }


def _policies(found: Sequence[Found]) -> list[dict[str, object]]:
    return [
        {
            "id": one.id,
            "effect": "permit" if one.permit else "forbid",
            "matched": one.matched,
            "decided": one.decided,
            "error": one.error or None,
            "owner": None if one.policy is None else one.policy.owner,
            "file": None if one.policy is None else one.policy.file,
            "line": None if one.policy is None else one.policy.line,
            "conditions": [_condition(condition) for condition in one.conditions],
        }
        for one in found
    ]


def _condition(condition: Condition) -> dict[str, object]:
    return {
        "place": condition.piece.place,
        "text": condition.text,
        "wanted": condition.piece.wanted,
        "holds": condition.holds,
        "looked_at": condition.looked_at,
        "on_record": not condition.unknown,
        "values": [{"path": path, "value": value} for path, value in condition.values],
    }


def _suggestion(suggestion: Suggestion) -> dict[str, object]:
    return {
        "text": suggestion.text,
        "who": suggestion.who.name.lower(),
        "changes": [_change(change) for change in suggestion.changes],
    }


def _change(change: Change) -> dict[str, object]:
    if not isinstance(change, Value):
        return {"text": change.text, "path": None, "value": None, "at_least": None, "at_most": None}
    span = change.span
    return {
        "text": change.text,
        "path": path_text(change.path),
        "value": None if change.value is ABSENT else written(change.value),
        "at_least": None if span is None else _end(span, span.least),
        "at_most": None if span is None else _end(span, span.most),
    }


def _end(span: Span, units: int | None) -> str | None:
    return None if units is None else written(of_units(span.kind, units))


def _mended(one: Mended) -> dict[str, object]:
    return {
        "text": one.text,
        "without": [policy.id for policy in one.without],
        "owners": list(one.owners),
        "permit": one.permit or None,
    }
