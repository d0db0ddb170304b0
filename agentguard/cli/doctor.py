"""`agentguard doctor`: the field's checklist, answered from configuration and evidence."""

from __future__ import annotations

import os
import pwd
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import anyio
import typer
from rich.table import Table
from rich.text import Text

from agentguard.analysis.checking.check import check
from agentguard.analysis.finding import Severity
from agentguard.analysis.health.clock import seconds_apart
from agentguard.analysis.health.diagnosis import Area, bad, doubtful, in_order
from agentguard.analysis.health.doctor import (
    of_access,
    of_clock,
    of_exporter,
    of_habits,
    of_policies,
    of_proof,
    of_volume,
)
from agentguard.analysis.health.habits import habits_of
from agentguard.analysis.health.surroundings import MOUNTS
from agentguard.cli.evidence import telling
from agentguard.cli.opening import FolderArgument
from agentguard.cli.options import JsonOption, point_in_time
from agentguard.cli.output import REFUSED, draw, hint, result_json, say, terminal
from agentguard.cli.project import evidence_folders, policies_folder
from agentguard.cli.replaying import EvidenceOption, records
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.evidence.reading import evidence_folder
from agentguard.evidence.verify import prove
from agentguard.limits import Limits
from agentguard.model import printable
from agentguard.policy.files.source import survey_folder

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.analysis.health.diagnosis import Diagnosis
    from agentguard.analysis.health.habits import Habits

_LIMITS: Final = Limits()
# A sign, and two blanks behind the area and behind it.
_GAPS: Final = 5
_SIGNS: Final = {Severity.ERROR: ("✗", "bold red"), Severity.WARNING: ("!", "bold yellow"), None: ("✓", "green")}


def doctor(
    folder: FolderArgument = None,
    *,
    evidence: EvidenceOption = None,
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="NAME|UID", help="Who runs the server; else whoever owns the evidence."),
    ] = None,
    issuer: Annotated[
        str | None,
        typer.Option("--issuer", metavar="URL", help="Ask this issuer for the time; nothing else goes anywhere."),
    ] = None,
    since: Annotated[
        str, typer.Option("--since", metavar="TIME", help="Look at what was from 2026-11-24T09:30, or 30d ago, on.")
    ] = "30d",
    as_json: JsonOption = False,
) -> None:
    """Answer the checklist for agents and their identities, from configuration and evidence.

    Whether identities are shared, runs end, policies and agents have owners, who can write to
    the policies, whether the evidence holds and lasts. Each answer that is not good names the
    controls that it touches: OWASP's lists for agents (ASI) and for non-human identities
    (NHI), and the tenets of NIST SP 800-207.

    Exits with 1 if somebody has to act or to look, with 2 if it could not run.

    Example: `agentguard doctor policies --evidence state`
    """
    sources = _evidence(evidence)
    policies = _policies(folder)
    if not sources and policies is None:
        message = "wants policies or evidence, got neither: name a policy folder, or --evidence SOURCE"
        raise ConfigurationError(message)
    now = time.time()
    habits = _habits(sources, now=now, since=point_in_time(since, now=now))
    found = [*_of_evidence(sources, habits, now), *_of_policies(policies, sources, user, habits)]
    if issuer is not None:
        found.append(of_clock(issuer, anyio.run(seconds_apart, issuer), _LIMITS))
    elif not as_json:
        hint("this clock is compared with no issuer's: name one with `--issuer URL`")
    told = in_order(found)
    if as_json:
        result_json({"version": 1, "counts": _counts(told), "diagnoses": [_described(one) for one in told]})
    else:
        draw(_table(told, terminal().width), _summary(_counts(told)))
    if any(one.fails for one in told):
        raise typer.Exit(REFUSED)


def _evidence(given: Sequence[Path] | None) -> tuple[Path, ...]:
    """Return the evidence to look at; none if there is none to be found."""
    if given:
        return tuple(given)
    try:
        return evidence_folders(None)
    except ConfigurationError as error:
        say(f"agentguard: no evidence is looked at: {error}")
        return ()


def _policies(given: Path | None) -> Path | None:
    """Return the policy folder to look at; None if there is none to be found."""
    try:
        return policies_folder(given)
    except ConfigurationError as error:
        say(f"agentguard: no policy is looked at: {error}")
        return None


def _habits(evidence: Sequence[Path], *, now: float, since: float) -> Habits:
    with telling() as told:
        return habits_of(records(evidence, told.append), since=since, now=now)


def _of_evidence(evidence: Sequence[Path], habits: Habits, now: float) -> Iterator[Diagnosis]:
    if not evidence:
        yield doubtful(Area.EVIDENCE, "no-evidence", "none is looked at, so nothing is said of agents: name it")
        return
    yield from of_habits(habits, now=now)
    folders = [path for path in evidence if path.is_dir()]
    try:
        yield from of_proof(prove(folders, say))
    except ConfigurationError as error:
        yield bad(Area.EVIDENCE, "broken-evidence", f"it cannot be verified: {error}")
    mounts = _mounts()
    for folder in folders:
        yield from of_volume(folder, mounts, now=now)
    yield of_exporter(folders, os.environ, now=now)


def _of_policies(
    folder: Path | None, evidence: Sequence[Path], user: str | None, habits: Habits
) -> Iterator[Diagnosis]:
    if folder is None:
        return
    try:
        checked = check(folder, _LIMITS)
        source, _ = survey_folder(folder, _LIMITS)
    except PolicyError as error:
        yield bad(Area.POLICY, "broken-policies", str(error))
        return
    yield from of_policies(folder, checked, source, habits.agents)
    number = _user(user, evidence)
    if number is not None:
        called, groups = _called(number)
        yield of_access(folder, user=number, groups=groups, called=called)


def _user(given: str | None, evidence: Sequence[Path]) -> int | None:
    """Return the number of the user that runs the server; None if nothing tells.

    Raises:
        ConfigurationError: There is no such user.
    """
    if given is None:
        folder = next((path for path in evidence if path.is_dir()), None)
        return None if folder is None else evidence_folder(folder).stat().st_uid
    if given.isascii() and given.isdigit():
        return int(given)
    try:
        return pwd.getpwnam(given).pw_uid
    except KeyError:
        message = f"--user wants a user of this host, or a number, got `{given}`: write its number"
        raise ConfigurationError(message) from None


def _called(number: int) -> tuple[str, frozenset[int]]:
    """Return how a user is called, and the groups that it is in; a container's need not be known here."""
    try:
        known = pwd.getpwuid(number)
    except (KeyError, OverflowError):
        return f"uid {number}", frozenset()
    return f"`{known.pw_name}` (uid {number})", frozenset(os.getgrouplist(known.pw_name, known.pw_gid))


def _mounts() -> str:
    try:
        return MOUNTS.read_text("utf-8", "surrogateescape")
    except OSError:
        return ""


def _counts(told: Sequence[Diagnosis]) -> dict[str, int]:
    counts = {severity.value: sum(one.severity is severity for one in told) for severity in Severity}
    return {**counts, "good": sum(one.severity is None for one in told)}


def _described(one: Diagnosis) -> dict[str, object]:
    return {
        "area": one.area.value,
        "name": one.name,
        "severity": None if one.severity is None else one.severity.value,
        "what": one.what,
        "controls": list(one.controls),
    }


def _table(told: Sequence[Diagnosis], width: int) -> Table:
    drawn = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    drawn.add_column("area", no_wrap=True, style="bold")
    drawn.add_column("sign", no_wrap=True)
    drawn.add_column("what", overflow="fold")
    room = width - max(len(one.area.value) for one in told) - _GAPS
    area = None
    for one in told:
        sign, style = _SIGNS[one.severity]
        what = Text(printable(one.what))
        if one.severity is not None:
            controls = f"{one.name} · {' · '.join(one.controls)}"
            # On a line of their own, unless all of it has room on one.
            what.append("  " if len(what) + 2 + len(controls) <= room else "\n").append(controls, style="dim")
        drawn.add_row("" if one.area is area else one.area.value, Text(sign, style=style), what)
        area = one.area
    return drawn


def _summary(counts: dict[str, int]) -> str:
    errors, warnings = counts["error"], counts["warning"]
    parts = (
        f"{errors or 'no'} error{'' if errors == 1 else 's'}",
        f"{warnings or 'no'} warning{'' if warnings == 1 else 's'}",
        f"{counts['good']} good",
    )
    return ", ".join(parts)
