"""All that a framework shows of a value is in its text, and nothing is used up."""

from __future__ import annotations

import enum
import io
import ipaddress
from collections import OrderedDict, UserDict, UserList, deque, namedtuple
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, TypedDict
from unittest.mock import Mock

import httpx2
import pydantic
import pytest
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.utilities.func_metadata import func_metadata
from mcp.shared.exceptions import MCPError
from mcp_types import BlobResourceContents, CallToolResult, EmbeddedResource, ImageContent, TextContent

from agentguard.credentials import shown
from agentguard.credentials.credential import Credential
from agentguard.credentials.shown import Unreadable, text_of

S: Final = "s3cr3t-of-this-test"


class Model(pydantic.BaseModel):
    """Has what pydantic shows, and what it does not."""

    a: Any = None
    hidden: Any = pydantic.Field(default=None, exclude=True)

    @pydantic.computed_field  # type: ignore[prop-decorator]
    @property
    def computed(self) -> str:
        """Say it again."""
        return f"{self.a}!"


class Open(pydantic.BaseModel, extra="allow"):
    """Takes more than it declares."""


class Serialized(pydantic.BaseModel):
    """Shows something else than it holds."""

    a: str

    @pydantic.field_serializer("a")
    def backwards(self, value: str) -> str:
        """Turn it round."""
        return value[::-1]


@dataclass
class Plain:
    """Has one field that its repr leaves out."""

    a: Any
    b: Any = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Slotted:
    """Has no `__dict__`."""

    a: Any = field(repr=False)


@pydantic.dataclasses.dataclass
class Checked:
    """One of pydantic's own."""

    a: str


@pydantic.dataclasses.dataclass(slots=True)
class CheckedSlots:
    """The same, without a `__dict__`."""

    a: str


class Typed(TypedDict):
    """A dict that is declared."""

    a: str


class Declared:
    """A plain class, of which the SDK makes structured content."""

    a: str
    _private: str

    def __init__(self, a: str, private: str = "") -> None:
        self.a = a
        self._private = private


class Said:
    """Tells it when it is asked."""

    def __str__(self) -> str:
        return S


class Text(str):
    """A text that calls itself another."""

    __slots__ = ()

    def __str__(self) -> str:
        return "something else"


class Color(enum.Enum):
    """Its value is shown."""

    RED = S


class Word(enum.StrEnum):
    """It is a text itself."""

    ONE = S


class Lookup(Mapping[str, str]):
    """A mapping that is no dict."""

    def __getitem__(self, key: str) -> str:
        return S

    def __iter__(self) -> Iterator[str]:
        return iter(["key"])

    def __len__(self) -> int:
        return 1


class Rows(Sequence[str]):
    """A sequence that is no list."""

    def __getitem__(self, at: Any) -> Any:
        if at:
            raise IndexError
        return S

    def __len__(self) -> int:
        return 1


Pair = namedtuple("Pair", "a b")  # noqa: PYI024  such results exist

VALUES: Final[dict[str, Callable[[], object]]] = {
    "text": lambda: S,
    "bytes": S.encode,
    "bytearray": lambda: bytearray(S.encode()),
    "memoryview": lambda: memoryview(S.encode()),
    "bytes that are no text": lambda: [b"\xff" + S.encode()],
    "dict": lambda: {"a": {"b": [1, S]}},
    "key": lambda: {S: 1},
    "key that is no text": lambda: {("x", S): 1, 2: 3},
    "list": lambda: [None, True, 1.5, [S]],
    "tuple": lambda: (1, S),
    "set": lambda: {S},
    "frozenset": lambda: frozenset({S}),
    "deque": lambda: deque([S]),
    "ordered dict": lambda: OrderedDict(a=S),
    "user's dict": lambda: UserDict(a=S),
    "user's list": lambda: UserList([S]),
    "view of a dict": {"a": S}.values,
    "mapping proxy": lambda: MappingProxyType({"a": S}),
    "mapping": Lookup,
    "sequence": Rows,
    "named tuple": lambda: Pair(1, S),
    "typed dict": lambda: Typed(a=S),
    "dataclass": lambda: Plain({"x": S}),
    "dataclass that does not show it": lambda: Plain(1, S),
    "slotted dataclass": lambda: Slotted([S]),
    "pydantic dataclass": lambda: Checked(S),
    "model": lambda: Model(a=[S]),
    "model in a dict": lambda: {"m": Model(a={"x": S})},
    "computed field": lambda: Model(a=S),
    "extra field": lambda: Open.model_validate({"a": S}),
    "serialized field": lambda: Serialized(a=S[::-1]),
    "model that cannot be serialized": lambda: Model(a=[b"\xff", S]),
    "class that declares it": lambda: Declared(S),
    "object that says it": Said,
    "text of another class": lambda: Text(S),
    "enum": lambda: [Color.RED],
    "string enum": lambda: [Word.ONE],
    "path": lambda: Path("/x") / S,
    "text content": lambda: TextContent(type="text", text=S),
    "tool result": lambda: CallToolResult(content=[TextContent(type="text", text=S)]),
    "structured content": lambda: CallToolResult(content=[], structured_content={"a": S}),
    "meta": lambda: CallToolResult.model_validate({"content": [], "_meta": {"a": S}}),
    "image content": lambda: ImageContent(type="image", data=S, mime_type="image/png"),
    "resource": lambda: EmbeddedResource(
        type="resource", resource=BlobResourceContents(uri="file:///x", blob=S, mime_type="x/y")
    ),
    "exception": lambda: ValueError(S),
    "argument of an exception": lambda: KeyError(1, {"x": [S]}),
    "attribute of an exception": lambda: MCPError(code=1, message="x", data={"a": S}),
    "cause": lambda: raised(ValueError(S)),
    "context": lambda: in_handler(ValueError(S)),
    "note": lambda: noted(S),
    "group": lambda: ExceptionGroup("x", [ValueError("y"), ExceptionGroup("z", [KeyError(S)])]),
    "slotted pydantic dataclass": lambda: CheckedSlots(S),
    "credential": lambda: {"crm": Credential(S, name="crm", expires_at=0.0)},
    "exception in a list": lambda: [ValueError(S)],
}


def raised(cause: Exception) -> Exception:
    """Return an exception with a cause."""
    try:
        raise LookupError from cause
    except Exception as error:  # noqa: BLE001
        return error


def in_handler(first: Exception) -> Exception:
    """Return an exception that came while another was handled."""
    try:
        try:
            raise first
        except Exception:  # noqa: BLE001
            raise RuntimeError from None
    except RuntimeError as error:
        return error


def noted(note: str) -> Exception:
    """Return an exception with a note."""
    error = ValueError("x")
    error.add_note(note)
    return error


def has(value: object, *, whole: bool = True) -> bool:
    """Return whether the secret is in a value's text."""
    text = text_of(value, whole=whole)
    return (S in text) if isinstance(text, str) else (S.encode() in text)


@pytest.mark.parametrize("kind", VALUES)
def test_text_of_a_value_is_found(kind: str) -> None:
    """Wherever it stands in it."""
    assert has(VALUES[kind]())


def test_picture_is_looked_at_as_it_will_be_sent(tmp_path: Path) -> None:
    """The SDK reads and encodes it late."""
    (tmp_path / "x.png").write_bytes(b"not a secret")

    for image in (Image(data=b"not a secret", format="png"), Image(path=tmp_path / "x.png")):
        assert b"bm90IGEgc2VjcmV0" in text_of(image)
    with pytest.raises(FileNotFoundError):
        text_of(Image(path=tmp_path / "y.png"))


@pytest.mark.parametrize(
    "value",
    [
        Declared("x", S),
        Model(hidden=S),
        pydantic.SecretStr(S),
        httpx2.Request("GET", "https://crm.example", headers={"Authorization": f"Bearer {S}"}),
        httpx2.HTTPStatusError(
            "refused",
            request=httpx2.Request("GET", "https://crm.example", headers={"Authorization": f"Bearer {S}"}),
            response=httpx2.Response(401),
        ),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_nobody_shows_is_not_taken(value: object) -> None:
    """A client holds its credential; handing out the client's name is no leak."""
    assert not has(value)


def test_everything_that_the_sdk_shows_is_in_the_text() -> None:
    """Of a class that it makes structured content of, too."""

    def tool() -> Declared:
        return Declared(S)

    result = func_metadata(tool).convert_result(tool())
    assert S in str(result)

    assert has(Declared(S))


@pytest.mark.parametrize(
    "value",
    [
        iter([S]),
        (text for text in [S]),
        map(str, [S]),
        {"rows": [iter([])]},
        io.StringIO(S),
        Model(a=iter([S])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_can_be_looked_at_only_once_is_unreadable_and_left_alone(value: Any) -> None:
    """Looking would take it from the caller."""
    with pytest.raises(Unreadable):
        text_of(value)

    assert not has(value, whole=False)
    if isinstance(value, Iterator):
        assert next(value) == S


def test_value_that_raises_while_it_is_looked_at_raises() -> None:
    """Whoever asked stops it."""

    class Raises:
        def __str__(self) -> str:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        text_of([Raises()])


def test_value_without_end_is_looked_through_or_given_up() -> None:
    """Cycles end, and so does what makes itself up."""
    cycle: list[Any] = [S]
    cycle.append({"again": cycle})
    assert has(cycle)

    class Endless(Sequence[int]):
        def __getitem__(self, at: Any) -> Any:
            return at

        def __len__(self) -> int:
            return 1

    with pytest.raises(Unreadable):
        text_of(Endless())


def test_value_of_too_many_parts_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for it."""
    monkeypatch.setattr(shown, "MOST_PARTS", 100)

    assert has([[] for _ in range(90)] + [S])
    with pytest.raises(Unreadable):
        text_of([[] for _ in range(100)])
    with pytest.raises(Unreadable):
        text_of(tuple(range(101)))


def test_long_chain_of_exceptions_is_looked_through() -> None:
    """Longer than Python's own stack, and one that bites its tail."""
    first = last = ValueError(S)
    for _ in range(2_000):
        error = ValueError("x")
        error.__cause__, last = last, error

    assert has(last)
    first.__cause__ = last
    assert has([last])


def test_attribute_that_raises_shows_nothing() -> None:
    """A row whose session is closed by now is handed out like any other object, as its text."""

    class Row:
        id: int
        name: str
        parent: str

        def __init__(self, name: str) -> None:
            self.id, self.name = 1, name

        def __getattr__(self, name: str) -> Any:
            raise LookupError(name)

    assert has(Row(S))
    assert not has(Row("x"))


def test_stand_in_of_a_test_is_looked_through_at_once() -> None:
    """It has whatever it is asked for, and so without end."""
    assert not has({"client": Mock()})
    assert has(Mock(side_effect=None, name=S))


def test_deep_value_is_looked_through() -> None:
    """Deeper than Python's own stack."""
    value: Any = S
    for _ in range(10_000):
        value = [value]

    assert has(value)


def test_long_number_is_text_and_a_short_one_is_not() -> None:
    """So is nothing that cannot hold a secret."""
    assert text_of([2**64, 7, -3.5, True, None]) == b"18446744073709551616"
    assert text_of([Decimal("12.50"), datetime(2026, 1, 1, tzinfo=UTC)]) == b"2026-01-01 00:00:00+00:0012.50"
    assert text_of(ipaddress.ip_address("10.0.0.1")) == b"10.0.0.1"
    assert text_of(range(10**9)) == b"range(0, 1000000000)"
    assert b"Declared" in text_of(Declared)


def test_log_line_shows_a_model_by_its_fields() -> None:
    """And what an object says of itself, but not what it would send."""
    assert has([Model(a=S), Said()], whole=False)
    assert not has(Declared(S), whole=False)
    assert text_of(S, whole=False) == S
