"""What one kept record looks like as a span: the same each time, so that sending it twice adds nothing.

A record that has a span of its own keeps that span's ids, name, parent and begin. Every
other one becomes a span ``agentguard.evidence {kind}``, whose id is taken from the
record's hash. No sampler, queue or limit of attributes comes in between.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from agentguard.evidence.kept import TYPES, UnfitRecordError, kept_of
from agentguard.evidence.ledger import evidence_attributes
from agentguard.evidence.spans import AGENT, GUARDRAIL, TOOL
from agentguard.evidence.vocabulary import Outcome, RecordKind, RunEnd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.evidence.kept import Kept
    from agentguard.evidence.ledger import Entry
    from agentguard.evidence.vocabulary import AttributeValue

_KINDS: Final[Mapping[str, Mapping[str, AttributeValue]]] = {
    RecordKind.DECISION: GUARDRAIL,
    RecordKind.OUTCOME: TOOL,
    RecordKind.RUN: AGENT,
}
_ENDS: Final = frozenset(end.value for end in RunEnd)
_KIND: Final = re.compile(r"[a-z_]{1,32}")
_NAME: Final = re.compile(r"agentguard\.(authorize|execute|run)( .{1,1000})?", re.DOTALL)
_TRACE: Final = re.compile(r"(?!0{32})[0-9a-f]{32}")
_SPAN: Final = re.compile(r"(?!0{16})[0-9a-f]{16}")
_LINK: Final = re.compile(r"([0-9a-f]{32})-([0-9a-f]{16})")


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardedSpan:
    """A span that is built from a record.

    Attributes:
        trace_id: Hex, as the other ids are.
        span_id: No other record's span has it.
        parent_span_id: Empty if there is none.
        name: ``agentguard.…``.
        start: When it began, unix nanoseconds.
        end: When it ended.
        attributes: All of them, and none that is not in the table.
        failed: Whether the tool failed. A denial is no failure.
        links: Trace and span ids.
    """

    trace_id: str
    span_id: str
    parent_span_id: str = ""
    name: str
    start: int
    end: int
    attributes: Mapping[str, AttributeValue]
    failed: bool = False
    links: tuple[tuple[str, str], ...] = ()


def span_of(entry: Entry) -> ForwardedSpan:
    """Return the one span of a record, whatever the record says."""
    try:
        kept = kept_of(entry)
    except UnfitRecordError:
        # Somebody wrote it who is not of ours; that it is there is evidence all the same.
        return _of_hash(entry, kind="unfit", end=0, attributes=evidence_attributes(entry))
    attributes = {name: value for name, value in kept.attributes.items() if name in TYPES}
    attributes.update(_KINDS.get(kept.kind, {}))
    attributes.update(evidence_attributes(entry))
    own = _own_span(kept, entry.record, attributes)
    if own is not None:
        return own
    kind = kept.kind if _KIND.fullmatch(kept.kind) else "unfit"
    # Where it belongs to another record's span, it stands below that.
    known = _TRACE.fullmatch(kept.trace_id) and _SPAN.fullmatch(kept.span_id)
    trace_id, parent = (kept.trace_id, kept.span_id) if known else ("", "")
    return _of_hash(
        entry, kind=kind, end=kept.time_unix_nano, attributes=attributes, trace_id=trace_id, parent_span_id=parent
    )


def _own_span(kept: Kept, record: Mapping[str, Any], attributes: dict[str, AttributeValue]) -> ForwardedSpan | None:
    """Return the span that a record names as its own, if it does."""
    name = record.get("span_name")
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return None
    if not _TRACE.fullmatch(kept.trace_id) or not _SPAN.fullmatch(kept.span_id):
        return None
    end = kept.time_unix_nano
    start = record.get("start_time_unix_nano")
    if type(start) is not int:
        start = end - round((kept.number("agentguard.execution.duration") or 0.0) * 1e9)
    state = kept.text("agentguard.run.state")
    if kept.kind == RecordKind.RUN and state in _ENDS:
        attributes["agentguard.run.end"] = state
    parent = record.get("parent_span_id")
    return ForwardedSpan(
        trace_id=kept.trace_id,
        span_id=kept.span_id,
        parent_span_id=parent if isinstance(parent, str) and _SPAN.fullmatch(parent) else "",
        name=name,
        start=min(max(start, 0), end),
        end=end,
        attributes=attributes,
        failed=attributes.get("agentguard.execution.outcome") == Outcome.FAILED,
        links=_links(record.get("links")),
    )


def _links(found: object) -> tuple[tuple[str, str], ...]:
    links = found if isinstance(found, list) else ()
    read = (_LINK.fullmatch(link) for link in links if isinstance(link, str))
    return tuple((link[1], link[2]) for link in read if link)


def _of_hash(
    entry: Entry,
    *,
    kind: str,
    end: int,
    attributes: Mapping[str, AttributeValue],
    trace_id: str = "",
    parent_span_id: str = "",
) -> ForwardedSpan:
    return ForwardedSpan(
        trace_id=trace_id or entry.hash[:32],
        span_id=entry.hash[32:48],
        parent_span_id=parent_span_id,
        name=f"agentguard.evidence {kind}",
        start=end,
        end=end,
        attributes=attributes,
        failed=attributes.get("agentguard.execution.outcome") == Outcome.FAILED,
    )
