"""Take what is saved in a policy folder, for whoever edits it where it is.

The guard takes what arrived whole and nothing else, here as anywhere. So the folder is
locked each time that what was saved can be read: with one person and one machine, that is
as good as being done. What half a change permits until the other half is saved too is
permitted to nobody but that person.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from agentguard.adapters.again import Bell
from agentguard.cli.output import say
from agentguard.errors import PolicyError
from agentguard.host.private import cannot_write
from agentguard.live.prompting import PAUSE_SECONDS
from agentguard.live.watching import Watch
from agentguard.policy.files.folder import read_snapshot
from agentguard.policy.files.manifest import MANIFEST, write_manifest
from agentguard.policy.files.source import survey_snapshot
from agentguard.policy.problem import refused

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence
    from pathlib import Path

    from agentguard.limits import Limits
    from agentguard.live.reloading import Reload
    from agentguard.policy.files.source import PolicySource


_LOG: Final = logging.getLogger("agentguard")


def _is_not_of_reloads(record: logging.LogRecord) -> bool:
    """Return whether a log line is about something else: what becomes of a change is told in a line of our own."""
    return record.module != "reloading"


@dataclass(slots=True)
class Saving:
    """One folder, and what of it is taken.

    Attributes:
        folder: Its absolute path.
        limits: The bounds.
        taken: Told of what is in force from now on.
    """

    folder: Path
    limits: Limits
    taken: Callable[[PolicySource], None]
    _seen: dict[str, str] = field(default_factory=dict)
    _is_refused: bool = False

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep the folder locked within the block; one that had no manifest has none afterwards.

        Raises:
            PolicyError: It cannot be read.
            ConfigurationError: It cannot be written to.
        """
        had = read_snapshot(self.folder).manifest is not None
        self._seen = {}
        self._lock()
        _LOG.addFilter(_is_not_of_reloads)
        try:
            yield
        finally:
            _LOG.removeFilter(_is_not_of_reloads)
            if not had:
                (self.folder / MANIFEST).unlink(missing_ok=True)

    async def take(self, reload: Callable[[], Awaitable[Reload]]) -> None:
        """Take what is saved from now on, for ever."""
        bell = Bell()
        watch = Watch([self.folder], bell.ring, pause=PAUSE_SECONDS)
        watch.start()
        try:
            while True:
                await bell.wait()
                source = await anyio.to_thread.run_sync(self._saved)
                if source is not None:
                    self._tell(source, await reload())
        finally:
            watch.stop()

    def _saved(self) -> PolicySource | None:
        """Lock what was saved, and return it; None if nothing was, or it cannot be read."""
        try:
            return self._lock()
        except PolicyError as error:
            self._refuse(error.problems)
            return None

    def _tell(self, source: PolicySource, done: Reload) -> None:
        if done.refused:
            self._refuse(done.problems)
            return
        if done.loaded:
            self.taken(source)
            say("agentguard: the policies that you saved decide from now on")
        elif self._is_refused:
            say("agentguard: the folder holds again what has decided all the time")
        self._is_refused = False

    def _refuse(self, problems: Sequence[str]) -> None:
        self._is_refused = True
        first, *others = problems
        more = f" (and {len(others)} more)" if others else ""
        say(f"agentguard: what you saved is not taken, and those before still decide: {first}{more}")

    def _lock(self) -> PolicySource | None:
        snapshot = read_snapshot(self.folder)
        if snapshot.files == self._seen:
            return None
        self._seen = snapshot.files
        source, problems = survey_snapshot(snapshot, self.limits)
        if problems:
            raise refused(problems).within(self.folder)
        try:
            write_manifest(self.folder, snapshot.files)
        except OSError as error:
            raise cannot_write(self.folder, error) from error
        return source
