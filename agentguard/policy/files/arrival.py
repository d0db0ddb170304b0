"""Whether the content of a policy folder arrived whole: by where it is, and since when.

A folder is replaced in one step by renaming another one into its place, or by swapping a
link on the way to it. A Kubernetes ConfigMap swaps a link inside: ``..data``, which leads
to the files of one version. So what is read is what that link leads to, and all of it is
older than the swap. A folder that is written where it stands has entries that are younger
than its last move, or was never moved at all: nobody can tell whether that is all of it.

The times are the file system's own. A program can set when a file was modified, as whatever
copies with `-p` or `-a` does, and cannot set when its inode last changed: that is never before
the content was written by whoever wrote it here.
"""

from __future__ import annotations

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

DATA: Final = "..data"
"""The link of a ConfigMap."""

# As many as the system follows.
_MOST_LINKS: Final = 40
# A move gives times to the folder and to what it is in, one after the other, by a coarse clock.
_TICK: Final = 12_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where the content of a policy folder is.

    Attributes:
        root: The folder that is read, without a link on the way to it.
        outer: The folder that holds it; the same unless it is a ConfigMap.
        names: What tells it from another folder in its place: paths and inodes.
        since: When it was put into its place, nanoseconds; -1 if it was written there.
        passed: Every name on the way to it, links included.
    """

    root: Path
    outer: Path
    names: tuple[tuple[str, int, int], ...]
    since: int
    passed: tuple[Path, ...]

    def is_at(self, other: Place) -> bool:
        """Return whether it is the same folder in the same place."""
        return self.names == other.names

    def came_whole(self, written_at: int) -> bool:
        """Return whether it was moved there when everything in it was written, as far as times tell."""
        return 0 <= written_at <= self.since


def place_of(folder: Path) -> Place:
    """Return where the content of *folder*, an absolute path, is now.

    Raises:
        OSError: It is not there, or links lead nowhere.
    """
    passed: list[Path] = []
    since = -1
    outer, since = _walk(folder, passed, since)
    names = [_name(outer)]
    root = outer
    if stat.S_ISLNK(_mode(outer / DATA)):
        root, since = _walk(outer / DATA, passed, since)
        names.append(_name(root))
    return Place(root=root, outer=outer, names=tuple(names), since=since, passed=tuple(passed))


def written(found: os.stat_result) -> int:
    """Return when what may have been moved, or be given away later, was last written, nanoseconds."""
    return min(found.st_mtime_ns, found.st_ctime_ns)


def changed(found: os.stat_result) -> int:
    """Return when something was last changed, nanoseconds, whatever times were set on it since."""
    return found.st_ctime_ns


def way_to(folder: Path) -> tuple[Path, ...]:
    """Return every name on the way to *folder*, as far as it leads."""
    passed: list[Path] = []
    try:
        outer, _ = _walk(folder, passed, -1)
        passed.append(outer / DATA)
        _walk(outer / DATA, passed, -1)
    except OSError:
        pass
    return tuple(passed)


def _mode(path: Path) -> int:
    try:
        return path.lstat().st_mode
    except FileNotFoundError:
        return 0


def _name(path: Path) -> tuple[str, int, int]:
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    return str(path), found.st_dev, found.st_ino


def _walk(folder: Path, passed: list[Path], since: int) -> tuple[Path, int]:
    """Follow *folder* name by name, and return where it leads and when the last move on the way was."""
    anchor, *rest = folder.parts
    current = Path(anchor)
    links = 0
    while rest:
        name = rest.pop(0)
        if name == "..":
            current = current.parent
            continue
        current /= name
        passed.append(current)
        found = current.lstat()
        # To set an owner, a mode or times changes the inode too, but leaves alone what it is in.
        moved = found.st_ctime_ns <= current.parent.lstat().st_mtime_ns + _TICK
        is_link = stat.S_ISLNK(found.st_mode)
        # To add or remove an entry of a folder changes both its times, to move the folder itself the second alone.
        if moved and (is_link or found.st_ctime_ns > found.st_mtime_ns):
            since = max(since, found.st_ctime_ns)
        if not is_link:
            continue
        links += 1
        if links > _MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(folder))
        leads = current.readlink()
        rest = [*(leads.parts[1:] if leads.is_absolute() else leads.parts), *rest]
        current = Path(leads.anchor) if leads.is_absolute() else current.parent
    return current, since
