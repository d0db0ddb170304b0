"""Read the files of a policy folder, and nothing outside of it.

A folder may be a Kubernetes ConfigMap: there every file is a link into a folder whose
name begins with a dot, and which is replaced as a whole. So it is that folder that is
read. Other names that begin with a dot are skipped, and links are followed as long as
they stay inside.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.policy.files.arrival import DATA, changed, place_of, written
from agentguard.policy.files.manifest import MANIFEST
from agentguard.policy.files.several import COMMON, NO_SUCH_SERVER, SERVERS, files_for, home_of, is_for_several, split
from agentguard.policy.problem import Problem, refused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.policy.files.arrival import Place

POLICY_SUFFIX: Final = ".cedar"
SCHEMA_SUFFIX: Final = ".cedarschema"
TYPES: Final = "types"
ENTITIES: Final = "cedarentities.json"
# The guard makes its own from the tools, so a stale copy decides nothing.
WRITTEN: Final = "agentguard.cedarschema"
"""The complete schema that is written beside the policies, for editors and commands."""

NO_POLICIES: Final = "no-policies"
"""What the problem is called of a folder that allows nothing."""

# Holds policies that are not in force yet.
_NEXT: Final = "next"
_UNREADABLE: Final = "unreadable-file"
_MISPLACED: Final = "misplaced-file"
# What nobody writes by hand, or reads again every few seconds.
_MOST_BYTES: Final = 32 * 1024 * 1024
_MOST_FILES: Final = 10_000
_CHUNK: Final = 64 * 1024


def read_files(folder: Path, server: str | None = None) -> dict[str, str]:
    """Return the text of every file that decides, by its name relative to *folder*.

    Raises:
        PolicyError: If the folder cannot be read, or holds something that looks as if it
            decided and would not.
    """
    files, problems = survey_files(folder, server)
    if problems:
        raise refused(problems)
    return files


def survey_files(folder: Path, server: str | None = None) -> tuple[dict[str, str], list[Problem]]:
    """Return the text of every file that decides and can be read, and what is wrong with the others.

    Args:
        folder: The folder; where it is for several servers, that or the part of one.
        server: The server, where the folder is for several.

    Raises:
        PolicyError: If the folder itself cannot be read.
    """
    return read_snapshot(folder).part(server)


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """A policy folder as it was read, once.

    Attributes:
        folder: Its absolute path, the top of it where it is for several servers.
        server: Whose part of it was asked for, if one was.
        files: The text of every file that decides and can be read, by name, sorted.
        problems: What is wrong with the others.
        manifest: The text of its manifest; None if it has none.
        place: Where it was before it was read.
        moved: Whether it was somewhere else after that, or had been in between.
        written_at: When something in it was last written, nanoseconds.
    """

    folder: Path
    server: str | None
    files: dict[str, str]
    problems: list[Problem]
    manifest: str | None
    place: Place
    moved: bool
    written_at: int

    def part(self, server: str | None = None) -> tuple[dict[str, str], list[Problem]]:
        """Return what decides for one server, and what is wrong with it."""
        # What stands at the top is nothing of a part that was asked for.
        if not (is_for_several(self.files) or (self.files and self.server is not None)):
            problems = list(self.problems)
            files = self.files
        else:
            server = self.server or server
            known = {"", COMMON, f"{SERVERS}/{server}"}
            problems = [problem for problem in self.problems if split(problem.file)[0] in known]
            try:
                files = files_for(self.files, server)
            except LookupError as error:
                what = f"policy folder `{self.folder}` {error}"
                return {}, [*problems, Problem("", 0, what, name=NO_SUCH_SERVER)]
        if not problems and not any(_is(name, POLICY_SUFFIX) for name in files):
            what = f"policy folder `{self.folder}` holds no {POLICY_SUFFIX} file, so nothing could be allowed: add one"
            problems.append(Problem("", 0, what, name=NO_POLICIES))
        return dict(files), problems


def read_snapshot(folder: Path) -> Snapshot:
    """Read a policy folder, all of it.

    Raises:
        PolicyError: If the folder itself cannot be read.
    """
    return read_home(*home_of(folder.absolute()))


def read_home(absolute: Path, server: str | None) -> Snapshot:
    """Read a policy folder from where it is known to begin, whatever else is there by now.

    Args:
        absolute: Its absolute path, the top of it where it is for several servers.
        server: Whose part of it is asked for, if one is.

    Raises:
        PolicyError: If the folder itself cannot be read.
    """
    try:
        place = place_of(absolute)
        reader = _Reader(place)
        reader.read()
        after = place_of(absolute)
        # What was moved away and back is where it was, and something else was read in between.
        moved = not after.is_at(place) or after.since > place.since
    except FileNotFoundError:
        what = f"policy folder `{absolute}` does not exist: create it, or pass the path it has"
    except NotADirectoryError:
        what = f"policy folder `{absolute}` is a file: pass the folder that it is in"
    except (OSError, RuntimeError, ValueError) as error:
        what = f"policy folder `{absolute}` cannot be read: {_why(error)}"
    else:
        return Snapshot(
            folder=absolute,
            server=server,
            files=reader.files,
            problems=reader.problems,
            manifest=reader.manifest,
            place=place,
            moved=moved,
            written_at=reader.written_at,
        )
    raise refused([Problem("", 0, what, name="no-folder")])


def read_written(folder: Path) -> str | None:
    """Return the text of the schema that was written into *folder*; None if there is none.

    Raises:
        PolicyError: If it cannot be read.
    """
    try:
        return _content(folder.absolute().resolve(strict=True), WRITTEN)[0]
    except FileNotFoundError:
        return None
    except _UnfitError as error:
        problem = Problem(WRITTEN, error.line, str(error), name=error.name)
    except (OSError, RuntimeError, ValueError) as error:
        problem = Problem(WRITTEN, 0, f"cannot be read: {_why(error)}", name=_UNREADABLE)
    raise refused([problem])


class _UnfitError(Exception):
    """A file that may not stay as it is; the message says what to do."""

    def __init__(self, what: str, name: str, line: int = 0) -> None:
        super().__init__(what)
        self.name = name
        self.line = line


@dataclass(slots=True)
class _Reader:
    """What one reading of a folder comes to; see `Snapshot`."""

    place: Place
    files: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    manifest: str | None = None
    written_at: int = -1

    def read(self) -> None:
        """Read every file, the manifest first: what is written after that it cannot describe.

        Raises:
            OSError: The folder itself cannot be read.
        """
        root = self.place.root
        names = sorted(_names(root))
        if len(names) > _MOST_FILES:
            what = f"has more than {_MOST_FILES:,} files that decide: put several policies into one file"
            self.problems.append(Problem("", 0, f"policy folder `{self.place.outer}` {what}", name="past-limit"))
            return
        self._read_manifest()
        several = is_for_several(names)
        for name in names:
            self._try(name, several=several)
        # After all that, so that what was written meanwhile shows.
        self._wrote(written(root.stat()))
        for above in {(root / name).parent for name in names} - {root}:
            self._wrote(self._when(above.stat()))
        self._strays(names)

    def _wrote(self, at: int) -> None:
        self.written_at = max(self.written_at, at)

    def _when(self, found: os.stat_result) -> int:
        # Kubernetes gives the files of a ConfigMap away when they are in their place, and copies no times.
        return changed(found) if self.place.outer == self.place.root else written(found)

    def _read_manifest(self) -> None:
        try:
            self.manifest = _content(self.place.root, MANIFEST)[0]
        except FileNotFoundError:
            return
        except _UnfitError as error:
            self.problems.append(Problem(MANIFEST, error.line, str(error), name=error.name))
        except (OSError, RuntimeError) as error:
            self.problems.append(Problem(MANIFEST, 0, f"cannot be read: {_why(error)}", name=_UNREADABLE))

    def _try(self, name: str, *, several: bool) -> None:
        try:
            _check_link(self.place.root, name)
            _check_place(name, several=several)
            text, found = _content(self.place.root, name)
        except _UnfitError as error:
            self.problems.append(Problem(name, error.line, str(error), name=error.name))
        except (OSError, RuntimeError) as error:
            self.problems.append(Problem(name, 0, f"cannot be read: {_why(error)}", name=_UNREADABLE))
        else:
            self.files[name] = text
            self._wrote(self._when(found))

    def _strays(self, names: list[str]) -> None:
        """Refuse what lies beside the files of a ConfigMap, where nothing replaces it together with them."""
        outer = self.place.outer
        if outer == self.place.root:
            return
        known = set(names)
        for name in sorted(_names(outer)):
            top = outer / name.partition("/")[0]
            # A link into the data folder may be there a moment longer than what it leads to.
            if name not in known and not (top.is_symlink() and top.readlink().parts[:1] == (DATA,)):
                what = f"stands beside `{DATA}`, which alone is read: put it there, or into a folder of your own"
                self.problems.append(Problem(name, 0, what, name=_MISPLACED))


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "a link leads back to itself"


def _is(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix)


def _names(root: Path) -> Iterator[str]:
    """Yield the name of every file that decides, or that looks as if it did."""
    for name in _all_names(root):
        _, own = split(name)
        if own.partition("/")[0] not in {_NEXT, WRITTEN}:
            yield name


def _all_names(root: Path) -> Iterator[str]:
    whole = root.resolve()
    for entry in root.iterdir():
        if entry.name.startswith(".") or entry.name in {_NEXT, WRITTEN}:
            continue
        if os.path.isdir(entry):  # noqa: PTH112  `Path.is_dir` raises for a link to itself
            if not entry.resolve().is_relative_to(whole):
                # It may lead to all of the disk.
                yield entry.name
                continue
            unlisted: list[OSError] = []
            for path, folders, files in os.walk(entry, onerror=unlisted.append):
                folders[:] = [folder for folder in folders if not folder.startswith(".")]
                below = Path(path).relative_to(root)
                if entry.name in {TYPES, COMMON, SERVERS}:
                    # Nobody walks through a link further down, so what is behind it would be missed.
                    yield from ((below / folder).as_posix() for folder in folders if Path(path, folder).is_symlink())
                yield from ((below / file).as_posix() for file in files if _decides(file))
            if entry.name in {TYPES, COMMON, SERVERS}:
                # What nobody can look into may hold every forbid.
                yield from (f"{Path(error.filename).relative_to(root).as_posix()}/" for error in unlisted)
        elif _decides(entry.name):
            yield entry.name


def _decides(name: str) -> bool:
    shown = not name.startswith(".")
    return shown and (_is(name, POLICY_SUFFIX) or _is(name, SCHEMA_SUFFIX) or name == ENTITIES)


def _check_link(root: Path, name: str) -> None:
    """Pass only what is no link to a folder, and no folder that could not be listed.

    Raises:
        _UnfitError: It is one.
    """
    if name.endswith("/"):
        message = "cannot be listed: let whoever runs the server read this folder"
        raise _UnfitError(message, _UNREADABLE)
    if os.path.isdir(root / name):  # noqa: PTH112  as above
        path = (root / name).resolve()
        what = "to" if path.is_relative_to(root) else "out of the policy folder, to"
        message = f"is a link {what} `{path}`: put the folder itself here"
        raise _UnfitError(message, "link-outside")


def _check_place(name: str, *, several: bool) -> None:
    """Pass only a file that is where such files are read from.

    Raises:
        _UnfitError: It is out of place.
    """
    part, own = split(name) if several else ("", name)
    if several and not part:
        message = (
            f"is not read from here: this folder is for several servers, so move it to {COMMON}/ or {SERVERS}/NAME/"
        )
        raise _UnfitError(message, _MISPLACED)
    if own.rpartition("/")[0] != (TYPES if _is(name, SCHEMA_SUFFIX) else ""):
        place = f"`{TYPES}/`" if _is(name, SCHEMA_SUFFIX) else f"the top, or into `{_NEXT}/` if it is not in force yet"
        message = f"is not read from here: move it to {place}"
        raise _UnfitError(message, _MISPLACED)


def _content(root: Path, name: str) -> tuple[str, os.stat_result]:
    """Return the text of one file, and what the system says of it.

    Raises:
        _UnfitError: If it is out of place, or not text.
        OSError: If it cannot be read.
    """
    path = (root / name).resolve(strict=True)
    if not path.is_relative_to(root):
        message = f"is a link out of the policy folder, to `{path}`: put the file itself here"
        raise _UnfitError(message, "link-outside")
    # Not blocking: opening a pipe would wait for its other end. Not following: the path
    # may have become a link since it was resolved.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = "is no regular file: put a file here"
            raise _UnfitError(message, _UNREADABLE)
        # Not by its size, which is another one by now if somebody writes.
        content = b"".join(iter(lambda: file.read(min(_CHUNK, _MOST_BYTES + 1 - file.tell())), b""))
        found = os.fstat(descriptor)
    if len(content) > _MOST_BYTES:
        message = f"is larger than {_MOST_BYTES // 1024 // 1024} MiB: split it, or take out what no policy needs"
        raise _UnfitError(message, "past-limit")
    try:
        return content.decode(), found
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8, from byte {error.start} on: save it as UTF-8"
        raise _UnfitError(message, "not-utf8", line) from None
