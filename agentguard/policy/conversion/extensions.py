"""Read what `decimal`, `datetime` and `duration` are made of, as whole numbers, as Cedar does.

``decimal("1.0")`` and ``decimal("1.00")`` are one number, and so are a time and the same time
in another zone.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Final

from agentguard.policy.conversion.scalars import LONG_MAX, LONG_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

_DECIMAL: Final = re.compile(r"(-?)([0-9]+)\.([0-9]{1,4})")
_DATETIME: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:T([0-9]{2}):([0-9]{2}):([0-9]{2})(?:\.([0-9]{3}))?(?:Z|([+-])([0-9]{2})([0-9]{2})))?"
)
_DURATION: Final = re.compile(r"(-?)(?:([0-9]+)d)?(?:([0-9]+)h)?(?:([0-9]+)m)?(?:([0-9]+)s)?(?:([0-9]+)ms)?")
_UNITS: Final = (86_400_000, 3_600_000, 60_000, 1_000, 1)
_UNIX: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND: Final = timedelta(milliseconds=1)


def units_in(kind: str, text: str) -> int | None:
    """Return the number that an argument of one of Cedar's functions stands for.

    Args:
        kind: The function, ``decimal``, ``datetime`` or ``duration``.
        text: Its argument.

    Returns:
        A decimal counts ten thousandths; a datetime and a duration count milliseconds, the one from
        1970. None if the function is another, if Cedar does not take the text, and for years that no
        calendar here has.
    """
    read = _READERS.get(kind)
    found = None if read is None else read(text)
    return found if found is not None and LONG_MIN <= found <= LONG_MAX else None


def _decimal(text: str) -> int | None:
    if (match := _DECIMAL.fullmatch(text)) is None:
        return None
    value = int(match[2]) * 10_000 + int(match[3].ljust(4, "0"))
    return -value if match[1] else value


def _datetime(text: str) -> int | None:
    if (match := _DATETIME.fullmatch(text)) is None:
        return None
    year, month, day, hour, minute, second, milliseconds = (int(match[part] or 0) for part in range(1, 8))
    offset = timedelta(hours=int(match[9] or 0), minutes=int(match[10] or 0))
    try:
        zone = timezone(-offset if match[8] == "-" else offset)
        found = datetime(year, month, day, hour, minute, second, milliseconds * 1000, tzinfo=zone)
    except ValueError:
        return None
    return (found - _UNIX) // _MILLISECOND


def _duration(text: str) -> int | None:
    match = _DURATION.fullmatch(text)
    if match is None or not any(match.groups()[1:]):
        return None
    value = sum(int(match[part] or 0) * unit for part, unit in enumerate(_UNITS, 2))
    return -value if match[1] else value


_READERS: Final[dict[str, Callable[[str], int | None]]] = {
    "decimal": _decimal,
    "datetime": _datetime,
    "duration": _duration,
}
