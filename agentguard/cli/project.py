"""What a project says of its folders: ``[tool.agentguard]`` in `pyproject.toml`, or `agentguard.toml`.

Only paths stand there. Whoever can change a file above the working folder could otherwise
say whom a server trusts, or have a command load code.
"""

from __future__ import annotations

import os
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.model import printable
from agentguard.policy.problem import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_OWN: Final = "agentguard.toml"
_SHARED: Final = "pyproject.toml"
_TABLE: Final = "[tool.agentguard]"
_KEYS: Final = ("policies", "evidence", "state", "next")
_POLICIES: Final = "policies"
_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """The folders of a project.

    Attributes:
        file: The file that says so.
        folder: The folder that the file is in, and paths are relative to.
        policies: The policy folder.
        evidence: State folders, or the evidence in them.
        state: The state folder of its server.
        next: A policy folder that is not in force yet.
    """

    file: Path
    folder: Path
    policies: Path | None = None
    evidence: tuple[Path, ...] = ()
    state: Path | None = None
    next: Path | None = None


def find_project(start: Path | None = None) -> Project | None:
    """Return the project that *start* is in, or None if no file says anything of it.

    The search goes up to the root of a repository, or of the file system.

    Args:
        start: A folder; the working folder if left out.

    Raises:
        ConfigurationError: A file cannot be read, or says anything but paths.
    """
    start = Path.cwd() if start is None else start.absolute()
    for folder in (start, *start.parents):
        found = _project_in(folder)
        if found is not None:
            _check_owner(found.file, start)
            return found
        if (folder / ".git").exists():
            return None
    return None


def policies_folder(given: Path | None) -> Path:
    """Return the policy folder to use: *given*, else the project's, else `policies` here.

    Raises:
        ConfigurationError: There is none.
    """
    if given is not None:
        return given
    project = find_project()
    if project is not None and project.policies is not None:
        return project.policies
    if (here := Path(_POLICIES)).is_dir():
        return here
    message = (
        f"wants a policy folder, and `{Path.cwd()}` has no `{_POLICIES}/`: name the folder, "
        f'or write `policies = "FOLDER"` into {_OWN} or {_TABLE} of {_SHARED}'
    )
    raise ConfigurationError(message)


def evidence_folders(given: Sequence[Path] | None) -> tuple[Path, ...]:
    """Return the evidence to read: what was *given*, else the project's, else that in its state folder.

    Raises:
        ConfigurationError: There is none.
    """
    if given:
        return tuple(given)
    project = find_project()
    if project is not None and project.evidence:
        return project.evidence
    if project is not None and project.state is not None:
        return (project.state,)
    message = (
        "wants evidence, got none: name a state folder with --evidence, "
        f'or write `evidence = "FOLDER"` into {_OWN} or {_TABLE} of {_SHARED}'
    )
    raise ConfigurationError(message)


def _project_in(folder: Path) -> Project | None:
    own, shared = _read(folder / _OWN), _read(folder / _SHARED)
    tools = {} if shared is None else shared.get("tool", {})
    table = tools.get("agentguard") if isinstance(tools, dict) else None
    if own is not None and table is not None:
        message = f"`{folder / _OWN}` stands beside {_TABLE} in {_SHARED}: keep one of the two"
        raise ConfigurationError(message)
    if own is not None:
        return _checked(folder / _OWN, f"`{folder / _OWN}`", own)
    if table is None:
        return None
    if not isinstance(table, dict):
        message = f"`{folder / _SHARED}`: `tool.agentguard` wants to be a table: write {_TABLE} above its keys"
        raise ConfigurationError(message)
    return _checked(folder / _SHARED, f"{_TABLE} in `{folder / _SHARED}`", table)


def _read(file: Path) -> dict[str, object] | None:
    try:
        # Not blocking: opening a pipe would wait for its other end.
        with os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as opened:
            content = opened.read(_BYTES + 1)
        if len(content) > _BYTES:
            message = f"`{file}` holds more than {_BYTES} bytes: take out what is no set-up"
            raise ConfigurationError(message)
        return tomllib.loads(content.decode())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, RecursionError) as error:
        why = error.strerror if isinstance(error, OSError) else printable(" ".join(str(error).split()))
        message = f"`{file}` cannot be read: {why}: mend it"
        raise ConfigurationError(message) from None


def _checked(file: Path, where: str, table: Mapping[str, object]) -> Project:
    """Return what a table says, if it says nothing but paths.

    Raises:
        ConfigurationError: It says more.
    """
    for key in table:
        if key not in _KEYS:
            message = (
                f"{where} has no key `{printable(key)}`: {did_you_mean(key, _KEYS)} "
                "(trust is never configured here, only paths)"
            )
            raise ConfigurationError(message)
    paths = {key: _paths(file.parent, where, key, value) for key, value in table.items()}
    return Project(
        file=file,
        folder=file.parent,
        policies=_single(paths, "policies"),
        evidence=paths.get("evidence", ()),
        state=_single(paths, "state"),
        next=_single(paths, "next"),
    )


def _single(paths: Mapping[str, tuple[Path, ...]], key: str) -> Path | None:
    return paths[key][0] if key in paths else None


def _paths(folder: Path, where: str, key: str, value: object) -> tuple[Path, ...]:
    several = key == "evidence"
    found = []
    for member in value if several and isinstance(value, list) and value else [value]:
        if not isinstance(member, str) or not member or "\0" in member:
            wanted = "a path, or a list of paths" if several else "one path"
            got = f"`{printable(member)}`" if isinstance(member, str) else f"`{type(member).__name__}`"
            message = f'{where}: `{key}` wants {wanted}, got {got}: write `{key} = "FOLDER"`'
            raise ConfigurationError(message)
        found.append(folder / member)
    return tuple(found)


def _check_owner(file: Path, start: Path) -> None:
    """Refuse a file that somebody else put above the working folder, as anybody can in `/tmp`.

    Raises:
        ConfigurationError: It is neither ours, nor root's, nor that of whoever owns the working folder.
    """
    owner = file.stat().st_uid
    if owner not in {0, os.geteuid(), start.stat().st_uid}:
        message = f"`{file}` belongs to user {owner}, not to us: name the folder on the command line"
        raise ConfigurationError(message)
