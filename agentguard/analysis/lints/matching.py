"""Conditions that are never so, or always."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.listing import groups_of_users
from agentguard.analysis.proofs.constants import constant_of
from agentguard.analysis.proofs.reasoning import comparison_of
from agentguard.lifecycle.tally import is_label
from agentguard.model import EntityUid
from agentguard.policy.grants import GROUPS, METHODS
from agentguard.policy.problem import did_you_mean
from agentguard.policy.text.tree import Node, Op, path_of, walk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.analysis.lints.lint import Read, Reading, Spot
    from agentguard.analysis.proofs.environments import Environment
    from agentguard.analysis.proofs.reasoning import Demand, Reasoning

_ARGUMENTS: Final = ("context", "input")
_LABELS: Final = ("context", "run", "labels")
# `unseen` is that close to `seen`, nearly, and meant.
_CLOSE: Final = 0.85
_ANSWERS: Final = {Op.EQUAL: "this never holds", Op.UNEQUAL: "this always holds"}
_FORM: Final = "write 1 to 64 of `A-Za-z0-9_.:/-`"


def never_matching_forbids(read: Read) -> Iterator[Spot]:
    """Find forbids that never match, where nothing more exact is found."""
    return _never_matching(read, read.forbids, "it forbids nothing")


def never_matching_permits(read: Read) -> Iterator[Spot]:
    """Find permits that never match, where nothing more exact is found."""
    return _never_matching(read, read.permits, "it permits nothing")


def _never_matching(read: Read, readings: Sequence[Reading], so: str) -> Iterator[Spot]:
    told = [*unknown_values(read), *unknown_attributes(read), *equal_groups(read), *groups_of_users(read)]
    for reading in readings:
        if reading.ways or reading.shared:
            continue
        node, what = _blamed(reading)
        exact = (spot for spot in told if spot.reading is reading)
        if not any(node.start <= spot.start < node.end for spot in exact):
            yield reading.spot(node, f"{what}, so {so}: mend the condition, or delete the policy")


def _blamed(reading: Reading) -> tuple[Node, str]:
    """Return the first condition that cannot be with what stands before it, and what to say of it."""
    live, syntax = reading.live, reading.syntax
    if not live:
        return syntax.resource if syntax.resource.op is not Op.VARIABLE else syntax.action, "no call has this head"
    before: list[Demand] = list(reading.head)
    left = list(reading.conditions)
    while not _all_never(live, [*before, left[0]]):
        before.append(left.pop(0))
    node, wanted = left[0]
    shown = f"`{syntax.written(node)}` {'never' if wanted else 'always'} holds"
    if _all_never(live, [*reading.head, left[0]]):
        return node, shown
    for other, needed in before:
        if _all_never(live, [(other, needed), left[0]]):
            return node, f"{shown} where `{syntax.written(other)}` {'does' if needed else 'does not'}"
    return node, f"{shown} where all before it lets a call come this far"


def _all_never(live: Sequence[Reasoning], demands: Sequence[Demand]) -> bool:
    return all(tool.never(demands) for tool in live)


def unknown_values(read: Read) -> Iterator[Spot]:
    """Find comparisons with a value that is none of the few that an argument can have."""
    for reading in read.readings:
        for clause in reading.syntax.clauses:
            for node in walk(clause.body):
                for asked, value, literal in _compared(node):
                    choices = _choices(reading, asked)
                    if choices is not None and value not in choices:
                        few = " or ".join(f'"{choice}"' for choice in choices[:5])
                        few += " …" if len(choices) > 5 else ""  # noqa: PLR2004
                        path = reading.syntax.written(asked)
                        fix = did_you_mean(value, choices)
                        what = f"`{path}` is {few}, never `{value}`: {fix}"
                        yield reading.spot(literal, what)._replace(fatal=reading.is_mute)


def _compared(node: Node) -> Iterator[tuple[Node, str, Node]]:
    """Yield what a node compares with a constant text or number: what, the value as text, and where it stands."""
    compared = comparison_of(node)
    if compared is not None and compared[1] in {Op.EQUAL, Op.UNEQUAL}:
        left, _, right = compared
        pairs = [(left, one) for one in _elements(right)] + [(right, one) for one in _elements(left)]
    elif node.op is Op.METHOD and node.value == "contains":
        holder, asked = node.parts
        pairs = [(asked, element) for element in holder.parts] if holder.op is Op.SET else [(holder, asked)]
    elif node.op is Op.METHOD and node.value in {"containsAll", "containsAny"}:
        holder, asked = node.parts
        pairs = [(asked, element) for element in holder.parts if holder.op is Op.SET]
        pairs += [(holder, element) for element in asked.parts if asked.op is Op.SET]
    else:
        return
    for asked, literal in pairs:
        constant = constant_of(literal)
        if constant is not None and constant.kind in {"String", "Long"}:
            yield asked, str(constant.value), literal


def _elements(node: Node) -> Sequence[Node]:
    """Return the elements of a set that is written out, or else the expression itself."""
    return node.parts if node.op is Op.SET else (node,)


def _choices(reading: Reading, asked: Node) -> tuple[str, ...] | None:
    """Return all that an argument can be, whichever tool is called; None if it can be anything."""
    found: dict[str, None] = {}
    for tool in reading.live:
        type_ = tool.environment.type_of(asked)
        if type_ is None:
            continue
        type_ = type_.element or type_
        if not type_.one_of:
            return None
        found |= dict.fromkeys(type_.one_of)
    return tuple(found) or None


def unknown_labels(read: Read) -> Iterator[Spot]:
    """Find labels that a run never carries for what a tool here declares, and that are close to one that it may.

    Others may be put on while a tool runs, or at another server: of those nothing is known here, but that
    they are labels.
    """
    known = sorted({label for tool in read.workspace.written.tools for label in tool.labels})
    folded = {label.casefold(): label for label in known}
    for reading in read.readings:
        for clause in reading.syntax.clauses:
            for node in walk(clause.body):
                for asked, value, literal in _compared(node):
                    if path_of(asked) != _LABELS or value in known:
                        continue
                    close = difflib.get_close_matches(value.casefold(), folded, n=1, cutoff=_CLOSE)
                    if close:
                        what = f"no tool here gives a run the label `{value}`: did you mean `{folded[close[0]]}`?"
                        yield reading.spot(literal, what)
                    elif not is_label(value):
                        yield reading.spot(literal, f"no run can carry the label `{value}`: {_FORM}")


def unknown_attributes(read: Read) -> Iterator[Spot]:
    """Find `has` with a name that nothing has."""
    for reading in read.readings:
        for clause in reading.syntax.clauses if not reading.shared else ():
            for node in walk(clause.body):
                if node.op is Op.HAS:
                    looked = [_looked_up(tool.environment, node) for tool in reading.live]
                    found = {there for there, _ in looked}
                    # A tool that has it makes it a question worth asking.
                    if False in found and True not in found:
                        spot = _no_attribute(reading, node, {name for _, names in looked for name in names})
                        # What it should have forbidden is not forbidden.
                        yield spot._replace(fatal=not reading.permits)


def _looked_up(environment: Environment, node: Node) -> tuple[bool | None, Sequence[str]]:
    """Return whether there can be what `has` asks for, None if nothing can be said, and what there is instead."""
    type_ = environment.type_of(node.parts[0])
    for name in node.value if isinstance(node.value, tuple) else ():
        if type_ is None:
            return None, ()
        members = environment.members(type_)
        if name not in members:
            return False, [*members]
        type_ = members[str(name)].type
    return True, ()


def _no_attribute(reading: Reading, node: Node, known: set[str]) -> Spot:
    (of,) = node.parts
    name = ".".join(str(part) for part in node.value) if isinstance(node.value, tuple) else ""
    tools = [tool.environment.tool.name for tool in reading.live]
    if path_of(of) != _ARGUMENTS:
        owner = f"`{reading.syntax.written(of)}` has no attribute `{name}`"
    elif len(tools) == 1:
        owner = f"`{tools[0]}` has no argument `{name}`"
    else:
        owner = f"no tool that this is for has an argument `{name}`"
    close = difflib.get_close_matches(name.rpartition(".")[2], sorted(known), n=1)
    fix = f"did you mean `{close[0]}`?" if close else "correct the name, or delete the condition"
    return reading.spot(node, f"{owner}, so this is never so: {fix}")


def equal_groups(read: Read) -> Iterator[Spot]:
    """Find `action == Action::"group"`: an action is in its groups, and equals none."""
    actions = {tool.name for tool in read.workspace.written.tools}
    groups = {*GROUPS, *METHODS} - actions
    for reading in read.readings:
        for clause in reading.syntax.clauses:
            for node in walk(clause.body):
                asked = [uid for uid in _equated_actions(node) if uid.id in groups]
                if asked:
                    so, wanted = _ANSWERS.get(node.op, "`contains` never finds it"), f"action in {asked[0]}"
                    fix = f"!({wanted})" if node.op is Op.UNEQUAL else wanted
                    what = f"`{asked[0].id}` is a group, which no action equals, so {so}: write `{fix}`"
                    yield reading.spot(node, what)._replace(fatal=reading.is_mute)


def _equated_actions(node: Node) -> list[EntityUid]:
    """Return the actions that a condition wants the call's to equal, or not to: with `==`, `!=` or `[…].contains`."""
    sides: Sequence[Node] = ()
    if node.op in {Op.EQUAL, Op.UNEQUAL}:
        sides = node.parts
    elif node.op is Op.METHOD and node.value == "contains":
        sides = (*_elements(node.parts[0]), node.parts[1])
    if ("action",) not in map(path_of, sides):
        return []
    return [side.value for side in sides if isinstance(side.value, EntityUid) and side.value.type == "Action"]


def plain_patterns(read: Read) -> Iterator[Spot]:
    """Find `like` without a `*` in its pattern."""
    for reading in read.readings:
        for clause in reading.syntax.clauses:
            for node in walk(clause.body):
                if node.op is Op.LIKE and isinstance(node.value, tuple) and None not in node.value:
                    text = "".join(piece or "" for piece in node.value)
                    what = f"this pattern has no `*`, and only `{text}` itself is like it: write `*`, or `==`"
                    yield reading.spot(node, what)
