"""Time several ways of doing one thing, in turn, so that a noisy machine disturbs all alike."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence

Way = Callable[[], Awaitable[object]]


async def medians(ways: Mapping[str, Way], *, rounds: int, calls: int) -> dict[str, float]:
    """Return the median time of one call of each way, in microseconds.

    Args:
        ways: What to time, by name.
        rounds: How often each has its turn; the first turn is not counted.
        calls: How many calls one turn has.
    """
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            gc.collect()
            began = time.perf_counter()
            for _ in range(calls):
                await way()
            if turn:
                taken[name].append((time.perf_counter() - began) / calls * 1e6)
    return {name: statistics.median(times) for name, times in taken.items()}


def table(title: str, rows: Mapping[str, float], notes: Mapping[str, str] | None = None) -> None:
    """Print medians, one a line, each with what there is to say of it."""
    print(f"\n{title}")
    width = max(map(len, rows))
    for name, value in rows.items():
        print(f"  {name:<{width}}  {value:>10.1f} µs  {(notes or {}).get(name, '')}".rstrip())


def spread(title: str, rows: Mapping[str, tuple[Sequence[float], Sequence[float] | None]]) -> None:
    """Print the median, the 99th percentile and the largest of milliseconds, one row a line.

    Args:
        title: What was measured.
        rows: For each name, what was taken, and what no way of the same kind can go below.
    """
    width = max(map(len, rows))
    print(f"\n{title}\n  {'':<{width}}  {'p50':>8}  {'p99':>8}  {'max':>8}  ms")
    for name, (taken, floor) in rows.items():
        figures = _figures(taken)
        note = ""
        if floor is not None:
            p50, p99, _ = (one / least for one, least in zip(figures, _figures(floor), strict=True))
            note = f"  p50 {p50:.2f} x, p99 {p99:.2f} x its floor"
        print(f"  {name:<{width}}  " + "  ".join(f"{figure:>8.3f}" for figure in figures) + note)


def _figures(taken: Sequence[float]) -> tuple[float, float, float]:
    return statistics.median(taken), statistics.quantiles(taken, n=100)[98], max(taken)
