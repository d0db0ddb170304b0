"""A collector's export, read back as records.

The file exporter of the OpenTelemetry Collector writes one ``ExportTraceServiceRequest``
a line, in the JSON of OTLP: ids in hex, 64-bit numbers as text. A decision's span becomes
a decision's record, an execution's an outcome's, a run's the end of a run. Spans of
others are not looked at.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from agentguard.evidence.kept import TYPES, Kept, UnfitRecordError, nanoseconds, typed
from agentguard.evidence.vocabulary import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from agentguard.evidence.vocabulary import AttributeValue

# What the names of our spans begin with; what follows is a tool, an agent or nothing.
_KINDS: Final = {
    "agentguard.authorize": RecordKind.DECISION.value,
    "agentguard.execute": RecordKind.OUTCOME.value,
    "agentguard.run": RecordKind.RUN.value,
}
_OURS: Final = "agentguard."
_HEX: Final = {"traceId": re.compile("[0-9a-f]{32}"), "spanId": re.compile("[0-9a-f]{16}")}
_INTEGER: Final = re.compile(r"-?[0-9]{1,19}")
_EVIDENCE: Final = "agentguard.evidence."
# What a record without a span of its own is delivered as, with its kind behind it.
_OTHER: Final = "agentguard.evidence"
_PLACE: Final = frozenset(f"{_EVIDENCE}{part}" for part in ("chain_id", "seq", "hash", "prev_hash"))


def records_of_line(line: bytes, source: str, tell: Callable[[str], None]) -> Iterator[Kept]:
    """Yield the records that one line of an export shows.

    Args:
        line: The line.
        source: Its file and number.
        tell: Is told what is wrong with a span, and that span is left out.

    Raises:
        UnfitRecordError: The line is no export of spans.
    """
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        message = "is not JSON"
        raise UnfitRecordError(message) from None
    if not isinstance(request, dict) or not isinstance(request.get("resourceSpans"), list):
        message = "is no export of spans: wants an ExportTraceServiceRequest a line"
        raise UnfitRecordError(message)
    for span in _spans(request, source, tell):
        try:
            record = _record(span, source)
        except UnfitRecordError as error:
            tell(f"{source}: a span {error}")
        else:
            if record is not None:
                yield record


def _spans(request: Mapping[str, Any], source: str, tell: Callable[[str], None]) -> Iterator[object]:
    for resource in request["resourceSpans"]:
        for scope in _list(resource, "scopeSpans", source, tell):
            yield from _list(scope, "spans", source, tell)


def _list(parent: object, name: str, source: str, tell: Callable[[str], None]) -> list[object]:
    # What is empty may be left out in the JSON of protocol buffers.
    found = parent.get(name, []) if isinstance(parent, dict) else None
    if isinstance(found, list):
        return found
    tell(f"{source}: `{name}` wants a list")
    return []


def _record(span: object, source: str) -> Kept | None:
    """Return the record that a span shows; None for a span of others."""
    if not isinstance(span, dict) or not isinstance(span.get("name"), str):
        message = "has no name"
        raise UnfitRecordError(message)
    named, _, rest = span["name"].partition(" ")
    if not named.startswith(_OURS):
        return None
    attributes = _attributes(span.get("attributes", []))
    kind = rest if named == _OTHER else _KINDS.get(named, named.removeprefix(_OURS))
    own = {name.removeprefix(_EVIDENCE): value for name, value in attributes.items() if name in _PLACE}
    seen = {name: value for name, value in attributes.items() if name not in _PLACE}
    end = seen.get("agentguard.run.end")
    if kind == RecordKind.RUN and isinstance(end, str):
        seen["agentguard.run.state"] = end
    return Kept(
        kind=kind,
        time_unix_nano=nanoseconds(_integer(span.get("endTimeUnixNano"))),
        attributes=seen,
        trace_id=_id(span, "traceId"),
        span_id=_id(span, "spanId"),
        chain_id=str(own.get("chain_id", "")),
        seq=int(own.get("seq", 0)),  # type: ignore[arg-type]
        hash=str(own.get("hash", "")),
        prev_hash=str(own.get("prev_hash", "")),
        source=source,
    )


def _attributes(found: object) -> dict[str, AttributeValue]:
    if not isinstance(found, list):
        message = "has no list of attributes"
        raise UnfitRecordError(message)
    kept: dict[str, AttributeValue] = {}
    for pair in found:
        if not isinstance(pair, dict) or not isinstance(pair.get("key"), str):
            message = "has an attribute without a key"
            raise UnfitRecordError(message)
        name = pair["key"]
        if name not in TYPES and not name.startswith(_OURS):
            continue
        if name in kept:
            message = f"has `{name[:64]}` twice"
            raise UnfitRecordError(message)
        kept[name] = typed(name, _value(pair.get("value")))
    return kept


def _value(found: object) -> object:
    """Return the value of an ``AnyValue``, or what fits no type if it is none of ours."""
    if not isinstance(found, dict) or len(found) != 1:
        return None
    ((kind, value),) = found.items()
    if kind in {"stringValue", "boolValue"}:
        return value
    if kind == "intValue":
        return _integer(value)
    if kind == "doubleValue":
        return value if type(value) in {int, float} else None
    if kind == "arrayValue" and isinstance(value, dict):
        values = value.get("values", [])
        # None of ours holds anything but texts, and what is nested could be so without end.
        return tuple(map(_text, values)) if isinstance(values, list) else None
    return None


def _text(found: object) -> object:
    return found.get("stringValue") if isinstance(found, dict) and len(found) == 1 else None


def _integer(value: object) -> object:
    if isinstance(value, str) and _INTEGER.fullmatch(value):
        return int(value)
    return value if type(value) is int else None


def _id(span: Mapping[str, object], name: str) -> str:
    value = span.get(name)
    if not isinstance(value, str) or _HEX[name].fullmatch(value.lower()) is None:
        message = f"has no `{name}`"
        raise UnfitRecordError(message)
    return value.lower()
