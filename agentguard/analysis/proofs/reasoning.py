"""Prove that conditions can never hold together.

A condition is taken apart into its alternatives, each a list of atoms that are true or false.
An alternative is dead if its atoms contradict each other, or what the schema and the guard
settle; if all are dead, the condition never holds. An expression that fails to evaluate is
neither true nor false, and a policy whose condition fails does not match, so a proof holds
for it too.

What is not understood is left out, and then nothing is proved: a proof is never wrong, and
often missing.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.proofs.constants import ORDERED, Constant, constant_of, like
from agentguard.analysis.proofs.environments import BOUNDS, CHOICES
from agentguard.policy.text.arithmetic import CALCULATES, LEAST, MOST, fits_always, number_of
from agentguard.policy.text.tree import Node, Op, fold, path_of, walk

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable

    from agentguard.analysis.proofs.environments import Environment

Demand = tuple[Node, bool]
"""A condition, and what it has to be."""

# Alternatives of one condition, past which it is left out.
_ALTERNATIVES: Final = 64
# Values between two bounds that are tried one by one.
_FEW: Final = 64
_MIRRORED: Final = {
    Op.LESS: Op.GREATER,
    Op.LESS_EQUAL: Op.GREATER_EQUAL,
    Op.GREATER: Op.LESS,
    Op.GREATER_EQUAL: Op.LESS_EQUAL,
    Op.EQUAL: Op.EQUAL,
    Op.UNEQUAL: Op.UNEQUAL,
}
_NEGATED: Final = {
    Op.LESS: Op.GREATER_EQUAL,
    Op.LESS_EQUAL: Op.GREATER,
    Op.GREATER: Op.LESS_EQUAL,
    Op.GREATER_EQUAL: Op.LESS,
    Op.EQUAL: Op.UNEQUAL,
    Op.UNEQUAL: Op.EQUAL,
}
_METHODS: Final = {
    "lessThan": Op.LESS,
    "lessThanOrEqual": Op.LESS_EQUAL,
    "greaterThan": Op.GREATER,
    "greaterThanOrEqual": Op.GREATER_EQUAL,
}

_CAN_FAIL_METHODS: Final = frozenset(("offset", "durationSince", "toDate"))

Alternatives = tuple[tuple[Demand, ...], ...]
_ANYTHING: Final[Alternatives] = ((),)
_NOTHING: Final[Alternatives] = ()


def can_fail(condition: Node) -> bool:
    """Whether an expression that Cedar found valid can fail to evaluate: what is calculated may pass 64 bits."""
    return any(
        (node.op in CALCULATES and number_of(node) is None)
        or (node.op is Op.METHOD and node.value in _CAN_FAIL_METHODS and not fits_always(node))
        for node in walk(condition)
    )


def comparison_of(node: Node) -> tuple[Node, Op, Node] | None:
    """Return a comparison's left side, operator and right side; methods of decimals are read as operators."""
    if node.op in _MIRRORED:
        left, right = node.parts
        return left, node.op, right
    if node.op is Op.METHOD and node.value in _METHODS:
        left, right = node.parts
        return left, _METHODS[str(node.value)], right
    return None


def alternatives(demand: Demand) -> Alternatives:
    """Return the ways in which a condition can be what is wanted, each as atoms; perhaps more than there are."""
    node, wanted = demand
    holds, fails = fold(node, _ways)
    return holds if wanted else fails


def _ways(node: Node, parts: tuple[tuple[Alternatives, Alternatives], ...]) -> tuple[Alternatives, Alternatives]:
    """Return the ways in which an expression is true, and those in which it is false."""
    match node.op:
        case Op.AND:
            (left, no_left), (right, no_right) = parts
            return _both(left, right), _either(no_left, _both(left, no_right))
        case Op.OR:
            (left, no_left), (right, no_right) = parts
            return _either(left, _both(no_left, right)), _both(no_left, no_right)
        case Op.NOT:
            ((inner, no_inner),) = parts
            return no_inner, inner
        case Op.IF:
            (asked, not_asked), (then, no_then), (other, no_other) = parts
            return (
                _either(_both(asked, then), _both(not_asked, other)),
                _either(_both(asked, no_then), _both(not_asked, no_other)),
            )
    if isinstance(node.value, bool):
        return (_ANYTHING, _NOTHING) if node.value else (_NOTHING, _ANYTHING)
    holds: tuple[Demand, ...] = ()
    fails: Alternatives = ()
    for atom in _atoms(node):
        fails = (*fails, (*holds, (atom, False)))
        holds = (*holds, (atom, True))
    return (holds,), fails


def _atoms(node: Node) -> tuple[Node, ...]:
    """Take `x is T in e` and `x has a.b` apart."""
    (first, *_) = node.parts or (node,)
    if node.op is Op.IS and len(node.parts) > 1:
        return (replace(node, parts=(first,)), replace(node, op=Op.IN, value=None))
    if node.op is Op.HAS and isinstance(node.value, tuple):
        found = []
        for name in node.value:
            found.append(replace(node, parts=(first,), value=(name,)))
            first = replace(node, op=Op.ATTRIBUTE, parts=(first,), value=name)
        return tuple(found)
    return (node,)


def _either(left: Alternatives, right: Alternatives) -> Alternatives:
    if () in left or () in right or len(left) + len(right) > _ALTERNATIVES:
        return _ANYTHING
    return (*left, *right)


def _both(left: Alternatives, right: Alternatives) -> Alternatives:
    if len(left) * len(right) > _ALTERNATIVES:
        # What is left out could only rule ways out.
        return min(left, right, key=len)
    return tuple((*one, *other) for one in left for other in right)


class Terms:
    """Numbers for expressions: equal ones have the same."""

    def __init__(self) -> None:
        self._of: dict[Node, int] = {}
        self._numbers: dict[Hashable, int] = {}

    def __call__(self, node: Node) -> int:
        """Return the number of an expression."""
        found = self._of.get(node)
        return fold(node, self._number) if found is None else found

    def _number(self, node: Node, parts: tuple[int, ...]) -> int:
        constant = constant_of(node)
        what: Hashable = constant or (node.op, type(node.value), node.value)
        if node.op is Op.SET:
            parts = tuple(sorted(set(parts)))
        elif node.op in {Op.EQUAL, Op.UNEQUAL}:
            parts = tuple(sorted(parts))
        key = (what, () if constant else parts)
        return self._of.setdefault(node, self._numbers.setdefault(key, len(self._numbers)))


@dataclass(slots=True)
class Domain:
    """What an expression can be: a value of *allowed*, or anything of its kind between two bounds."""

    kind: str = ""
    low: int = LEAST
    high: int = MOST
    allowed: frozenset[object] | None = None
    excluded: set[object] = field(default_factory=set)
    patterns: list[tuple[tuple[str | None, ...], bool]] = field(default_factory=list)

    def narrow(self, op: Op, value: object) -> None:
        """Leave what stands to *value* as *op* says."""
        if op is Op.UNEQUAL:
            self.excluded.add(value)
        elif op is Op.EQUAL:
            self.choose(frozenset((value,)))
        elif isinstance(value, int):
            if op in {Op.LESS, Op.LESS_EQUAL}:
                self.high = min(self.high, value - (op is Op.LESS))
            else:
                self.low = max(self.low, value + (op is Op.GREATER))

    def choose(self, values: frozenset[object]) -> None:
        """Leave *values* alone."""
        self.allowed = values if self.allowed is None else self.allowed & values

    def values(self) -> list[object] | None:
        """Return all that is left; None if that is too much to be tried."""
        tried: Iterable[object] | None = self.allowed
        if tried is None and self.kind in ORDERED and self.high - self.low < _FEW:
            tried = range(self.low, self.high + 1)
        return None if tried is None else [value for value in tried if self._fits(value)]

    def can_begin(self) -> bool:
        """Whether a text can begin with all that its patterns begin with, and with nothing that it must not."""
        begins = [pattern[0] or "" for pattern, wanted in self.patterns if wanted and pattern]
        longest = max(begins, key=len, default="")
        barred = [pattern[0] or "" for pattern, wanted in self.patterns if not wanted and pattern[1:] == (None,)]
        return all(map(longest.startswith, begins)) and not any(map(longest.startswith, barred))

    def _fits(self, value: object) -> bool:
        if value in self.excluded or (isinstance(value, int) and self._is_past(value)):
            return False
        return all(like(value, pattern) is wanted for pattern, wanted in self.patterns if isinstance(value, str))

    def _is_past(self, value: int) -> bool:
        # Not `true`, which is a number to Python.
        return self.kind in ORDERED and not self.low <= value <= self.high

    def span(self) -> tuple[int, int]:
        """Return the least and the greatest whole number that is left."""
        numbers = [value for value in self.values() or () if isinstance(value, int)]
        return (min(numbers), max(numbers)) if numbers else (self.low, self.high)


class _Case:
    """One alternative: what its atoms leave open."""

    def __init__(self, environment: Environment, terms: Terms) -> None:
        self._environment = environment
        self._terms = terms
        self._truths: dict[Hashable, bool] = {}
        self.domains: dict[int, Domain] = {}

    def takes(self, atoms: Iterable[Demand]) -> bool:
        """Whether all of *atoms* could be so at once."""
        return all(self._assume(atom, wanted) for atom, wanted in atoms) and all(
            domain.values() != [] and domain.can_begin() for domain in self.domains.values()
        )

    def domain(self, node: Node) -> Domain:
        """Return what an expression can be."""
        number = self._terms(node)
        if number not in self.domains:
            self.domains[number] = self._start(node)
        return self.domains[number]

    def _start(self, node: Node) -> Domain:
        type_, path = self._environment.type_of(node), path_of(node)
        domain = Domain(kind="" if type_ is None else "entity" if type_.is_entity else type_.name)
        domain.low, domain.high = BOUNDS.get(path, (LEAST, MOST))
        if type_ is not None and type_.one_of and type_.name in {"String", "Long"}:
            domain.choose(frozenset(int(one) if type_.name == "Long" else one for one in type_.one_of))
        if path in CHOICES:
            domain.choose(CHOICES[path])
        if (uid := self._environment.made(node)) is not None:
            domain.choose(frozenset((uid,)))
        return domain

    def _assume(self, atom: Node, wanted: bool) -> bool:  # noqa: FBT001  what the atom has to be
        settled = self._environment.settled(atom)
        if settled is not None:
            return settled is wanted
        if (compared := comparison_of(atom)) is not None:
            left, op, right = compared
            return self._compare(left, op if wanted else _NEGATED[op], right)
        if atom.op is Op.LIKE and isinstance(atom.value, tuple):
            return self._like(atom.parts[0], atom.value, wanted=wanted)
        if atom.op is Op.METHOD and atom.value == "contains" and atom.parts[0].op is Op.SET:
            return self._contains(atom, wanted=wanted)
        return self._truth(self._terms(atom), wanted)

    def _truth(self, key: Hashable, wanted: bool) -> bool:  # noqa: FBT001  what the atom has to be
        return self._truths.setdefault(key, wanted) is wanted

    def _compare(self, left: Node, op: Op, right: Node) -> bool:
        first, second = constant_of(left), constant_of(right)
        if first is not None and second is not None:
            return first.kind != second.kind or _stands(first.value, op, second.value)
        if first is not None:
            return self._bound(right, _MIRRORED[op], first)
        if second is not None:
            return self._bound(left, op, second)
        numbers = (self._terms(left), self._terms(right))
        if numbers[0] == numbers[1]:
            return op in {Op.EQUAL, Op.LESS_EQUAL, Op.GREATER_EQUAL}
        if op in {Op.EQUAL, Op.UNEQUAL}:
            return self._truth((Op.EQUAL, *sorted(numbers)), op is Op.EQUAL)
        # `a > b` is `b < a`, and `a <= b` is what `b < a` is not.
        ordered = numbers if op in {Op.LESS, Op.GREATER_EQUAL} else numbers[::-1]
        return self._truth((Op.LESS, *ordered), op in {Op.LESS, Op.GREATER})

    def _bound(self, node: Node, op: Op, constant: Constant) -> bool:
        if constant.kind == "Bool":
            return self._truth(self._terms(node), (op is Op.EQUAL) is constant.value)
        domain = self.domain(node)
        domain.kind = domain.kind or constant.kind
        if domain.kind == constant.kind:
            domain.narrow(op, constant.value)
        return True

    def _like(self, node: Node, pattern: tuple[str | None, ...], *, wanted: bool) -> bool:
        constant = constant_of(node)
        if constant is not None:
            return not isinstance(constant.value, str) or like(constant.value, pattern) is wanted
        if all(piece is None for piece in pattern) and pattern:
            return wanted
        domain = self.domain(node)
        domain.patterns.append((pattern, wanted))
        if wanted and None not in pattern:
            domain.choose(frozenset(("".join(piece or "" for piece in pattern),)))
        return True

    def _contains(self, atom: Node, *, wanted: bool) -> bool:
        known = [constant_of(element) for element in atom.parts[0].parts]
        listed = [constant for constant in known if constant is not None]
        if len(listed) < len(known) or len({constant.kind for constant in listed}) != 1 or listed[0].kind == "Bool":
            return self._truth(self._terms(atom), wanted)
        asked = constant_of(atom.parts[1])
        if asked is not None:
            return asked.kind != listed[0].kind or (asked in listed) is wanted
        domain = self.domain(atom.parts[1])
        domain.kind = domain.kind or listed[0].kind
        if domain.kind != listed[0].kind:
            return True
        values = frozenset(constant.value for constant in listed)
        if wanted:
            domain.choose(values)
        else:
            domain.excluded |= values
        return True


def _stands(left: object, op: Op, right: object) -> bool:
    if op in {Op.EQUAL, Op.UNEQUAL}:
        return (left == right) is (op is Op.EQUAL)
    if not isinstance(left, int) or not isinstance(right, int):
        return True
    if op in {Op.LESS, Op.GREATER_EQUAL}:
        return (left < right) is (op is Op.LESS)
    return (left > right) is (op is Op.GREATER)


@dataclass(frozen=True, slots=True)
class Reasoning:
    """What can be proved of the requests for one tool."""

    environment: Environment
    terms: Terms

    def never(self, demands: Iterable[Demand]) -> bool:
        """Whether no request meets all *demands* at once, for certain."""
        return not self.open(demands)

    def span(self, node: Node, ways: Alternatives) -> tuple[int, int]:
        """Return the bounds of a Long, in any of the *ways* that `open` gave."""
        spans = []
        for way in ways:
            case = _Case(self.environment, self.terms)
            case.takes(way)
            spans.append(case.domain(node).span())
        return min(low for low, _ in spans), max(high for _, high in spans)

    def open(self, demands: Iterable[Demand]) -> Alternatives:
        """Return the ways to meet all *demands* that are not dead; some demands may be left out of them."""
        whole: Alternatives = _ANYTHING
        for more in sorted(map(alternatives, demands), key=len):
            if len(whole) * len(more) <= _ALTERNATIVES:
                whole = _both(whole, more)
                if len(more) > 1:
                    whole = self._alive(whole)
        return self._alive(whole)

    def never_both(self, some: Alternatives, others: Alternatives) -> bool:
        """Whether none of some ways goes together with any of the others, for certain."""
        if len(some) * len(others) > _ALTERNATIVES:
            return False
        return not any(self._takes((*one, *other)) for one in some for other in others)

    def _alive(self, ways: Alternatives) -> Alternatives:
        return tuple(way for way in ways if self._takes(way))

    def _takes(self, way: Iterable[Demand]) -> bool:
        return _Case(self.environment, self.terms).takes(way)
