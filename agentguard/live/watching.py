"""Notice that a policy folder may have changed: its files, and every link and folder on the way to it.

A folder that is replaced is another one: whoever watches only that sees nothing any more.
So what is watched are the folders in which a name on the way to it stands, and those with
files in them, each for its own entries and under its real name, since the system knows a
folder by one name alone. Where it tells nothing, as of most network file systems, or tells
of neighbours all the time, somebody looks every few seconds all the same.
"""

from __future__ import annotations

import logging
import os
import stat
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

# `watchfiles.watch` begins to watch inside its first wait, and what changed between a look at the
# folder and that would go unnoticed. This class begins when it is made, so the look comes after.
# It is no public name: hence the bound on the dependency.
from watchfiles._rust_notify import RustNotify

from agentguard.policy.files.arrival import way_to

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_LOG: Final = logging.getLogger("agentguard")

# What several writes of one change take together, and how often it is looked for more of them.
_TOGETHER_MS: Final = 400
_STEP_MS: Final = 50


class Watch:
    """Watches policy folders in a thread of its own.

    Args:
        folders: Their absolute paths.
        changed: Called when something may have changed, and at least every *pause* seconds.
        pause: Seconds.
    """

    def __init__(self, folders: Sequence[Path], changed: Callable[[], None], *, pause: float) -> None:
        self._folders = folders
        self._changed = changed
        self._pause = pause
        self._rang_at = time.monotonic()
        self._over = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._run, name="agentguard policies watched", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End it, and wait until it has ended."""
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        told = False
        while not self._over.is_set():
            try:
                watched = watched_for(self._folders)
                with _notify(watched) as notify:
                    # What came before it was watched is noticed now.
                    self._ring()
                    while self._again(notify, watched):
                        pass
            except BaseException as error:  # noqa: BLE001  the thread must outlive a panic of what watches too
                if not told:
                    told = True
                    _LOG.warning("changes of the policy folder are looked for every %g s: %s", self._pause, error)
                self._ring()
                self._over.wait(self._pause)

    def _again(self, notify: RustNotify, watched: Watched) -> bool:
        """Wait for changes once; return whether the same is to be watched still."""
        # Zero would be to wait for ever.
        left = max(1, int((self._rang_at + self._pause - time.monotonic()) * 1_000))
        found = notify.watch(_TOGETHER_MS, _STEP_MS, left, self._over)
        if found == "stop":
            return False
        # A file beside the folder that is written all the time leaves no moment without news.
        is_time = time.monotonic() - self._rang_at >= self._pause
        if isinstance(found, str) or is_time or any(watched.matters(Path(path)) for _, path in found):
            self._ring()
        return watched_for(self._folders) == watched

    def _ring(self) -> None:
        self._rang_at = time.monotonic()
        self._changed()


@dataclass(frozen=True, slots=True)
class Watched:
    """What is watched for a change of policy folders.

    Attributes:
        way: Every name on the way to them: one of these is replaced.
        inner: The folders in which anything matters.
        holding: The folders whose entries are watched for both, each with what tells it from another
            one in its place: that would not be watched.
    """

    way: frozenset[Path]
    inner: frozenset[Path]
    holding: frozenset[tuple[Path, int, int]]

    def matters(self, path: Path) -> bool:
        """Return whether a change of *path* may be one of the folders."""
        return path in self.way or path in self.inner or path.parent in self.inner


def watched_for(folders: Sequence[Path]) -> Watched:
    """Return what has to be watched now to notice any change of *folders*."""
    way = {name for folder in folders for name in way_to(folder)}
    inner: set[Path] = set()
    for folder in folders:
        for path, below, _ in os.walk(os.path.realpath(folder)):
            below[:] = [name for name in below if not name.startswith(".")]
            inner.add(Path(path))
    holding = {*inner, *(name.parent for name in way)}
    return Watched(frozenset(way), frozenset(inner), frozenset(_there(holding)))


def _there(folders: Iterable[Path]) -> Iterator[tuple[Path, int, int]]:
    for folder in folders:
        with suppress(OSError):
            found = folder.stat()
            if stat.S_ISDIR(found.st_mode):
                yield folder, found.st_dev, found.st_ino


def _notify(watched: Watched) -> RustNotify:
    return RustNotify(
        sorted(str(folder) for folder, _, _ in watched.holding),
        debug=False,
        force_polling=False,
        poll_delay_ms=_STEP_MS,
        recursive=False,
        ignore_permission_denied=True,
    )
