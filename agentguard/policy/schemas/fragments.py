"""Read what a schema fragment of the security team declares.

Cedar itself parses the fragment, joined with the generated schema. This reader finds
what must be known before: which types are there, so that they are not generated too,
and what a fragment may not declare, with its line.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NoReturn

from agentguard.policy.problem import Problem, refused
from agentguard.policy.text.lexer import Kind, LexError, check_schema_bounds, position, tokens

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentguard.limits import Limits
    from agentguard.policy.text.lexer import Token

OURS: Final = frozenset({"Invocation", "Server", "Tool"})
"""Entity types that the guard alone makes."""

VOCABULARY: Final = frozenset({"Agent", "Group", "Task", "User"})
"""Entity types that a fragment may declare in place of the generated ones."""

_RESERVED: Final = "reserved-type"
# Cedar lets a schema shadow these, and the generated types would then mean others.
_BUILT_IN: Final = frozenset({"Bool", "Boolean", "Long", "Set", "String", "datetime", "decimal", "duration", "ipaddr"})


@dataclass(frozen=True, slots=True)
class EntityType:
    """An entity type as it is declared.

    Attributes:
        name: Its name, with its namespace.
        parents: The types it may be in, as written.
        attributes: Whether its entities have attributes.
        tags: Whether its entities have tags.
        line: Where it is declared; 0 for a generated one.
        at: The column and the length of its name there.
    """

    name: str
    parents: tuple[str, ...] = ()
    attributes: bool = False
    tags: bool = False
    line: int = 0
    at: tuple[int, int] = field(default=(0, 1), compare=False, repr=False)

    @property
    def bare(self) -> bool:
        """Whether there is nothing to know of its entities, so none can be missing."""
        return not (self.parents or self.attributes or self.tags)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fragment:
    """One file of schema that the security team wrote.

    Attributes:
        path: The file, as messages name it.
        text: What it holds.
        entities: The entity types that it declares.
        namespaces: The namespaces that it opens, each with its line.
    """

    path: str
    text: str
    entities: tuple[EntityType, ...]
    namespaces: tuple[tuple[str, int], ...]


def read_fragment(path: str, text: str, limits: Limits) -> Fragment:
    """Read a fragment's declarations.

    Raises:
        PolicyError: If it is no schema, is nested past ``policy_nesting``, or declares
            an action or a type that the guard declares.
    """
    try:
        found = tokens(text)
        check_schema_bounds(text, found, limits)
    except LexError as error:
        raise refused([error.within(path)]) from error
    reader = _Reader(path, text, found)
    reader.read()
    return Fragment(path=path, text=text, entities=tuple(reader.entities), namespaces=tuple(reader.namespaces))


class _Reader:
    """A cursor over a fragment's tokens. The grammar is Cedar's human-readable schema."""

    def __init__(self, path: str, text: str, found: Iterable[Token]) -> None:
        self._path = path
        self._text = text
        self._rest = list(found)[::-1]
        self.entities: list[EntityType] = []
        self.namespaces: list[tuple[str, int]] = []

    def read(self) -> None:
        while self._rest:
            self._declaration("")

    def _declaration(self, namespace: str) -> None:
        self._annotations()
        keyword = self._next
        line, _ = self._place
        if self._skip("entity"):
            self._entity(namespace, line)
        elif self._skip("type"):
            self._type(namespace)
        elif not namespace and self._skip("namespace"):
            name = self._name_with_namespace()
            self.namespaces.append((name, line))
            self._expect("{")
            while not self._skip("}"):
                self._declaration(name)
        elif keyword == "action":
            self._refuse("actions are made from the guarded tools: remove this one", _RESERVED)
        else:
            self._refuse(f"wants `entity`, `type` or `namespace`, got `{keyword}`: see Cedar's schema grammar")

    def _annotations(self) -> None:
        while self._skip("@"):
            self._name()
            if self._skip("("):
                self._take(Kind.STRING)
                self._expect(")")

    def _entity(self, namespace: str, line: int) -> None:
        names: list[str] = []
        places: list[tuple[int, int, int]] = []
        while not names or self._skip(","):
            places.append((*self._place, len(self._next)))
            names.append(self._declared(namespace))
        parents: list[str] = []
        attributes = False
        if self._skip("in"):
            parents = self._parents()
        if self._skip("=") or self._next == "{":
            self._expect("{")
            attributes = self._next != "}"
            self._skip_braces()
        tags = self._next == "tags"
        if tags or self._next == "enum":
            self._skip_to_semicolon()
        self._expect(";")
        self.entities += [
            # The line of the declaration is told, which may not be that of the name.
            EntityType(name, tuple(parents), attributes, tags, line, (column, length) if there == line else (0, 1))
            for name, (there, column, length) in zip(names, places, strict=True)
        ]

    def _type(self, namespace: str) -> None:
        if self._next in VOCABULARY:
            self._refuse(f"`{self._next}` is an entity type: declare it with `entity`, or rename this type", _RESERVED)
        self._declared(namespace)
        self._skip_to_semicolon()
        self._expect(";")

    def _parents(self) -> list[str]:
        if not self._skip("["):
            return [self._name_with_namespace()]
        parents = []
        while not self._skip("]"):
            parents.append(self._name_with_namespace())
            if self._next != "]":
                self._expect(",")
        return parents

    def _skip_braces(self) -> None:
        depth = 1
        while depth:
            if not self._rest:
                self._refuse("wants `}`, and the file ends: close the bracket")
            text = self._rest.pop().text
            depth += (text == "{") - (text == "}")

    def _skip_to_semicolon(self) -> None:
        while self._rest and self._next != ";":
            self._rest.pop()

    def _declared(self, namespace: str) -> str:
        """Return the name that is declared here, if a fragment may declare it."""
        name = self._next
        if name in OURS:
            self._refuse(f"`{name}` is a type that the guard makes: rename this one", _RESERVED)
        if name in _BUILT_IN:
            self._refuse(f"`{name}` is a type that Cedar has: rename this one", _RESERVED)
        if namespace and name in VOCABULARY:
            self._refuse(f"`{name}` has no namespace here: declare it outside of `{namespace}`", _RESERVED)
        return "::".join(filter(None, (namespace, self._name())))

    def _name_with_namespace(self) -> str:
        parts = [self._name()]
        while self._skip("::"):
            parts.append(self._name())
        return "::".join(parts)

    def _name(self) -> str:
        return self._take(Kind.NAME)

    def _take(self, kind: Kind) -> str:
        if not self._rest or self._rest[-1].kind is not kind:
            self._refuse(f"wants a {kind.value}, got `{self._next}`: see Cedar's schema grammar")
        return self._rest.pop().text

    def _skip(self, text: str) -> bool:
        if self._next != text:
            return False
        self._rest.pop()
        return True

    def _expect(self, text: str) -> None:
        if not self._skip(text):
            self._refuse(f"wants `{text}`, got `{self._next}`: see Cedar's schema grammar")

    @property
    def _next(self) -> str:
        return self._rest[-1].text if self._rest else "the end of the file"

    @property
    def _place(self) -> tuple[int, int]:
        return position(self._text, self._rest[-1].offset if self._rest else len(self._text))

    def _refuse(self, what: str, name: str = "syntax") -> NoReturn:
        line, column = self._place
        length = len(self._rest[-1].text) if self._rest else 1
        raise refused([Problem(self._path, line, what, column=column, length=length, name=name)])
