"""Baseline policies for `agentguard init`: which there are, and how they get into a folder that is there already."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from agentguard.analysis.lints.lint import listed
from agentguard.analysis.scenarios.baselines import Fitted, fit
from agentguard.analysis.workspace import open_workspace
from agentguard.cli.output import draw, result, result_json, say
from agentguard.cli.schema import write_over
from agentguard.cli.starter import write_new
from agentguard.errors import ConfigurationError
from agentguard.model import printable
from agentguard.policy.baselines import ALL, NAMES, Baseline, baselines, chosen
from agentguard.policy.files.folder import POLICY_SUFFIX, WRITTEN
from agentguard.policy.files.several import COMMON, SERVERS
from agentguard.policy.schemas.offered import WrittenSchema

SHOWS: Final = "calls that show it"
"""What scenarios of a baseline are for."""

_WHOLE: Final = 56


def _names(incomplete: str) -> Iterator[tuple[str, str]]:
    """Yield what completes a name, and what that is."""
    known = [*((baseline.name, baseline.says) for baseline in baselines()), (ALL, "every one that fits the server")]
    yield from ((name, says) for name, says in known if name.startswith(incomplete))


BaselineOption = Annotated[
    list[str] | None,
    typer.Option(
        "--baseline",
        metavar="NAME",
        help=f"Add ready policies; may be repeated. One of {', '.join(NAMES)}, or {ALL}.",
        autocompletion=_names,
    ),
]
ListOption = Annotated[
    bool, typer.Option("--list-baselines", metavar="", help="Only tell what each of them does, and which ids it has.")
]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", metavar="", help="Write over baselines that are there, and what you changed.")
]


def tell_list(*, as_json: bool) -> None:
    """Tell which baseline policies there are."""
    if as_json:
        result_json(
            [
                {
                    "name": baseline.name,
                    "says": baseline.says,
                    "ids": list(baseline.ids),
                    "advice": list(baseline.advice),
                }
                for baseline in baselines()
            ]
        )
        return
    listed = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for baseline in baselines():
        listed.add_row(Text(baseline.name, overflow="fold"), baseline.says)
        listed.add_row("", Text(f"@id {', '.join(baseline.ids)}", style="dim", overflow="fold"))
    draw(listed, "", "add one, or several:", "  agentguard init policies --baseline NAME --baseline NAME")


def wanted(names: Sequence[str] | None, *, overwrite: bool) -> tuple[Baseline, ...]:
    """Return what was asked for.

    Raises:
        ConfigurationError: There is none of some name, or nothing was asked for that could be written over.
    """
    if overwrite and not names:
        message = "--overwrite is about baseline policies, got none: add --baseline NAME"
        raise ConfigurationError(message)
    return chosen(names or ())


def is_begun(folder: Path) -> bool:
    """Return whether a folder has policies already, to which baselines are added."""
    try:
        names = [entry.name for entry in folder.iterdir()]
    except OSError:
        return False
    return any(name in {WRITTEN, COMMON, SERVERS} or name.lower().endswith(POLICY_SUFFIX) for name in names)


def check_fit(fitted: Fitted, names: Sequence[str] | None, server: str) -> None:
    """Pass only if all that was asked for by name can stand in the folder.

    Raises:
        ConfigurationError: Something cannot, or nothing can.
    """
    unfit = {name: why for name, why in fitted.unfit.items() if name in (names or ()) or not fitted.files}
    for name, why in unfit.items():
        message = f"baseline `{name}` does not fit server `{printable(server)}`, since {printable(why)}: leave it out"
        raise ConfigurationError(message)


def add(
    folder: Path, asked: Sequence[Baseline], names: Sequence[str] | None, *, overwrite: bool, as_json: bool
) -> None:
    """Add baselines to a folder that has policies.

    Args:
        folder: The folder, or the part of it that is one server's.
        asked: Which ones.
        names: What they were asked for by.
        overwrite: Whether a file that is there with another text is written over.
        as_json: Whether to tell it to a program.

    Raises:
        PolicyError: What is there is wrong by itself.
        ConfigurationError: One does not fit, is there with another text, or cannot be written.
    """
    workspace = open_workspace(folder)
    fitted = fit(workspace, asked, folder)
    check_fit(fitted, names, workspace.written.server)
    before = {name: _text(folder / name) for name in fitted.files}
    changed = {name: text for name, text in fitted.files.items() if before[name] != text}
    own = [name for name in changed if before[name] is not None]
    if own and not overwrite:
        listed = ", ".join(f"`{printable(name)}`" for name in own)
        message = f"`{folder.absolute()}` has {listed}, with another text: add --overwrite to lose that"
        raise ConfigurationError(message)
    write_new(folder, {name: text for name, text in changed.items() if name not in own})
    for name in own:
        write_over(folder / name, changed[name])
    if as_json:
        result_json(
            {
                "folder": str(folder.absolute()),
                "files": sorted(changed),
                "server": workspace.written.server,
                "observe": False,
                **told_json(fitted, asked),
            }
        )
        return
    _tell(folder, fitted, changed, asked, workspace.written)


def told_json(fitted: Fitted, asked: Iterable[Baseline]) -> dict[str, object]:
    """Return what a program is told of baselines."""
    return {
        "baselines": [baseline.name for baseline in asked if baseline.name not in fitted.unfit],
        "left_out": dict(fitted.unfit),
        "untested": list(fitted.untested),
    }


def tell_rest(fitted: Fitted, asked: Iterable[Baseline], written: WrittenSchema) -> None:
    """Say what was left out, and what somebody has to do by hand."""
    for name, why in fitted.unfit.items():
        say(f"agentguard: left out {name}: {printable(why)}")
    for name in fitted.untested:
        say(
            f"agentguard: no call was found that shows all that {name} stops: "
            "write cases for it, as the how-to on baseline policies shows them"
        )
    unsaid = [offered.tool.name for offered in written.offers if not offered.annotated]
    by = [one.name for one in asked if one.is_of_annotations and one.file in fitted.files]
    if unsaid and by:
        say(
            "agentguard: a tool without annotations counts as destructive and open-world, as MCP says, for "
            f"{' and '.join(by)} too: annotate {printable(listed(unsaid, most=5))} in the server"
        )


def files_table(folder: Path, rows: Iterable[tuple[str, str]]) -> Table:
    """Return a table of files in a folder, and what each is for."""
    paths = [(f"  {printable(os.path.join(folder, name))}", what) for name, what in rows]  # noqa: PTH118  it keeps `./`
    listed = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    # Whoever copies a path wants it in one piece; one that takes the whole line is folded.
    listed.add_column(no_wrap=max(len(path) for path, _ in paths) <= _WHOLE)
    for path, what in paths:
        listed.add_row(Text(path, overflow="fold"), what)
    return listed


def _tell(
    folder: Path, fitted: Fitted, changed: Mapping[str, str], asked: Sequence[Baseline], written: WrittenSchema
) -> None:
    said = {baseline.file: baseline.says for baseline in asked}
    table = files_table(
        folder,
        [(name, said.get(name, SHOWS) if name in changed else "is there already") for name in fitted.files],
    )
    count = f"wrote {len(changed)} file{'' if len(changed) == 1 else 's'}" if changed else "nothing is new"
    draw(f"{count} for server `{printable(written.server)}`", table, "")
    tell_rest(fitted, asked, written)
    result("read them, adapt their numbers, and then:")
    for command in ("check", "test"):
        result(printable(f"  agentguard {command} {shlex.quote(str(folder))}{' --mutate' * (command == 'test')}"))


def _text(file: Path) -> str | None:
    """Return what a file holds; None if it is not there."""
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        message = f"`{file.absolute()}` cannot be read: {why}: move it away"
        raise ConfigurationError(message) from None
