"""`agentguard unused`: what policies permit and no call used, and policies that permit no more than that."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from agentguard.analysis.history.tighter import tighter_of
from agentguard.analysis.history.unused import not_done, usage_of
from agentguard.cli.carrying import carried, content
from agentguard.cli.evidence import telling
from agentguard.cli.opening import FolderArgument, opened
from agentguard.cli.options import JsonOption
from agentguard.cli.output import REFUSED, draw, fail, result_json, say
from agentguard.cli.project import evidence_folders, policies_folder
from agentguard.cli.replaying import EvidenceOption, SinceOption, UntilOption, lasting, period, records
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.evidence.words import count, iso, moment, span
from agentguard.model import printable
from agentguard.policy.files.folder import WRITTEN
from agentguard.policy.files.manifest import MANIFEST
from agentguard.policy.files.several import SERVERS, is_for_several

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agentguard.analysis.history.tighter import Tighter
    from agentguard.analysis.history.unused import Usage, Use

_NAMED: Final = 4
_AGENTS: Final = 16
# Evidence lacks a good deal of a time if it lacks one part in so many.
_GOOD_DEAL: Final = 10


def unused(
    folder: FolderArgument = None,
    *,
    evidence: EvidenceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    write: Annotated[
        Path | None,
        typer.Option("--write", metavar="NEW", help="Write a tighter folder there; it must not be there yet."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Say which permits no call took, and which permit more than was used.

    The evidence says which permits each allowed call took. From that follows a tighter
    folder: permits that nobody used are left out, and heads name only the actions, and
    for a permit for everybody the agents, that used them. All conditions and all forbids
    stay, so it permits nothing that is not permitted today; and every allowed call on
    record is tried on it.

    Exits with 1 if a permit is unused or too wide; with 2 if it could not run, or there is no evidence.

    Example: `agentguard unused policies --evidence state --since 30d --write next`
    """
    named = policies_folder(folder)
    sources = evidence_folders(evidence)
    begin, end = period(since, until)
    if write is not None:
        _check_new(write)
    workspace = opened(named)
    with telling() as told:
        usage = usage_of(records(sources, told.append), workspace, since=begin, until=end)
    if not usage.decisions:
        fail("the evidence holds no decision of that time: name other evidence, or an earlier --since")
    proposal = _proposal(usage, whole=not told)
    # First: whoever reads the rest may stop in the middle.
    if write is not None and proposal is not None:
        _write(proposal, write)
    if as_json:
        result_json(_described(usage, proposal))
    else:
        _draw(usage, proposal, since=begin, written=write is not None)
    if not usage.shared.issuperset((*usage.unused, *usage.too_wide)):
        raise typer.Exit(REFUSED)


def _proposal(usage: Usage, *, whole: bool) -> Tighter | None:
    if not whole:
        # What took a permit may stand in what could not be read.
        say("agentguard: no tighter folder is proposed: not all of the evidence could be read")
        return None
    try:
        found = tighter_of(usage)
    except PolicyError as error:
        say(f"agentguard: no tighter folder can be proposed: {error.problems[0]}")
        return None
    if found.lost:
        # It would be our mistake, and nobody should act on it.
        say(f"agentguard: no tighter folder is proposed: it would deny decision {found.lost[0]}")
        return None
    return found


def _draw(usage: Usage, proposal: Tighter | None, *, since: float | None, written: bool) -> None:
    agents = count(len(usage.agents), "agent")
    period = lasting(usage.first, usage.last)
    parts: list[str | Table] = [f"{count(usage.decisions, 'decision')} {period}: {usage.allowed:,} allowed, {agents}"]
    parts += _shorter(usage, since)
    if usage.by_others:
        began = "" if usage.since is None else moment(usage.since, "%Y-%m-%d %H:%M")
        what = f"which has decided since {began}: what it added is no older" if began else "which decided none"
        parts.append(f"{usage.by_others:,} of them by another version of the policies than this one, {what}")
    if usage.untold:
        parts.append(f"{count(usage.untold, 'allow')} of which it cannot be told which permit they would take now")
    parts += ["", _table(usage)]
    if (idle := _idle(not_done(usage))) is not None:
        parts += ["", idle]
    if usage.runs:
        used = [len(tools) for tools in usage.runs.values()]
        average = f"{count(len(used), 'run')} used {sum(used) / len(used):.1f} tools on average, {max(used)} at most"
        parts += ["", f"grants are not on record; {average}"]
    if proposal is not None and (proposal.removed or proposal.narrowed):
        parts += ["", _proposed(proposal, written=written)]
    draw(*parts)


def _shorter(usage: Usage, since: float | None) -> Iterator[str]:
    """Yield that the evidence is of a good deal less time than was asked about, where it is."""
    if since is None or usage.begins is None:
        return
    lacks = usage.begins - since
    if lacks * _GOOD_DEAL > time.time() - since:
        yield (
            f"the evidence begins on {moment(usage.begins, '%Y-%m-%d %H:%M')}, {_roughly(lacks)} after --since: "
            "what happens less often need not be in it"
        )


def _roughly(seconds: float) -> str:
    """Return a time in the larger of its two units."""
    return " ".join(span(seconds).split()[:2])


def _proposed(proposal: Tighter, *, written: bool) -> str:
    parts = []
    if proposal.removed:
        parts.append(f"without {count(len(proposal.removed), 'permit')}")
    if proposal.narrowed:
        parts.append(f"with {count(len(proposal.narrowed), 'narrower permit')}")
    untold = f", {proposal.untold:,} of which cannot be told" if proposal.untold else ""
    tried = count(proposal.allowed + proposal.untold, "kind of call", "kinds of call")
    fix = "" if written else ": write it with `--write NEW`"
    same = "the same calls, as far as that can be told" if proposal.untold else "the same calls"
    return f"a tighter folder, {' and '.join(parts)}, permits {same}{fix}\n(tried on {tried}{untold})"


def _table(usage: Usage) -> Table:
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("permit", overflow="fold")
    drawn.add_column("last allowed", no_wrap=True)
    drawn.add_column("calls", no_wrap=True, justify="right")
    drawn.add_column("verdict", overflow="fold")
    now = time.time()
    for id_, use in usage.permits.items():
        last = "never" if use.last is None else f"{_roughly(now - use.last)} ago"
        verdict = _verdict(usage, id_, use)
        style = "" if id_ in usage.shared or (use.calls and not usage.never(id_)) else "yellow"
        drawn.add_row(Text(printable(id_)), last, f"{use.calls:,}", Text(printable(verdict), style=style))
    return drawn


def _idle(idle: Mapping[str, tuple[str, ...]]) -> Table | None:
    """Return what agents may do and never did themselves, if there is any."""
    drawn = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    drawn.add_column("agent", overflow="fold")
    drawn.add_column("may do, and its own runs never did", overflow="fold")
    rows = {agent: names for agent, names in idle.items() if names}
    for agent, names in list(rows.items())[:_AGENTS]:
        drawn.add_row(Text(printable(agent)), Text(printable(_some(names))))
    if len(rows) > _AGENTS:
        drawn.add_row("and others", "")
    return drawn if rows else None


def _verdict(usage: Usage, id_: str, use: Use) -> str:
    if id_ in usage.shared:
        return f"{'in use' if use.calls else 'not used'} here; it is for other servers too"
    if id_ in usage.unused:
        return "UNUSED → delete it, or write a scenario that says why"
    if not use.calls:
        return "cannot be told: another version allowed what it may have permitted"
    parts = ["in use"]
    if never := usage.never(id_):
        parts.append(f"{_some(never)} never → narrow to {', '.join(_used(use))}")
    if use.purpose:
        parts.append(f'purpose is always "{use.purpose}"')
    return "; ".join(parts)


def _used(use: Use) -> list[str]:
    """Return the actions that a permit was used for, or may have been."""
    return sorted(use.actions.keys() | use.may_have.keys())


def _some(names: tuple[str, ...]) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} and {len(names) - _NAMED} more"


def _check_new(folder: Path) -> None:
    """Pass a folder that is not there, or is empty: policies that somebody wrote are never written over.

    Raises:
        ConfigurationError: Something is there.
    """
    try:
        taken = folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir())))
    except OSError as error:
        message = f"--write `{folder}` cannot be looked into, {error.strerror}: name a new folder"
        raise ConfigurationError(message) from None
    if taken:
        message = f"--write wants a new folder, and `{folder}` is there: name another, or remove it"
        raise ConfigurationError(message)


def _write(proposal: Tighter, folder: Path) -> None:
    """Write a folder that is whole: its files, the schema of the server beside them, and all else that the old one has.

    Raises:
        ConfigurationError: It cannot be written.
    """
    workspace = proposal.workspace
    texts = dict(proposal.files)
    place = f"{SERVERS}/{workspace.written.server}/" if is_for_several(texts) else ""
    texts[f"{place}{WRITTEN}"] = workspace.text
    files = {name: text.encode("utf-8", "surrogateescape") for name, text in texts.items()}
    old = Path(workspace.source.folder)
    try:
        # The manifest is of the old policies, and these are not yet what anybody has read.
        taken, left_out = carried(old, {*files, MANIFEST})
        files |= {name: content(old / name) for name in taken}
        for name, written in files.items():
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            # Nobody else may have put a file or a link there meanwhile.
            descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
            with os.fdopen(descriptor, "wb") as opened_file:
                opened_file.write(written)
    except OSError as error:
        message = f"--write `{folder}` cannot be written, {error.strerror}: name a folder in one that is yours"
        raise ConfigurationError(message) from None
    if left_out:
        say(f"agentguard: not copied, since it is a link, no file or too large: {printable(_some(tuple(left_out)))}")
    say(f"wrote {folder}: compare it with `diff -r`, then see `agentguard impact`")


def _word(usage: Usage, id_: str, use: Use) -> str:
    if not use.calls:
        return "unused" if id_ in usage.unused else "cannot_tell"
    return "too_wide" if usage.never(id_) else "in_use"


def _described(usage: Usage, proposal: Tighter | None) -> dict[str, object]:
    return {
        "folder": str(usage.workspace.folder),
        "policy_version": usage.workspace.policies.version,
        "decisions": usage.decisions,
        "allowed": usage.allowed,
        "by_other_versions": usage.by_others,
        "untold": usage.untold,
        "in_force_since": None if usage.since is None else iso(usage.since),
        "evidence_begins": None if usage.begins is None else iso(usage.begins),
        "first": None if usage.first is None else iso(usage.first),
        "last": None if usage.last is None else iso(usage.last),
        "permits": [
            {
                "id": id_,
                "file": usage.workspace.policies.policies[id_].file,
                "line": usage.workspace.policies.policies[id_].line,
                "owner": usage.workspace.policies.policies[id_].owner,
                "calls": use.calls,
                "last_allowed": None if use.last is None else iso(use.last),
                "verdict": _word(usage, id_, use),
                "shared": id_ in usage.shared,
                "actions": dict(sorted(use.actions.items())),
                "never": list(usage.never(id_)),
                "agents": dict(sorted(use.agents.items())),
                "purposes": dict(sorted(use.purposes.items())),
                "delegated": use.delegated,
            }
            for id_, use in usage.permits.items()
        ],
        "agents": {agent: dict(sorted(tools.items())) for agent, tools in sorted(usage.agents.items())},
        "not_done": {agent: list(names) for agent, names in sorted(not_done(usage).items())},
        "runs": {
            "runs": len(usage.runs),
            "most_tools": max(map(len, usage.runs.values()), default=0),
            "tools_on_average": sum(map(len, usage.runs.values())) / len(usage.runs) if usage.runs else 0.0,
        },
        "tighter": None
        if proposal is None
        else {
            "removed": list(proposal.removed),
            "narrowed": list(proposal.narrowed),
            "kinds_tried": proposal.allowed,
            "kinds_untold": proposal.untold,
        },
    }
