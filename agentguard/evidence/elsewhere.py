"""What another place has of the chains, and how it compares: the hashes in a collector's export."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.evidence.kept import UnfitRecordError
from agentguard.evidence.otlp import records_of_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from agentguard.evidence.ledger import Entry
    from agentguard.evidence.proof import Found

_LINE_BYTES: Final = 256 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What another place has of a record.

    Attributes:
        chain_id: The chain.
        seq: Its place there.
        hash: Its hash, hex.
    """

    chain_id: str
    seq: int
    hash: str


def read_export(path: Path, tell: Callable[[str], None]) -> Iterator[Delivered]:
    """Yield what a collector's OTLP JSON-lines export has of each record.

    Args:
        path: The file that a collector's file exporter wrote.
        tell: Is told, one line each, what could not be read.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(iter(lambda: lines.readline(_LINE_BYTES), b""), 1):
                source = f"{path}:{number}"
                if not line.strip():
                    continue
                try:
                    for record in records_of_line(line, source, tell):
                        if record.chain_id and record.seq and record.hash:
                            yield Delivered(chain_id=record.chain_id, seq=record.seq, hash=record.hash)
                except UnfitRecordError as error:
                    tell(f"{source}: {error}")
    except OSError as error:
        message = f"export `{path}` cannot be read: {error.strerror}: name a file that a collector wrote"
        raise ConfigurationError(message) from error


class Elsewhere:
    """What another place has of the chains, crossed off while they are read."""

    def __init__(self, delivered: Iterable[Delivered], found: Found) -> None:
        self._found = found
        self._chains: dict[str, dict[int, str]] = {}
        self._common = self._given = 0
        for one in delivered:
            self._given += 1
            chain = self._chains.setdefault(one.chain_id, {})
            if chain.setdefault(one.seq, one.hash) != one.hash:
                found.problem(
                    one.chain_id, one.seq, "two records with this place were delivered: history was rewritten"
                )

    def see(self, entry: Entry) -> None:
        """Compare one record."""
        digest = self._chains.get(entry.chain_id, {}).pop(entry.seq, None)
        if digest is None:
            return
        self._common += 1
        if digest != entry.hash:
            self._found.problem(
                entry.chain_id, entry.seq, "another record was delivered from this place: history was rewritten"
            )

    def end(self, chain_id: str, *, pruned: int) -> None:
        """Tell what was delivered of a chain and is not in it."""
        left = self._chains.pop(chain_id, {})
        # What was pruned on purpose, and signed for, is elsewhere alone.
        missing = sorted(seq for seq in left if seq > pruned)
        self._common += len(left) - len(missing)
        if missing:
            self._found.problem(
                chain_id,
                missing[0],
                f"{_delivered(len(missing))} up to seq {missing[-1]}, and not here: "
                "the chain was cut, or an old copy was put in its place",
            )

    def forget(self, chain_id: str) -> None:
        """Leave out a chain whose loss was told already."""
        self._common += len(self._chains.pop(chain_id, {}))

    def end_all(self) -> None:
        """Tell of whole chains that were delivered and are not here."""
        for chain_id, left in sorted(self._chains.items()):
            self._found.problem(
                chain_id,
                0,
                f"the whole chain is gone: {_delivered(len(left))}, up to seq {max(left)}",
            )
        if not self._common and not self._chains:
            self._found.problem("", 0, "nothing of these chains was delivered: the comparison proves nothing")


def _delivered(number: int) -> str:
    return "1 record was delivered" if number == 1 else f"{number:,} records were delivered"
