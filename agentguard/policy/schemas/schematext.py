"""What a Cedar schema's text declares, as written: names are not looked up yet.

The grammar is Cedar's human-readable schema. Cedar itself gives back neither lines nor
annotations, so it is read here too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn, TypeVar

from agentguard.model import printable
from agentguard.policy.text.annotations import CHOICE, listed
from agentguard.policy.text.lexer import Kind, LexError, tokens, unquote

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.policy.text.lexer import Token

T = TypeVar("T")

CEDAR: Final = "__cedar::"
"""Stands before the name of a type of Cedar's own, where it has to be clear."""

_SHOWN: Final = 64


class Name(NamedTuple):
    """A type that is named."""

    path: str
    namespace: str
    offset: int


class SetOf(NamedTuple):
    """A set, as written."""

    element: Written
    offset: int


class RecordOf(NamedTuple):
    """A record, as written."""

    members: tuple[WrittenMember, ...]
    offset: int


class WrittenMember(NamedTuple):
    """A member of a record, as written."""

    name: str
    type: Written
    required: bool
    one_of: tuple[str, ...]
    spends: str
    offset: int


Written = Name | SetOf | RecordOf


class WrittenEntity(NamedTuple):
    """An entity type, as written."""

    name: str
    parents: tuple[Name, ...]
    attributes: RecordOf
    tags: Written | None
    ids: tuple[str, ...]
    offset: int


class WrittenAction(NamedTuple):
    """An action, as written."""

    name: str
    groups: tuple[str, ...]
    principals: tuple[Name, ...]
    resources: tuple[Name, ...]
    context: Written | None
    annotations: Mapping[str, str]
    offset: int


class SchemaReader:
    """A cursor over a schema's tokens."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.common: dict[str, Written] = {}
        self.entities: dict[str, WrittenEntity] = {}
        self.actions: dict[str, WrittenAction] = {}
        self._namespace = ""
        self._rest: list[Token] = list(tokens(text))[::-1]
        while self._rest:
            self._declaration()

    def refuse(self, offset: int, what: str) -> NoReturn:
        """Refuse the text, for what stands at *offset*."""
        raise LexError(self.text, offset, what)

    def _declaration(self) -> None:
        annotations = self._annotations()
        keyword, offset = self._next, self._offset
        if self._skip("entity"):
            self._entity(offset)
        elif self._skip("type"):
            name = self._declared(self._name(), offset, self.common)
            self._expect("=")
            self.common[name] = self._type()
            self._expect(";")
        elif self._skip("action"):
            self._action(offset, annotations)
        elif not self._namespace and self._skip("namespace"):
            self._namespace = self._path().path
            self._expect("{")
            while not self._skip("}"):
                self._declaration()
            self._namespace = ""
        else:
            self.refuse(offset, f"wants `entity`, `type`, `action` or `namespace`, got {shown(keyword)}: mend it")

    def _annotations(self) -> dict[str, str]:
        found: dict[str, str] = {}
        while self._skip("@"):
            offset, name = self._offset, self._name()
            if name in found:
                self.refuse(offset, f"@{name} stands here twice: remove one")
            found[name] = ""
            if self._skip("("):
                found[name] = self._string()
                self._expect(")")
        return found

    def _entity(self, offset: int) -> None:
        names = self._several(self._name)
        parents: tuple[Name, ...] = ()
        attributes = RecordOf((), offset)
        tags: Written | None = None
        ids: tuple[str, ...] = ()
        if self._skip("enum"):
            ids = self._bracketed(self._string)
        else:
            if self._skip("in"):
                parents = self._paths()
            if self._skip("=") or self._next == "{":
                attributes = self._record()
            if self._skip("tags"):
                tags = self._type()
        self._expect(";")
        for name in names:
            full = self._declared(name, offset, self.entities)
            self.entities[full] = WrittenEntity(full, parents, attributes, tags, ids, offset)

    def _action(self, offset: int, annotations: Mapping[str, str]) -> None:
        if self._namespace:
            self.refuse(offset, "an action has no namespace here: move it out")
        names = self._several(self._label)
        groups: tuple[str, ...] = ()
        applies: dict[str, tuple[Name, ...]] = {}
        context: Written | None = None
        if self._skip("in"):
            groups = self._bracketed(self._reference) if self._next == "[" else (self._reference(),)
        if self._skip("appliesTo"):
            self._expect("{")
            context = RecordOf((), offset)
            while not self._skip("}"):
                at, key = self._offset, self._name()
                self._expect(":")
                if key == "context":
                    context = self._record() if self._next == "{" else self._path()
                elif key in {"principal", "resource"}:
                    applies[key] = self._paths()
                else:
                    self.refuse(at, f"wants `principal`, `resource` or `context`, got {shown(key)}: mend it")
                if self._next != "}":
                    self._expect(",")
        self._expect(";")
        for name in names:
            if name in self.actions:
                self.refuse(offset, f"action {shown(name)} is declared twice: remove one")
            who, what = applies.get("principal", ()), applies.get("resource", ())
            self.actions[name] = WrittenAction(name, groups, who, what, context, annotations, offset)

    def _type(self) -> Written:
        offset = self._offset
        if self._next == "{":
            return self._record()
        path = self._path()
        if path.path.removeprefix(CEDAR) == "Set" and self._skip("<"):
            element = self._type()
            self._expect(">")
            return SetOf(element, offset)
        return path

    def _record(self) -> RecordOf:
        offset = self._offset
        self._expect("{")
        members: dict[str, WrittenMember] = {}
        while not self._skip("}"):
            annotations = self._annotations()
            at, name = self._offset, self._label()
            if name in members:
                self.refuse(at, f"{shown(name)} is declared twice in one record: remove one")
            required = not self._skip("?")
            self._expect(":")
            one_of = listed(annotations["one_of"], CHOICE) if "one_of" in annotations else ()
            members[name] = WrittenMember(name, self._type(), required, one_of, annotations.get("spends", ""), at)
            if self._next != "}":
                self._expect(",")
        return RecordOf(tuple(members.values()), offset)

    def _declared(self, name: str, offset: int, among: Mapping[str, object]) -> str:
        full = f"{self._namespace}::{name}" if self._namespace else name
        if full in among:
            self.refuse(offset, f"`{full}` is declared twice: remove one")
        return full

    def _reference(self) -> str:
        """Take an action that another is in. If its type is written, it can only be `Action`."""
        if self._next == "Action" and self._rest[-2:-1] and self._rest[-2].text == "::":
            del self._rest[-2:]
        return self._label()

    def _paths(self) -> tuple[Name, ...]:
        return self._bracketed(self._path) if self._next == "[" else (self._path(),)

    def _bracketed(self, one: Callable[[], T]) -> tuple[T, ...]:
        self._expect("[")
        found: list[T] = []
        while not self._skip("]"):
            found.append(one())
            if self._next != "]":
                self._expect(",")
        return tuple(found)

    def _several(self, one: Callable[[], T]) -> list[T]:
        found = [one()]
        while self._skip(","):
            found.append(one())
        return found

    def _path(self) -> Name:
        offset = self._offset
        parts = [self._name()]
        while self._skip("::"):
            parts.append(self._name())
        return Name("::".join(parts), self._namespace, offset)

    def _label(self) -> str:
        return self._string() if self._rest and self._rest[-1].kind is Kind.STRING else self._name()

    def _name(self) -> str:
        return self._take(Kind.NAME)

    def _string(self) -> str:
        offset, written = self._offset, self._take(Kind.STRING)
        try:
            return unquote(written)
        except ValueError as error:
            self.refuse(offset, str(error))

    def _take(self, kind: Kind) -> str:
        if not self._rest or self._rest[-1].kind is not kind:
            self.refuse(self._offset, f"wants a {kind.value}, got {shown(self._next)}: mend it")
        return self._rest.pop().text

    def _skip(self, text: str) -> bool:
        if self._next != text:
            return False
        self._rest.pop()
        return True

    def _expect(self, text: str) -> None:
        if not self._skip(text):
            self.refuse(self._offset, f"wants `{text}`, got {shown(self._next)}: mend it")

    @property
    def _next(self) -> str:
        return self._rest[-1].text if self._rest else ""

    @property
    def _offset(self) -> int:
        return self._rest[-1].offset if self._rest else len(self.text)


def shown(text: str) -> str:
    """Return a text of a file as a message can hold it."""
    return f"`{printable(text[:_SHOWN])}`" if text else "the end of the file"
