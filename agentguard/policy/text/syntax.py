"""Read the tree of a policy from its text.

Cedar gives a policy's tree without places, as JSON that is nested deeper than a JSON parser
goes. So the tokens are read once more here. That decides nothing: only policies that Cedar
has parsed come here, and a test holds the two trees against each other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.model import EntityUid
from agentguard.policy.text.lexer import Kind, LexError, tokens, unquote
from agentguard.policy.text.tree import Annotation, Clause, Node, Op, Syntax, Value

if TYPE_CHECKING:
    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.text.lexer import Token


def syntax_of(policy: Policy) -> Syntax:
    """Return the tree of a policy that `read_policies` gave.

    Raises:
        LexError: If it is not one.
    """
    return syntax_of_text(policy.text)


def syntax_of_text(text: str) -> Syntax:
    """Return the tree of one policy's text, which was bounded and which Cedar has parsed.

    Raises:
        LexError: If it is not one.
    """
    return _Parser(text).policy()


_VARIABLES: Final = frozenset(("principal", "action", "resource", "context"))
_BOOLEANS: Final = {"true": True, "false": False}
# How strongly an operator binds.
_STRENGTH: Final = {
    Op.OR: 1,
    Op.AND: 2,
    **dict.fromkeys((Op.EQUAL, Op.UNEQUAL, Op.LESS, Op.LESS_EQUAL, Op.GREATER, Op.GREATER_EQUAL, Op.IN), 3),
    **dict.fromkeys((Op.HAS, Op.LIKE, Op.IS), 3),
    Op.PLUS: 4,
    Op.MINUS: 4,
    Op.TIMES: 5,
}
_BY_TEXT: Final = {op.value: op for op in _STRENGTH}
_STAR: Final = "\\*"


@dataclass(slots=True)
class _Operator:
    """An operator that waits for its right side."""

    op: Op
    sign: int
    value: Value


class _Parser:
    """Reads one policy. Each method starts at the next token, and leaves behind what it took."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = tokens(text)
        self.at = 0

    def policy(self) -> Syntax:
        annotations = []
        while self._next("@"):
            annotations.append(self._annotation())
        effect = self._take()
        self._expect("(")
        principal = self._expression()
        self._expect(",")
        action = self._expression()
        self._expect(",")
        resource = self._expression()
        self._next(",")
        self._expect(")")
        clauses = []
        while not self._next(";"):
            clauses.append(self._clause())
        if self.at < len(self.tokens):
            raise self._unexpected(self.at)
        return Syntax(
            text=self.text,
            annotations=tuple(annotations),
            effect=effect.text,
            start=effect.offset,
            principal=principal,
            action=action,
            resource=resource,
            clauses=tuple(clauses),
        )

    def _annotation(self) -> Annotation:
        start = self.tokens[self.at - 1].offset
        name = self._take().text
        value = ""
        if self._next("("):
            value = unquote(self._take().text)
            self._expect(")")
        return Annotation(name, value, start, self._end())

    def _clause(self) -> Clause:
        kind = self._take()
        self._expect("{")
        body = self._expression()
        self._expect("}")
        return Clause(kind.text, body, kind.offset, self._end())

    def _expression(self) -> Node:
        """Read up to what no expression goes on with. Operators wait on a list, so that chains do not recurse."""
        if self._peek() == "if":
            return self._if()
        waiting: list[_Operator] = []
        starts: list[int] = []
        found: list[Node] = []
        while True:
            starts.append(self._start())
            found.append(self._unary())
            operator = self._operator(waiting, starts, found)
            if operator is None:
                break
            waiting.append(operator)
        _apply(waiting, starts, found, 0, self._end())
        return found[0]

    def _operator(self, waiting: list[_Operator], starts: list[int], found: list[Node]) -> _Operator | None:
        """Read every `has`, `like` and `is`, and then the operator that wants a right side, if one comes."""
        while (op := _BY_TEXT.get(self._peek())) is not None:
            _apply(waiting, starts, found, _STRENGTH[op], self._end())
            sign = self._take().offset
            value: Value = None
            if op is Op.HAS:
                value = self._names()
            elif op is Op.LIKE:
                value = _pattern(self._take(Kind.STRING).text)
            elif op is Op.IS:
                value = self._path()
            if value is None or self._next("in"):
                return _Operator(op, sign, value)
            found[-1] = Node(op, (found[-1],), value, starts[-1], self._end(), sign)
        return None

    def _if(self) -> Node:
        start = self._take().offset
        condition = self._expression()
        self._expect("then")
        then = self._expression()
        self._expect("else")
        otherwise = self._expression()
        return Node(Op.IF, (condition, then, otherwise), None, start, self._end(), start)

    def _unary(self) -> Node:
        signs: list[Token] = []
        while self._peek() in {"!", "-"}:
            signs.append(self._take())
        node = self._member()
        for sign in reversed(signs):
            if sign.text == "-" and self.tokens[self.at - 2] is sign and type(node.value) is int:
                node = Node(Op.LITERAL, (), -node.value, sign.offset, node.end, sign.offset)
            else:
                op = Op.NOT if sign.text == "!" else Op.NEGATIVE
                node = Node(op, (node,), None, sign.offset, self._end(), sign.offset)
        return node

    def _member(self) -> Node:
        start = self._start()
        node = self._primary()
        while self._peek() in {".", "["}:
            if self._next("["):
                name = self._take()
                self._expect("]")
                node = Node(Op.ATTRIBUTE, (node,), unquote(name.text), start, self._end(), name.offset)
                continue
            self._expect(".")
            name = self._take()
            if self._next("("):
                parts = (node, *self._listed(")"))
                node = Node(Op.METHOD, parts, name.text, start, self._end(), name.offset)
            else:
                node = Node(Op.ATTRIBUTE, (node,), name.text, start, self._end(), name.offset)
        return node

    def _primary(self) -> Node:
        token = self._take()
        start = token.offset
        if token.text == "(":
            node = self._expression()
            self._expect(")")
            return node
        if token.text == "[":
            return Node(Op.SET, self._listed("]"), None, start, self._end(), start)
        if token.text == "{":
            names, parts = self._members()
            return Node(Op.RECORD, parts, names, start, self._end(), start)
        if token.text in _VARIABLES and self._peek() != "::":
            return Node(Op.VARIABLE, (), token.text, start, self._end(), start)
        return self._literal(token) or self._named(token)

    def _literal(self, token: Token) -> Node | None:
        value: Value = _BOOLEANS.get(token.text)
        if token.kind is Kind.STRING:
            value = unquote(token.text)
        elif token.kind is Kind.INTEGER:
            value = int(token.text)
        return None if value is None else Node(Op.LITERAL, (), value, token.offset, self._end(), token.offset)

    def _named(self, token: Token) -> Node:
        """Read an entity, or the call of a function, whose name starts with *token*."""
        self.at -= 1
        start = token.offset
        name = self._path()
        if self._next("("):
            return Node(Op.CALL, self._listed(")"), name, start, self._end(), start)
        uid = EntityUid(name, unquote(self._take(Kind.STRING).text))
        return Node(Op.ENTITY, (), uid, start, self._end(), start)

    def _path(self) -> str:
        """Read a name with its namespace; of an entity, up to the `::` before its id."""
        name = self._take(Kind.NAME).text
        while self._next("::"):
            if self.at < len(self.tokens) and self.tokens[self.at].kind is Kind.STRING:
                break
            name = f"{name}::{self._take(Kind.NAME).text}"
        return name

    def _names(self) -> tuple[str, ...]:
        """Read what stands right of `has`."""
        names = [self._name()]
        while self._next("."):
            names.append(self._name())
        return tuple(names)

    def _name(self) -> str:
        token = self._take()
        return unquote(token.text) if token.kind is Kind.STRING else token.text

    def _members(self) -> tuple[tuple[str, ...], tuple[Node, ...]]:
        names, parts = [], []
        while not self._next("}"):
            names.append(self._name())
            self._expect(":")
            parts.append(self._expression())
            if not self._next(","):
                self._expect("}")
                break
        return tuple(names), tuple(parts)

    def _listed(self, closing: str) -> tuple[Node, ...]:
        found = []
        while not self._next(closing):
            found.append(self._expression())
            if not self._next(","):
                self._expect(closing)
                break
        return tuple(found)

    def _peek(self) -> str:
        return self.tokens[self.at].text if self.at < len(self.tokens) else ""

    def _next(self, text: str) -> bool:
        """Take the next token if it is *text*."""
        found = self._peek() == text
        self.at += found
        return found

    def _expect(self, text: str) -> None:
        if not self._next(text):
            raise self._unexpected(self.at)

    def _take(self, kind: Kind | None = None) -> Token:
        self.at += 1
        if self.at > len(self.tokens) or (kind is not None and self.tokens[self.at - 1].kind is not kind):
            raise self._unexpected(self.at - 1)
        return self.tokens[self.at - 1]

    def _unexpected(self, at: int) -> LexError:
        self.at = at
        return LexError(self.text, self._start(), "this is no policy that Cedar takes: check the folder first")

    def _start(self) -> int:
        """Return where the next token starts."""
        return self.tokens[self.at].offset if self.at < len(self.tokens) else len(self.text)

    def _end(self) -> int:
        """Return where the last token ends."""
        token = self.tokens[self.at - 1]
        return token.offset + len(token.text)


def _apply(waiting: list[_Operator], starts: list[int], found: list[Node], strength: int, end: int) -> None:
    """Give every operator that binds at least as *strength* its two sides, which end here."""
    while waiting and _STRENGTH[waiting[-1].op] >= strength:
        operator = waiting.pop()
        right = found.pop()
        starts.pop()
        found[-1] = Node(operator.op, (found[-1], right), operator.value, starts[-1], end, operator.sign)


def _pattern(literal: str) -> tuple[str | None, ...]:
    """Return the pieces of a pattern: a bare `*` is any text, one after a backslash is itself."""
    pieces: list[str | None] = []
    for part in re.findall(r"\\.[^\\*]*|\*|[^\\*]+", literal[1:-1], re.DOTALL):
        if part == "*":
            pieces.append(None)
            continue
        text = part.removeprefix(_STAR) if part.startswith(_STAR) else part
        text = ("*" if part.startswith(_STAR) else "") + unquote(f'"{text}"')
        if pieces and pieces[-1] is not None:
            pieces[-1] += text
        else:
            pieces.append(text)
    return tuple(pieces)
