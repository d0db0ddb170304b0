"""`agentguard schema`: what a server offers, in the types that policies see."""

from __future__ import annotations

import logging
import os
import shlex
import tempfile
import threading
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass
from difflib import unified_diff
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import anyio
import typer
from rich.table import Table
from rich.text import Text

from agentguard.adapters.lowlevel import tools_of
from agentguard.adapters.serving import is_server
from agentguard.adapters.surfaces import surface_of
from agentguard.adapters.upstream import upstream
from agentguard.analysis.checking.offers import acts_on, changes, what_it_is
from agentguard.cli.dashes import COMMAND
from agentguard.cli.loading import LEFT, load_server, streams_kept
from agentguard.cli.options import JsonOption
from agentguard.cli.output import REFUSED, draw, hint, result, result_json, say
from agentguard.cli.wrap import OURS
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.guarding.gate import Gate
from agentguard.guarding.offering import COLLECTING, Collected, read_vocabulary
from agentguard.guarding.rulebook import Rulebook
from agentguard.host.private import FULL
from agentguard.host.unkept import UNKEPT
from agentguard.limits import Limits
from agentguard.live.compiling import Terms
from agentguard.model import printable
from agentguard.policy.deciding.entities import Loaders
from agentguard.policy.files.folder import read_written
from agentguard.policy.files.several import part_there
from agentguard.policy.files.source import PolicySource
from agentguard.policy.files.written import FILE, SERVER, is_shown, named_server, read_schema, type_of, write_schema
from agentguard.policy.schemas.schema import OwnType

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.policy.files.written import Offered, WrittenSchema
    from agentguard.policy.schemas.types import CedarType, Member

_LOG: Final = logging.getLogger("agentguard")
_LIMITS: Final = Limits()
_GAP: Final = 2
_MODE: Final = 0o644
_NOTHING: Final = PolicySource(folder="", files=(), policies=(), fragments=(), entities=())


def schema(
    ctx: typer.Context,
    server: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVER",
            help="module:server, path/to/server.py, or path/to/server.py:name; a name may be its factory's.",
        ),
    ] = None,
    *,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="FOLDER", help=f"Write {FILE} into this policy folder; say what changed."),
    ] = None,
    diff: Annotated[
        bool, typer.Option("--diff", metavar="", help=f"Compare with the {FILE} that is there; write nothing.")
    ] = False,
    policies: Annotated[
        Path | None,
        typer.Option("--policies", metavar="FOLDER", help="The policy folder, where the server has no guard to say."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Show what a server offers, in the types that policies see, or write it down.

    The file that --write makes is a complete Cedar schema. With it in the policy folder,
    editors complete names, and `check`, `test` and every other command for policies need
    neither the server nor its Python. The guard itself never reads it.

    A server that is a program is given as its command, after `--`. Nothing is served, and
    policies that do not fit yet are no obstacle.

    Exits with 1 if --diff finds what is there stale, with 2 if it could not run.

    Example: `agentguard schema path/to/server.py --write policies`
    """
    command = ctx.meta[COMMAND]
    if (server is None) is (not command) or (server is not None and command is not None):
        got = "neither" if server is None else "both"
        message = f"`agentguard schema` wants a server, or a command after `--`, got {got}: give one of them"
        raise ConfigurationError(message)
    if write is not None and (diff or policies is not None):
        message = f"--write names the folder to write into, got {'--diff' if diff else '--policies'} too: leave one out"
        raise ConfigurationError(message)
    named = write or policies
    if named is not None and not named.is_dir():
        message = f"a policy folder wants to be a folder, got `{named.absolute()}`: create it first"
        raise ConfigurationError(message)
    offer = offer_of(server, command, named)
    if write is not None and offer.folder is not None:
        _write(offer, offer.folder, as_json=as_json)
    elif diff:
        _compare(offer, as_json=as_json)
    elif as_json:
        result_json(_described(offer.written))
    else:
        _show(offer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """What a server offers.

    Attributes:
        written: All of it.
        folder: Its policy folder; None where nothing says which that is.
        again: What is typed after `agentguard schema` to have it once more.
        named: How commands name the server; empty for one that is a program.
    """

    written: WrittenSchema
    folder: Path | None
    again: str
    named: str = ""

    def text(self, named: str) -> str:
        """Return the file's text, with the types of the folder.

        Args:
            named: How the file says that commands name the server.

        Raises:
            PolicyError: If these do not fit the server.
        """
        folder = Path.cwd() if self.folder is None else self.folder
        try:
            return write_schema(self.written, read_vocabulary(folder, _LIMITS), named=named)
        except PolicyError as error:
            raise error.within(folder) from None

    def command(self, folder: str) -> str:
        """Return the command that writes it into a folder."""
        if self.again.startswith("-- "):
            return f"agentguard schema --write {shlex.quote(folder)} {self.again}"
        return f"agentguard schema {self.again} --write {shlex.quote(folder)}"


def offer_of(server: str | None, command: Sequence[str], named: Path | None) -> Offer:
    """Return what the command line names offers.

    Raises:
        ConfigurationError: It cannot be loaded or started, or is guarded from where nobody sees it.
    """
    # Neither a module nor a program has any business with a token that is here.
    for name in OURS:
        os.environ.pop(name, None)
    if server is None:
        return anyio.run(_offered_by, command, named)
    collected = Collected()
    running = set(threading.enumerate())
    before, kept = COLLECTING.set(collected), UNKEPT.set(True)
    level = _LOG.level
    # What a guard says of itself when it is made is of no concern here: this one keeps nothing.
    _LOG.setLevel(logging.ERROR)
    try:
        loaded = load_server(server, is_server=is_server, factories=True)
    finally:
        _LOG.setLevel(level)
        COLLECTING.reset(before)
        UNKEPT.reset(kept)
    book, folder = next(
        ((book, folder) for one, book, folder in collected.guarded if one is loaded.server), (None, None)
    )
    if book is None and len(collected.folders) > len(collected.guarded):
        message = (
            f"`{server}` makes a guard and does not attach it when it is loaded, so nobody knows what it guards: "
            'call guard.attach(server) above `if __name__ == "__main__":`, or name a function that returns the server'
        )
        raise ConfigurationError(message)
    with streams_kept():
        written = anyio.run(_offered, loaded.server) if book is None else anyio.run(book.offered)
    LEFT.update(thread for thread in threading.enumerate() if thread not in running and not thread.daemon)
    folder = folder if named is None else part_there(named, written.server)
    return Offer(written=written, folder=folder, again=shlex.quote(server), named=server)


async def _offered_by(command: Sequence[str], named: Path | None) -> Offer:
    """Return what a program offers that speaks stdio."""
    async with upstream(command) as proxied:
        written = await _offered(proxied)
        folder = None if named is None else part_there(named, written.server)
        return Offer(written=written, folder=folder, again=f"-- {shlex.join(command)}")


async def _offered(server: Any) -> WrittenSchema:
    """Return what a server offers whose tools `agentguard wrap` or `agentguard dev` would guard."""
    terms = Terms(source=_NOTHING, loaders=Loaders(_LIMITS), claims={}, limits=_LIMITS, label=None)
    surface = surface_of(server, tools=await tools_of(server))
    # Nobody makes a call, and it would be denied.
    gate = Gate(ContextVar("agentguard_call", default=None))
    book = Rulebook(surface, terms, functions=[], enter=gate.enter, enter_raw=gate.enter_raw, unguarded="guard")
    return await book.offered()


def _write(offer: Offer, folder: Path, *, as_json: bool) -> None:
    before = _text_in(folder)
    # How the server is named is no change by itself: two people may name it differently.
    named = named_server(before or "")
    text = offer.text(named)
    if text != before or named == SERVER:
        # A place on one machine says nothing on others, and a program's arguments may be secret.
        text = offer.text(offer.named if is_shown(offer.named) else named)
    file = folder / FILE
    found = _changes(before, offer.written)
    if text != before:
        write_over(file, text)
    if as_json:
        result_json({"file": str(file.absolute()), "written": text != before, "changes": found})
        return
    what = "wrote" if text != before else "nothing changed in"
    draw(f"{what} {printable(str(file))}", *(f"  {line}" for line in found))


def _compare(offer: Offer, *, as_json: bool) -> None:
    folder = offer.folder
    if folder is None:
        message = f"--diff wants the policy folder that {FILE} is in, got none: name it, --policies FOLDER"
        raise ConfigurationError(message)
    before = _text_in(folder)
    # How it was named when it was written makes no difference.
    text = offer.text(named_server(before or ""))
    found = _changes(before, offer.written)
    lines = unified_diff(
        [] if before is None else before.splitlines(keepends=True),
        text.splitlines(keepends=True),
        f"{folder.name}/{FILE}",
        "what the server offers now",
    )
    shown = "".join(printable(line.rstrip("\n").replace("\t", "    ")) + "\n" for line in lines)
    if as_json:
        result_json(
            {"file": str((folder / FILE).absolute()), "current": text == before, "changes": found, "diff": shown}
        )
    elif shown:
        result(shown.rstrip("\n"))
    else:
        hint(f"{FILE} is what would be written now")
    if text != before:
        for line in found:
            say(f"agentguard: {line}")
        say(f"agentguard: {FILE} is stale: run `{printable(offer.command(str(folder)))}`")
        raise typer.Exit(REFUSED)


def _text_in(folder: Path) -> str | None:
    """Return what was written into a folder; None if nothing was."""
    try:
        text = read_written(folder)
    except PolicyError as error:
        raise error.within(folder) from None
    # A checkout may have given it other line ends.
    return None if text is None else text.replace("\r\n", "\n")


def _changes(before: str | None, now: WrittenSchema) -> list[str]:
    if before is None:
        return []
    try:
        return changes(read_schema(before, _LIMITS), now)
    except PolicyError as error:
        return [f"what was there could not be read: {error.problems[0]}"]


def write_over(file: Path, text: str) -> None:
    """Write a file whole: whoever reads it meanwhile reads the one that was there.

    Raises:
        ConfigurationError: It cannot be written.
    """
    try:
        mode = file.stat().st_mode & 0o777 if file.exists() else _MODE
        # Its name begins with a dot, which the readers of a policy folder pass over.
        number, name = tempfile.mkstemp(prefix=".", suffix=file.suffix, dir=file.parent)
        try:
            with os.fdopen(number, "wb") as opened:
                os.fchmod(number, mode)
                opened.write(text.encode())
            Path(name).replace(file)
        except BaseException:
            with suppress(OSError):
                Path(name).unlink()
            raise
    except OSError as error:
        fix = "make room" if error.errno in FULL else "make its folder yours"
        message = f"`{file.absolute()}` cannot be written, {error.strerror}: {fix}, or write elsewhere"
        raise ConfigurationError(message) from None


def _show(offer: Offer) -> None:
    draw(_table(offer.written))
    folder = "FOLDER" if offer.folder is None else str(offer.folder)
    hint(f"write it down for editors and the other commands: `{printable(offer.command(folder))}`")


def _table(written: WrittenSchema) -> Table:
    """Return what is offered as a table: each thing, and below it its arguments."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    for name in ("offered", "type, or what it acts on", "what it is"):
        drawn.add_column(name, overflow="fold")
    for offered in written.offers:
        tool = offered.tool
        if tool.kind is not OwnType.SERVER:
            kind = "" if tool.kind is OwnType.TOOL else f"{tool.kind.word} "
            title = Text(f"{kind}{printable(tool.itself.id)}", style="bold")
            drawn.add_row(title, Text(acts_on(offered)), Text(what_it_is(offered)))
            for depth, label, type_ in _rows(type_of(tool.input)):
                drawn.add_row(Text(f"{'  ' * (depth + 1)}{label}"), Text(type_))
            for name in tool.unseen:
                drawn.add_row(Text(f"  {printable(name)}"), Text("policies do not see it", style="yellow"))
            for depth, label, type_ in _rows(type_of(tool.facts)) if tool.facts is not None else ():
                drawn.add_row(Text(f"{'  ' * (depth + 1)}facts.{label}" if depth == 0 else ""), Text(type_))
            for what, names in (("adds to", tool.totals), ("labels the run", sorted(tool.labels))):
                if names:
                    drawn.add_row(Text(f"  {what}"), Text(printable(", ".join(names))))
    return drawn


def _rows(type_: CedarType, depth: int = 0) -> Iterator[tuple[int, str, str]]:
    """Yield each member of a record, and those of the records in it."""
    for name, member in type_.members.items():
        yield depth, f"{printable(name)}{'' if member.required else '?'}", _named(member)
        inner = member.type
        while inner.element is not None:
            inner = inner.element
        yield from _rows(inner, depth + 1)


def _named(member: Member) -> str:
    inner, sets = member.type, 0
    while inner.element is not None:
        inner, sets = inner.element, sets + 1
    name = " | ".join(map(printable, inner.one_of)) if inner.one_of else inner.name
    return f"{'Set of ' * sets}{name}"


def _described(written: WrittenSchema) -> dict[str, object]:
    return {
        "server": written.server,
        "offers": [_offered_json(offered) for offered in written.offers],
        "loaders": sorted(written.loaders),
        "claims": {name: kind.__name__ for name, kind in sorted(written.claims.items())},
    }


def _offered_json(offered: Offered) -> dict[str, object]:
    tool = offered.tool
    return {
        "kind": tool.kind.word,
        "name": tool.itself.id,
        "action": tool.name,
        "groups": sorted(tool.groups),
        "annotated": offered.annotated,
        "acts_on": {
            "type": tool.resource_type or tool.itself.type,
            "template": None if offered.resource is None else str(offered.resource),
        },
        "arguments": _type_json(type_of(tool.input))["members"],
        "facts": None if tool.facts is None else _type_json(type_of(tool.facts))["members"],
        "unseen": list(tool.unseen),
        "totals": list(tool.totals),
        "labels": sorted(tool.labels),
    }


def _type_json(type_: CedarType) -> dict[str, Any]:
    found: dict[str, Any] = {"type": type_.name}
    if type_.element is not None:
        found["element"] = _type_json(type_.element)
    if type_.name == "Record":
        found["members"] = [
            {"name": name, "required": member.required, **_type_json(member.type)}
            for name, member in type_.members.items()
        ]
    if type_.one_of:
        found["one_of"] = list(type_.one_of)
    if type_.spends:
        found["spends"] = type_.spends
    return found
