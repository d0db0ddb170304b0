"""One kept record, wherever it was read, and its text in a form that can be shown.

A record holds what callers chose: names of tools, of agents, of tasks. What is shown of
it must neither steer a terminal nor reorder the line that it stands in.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.evidence.vocabulary import ATTRIBUTES, AttributeValue, RecordKind
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.evidence.ledger import Entry

TYPES: Final = {attribute.name: attribute.type for attribute in ATTRIBUTES}
KINDS: Final = frozenset(kind.value for kind in RecordKind)

# The year 9999, past which no calendar goes.
_LAST_SECOND: Final = 253_402_300_799
_INT64: Final = 2**63


class UnfitRecordError(Exception):
    """A record that cannot be one of ours; the message says how."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """One record.

    Attributes:
        kind: What happened, one of `RecordKind`, or a word of a later version.
        time_unix_nano: When, unix nanoseconds.
        attributes: What is kept of it, by the names of the table.
        trace_id: The trace of the span that shows the same, hex; empty if there is none.
        span_id: That span, hex.
        chain_id: The chain that it stands in; empty if its source does not say.
        seq: Its place there, from 1; 0 if its source does not say.
        hash: Its hash, hex; empty if its source does not say.
        prev_hash: The hash before it.
        source: Where it was read: a file, and in it a line or a place.
        inputs: The arguments that the developer named for the record, as they were judged, in
            Cedar JSON; None for one that the call did not have.
    """

    kind: str
    time_unix_nano: int
    attributes: Mapping[str, AttributeValue] = field(default_factory=dict)
    trace_id: str = ""
    span_id: str = ""
    chain_id: str = ""
    seq: int = 0
    hash: str = ""
    prev_hash: str = ""
    source: str = ""
    inputs: Mapping[str, object] = field(default_factory=dict)

    @property
    def at(self) -> float:
        """When, unix seconds."""
        # By a whole number: a float of so many nanoseconds is off before it is divided.
        return self.time_unix_nano / 1_000_000_000

    def text(self, name: str) -> str:
        """Return an attribute that is text; empty if it is absent."""
        value = self.attributes.get(name, "")
        return value if isinstance(value, str) else ""

    def number(self, name: str) -> float | None:
        """Return an attribute that is a number; None if it is absent."""
        value = self.attributes.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    @property
    def policy_ids(self) -> tuple[str, ...]:
        """The ids of the policies that determined a decision."""
        return self._names("agentguard.policy.ids")

    @property
    def shadow_policy_ids(self) -> tuple[str, ...]:
        """The ids of the policies that would have determined it in the shadow."""
        return self._names("agentguard.shadow.policy.ids")

    def _names(self, name: str) -> tuple[str, ...]:
        value = self.attributes.get(name, ())
        return value if isinstance(value, tuple) else ()


def visible(text: str, most: int = 256) -> str:
    """Return *text* as it can be shown: what has no look of its own is replaced, and it is bounded.

    Line breaks, escapes, overriding directions and lone surrogates are among that.
    """
    return printable(text if len(text) <= most else f"{text[: most - 1]}…")


def kept_of(entry: Entry, source: str = "") -> Kept:
    """Return a ledger's entry as a record.

    Args:
        entry: The entry; its hash is not looked at here.
        source: The file that it was read from.

    Raises:
        UnfitRecordError: It is no record of ours.
    """
    try:
        found = json.loads(entry.text)
    except (ValueError, RecursionError):
        message = "is not JSON"
        raise UnfitRecordError(message) from None
    if not isinstance(found, dict) or not isinstance(found.get("kind"), str):
        message = "is no record: it has no kind"
        raise UnfitRecordError(message)
    return Kept(
        kind=found["kind"],
        time_unix_nano=nanoseconds(found.get("time_unix_nano")),
        attributes=_typed(found.get("attributes"), _plain),
        trace_id=_text(found, "trace_id"),
        span_id=_text(found, "span_id"),
        chain_id=entry.chain_id,
        seq=entry.seq,
        hash=entry.hash,
        prev_hash=entry.prev_hash,
        source=source,
        inputs=_inputs(found.get("inputs", {})),
    )


def nanoseconds(value: object) -> int:
    """Return a time, unix nanoseconds.

    Raises:
        UnfitRecordError: It is no time of this era.
    """
    if type(value) is not int or not 0 <= value <= _LAST_SECOND * 1_000_000_000:
        message = "has no time"
        raise UnfitRecordError(message)
    return value


def typed(name: str, value: object) -> AttributeValue:
    """Return an attribute's value, if it is of the type that the table gives it.

    Raises:
        UnfitRecordError: It is not.
    """
    wanted = TYPES.get(name)
    if isinstance(value, bool):
        fits = wanted in {None, "bool"}
    elif isinstance(value, int):
        fits = wanted in {None, "int", "double"} and -_INT64 <= value < _INT64
    elif isinstance(value, float):
        fits = wanted in {None, "double"} and math.isfinite(value)
    elif isinstance(value, str):
        fits = wanted in {None, "string"}
    else:
        fits = isinstance(value, tuple) and wanted in {None, "string[]"} and all(isinstance(one, str) for one in value)
    if not fits:
        message = f"`{visible(name, 64)}` wants {wanted or 'a plain value'}, got {type(value).__name__}"
        raise UnfitRecordError(message)
    return value  # type: ignore[return-value]


def _typed(found: object, read: Callable[[object], object]) -> dict[str, AttributeValue]:
    if not isinstance(found, dict):
        message = "has no attributes"
        raise UnfitRecordError(message)
    return {name: typed(name, read(value)) for name, value in found.items()}


def _inputs(found: object) -> Mapping[str, object]:
    if not isinstance(found, dict):
        message = f"`inputs` wants an object, got {type(found).__name__}"
        raise UnfitRecordError(message)
    return found


def _plain(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _text(found: Mapping[str, object], name: str) -> str:
    value = found.get(name, "")
    if not isinstance(value, str):
        message = f"`{name}` wants a string, got {type(value).__name__}"
        raise UnfitRecordError(message)
    return value
