"""A file that holds a run's token for a child process, and is kept fresh.

Mode 0600 in a folder of its own of mode 0700. It is replaced, never written over, so a
reader sees one whole token or the other. The folder goes when the run ends; what a killed
process leaves behind is a token that is over in minutes.
"""

from __future__ import annotations

import logging
import os
import tempfile
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Event, Lock, Thread
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_LOG: Final = logging.getLogger("agentguard")
_NAME: Final = "token"
_NEW: Final = "token.new"
_OVER: Final = frozenset({Reason.EXPIRED, Reason.REVOKED})


class TokenFile:
    """One run's token in a file, written again whenever the token is renewed.

    Args:
        token: Gives the run's token of now; raises `Refusal` once the run is over.
        every: The pause between two looks, seconds. Short, and not the time to the next
            renewal: a machine that slept, or whose clock was set, would oversleep it.
        folder: The folder to make for it, under a name that nobody can guess; one among
            the temporary files if left out.

    Raises:
        Refusal: The run is over.
        OSError: The file could not be written; nothing is left of it.
    """

    __slots__ = ("_every", "_folder", "_held", "_lock", "_removed", "_token", "_warned", "path")

    def __init__(self, token: Callable[[], str], *, every: float = 1.0, folder: Path | None = None) -> None:
        self._token = token
        self._every = every
        self._lock = Lock()
        self._removed = Event()
        self._held = ""
        self._warned = False
        text = token()
        if folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="agentguard-"))  # mode 0700
        else:
            self._folder = folder
            folder.mkdir(mode=0o700)
        self.path = self._folder / _NAME
        try:
            self._write(text)
            # A thread: a blocked event loop must not leave a child without its token.
            Thread(target=self._keep, name="agentguard-token-file", daemon=True).start()
        except BaseException:
            self.remove()
            raise

    def refresh(self) -> None:
        """Write the token if it changed; take the file away if the run is over."""
        try:
            self._write(self._token())
        except Refusal as refusal:
            if refusal.reason in _OVER:
                self.remove()
            else:
                self._warn(refusal.detail)
        # A full disk passes, and the token that is there still holds for a while.
        except Exception as error:  # noqa: BLE001
            self._warn(type(error).__name__)
        else:
            self._warned = False

    def _warn(self, why: str) -> None:
        # Once, not with every look: a store may be away for hours.
        if not self._warned:
            _LOG.warning("the token's file `%s` cannot be renewed now: %s", self.path, why)
        self._warned = True

    def remove(self) -> None:
        """Take the file away for good."""
        with self._lock:
            self._removed.set()
            take_away(self._folder)

    def _keep(self) -> None:
        while not self._removed.wait(self._every):
            self.refresh()

    def _write(self, text: str) -> None:
        with self._lock:
            # A renewal that was under way when the run ended must not bring the file back.
            if self._removed.is_set() or text == self._held:
                return
            with _opened(self._folder) as place:
                with suppress(FileNotFoundError):
                    os.unlink(_NEW, dir_fd=place)
                file = os.open(_NEW, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=place)
                with open(file, "w", encoding="ascii") as opened:  # noqa: PTH123  made with its mode, not given it after
                    opened.write(text)
                os.rename(_NEW, _NAME, src_dir_fd=place, dst_dir_fd=place)
            self._held = text


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open the folder itself: a link in its place would have us write and remove elsewhere."""
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield place
    finally:
        os.close(place)


def take_away(folder: Path) -> None:
    """Take a token's file and its folder away, as far as that is possible.

    Args:
        folder: The folder of the file.
    """
    try:
        with _opened(folder) as place:
            for name in (_NEW, _NAME):
                with suppress(FileNotFoundError):
                    os.unlink(name, dir_fd=place)
        folder.rmdir()
    except FileNotFoundError:
        pass
    # What somebody else put there must not keep the run from being ended in the store.
    except OSError as error:
        _LOG.warning("`%s` cannot be removed: %s", folder, error.strerror)
