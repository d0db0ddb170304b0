"""Read the files of a policy folder, and nothing outside of it.

A folder may be a Kubernetes ConfigMap: there every file is a link into a folder whose
name begins with a dot. So such names are skipped, and links are followed as long as they
stay inside.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.errors import PolicyError
from agentguard.policy.reader import Problem

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY_SUFFIX: Final = ".cedar"
SCHEMA_SUFFIX: Final = ".cedarschema"
TYPES: Final = "types"
ENTITIES: Final = "cedarentities.json"
# The complete schema that is written beside the policies for editors. The guard makes
# its own from the tools, so a stale copy decides nothing.
_FOR_EDITORS: Final = "agentguard.cedarschema"
# Holds policies that are not in force yet.
_NEXT: Final = "next"


def read_files(folder: Path) -> dict[str, str]:
    """Return the text of every file that decides, by its name relative to *folder*.

    Raises:
        PolicyError: If the folder cannot be read, or holds something that looks as if it
            decided and would not.
    """
    absolute = folder.absolute()
    try:
        root = absolute.resolve(strict=True)
        names = sorted(_names(root))
    except FileNotFoundError:
        raise PolicyError([f"policy folder `{absolute}` does not exist: create it, or pass the path it has"]) from None
    except NotADirectoryError:
        message = f"policy folder `{absolute}` is a file: pass the folder that it is in"
        raise PolicyError([message]) from None
    except (OSError, RuntimeError, ValueError) as error:
        raise PolicyError([f"policy folder `{absolute}` cannot be read: {_why(error)}"]) from None
    files: dict[str, str] = {}
    problems: list[Problem] = []
    for name in names:
        try:
            files[name] = _read(root, name)
        except _UnfitError as error:
            problems.append(Problem(name, error.line, str(error)))
        except (OSError, RuntimeError) as error:
            problems.append(Problem(name, 0, f"cannot be read: {_why(error)}"))
    if problems:
        raise PolicyError([str(problem) for problem in problems])
    if not any(_is(name, POLICY_SUFFIX) for name in files):
        message = f"policy folder `{absolute}` holds no {POLICY_SUFFIX} file, so nothing could be allowed: add one"
        raise PolicyError([message])
    return files


class _UnfitError(Exception):
    """A file that may not stay as it is; the message says what to do."""

    def __init__(self, what: str, line: int = 0) -> None:
        super().__init__(what)
        self.line = line


def _why(error: Exception) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or "a link leads back to itself"


def _is(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix)


def _names(root: Path) -> Iterator[str]:
    """Yield the name of every file that decides, or that looks as if it did."""
    for entry in root.iterdir():
        if entry.name.startswith(".") or entry.name in {_NEXT, _FOR_EDITORS}:
            continue
        if os.path.isdir(entry):  # noqa: PTH112  `Path.is_dir` raises for a link to itself
            for path, folders, files in os.walk(entry):
                folders[:] = [folder for folder in folders if not folder.startswith(".")]
                below = Path(path).relative_to(root)
                yield from ((below / file).as_posix() for file in files if _decides(file))
        elif _decides(entry.name):
            yield entry.name


def _decides(name: str) -> bool:
    shown = not name.startswith(".")
    return shown and (_is(name, POLICY_SUFFIX) or _is(name, SCHEMA_SUFFIX) or name == ENTITIES)


def _read(root: Path, name: str) -> str:
    """Return the text of one file.

    Raises:
        _UnfitError: If it is out of place, or not text.
        OSError: If it cannot be read.
    """
    folder = name.rpartition("/")[0]
    if folder != (TYPES if _is(name, SCHEMA_SUFFIX) else ""):
        place = f"`{TYPES}/`" if _is(name, SCHEMA_SUFFIX) else f"the top, or into `{_NEXT}/` if it is not in force yet"
        message = f"is not read from here: move it to {place}"
        raise _UnfitError(message)
    path = (root / name).resolve(strict=True)
    if not path.is_relative_to(root):
        message = f"is a link out of the policy folder, to `{path}`: put the file itself here"
        raise _UnfitError(message)
    # Not blocking: opening a pipe would wait for its other end. Not following: the path
    # may have become a link since it was resolved.
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            message = "is no regular file: put a file here"
            raise _UnfitError(message)
        content = file.read()
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        message = f"is not UTF-8, from byte {error.start} on: save it as UTF-8"
        raise _UnfitError(message, line) from None
