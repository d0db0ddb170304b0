"""What a run had done before a call, as far as the call's record says."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from agentguard.policy.extensions import units_in
from agentguard.policy.scalars import LONG_MAX
from agentguard.policy.values import decimal_json

if TYPE_CHECKING:
    from collections.abc import Collection

    from agentguard.evidence.kept import Kept
    from agentguard.policy.looks import Path

RUN: Final = ("context", "run")
"""All that a run has done."""

_STATE: Final = "agentguard.run_state"
_COUNTS: Final = ("calls", "calls_of_this_tool", "denied")
_SPENT: Final = re.compile(r"([^=]+)=([0-9]+\.[0-9]{4})")


def done_before(record: Kept, totals: Collection[str]) -> tuple[dict[str, object] | None, set[Path]]:
    """Return what is known of ``context.run``, and what of it is not.

    Args:
        record: The record of a decision. Evidence can be forged: what cannot be is not believed.
        totals: The totals of the server's tools.

    Returns:
        Cedar JSON of what is known, None if nothing is; and the paths that are not.
    """
    began = record.text(f"{_STATE}.started_at")
    if units_in("datetime", began) is None:
        # It is there whenever something was judged by what the run had done.
        return None, {RUN}
    unknown: set[Path] = set()
    known: dict[str, object] = {"started_at": {"__extn": {"fn": "datetime", "arg": began}}}
    for name in _COUNTS:
        count = record.attributes.get(f"{_STATE}.{name}")
        if type(count) is int and 0 <= count <= LONG_MAX:
            known[name] = count
        else:
            unknown.add((*RUN, name))
    shared = record.attributes.get(f"{_STATE}.shared")
    if isinstance(shared, bool):
        known["shared"] = shared
    else:
        unknown.add((*RUN, "shared"))
    labels = record.attributes.get(f"{_STATE}.labels", ())
    known["labels"] = list(labels) if isinstance(labels, tuple) else []
    spent = _spent(record)
    known["spent"] = {total: decimal_json(spent[total]) for total in totals if total in spent}
    unknown |= {(*RUN, "spent", total) for total in totals if total not in spent}
    return known, unknown


def _spent(record: Kept) -> dict[str, int]:
    found: dict[str, int] = {}
    written = record.attributes.get(f"{_STATE}.spent", ())
    for one in written if isinstance(written, tuple) else ():
        match = _SPENT.fullmatch(one)
        units = None if match is None else units_in("decimal", match[2])
        if match is not None and units is not None:
            found[match[1]] = units
    return found
