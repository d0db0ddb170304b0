"""What could turn a condition around: candidates, each one change of a call.

Each was tried on that condition alone. Whether it helps the call is for `analysis.suggestions`
to find out, before anybody is told of it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.explanations.changes import Joined, NewRun, Value, subject_of
from agentguard.analysis.explanations.conditions import paths_in
from agentguard.analysis.explanations.pools import constants_of, is_calculated
from agentguard.analysis.known import ABSENT, Holder, entity_of
from agentguard.analysis.notation import of_units, units_of, written
from agentguard.approval import CLIENT
from agentguard.errors import Refusal
from agentguard.policy.deciding.trial import Question, condition_permit
from agentguard.policy.text.tree import Op, terms

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator

    from agentguard.analysis.explanations.changes import Change
    from agentguard.analysis.explanations.conditions import Piece
    from agentguard.analysis.explanations.pools import Pools
    from agentguard.analysis.known import Known
    from agentguard.policy.deciding.compiled import PolicySet
    from agentguard.policy.text.tree import Node

_INPUT: Final = ("context", "input")
_APPROVAL: Final = ("context", "approval")
_CHANNEL: Final = (*_APPROVAL, "channel")
_RUN: Final = ("context", "run")
_SPENT: Final = (*_RUN, "spent")
_PRINCIPAL: Final = ("principal",)
# What a run is in by what it says of itself.
_PARENTS: Final = (("principal", "agent"), ("principal", "task"))
_TIMES: Final = frozenset(("issued_at", "ends_at", "lifetime"))
_SECOND: Final = 1_000
# How far a number is moved, in powers of two, to find where a condition turns.
_POWERS: Final = range(0, 64, 3)
# Candidates of one path in one condition, and of a whole condition.
_FEW: Final = 4
LONG_SCALE: Final = 10_000
"""What a total counts for one of a whole number."""
_MOST: Final = 24


class Flips:
    """What could turn conditions around, as one link of one request finds them."""

    def __init__(self, known: Known, policies: PolicySet, pools: Pools, fixed: frozenset[str] = frozenset()) -> None:
        """Take a request.

        Args:
            known: What it says to the link.
            policies: Whose conditions they are.
            pools: What there is to choose values from.
            fixed: Arguments that name what is acted on: another value would need another entity.
        """
        self._known = known
        self._policies = policies
        self._pools = pools
        self._fixed = {(*_INPUT, name) for name in fixed}
        self._question = Question(known.request, policies)

    def of(self, piece: Piece, *, wanted: bool) -> list[Change]:
        """Return changes after which a condition would be *wanted*, which it is not.

        Raises:
            Refusal: If the link cannot be judged.
        """
        found: dict[Hashable, Change] = {}
        for change in self._of(piece, piece.node, wanted):
            value = written(change.value) if isinstance(change, Value) and change.value is not ABSENT else ""
            # Where two terms lead to the same, the later one says more: it may rest on the first.
            found[change.key, value] = change
        return list(found.values())[:_MOST]

    def _of(self, piece: Piece, node: Node, wanted: bool) -> Iterator[Change]:  # noqa: FBT001  it turns on the way
        if node.op is Op.NOT:
            yield from self._of(piece, node.parts[0], not wanted)
        elif node.op in {Op.AND, Op.OR}:
            every = wanted is (node.op is Op.AND)
            for term in terms(node, node.op):
                # Where all have to be so, those that are stay as they are.
                if not every or self._holds(piece, term) is not wanted:
                    yield from self._of(piece, term, wanted)
        elif node.op is Op.IF:
            condition, then, otherwise = node.parts
            taken = self._holds(piece, condition) is not False
            yield from self._of(piece, then if taken else otherwise, wanted)
            yield from self._of(piece, condition, not taken)
        else:
            for path in dict.fromkeys(path for _, path in paths_in(node)):
                yield from self._of_path(piece, node, path, wanted=wanted)

    def _of_path(self, piece: Piece, node: Node, path: tuple[str, ...], *, wanted: bool) -> Iterator[Change]:
        """Yield changes of what one path of a condition leads to."""
        if path == _APPROVAL and wanted:
            yield from self._approvals()
            return
        if path[:2] == _RUN:
            yield from self._of_run(piece, node, path, wanted=wanted)
            return
        for at in _PARENTS if path == _PRINCIPAL else (path,):
            if (now := self._at(at)) is not None:
                yield from self._values(piece, node, now, wanted=wanted)
                yield from self._joins(piece, node, now, wanted=wanted)

    def _of_run(self, piece: Piece, node: Node, path: tuple[str, ...], *, wanted: bool) -> Iterator[Change]:
        """Yield what turns around a condition on what a run has done: to spend less, or a new run."""
        found: list[Change] = [*self._spending(piece, node, path, wanted=wanted)]
        new = NewRun(tool=self._pools.tool, totals=self._policies.totals)
        if self._would(new, piece, node) is wanted:
            found.append(new)
        if not found and (now := self._at(path)) is not None:
            found += self._values(piece, node, now, wanted=wanted)
        yield from found

    def _spending(self, piece: Piece, node: Node, path: tuple[str, ...], *, wanted: bool) -> Iterator[Change]:
        """Yield other amounts in a call, for a total that they add to."""
        total = units_of(self._known.value(path))
        for at in self._pools.spending(path[3]) if path[:3] == _SPENT and path[3:] else ():
            now = self._at(at)
            counted = None if now is None else units_of(now.value)
            if now is None or counted is None or total is None:
                continue
            kind, amount = counted
            scale = LONG_SCALE if kind == "Long" else 1
            before = total[1] - amount * scale
            limits = {found[1] for value in constants_of(node) if (found := units_of(value)) is not None}
            anchors = {(limit - before) // scale for limit in limits}
            yield from self._numbers(piece, node, now, (kind, anchors), wanted=wanted)

    def _at(self, path: tuple[str, ...]) -> Value | None:
        """Return what a path leads to, as it is; None if nobody can change it."""
        holder = self._known.holder(path)
        if holder is None or not holder.names or path == _INPUT or path in self._fixed:
            return None
        value = self._known.value(path)
        if holder.entity == self._known.principal:
            return Value(path=path, holder=holder, value=value, depth=self._known.depth)
        given = holder.entity is None or self._known.is_given(holder.entity)
        spends = self._pools.spends(path)
        return Value(path=path, holder=holder, value=value, spends=spends) if given else None

    def _values(self, piece: Piece, node: Node, now: Value, *, wanted: bool) -> Iterator[Change]:
        """Yield other values of what *now* holds."""
        others = [self._known.value(path) for _, path in paths_in(node) if path != now.path]
        pool = self._pools.values(now.path, now.value, node, others)
        counted = {found[1] for value in pool if (found := units_of(value)) is not None}
        if counted:
            kind = next(found[0] for value in pool if (found := units_of(value)) is not None)
            yield from self._numbers(piece, node, now, (kind, counted), wanted=wanted)
        tried = (replace(now, value=value) for value in pool if units_of(value) is None and value != now.value)
        fitting = (change for change in tried if self._would(change, piece, node) is wanted)
        # One set that fits says how: others have only more, or less, in them.
        for change, _ in zip(fitting, range(1 if isinstance(now.value, list) else _FEW), strict=False):
            yield replace(change, told=self._told(piece, node, change, wanted=wanted))

    def _told(self, piece: Piece, node: Node, change: Value, *, wanted: bool) -> str:
        """Return how a value is told that stands for others; empty for one that is named."""
        if isinstance(change.value, list):
            return self._pools.set_text(subject_of(change.path), self._known.value(change.path), change.value)
        constants = constants_of(node)
        others = [self._known.value(path) for _, path in paths_in(node) if path != change.path]
        listed = node.op is Op.HAS and entity_of(change.value) in self._policies.known.text
        if listed or self._pools.is_named(change.path, change.value, [*constants, *others]):
            return ""
        example = written(change.value)
        if node.op in {Op.EQUAL, Op.UNEQUAL} and constants:
            return f"{subject_of(change.path)} other than {written(constants[0])}, such as {example}"
        return f"{'' if wanted else 'not '}{piece.text_of(node)}, such as {example}"

    def _numbers(
        self, piece: Piece, node: Node, now: Value, pool: tuple[str, Iterable[int]], *, wanted: bool
    ) -> Iterator[Change]:
        """Yield the nearest values on either side, of what has an order."""
        kind, anchors = pool
        unit = _SECOND if now.depth is not None and now.path[-1] in _TIMES else 1

        def at(units: int) -> Value | None:
            value = of_units(kind, units)
            return None if value is None else replace(now, value=value)

        def fits(units: int) -> bool:
            change = at(units)
            return change is not None and self._would(change, piece, node) is wanted

        current = units_of(now.value)
        around = {(anchor // unit + step) * unit for anchor in anchors for step in (-1, 0, 1)}
        if current is None:
            fitting = sorted(filter(fits, around))
            nearest = [*fitting[:1], *fitting[-1:]]
        else:
            start = current[1]
            # Of what is calculated, no value that is named says where it turns.
            nearest = [*_turns(start, unit, fits)] if is_calculated(node) else []
            if not nearest:
                above = min((units for units in around if units > start and fits(units)), default=None)
                below = max((units for units in around if units < start and fits(units)), default=None)
                nearest = [units for units in (above, below) if units is not None]
        yield from (change for units in dict.fromkeys(nearest) if (change := at(units)) is not None)

    def _joins(self, piece: Piece, node: Node, now: Value, *, wanted: bool) -> Iterator[Change]:
        """Yield groups that an entity could be in."""
        uid = entity_of(now.value)
        if node.op is not Op.IN or not wanted or uid is None or uid in self._policies.known.text:
            return
        groups = (entity_of(constant) for constant in constants_of(node.parts[1]))
        joined = (Joined(entity=uid, group=group, path=now.path) for group in groups if group is not None)
        yield from (change for change in joined if self._would(change, piece, node) is True)

    def _approvals(self) -> Iterator[Change]:
        """Yield the yes of a person, by each of the ways that are named."""
        for channel in dict.fromkeys(map(str, (*self._pools.named(_CHANNEL), CLIENT))):
            value = {"channel": channel, "at": self._known.request.context["now"]}
            yield Value(path=_APPROVAL, holder=Holder(None, ("approval",)), value=value, told="a person's approval")

    def _would(self, change: Change, piece: Piece, node: Node) -> bool | None:
        """Tell whether a part of a condition would hold; None if it could not be evaluated, or no call is so."""
        request = change.apply(self._known.request)
        if request is None:
            return None
        depth = min(self._known.depth, len(request.invocation.ancestors))
        permit = condition_permit(piece.source_of(node), self._policies.limits)
        try:
            return Question(request, self._policies).ask([permit], depth)[0].holds
        except Refusal:
            return None

    def _holds(self, piece: Piece, node: Node) -> bool | None:
        permit = condition_permit(piece.source_of(node), self._policies.limits)
        return self._question.ask([permit], self._known.depth)[0].holds


def _turns(start: int, unit: int, fits: Callable[[int], bool]) -> Iterator[int]:
    """Yield on either side the nearest number that fits, if from there on all do."""
    for sign in (1, -1):
        last = 0
        for power in _POWERS:
            step = 2**power
            if not fits(start + sign * step * unit):
                last = step
                continue
            while step - last > 1:
                middle = (step + last) // 2
                if fits(start + sign * middle * unit):
                    step = middle
                else:
                    last = middle
            yield start + sign * step * unit
            break
