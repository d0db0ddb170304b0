"""`agentguard evidence`: verify it, look at it, hand it on, let go of what is old."""

from __future__ import annotations

import heapq
import json
import re
import time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from agentguard.cli.evidence_forward import forward
from agentguard.cli.evidence_table import table
from agentguard.cli.lazy import MARKUP
from agentguard.cli.options import JsonOption, point_in_time, seconds
from agentguard.cli.output import REFUSED, hint, result, result_json, say, terminal
from agentguard.errors import ConfigurationError
from agentguard.evidence.prune import prune as prune_folder
from agentguard.evidence.reading import evidence_folder, read_sources
from agentguard.evidence.reporting.ocsf import ocsf_events
from agentguard.evidence.reporting.report import report_page
from agentguard.evidence.reporting.retell import story_of
from agentguard.evidence.showing import Selection, explained, is_quiet, part_of, row_of
from agentguard.evidence.verify import prove
from agentguard.evidence.vocabulary import RecordKind
from agentguard.evidence.words import count
from agentguard.host.private import replace
from agentguard.limits import Limits
from agentguard.model import Reason, printable
from agentguard.policy.files.source import read_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from enum import StrEnum

    from agentguard.evidence.kept import Kept
    from agentguard.evidence.proof import Proof

_TOLD: Final = 20
_ROWS: Final = 100

app = typer.Typer(
    name="evidence",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=MARKUP,
    help="Verify the evidence, look at it, and let go of what is old.",
)

Sources = Annotated[
    list[Path],
    typer.Argument(metavar="SOURCE", help="State folders, their chains, or a collector's OTLP JSON lines."),
]
Folders = Annotated[list[Path], typer.Argument(metavar="FOLDER", help="State folders, or the evidence in them.")]
Against = Annotated[
    Path | None, typer.Option("--against", metavar="FILE", help="Compare with a collector's OTLP JSON lines.")
]
Key = Annotated[
    Path | None, typer.Option("--key", metavar="FILE", help="The public key of the heads, kept elsewhere (JWK).")
]


def _some(name: str, what: str) -> object:
    return typer.Option(name, metavar="NAME", help=what, show_default=False)


@app.command()
def verify(folders: Folders, *, against: Against = None, key: Key = None, as_json: JsonOption = False) -> None:
    """Say whether the evidence holds: chains, signed heads, gaps, order, clock.

    Exits with 0 only if all of it holds.

    Example: `agentguard evidence verify state --against export.jsonl`
    """
    with telling() as told:
        proof = prove(folders, told.append, key=key, against=against)
    if proof is None:
        message = (
            f"only a folder can be verified, got `{folders[0]}`: name a state folder, with --against for an export"
        )
        raise ConfigurationError(message)
    if as_json:
        result_json(_described(proof))
    else:
        for problem in proof.problems:
            result(f"wrong: {printable(problem)}")
        for note in proof.notes:
            result(f"note:  {printable(note)}")
        result(_summary(proof))
    _end(good=proof.holds and not told)


@app.command()
def show(
    sources: Sources,
    *,
    agent: Annotated[list[str] | None, _some("--agent", "Of this agent; may be repeated, as the others may.")] = None,
    user: Annotated[list[str] | None, _some("--user", "On behalf of this user.")] = None,
    task: Annotated[list[str] | None, _some("--task", "In this task.")] = None,
    run: Annotated[list[str] | None, _some("--run", "Of the run whose id begins so.")] = None,
    tool: Annotated[list[str] | None, _some("--tool", "Of this tool.")] = None,
    kind: Annotated[list[str] | None, _some("--kind", "Of this kind: decision, outcome, run, policy, …")] = None,
    effect: Annotated[
        Literal["allow", "deny"] | None, typer.Option("--effect", help="Decisions of this effect.")
    ] = None,
    reason: Annotated[list[str] | None, _some("--reason", "For this reason.")] = None,
    policy: Annotated[list[str] | None, _some("--policy", "That this policy determined.")] = None,
    decision: Annotated[list[str] | None, _some("--decision", "Of the decision whose id begins so.")] = None,
    policy_version: Annotated[list[str] | None, _some("--policy-version", "Under the version that begins so.")] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From 2026-11-24T09:30, or 2h ago, on.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before that.")] = None,
    limit: Annotated[
        int | None, typer.Option("--limit", min=1, metavar="N", help="The newest so many; 100 in a table.")
    ] = None,
    form: Annotated[Literal["table", "json", "ocsf"], typer.Option("--format", help="How they are written.")] = "table",
    as_json: JsonOption = False,
) -> None:
    """Show records, the newest last.

    As JSON they are a list, under names that stay; as OCSF each decision is a line.

    Example: `agentguard evidence show state --effect deny --since 1d`
    """
    if as_json and form == "ocsf":
        message = "--json and --format ocsf are two forms, got both: leave one out"
        raise ConfigurationError(message)
    _require_known("--kind", kind, RecordKind)
    _require_known("--reason", reason, Reason)
    now = time.time()
    selection = Selection(
        agents=frozenset(agent or ()),
        users=frozenset(user or ()),
        tasks=frozenset(task or ()),
        runs=tuple(run or ()),
        tools=frozenset(tool or ()),
        kinds=frozenset(kind or ()),
        effect=effect or "",
        reasons=frozenset(reason or ()),
        policy_ids=frozenset(policy or ()),
        decisions=tuple(decision or ()),
        versions=tuple(policy_version or ()),
        since=None if since is None else point_in_time(since, now=now),
        until=None if until is None else point_in_time(until, now=now),
    )
    wanted: Literal["table", "json", "ocsf"] = "json" if as_json else form
    with telling() as told:
        taken = filter(selection.takes, read_sources(sources, told.append))
        if wanted == "table":
            _draw(taken, limit or _ROWS, quiet=not kind, explain=bool(decision))
        elif wanted == "json":
            rows = ",\n".join(json.dumps(row_of(record)) for record in newest(taken, limit))
            result(f"[\n{rows}\n]" if rows else "[]")
        else:
            events = list(ocsf_events(newest(taken, None), version=version("agentguard")))
            for event in events[-limit:] if limit else events:
                result(json.dumps(event))
    _end(good=not told)


def _require_known(option: str, words: Iterable[str] | None, known: type[StrEnum]) -> None:
    """Pass only words that a record can have: a slip would look as if there were none."""
    names = [member.value for member in known]
    for word in words or ():
        if word not in names:
            message = f"{option} wants {', '.join(names)}, got `{printable(word)}`: name one of them"
            raise ConfigurationError(message)


def _draw(records: Iterable[Kept], limit: int, *, quiet: bool, explain: bool) -> None:
    """Draw records, the newest so many; without those that say only that all goes on, if *quiet*.

    What the width of a table cuts off of decisions stands below it whole, to *explain* them.
    """
    console = terminal()
    counted = _Counted(quiet=quiet)
    drawn = newest((record for record in counted.of(records) if not (quiet and is_quiet(record))), limit)
    if not counted.seen:
        say("no record matches")
        return
    if drawn:
        console.print(table(drawn, width=console.width))
    for record in drawn if explain else ():
        if record.kind == RecordKind.DECISION:
            result(printable(explained(record)))
    left = counted.seen - counted.quiet - len(drawn)
    if left:
        hint(f"and {count(left, 'older record')}: --limit shows more")
    if counted.quiet:
        (hint if drawn else say)(
            f"and {count(counted.quiet, 'record')} that say only that all goes on: --json shows them"
        )


class _Counted:
    """How many records passed, and how many of them a table leaves out."""

    def __init__(self, *, quiet: bool) -> None:
        self._leaves_out = quiet
        self.seen = self.quiet = 0

    def of(self, records: Iterable[Kept]) -> Iterator[Kept]:
        for record in records:
            self.seen += 1
            self.quiet += self._leaves_out and is_quiet(record)
            yield record


def newest(records: Iterable[Kept], limit: int | None) -> list[Kept]:
    """Return records in the order of time: the newest so many, or all of them."""
    if limit is None:
        return sorted(records, key=_when)
    return sorted(heapq.nlargest(limit, records, key=_when), key=_when)


def _when(record: Kept) -> tuple[int, str, int]:
    return record.time_unix_nano, record.chain_id, record.seq


@app.command()
def report(
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    sources: Sources,
    *,
    policies: Annotated[
        Path | None, typer.Option("--policies", metavar="FOLDER", help="The policies, for the names of their owners.")
    ] = None,
    since: Annotated[
        str | None, typer.Option("--since", metavar="TIME", help="From 2026-11-24T09:30, or 2h ago, on.")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", metavar="TIME", help="Before that.")] = None,
    against: Against = None,
    key: Key = None,
) -> None:
    """Write the evidence as one page to look at, with whether it holds.

    The page fetches nothing and runs nothing. Exits with 0 only if the evidence holds.

    Example: `agentguard evidence report report.html state --policies policies`
    """
    if out.suffix != ".html" or out.is_dir():
        message = f"the page wants a name that ends in .html, got `{out}`: agentguard evidence report OUT.html SOURCE"
        raise ConfigurationError(message)
    now = time.time()
    owners = None if policies is None else _owners(policies)
    selection = Selection(
        since=None if since is None else point_in_time(since, now=now),
        until=None if until is None else point_in_time(until, now=now),
    )
    with telling() as told:
        story = story_of(part_of(read_sources(sources, told.append), selection), owners)
        proof = prove(sources, told.append, key=key, against=against)
    page = report_page(
        story,
        now=now,
        proof=proof,
        sources=[str(source) for source in sources],
        unread=told,
        version=version("agentguard"),
    )
    try:
        replace(out, page.encode())
    except OSError as error:
        message = f"`{out}` cannot be written: {error.strerror}: name a file in a folder that is there"
        raise ConfigurationError(message) from None
    say(f"wrote {out}: {count(len(story.runs), 'run')}, {_summary(proof)}")
    _end(good=not told and proof is not None and proof.holds and not proof.unproved)


def _owners(folder: Path) -> dict[str, str]:
    return {policy.id: policy.owner for policy in read_folder(folder, Limits()).policies if policy.owner}


@app.command()
def prune(
    folders: Folders,
    *,
    older_than: Annotated[str, typer.Option("--older-than", metavar="TIME", help="How old: 90d, 36h.")],
) -> None:
    """Remove what is older than it has to be kept; what remains still verifies.

    Example: `agentguard evidence prune state --older-than 90d`
    """
    age = seconds(older_than)
    if not age > 0:
        message = f"--older-than wants an age, got `{older_than}`: say how long records are kept, such as 90d"
        raise ConfigurationError(message)
    good = True
    for folder in {evidence_folder(folder): folder for folder in folders}.values():
        done = prune_folder(folder, older_than=time.time() - age)
        for pruned in done:
            if pruned.refused:
                say(f"agentguard: {pruned.refused}")
                good = False
                continue
            lost = f", {pruned.undelivered:,} of them not delivered" if pruned.undelivered else ""
            result(
                f"{pruned.chain_id}: {count(pruned.removed, 'record')} removed{lost}, up to seq {pruned.begins_after}"
            )
        if not done:
            say(f"{folder}: nothing is older than {older_than}")
    _end(good=good)


app.command()(forward)


def _summary(proof: Proof | None) -> str:
    if proof is None:
        return "not verified: only a folder can be"
    where = f"{count(proof.records, 'record')} in {count(len(proof.chains), 'chain')}"
    against = f"; {printable(proof.compared_words())}" if proof.against else ""
    if proof.holds:
        return (
            f"the evidence holds: {where}, {count(sum(chain.heads for chain in proof.chains), 'signed head')}{against}"
        )
    return f"the evidence does not hold: {count(len(proof.problems), 'problem')} in {where}{against}"


def _described(proof: Proof) -> dict[str, object]:
    return {
        "holds": proof.holds,
        "problems": list(proof.problems),
        "notes": list(proof.notes),
        "against": proof.against or None,
        "chains": [
            {
                "chain_id": chain.chain_id,
                "records": chain.records,
                "first_seq": chain.first_seq,
                "last_seq": chain.last_seq,
                "first_hash": chain.first_hash,
                "last_hash": chain.last_hash,
                "heads": chain.heads,
                "key": chain.key or None,
                "whole": chain.whole,
                "compared": chain.compared,
                "compared_up_to": chain.compared_up_to or None,
            }
            for chain in proof.chains
        ],
    }


@contextmanager
def telling() -> Iterator[list[str]]:
    """Give a list for what cannot be read, and say what is in it at the end."""
    told: list[str] = []
    yield told
    # A file that is something else fails line by line, and all of it is one mistake.
    alike: dict[str, list[str]] = {}
    for line in told:
        alike.setdefault(re.sub(r":[0-9]+: ", ": ", line, count=1), []).append(line)
    for lines in list(alike.values())[:_TOLD]:
        say(f"agentguard: {lines[0]}{f', and {len(lines) - 1:,} more like it' if len(lines) > 1 else ''}")
    if left := sum(map(len, list(alike.values())[_TOLD:])):
        say(f"agentguard: and {left:,} more that could not be read")


def _end(*, good: bool) -> None:
    if not good:
        raise typer.Exit(REFUSED)
