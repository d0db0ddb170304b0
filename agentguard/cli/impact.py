"""`agentguard impact`: what other policies would have made of the calls on record."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from agentguard.analysis.history.hindsight import Hindsight
from agentguard.analysis.history.impact import Change, impact_of
from agentguard.cli.evidence import telling
from agentguard.cli.opening import opened
from agentguard.cli.options import JsonOption
from agentguard.cli.output import REFUSED, draw, fail, result_json, terminal
from agentguard.cli.project import evidence_folders, find_project, policies_folder
from agentguard.cli.replaying import EvidenceOption, SinceOption, UntilOption, lasting, period, records
from agentguard.errors import ConfigurationError
from agentguard.evidence.words import count, iso
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from agentguard.analysis.history.impact import Changed, Impact, Tally, Untold

_STYLES: Final = {
    Change.DENIED: "red",
    Change.ASKED: "yellow",
    Change.ALLOWED: "green",
    Change.REASON: "",
}
_WIDE: Final = 100


def impact(
    first: Annotated[
        Path | None,
        typer.Argument(metavar="OLD", help="The policies in force; else the project's, or ./policies."),
    ] = None,
    second: Annotated[
        Path | None,
        typer.Argument(metavar="NEW", help="The others; may be named alone. Else the project's `next`."),
    ] = None,
    *,
    evidence: EvidenceOption = None,
    since: SinceOption = None,
    until: UntilOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say what other policies would have made of the calls that are on record.

    Each recorded decision is replayed under NEW: what would be newly denied, newly
    allowed, or asked of a person, by agent, tool and policy. The evidence keeps a digest
    of most arguments, so of some calls it cannot be told: they are counted, with what it
    would take. Where NEW has judged in the shadow, what it said then is taken.

    Exits with 1 if something would change, or of some calls cannot be told; with 2 if it
    could not run, or there is nothing to replay.

    Example: `agentguard impact policies next --evidence state --since 30d`
    """
    old_folder, new_folder = _folders(first, second)
    sources = evidence_folders(evidence)
    begin, end = period(since, until)
    old, new = opened(old_folder), opened(new_folder)
    with telling() as told:
        found = impact_of(records(sources, told.append), Hindsight(old, new), since=begin, until=end)
    if not found.decisions:
        fail("the evidence holds no decision of that time: name other evidence, or an earlier --since")
    under = found.versions[old.policies.version]
    if as_json:
        document = _described(found)
        document["old"] = {"folder": str(old.folder), "policy_version": old.policies.version, "decisions": under}
        document["new"] = {"folder": str(new.folder), "policy_version": new.policies.version}
        result_json(document)
    else:
        _draw(found, others=found.decisions - under, changed=new.policies.version != old.policies.version)
    if found.changes or found.cannot_tell:
        raise typer.Exit(REFUSED)


def _folders(first: Path | None, second: Path | None) -> tuple[Path, Path]:
    """Return the old folder and the new one.

    Raises:
        ConfigurationError: One of them is not said.
    """
    if first is not None and second is not None:
        return first, second
    if first is not None:
        return policies_folder(None), first
    project = find_project()
    if project is None or project.next is None:
        message = (
            "`agentguard impact` wants the folder of the other policies, got none: name it, "
            'or write `next = "FOLDER"` into agentguard.toml or [tool.agentguard] of pyproject.toml'
        )
        raise ConfigurationError(message)
    return policies_folder(None), project.next


def _draw(found: Impact, *, others: int, changed: bool) -> None:
    newest = terminal().width >= _WIDE
    same = f"{found.same:,} would be as {'it was' if found.same == 1 else 'they were'}"
    parts: list[str | Text | Table] = [
        f"{count(found.decisions, 'decision')} {lasting(found.first, found.last)}: {same}"
    ]
    if others:
        parts.append(f"{count(others, 'decision')} by another version of the policies than that of OLD")
    if found.by_shadow:
        parts.append(f"{count(found.by_shadow, 'decision')} that NEW judged in the shadow, as it was made")
    for why, number in sorted(found.not_judged.items(), key=lambda item: -item[1]):
        parts.append(f"{count(number, 'decision')} that no policy can change: {printable(why)}")
    for change in Change:
        alike = [(one, tally) for one, tally in found.changed.items() if one.change is change]
        if alike:
            parts += ["", Text(change.value, style=_STYLES[change]), _changes(alike, newest=newest)]
    if found.untold:
        parts += ["", "cannot be told", _untold(found.untold.items(), newest=newest)]
        for action, arguments, calls in found.worth_recording():
            names = "".join(f'"{name}", ' for name in arguments)
            kept = f"({names.removesuffix(', ') if len(arguments) > 1 else names.removesuffix(' ')})"
            told = f"would have told {calls:,} of them"
            parts.append(f"  {printable(action)}: `@guard.tool(record_inputs={printable(kept)})` {told}")
        # A server that is wrapped has no decorator, and the evidence does not say which it is.
        parts.append("  or have NEW judge in the shadow: `Guard(shadow=…)`, `wrap --shadow`")
    draw(*parts, "", _summary(found, changed=changed))


def _summary(found: Impact, *, changed: bool) -> str:
    parts = [_counted_as(change, number) for change in Change if (number := found.of(change))]
    if not parts and found.cannot_tell:
        parts = ["nothing that can be told would change"]
    elif not parts:
        parts = ["nothing would change" if changed else "nothing would change: OLD and NEW are the same"]
    if found.cannot_tell:
        parts.append(f"{found.cannot_tell:,} cannot be told")
    return ", ".join(parts)


def _counted_as(change: Change, number: int) -> str:
    # Of several calls, in the plural.
    return f"{number:,} {change.value if number == 1 else change.value.replace('needs', 'need')}"


def _changes(items: Iterable[tuple[Changed, Tally]], *, newest: bool) -> Table:
    drawn = _table("agent", "tool", "by", newest=newest)
    alike: dict[tuple[str, str, str], list[Tally]] = {}
    for changed, tally in sorted(items, key=lambda item: (-item[1].calls, item[0])):
        grant = ", and its grant" if changed.within_grant else ""
        # What they were decided by before is not always shown, so several may look the same.
        alike.setdefault((changed.agent, changed.action, _by(changed) + grant), []).append(tally)
    rows = {row: _summed(tallies) for row, tallies in alike.items()}
    for (agent, action, by), tally in sorted(rows.items(), key=lambda item: -item[1].calls):
        drawn.add_row(
            Text(f"  {printable(agent)}"),
            Text(printable(action)),
            Text(printable(by)),
            *_counts(tally, newest=newest),
        )
    return drawn


def _summed(tallies: Sequence[Tally]) -> Tally:
    """Return several tallies as one."""
    latest = max(tallies, key=lambda tally: tally.latest)
    return replace(latest, calls=sum(tally.calls for tally in tallies))


def _by(changed: Changed) -> str:
    """Return, in few words, which policy changes what becomes of a call."""
    if changed.change is Change.REASON:
        before = ", ".join(changed.before_ids) or changed.before
        return f"{', '.join(changed.after_ids) or changed.after}, not {before}"
    if changed.after_ids:
        # Where its reason cannot be told, another policy may have a part in it.
        return f"{', '.join(changed.after_ids)}{'' if changed.after else ', perhaps others'}"
    # Where nothing permits any more, what permitted before is what somebody looks for.
    before = ", ".join(changed.before_ids)
    return f"{changed.after or 'denied'}, before: {before}" if before else changed.after or "denied"


def _untold(items: Iterable[tuple[Untold, Tally]], *, newest: bool) -> Table:
    drawn = _table("tool", "because it is not on record", newest=newest)
    for untold, tally in sorted(items, key=lambda item: (-item[1].calls, item[0])):
        drawn.add_row(
            Text(f"  {printable(untold.action)}"),
            Text(printable(", ".join(untold.doubts) or untold.why)),
            *_counts(tally, newest=newest),
        )
    return drawn


def _table(*columns: str, newest: bool) -> Table:
    """Return a table whose last columns say how many calls there are, and which the newest is if there is room."""
    drawn = Table(box=None, pad_edge=False, header_style="dim", padding=(0, 2, 0, 0))
    for place, name in enumerate(columns):
        drawn.add_column(name if place else f"  {name}", overflow="fold")
    drawn.add_column("calls", justify="right", no_wrap=True)
    if newest:
        # A decision's id is for `agentguard explain`; what changes is told without it.
        drawn.add_column("newest", no_wrap=True)
    return drawn


def _counts(tally: Tally, *, newest: bool) -> tuple[str, ...]:
    return (f"{tally.calls:,}", printable(tally.example)) if newest else (f"{tally.calls:,}",)


def _described(found: Impact) -> dict[str, object]:
    return {
        "decisions": found.decisions,
        "first": None if found.first is None else iso(found.first),
        "last": None if found.last is None else iso(found.last),
        "as_before": found.same,
        "changed": found.changes,
        "cannot_tell": found.cannot_tell,
        "told_by_shadow": found.by_shadow,
        "not_judged": dict(found.not_judged),
        "policy_versions": dict(found.versions),
        "changes": [
            {
                "change": changed.change.value,
                "agent": changed.agent,
                "tool": changed.action,
                "before": {"reason": changed.before, "policy_ids": list(changed.before_ids)},
                "after": {"reason": changed.after or None, "policy_ids": list(changed.after_ids)},
                "within_grant": changed.within_grant,
                **_counted(tally),
            }
            for changed, tally in sorted(found.changed.items(), key=lambda item: (-item[1].calls, item[0]))
        ],
        "untold": [
            {
                "tool": untold.action,
                "unknown": list(untold.doubts),
                "arguments": list(untold.arguments),
                "why": untold.why or None,
                **_counted(tally),
            }
            for untold, tally in sorted(found.untold.items(), key=lambda item: (-item[1].calls, item[0]))
        ],
        "record_inputs": [
            {"tool": action, "arguments": list(arguments), "decisions": calls}
            for action, arguments, calls in found.worth_recording()
        ],
    }


def _counted(tally: Tally) -> dict[str, object]:
    return {"decisions": tally.calls, "newest": tally.example, "newest_at": iso(tally.latest)}
