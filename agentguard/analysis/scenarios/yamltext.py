"""YAML as plain data whose scalars are all text, each with its place.

YAML itself gives scalars types: `1000.00` becomes a float, `no` a bool. Here nothing has a
type until the Cedar schema gives it one. Of YAML only what people write by hand is taken:
no aliases, which can stand for a billion nodes, no tags, no second document, and no key
twice, of which readers differ in the one they believe.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NoReturn, TypeAlias, cast

import yaml

from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

MOST_BYTES: Final = 512 * 1024
"""What a file may hold."""

MOST_NODES: Final = 50_000
"""How many texts, lists and mappings a file may hold, their ends counted."""

_DEEPEST: Final = 40
# What an editor takes for nothing, and whoever wrote it perhaps for nobody.
_NOTHING: Final = frozenset(("~", "null", "Null", "NULL"))
_SHOWN: Final = 60


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: line and column, from 1, and how many characters of it are in that line."""

    line: int
    column: int
    length: int = 1


@dataclass(frozen=True, slots=True)
class Text:
    """A scalar."""

    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Listed:
    """A list."""

    items: tuple[Node, ...]
    place: Place


@dataclass(frozen=True, slots=True)
class Record:
    """A mapping: each value by its key, and where the key stands."""

    members: Mapping[str, Node]
    keys: Mapping[str, Place]
    place: Place


Node: TypeAlias = "Text | Listed | Record"


class MistakeError(Exception):
    """Something in the text that cannot be what was meant.

    Attributes:
        what: What is wrong and, after a colon, the fix.
        place: Where.
    """

    def __init__(self, what: str, place: Place) -> None:
        super().__init__(what)
        self.what = what
        self.place = place


def mistake(what: str, place: Place) -> NoReturn:
    """Refuse what stands at *place*."""
    raise MistakeError(what, place) from None


def plain(node: Node) -> str | list[object] | dict[str, object]:
    """Return a node as plain data."""
    if isinstance(node, Text):
        return node.text
    if isinstance(node, Listed):
        return [plain(item) for item in node.items]
    return {key: plain(value) for key, value in node.members.items()}


def read_yaml(text: str, *, most: int = MOST_NODES) -> Node:
    """Return what the one document of *text* holds.

    Args:
        text: The file.
        most: How many nodes it may hold.

    Raises:
        MistakeError: It is no YAML, or more of YAML than is taken here.
    """
    places = _Places(text)
    try:
        root = _composed(yaml.parse(text, Loader=yaml.SafeLoader), most, places)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = Place(1, 1) if mark is None else places.at(mark.index)
        mistake(f"this is not YAML, {_words(error)}: mend it", place)
    except yaml.reader.ReaderError as error:
        mistake("this is not YAML, a character cannot be in it: remove it", places.at(error.position))
    except (yaml.YAMLError, ValueError, OverflowError):
        mistake("this is not YAML, an escape in it stands for no character: mend it", Place(1, 1))
    if root is None:
        mistake("the file is empty: write `scenarios:`", Place(1, 1))
    return root


def _words(error: yaml.MarkedYAMLError) -> str:
    return _short(", ".join(part for part in (error.context, error.problem) if part)) or "something is wrong"


def _short(text: str) -> str:
    line = printable(" ".join(text.split()))
    return f"{line[: 2 * _SHOWN]}…" if len(line) > 2 * _SHOWN else line


def shown(text: str) -> str:
    """Return text as a message can quote it: on one line, and not all of a long one."""
    quoted = printable(text)
    return f"`{quoted[:_SHOWN]}…`" if len(quoted) > _SHOWN else f"`{quoted}`"


class _Open:
    """A list or a mapping that has not ended yet."""

    __slots__ = ("is_mapping", "items", "key", "keys", "members", "place")

    def __init__(self, place: Place, *, is_mapping: bool) -> None:
        self.place = place
        self.is_mapping = is_mapping
        self.items: list[Node] = []
        self.members: dict[str, Node] = {}
        self.keys: dict[str, Place] = {}
        self.key: str | None = None

    def add(self, node: Node) -> None:
        if not self.is_mapping:
            self.items.append(node)
        elif self.key is not None:
            self.members[self.key] = node
            self.key = None
        elif not isinstance(node, Text):
            mistake("a key is a text, and this is none: write `key: value`", node.place)
        elif node.text == "<<":
            mistake("`<<` merges nothing here: write the keys out", node.place)
        elif node.text in self.members:
            first = self.keys[node.text].line
            mistake(f"{shown(node.text)} stands here twice, first in line {first}: keep one", node.place)
        else:
            self.key = node.text
            self.keys[node.text] = node.place

    def closed(self) -> Node:
        if self.is_mapping:
            return Record(self.members, self.keys, self.place)
        return Listed(tuple(self.items), self.place)


class _Places:
    """Where a text has its characters: YAML breaks lines at signs at which no editor does."""

    def __init__(self, text: str) -> None:
        self._breaks = [found.start() for found in re.finditer("\n", text)]

    def at(self, index: int, end: int = 0) -> Place:
        """Return the place of a character, and of those after it up to *end* in its line."""
        line = bisect_left(self._breaks, index)
        start = self._breaks[line - 1] + 1 if line else 0
        within = end if line == len(self._breaks) or end <= self._breaks[line] else index + 1
        return Place(line + 1, index - start + 1, max(1, within - index))

    def of(self, event: yaml.Event) -> Place:
        """Return the place of what an event tells."""
        start, end = cast("yaml.Mark", event.start_mark), cast("yaml.Mark", event.end_mark)
        return self.at(start.index, end.index)


def _composed(events: Iterable[yaml.Event], most: int, places: _Places) -> Node | None:
    """Build nodes from events: without recursion, so that nesting is a number and not a crash."""
    root: Node | None = None
    stack: list[_Open] = []
    for node in _nodes(events, stack, most, places):
        if stack:
            stack[-1].add(node)
        else:
            root = node
    return root


def _nodes(events: Iterable[yaml.Event], stack: list[_Open], most: int, places: _Places) -> Iterator[Node]:
    """Yield each node at its end; what it is in is then the last of *stack*."""
    documents = 0
    for count, event in enumerate(events):
        place = places.of(event)
        if count > most:
            mistake(f"a file holds at most {most} nodes: split it", place)
        if isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            if documents > 1:
                mistake("a second document begins here: put it into a file of its own", place)
        elif isinstance(event, yaml.CollectionEndEvent):
            yield stack.pop().closed()
        elif isinstance(event, yaml.NodeEvent):
            _check_plain(event, place)
            if isinstance(event, yaml.ScalarEvent):
                yield _text(event, place)
                continue
            if len(stack) == _DEEPEST:
                mistake(f"this is nested deeper than {_DEEPEST}: flatten it", place)
            stack.append(_Open(place, is_mapping=isinstance(event, yaml.MappingStartEvent)))


def _check_plain(event: yaml.NodeEvent, place: Place) -> None:
    if isinstance(event, yaml.AliasEvent):
        mistake(f"an alias, `*{printable(str(event.anchor))}`, is not taken: write it out", place)
    if event.anchor is not None:
        mistake(f"an anchor, `&{printable(str(event.anchor))}`, is not taken: remove it", place)
    if getattr(event, "tag", None) is not None:
        mistake("a tag, `!…`, is not taken: values have the types of the Cedar schema, so remove it", place)


def _text(event: yaml.ScalarEvent, place: Place) -> Text:
    if not event.style and not event.value:
        mistake('nothing stands here: write `""` for an empty text', place)
    if not event.style and event.value in _NOTHING:
        mistake(f"`{event.value}` stands for nothing in YAML: leave it out, or put it into quotes", place)
    try:
        event.value.encode()
    except UnicodeEncodeError:
        mistake("half of a character stands here: write it whole", place)
    return Text(event.value, place)
