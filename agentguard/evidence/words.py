"""Times, spans of time and numbers in words; times are UTC, whatever a record says."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

_UNITS: Final = ((86_400, "d"), (3600, "h"), (60, "min"), (1, "s"))
# What a record says need not be on any calendar.
_LAST_SECOND: Final = 253_402_300_799


def moment(seconds: float, form: str = "%Y-%m-%d %H:%M:%S") -> str:
    """Return a time, unix seconds, in words; one past the calendar is its last."""
    return _on_the_calendar(seconds).strftime(form)


def iso(seconds: float) -> str:
    """Return a time as ISO 8601, in milliseconds, UTC."""
    return _on_the_calendar(seconds).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def span(seconds: float) -> str:
    """Return a time in its two largest units: ``3 min 20 s``."""
    left = max(0, round(seconds))
    parts: list[str] = []
    for size, unit in _UNITS:
        number, left = divmod(left, size)
        if number or (size == 1 and not parts):
            parts.append(f"{number:,} {unit}")
        elif parts:
            break
    return " ".join(parts[:2])


def count(number: int, one: str, more: str = "") -> str:
    """Return how many there are of something: ``1 run``, ``1,200 runs``."""
    return f"{number:,} {one if number == 1 else more or f'{one}s'}"


def _on_the_calendar(seconds: float) -> datetime:
    return datetime.fromtimestamp(min(max(seconds, 0.0), _LAST_SECOND), UTC)
