"""Records as a table for people: eighty columns say who, what, and by which policy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from agentguard.evidence.showing import acted, by, verdict
from agentguard.evidence.words import moment
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

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
# The time, what it says and the run, and the gaps between six columns.
_FIXED: Final = 8 + 9 + _SHORT + 2 * 5
_SHARES: Final = {"tool": 33, "agent": 29, "by": 38}
_SHARES_WIDE: Final = {"tool": 20, "agent": 18, "user": 17, "task": 17, "by": 28}
# Where there is room, for whom and under which policies too.
_WIDE: Final = 120


def table(records: Sequence[Kept], *, width: int) -> Table:
    """Return records as a table, in the order given.

    Args:
        records: The records.
        width: The columns that there are.
    """
    wide = width >= _WIDE
    shares = _SHARES_WIDE if wide else _SHARES
    # What is named by whoever calls has the room that the rest leaves; nothing wraps.
    room = width - _FIXED - (_SHORT + 2 * 3 if wide else 0)
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("UTC", no_wrap=True)
    drawn.add_column("what", no_wrap=True)
    for name, share in shares.items():
        drawn.add_column(name, no_wrap=True, overflow="ellipsis", max_width=max(6, room * share // 100))
    if wide:
        drawn.add_column("policies", no_wrap=True)
    drawn.add_column("run", no_wrap=True)
    day = ""
    for record in records:
        if day != (day := moment(record.at, "%d %b")):
            drawn.add_row(Text(day, style="dim"))
        what = verdict(record)
        facts = ["agentguard.agent.id"]
        if wide:
            facts += ["agentguard.user.id", "agentguard.task.id"]
        drawn.add_row(
            moment(record.at, "%H:%M:%S"),
            Text(printable(what), style=_STYLES.get(what, "")),
            Text(printable(acted(record))),
            *(Text(printable(record.text(name))) for name in facts),
            Text(printable(by(record))),
            *([Text(printable(_version(record)))] if wide else []),
            Text(printable(record.text("agentguard.run.id")[:_SHORT])),
        )
    return drawn


def _version(record: Kept) -> str:
    return record.text("agentguard.policy.version").removeprefix("sha256:")[:_SHORT]
