"""The conditions of a policy, each with whether it holds and with the values that it looked at.

A policy matches if all that its head demands is so, every operand of its `when` clauses holds,
and no operand of its `unless` clauses does. Cedar looks at them in this order, and no further
than the first that differs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agentguard.analysis.notation import path_text
from agentguard.policy.deciding.trial import condition_permit
from agentguard.policy.text.lexer import tokens
from agentguard.policy.text.syntax import syntax_of_text
from agentguard.policy.text.tree import Node, Op, path_of, terms, walk

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterator, Mapping, Sequence

    from agentguard.analysis.known import Known
    from agentguard.policy.deciding.trial import Question

_KEPT: Final = 1_024
# A condition with its values in place of the paths, if that is not longer.
_SUBSTITUTED: Final = 60
_ORDERS: Final = frozenset((Op.LESS, Op.LESS_EQUAL, Op.GREATER, Op.GREATER_EQUAL))
_ARITHMETIC: Final = frozenset((Op.PLUS, Op.MINUS, Op.TIMES))
_METHODS: Final = frozenset(("lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual", "isInRange"))
_ENTITIES: Final = frozenset(("principal", "resource"))


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """One thing that has to be so for a policy to match, as it is written.

    Attributes:
        place: ``principal``, ``action``, ``resource``, ``when`` or ``unless``.
        node: The expression.
        source: Its text.
        text: Its text on one line, without comments.
        wanted: What it has to be.
        paths: The paths in it, in order.
    """

    place: str
    node: Node
    source: str
    text: str
    wanted: bool
    paths: tuple[tuple[str, ...], ...]

    def source_of(self, node: Node) -> str:
        """Return the text of an expression that is part of it."""
        return self.source[node.start - self.node.start : node.end - self.node.start]

    def text_of(self, node: Node) -> str:
        """Return that text on one line."""
        return _on_one_line(self.source_of(node))


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One thing that has to be so for a policy to match, and whether it was.

    Attributes:
        piece: The condition itself.
        holds: Whether the expression is true; None if it cannot be evaluated or, with
            *unknown*, cannot be told.
        looked_at: Whether Cedar gets to it: everything before it is as wanted.
        unknown: Whether something in it is not on record.
        values: The paths in it with their values, in Cedar's notation.
        shown: The values in one text: ``501 > 500`` or ``"month close"``; empty if there are none.
    """

    piece: Piece
    holds: bool | None
    looked_at: bool
    unknown: bool
    values: tuple[tuple[str, str], ...]
    shown: str

    @property
    def text(self) -> str:
        """The expression, as it is written."""
        return self.piece.text

    @property
    def met(self) -> bool:
        """Whether it is what it has to be."""
        return self.holds is self.piece.wanted


@lru_cache(maxsize=_KEPT)
def pieces_of(text: str) -> tuple[Piece, ...]:
    """Return what has to be so for a policy to match, in the order in which Cedar looks.

    Args:
        text: One policy, which Cedar parsed before.
    """
    syntax = syntax_of_text(text)
    found = [
        _piece(text, place, node, wanted=True)
        for place, node in (("principal", syntax.principal), ("action", syntax.action), ("resource", syntax.resource))
        if node.op is not Op.VARIABLE
    ]
    for clause in syntax.clauses:
        op = Op.AND if clause.holds else Op.OR
        found += [_piece(text, clause.kind, node, wanted=clause.holds) for node in terms(clause.body, op)]
    return tuple(found)


def _piece(text: str, place: str, node: Node, *, wanted: bool) -> Piece:
    source = text[node.start : node.end]
    return Piece(
        place, node, source, _on_one_line(source), wanted, tuple(dict.fromkeys(path for _, path in paths_in(node)))
    )


def _on_one_line(source: str) -> str:
    """Return an expression with one blank for every break and comment in it."""
    parts: list[str] = []
    end = 0
    for token in tokens(source):
        between = source[end : token.offset]
        parts += [between if between.isspace() and "\n" not in between and "\r" not in between else " " * bool(between)]
        parts.append(token.text)
        end = token.offset + len(token.text)
    return "".join(parts)


def paths_in(node: Node) -> Iterator[tuple[Node, tuple[str, ...]]]:
    """Yield each whole path in an expression, and where it stands; what leads to one is not one of its own."""
    pending = [node]
    while pending:
        node = pending.pop()
        if node.op is Op.HAS and (before := path_of(node.parts[0])) and isinstance(node.value, tuple):
            yield node, (*before, *map(str, node.value))
        elif path := path_of(node):
            if len(path) > 1 or path[0] in _ENTITIES:
                yield node, path
        else:
            pending += reversed(node.parts)


def conditions_of(texts: Sequence[str], question: Question, known: Known) -> tuple[tuple[Condition, ...], ...]:
    """Return the conditions of several policies, as one link of a request finds them.

    Args:
        texts: The policies, which Cedar parsed before.
        question: The request.
        known: What it says, to the link in question.

    Raises:
        Refusal: If the link cannot be judged.
    """
    limits = question.policies.limits
    asked = list(dict.fromkeys(piece.source for text in texts for piece in pieces_of(text)))
    answers = dict(zip(asked, question.ask([condition_permit(one, limits) for one in asked], known.depth), strict=True))
    return tuple(conditions_by(text, known, lambda piece: answers[piece.source].holds) for text in texts)


def conditions_by(
    text: str, known: Known, holds: Callable[[Piece], bool | None], *, unknown: Container[Piece] = ()
) -> tuple[Condition, ...]:
    """Return the conditions of one policy, with answers from elsewhere.

    Args:
        text: The policy, which Cedar parsed before.
        known: What the request says.
        holds: Gives the answer of each.
        unknown: Those whose answer cannot be told.
    """
    found: list[Condition] = []
    looked_at = True
    for piece in pieces_of(text):
        condition = Condition(
            piece=piece,
            holds=None if piece in unknown else holds(piece),
            looked_at=looked_at,
            unknown=piece in unknown,
            values=tuple((path_text(path), known.text(path, within=_is_asked(piece, path))) for path in piece.paths),
            shown=_shown(piece, known),
        )
        found.append(condition)
        # What cannot be told may be as wanted, so Cedar may have gone on.
        looked_at = looked_at and (condition.met or condition.unknown)
    return tuple(found)


def _is_asked(piece: Piece, path: Sequence[str]) -> bool:
    """Return whether a condition asks what the entity at a path is in."""
    inside = (node for node in walk(piece.node) if node.op is Op.IN or (node.op is Op.IS and len(node.parts) > 1))
    return any(path_of(node.parts[0]) == tuple(path) for node in inside)


def _shown(piece: Piece, known: Known) -> str:
    """Return the values in a condition: in place of their paths where these are compared, else by themselves."""
    if not piece.paths:
        return ""
    texts = {path: known.text(path, within=_is_asked(piece, path)) for path in piece.paths}
    if _compares(piece.node) and len(text := _substituted(piece, texts)) in range(1, _SUBSTITUTED):
        return text
    if len(texts) == 1:
        return next(iter(texts.values()))
    return ", ".join(f"{path_text(path)}: {text}" for path, text in texts.items())


def _compares(node: Node) -> bool:
    """Return whether an expression is one comparison by order, or adds something up."""
    if node.op in _ORDERS or (node.op is Op.METHOD and node.value in _METHODS):
        return True
    return any(part.op in _ARITHMETIC for part in walk(node))


def _substituted(piece: Piece, texts: Mapping[tuple[str, ...], str]) -> str:
    """Return a condition with the values in place of their paths; empty if it is on several lines."""
    text = piece.source
    if text != piece.text:
        return ""
    for node, path in sorted(paths_in(piece.node), key=lambda found: -found[0].start):
        start, end = node.start - piece.node.start, node.end - piece.node.start
        text = f"{text[:start]}{texts[path]}{text[end:]}"
    return text
