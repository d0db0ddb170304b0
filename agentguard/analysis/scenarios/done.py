"""What a run is supposed to have done before a call: `run` of an identity, or of a case."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from agentguard.analysis.doing import THIS_TOOL
from agentguard.analysis.scenarios.fields import Fields, id_of, typed
from agentguard.analysis.scenarios.yamltext import mistake, shown
from agentguard.lifecycle.tally import is_label
from agentguard.policy.conversion.scalars import units_of_json
from agentguard.policy.problem import did_you_mean
from agentguard.policy.schemas.types import CedarType

if TYPE_CHECKING:
    from collections.abc import Collection

    from agentguard.analysis.scenarios.yamltext import Node, Text
    from agentguard.lifecycle.tally import Tally

DONE: Final = ("calls", "calls_of_this_tool", "denied", "labels", "spent", "shared", "started_at")
"""The keys of what a run has done."""

_LONG: Final = CedarType(name="Long")
_TRUTH: Final = CedarType(name="Bool")
_DECIMAL: Final = CedarType(name="decimal")


def done_by(node: Node, before: Tally, totals: Collection[str], *, are_calls: bool = True) -> Tally:
    """Return what a run has done, where somebody says so.

    Args:
        node: What is said.
        before: What it has done as far as nothing else is said.
        totals: Every total that tools of the server add to.
        are_calls: Whether what it has done of what is called here counts among its calls too; a credential that
            a tool got does not.

    Raises:
        MistakeError: Something is wrong with it.
    """
    fields = Fields(node, DONE, "`run`")
    calls, of_tool, denied = (_count(fields, key) for key in ("calls", "calls_of_this_tool", "denied"))
    of_tool = before.tools.get(THIS_TOOL, 0) if of_tool is None else of_tool
    if calls is None:
        calls = max(before.calls, of_tool) if are_calls else before.calls
    elif are_calls and calls < of_tool:
        what = f"{of_tool} calls of the tool are more than {calls} of any: make `calls` at least {of_tool}"
        mistake(what, fields.members["calls"].place)
    labels = fields.texts("labels")
    started_at = fields.moment("started_at")
    shared = typed(fields.members["shared"], _TRUTH, "shared") if "shared" in fields.members else before.shared
    return replace(
        before,
        calls=calls,
        tools={THIS_TOOL: of_tool} if of_tool else {},
        denied=before.denied if denied is None else denied,
        labels=before.labels if labels is None else frozenset(map(_label, labels)),
        spent={**before.spent, **_spent(fields, totals)},
        shared=cast("bool", shared),
        started_at=before.started_at if started_at is None else started_at,
    )


def _label(node: Text) -> str:
    label = id_of(node, "a label")
    if not is_label(label):
        what = (
            f"no run carries the label {shown(label)}: write 1 to 64 of `A-Za-z0-9_.:/-`, and several as `[one, two]`"
        )
        mistake(what, node.place)
    return label


def _count(fields: Fields, key: str) -> int | None:
    if key not in fields.members:
        return None
    node = fields.members[key]
    count = cast("int", typed(node, _LONG, key))
    if count < 0:
        mistake(f"`{key}` counts from 0 on, got {count}: write 0 or more", node.place)
    return count


def _spent(fields: Fields, totals: Collection[str]) -> dict[str, int]:
    given = fields.record("spent")
    spent: dict[str, int] = {}
    for name, node in given.members.items():
        if name not in totals:
            fix = did_you_mean(name, totals) if totals else "declare one, with `Spend` or spends="
            mistake(f"no tool adds to a total {shown(name)}: {fix}", given.keys[name])
        spent[name] = units_of_json(typed(node, _DECIMAL, name))
        if spent[name] < 0:
            mistake(f"what was spent of {shown(name)} is not negative: write 0.00 or more", node.place)
    return spent
