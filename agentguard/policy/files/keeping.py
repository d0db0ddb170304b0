"""One policy folder, as it was read when what is in force was read, and as it is now.

A guard starts with what is there, since there is nothing else; a manifest has to match
all the same. From then on only what arrived whole is taken: a folder with a manifest that
matches, or one that was put in the place of the one that was read. What is changed where
it stands is never taken, for between two of its files it is neither the old nor the new.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from agentguard.errors import PolicyError
from agentguard.policy.files.folder import NO_POLICIES, read_home
from agentguard.policy.files.manifest import misfit
from agentguard.policy.files.several import COMMON, home_of, is_for_several, split
from agentguard.policy.files.source import survey_snapshot
from agentguard.policy.problem import refused

if TYPE_CHECKING:
    from pathlib import Path

    from agentguard.limits import Limits
    from agentguard.policy.files.arrival import Place
    from agentguard.policy.files.folder import Snapshot
    from agentguard.policy.files.source import PolicySource
    from agentguard.policy.problem import Problem

Files = tuple[tuple[str, str], ...]
"""The text of every file that decides, by name."""

# Whoever replaces it does not do so all the time.
_MOST_TRIES: Final = 3


class Refused(StrEnum):
    """Why what a policy folder holds is not taken. The list is closed."""

    INCOMPLETE = "incomplete"
    INVALID = "invalid"
    UNREADABLE = "unreadable"
    UNRECORDED = "unrecorded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What a policy folder holds now.

    Attributes:
        source: What it holds, if that may be taken, or is in force.
        is_new: Whether it is something else than what is in force.
        place: Where it is, if it could be read.
        refused: Why it may not be taken; None if it may.
        problems: What to mend, a line each.
    """

    source: PolicySource | None = None
    is_new: bool = False
    place: Place | None = None
    refused: Refused | None = None
    problems: tuple[str, ...] = ()


class PolicyFolder:
    """A policy folder of one guard.

    Args:
        folder: Its absolute path, or that of one server's part of it.
        limits: The bounds.

    Attributes:
        folder: Its absolute path.

    Raises:
        PolicyError: It cannot be read, or its manifest does not match it; or it is for
            several servers, and what they share cannot be used.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        # Once: a part whose `common/` is taken away does not become a folder that never had one.
        self._home = home_of(folder.absolute())
        self._limits = limits
        self._server: str | None = None
        self._snapshot = _steady(*self._home)
        self.folder = self._snapshot.folder
        # What was read last, as policies or why it is none: somebody looks every few seconds.
        self._read: tuple[Files, PolicySource | PolicyError] | None = None
        if (why := _unlike(self._snapshot)) is not None:
            raise PolicyError([why])
        if self._is_for_several:
            problems = [problem for problem in self._common() if problem.name != NO_POLICIES]
            if problems:
                raise refused(problems).within(self._snapshot.folder)
        else:
            self.source_for(None)

    @property
    def _is_for_several(self) -> bool:
        return self._snapshot.server is None and is_for_several(self._snapshot.files)

    def _common(self) -> list[Problem]:
        common = {name: text for name, text in self._snapshot.files.items() if split(name)[0] == COMMON}
        _, problems = survey_snapshot(replace(self._snapshot, files=common, problems=[]), self._limits)
        return problems

    def source_for(self, server: str | None) -> PolicySource:
        """Return what the folder holds for *server*, which is the one from now on.

        Raises:
            PolicyError: That cannot be used.
        """
        self._server = server
        files, _ = self._snapshot.part(server)
        source = self._policies(self._snapshot, tuple(files.items()))
        if isinstance(source, PolicyError):
            raise source
        self._in_force, self._place = source, self._snapshot.place
        self._came: tuple[Place, Files, bool] = (self._place, source.files, True)
        return source

    def _policies(self, snapshot: Snapshot, files: Files) -> PolicySource | PolicyError:
        """Return what *files* of a snapshot hold, or why that is nothing to judge by."""
        if self._read is None or self._read[0] != files:
            try:
                found: PolicySource | PolicyError = _source_of(snapshot, self._limits, self._server)
            except PolicyError as error:
                found = error
            self._read = files, found
        return self._read[1]

    def look(self) -> Look:
        """Look what it holds now; what may be taken is not in force before `took` says so."""
        try:
            snapshot = _steady(*self._home)
        except PolicyError as error:
            return Look(refused=Refused.UNREADABLE, problems=error.problems)
        files, problems = snapshot.part(self._server)
        place, now = snapshot.place, tuple(files.items())
        # What could not be read, as before Kubernetes gives it away, was not seen. That there was nothing was.
        if all(problem.name == NO_POLICIES for problem in problems) and not self._came[0].is_at(place):
            self._came = place, now, place.came_whole(snapshot.written_at)
        _, arrived, whole = self._came
        if problems:
            mended = refused(problems).within(snapshot.folder).problems
            return Look(place=place, refused=Refused.UNREADABLE, problems=mended)
        if _has_common(self._in_force.files) and not _has_common(now):
            what = (
                f"policy folder `{snapshot.folder}` has nothing in {COMMON}/ any more, which judged every server: "
                "put it back, or start the server again without it"
            )
            return Look(place=place, refused=Refused.INCOMPLETE, problems=(what,))
        is_new = now != self._in_force.files
        if (why := _unlike(snapshot)) is None and is_new and snapshot.manifest is None:
            # Another mode or owner makes it look moved, but not what was seen before that.
            whole = whole and place.came_whole(snapshot.written_at)
            why = self._unfinished(snapshot, edited=place.is_at(self._place) or arrived != now, whole=whole)
        if why is not None:
            return Look(place=place, refused=Refused.INCOMPLETE, problems=(why,))
        source = self._policies(snapshot, now) if is_new else self._in_force
        if isinstance(source, PolicyError):
            return Look(place=place, refused=Refused.INVALID, problems=source.problems)
        return Look(source=source, is_new=is_new, place=place)

    def took(self, look: Look) -> None:
        """Take what was looked at for what is in force."""
        if look.source is not None and look.place is not None:
            self._in_force, self._place = look.source, look.place

    @staticmethod
    def _unfinished(snapshot: Snapshot, *, edited: bool, whole: bool) -> str | None:
        """Return why a folder without a manifest may not be all there; None if it came in one step."""
        folder = snapshot.folder
        fix = f"run `agentguard lock {folder}` when all of it is there, or put another folder or link in its place"
        if edited:
            return (
                f"policy folder `{folder}` was changed where it stands, so nobody can tell what is still to come: {fix}"
            )
        if not whole:
            return f"policy folder `{folder}` was written where it stands, or since it was put there: {fix}"
        return None


class FixedFolder:
    """A policy folder that was read for what it says of types, by a guard that judges nothing."""

    def __init__(self, folder: Path, source: PolicySource) -> None:
        self.folder = folder
        self._source = source

    def source_for(self, _server: str | None) -> PolicySource:
        """Return what was read."""
        return self._source

    def look(self) -> Look:
        """Return the same."""
        return Look(source=self._source)

    def took(self, look: Look) -> None:
        """Take nothing."""


def _steady(folder: Path, server: str | None) -> Snapshot:
    """Return a folder as it was read while nobody put another one in its place.

    Raises:
        PolicyError: It cannot be read, or is replaced all the time.
    """
    for _ in range(_MOST_TRIES):
        snapshot = read_home(folder, server)
        if not snapshot.moved:
            return snapshot
    what = f"policy folder `{folder}` was replaced {_MOST_TRIES} times while it was read: let it rest"
    raise PolicyError([what])


def _unlike(snapshot: Snapshot) -> str | None:
    """Return why a folder is not what its manifest says, with the fix."""
    why = None if snapshot.manifest is None else misfit(snapshot.manifest, snapshot.files)
    if why is None:
        return None
    return f"{snapshot.folder}/{why}: run `agentguard lock {snapshot.folder}` when all of it is there"


def _has_common(files: Files) -> bool:
    return any(split(name)[0] == COMMON for name, _ in files)


def _source_of(snapshot: Snapshot, limits: Limits, server: str | None) -> PolicySource:
    source, problems = survey_snapshot(snapshot, limits, server)
    if problems:
        raise refused(problems).within(snapshot.folder)
    return source
