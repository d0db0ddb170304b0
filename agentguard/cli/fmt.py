"""`agentguard fmt`: policies in Cedar's own layout."""

from __future__ import annotations

import os
import sys
import uuid
from contextlib import suppress
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.analysis.finding import of_problem
from agentguard.cli.output import REFUSED, result, say
from agentguard.cli.project import policies_folder
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.host.private import FULL, write_whole
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.files.folder import POLICY_SUFFIX
from agentguard.policy.files.format import formatted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LIMITS: Final = Limits()
_STDIN: Final = "-"


def fmt(
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Files, or folders with all below them; `-` for standard input. Else the project's, or ./policies.",
        ),
    ] = None,
    *,
    check: Annotated[
        bool, typer.Option("--check", metavar="", help="Write nothing, name the files that would change.")
    ] = False,
    diff: Annotated[bool, typer.Option("--diff", metavar="", help="Write nothing, show what would change.")] = False,
) -> None:
    """Lay out policies as Cedar's own formatter does.

    Only where blanks and line breaks stand changes: a file is written only if what comes
    out has the same policies and the same comments, and in one piece.

    Exits with 1 if a file cannot be read as policies, which stays as it is, and with --check
    or --diff if one would change; with 2 if it could not run.

    Example: `agentguard fmt --check policies`
    """
    wanted = paths or [str(policies_folder(None))]
    if _STDIN in wanted:
        _format_input(wanted, check=check, diff=diff)
        return
    changed = broken = 0
    files = list(_files(wanted))
    for file in files:
        before = _read(file)
        try:
            after = formatted(str(file), before, _LIMITS)
        except PolicyError as error:
            broken += 1
            _tell(error)
            continue
        if after == before:
            continue
        changed += 1
        if diff:
            _show(str(file), before, after)
        elif check:
            result(printable(str(file)))
        else:
            _replace(file, after)
            result(f"formatted {printable(str(file))}")
    say(_summary(len(files), changed, broken, done=not (check or diff)))
    if broken or (changed and (check or diff)):
        raise typer.Exit(REFUSED)


def _format_input(wanted: Sequence[str], *, check: bool, diff: bool) -> None:
    """Format what comes in, and write it out."""
    if len(wanted) > 1:
        message = f"`{_STDIN}` is standard input alone, got {len(wanted) - 1} more to format: leave one out"
        raise ConfigurationError(message)
    try:
        # Line ends as they are.
        before = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        message = f"standard input is not UTF-8, from byte {error.start} on: send UTF-8"
        raise ConfigurationError(message) from None
    try:
        after = formatted("<stdin>", before, _LIMITS)
    except PolicyError as error:
        _tell(error)
        raise typer.Exit(REFUSED) from None
    if diff and after != before:
        _show("<stdin>", before, after)
    elif not (check or diff):
        typer.echo(after, nl=False)
    if after != before and (check or diff):
        raise typer.Exit(REFUSED)


def _files(wanted: Sequence[str]) -> Iterator[Path]:
    """Yield the files to format, each once.

    Raises:
        ConfigurationError: One is not there, or is no file of policies.
    """
    seen: set[str] = set()
    for name in wanted:
        path = Path(name)
        if path.is_dir():
            found = sorted(_below(path))
        elif path.name.lower().endswith(POLICY_SUFFIX):
            found = [path]
        else:
            message = f"wants folders and files of policies, *{POLICY_SUFFIX}, got `{name}`: name one of these"
            raise ConfigurationError(message)
        for file in found:
            # Unlike `Path.resolve`, it leaves a link that leads back to itself to whoever opens it.
            if (real := os.path.realpath(file)) not in seen:
                seen.add(real)
                yield file


def _below(folder: Path) -> Iterator[Path]:
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            file = Path(path) / name
            # A link may lead anywhere, and whoever names a folder means what is in it.
            if name.lower().endswith(POLICY_SUFFIX) and not name.startswith(".") and not file.is_symlink():
                yield file


def _read(file: Path) -> str:
    try:
        # Not blocking: opening a pipe would wait for its other end.
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as opened:
            return opened.read().decode()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"`{file}` cannot be read: {why}: mend that, or leave it out"
        raise ConfigurationError(message) from None


def _replace(file: Path, text: str) -> None:
    """Put the new text in the file's place, with its mode and, as far as we may, its owner.

    Raises:
        ConfigurationError: It cannot be written.
    """
    real = file.resolve()
    # Its name begins with a dot, which the readers of a policy folder pass over.
    new = real.with_name(f".{uuid.uuid4().hex}")
    try:
        before = real.stat()
        try:
            write_whole(new, text.encode(), sync=False)
            with suppress(PermissionError):
                os.chown(new, before.st_uid, before.st_gid)
            new.chmod(before.st_mode & 0o777)
            new.replace(real)
        finally:
            new.unlink(missing_ok=True)
    except OSError as error:
        fix = "make room" if error.errno in FULL else "make its folder yours"
        message = f"`{file}` cannot be written: {error.strerror}: {fix}, or use --diff"
        raise ConfigurationError(message) from None


def _tell(error: PolicyError) -> None:
    for problem in error.found:
        found = of_problem(problem)
        place = f"{found.file}:{found.line}:{found.column}" if found.line else found.file
        say(f"{place} {found.severity}[{found.name}]: {found.what}")


def _show(name: str, before: str, after: str) -> None:
    lines = unified_diff(before.split("\n"), after.split("\n"), name, "formatted", lineterm="")
    result("\n".join(printable(line.replace("\t", "    ")) for line in lines))


def _summary(files: int, changed: int, broken: int, *, done: bool) -> str:
    def some(number: int) -> str:
        return f"{number} file{'' if number == 1 else 's'}"

    same = files - changed - broken
    parts = [f"{some(changed)} {'formatted' if done else 'would change'}"] if changed else []
    parts += [f"{some(same)} as {'it is' if same == 1 else 'they are'}"] if same or files == 0 else []
    parts += [f"{some(broken)} cannot be read as policies"] if broken else []
    return ", ".join(parts)
