"""Read the evidence, from wherever it lies: state folders, chains, a collector's export.

Nothing is dropped silently: what cannot be read as a record is told, with its file and
its place, and the others are read. Whether a chain is whole is not asked here; that is
for `evidence.verify`.
"""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.evidence.chainfile import NotAChain, chain_files, read_chain
from agentguard.evidence.heads import KEY, PUBLIC_KEY, head_files
from agentguard.evidence.kept import Kept, UnfitRecordError, kept_of, visible
from agentguard.evidence.otlp import records_of_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

_SQLITE: Final = b"SQLite format 3\0"
_EVIDENCE: Final = "evidence"
VIEW_ALONE: Final = frozenset(("openinference.span.kind", "gen_ai.operation.name", "agentguard.run.end"))
"""What a span says of itself, and a record need not."""

# A collector writes a batch a line; one of 8,192 spans has some 20 MB.
_LINE_BYTES: Final = 256 * 1024 * 1024


def evidence_folder(folder: Path) -> Path:
    """Return where the chains lie in a folder: a state folder has one for them.

    Raises:
        ConfigurationError: There is one in the folder, and evidence beside it: which of them
            is meant cannot be told, and whoever put it there may want the wrong one verified.
    """
    inner = folder / _EVIDENCE
    if not inner.is_dir():
        return folder
    if head_files(folder) or any((folder / name).exists() for name in (KEY, PUBLIC_KEY)):
        message = f"`{folder}` holds evidence, and a folder `{_EVIDENCE}` too: move away what is not the server's"
        raise ConfigurationError(message)
    return inner


def sources(paths: Sequence[Path]) -> tuple[tuple[Path, ...], tuple[Path, ...]]:
    """Return the files that the evidence lies in: the chains, and the exports.

    Args:
        paths: State folders, folders of chains, chains, exports.

    Raises:
        ConfigurationError: One of them is not there, cannot be read, or holds no evidence.
    """
    chains: dict[Path, None] = {}
    exports: dict[Path, None] = {}
    for path in paths:
        try:
            if path.is_dir():
                found = chain_files(evidence_folder(path))
                if not found and not _held(path):
                    message = f"`{path}` holds no chain: name the folder that was given as `state=`, or an export"
                    raise ConfigurationError(message)
                chains.update(dict.fromkeys(found))
            else:
                # A pipe can be read once, so nobody looks what it begins with.
                is_chain = stat.S_ISREG(path.stat().st_mode) and _begins_with(path, _SQLITE)
                (chains if is_chain else exports)[path] = None
        except OSError as error:
            message = f"evidence `{path}` cannot be read: {error.strerror or type(error).__name__}: name what is there"
            raise ConfigurationError(message) from None
    return tuple(chains), tuple(exports)


def read_sources(paths: Sequence[Path], tell: Callable[[str], None]) -> Iterator[Kept]:
    """Yield every record once, chain by chain, then those that an export alone has.

    A collector's export has what a chain has, and has some of it twice: a record that was
    read already is not given again.

    Args:
        paths: State folders, folders of chains, chains, exports.
        tell: Is told, one line each, what could not be read as a record, and where.

    Raises:
        ConfigurationError: See `sources`.
    """
    chains, exports = sources(paths)
    for path in paths:
        if path.is_dir() and not chain_files(evidence_folder(path)):
            tell(f"{visible(str(path))}: holds no chain any more, though what lay beside one lies there")
    seen = _Seen() if exports else None
    for chain in chains:
        for record in _read_chain(chain, tell):
            if seen is not None:
                seen.add(record)
            yield record
    for export in exports:
        for record in _read_export(export, tell):
            if seen is None or seen.new(record, tell):
                yield record


def _held(path: Path) -> bool:
    """Return whether a folder without a chain had one once."""
    folder = evidence_folder(path)
    return (folder / PUBLIC_KEY).exists() or bool(head_files(folder))


def _begins_with(path: Path, wanted: bytes) -> bool:
    with path.open("rb") as opened:
        return opened.read(len(wanted)) == wanted


class _Seen:
    """Which records were read, by each name that a view of a record can have for it."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], object] = {}

    def add(self, record: Kept) -> None:
        self._known.update(_names(record))

    def new(self, record: Kept, tell: Callable[[str], None]) -> bool:
        """Return whether a record was not read yet; tell if another stands in its place."""
        names = _names(record)
        alike = [self._known[name] == what for name, what in names.items() if name in self._known]
        if not alike:
            self._known.update(names)
        elif not all(alike):
            tell(
                f"{record.source}: {_place(record)} says something else than where it was read before: "
                "see `agentguard evidence verify --against`"
            )
        return not alike


def _names(record: Kept) -> dict[tuple[object, ...], object]:
    """Return each name of a record, with what has to be the same under it.

    A guard whose process traces nothing keeps no span's ids; whoever delivers its records
    gives them some.
    """
    names: dict[tuple[object, ...], object] = {}
    if record.chain_id:
        names["place", record.chain_id, record.seq] = record.hash
    if record.span_id:
        names["span", record.kind, record.trace_id, record.span_id] = _likeness(record)
    if decision_id := record.text("agentguard.decision.id"):
        names["decision", record.kind, decision_id] = _likeness(record)
    return names


def _place(record: Kept) -> str:
    if record.chain_id:
        return f"chain {visible(record.chain_id)}, seq {record.seq},"
    return f"decision {visible(record.text('agentguard.decision.id'))}"


def _likeness(record: Kept) -> int:
    """Return what two views of one record have in common."""
    return hash(frozenset((name, value) for name, value in record.attributes.items() if name not in VIEW_ALONE))


def _read_chain(chain: Path, tell: Callable[[str], None]) -> Iterator[Kept]:
    try:
        for entry in read_chain(chain):
            source = visible(f"{chain}:{entry.seq}")
            try:
                yield kept_of(entry, source)
            except UnfitRecordError as error:
                tell(f"{source}: {error}")
    except (NotAChain, OSError) as error:
        tell(f"{visible(str(chain))}: cannot be read to its end: {error}")


def _read_export(export: Path, tell: Callable[[str], None]) -> Iterator[Kept]:
    with export.open("rb") as lines:
        number = 0
        while line := lines.readline(_LINE_BYTES):
            number += 1
            source = visible(f"{export}:{number}")
            if not line.strip():
                continue
            try:
                yield from records_of_line(line, source, tell)
            except UnfitRecordError as error:
                tell(f"{source}: {error}")
