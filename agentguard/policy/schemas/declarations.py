"""Read which types the declarations of a valid Cedar schema are made of.

Only names are kept, since that is what decides where a value can refer to an entity: a
`Set<String>` cannot, and a record with a `User` somewhere in it can.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.policy.text.lexer import Kind, tokens, unquote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.policy.text.lexer import Token

_EXTENSIONS: Final = frozenset(("decimal", "datetime", "duration", "ipaddr"))
_BRACKETS: Final = {"{": 1, "<": 1, "[": 1, "(": 1, "}": -1, ">": -1, "]": -1, ")": -1}


@dataclass(slots=True)
class Declaration:
    """What one entity type or common type is made of.

    Attributes:
        parents: The names of the types that it may be in.
        attributes: For each attribute, the names in its type.
        rest: The names in its tags, or in a common type.
    """

    parents: set[str] = field(default_factory=set)
    attributes: dict[str, set[str]] = field(default_factory=dict)
    rest: set[str] = field(default_factory=set)

    @property
    def names(self) -> set[str]:
        """Every name in it."""
        return self.parents.union(self.rest, *self.attributes.values())


def read_declarations(schema: str) -> dict[str, Declaration]:
    """Return the types that *schema* declares, by name with namespace.

    A name is kept in each way that it could be meant: with the namespace that it stands
    in, and without.
    """
    return _Reader(schema).read()


def closure(start: set[str], declared: Mapping[str, Declaration]) -> set[str]:
    """Return *start* and every name that its types are made of, however deep."""
    found: set[str] = set()
    pending = list(start)
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            if name in declared:
                pending += declared[name].names
    return found


def plain_attributes(declared: dict[str, Declaration], entities: frozenset[str]) -> dict[str, frozenset[str]]:
    """Return, for each entity type, its attributes that are made of strings, numbers and bools alone.

    Args:
        declared: What `read_declarations` gave.
        entities: The names of the entity types.
    """
    special = entities | _EXTENSIONS
    common = {name: declaration for name, declaration in declared.items() if name not in entities}
    return {
        name: frozenset(
            attribute
            for attribute, names in declared[name].attributes.items()
            if special.isdisjoint(closure(names, common))
        )
        for name in entities & declared.keys()
    }


class _Reader:
    """A cursor over a schema that Cedar has found valid."""

    def __init__(self, schema: str) -> None:
        self._rest: list[Token] = list(tokens(schema))[::-1]
        self._namespace = ""
        self._declared: dict[str, Declaration] = {}

    def read(self) -> dict[str, Declaration]:
        while self._rest:
            keyword = self._rest.pop().text
            if keyword == "namespace":
                self._namespace = self._path()
            elif keyword == "}":
                self._namespace = ""
            elif keyword == "entity":
                self._entity()
            elif keyword == "type":
                common = self._declare(self._path())
                common.rest = self._names()
            elif keyword == "action":
                self._names()
        return self._declared

    def _declare(self, name: str) -> Declaration:
        return self._declared.setdefault(self._qualified(name), Declaration())

    def _entity(self) -> None:
        together = [self._declare(self._path())]
        while self._skip(","):
            together.append(self._declare(self._path()))
        whole = Declaration()
        if self._skip("in"):
            whole.parents = self._names(stop=("=", "{", "tags", ";"))
        self._skip("=")
        if self._skip("{"):
            while not self._skip("}"):
                self._attribute(whole)
        whole.rest = self._names()
        for declaration in together:
            declaration.parents, declaration.attributes, declaration.rest = whole.parents, whole.attributes, whole.rest

    def _attribute(self, whole: Declaration) -> None:
        while self._skip("@"):
            self._path()
            if self._skip("("):
                self._names(stop=(")",))
                self._skip(")")
        token = self._rest.pop()
        name = unquote(token.text) if token.kind is Kind.STRING else token.text
        self._skip("?")
        self._skip(":")
        whole.attributes[name] = self._names(stop=(",", "}"))
        self._skip(",")

    def _names(self, stop: tuple[str, ...] = (";",)) -> set[str]:
        """Take everything up to one of *stop* outside of brackets, and return the names in it.

        Names of attributes are among them, which does no harm: more may be reached.
        """
        found: set[str] = set()
        depth = 0
        while depth or self._rest[-1].text not in stop:
            if self._rest[-1].kind is Kind.NAME:
                path = self._path()
                found |= {path.removeprefix("__cedar::"), self._qualified(path)}
            else:
                depth += _BRACKETS.get(self._rest.pop().text, 0)
        return found

    def _path(self) -> str:
        parts = [self._rest.pop().text]
        while self._skip("::"):
            parts.append(self._rest.pop().text)
        return "::".join(parts)

    def _qualified(self, name: str) -> str:
        return f"{self._namespace}::{name}" if self._namespace else name

    def _skip(self, text: str) -> bool:
        if self._rest[-1].text != text:
            return False
        self._rest.pop()
        return True
