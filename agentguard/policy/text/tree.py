"""The tree of a policy, every part with its place in the text.

`policy.syntax` reads it. Brackets are nested at most as deep as `Limits` says, but a chain of
operators makes a tree as deep as it is long: go through one with `walk`, `fold` or `terms`,
which do not recurse.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeVar

from agentguard.model import EntityUid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_T = TypeVar("_T")

Value = bool | int | str | EntityUid | tuple[str | None, ...] | None
"""What a node holds beside its parts."""


class Op(StrEnum):
    """What a node is; operators are written as Cedar writes them.

    | op | value | parts |
    | --- | --- | --- |
    | LITERAL | a bool, int or str | |
    | ENTITY | its uid | |
    | VARIABLE | `principal`, `action`, `resource` or `context` | |
    | SET | | the elements |
    | RECORD | the names | what they are |
    | ATTRIBUTE | the name | of what |
    | HAS | the names, `a.b` is two | of what |
    | LIKE | the pieces of the pattern, None for a `*` | what |
    | IS | the type's name | what, and after `in` in what |
    | CALL | the function's name | the arguments |
    | METHOD | the method's name | of what, and the arguments |
    | IF | | condition, then, else |
    | NOT, NEGATIVE | | the operand |
    | the others | | left and right |
    """

    LITERAL = "literal"
    ENTITY = "entity"
    VARIABLE = "variable"
    SET = "set"
    RECORD = "record"
    ATTRIBUTE = "."
    HAS = "has"
    LIKE = "like"
    IS = "is"
    CALL = "call"
    METHOD = "method"
    IF = "if"
    NOT = "!"
    NEGATIVE = "neg"
    OR = "||"
    AND = "&&"
    EQUAL = "=="
    UNEQUAL = "!="
    LESS = "<"
    LESS_EQUAL = "<="
    GREATER = ">"
    GREATER_EQUAL = ">="
    IN = "in"
    PLUS = "+"
    MINUS = "-"
    TIMES = "*"


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One expression.

    Attributes:
        op: What it is.
        parts: The expressions that it is made of.
        value: What else it is made of; see `Op`.
        start: Where it starts in the policy's text, without brackets around the whole of it.
        end: Where it ends.
        sign: Where its operator, or the name that it ends with, starts.
    """

    op: Op
    parts: tuple[Node, ...]
    value: Value
    start: int
    end: int
    sign: int


@dataclass(frozen=True, slots=True, eq=False)
class Annotation:
    """An annotation, from its `@` to its end; without a value, that is empty."""

    name: str
    value: str
    start: int
    end: int


@dataclass(frozen=True, slots=True, eq=False)
class Clause:
    """A `when` or `unless`, and where it stands with its braces."""

    kind: str
    body: Node
    start: int
    end: int

    @property
    def holds(self) -> bool:
        """What the body has to be for the policy to match."""
        return self.kind == "when"


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Syntax:
    """One policy. Its head's three parts are expressions, a variable alone where anything will do.

    Attributes:
        text: The policy's text, into which all places point.
        annotations: What stands above it.
        effect: ``permit`` or ``forbid``.
        start: Where the effect stands.
        principal: What the head wants of the principal.
        action: What it wants of the action.
        resource: What it wants of the resource.
        clauses: The conditions.
    """

    text: str
    annotations: tuple[Annotation, ...]
    effect: str
    start: int
    principal: Node
    action: Node
    resource: Node
    clauses: tuple[Clause, ...]

    def written(self, node: Node) -> str:
        """Return an expression as it is written, on one line."""
        return re.sub(r"\s*[\n\r\t]\s*", " ", self.text[node.start : node.end])


def walk(node: Node) -> Iterator[Node]:
    """Yield a node and all that it is made of, in the order of the text."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending += reversed(node.parts)


def fold(node: Node, combine: Callable[[Node, tuple[_T, ...]], _T]) -> _T:
    """Return what *combine* makes of a node and of what it made of its parts."""
    done: list[_T] = []
    pending = [(node, False)]
    while pending:
        node, ready = pending.pop()
        if not ready and node.parts:
            pending.append((node, True))
            pending += ((part, False) for part in reversed(node.parts))
            continue
        first = len(done) - len(node.parts)
        done[first:] = [combine(node, tuple(done[first:]))]
    return done[0]


def terms(node: Node, op: Op = Op.AND) -> tuple[Node, ...]:
    """Return the operands of a chain of one operator, `a && b && c`, in the order of the text."""
    found = []
    pending = [node]
    while pending:
        node = pending.pop()
        if node.op is op:
            pending += reversed(node.parts)
        else:
            found.append(node)
    return tuple(found)


def path_of(node: Node) -> tuple[str, ...]:
    """Return `context.input.x` as names, the variable first; empty for what is no such path."""
    names: list[str] = []
    while node.op is Op.ATTRIBUTE:
        names.append(str(node.value))
        (node,) = node.parts
    return (str(node.value), *reversed(names)) if node.op is Op.VARIABLE else ()
