"""The append-only, hash-chained ledger: no evidence, no action.

A record's hash is SHA-256 over the hash before it, the chain's id, the record's place
and its canonical JSON. Whoever edits, drops or reorders a kept record has to write every
later hash anew; that this did not happen is proved only by a head that was already
delivered elsewhere.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections import deque
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from agentguard.errors import ConfigurationError, Refusal
from agentguard.model import Reason, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agentguard.evidence.vocabulary import AttributeValue

FIRST_PREV_HASH: Final = "0" * 64
"""What a chain's first record names as the hash before it."""

_CHAIN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")


class Entry(NamedTuple):
    """One kept record.

    Attributes:
        chain_id: The chain it stands in.
        seq: Its place, from 1, without gaps.
        hash: SHA-256, hex.
        prev_hash: The hash of the record before it.
        text: The record as canonical JSON, the very text that was hashed.
    """

    chain_id: str
    seq: int
    hash: str
    prev_hash: str
    text: str

    @property
    def record(self) -> dict[str, Any]:
        """The record, read back."""
        kept: dict[str, Any] = json.loads(self.text)
        return kept


class Ledger(Protocol):
    """Where evidence is kept. Several threads may do so at once.

    A ledger that keeps records in two steps also has ``async def settled(entry)``, which
    returns when *entry* is as lasting as it will be; no tool runs before that.
    """

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record*, durably if this ledger is durable, before returning.

        Raises:
            Refusal: `EVIDENCE_UNAVAILABLE`, if it could not be kept for any reason.
        """
        ...


def entry_hash(*, prev_hash: str, chain_id: str, seq: int, text: str) -> str:
    """Return the hash that binds *text* to its place in its chain, hex."""
    # No part but the last can hold a line break, so no two entries share these bytes.
    return hashlib.sha256(f"{prev_hash}\n{chain_id}\n{seq}\n{text}".encode("ascii")).hexdigest()


def evidence_attributes(entry: Entry) -> dict[str, AttributeValue]:
    """Return what a decision span says of the record that it is a view of."""
    return {
        "agentguard.evidence.chain_id": entry.chain_id,
        "agentguard.evidence.seq": entry.seq,
        "agentguard.evidence.hash": entry.hash,
        "agentguard.evidence.prev_hash": entry.prev_hash,
    }


class MemoryLedger:
    """A ledger that the process takes with it when it ends. Safe to share between threads.

    Iterating gives the kept entries, oldest first. The chain goes on past those that
    were let go: a verifier sees from the first `seq` how many are missing.

    Args:
        keep: How many entries are kept.
        chain_id: The chain's name, 1 to 64 of ``A-Z a-z 0-9 . _ -``; random if absent,
            so that two processes never write one chain.
    """

    def __init__(self, *, keep: int = 10_000, chain_id: str | None = None) -> None:
        if not keep >= 1:
            message = f"`keep` wants at least 1 entry, got `{keep}`: leave it out for 10000"
            raise ConfigurationError(message)
        self._chain_id = f"memory-{secrets.token_hex(8)}" if chain_id is None else chain_id
        if not _CHAIN_ID.fullmatch(self._chain_id):
            message = f"`chain_id` wants 1 to 64 of A-Z a-z 0-9 . _ -, got `{chain_id!r}`: choose a plain name"
            raise ConfigurationError(message)
        self._kept: deque[Entry] = deque(maxlen=keep)
        self._seq = 0
        self._head = FIRST_PREV_HASH
        self._lock = Lock()

    @property
    def chain_id(self) -> str:
        """The chain's name."""
        return self._chain_id

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record* and return its entry.

        Raises:
            Refusal: `EVIDENCE_UNAVAILABLE`, if the record has no canonical JSON.
        """
        try:
            text = canonical_json(record)
        except (TypeError, ValueError, RecursionError) as error:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, f"no canonical JSON: {type(error).__name__}") from None
        with self._lock:
            seq, prev_hash = self._seq + 1, self._head
            digest = entry_hash(prev_hash=prev_hash, chain_id=self._chain_id, seq=seq, text=text)
            entry = Entry(self._chain_id, seq, digest, prev_hash, text)
            self._kept.append(entry)
            self._seq, self._head = seq, digest
        return entry

    def __iter__(self) -> Iterator[Entry]:
        with self._lock:
            return iter(tuple(self._kept))

    def __len__(self) -> int:
        return len(self._kept)


def verify_chain(entries: Iterable[Entry]) -> tuple[str, ...]:
    """Return what is wrong with a chain, one line each; nothing if it is whole.

    The first entry's own `prev_hash` is taken on trust unless the entry is a chain's
    first. No entries at all prove nothing, and are a problem too.
    """
    problems: list[str] = []
    before: Entry | None = None
    for entry in entries:
        where = f"seq {entry.seq}"
        if before is None:
            if entry.seq == 1 and entry.prev_hash != FIRST_PREV_HASH:
                problems.append(f"{where}: a chain's first entry follows nothing, got prev_hash `{entry.prev_hash}`")
        else:
            if entry.chain_id != before.chain_id:
                problems.append(f"{where}: chain `{before.chain_id}` goes on as `{entry.chain_id}`")
            if entry.seq != before.seq + 1:
                problems.append(f"{where}: wanted seq {before.seq + 1}")
            if entry.prev_hash != before.hash:
                problems.append(f"{where}: does not follow the entry before it")
        wanted = entry_hash(prev_hash=entry.prev_hash, chain_id=entry.chain_id, seq=entry.seq, text=entry.text)
        if entry.hash != wanted:
            problems.append(f"{where}: the record is not what was hashed")
        before = entry
    if before is None:
        problems.append("no entries: nothing is proved")
    return tuple(problems)
