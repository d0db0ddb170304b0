"""What is kept of what the runs of a chain had done, as a decision rests on it, and of which of them was denied.

Pure, as `evidence.record` is.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from agentguard.evidence.record import UNCONFIRMED, wire_text
from agentguard.model import Reason, canonical_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.evidence.kept import Kept
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.model import Decision, Invocation

_ABOVE_CHARACTERS: Final = 16_384
_STATE: Final = "agentguard.run_state"
_PLAIN: Final = {"calls": int, "calls_of_this_tool": int, "denied": int, "shared": bool, "started_at": str}
_OF_A_LINK: Final = frozenset((Reason.POLICY, Reason.NO_PERMIT, Reason.GRANT, Reason.POLICY_ERROR))
_LIFTABLE: Final = frozenset((Reason.APPROVAL_REQUIRED, Reason.APPROVAL_DECLINED, Reason.APPROVAL_UNAVAILABLE))


def run_state_attributes(run: object, above: Sequence[Mapping[str, Any]] = ()) -> dict[str, AttributeValue]:
    """Return what is kept of what a run had done, as a decision rests on it.

    Args:
        run: ``context.run``, as Cedar JSON; None where nothing was judged.
        above: The same for each run that delegated to it, root first.
    """
    if not isinstance(run, dict):
        return {}
    found: dict[str, AttributeValue] = {
        f"{_STATE}.calls": run["calls"],
        f"{_STATE}.calls_of_this_tool": run["calls_of_this_tool"],
        f"{_STATE}.denied": run["denied"],
        f"{_STATE}.shared": run["shared"],
        f"{_STATE}.started_at": run["started_at"]["__extn"]["arg"],
    }
    if run["labels"]:
        found[f"{_STATE}.labels"] = tuple(wire_text(label) for label in run["labels"])
    if run["spent"]:
        found[f"{_STATE}.spent"] = tuple(
            f"{total}={units['__extn']['arg']}" for total, units in sorted(run["spent"].items())
        )
    text = canonical_json([_plain_state(one) for one in above]) if above else ""
    # What is cut in two is no JSON, so what is too long is not kept: it is not known then.
    if text and len(text) <= _ABOVE_CHARACTERS:
        found[f"{_STATE}.above"] = text
    return found


def _plain_state(run: Mapping[str, Any]) -> dict[str, object]:
    """Return ``context.run`` with texts in place of Cedar's calls."""
    spent = {total: units["__extn"]["arg"] for total, units in run["spent"].items()}
    return {**run, "spent": spent, "started_at": run["started_at"]["__extn"]["arg"]}


def link_attributes(decision: Decision, invocation: Invocation | None) -> dict[str, AttributeValue]:
    """Return what is kept of which run of a chain it is that a delegated call was denied for; nothing of others."""
    if invocation is None or not invocation.ancestors or decision.errors == (UNCONFIRMED,):
        return {}
    # Without a policy, it is no link that such an answer of a person, or of nobody, is about.
    asked = decision.reason in _LIFTABLE and bool(decision.policy_ids)
    return {"agentguard.decision.link": decision.link} if asked or decision.reason in _OF_A_LINK else {}


def state_of(record: Kept) -> dict[str, object] | None:
    """Return what a run had done, under the names that policies have for it; None if a record does not say it.

    What of it the record does not say, or says as what it cannot be, is None.
    """
    written = {name: record.attributes.get(f"{_STATE}.{name}") for name in _PLAIN}
    if not record.text(f"{_STATE}.started_at"):
        # It is there whenever something was judged by what the run had done.
        return None
    labels = record.attributes.get(f"{_STATE}.labels", ())
    spent = record.attributes.get(f"{_STATE}.spent", ())
    totals = [str(one).partition("=") for one in spent] if isinstance(spent, tuple) else []
    return _read(
        {
            **written,
            "labels": list(labels) if isinstance(labels, tuple) else labels,
            "spent": {total: units for total, equals, units in totals if equals},
        }
    )


def states_above(record: Kept) -> tuple[dict[str, object], ...] | None:
    """Return the same of each run that delegated to it, root first; None if a record does not say it of all."""
    try:
        found = json.loads(record.text(f"{_STATE}.above"))
    except (ValueError, RecursionError):
        return None
    whole = isinstance(found, list) and all(isinstance(one, dict) for one in found)
    if not whole or len(found) != record.number("agentguard.delegation.depth"):
        return None
    return tuple(map(_read, found))


def _read(written: Mapping[str, object]) -> dict[str, object]:
    """Return a state with None in place of what cannot be: evidence can be forged."""
    labels, spent = written.get("labels"), written.get("spent")
    texts = isinstance(labels, list) and all(isinstance(one, str) for one in labels)
    totals = isinstance(spent, dict) and all(isinstance(one, str) for one in spent.values())
    return {
        **{name: value if type(value := written.get(name)) is kind else None for name, kind in _PLAIN.items()},
        "labels": labels if texts else None,
        "spent": spent if totals else None,
    }
