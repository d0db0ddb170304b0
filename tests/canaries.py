"""Secrets that a test plants, and a scanner that finds them again, however they are written."""

from __future__ import annotations

import base64
import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote, quote_plus

# So much of a secret, from its start or its end, is as good as all of it.
_PART: Final = 14
# With the first so many bytes of a form one looks whether the rest may be there.
_START: Final = 8
# Digits as letters that hex has not: a short secret must not occur in a hash by chance.
_LETTERS: Final = str.maketrans("0123456789", "ghjkmnprst")

Form = tuple[str, bytes]


@dataclass
class Canaries:
    """The secrets of one test, each planted in one place and nowhere else.

    Attributes:
        planted: The secrets, by where they were planted.
        reached: The places of those that were seen to arrive where they lead to.
    """

    planted: dict[str, str] = field(default_factory=dict)
    reached: set[str] = field(default_factory=set)

    def plant(self, place: str) -> str:
        """Return a new secret for a place. It has a blank and signs in it, which encodings change."""
        return self.take(place, f"Zq {secrets.token_hex(8)}/é=")

    def word(self, place: str) -> str:
        """Return one that a header, a name or a URL can carry."""
        return self.take(place, f"zq{secrets.token_hex(8)}")

    def pin(self, place: str) -> str:
        """Return a short one: who has an unkeyed hash of it can try them all."""
        return self.take(place, secrets.token_hex(4).translate(_LETTERS))

    def take(self, place: str, text: str) -> str:
        """Take a text as the secret of a place."""
        assert self.planted.setdefault(place, text) == text, f"`{place}` was planted already"
        return text

    def take_token(self, place: str, token: str) -> str:
        """Take a token: its signature and its claims are secrets each."""
        _, claims, signature = token.split(".")
        self.take(f"{place}, its claims", claims)
        self.take(f"{place}, its signature", signature)
        return token

    def saw(self, *values: object) -> None:
        """Note which secrets are in values that arrived somewhere."""
        shown = "\n".join(map(_shown, values))
        self.reached |= {place for place, text in self.planted.items() if text in shown}

    def found(self, emitted: Mapping[str, bytes]) -> list[str]:
        """Return what was found, as ``place, form, source``: nothing, if all is well."""
        # A form that several names have is searched for once.
        forms = {form: f"{place}, {name}" for place, text in self.planted.items() for name, form in forms_of(text)}
        found = []
        for source, raw in emitted.items():
            holds = _searching(raw)
            found += [f"{what}, in {source}" for form, what in forms.items() if holds(form)]
        return found

    def places(self, raw: bytes) -> set[str]:
        """Return the places whose secrets are in some bytes."""
        holds = _searching(raw)
        return {place for place, text in self.planted.items() if any(holds(form) for _, form in forms_of(text))}


def _searching(raw: bytes) -> Callable[[bytes], bool]:
    """Return what tells whether some bytes hold a form; for the thousands of forms that there are, most are not."""
    starts = {raw[place : place + _START] for place in range(len(raw))}
    return lambda form: (len(form) < _START or form[:_START] in starts) and form in raw


def forms_of(text: str) -> Iterator[Form]:
    """Yield every form in which a secret is looked for."""
    raw = text.encode()
    yield "plain", raw
    if len(raw) > 2 * _PART:
        yield "its first part", raw[:_PART]
        yield "its last part", raw[-_PART:]
    escaped = json.dumps(text)
    for name, form in {
        "JSON": escaped[1:-1],
        "JSON in JSON": json.dumps(escaped)[3:-3],
        "repr": ascii(text)[1:-1],
        "URL": quote(text, safe=""),
        "URL path": quote(text),
        "form": quote_plus(text),
        "HTML": text.replace("&", "&amp;").replace("'", "&#x27;").replace('"', "&quot;"),
        "lower case": text.lower(),
        "backwards": text[::-1],
        "hex": raw.hex(),
        "HEX": raw.hex().upper(),
    }.items():
        yield name, form.encode()
    yield from _base64(raw)
    for hashed in {text, escaped, canonical([text])}:
        for algorithm in ("sha256", "sha1", "md5", "blake2b"):
            digest = hashlib.new(algorithm, hashed.encode()).digest()
            yield f"{algorithm} as hex", digest.hex().encode()
            yield f"{algorithm} as base64", base64.b64encode(digest).rstrip(b"=")
            yield f"{algorithm} as base64url", base64.urlsafe_b64encode(digest).rstrip(b"=")
            yield f"{algorithm} as bytes", digest


def _base64(raw: bytes) -> Iterator[Form]:
    """Yield what stays of a text in base64, wherever it begins in what was encoded."""
    for shift in range(3):
        for name, encode in (("base64", base64.b64encode), ("base64url", base64.urlsafe_b64encode)):
            whole = encode(b"\0" * shift + raw).rstrip(b"=")
            # Its first and last sign hold bits of what is around it.
            yield name, whole[shift + 1 if shift else 0 : (len(raw) + shift) * 8 // 6]


def canonical(value: object) -> str:
    """Return the JSON that a digest of arguments would be made over."""
    return json.dumps(value, separators=(",", ":"), sort_keys=True)


def joined(parts: Iterable[object]) -> bytes:
    """Return what was emitted, as bytes."""
    return b"\n".join(part if isinstance(part, bytes) else str(part).encode("utf-8", "replace") for part in parts)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=repr)
