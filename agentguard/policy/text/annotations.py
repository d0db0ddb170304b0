"""A list of texts as the one text that a Cedar annotation holds.

``csv | json`` and ``path, blob`` read well, and any text can stand in such a list: the mark
of the separator is written with a backslash before it where it is part of a text.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

CHOICE: Final = " | "
"""Stands between values of which one is meant."""

COMMA: Final = ", "
"""Stands between the members of any other list."""


def joined(texts: Iterable[str], separator: str) -> str:
    """Return *texts* as one, which `listed` takes apart again."""
    mark = separator.strip()
    return separator.join(text.replace("\\", "\\\\").replace(mark, f"\\{mark}") for text in texts)


def listed(text: str, separator: str) -> tuple[str, ...]:
    """Return the texts of a list, at least one: an empty text is a list of one empty text."""
    mark = separator.strip()
    found: list[list[str]] = [[]]
    at = 0
    while at < len(text):
        if text[at] == "\\" and at + 1 < len(text):
            found[-1].append(text[at + 1])
            at += 2
        elif text.startswith(separator, at):
            found.append([])
            at += len(separator)
        elif text[at] == mark:
            # A person may leave the blanks out.
            found.append([])
            at += 1
        else:
            found[-1].append(text[at])
            at += 1
    return tuple("".join(characters) for characters in found)
