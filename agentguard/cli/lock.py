"""`agentguard lock`: write the manifest of a policy folder, which says that all of it is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, NoReturn

import typer

from agentguard.analysis.finding import Severity
from agentguard.analysis.lints.run import lint
from agentguard.analysis.workspace import open_workspace
from agentguard.cli.findings import near
from agentguard.cli.opening import FolderArgument, tell
from agentguard.cli.options import JsonOption
from agentguard.cli.output import REFUSED, draw, fail, result_json, say
from agentguard.cli.project import policies_folder
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.evidence.words import count
from agentguard.host.private import cannot_write
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.files.folder import WRITTEN, Snapshot, read_snapshot, read_written
from agentguard.policy.files.manifest import MANIFEST, misfit, write_manifest
from agentguard.policy.files.several import COMMON, SERVERS, is_for_several, servers_of, split
from agentguard.policy.files.source import read_folder
from agentguard.policy.problem import Problem, refused

if TYPE_CHECKING:
    from agentguard.analysis.finding import Finding
    from agentguard.analysis.workspace import Workspace

_LIMITS: Final = Limits()
_STALE: Final = "stale-schema"


def lock(
    folder: FolderArgument = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Write nothing; say whether the manifest matches.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Say that a policy folder is complete: write its manifest, agentguard.lock.

    A server that watches the folder takes a change only when it is all there. Where files are
    edited in place, that is when the manifest lists exactly what the folder holds. So edit as
    many files as you like, and lock the folder last. What `agentguard check` finds an error in is not
    locked.

    A folder for several servers has one manifest, at its top.

    Exits with 1 if a folder is not valid, or with --check if its manifest does not match; with
    2 if it could not run.

    Example: `agentguard lock policies`
    """
    given = policies_folder(folder)
    snapshot = read_snapshot(given)
    if check:
        _check(snapshot, as_json=as_json)
        return
    if snapshot.place.root != snapshot.place.outer:
        message = f"`{snapshot.folder}` is a ConfigMap, which arrives whole: lock what it is made from"
        raise ConfigurationError(message)
    try:
        locked = _locked(snapshot)
    except PolicyError as error:
        _refuse(error, snapshot, "is not locked, for it is not valid")
    file = snapshot.folder / MANIFEST
    if as_json:
        named = {"files": sorted(snapshot.files), "policy_versions": locked.versions}
        result_json({"manifest": str(file), "matches": True, **named})
        return
    draw(f"{printable(near(file, Path.cwd()))}: {count(len(snapshot.files), 'file')}")
    for name, version in locked.versions.items():
        draw(f"policy version {version}{f' of {printable(name)}' if name else ''}")
    if locked.warnings:
        where = near(snapshot.folder, Path.cwd())
        say(f"agentguard: check finds {count(len(locked.warnings), 'warning')}: run `agentguard check {where}`")
    for name in locked.stale:
        say(f"agentguard: {name} is not as it would be written now, so the server's version differs: write it again")


@dataclass(frozen=True, slots=True)
class _Locked:
    """A folder that was locked.

    Attributes:
        versions: The policy version of each server whose schema is written there; of the one
            that a folder is for, under no name.
        stale: The written schemas that do not fit any more.
        warnings: What `agentguard check` would have somebody look at.
    """

    versions: dict[str, str]
    stale: list[str]
    warnings: set[Finding]


def _locked(snapshot: Snapshot) -> _Locked:
    """Lock a folder.

    Raises:
        PolicyError: It is not valid.
        ConfigurationError: It cannot be written to, or changes all the time.
    """
    if snapshot.problems:
        raise _told(snapshot)
    locked = _Locked({}, [], set())
    servers = servers_of(snapshot.files) if is_for_several(snapshot.files) else ("",)
    for server in servers:
        part = snapshot.folder / SERVERS / server if server else snapshot.folder
        try:
            if read_written(part) is None:
                read_folder(snapshot.folder, _LIMITS, server or None)
                continue
            workspace = open_workspace(part, limits=_LIMITS)
            locked.warnings.update(_looked_at(workspace))
        except PolicyError as error:
            raise error.within(snapshot.folder) from None
        locked.versions[server] = workspace.policies.version
        if workspace.stale:
            locked.stale.append(str(part / WRITTEN))
    if read_snapshot(snapshot.folder).files != snapshot.files:
        message = f"`{snapshot.folder}` was changed while it was checked: run `agentguard lock` again when that is done"
        raise ConfigurationError(message)
    try:
        write_manifest(snapshot.folder, snapshot.files)
    except OSError as error:
        raise cannot_write(snapshot.folder, error) from None
    return locked


def _looked_at(workspace: Workspace) -> list[Finding]:
    """Return the warnings about policies that a guard would load.

    Raises:
        PolicyError: One of them does not mean what it says.
    """
    # A written schema that does not fit decides nothing, and is told by itself.
    found = [finding for finding in lint(workspace) if finding.fails and finding.name != _STALE]
    errors = [finding for finding in found if finding.severity is Severity.ERROR]
    if errors:
        raise refused(
            [
                Problem(one.file, one.line, one.what, column=one.column, length=one.length, name=one.name)
                for one in errors
            ]
        )
    return found


def _refuse(error: PolicyError, snapshot: Snapshot, what: str) -> NoReturn:
    """Say what is wrong with a folder, and what follows from that."""
    tell(error, snapshot.folder)
    parts = {split(problem.file)[0] for problem in error.found}
    # One server's part is checked with what all have in common; that alone is nobody's.
    one = next(iter(parts)) if len(parts) == 1 and parts.isdisjoint(("", COMMON)) else ""
    where, part = (near(folder, Path.cwd()) for folder in (snapshot.folder, snapshot.folder / one))
    fail(f"`{where}` {what}: see `agentguard check {part}`", REFUSED)


def _told(snapshot: Snapshot) -> PolicyError:
    return PolicyError([str(problem) for problem in snapshot.problems], snapshot.problems).within(snapshot.folder)


def _check(snapshot: Snapshot, *, as_json: bool) -> None:
    """Exit with 1 unless a folder has a manifest that matches."""
    if snapshot.problems:
        why: str | None = str(_told(snapshot))
    elif snapshot.manifest is None:
        why = f"{MANIFEST} is not there"
    else:
        why = misfit(snapshot.manifest, snapshot.files)
    if as_json:
        result_json({"manifest": str(snapshot.folder / MANIFEST), "matches": why is None, "why": why or ""})
    elif snapshot.problems:
        _refuse(_told(snapshot), snapshot, "is not valid")
    elif why is None:
        draw(f"{printable(near(snapshot.folder / MANIFEST, Path.cwd()))} matches")
    else:
        where = near(snapshot.folder, Path.cwd())
        say(f"agentguard: {where}: {why}: run `agentguard lock {where}` when all of it is there")
    if why is not None:
        raise typer.Exit(REFUSED)
