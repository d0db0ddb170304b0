"""What a run had done before a call, as far as the call's record says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from agentguard.evidence.runstate import state_of, states_above
from agentguard.lifecycle.tally import is_label
from agentguard.policy.conversion.extensions import units_in
from agentguard.policy.conversion.scalars import LONG_MAX
from agentguard.policy.conversion.values import decimal_json

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agentguard.evidence.kept import Kept
    from agentguard.policy.deciding.looks import Path

RUN: Final = ("context", "run")
"""All that a run has done."""

_COUNTS: Final = ("calls", "calls_of_this_tool", "denied")
_UNITS: Final = re.compile(r"[0-9]+\.[0-9]{4}")


def done_before(record: Kept, totals: Collection[str]) -> tuple[dict[str, object] | None, set[Path]]:
    """Return what is known of ``context.run``, and what of it is not.

    Args:
        record: The record of a decision. Evidence can be forged: what cannot be is not believed.
        totals: The totals of the server's tools.

    Returns:
        Cedar JSON of what is known, None if nothing is; and the paths that are not.
    """
    return _known(state_of(record), totals)


def done_above(record: Kept, totals: Collection[str], depth: int) -> list[tuple[dict[str, object] | None, set[Path]]]:
    """Return the same of each run that delegated to it, root first.

    Args:
        record: The record of a decision.
        totals: The totals of the server's tools.
        depth: How many there are.
    """
    return [_known(state, totals) for state in states_above(record) or [None] * depth]


def _known(state: Mapping[str, object] | None, totals: Collection[str]) -> tuple[dict[str, object] | None, set[Path]]:
    began = None if state is None else state["started_at"]
    if state is None or not isinstance(began, str) or units_in("datetime", began) is None:
        return None, {RUN}
    unknown: set[Path] = set()
    known: dict[str, object] = {"started_at": {"__extn": {"fn": "datetime", "arg": began}}}
    for name in _COUNTS:
        count = state[name]
        if isinstance(count, int) and 0 <= count <= LONG_MAX:
            known[name] = count
        else:
            unknown.add((*RUN, name))
    if isinstance(state["shared"], bool):
        known["shared"] = state["shared"]
    else:
        unknown.add((*RUN, "shared"))
    labels = state["labels"]
    if isinstance(labels, list) and all(map(is_label, labels)):
        known["labels"] = labels
    else:
        unknown.add((*RUN, "labels"))
    spent = _spent(state["spent"])
    known["spent"] = {total: decimal_json(spent[total]) for total in totals if total in spent}
    unknown |= {(*RUN, "spent", total) for total in totals if total not in spent}
    return known, unknown


def _spent(written: object) -> dict[str, int]:
    found: dict[str, int] = {}
    for total, text in written.items() if isinstance(written, dict) else ():
        units = units_in("decimal", text) if _UNITS.fullmatch(text) else None
        if units is not None:
            found[total] = units
    return found
