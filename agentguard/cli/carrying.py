"""What lies in a policy folder beside the policies: scenarios, notes, what an editor is told.

A folder that is made of another one keeps all that, since its owner wants to test and read it
as the other. Nothing is taken through a link, which may lead anywhere.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_MOST_BYTES: Final = 32 * 1024 * 1024
_EDITOR: Final = ".vscode"
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK


def carried(folder: Path, known: Collection[str]) -> tuple[list[str], list[str]]:
    """Return the names of the regular files in *folder*, and of what is left out: links, what is no file or too large.

    Args:
        folder: The folder; folders in it whose name begins with a dot are an editor's or a tool's own.
        known: Names that are not asked about.

    Raises:
        OSError: A folder cannot be looked into.
    """
    taken: list[str] = []
    left_out: list[str] = []
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        if name in known:
            continue
        status = path.lstat()
        fits = stat.S_ISREG(status.st_mode) and status.st_size <= _MOST_BYTES
        (taken if fits else left_out).append(name)
    return sorted(taken), sorted(left_out)


def content(file: Path) -> bytes:
    """Return what a file holds.

    Raises:
        OSError: It cannot be read, or is a link by now.
    """
    with os.fdopen(os.open(file, _READ), "rb") as opened:
        return opened.read(_MOST_BYTES)


def _files(folder: Path) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.is_symlink() or not entry.is_dir():
            yield entry
        elif not entry.name.startswith(".") or entry.name == _EDITOR:
            yield from _files(entry)
