"""Show where in a text something is wrong: the line, and a mark under what is at fault."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rich.cells import cell_len

from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_TAB: Final = "    "
_CUT: Final = "…"
# Less of a line than that shows nothing.
_LEAST: Final = 20
# How much of the room is left of the mark, when a line is cut: a third.
_BEFORE: Final = 3


class Excerpt(NamedTuple):
    """A line as it is shown, and the mark that stands under it; the mark is empty if all of the line is meant."""

    line: str
    mark: str


def excerpt(line: str, *, column: int, length: int, room: int) -> Excerpt:
    """Return *line* as a terminal can show it, with a mark under the part that is at fault.

    Args:
        line: One line of a text, without its end.
        column: Where the part begins, from 1, in characters; 0 if all of the line is meant.
        length: How many characters it has.
        room: How many cells there are; a longer line is cut around the mark.
    """
    room = max(room, _LEAST)
    start = max(column - 1, 0)
    # A line can be a megabyte long, and no more than this can be seen of it.
    first = max(0, start - room)
    signs = [_shown(sign) for sign in line[first : start + room + 1]]
    more = len(line) > start + room + 1
    widths = [cell_len(sign) for sign in signs]
    left, right = _window(widths, start - first, room, before=first > 0, after=more)
    cut = first + left > 0
    shown = (_CUT if cut else "") + "".join(signs[left:right]) + (_CUT if more or right < len(signs) else "")
    if not column:
        return Excerpt(shown, "")
    at = start - first
    blank = cut + sum(widths[left:at])
    marked = sum(widths[at : min(at + length, right)])
    return Excerpt(shown, " " * blank + "^" * max(marked, 1))


def _shown(sign: str) -> str:
    return _TAB if sign == "\t" else printable(sign)


def _window(widths: Sequence[int], at: int, room: int, *, before: bool, after: bool) -> tuple[int, int]:
    """Return from where to where to show signs of these *widths*, so that the one *at* is among them."""
    if not (before or after) and sum(widths) <= room:
        return 0, len(widths)
    left, used = at, 0
    while left > 0 and used + widths[left - 1] <= room // _BEFORE:
        left -= 1
        used += widths[left]
    # A sign of the cut on either side takes a cell of its own.
    free = room - used - 2
    right = at
    while right < len(widths) and widths[right] <= free:
        free -= widths[right]
        right += 1
    while right == len(widths) and not after and left > 0 and widths[left - 1] <= free:
        left -= 1
        free -= widths[left]
    return left, right
