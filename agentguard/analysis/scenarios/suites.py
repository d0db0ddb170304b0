"""Scenarios: calls that somebody supposes, in files beside the policies, and whether they come out as expected."""

from __future__ import annotations

import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from agentguard.analysis.scenarios.cases import Case, CaseResult, Expectation, Explained, Suite
from agentguard.analysis.scenarios.scenariofile import NAME, read_suite
from agentguard.analysis.scenarios.yamltext import MOST_BYTES
from agentguard.analysis.supposed import suppose
from agentguard.errors import PolicyError
from agentguard.policy.files.several import COMMON, SERVERS, servers_of
from agentguard.policy.problem import Problem, refused

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from agentguard.analysis.workspace import Workspace

__all__ = [
    "Case",
    "CaseResult",
    "Expectation",
    "Explained",
    "Suite",
    "find_suites",
    "misnamed_suites",
    "open_suites",
    "run",
    "run_case",
]

SUFFIXES: Final = (".test.yaml", ".test.yml")
_YAML: Final = frozenset((".yaml", ".yml"))
_SCENARIOS: Final = re.compile(rb"^scenarios[ \t]*:", re.MULTILINE)
_LOOKED_AT: Final = 64 * 1024
"""What the name of a file of scenarios ends with."""

# Holds policies that are not in force yet.
_NEXT: Final = "next"
# Past that, a link leads somewhere that is no policy folder.
_MOST_FOLDERS: Final = 10_000


def find_suites(folder: Path, server: str | None = None) -> tuple[Path, ...]:
    """Return the files of scenarios of a policy folder, sorted.

    Those of ``next/`` are about other policies, and are left out. Links to folders are
    followed, to each folder once.

    Args:
        folder: The folder.
        server: Whose scenarios, where it is for several: what they share, and its own.

    Raises:
        PolicyError: A folder in it cannot be looked into, or there are too many.
    """
    parts = [folder] if server is None else [folder / COMMON, folder / SERVERS / server]
    return tuple(sorted(path for part in parts for path in _files_in(part) if is_suite(path.name)))


def misnamed_suites(workspace: Workspace) -> list[Path]:
    """Return the files of a policy folder that look like scenarios and are not called so: nobody runs them."""
    found = []
    for path in sorted(_files_in(workspace.folder)):
        if path.suffix.lower() in _YAML and not is_suite(path.name) and not path.name.startswith("."):
            # What cannot be read is nobody's scenario.
            with suppress(OSError):
                descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
                with os.fdopen(descriptor, "rb") as file:
                    if _SCENARIOS.search(file.read(_LOOKED_AT)):
                        found.append(path)
    return found


def _files_in(folder: Path) -> Iterator[Path]:
    seen = {os.path.realpath(folder / _NEXT)}
    pending = [folder] if folder.is_dir() else []
    while pending:
        above = pending.pop()
        real = os.path.realpath(above)
        if real in seen:
            continue
        seen.add(real)
        name = above.relative_to(folder).as_posix()
        if len(seen) > _MOST_FOLDERS:
            raise _refused(name, f"is one folder too many: more than {_MOST_FOLDERS:,} are not looked into")
        try:
            entries = sorted(above.iterdir())
        except OSError as error:
            raise _refused(name, f"cannot be looked into for scenarios: {error.strerror}") from None
        for entry in entries:
            if os.path.isdir(entry) and not entry.name.startswith("."):  # noqa: PTH112  `Path.is_dir` raises for a link to itself
                pending.append(entry)
            else:
                yield entry


def is_suite(name: str) -> bool:
    """Whether a file is one of scenarios, by its name, however that is written."""
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


def open_suites(workspace: Workspace, paths: Iterable[Path] | None = None) -> tuple[Suite, ...]:
    """Read the files of scenarios of a workspace.

    Args:
        workspace: The policies.
        paths: The files; all that are in the policy folder if left out.

    Raises:
        PolicyError: Something is wrong with some of them; all mistakes are told.
    """
    suites: list[Suite] = []
    problems: list[Problem] = []
    if paths is None:
        paths = find_suites(workspace.folder, next(iter(servers_of(dict(workspace.source.files))), None))
    for path in paths:
        file = path.relative_to(workspace.folder).as_posix() if path.is_relative_to(workspace.folder) else str(path)
        try:
            suites.append(read_suite(workspace, file, read_text(path, file)))
        except PolicyError as error:
            problems += error.found
    if problems:
        raise refused(problems)
    return tuple(suites)


def read_text(path: Path, file: str) -> str:
    """Return a file's text; nothing is waited for, and no more is read than a file of scenarios may hold.

    Args:
        path: Where it is.
        file: What it is called, for messages.

    Raises:
        PolicyError: It is no regular file of bounded size, or no text.
    """
    try:
        # Not blocking: opening a pipe would wait for its other end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise _refused(file, "is no regular file: put a file here")
            content = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise _refused(file, f"cannot be read: {error.strerror}") from None
    if len(content) > MOST_BYTES:
        raise _refused(file, f"is larger than {MOST_BYTES} bytes: split it")
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise _refused(file, f"is not UTF-8, from byte {error.start} on: save it as UTF-8", line) from None


def _refused(file: str, what: str, line: int = 0) -> PolicyError:
    return refused([Problem(file, line, what, name=NAME)])


def run(workspace: Workspace, suite: Suite) -> list[CaseResult]:
    """Judge every case of a file, in order."""
    return [run_case(workspace, case) for case in suite.cases]


def run_case(workspace: Workspace, case: Case) -> CaseResult:
    """Judge one case."""
    return CaseResult(case=case, got=suppose(workspace, case.call))
