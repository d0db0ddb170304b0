"""What a server's folders lie on, and who can write to them."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

MOUNTS: Final = Path("/proc/self/mountinfo")
"""Where Linux tells what is mounted; see proc(5)."""

_ESCAPED: Final = re.compile(r"\\([0-7]{3})")
_IN_MEMORY: Final = frozenset(("tmpfs", "ramfs"))
_LAYERED: Final = frozenset(("overlay", "aufs", "fuse-overlayfs"))
_EMPTY_DIR: Final = "kubernetes.io~empty-dir"
# Its fields: id, parent, device, root, mount point, options, …, "-", type, source, …
_LEAST_FIELDS: Final = 10
# As many as Linux follows.
_MOST_LINKS: Final = 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Mount:
    """What a folder lies on.

    Attributes:
        point: Where it is mounted.
        type: The type of its file system.
        root: Which folder of that is mounted there.
        source: What is mounted, such as a device.
    """

    point: Path
    type: str
    root: str
    source: str

    @property
    def passing(self) -> str:
        """In what way it goes with the process, the pod or the host; empty if it does not."""
        if _EMPTY_DIR in self.root or _EMPTY_DIR in self.source:
            return "an emptyDir, which is deleted with the pod"
        if self.type in _IN_MEMORY:
            return f"{self.type}, which is memory, and lost when the host or the container stops"
        if self.type in _LAYERED:
            return f"{self.type}, the container's own layer, which is deleted with it"
        return ""


def mount_of(path: Path, mounts: str) -> Mount | None:
    """Return what a path lies on; None if the table does not tell.

    Args:
        path: A path without links in it.
        mounts: The text of `MOUNTS`.
    """
    found = None
    for line in mounts.splitlines():
        fields = line.split(" ")
        if len(fields) < _LEAST_FIELDS or "-" not in fields[6:-2]:
            continue
        end = fields.index("-", 6)
        mount = Mount(
            point=Path(_unescaped(fields[4])), type=fields[end + 1], root=_unescaped(fields[3]), source=fields[end + 2]
        )
        # Of two that are mounted at one place, the later one hides the other.
        if path.is_relative_to(mount.point) and (found is None or mount.point.is_relative_to(found.point)):
            found = mount
    return found


def _unescaped(field: str) -> str:
    return _ESCAPED.sub(lambda match: chr(int(match[1], 8)), field)


def writable(folder: Path, *, user: int, groups: Collection[int]) -> Iterator[Path]:
    """Yield what of a policy folder a user can change: a file, a folder, or one above by which all is exchanged.

    Access lists are not looked at, as their effect shows in the mode of the group.

    Args:
        folder: The policy folder.
        user: The user's number.
        groups: The numbers of all groups that the user is in.
    """
    real = folder.resolve()
    if _can_write(real, user, groups):
        yield real
    # Whoever can exchange a link on the way there leads the server to other policies.
    for entry in (real, *_links(folder)):
        for inner, above in pairwise((entry, *entry.parents)):
            if _can_write(above, user, groups) and _can_exchange(above, inner, user):
                yield above
    for path, folders, files in os.walk(real):
        for name in (*folders, *files):
            inner = Path(path) / name
            # What a link leads to may lie elsewhere; the link itself is its folder's.
            if not inner.is_symlink() and _can_write(inner, user, groups):
                yield inner


def _links(path: Path) -> Iterator[Path]:
    """Yield the links that a path leads over, each by where it really is."""
    pending = [path.absolute()]
    for _ in range(_MOST_LINKS):
        if not pending:
            return
        way = pending.pop()
        for link in (one for one in (way, *way.parents) if one.is_symlink()):
            yield link.parent.resolve() / link.name
            pending.append(link.parent / link.readlink())


def _can_exchange(folder: Path, entry: Path, user: int) -> bool:
    # In a sticky folder such as /tmp, only who owns an entry can exchange it.
    found = folder.stat()
    return not found.st_mode & stat.S_ISVTX or user in {0, found.st_uid, entry.lstat().st_uid}


def _can_write(path: Path, user: int, groups: Collection[int]) -> bool:
    try:
        found = path.stat()
        read_only = os.statvfs(path).f_flag & os.ST_RDONLY
    except OSError:
        return False
    if read_only:
        return False
    # The owner can give themselves the right to write at any time.
    if user in {0, found.st_uid}:
        return True
    return bool(found.st_mode & (stat.S_IWGRP if found.st_gid in groups else stat.S_IWOTH))
