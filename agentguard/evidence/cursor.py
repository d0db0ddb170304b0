"""How far a ledger was delivered: one small file for each address, beside the chains.

It is written after a batch was taken. Where it is lost, or older than what was delivered,
records are sent again, which adds nothing.
"""

from __future__ import annotations

import json
import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.evidence.chainfile import chain_files, connect
from agentguard.evidence.tending import what_of
from agentguard.host.private import replace

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_LOG: Final = logging.getLogger("agentguard")
_ENDS: Final = "SELECT coalesce(min(seq), 1), coalesce(max(seq), 0) FROM entries"
_SUFFIX: Final = ".json"
PATTERN: Final = f"forward-*{_SUFFIX}"


class Delivered(NamedTuple):
    """The last record of a chain that was delivered.

    Attributes:
        seq: Its place; 0 if there was none.
        hash: Its hash: after a loss of power a chain may go on from an earlier place.
    """

    seq: int = 0
    hash: str = ""


class Cursor:
    """How far each chain of a folder was delivered to one address.

    Args:
        folder: Where the chains are.
        name: From `Endpoint.name`.
        url: The address, for whoever looks into the file.
    """

    def __init__(self, folder: Path, name: str, url: str) -> None:
        self.path = folder / f"{name}{_SUFFIX}"
        self._url = url
        self._delivered: dict[str, Delivered] = {}
        self._failing = False

    def load(self) -> None:
        """Take what the file says, which another process may have written."""
        self._delivered = read_cursor(self.path)

    def get(self, chain_id: str) -> Delivered:
        """Return the last record of a chain that was delivered."""
        return self._delivered.get(chain_id, Delivered())

    def begin_anew(self, chain_id: str) -> None:
        """Forget what was delivered of a chain."""
        self._delivered.pop(chain_id, None)

    def advance(self, chain_id: str, last: Delivered, known: Iterable[str]) -> None:
        """Keep that a chain was delivered up to *last*; what is not *known* is gone, and forgotten."""
        self._delivered[chain_id] = last
        self._delivered = {name: self._delivered[name] for name in known if name in self._delivered}
        text = json.dumps({"endpoint": self._url, "delivered": self._delivered}, indent=1)
        try:
            replace(self.path, f"{text}\n".encode())
            self._failing = False
        except OSError as error:
            if not self._failing:
                _LOG.warning("`%s` could not be written, a restart sends again: %s", self.path, what_of(error))
            self._failing = True


def read_cursor(path: Path) -> dict[str, Delivered]:
    """Return how far each chain was delivered; nothing where the file does not say."""
    try:
        delivered = json.loads(path.read_bytes())["delivered"]
        return {
            str(name): Delivered(seq, digest)
            for name, (seq, digest) in delivered.items()
            if type(seq) is int and seq > 0 and isinstance(digest, str)
        }
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}


def backlog(folder: Path, cursor: Path | None = None) -> int:
    """Return how many records of a folder's chains are kept and not delivered.

    Args:
        folder: Where the chains are.
        cursor: What says how far; every address counts if it is left out.
    """
    cursors = [cursor] if cursor is not None else sorted(folder.glob(PATTERN))
    delivered = [read_cursor(path) for path in cursors]
    return sum(_behind(path, delivered) for path in chain_files(folder))


def _behind(path: Path, delivered: Iterable[Mapping[str, Delivered]]) -> int:
    try:
        with closing(connect(path, "mode=ro", seconds=0.1)) as connection:
            first, last = connection.execute(_ENDS).fetchone()
    except sqlite3.Error:
        # It may be damaged, or pruned away in this moment; `evidence verify` says what is wrong.
        return 0
    # What was pruned is not kept any more.
    done = max((found.get(path.stem, Delivered()).seq for found in delivered), default=0)
    return max(0, int(last) - max(done, int(first) - 1))
