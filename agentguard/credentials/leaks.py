r"""Does a text hold a secret, plain or as the usual encodings write it?

What is looked for is the *core* of a secret: of one of 40 characters or more, all but a
tenth at each end, so that one that was cut short is found too. The core of a JWT is that
of its signature alone: the signature lets nobody guess the token, but it is in every text
that holds the token, whole or without its last signs, and header and claims without it
are no credential. A shorter secret has to be there whole. One of fewer than 16 characters,
or of fewer than 8 different ones, is refused: it would be found where it is not.

Found are, wherever they begin and whatever stands around them: the plain text; base64 and
base64url, padded or not; hex in either case, also in pairs with ``:``, ``-`` or a blank
between; percent-encoding of what has to be encoded, as paths, queries and forms do it, and
of every byte; JSON and HTML escapes of signs, and escapes (``\x41``, ``\u0041``) of every
character; what Python's ``repr`` shows of it, what quotes in a shell or YAML make of it, and
each of these within JSON. Line ends within any of them do not matter (MIME, PEM). Where such lines were put
into JSON as text, so that they end in ``\n``, a short secret can be missed that two of them
share.

Not found is what was made to be hidden or unlike: reversed, encrypted, compressed, encoded
twice, in base32 or UTF-16, with only some letters escaped, with hex digits in both cases,
with other signs between its parts, as a picture. Nor what a tool tells somebody by what
it does. This stops accidents and tools that were talked into something, not a tool that
is an enemy: it holds the secret, and runs.

How it works: every needle of a secret is at least `stride` + 7 bytes long, so each place
where one could be contains eight bytes that begin at a multiple of the stride. Those of the
text are looked up in the set of all eight bytes that the needles' beginnings have. What is
found by that is compared in full. The cost grows with the text, and neither with the number
of encodings nor, where their blocks are in one set, with that of secrets.
"""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

SHORTEST: Final = 16
"""A secret of fewer characters cannot be looked for."""

_DIFFERENT: Final = 8
# A secret of so many characters is found without its outermost tenths, too.
_LONG: Final = 40
_JWT: Final = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.([A-Za-z0-9_-]{40,})")
_SIGNS: Final = frozenset("+=&<>'\"")
_SIGN: Final = re.compile(rb"[^A-Za-z0-9]")
_PERCENT: Final = re.compile("%[0-9A-F]{2}")

BLOCK: Final = 8
# Lines of base64 have 64 or 76 characters and are joined; longer strides gain little.
LONGEST_STRIDE: Final = 32


class Secret:
    """What must not come out, under a name that may.

    Args:
        name: What it is called in records and log lines.
        text: The secret itself. It is not kept as it is, but everything here is as secret.

    Raises:
        ValueError: If it is too short, or of too few different characters. The message
            does not quote it.
    """

    __slots__ = ("__weakref__", "_needles", "blocks", "first_blocks", "name", "reach", "stride")

    def __init__(self, name: str, text: str) -> None:
        core = _core(text)
        if len(text) < SHORTEST or len(set(core)) < _DIFFERENT:
            message = (
                f"`{name}` cannot be looked for: a secret wants {SHORTEST} characters, {_DIFFERENT} of them different"
            )
            raise ValueError(message)
        needles = {_flat(form) for form in _forms(core)}
        self.name: Final = name
        self._needles: Final = tuple(sorted(needles, key=len))
        shortest = len(self._needles[0])
        # Whatever of it a piece lies in is within so many bytes of the piece, lines within JSON included.
        self.reach: Final = 2 * len(self._needles[-1])
        self.stride: Final = min((shortest - BLOCK + 1) // BLOCK * BLOCK, LONGEST_STRIDE)
        least = self.stride + BLOCK - 1
        # In lines, something may stand in the middle of what a sample must hit.
        in_lines = [form.encode() for form in _base64(core.encode("utf-8", "surrogatepass"))]
        self.blocks: Final = frozenset((*_blocks(needles, least), *_blocks(in_lines, 2 * least)))
        # For a stride of one block: texts are short where many secrets are looked for.
        self.first_blocks: Final = frozenset(_blocks(needles, 2 * BLOCK - 1))

    def is_near(self, sample: Iterable[int]) -> bool:
        """Return whether a sample has a piece of it, taken at its stride or a shorter one."""
        return not self.blocks.isdisjoint(sample)

    def is_in(self, flat: bytes) -> bool:
        """Return whether a text that went through `flattened` holds it."""
        if any(needle in flat for needle in self._needles):
            return True
        # Few texts come here, so that more may be done than for all: lines within JSON.
        joined = flat.replace(b"\\n", b"").replace(b"\\r", b"")
        return len(joined) < len(flat) and any(needle in joined for needle in self._needles)

    def __repr__(self) -> str:
        return f"<Secret {self.name}>"

    def __reduce__(self) -> NoReturn:
        message = "a secret is neither pickled nor copied"
        raise TypeError(message)


def find(text: str | bytes, secrets: Iterable[Secret]) -> str | None:
    """Return the name of a secret that *text* holds, or None; `Live` looks for many at once."""
    flat = flattened(text)
    return next((one.name for one in secrets if one.is_near(sampled(flat, one.stride)) and one.is_in(flat)), None)


def flattened(text: str | bytes) -> bytes:
    """Return a text as the needles are compared with it: in bytes, and without line ends."""
    return _flat(text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text)


def sampled(flat: bytes, stride: int = BLOCK) -> memoryview[int]:
    """Return eight bytes of a text at each multiple of the stride, as numbers."""
    return memoryview(flat)[: len(flat) // BLOCK * BLOCK].cast("Q")[:: stride // BLOCK]


def _flat(text: bytes) -> bytes:
    # Looking for one byte that is not there costs next to nothing.
    if b"\n" in text:
        text = text.replace(b"\n", b"")
        if b"\r" in text:
            text = text.replace(b"\r", b"")
    return text


def _blocks(needles: Iterable[bytes], length: int) -> Iterator[int]:
    """Yield every eight bytes in the beginnings of the needles, of which a sample hits some.

    Those across two beginnings come along; they make a look slower, and no answer wrong.
    """
    beginnings = b"".join([needle[:length] for needle in needles])
    for offset in range(BLOCK):
        yield from sampled(beginnings[offset:])


def _core(text: str) -> str:
    jwt = _JWT.fullmatch(text)
    vital = jwt[1] if jwt else text
    margin = len(vital) // 10 if len(vital) >= _LONG else 0
    return vital[margin : len(vital) - margin]


def _forms(core: str) -> Iterator[bytes]:
    """Yield everything that a core is looked for as."""
    raw = core.encode("utf-8", "surrogatepass")
    for form in {core, *_base64(raw)}:
        for escaped in (*_escaped(form), *_quoted(form)):
            yield escaped.encode("utf-8", "surrogatepass")
    for written in (html.escape(core), *_written(core)):
        yield written.encode("utf-8", "surrogatepass")
    for digits in (raw.hex("|"), raw.hex("|").upper()):
        for between in ("", ":", "-", " "):
            yield digits.replace("|", between).encode()
        for before in ("%", "\\x", "\\u00"):
            yield (before + digits.replace("|", before)).encode()


def _base64(raw: bytes) -> Iterator[str]:
    """Yield what stays of some bytes in base64, wherever they begin in what was encoded."""
    for shift in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(bytes(shift) + raw).decode()
            # Its first and last signs hold bits of what is around it.
            yield whole[shift + 1 if shift else 0 : (len(raw) + shift) * 8 // 6]


def _escaped(form: str) -> Iterator[str]:
    """Yield a text as it stands in JSON: as it has to be, and as careful writers have it."""
    yield form
    for escaped in (json.dumps(form)[1:-1], json.dumps(form, ensure_ascii=False)[1:-1]):
        yield escaped
        yield escaped.replace("/", "\\/")
    if "/" in form or not _SIGNS.isdisjoint(form):
        for digits in ("04x", "04X"):
            careful = "".join([f"\\u{ord(c):{digits}}" if c in _SIGNS else c for c in form])
            for slash in ("/", "\\/", f"\\u{ord('/'):{digits}}"):
                yield careful.replace("/", slash)


def _written(core: str) -> Iterator[str]:
    """Yield a text as Python shows it, or a shell or YAML wants it; each also within JSON."""
    raw = core.encode("utf-8", "surrogatepass")
    # The other quotes come first, so that it has to choose these.
    shown = {repr(f'"{core}')[2:-1], ascii(f'"{core}')[2:-1], repr(b'"' + raw)[3:-1]}
    shown |= {one.replace("\\'", "'") for one in shown}
    quoted = {core.replace("'", instead) for instead in ("'\\''", "'\"'\"'", "''")}
    for one in (json.dumps(core)[1:-1], json.dumps(core, ensure_ascii=False)[1:-1], *shown, *quoted):
        yield one
        yield json.dumps(one)[1:-1]
        yield json.dumps(one, ensure_ascii=False)[1:-1]


def _quoted(form: str) -> Iterator[str]:
    """Yield a text as it stands in URLs."""
    raw = form.encode("utf-8", "surrogatepass")
    every = _SIGN.sub(lambda sign: b"%%%02X" % sign[0][0], raw).decode()
    for quoted in (quote(raw, safe=""), quote(raw), quote_plus(raw), every):
        yield quoted
        yield _PERCENT.sub(lambda digits: digits[0].lower(), quoted)
