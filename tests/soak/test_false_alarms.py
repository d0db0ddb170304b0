"""Ordinary text is not taken for a secret: hundreds of secrets of every usual kind, and hundreds of megabytes.

A false alarm withholds a result that nothing was wrong with, so there may be none. What is
searched is what results are made of: the sources and texts of Python and of whatever is
installed, this repository, bytes that mean nothing in base64 and hex, and other secrets of
the same kinds and the same issuer. That as many are found as were hidden in the same text
shows that the search does search.
"""

from __future__ import annotations

import base64
import secrets
import sysconfig
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import pytest

from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live
from tests.tokens import make_token

ROOT: Final = Path(__file__).parent.parent.parent
MIB: Final = 1024 * 1024
PIECE: Final = 256 * 1024
OF_EACH: Final = 100
MOST_MIB: Final = 150
LEAST_MIB: Final = 30
RANDOM_MIB: Final = 50
# Pieces of hundreds of secrets are in it everywhere, so that all of it is compared.
SPACED_MIB: Final = 5
OTHERS: Final = 3_000
TEXTS: Final = frozenset(
    ".c .css .csv .h .html .js .json .md .py .pyi .rst .svg .toml .txt .xml .yaml .yml".split()  # noqa: SIM905
)

KINDS: Final[dict[str, Callable[[], str]]] = {
    "base64url": lambda: secrets.token_urlsafe(32),
    "prefixed": lambda: f"ghp_{secrets.token_hex(18)}",
    "hex": lambda: secrets.token_hex(32),
    "UUID": lambda: str(uuid.uuid4()),
    "shortest": lambda: secrets.token_urlsafe(12),
    "JWT": make_token,
}


@pytest.fixture(scope="module")
def held() -> list[tuple[str, Secret]]:
    """Return a hundred secrets of each kind, with their texts."""
    made = [(kind, make()) for kind, make in KINDS.items() for _ in range(OF_EACH)]
    return [(text, Secret(f"{kind} {number}", text)) for number, (kind, text) in enumerate(made)]


@pytest.fixture(scope="module")
def live(held: list[tuple[str, Secret]]) -> Live:
    """Return where all of them are looked for at once."""
    live = Live()
    for _, secret in held:
        live.add(secret, run="r1")
    return live


def texts() -> Iterator[str]:
    """Yield what is installed and what is here, in pieces of 256 KiB at most."""
    left = MOST_MIB * MIB
    for folder in (ROOT, Path(sysconfig.get_path("purelib")), Path(sysconfig.get_path("stdlib"))):
        for path in sorted(folder.rglob("*")):
            if path.suffix not in TEXTS or not path.is_file():
                continue
            text = path.read_text("utf-8", "replace")
            yield from (text[start : start + PIECE] for start in range(0, len(text), PIECE))
            left -= len(text)
            if left < 0:
                return


def encoded(encode: Callable[[bytes], bytes], mib: int = RANDOM_MIB) -> Iterator[str]:
    """Yield random bytes in an encoding."""
    for _ in range(mib * MIB // PIECE):
        yield encode(secrets.token_bytes(PIECE))[:PIECE].decode()


def others() -> Iterator[str]:
    """Yield other secrets of the same kinds, in lines."""
    for make in KINDS.values():
        yield "\n".join(make() for _ in range(OTHERS))


CORPORA: Final[dict[str, tuple[Callable[[], Iterator[str]], float]]] = {
    "texts and sources": (texts, LEAST_MIB),
    "base64": (lambda: encoded(base64.b64encode), RANDOM_MIB),
    "base64 in lines": (lambda: encoded(base64.encodebytes), RANDOM_MIB),
    "hex": (lambda: encoded(lambda raw: raw.hex().encode()), RANDOM_MIB),
    "hex with blanks": (lambda: encoded(lambda raw: raw.hex(" ").encode(), SPACED_MIB), SPACED_MIB),
    "other secrets": (others, 1),
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_no_secret_is_found_where_there_is_none(
    corpus: str, held: list[tuple[str, Secret]], live: Live, capsys: pytest.CaptureFixture[str]
) -> None:
    """And one is found where it is, in each hundredth piece."""
    pieces, least = CORPORA[corpus]
    size = looked = alarms = 0
    for number, piece in enumerate(pieces()):
        size += len(piece)
        looked += 1
        alarms += live.find_of("r1", piece) is not None
        if number % 100 == 0:
            text, secret = held[number % len(held)]
            middle = len(piece) // 2
            assert live.find_of("r1", f"{piece[:middle]} {text} {piece[middle:]}") is secret
    with capsys.disabled():
        print(f"\n{corpus}: {size / MIB:.0f} MiB, {looked} pieces, {len(held)} secrets, {alarms} false alarms")  # noqa: T201  for the page on containment

    assert size >= least * MIB
    assert alarms == 0
