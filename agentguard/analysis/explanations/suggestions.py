"""The smallest changes after which a denied call is allowed.

A denial is repaired step by step, fewest steps first: of what stops the call, the first thing is
turned around by one change, and what is then left is looked at again. Nothing is told of before
the engine has allowed the changed call.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.explanations.changes import Granted, Span, Value, Who, applied
from agentguard.analysis.explanations.conditions import conditions_of, paths_in, pieces_of
from agentguard.analysis.explanations.flips import LONG_SCALE, Flips
from agentguard.analysis.explanations.pools import Pools, constants_of, is_calculated
from agentguard.analysis.known import Known
from agentguard.analysis.notation import of_units, units_of
from agentguard.analysis.supposed import judge
from agentguard.policy.deciding.trial import Question, trials

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from agentguard.analysis.explanations.changes import Change
    from agentguard.analysis.explanations.conditions import Condition, Piece
    from agentguard.model import AccessRequest
    from agentguard.policy.deciding.compiled import PolicySet
    from agentguard.policy.deciding.trial import LinkTrials, Trial

# Changes at once, calls that are tried, calls that are gone on with, and suggestions.
_STEPS: Final = 3
_TRIED: Final = 300
_BREADTH: Final = 24
_PERMITS: Final = 12
_AS_LONG: Final = 20
_TOLD: Final = 6
_SECOND: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggestion:
    """Changes after which a call is allowed: the engine has allowed it.

    Attributes:
        changes: What would be other than it was.
        requests: The call with that, one request for each resource.
    """

    changes: tuple[Change, ...]
    requests: tuple[AccessRequest, ...]

    @property
    def text(self) -> str:
        """What would be, as conditions."""
        return " and ".join(change.text for change in self.changes)

    @property
    def who(self) -> Who:
        """In whose hand it is: of several, the one that is furthest from the caller."""
        return max(change.who for change in self.changes)


def suggestions(
    requests: Sequence[AccessRequest],
    policies: PolicySet,
    *,
    fixed: frozenset[str] = frozenset(),
    unknown: frozenset[str] = frozenset(),
    allows: Callable[[Sequence[Change]], bool] | None = None,
) -> tuple[Suggestion, ...]:
    """Return the smallest changes after which a denied call is allowed, what the caller can do first.

    Args:
        requests: What was asked, one request for each resource.
        policies: The policies that denied it.
        fixed: Arguments that name what is acted on.
        unknown: What of the requests is not known, and only stands for it: nothing of it is changed.
        allows: Tells whether the call is allowed with some changes; if it is not given, `judge`
            is asked about the requests.

    Returns:
        Those of one change; if there are none, those of two, and so on. Empty if none was found, or
        if the call is allowed.
    """
    return _Search(tuple(requests), policies, fixed=fixed, unknown=unknown, allows=allows).found()


@dataclass(frozen=True, slots=True)
class _State:
    changes: tuple[Change, ...]
    requests: tuple[AccessRequest, ...]


class _Search:
    """One search. It is bounded: the answer is for a person who waits."""

    def __init__(
        self,
        requests: tuple[AccessRequest, ...],
        policies: PolicySet,
        *,
        fixed: frozenset[str],
        unknown: frozenset[str],
        allows: Callable[[Sequence[Change]], bool] | None,
    ) -> None:
        self._requests = requests
        self._policies = policies
        self._fixed = fixed
        self._unknown = unknown
        self._allows = allows or self._judged
        self._left = _TRIED
        links = [link for request in requests for link in trials(request, policies)]
        self._texts = tuple(
            dict.fromkeys(one.text for link in links for one in (*link.organisation, *(link.grant or ())))
        )

    def found(self) -> tuple[Suggestion, ...]:
        if not self._texts or self._allows(()):
            return ()
        self._pools = Pools(self._texts, self._policies.action(self._requests[0].action).tool, self._policies)
        level = [_State((), self._requests)]
        seen: set[frozenset[str]] = set()
        for _ in range(_STEPS):
            helps: list[_State] = []
            others: list[_State] = []
            for state in self._after(level, seen):
                (helps if self._allows(state.changes) else others).append(state)
            if helps:
                return self._told(helps)
            level = sorted(others, key=_hands)[:_BREADTH]
        return ()

    def _after(self, level: Sequence[_State], seen: set[frozenset[str]]) -> Iterator[_State]:
        """Yield every state that one more change leads to, each once, as long as there is time."""
        for state in level:
            for change in self._options(state.requests):
                changes = (*(made for made in state.changes if made.key != change.key), change)
                name = frozenset(made.text for made in changes)
                if name in seen or (requests := applied(changes, self._requests)) is None:
                    continue
                seen.add(name)
                self._left -= 1
                if self._left < 0:
                    return
                yield _State(changes, requests)

    def _told(self, helps: Iterable[_State]) -> tuple[Suggestion, ...]:
        """Return suggestions for people: no change that is not needed, and a range in place of its end."""
        found: dict[str, Suggestion] = {}
        for state in sorted(helps, key=_hands):
            changes = self._needed(state.changes)
            for change in changes:
                if isinstance(change, Value):
                    wider = self._widened(change, changes)
                    changes = tuple(wider if one is change else one for one in changes)
            suggestion = Suggestion(changes=changes, requests=applied(changes, self._requests) or ())
            found.setdefault(suggestion.text, suggestion)
        least = min(len(suggestion.changes) for suggestion in found.values())
        return tuple(suggestion for suggestion in found.values() if len(suggestion.changes) == least)[:_TOLD]

    def _needed(self, changes: tuple[Change, ...]) -> tuple[Change, ...]:
        for change in changes:
            rest = tuple(one for one in changes if one is not change)
            if rest and self._allows(rest):
                return self._needed(rest)
        return changes

    def _judged(self, changes: Sequence[Change]) -> bool:
        requests = applied(changes, self._requests)
        return requests is not None and judge(requests, self._policies).allowed

    def _options(self, requests: Sequence[AccessRequest]) -> Iterator[Change]:
        """Yield what could turn around the first thing that stops a call."""
        for request in requests:
            for depth, link in enumerate(trials(request, self._policies)):
                stops = _stops(link)
                if link.refusal is not None:
                    return
                if stops is not None:
                    yield from self._around(request, depth, stops)
                    return

    def _around(self, request: AccessRequest, depth: int, stops: Sequence[Trial]) -> Iterator[Change]:
        """Yield what could turn policies around: one that has to match no more, or several of which one has to."""
        # Among a thousand policies each step takes as long as many calls.
        self._left -= len(stops) // _AS_LONG
        known = Known(request, self._policies, depth, self._unknown)
        flips = Flips(known, self._policies, self._pools, self._fixed)
        found = conditions_of([trial.text for trial in stops], Question(request, self._policies), known)
        nearest = sorted(zip(stops, found, strict=True), key=lambda one: sum(not each.met for each in one[1]))
        for trial, conditions in nearest[:_PERMITS]:
            if trial.matched is False:
                # The others are looked at once the first that differs is as wanted.
                piece = next(condition.piece for condition in conditions if not condition.met)
                yield from flips.of(piece, wanted=piece.wanted)
            else:
                for condition in conditions:
                    yield from self._away(condition, flips)
        if any(trial.policy is None and trial.matched is False for trial in stops):
            invocation = request.invocation.chain[depth]
            yield Granted(depth=depth, agent=invocation.agent, action=request.action)

    def _away(self, condition: Condition, flips: Flips) -> Iterator[Change]:
        """Yield what could keep a policy from matching, or from failing, by one of its conditions."""
        if condition.looked_at:
            yield from flips.of(condition.piece, wanted=not condition.piece.wanted)
            if condition.holds is None:
                yield from flips.of(condition.piece, wanted=condition.piece.wanted)

    def _widened(self, change: Value, changes: Sequence[Change]) -> Value:
        """Return a change of a number or a time with how far it may go; as it is, if that cannot be told."""
        counted = units_of(change.value)
        points = None if counted is None or change.told else self._points(change, changes)
        if counted is None or points is None:
            return change
        kind, start = counted

        def allows(units: int) -> bool:
            value = of_units(kind, units)
            if value is None:
                return False
            other = replace(change, value=value)
            return self._allows([other if one is change else one for one in changes])

        most = _end(start, sorted(point for point in points if point > start), allows)
        least = _end(start, sorted((point for point in points if point < start), reverse=True), allows)
        return replace(change, span=Span(kind=kind, least=least, most=most))

    def _points(self, change: Value, changes: Sequence[Change]) -> set[int] | None:
        """Return where a decision could turn as a value moves; None if that cannot be told."""
        values = [*self._pools.named(change.path)]
        for text in self._texts:
            for piece in pieces_of(text):
                nodes = [node for node, path in paths_in(piece.node) if path == change.path]
                if nodes and is_calculated(piece.node):
                    return None
                if nodes:
                    values += self._beside(piece, change)
                spent = [node for node, path in paths_in(piece.node) if change.spends and path == _spent(change)]
                if spent and is_calculated(piece.node):
                    return None
                if spent:
                    values += self._affordable(piece, change, changes)
        unit = _SECOND if change.depth is not None else 1
        units = [found[1] for value in values if (found := units_of(value)) is not None]
        return {(one // unit + step) * unit for one in units for step in (-1, 0, 1)}

    def _affordable(self, piece: Piece, change: Value, changes: Sequence[Change]) -> Iterator[object]:
        """Yield what may still be spent up to each value that a condition compares the total with."""
        for request in applied(changes, self._requests) or ():
            for depth in range(len(request.invocation.chain)):
                known = Known(request, self._policies, depth, self._unknown)
                total, amount = units_of(known.value(_spent(change))), units_of(known.value(change.path))
                if total is None or amount is None:
                    continue
                scale = LONG_SCALE if amount[0] == "Long" else 1
                others = total[1] - amount[1] * scale
                limits = [found[1] for value in constants_of(piece.node) if (found := units_of(value)) is not None]
                yield from (of_units(amount[0], (limit - others) // scale) for limit in limits)

    def _beside(self, piece: Piece, change: Value) -> Iterator[object]:
        """Yield what else a condition looks at: it may be compared with that."""
        for request in self._requests:
            depth = 0 if change.depth is None else change.depth
            known = Known(request, self._policies, depth, self._unknown)
            yield from (known.value(path) for _, path in paths_in(piece.node))


def _stops(link: LinkTrials) -> Sequence[Trial] | None:
    """Return what stops a call at a link: one policy that must match no more, or all of which one has to match."""
    layers = (link.organisation, link.grant)
    for layer in layers:
        for trial in layer or ():
            if trial.matched is None or (trial.matched and not trial.permit):
                return [trial]
    for layer in layers:
        if layer is not None and not any(trial.matched for trial in layer):
            return [trial for trial in layer if trial.permit]
    return None


def _spent(change: Value) -> tuple[str, ...]:
    """Return the path of the total that a change adds to."""
    return ("context", "run", "spent", change.spends)


def _end(start: int, points: Iterable[int], allows: Callable[[int], bool]) -> int | None:
    """Return the last of some points, from *start* on, up to which all are allowed; None if all are."""
    last = start
    for point in points:
        if not allows(point):
            return last
        last = point
    return None


def _hands(state: _State) -> tuple[int, int]:
    """Order states by in whose hands their changes are."""
    return max((change.who for change in state.changes), default=0), sum(change.who for change in state.changes)
