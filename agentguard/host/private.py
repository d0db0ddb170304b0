"""Folders and files that nobody else may touch: keys, evidence, the ends of runs."""

from __future__ import annotations

import errno
import os
import stat
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_WRITABLE: Final = stat.S_IWGRP | stat.S_IWOTH
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
_BYTES: Final = 4096

FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))
"""What the system says where there is no room for a file."""

# What to do about it, where the system's own word leaves that open.
_FIXES: Final = {
    errno.EROFS: "mount a volume that can be written, and name a folder on it",
    errno.ENOSPC: "make room, or name a folder on another disk",
    errno.EDQUOT: "make room, or name a folder on another disk",
    errno.EEXIST: "name a folder, not a file",
    errno.ENOTDIR: "name a folder, not a file",
}
_FIX: Final = "name a folder that this process may write to"


def private_folder(folder: Path) -> None:
    """Make a folder for us alone, and make sure that it can be written to.

    Args:
        folder: Its absolute path.

    Raises:
        ConfigurationError: It is not a folder, others could write to it, or we cannot.
    """
    try:
        # What lies above it is nobody else's to write either, whatever the umask says.
        for above in reversed(folder.parents):
            if not above.exists():
                above.mkdir(mode=0o755, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.stat()
        # Trying is the only test that also sees a read-only mount and a full disk.
        probe = folder / f".{uuid.uuid4().hex}"
        file = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(file, b"probe")
        finally:
            os.close(file)
            probe.unlink()
    except OSError as error:
        raise cannot_write(folder, error) from error
    if found.st_uid not in {0, os.geteuid()}:
        message = f"`{folder}` wants a folder that is ours, got one of user {found.st_uid}: name another folder"
        raise ConfigurationError(message)
    if found.st_mode & _WRITABLE:
        mode = stat.S_IMODE(found.st_mode)
        message = (
            f"`{folder}` wants a folder that nobody else can write to, got mode {mode:o}: "
            "chmod 700, or name a folder below it"
        )
        raise ConfigurationError(message)


def cannot_write(folder: Path, error: OSError) -> ConfigurationError:
    """Return the mistake that a folder which cannot be written to is."""
    what = os.strerror(error.errno or 0)
    return ConfigurationError(f"`{folder}` cannot be written to: {what}: {_FIXES.get(error.errno or 0, _FIX)}")


def private_bytes(path: Path, make: Callable[[], bytes]) -> bytes:
    """Return what a secret file holds; made once, whole, if it is not there.

    Args:
        path: The file, in a folder that `private_folder` passed.
        make: Gives what a new file is to hold.

    Raises:
        ConfigurationError: It is not ours alone, or cannot be read or made.
    """
    try:
        with suppress(FileNotFoundError):
            return _read(path)
        _make(path, make())
        return _read(path)
    except OSError as error:
        message = f"`{path}` cannot be read or made: {os.strerror(error.errno or 0)}: it wants to be a file of ours"
        raise ConfigurationError(message) from error


def _read(path: Path) -> bytes:
    # Neither through a link nor from a pipe, which would wait for a writer.
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:  # noqa: PTH123  the descriptor is what is checked
        found = os.fstat(file)
        if found.st_uid != os.geteuid():
            message = f"`{path}` wants a file that is ours, got one of user {found.st_uid}: move it away"
            raise ConfigurationError(message)
        if found.st_mode & _OTHERS:
            mode = stat.S_IMODE(found.st_mode)
            message = (
                f"`{path}` wants a file that nobody else can open, got mode {mode:o}: others may have read it, "
                "so move it away for a new one, or chmod 600"
            )
            raise ConfigurationError(message)
        return opened.read(_BYTES)


def read_small(path: Path) -> bytes:
    """Return what a small file holds, and never wait for it.

    Raises:
        OSError: It cannot be read, is a pipe or a device, or has no end in sight.
    """
    file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(file, "rb") as opened:  # noqa: PTH123  the descriptor is what is checked
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "it is not a file", str(path))
        content = opened.read(_BYTES + 1)
    if len(content) > _BYTES:
        raise OSError(errno.EFBIG, os.strerror(errno.EFBIG), str(path))
    return content


def _make(path: Path, content: bytes) -> None:
    """Make a file that appears whole, or not at all where another process was first."""
    new = path.with_name(f".{uuid.uuid4().hex}")
    try:
        write_whole(new, content)
        # A link never replaces what is there, as a rename would.
        with suppress(FileExistsError):
            os.link(new, path)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(path.parent)


def replace(path: Path, content: bytes) -> None:
    """Put a file in another's place: at any moment there is the old one or the new one, whole.

    Raises:
        OSError: It cannot be written.
    """
    new = path.with_name(f".{uuid.uuid4().hex}")
    try:
        write_whole(new, content, sync=False)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def write_whole(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write a new file that nobody else can open.

    Raises:
        OSError: It exists, or cannot be written.
    """
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with open(file, "wb") as opened:  # noqa: PTH123  made with its mode, not given it after
        opened.write(content)
        opened.flush()
        if sync:
            os.fsync(file)


def sync_folder(folder: Path) -> None:
    """Make a new file's name as lasting as the file.

    Raises:
        OSError: The disk failed.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(place)
    finally:
        os.close(place)
