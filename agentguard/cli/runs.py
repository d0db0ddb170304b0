"""`agentguard runs`: which runs live, and what became of those that did."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agentguard.cli.issuing import open_store
from agentguard.cli.options import JsonOption, StoreOption
from agentguard.cli.output import duration, hint, result, result_json, terminal
from agentguard.errors import ConfigurationError
from agentguard.identity.sources import STDIO_AUDIENCE
from agentguard.lifecycle.states import COMPLETED, RunState
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rich.console import Console

    from agentguard.lifecycle.store import RunRecord

_STYLES: Final = {
    RunState.ISSUED: "cyan",
    RunState.ACTIVE: "green",
    RunState.COMPLETED: "dim",
    RunState.REVOKED: "red",
    RunState.EXPIRED: "yellow",
}
# What names a run well enough for `agentguard revoke`; the whole id where there is room.
_SHORT: Final = 12
_WIDE: Final = 110
_COLUMNS: Final = ("agent", "user", "task", "server", "age", "left", "calls", "state", "run")
# Shown where there is room, as is the whole id.
_ROOMY: Final = "server"
_NUMBERS: Final = frozenset({"age", "left", "calls"})
# What says nothing any more when it is cut.
_WHOLE: Final = _NUMBERS | {"run"}
_LEAST: Final = 4
_GAP: Final = 2


def runs(
    *,
    everything: Annotated[
        bool, typer.Option("--all", metavar="", help="Those of the last hour that are over, too, and how they ended.")
    ] = False,
    watch: Annotated[bool, typer.Option("--watch", metavar="", help="Repaint every second, until Ctrl-C.")] = False,
    store: StoreOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the live runs: who acts, for whom, and for how much longer.

    A run that another delegated to stands below it.

    Example: `agentguard runs --all`
    """
    console = terminal()
    if watch and (as_json or not console.is_terminal or console.is_dumb_terminal):
        message = "--watch repaints a terminal, got none, or --json: leave one out"
        raise ConfigurationError(message)
    with closing(open_store(store, existing=True)) as opened:

        def read() -> list[RunRecord]:
            return [record for record in opened.runs() if everything or record.state.live]

        if watch:
            repaint(console, lambda: table(read(), now=time.time(), width=console.width))
            return
        records = read()
    if as_json:
        result_json([_described(record) for record in records])
        return
    if not records:
        hint("no run is on record here" if everything else "no live run is on record here")
        return
    with console.capture() as drawn:
        console.print(table(records, now=time.time(), width=console.width))
    # Without the blanks that fill the last column: they would wrap in a narrower pager.
    result("\n".join(line.rstrip() for line in drawn.get().splitlines()))


def repaint(console: Console, paint: Callable[[], Table], *, pause: Callable[[float], None] = time.sleep) -> None:
    """Paint again and again, until whoever looks has seen enough.

    Args:
        console: A terminal.
        paint: Gives what to paint.
        pause: Waits between two times, and raises `KeyboardInterrupt` at the end.
    """
    with Live(paint(), console=console, auto_refresh=False) as live:
        try:
            while True:
                pause(1)
                live.update(paint(), refresh=True)
        except KeyboardInterrupt:
            return


def table(records: Sequence[RunRecord], *, now: float, width: int) -> Table:
    """Return runs as a table, each below the one that it stems from.

    Args:
        records: The runs, in the order in which they began.
        now: Unix seconds.
        width: The columns that there are.
    """
    wide = width >= _WIDE
    columns = [name for name in _COLUMNS if wide or name != _ROOMY]
    rows = [
        [
            Text(f"{'  ' * (depth - 1)}└ {printable(record.agent)}" if depth else printable(record.agent)),
            Text(printable(record.user or "")),
            Text(printable(record.task or "")),
            *([Text(printable(record.audience.removeprefix(STDIO_AUDIENCE)))] if wide else []),
            Text(duration(now - record.issued_at)),
            Text(duration(record.ends_at - now) if record.state.live else ""),
            Text(str(record.calls)),
            Text(_state(record), style=_STYLES[record.state]),
            Text(printable(record.run_id)[: None if wide else _SHORT]),
        ]
        for depth, record in _as_tree(records)
    ]
    widths = [max(len(name), *(row[column].cell_len for row in rows)) for column, name in enumerate(columns)]
    for column in _fit(columns, widths, width - _GAP * (len(widths) - 1)):
        widths[column] -= 1
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name, size in zip(columns, widths, strict=True):
        number = name in _NUMBERS
        drawn.add_column(name, width=size, no_wrap=True, justify="right" if number else "left", overflow="ellipsis")
    for row in rows:
        drawn.add_row(*row)
    return drawn


def _fit(columns: Sequence[str], widths: Sequence[int], room: int) -> Iterator[int]:
    """Yield which column gives up one place, until all fit: a name, and the widest of them."""
    left = [0 if name in _WHOLE else wide for name, wide in zip(columns, widths, strict=True)]
    for _ in range(sum(widths) - room):
        column = left.index(max(left))
        if left[column] <= _LEAST:
            return
        left[column] -= 1
        yield column


def _state(record: RunRecord) -> str:
    # The reason of a completed run begins with that word itself.
    if record.state is RunState.COMPLETED:
        return printable(record.reason) or COMPLETED
    return f"{record.state}: {printable(record.reason)}" if record.reason else record.state.value


def _as_tree(records: Sequence[RunRecord]) -> Iterator[tuple[int, RunRecord]]:
    """Yield each run after the one that it stems from, with how deep it stands."""
    shown = {(record.issuer, record.run_id) for record in records}
    below: dict[tuple[str, str] | None, list[RunRecord]] = {}
    for record in records:
        above = [(record.issuer, run_id) for run_id in record.ancestors if (record.issuer, run_id) in shown]
        below.setdefault(above[-1] if above else None, []).append(record)
    waiting = [(0, record) for record in reversed(below.get(None, []))]
    while waiting:
        depth, record = waiting.pop()
        yield depth, record
        waiting += [(depth + 1, child) for child in reversed(below.get((record.issuer, record.run_id), []))]


def _described(record: RunRecord) -> dict[str, object]:
    return {
        "run_id": record.run_id,
        "issuer": record.issuer,
        "agent": record.agent,
        "user": record.user,
        "task": record.task,
        "purpose": record.purpose,
        "audience": record.audience,
        "ancestors": list(record.ancestors),
        "state": record.state.value,
        "reason": record.reason,
        "issued_at": record.issued_at,
        "ends_at": int(record.ends_at),
        "used_at": record.used_at,
        "ended_at": record.ended_at,
        "calls": record.calls,
    }
