"""Records as a table for people: eighty columns say who, what, and by which policy."""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

from agentguard.evidence.showing import acted, by, verdict
from agentguard.evidence.words import moment
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.evidence.kept import Kept

_STYLES: Final = {
    "allow": "green",
    "completed": "dim",
    "deny": "red",
    "refused": "red",
    "revoked": "red",
    "withheld": "bold red",
    "cancelled": "yellow",
    "expired": "yellow",
    "failed": "yellow",
}
_SHORT: Final = 8
_GAP: Final = 2
# The time and what it says, and the run. Behind each column but the last is a gap.
_FIXED: Final = 8 + _GAP + 9 + _GAP + _SHORT
_VERSION: Final = _SHORT + _GAP
# Of a name, so much always stays.
_LEAST: Final = 6
_NAMES: Final = ("tool", "agent", "by")
_NAMES_WIDE: Final = ("tool", "agent", "user", "task", "by")
# Where there is room, for whom and under which policies too.
_WIDE: Final = 120


def table(records: Sequence[Kept], *, width: int) -> Table:
    """Return records as a table, in the order given.

    Args:
        records: The records.
        width: The columns that there are.
    """
    wide = width >= _WIDE
    rows = [_row(record, _NAMES_WIDE if wide else _NAMES) for record in records]
    # What no record says takes no room from what they say.
    wanted = {
        name: max(map(cell_len, (name, *values)))
        for name in (_NAMES_WIDE if wide else _NAMES)
        if any(values := [row[name] for row in rows])
    }
    room = width - _FIXED - (_VERSION if wide else 0) - _GAP * len(wanted)
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    drawn.add_column("UTC", no_wrap=True)
    drawn.add_column("what", no_wrap=True)
    widths = _shared(wanted, room)
    for name in wanted:
        drawn.add_column(name, no_wrap=True, overflow="ellipsis", max_width=widths[name])
    if wide:
        drawn.add_column("policies", no_wrap=True)
    drawn.add_column("run", no_wrap=True)
    day = ""
    for record, row in zip(records, rows, strict=True):
        if day != (day := moment(record.at, "%d %b")):
            drawn.add_row(Text(day, style="dim"))
        what = verdict(record)
        drawn.add_row(
            moment(record.at, "%H:%M:%S"),
            Text(printable(what), style=_STYLES.get(what, "")),
            *(Text(row[name]) for name in wanted),
            *([Text(printable(_version(record)))] if wide else []),
            Text(printable(record.text("agentguard.run.id")[:_SHORT])),
        )
    return drawn


def _row(record: Kept, names: Sequence[str]) -> dict[str, str]:
    """Return what is named by whoever calls, or by policies."""
    said = {"tool": acted(record), "by": by(record)}
    return {name: printable(said[name] if name in said else record.text(f"agentguard.{name}.id")) for name in names}


def _shared(wanted: Mapping[str, int], room: int) -> dict[str, int]:
    """Return how wide each column may be: as it wants, or an equal share of what those leave that want less."""
    widths = {}
    for number, (name, wants) in enumerate(sorted(wanted.items(), key=itemgetter(1))):
        widths[name] = max(_LEAST, min(wants, room // (len(wanted) - number)))
        room -= widths[name]
    return widths


def _version(record: Kept) -> str:
    return record.text("agentguard.policy.version").removeprefix("sha256:")[:_SHORT]
