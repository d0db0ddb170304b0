"""What another place has of the chains, and how it compares: the hashes in a collector's export, and what it says."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.errors import ConfigurationError
from agentguard.evidence.kept import UnfitRecordError, kept_of
from agentguard.evidence.otlp import records_of_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from agentguard.evidence.kept import Kept
    from agentguard.evidence.ledger import Entry
    from agentguard.evidence.proof import Found

_LINE_BYTES: Final = 256 * 1024 * 1024


class Said(NamedTuple):
    """What a record says, in so few bytes that millions of them can be held.

    Attributes:
        names: The attributes, and `kind`.
        values: The hash of each value, as this process makes it.
    """

    names: tuple[str, ...]
    values: array[int]

    def unlike(self, other: Said) -> str:
        """Return the first name under which two say something else; empty if there is none."""
        here = dict(zip(other.names, other.values, strict=True))
        pairs = zip(self.names, self.values, strict=True)
        return next((name for name, value in pairs if here.get(name, value) != value), "")


def said_by(record: Kept) -> Said:
    """Return what a record says."""
    said = {"kind": record.kind, **record.attributes}
    return Said(tuple(said), array("q", map(hash, said.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivered:
    """What another place has of a record.

    Attributes:
        chain_id: The chain.
        seq: Its place there.
        hash: Its hash, hex.
        said: What it says there, by the names of the attributes.
    """

    chain_id: str
    seq: int
    hash: str
    said: Said = field(default_factory=lambda: Said((), array("q")))


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
                            yield Delivered(
                                chain_id=record.chain_id, seq=record.seq, hash=record.hash, said=said_by(record)
                            )
                except UnfitRecordError as error:
                    tell(f"{source}: {error}")
    except OSError as error:
        message = f"export `{path}` cannot be read: {error.strerror}: name a file that a collector wrote"
        raise ConfigurationError(message) from error


class Elsewhere:
    """What another place has of the chains, crossed off while they are read.

    Attributes:
        compared: For each chain: how many of its records are there, and the last of them.
    """

    def __init__(self, delivered: Iterable[Delivered], found: Found) -> None:
        self._found = found
        self._chains: dict[str, dict[int, tuple[str, Said]]] = {}
        self.compared: dict[str, tuple[int, int]] = {}
        self._common = self._given = 0
        for one in delivered:
            self._given += 1
            chain = self._chains.setdefault(one.chain_id, {})
            digest, said = chain.setdefault(one.seq, (one.hash, one.said))
            if digest != one.hash:
                found.problem(
                    one.chain_id, one.seq, "two records with this place were delivered: history was rewritten"
                )
            elif name := said.unlike(one.said):
                found.problem(
                    one.chain_id, one.seq, f"it was delivered twice, with another `{name}`: the copy there was changed"
                )

    def see(self, entry: Entry) -> None:
        """Compare one record."""
        given = self._chains.get(entry.chain_id, {}).pop(entry.seq, None)
        if given is None:
            return
        self._common += 1
        number, _ = self.compared.get(entry.chain_id, (0, 0))
        self.compared[entry.chain_id] = number + 1, entry.seq
        digest, said = given
        if digest != entry.hash:
            self._found.problem(
                entry.chain_id, entry.seq, "another record was delivered from this place: history was rewritten"
            )
        elif name := said.unlike(_said_here(entry)):
            self._found.problem(
                entry.chain_id,
                entry.seq,
                f"the record that was delivered says another `{name}` than here: one of the two was changed",
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


def _said_here(entry: Entry) -> Said:
    try:
        return said_by(kept_of(entry))
    except UnfitRecordError:
        # Whoever looks at the order tells that.
        return Said((), array("q"))


def _delivered(number: int) -> str:
    return "1 record was delivered" if number == 1 else f"{number:,} records were delivered"
