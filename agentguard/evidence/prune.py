"""Retention: what is older than it has to be kept goes, as a prefix, and a signed stub says so.

The stub is written before anything is removed. It names the last record that may be gone,
so what remains still proves that it follows it. The last head and what it names stay: a
chain is never emptied.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.evidence.chaincheck import ChainCheck
from agentguard.evidence.chainfile import NotAChain, chain_files, connect
from agentguard.evidence.claim import unpruned
from agentguard.evidence.cursor import PATTERN as CURSORS
from agentguard.evidence.cursor import Delivered, read_cursor
from agentguard.evidence.heads import BadSignature, HeadKey, Stub, read_beside
from agentguard.evidence.order import Order
from agentguard.evidence.proof import Found
from agentguard.evidence.reading import evidence_folder
from agentguard.evidence.vocabulary import RecordKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agentguard.evidence.ledger import Entry

_PAUSE: Final = 0.005
_REMOVE: Final = """DELETE FROM entries WHERE seq IN
    (SELECT seq FROM entries WHERE seq <= ? ORDER BY seq LIMIT 200)"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """What was removed of one chain.

    Attributes:
        chain_id: The chain.
        removed: How many records.
        begins_after: The last that is gone.
        undelivered: How many of them no address was given, where the chains are forwarded.
        refused: Why nothing was removed, though something is wrong; empty where all is well.
    """

    chain_id: str
    removed: int = 0
    begins_after: int = 0
    undelivered: int = 0
    refused: str = ""


def prune(
    folder: Path, *, older_than: float, clock: Callable[[], float] = time.time, pause: float = _PAUSE
) -> tuple[Pruned, ...]:
    """Remove from the begin of every chain of a folder what is older than a moment.

    A server may go on writing beside it.

    Args:
        folder: The state folder, or the folder of the chains in it.
        older_than: Unix seconds; nothing younger is removed.
        clock: Gives unix seconds.
        pause: Seconds between two portions, in which a server writes.

    Returns:
        What was removed, for each chain of which something was; and each chain that is not
        whole enough to sign for what remains of it, or cannot be written, with `refused`.

    Raises:
        ConfigurationError: There is no chain, or the key cannot be used.
    """
    folder = evidence_folder(folder)
    files = chain_files(folder)
    if not files:
        message = f"`{folder}` holds no chain: name the folder that was given as `state=`"
        raise ConfigurationError(message)
    key = HeadKey.of(folder)
    found = Found()
    order = Order(found.problem, found.note)
    than = round(older_than * 1_000_000) * 1_000
    done: list[Pruned] = []
    with unpruned(folder, but_by_us=True):
        stubs: list[tuple[Path, Stub | None]] = []
        for path in files:
            with _mistakes(path, done):
                stubs.append((path, _stub(path, key, than, clock, found=found, order=order)))
        order.end()
        cursors = [read_cursor(cursor) for cursor in folder.glob(CURSORS)]
        for path, stub in stubs:
            with _mistakes(path, done):
                _require_whole(path.stem, found)
                if path.stem in order.witnesses:
                    message = "it denied a call that another chain says ran"
                    raise NotAChain(message)
                if stub is not None:
                    sent = max((cursor.get(path.stem, Delivered()).seq for cursor in cursors), default=stub.seq)
                    removed = _remove(path, stub.seq, key.sign(stub), pause=pause)
                    done.append(
                        Pruned(
                            chain_id=path.stem,
                            removed=removed,
                            begins_after=stub.seq,
                            undelivered=min(removed, max(0, stub.seq - sent)),
                        )
                    )
    return tuple(done)


@contextmanager
def _mistakes(path: Path, done: list[Pruned]) -> Iterator[None]:
    """Go on with the other chains: what is wrong with one does not keep theirs."""
    try:
        yield
    except (NotAChain, BadSignature, OSError, sqlite3.Error) as error:
        message = f"`{path}` cannot be pruned: {error}: see what `agentguard evidence verify` says of it"
        done.append(Pruned(chain_id=path.stem, refused=message))


def _require_whole(chain_id: str, found: Found) -> None:
    """Pass only if nothing is wrong with a chain: pruned away, nobody would see that again."""
    for problem in found.problems:
        if problem.chain_id == chain_id:
            raise NotAChain(problem.what)


def _stub(
    path: Path, key: HeadKey, older_than: int, clock: Callable[[], float], *, found: Found, order: Order
) -> Stub | None:
    """Return how far a chain can be pruned; None if it cannot.

    Raises:
        BadSignature: Its last head is not one.
        OSError: It cannot be read.
    """
    chain = ChainCheck(path, key.public, found)
    head = key.public.head(read_beside(path))
    last: Entry | None = None
    going = True
    for entry in chain.entries():
        order.see(entry)
        going = going and entry.seq < head.seq and _is_older(entry, older_than)
        if going:
            last = entry
    if last is None:
        return None
    at = round(clock() * 1_000_000) * 1_000
    return Stub(chain_id=path.stem, seq=last.seq, hash=last.hash, time_unix_nano=at, older_than=older_than)


def _is_older(entry: Entry, than: int) -> bool:
    try:
        record = entry.record
        # The end of a run bears another time than the records around it.
        return bool(record["kind"] == RecordKind.RUN or record["time_unix_nano"] < than)
    except (ValueError, TypeError, KeyError, RecursionError):
        # It has not the form of a record, which is told as well.
        return False


def _remove(path: Path, seq: int, stub: str, *, pause: float) -> int:
    """Remove the records up to *seq*, in portions, beside whoever writes; return how many there were.

    Args:
        path: The chain's file.
        seq: The last record to remove.
        stub: What is signed of it; kept first, so that the chain never begins without it.
        pause: Seconds between two portions, in which a writer writes.

    Raises:
        sqlite3.Error: It cannot be written.
    """
    removed = 0
    with closing(connect(path, "mode=rw", seconds=5)) as connection:
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute("PRAGMA wal_autocheckpoint = 0")
        connection.execute("INSERT OR REPLACE INTO stub VALUES (?, ?)", (seq, stub))
        while gone := connection.execute(_REMOVE, (seq,)).rowcount:
            removed += gone
            time.sleep(pause)
    return removed
