"""A secret is found in every encoding and surrounding, and ordinary text holds none."""

from __future__ import annotations

import base64
import copy
import html
import json
import pickle
import secrets
import shlex
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.credentials import leaks
from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live
from tests.tokens import make_token

OPAQUE: Final = "v2.aZ+9/kQ=7~Rr8&pL0xT3<wB6>uN'1\"yH4"
TOKEN: Final = make_token()


def find(text: str | bytes, wanted: Sequence[Secret]) -> str | None:
    """Return what is found, which is the same by itself, for a run and for a whole process."""
    live, name = Live(), leaks.find(text, wanted)
    for secret in wanted:
        live.add(secret, run="r1")
    of_run, of_all = live.find_of("r1", text), live.find(text)
    assert (None if of_run is None else of_run.name) == name
    assert (None if of_all is None else of_all[0].name) == name
    return name


def percent(raw: bytes) -> str:
    """Return bytes as a URL has those that it cannot have."""
    return "".join(f"%{byte:02x}" for byte in raw)


def in_lines(raw: bytes, columns: int = 76, end: bytes = b"\n") -> bytes:
    """Return base64 as MIME or PEM have it."""
    whole = base64.b64encode(raw)
    return end.join(whole[start : start + columns] for start in range(0, len(whole), columns))


# Of the secret together with whatever bytes are around it.
OF_ALL: Final[dict[str, Callable[[bytes], bytes]]] = {
    "plain": bytes,
    "base64": base64.b64encode,
    "base64url": base64.urlsafe_b64encode,
    "base64 without its end": lambda raw: base64.b64encode(raw).rstrip(b"="),
    "base64 in JSON, with care": lambda raw: base64.b64encode(raw).replace(b"/", b"\\/").replace(b"+", b"\\u002B"),
    "base64 in JSON, with more": lambda raw: base64.b64encode(raw).replace(b"/", b"\\u002f").replace(b"+", b"\\u002b"),
    "base64 in a URL": lambda raw: quote(base64.b64encode(raw)).encode(),
    "MIME": in_lines,
    "MIME of Windows": lambda raw: in_lines(raw, end=b"\r\n"),
    "PEM": lambda raw: in_lines(raw, 64),
    "hex": lambda raw: raw.hex().encode(),
    "HEX": lambda raw: raw.hex().upper().encode(),
    "hex with colons": lambda raw: raw.hex(":").encode(),
    "HEX with colons": lambda raw: raw.hex(":").upper().encode(),
    "hex with blanks": lambda raw: raw.hex(" ").encode(),
    "hex with strokes": lambda raw: raw.hex("-").encode(),
    "hex in lines": lambda raw: b"\n".join(raw.hex().encode()[n : n + 60] for n in range(0, 2 * len(raw), 60)),
    "every byte in percent": lambda raw: percent(raw).encode(),
    "every byte in PERCENT": lambda raw: percent(raw).upper().encode(),
    "every byte escaped": lambda raw: "".join(f"\\x{byte:02x}" for byte in raw).encode(),
    "every character escaped": lambda raw: "".join(f"\\u{byte:04x}" for byte in raw).encode(),
}

# Of the secret alone, as text.
OF_TEXT: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "query": lambda text: quote(text, safe=""),
    "path": quote,
    "form": quote_plus,
    "query in lower case": lambda text: "".join(c if c.isalnum() else percent(c.encode()) for c in text),
    "JSON": lambda text: json.dumps(text)[1:-1],
    "JSON of other languages": lambda text: json.dumps(text, ensure_ascii=False)[1:-1].replace("/", "\\/"),
    "HTML": html.escape,
    "repr": lambda text: repr({"a": text}),
    "repr of bytes": lambda text: repr(text.encode()),
    "JSON in JSON": lambda text: json.dumps(json.dumps({"a": text})),
    "repr in JSON": lambda text: json.dumps({"error": repr([text])}),
    "shell": lambda text: f"curl -H {shlex.quote(text)}",
    "shell in JSON": lambda text: json.dumps([f"curl -H {shlex.quote(text)}"]),
    "YAML": lambda text: "a: '" + text.replace("'", "''") + "'",
}

SECRETS: Final = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="\\"), min_size=16, max_size=90
).filter(lambda text: len(set(text)) >= 8)
AROUND: Final = st.binary(max_size=100)


@pytest.mark.parametrize("encoding", OF_ALL)
@pytest.mark.parametrize("kind", ["opaque", "token", "64 hex digits"])
def test_secret_is_found_wherever_it_begins_in_what_is_encoded(encoding: str, kind: str) -> None:
    """Base64 has three ways to write the same bytes; lines and samples have more places still."""
    text = {"opaque": OPAQUE, "token": TOKEN, "64 hex digits": secrets.token_hex(32)}[kind]
    secret = Secret("crm", text)
    for before in range(80):
        raw = secrets.token_bytes(before) + text.encode() + secrets.token_bytes(100 - before)

        assert find(OF_ALL[encoding](raw), [secret]) == "crm", before


@pytest.mark.parametrize("encoding", OF_TEXT)
def test_secret_is_found_as_text(encoding: str) -> None:
    """Whatever signs are in it, and whatever stands around it."""
    secret = Secret("crm", OPAQUE)
    for before in range(40):
        text = "é" * before + OF_TEXT[encoding](OPAQUE) + "x" * before

        assert find(text, [secret]) == "crm", before


@settings(max_examples=100, deadline=None)
@given(SECRETS, AROUND, AROUND, st.sampled_from(sorted(OF_ALL)))
def test_any_secret_in_any_bytes_in_any_encoding_is_found(
    text: str, before: bytes, after: bytes, encoding: str
) -> None:
    """No text, no alignment and no neighbour hides it."""
    whole = OF_ALL[encoding](before + text.encode() + after)

    assert find(whole, [Secret("crm", text)]) == "crm"


@settings(max_examples=100, deadline=None)
@given(SECRETS, st.text(max_size=100), st.text(max_size=100), st.sampled_from(sorted(OF_TEXT)))
def test_any_secret_in_any_text_is_found(text: str, before: str, after: str, encoding: str) -> None:
    """Lone surrogates in it included."""
    assert find(before + OF_TEXT[encoding](text) + after, [Secret("crm", text)]) == "crm"


@settings(max_examples=20, deadline=None)
@given(st.lists(SECRETS, min_size=2, max_size=5, unique=True), st.integers(0, 50_000), st.data())
def test_each_of_several_secrets_is_found_in_a_long_text(texts: list[str], place: int, data: st.DataObject) -> None:
    """Short and long ones are looked for together."""
    every = [Secret(str(number), text) for number, text in enumerate(texts)]
    chosen = data.draw(st.sampled_from(texts))
    filling = ". " * 25_000

    assert find(filling[:place] + chosen + filling[place:], every) is not None
    assert find(filling, every) is None


def test_token_cut_short_is_found() -> None:
    """Who has all but a few signs of a signature can try the rest."""
    secret = Secret("token", TOKEN)
    head, claims, signature = TOKEN.split(".")
    for text in (TOKEN[:-8], TOKEN[40:], f"{claims}.{signature}", signature, signature[:-8], signature[8:]):
        assert find(text, [secret]) == "token", text
    # Without its signature it opens nothing, and half a signature is no use.
    for text in (f"{head}.{claims}", f"{head}.{claims}.", head, claims, TOKEN[:-40]):
        assert find(text, [secret]) is None, text


def test_long_secret_cut_short_is_found_and_a_short_one_has_to_be_whole() -> None:
    """A tenth at each end may be missing of 40 characters."""
    long, short = secrets.token_urlsafe(30), secrets.token_urlsafe(24)

    assert find(long[4:-4], [Secret("crm", long)]) == "crm"
    assert find(long[5:-4], [Secret("crm", long)]) is None
    assert find(short, [Secret("crm", short)]) == "crm"
    assert find(short[1:], [Secret("crm", short)]) is None


def test_another_token_of_the_same_issuer_is_not_taken_for_it() -> None:
    """They begin alike, and have claims in common."""
    assert find(make_token(), [Secret("token", TOKEN)]) is None


def test_lines_of_base64_within_json_are_found_though_not_every_short_secret_that_two_share() -> None:
    """The limit that the module names."""
    short, found = secrets.token_urlsafe(32), 0
    for before in range(76):
        raw = bytes(before) + TOKEN.encode()
        assert leaks.find(json.dumps({"key": in_lines(raw).decode()}), [Secret("token", TOKEN)]) == "token"
        raw = bytes(before) + short.encode() + bytes(76)
        found += leaks.find(json.dumps({"key": in_lines(raw).decode()}), [Secret("crm", short)]) == "crm"
    assert found > 38


@pytest.mark.parametrize(
    ("text", "escapes"),
    [
        ("00000000000000001234567?", {b"/": b"\\u002f"}),
        ("00000000000000>00?123456", {b"+": b"\\u002B", b"/": b"\\/"}),
        ("00000000000000>00?123456", {b"+": b"\\u002b"}),
    ],
)
def test_signs_that_base64_alone_has_may_be_escaped(text: str, escapes: dict[bytes, bytes]) -> None:
    """Each in its own way."""
    encoded = base64.b64encode(text.encode())
    for sign, escape in escapes.items():
        assert sign in encoded
        encoded = encoded.replace(sign, escape)

    assert find(encoded, [Secret("crm", text)]) == "crm"


@pytest.mark.parametrize(
    "hidden",
    [
        OPAQUE[::-1],
        OPAQUE.swapcase(),
        "-".join(OPAQUE),
        base64.b64encode(base64.b64encode(OPAQUE.encode())).decode(),
        base64.b32encode(OPAQUE.encode()).decode(),
    ],
)
def test_what_is_hidden_on_purpose_is_not_found(hidden: str) -> None:
    """The module says so, and so does the page on containment."""
    assert find(hidden, [Secret("crm", OPAQUE)]) is None


@pytest.mark.parametrize("text", ["fifteen-signs-x", "0123456" * 10, "abcdefgh" + "-" * 80, ""])
def test_secret_that_would_be_found_where_it_is_not_is_refused(text: str) -> None:
    """And is not quoted."""
    with pytest.raises(ValueError, match="`crm` cannot be looked for") as refused:
        Secret("crm", text)

    assert not text or text not in str(refused.value)


def test_shortest_secret_is_found() -> None:
    """Sixteen characters, in every encoding."""
    text = "aB3-xY7_qW9.zR5k"
    for encode in OF_ALL.values():
        assert find(encode(b"<<" + text.encode() + b">>"), [Secret("crm", text)]) == "crm"


def test_first_secret_that_is_there_is_named() -> None:
    """In the order in which they are looked for."""
    one, two = Secret("one", OPAQUE), Secret("two", TOKEN)

    assert find(f"{TOKEN} {OPAQUE}", [one, two]) == "one"
    assert find(TOKEN, [one, two]) == "two"
    assert find("", [one, two]) is None
    assert find(TOKEN, []) is None


@pytest.mark.parametrize("size", [0, 1, 7, 8, 9, 1000])
def test_text_of_any_length_is_looked_through(size: int) -> None:
    """Its end is no multiple of anything."""
    assert find("x" * size, [Secret("crm", OPAQUE)]) is None
    assert find("x" * size + OPAQUE, [Secret("crm", OPAQUE)]) == "crm"


@pytest.mark.parametrize("leave", [pickle.dumps, copy.copy, copy.deepcopy])
def test_secret_is_neither_shown_nor_copied(leave: Callable[[object], Any]) -> None:
    """It is as secret as what it looks for."""
    secret = Secret("crm", OPAQUE)

    assert repr(secret) == "<Secret crm>"
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        leave(secret)
