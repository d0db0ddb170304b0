"""A value as text: at least everything that a framework would show of it, and nothing used up.

The SDK makes text of a result with pydantic: of models, dataclasses and containers what
is in them, of all else its ``str``; and structured content, for which it also reads what a
class declares. What can be looked at only once, such as an iterator, cannot be looked into
here without taking it from whoever wants it: `Unreadable`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_jsonable_python

from agentguard.credentials.credential import Credential

if TYPE_CHECKING:
    from collections.abc import Iterable

MOST_PARTS: Final = 1_000_000
"""A value of more containers and objects than these is not looked through."""

_BARE: Final = frozenset({bool, float, type(None)})
_LISTS: Final = (list, tuple, set, frozenset, deque)
_BYTES: Final = (bytes, bytearray, memoryview)
# Shorter numbers hold no secret.
_LONG: Final = 10**12
# The frameworks' own objects for pictures and the like make their content late.
_CONTENT: Final = ("to_image_content", "to_audio_content", "to_resource_content")


class Unreadable(Exception):  # noqa: N818  not an error of ours: what the value is
    """A value could not be looked through."""


def text_of(value: object, *, whole: bool = True) -> str | bytes:
    """Return all text that is in a value, in no particular order.

    Args:
        value: A text is returned as it is.
        whole: Whether it has to be looked through to its end. Otherwise iterators are left
            alone and of unknown objects their ``str`` is taken: what a log line shows.

    Raises:
        Unreadable: If *whole* and it cannot be.
        Exception: Whatever the value itself raises.
    """
    if isinstance(value, (str, bytes)):
        return value
    return _Walk(whole=whole).through((value,))


class _Walk:
    """One way through a value, without recursion and past nothing twice."""

    def __init__(self, *, whole: bool) -> None:
        self._whole = whole
        self._stack: list[Any] = []
        self._texts: list[str] = []
        self._raw: list[bytes] = []
        # Looked into when all else is done: not everything that hangs on one can be looked through whole.
        self._errors: list[BaseException] = []
        # By id, and kept: an id is another object's as soon as one is gone.
        self._seen: dict[int, object] = {}

    def through(self, items: Iterable[object]) -> bytes:
        self._extend(items)
        self._go()
        while self._errors:
            self._whole = False
            self._extend(_parts_of(self._errors.pop()))
            self._go()
        self._raw.append("".join(self._texts).encode("utf-8", "surrogatepass"))
        return b"".join(self._raw)

    def _go(self) -> None:
        stack, texts, seen = self._stack, self._texts, self._seen
        while stack:
            item = stack.pop()
            kind = type(item)
            if kind is str:
                texts.append(item)
            elif kind is int:
                if not -_LONG < item < _LONG:
                    texts.append(str(item))
            elif kind not in _BARE and id(item) not in seen:
                seen[id(item)] = item
                if len(seen) > MOST_PARTS:
                    raise Unreadable
                # What results are mostly made of, without a detour.
                if kind is dict:
                    try:
                        texts.append("".join(item))
                    except TypeError:
                        stack += item
                    stack += item.values()
                elif kind is list:
                    stack += item
                else:
                    self._open(item)

    def _extend(self, items: Iterable[object]) -> None:
        self._stack.extend(islice(items, MOST_PARTS + 1))
        if len(self._stack) > MOST_PARTS:
            raise Unreadable

    def _open(self, item: object) -> None:
        """Take what is directly in an object."""
        if hasattr(type(item), "__pydantic_serializer__"):
            self._open_model(item)
        elif isinstance(item, dict):
            self._extend(dict.keys(item))
            self._extend(dict.values(item))
        elif isinstance(item, _LISTS):
            self._extend(item)
        elif isinstance(item, str):
            self._texts.append(str.__str__(item))
        elif isinstance(item, _BYTES):
            self._raw.append(bytes(item))
        elif isinstance(item, BaseException):
            self._errors.append(item)
        elif isinstance(item, Enum):
            self._texts.append(str(item))
            self._stack.append(item.value)
        elif is_dataclass(item):
            self._texts.append(str(item))
            self._extend(getattr(item, field.name, None) for field in fields(item))
        else:
            self._open_other(item)

    def _open_model(self, item: object) -> None:
        inner: dict[str, object] = getattr(item, "__dict__", {})
        if not self._whole:
            self._extend(inner.values())
            return
        if any(isinstance(value, Iterator) for value in inner.values()):
            raise Unreadable
        try:
            shown = to_jsonable_python(item, fallback=_text_of_other)
        except Exception:  # noqa: BLE001  what it holds is looked at instead
            self._extend(inner.values())
            return
        self._stack.append(shown)

    def _open_other(self, item: object) -> None:
        if isinstance(item, Iterator):
            if self._whole:
                raise Unreadable
            return
        self._texts.append(_text_of_other(item) if self._whole else str(item))
        if not self._whole or isinstance(item, type | range):
            return
        for name in _CONTENT:
            # A class that has it: of a stand-in, which answers to any name, there would be no end.
            if callable(getattr(type(item), name, None)):
                self._stack.append(getattr(item, name)())
        declared = {name for kind in type(item).__mro__ for name in vars(kind).get("__annotations__", ())}
        for name in declared:
            if not name.startswith("_"):
                # One that raises shows nothing: a row whose session is closed is no leak.
                with suppress(Exception):
                    self._stack.append(getattr(item, name))
        if isinstance(item, Mapping):
            self._extend(item.keys())
            self._extend(item.values())
        elif isinstance(item, Sequence):
            self._extend(item)


def _text_of_other(item: object) -> str:
    # It shows nothing, but whoever gets it has the secret.
    return item.reveal() if isinstance(item, Credential) else str(item)


def _parts_of(error: BaseException) -> Iterator[object]:
    """Yield what an exception may tell: its text, its notes, what it was made of and what caused it."""
    yield str(error)
    yield error.args
    # Notes are there, too.
    yield vars(error)
    yield error.__cause__
    yield error.__context__
    if isinstance(error, BaseExceptionGroup):
        yield error.exceptions
