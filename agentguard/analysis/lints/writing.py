"""Policies that could be written better."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.lint import Spot
from agentguard.model import EntityUid
from agentguard.policy.text.arithmetic import CALCULATES, LEAST, MOST
from agentguard.policy.text.tree import Op, fold, path_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.analysis.lints.lint import Read
    from agentguard.analysis.proofs.reasoning import Demand, Reasoning
    from agentguard.policy.text.tree import Node

# What is compared, and what with: `is` alone has but the first.
_SIDES: Final = 2
# A duration has 64 bits of milliseconds, so that it has fewer seconds.
_UNITS: Final = {"toSeconds": 1_000, "toMinutes": 60_000, "toHours": 3_600_000, "toDays": 86_400_000}


def missing_owners(read: Read) -> Iterator[Spot]:
    """Find policies that nobody answers for."""
    for reading in read.readings:
        if reading.policy.owner is None:
            yield reading.whole('nobody answers for this policy: write @owner("team@example.com") above it')


def unheard_advice(read: Read) -> Iterator[Spot]:
    """Find advice on permits."""
    for reading in read.permits:
        for note in reading.syntax.annotations:
            if note.name == "advice":
                what = "@advice on a permit reaches nobody, since it is told to a caller that is denied: take it away"
                yield Spot(what, reading, note.start, note.end)


def late_agents(read: Read) -> Iterator[Spot]:
    """Find policies that ask for their agent in a condition, where the head could."""
    for reading in read.readings:
        if reading.syntax.principal.op is not Op.VARIABLE:
            continue
        for node, wanted in reading.conditions:
            uid = agent_of(node, wanted=wanted)
            if uid is not None and any(tool.environment.may_be_in("Invocation", uid.type) for tool in reading.live):
                what = f"each call of any agent has to look at this policy: write `principal in {uid}` in its head"
                yield reading.spot(node, what)
                break


def agent_of(node: Node, *, wanted: bool) -> EntityUid | None:
    """Return who has to act for a condition to be as it is *wanted*, if the head could say so."""
    while node.op is Op.NOT:
        (node,), wanted = node.parts, not wanted
    if not wanted or node.op not in {Op.IN, Op.IS, Op.EQUAL} or len(node.parts) < _SIDES:
        return None
    left, right = node.parts
    if node.op is Op.EQUAL and isinstance(left.value, EntityUid):
        left, right = right, left
    if right.op is Op.SET and len(right.parts) == 1 and node.op is not Op.EQUAL:
        (right,) = right.parts
    if not isinstance(right.value, EntityUid):
        return None
    # In a group, by which the head means its tasks too, is more than its agent being in it.
    by_agent = path_of(left) == ("principal", "agent") and right.value.type == "Agent"
    return right.value if by_agent or (path_of(left) == ("principal",) and node.op is not Op.EQUAL) else None


def overflows(read: Read) -> Iterator[Spot]:
    """Find arithmetic that can pass 64 bits."""
    for reading in read.readings:
        facts: list[Demand] = []
        for clause in reading.syntax.clauses:
            for node in _overflowing(reading.live, clause.body, facts):
                what = (
                    f"`{reading.syntax.written(node)}` can pass 64 bits, which fails the policy and denies the call: "
                    "ask for the bounds of its arguments first, or compare without arithmetic"
                )
                yield reading.spot(node, what)
            facts.append((clause.body, clause.holds))


def _overflowing(live: Sequence[Reasoning], body: Node, before: Sequence[Demand]) -> Iterator[Node]:
    """Yield the arithmetic of a condition that can overflow, given what has to hold before Cedar comes to it."""
    pending: list[tuple[Node, tuple[Demand, ...]]] = [(body, tuple(before))]
    while pending:
        node, facts = pending.pop()
        if node.op in {Op.AND, Op.OR}:
            left, right = node.parts
            pending += [(right, (*facts, (left, node.op is Op.AND))), (left, facts)]
        elif node.op is Op.IF:
            asked, then, otherwise = node.parts
            pending += [(otherwise, (*facts, (asked, False))), (then, (*facts, (asked, True))), (asked, facts)]
        elif node.op in CALCULATES:
            found = (_first_overflow(tool, node, facts) for tool in live)
            culprit = next((one for one in found if one is not None), None)
            if culprit is not None:
                yield culprit
        else:
            pending += [(part, facts) for part in reversed(node.parts)]


def _first_overflow(tool: Reasoning, node: Node, facts: Sequence[Demand]) -> Node | None:
    ways = tool.open(facts)
    culprits: list[Node] = []

    def span(node: Node, parts: tuple[tuple[int, int], ...]) -> tuple[int, int]:
        if type(node.value) is int:
            return node.value, node.value
        if node.op is Op.IF:
            # What is asked is no number; of the two others it is one.
            _, (low, high), (least, most) = parts
            return min(low, least), max(high, most)
        if node.op is Op.METHOD and node.value in _UNITS:
            most = MOST // _UNITS[str(node.value)] + 1
            return -most, most
        if node.op not in CALCULATES:
            return tool.span(node, ways)
        low, high = _result(node.op, parts)
        if low < LEAST or high > MOST:
            culprits.append(node)
        return max(low, LEAST), min(high, MOST)

    if ways:
        fold(node, span)
    return culprits[0] if culprits else None


def _result(op: Op, spans: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """Return the least and the greatest result of an operation."""
    (low, high), *others = spans
    if op is Op.NEGATIVE:
        return -high, -low
    ((least, most),) = others
    if op is Op.PLUS:
        return low + least, high + most
    if op is Op.MINUS:
        return low - most, high - least
    products = [one * other for one in (low, high) for other in (least, most)]
    return min(products), max(products)
