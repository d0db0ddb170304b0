"""`agentguard revoke`: end one run, or all of an agent, a user, a task or an issuer."""

from __future__ import annotations

import sys
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.cli.issuing import open_store
from agentguard.cli.options import JsonOption, StoreOption, seconds
from agentguard.cli.output import REFUSED, confirmed, fail, on_terminal, result, result_json, say
from agentguard.errors import ConfigurationError
from agentguard.lifecycle.ended import Ended, Kind
from agentguard.lifecycle.local import ISSUER
from agentguard.lifecycle.states import COMPLETED, RunState
from agentguard.limits import Limits
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.lifecycle.store import RunRecord, Store

_LEEWAY: Final = Limits().leeway_seconds
_LEAST_PREFIX: Final = 8


def revoke(
    run_id: Annotated[
        str | None, typer.Argument(metavar="RUN_ID", help="The run, or the first 8 or more characters of its id.")
    ] = None,
    *,
    agent: Annotated[str | None, typer.Option(metavar="NAME", help="Every run of this agent.")] = None,
    user: Annotated[str | None, typer.Option(metavar="NAME", help="Every run on behalf of this user.")] = None,
    task: Annotated[str | None, typer.Option(metavar="NAME", help="Every run of this task.")] = None,
    everything: Annotated[bool, typer.Option("--all", metavar="", help="Every run of the issuer.")] = False,
    before: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Those alone that began before: 10m ago, or 2026-11-24T10:00Z.  [default: now]"
        ),
    ] = None,
    later_too: Annotated[
        bool,
        typer.Option("--later-too", metavar="", help="Those that are yet to begin as well. Nothing takes this back."),
    ] = False,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why, for whoever asks later.")] = "",
    issuer: Annotated[
        str | None, typer.Option(metavar="URL", help="Whose runs; the local issuer's if left out.")
    ] = None,
    store: StoreOption = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", metavar="", help="Do not ask before many runs are ended.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """End runs for good, wherever they are, with all that they delegated.

    Their calls in flight are stopped, and their tokens are refused.

    Example: `agentguard revoke --agent billing-agent --reason "leaked a key"`
    """
    named = [(Kind.RUN, run_id), (Kind.AGENT, agent), (Kind.USER, user), (Kind.TASK, task)]
    chosen = [(kind, name) for kind, name in named if name is not None] + [(Kind.ISSUER, "")] * everything
    if len(chosen) != 1:
        message = f"revoke wants one of RUN_ID, --agent, --user, --task and --all, got {len(chosen)}: name what to end"
        raise ConfigurationError(message)
    ((kind, name),) = chosen
    if (before is not None or later_too) and kind is Kind.RUN:
        message = "--before and --later-too choose among several runs, got them beside a run's id: leave them out"
        raise ConfigurationError(message)
    if before is not None and later_too:
        message = "wants --before or --later-too, got both: leave one out"
        raise ConfigurationError(message)
    if reason.partition(":")[0].strip().lower() == COMPLETED:
        # It would be on record as one that came to its own end.
        message = f"--reason wants why it is ended, got `{reason}`, which a run says of itself: use other words"
        raise ConfigurationError(message)
    cutoff = None if later_too else _moment(before, time.time())
    with closing(open_store(store, existing=True)) as opened:
        if kind is Kind.RUN:
            _revoke_run(opened, name, issuer=issuer, local=store is None, reason=reason, as_json=as_json)
            return
        whose = _issuer(opened.runs(), issuer, local=store is None)
        what = f"{kind} `{printable(name or whose)}`" + (f" of `{whose}`" if name and whose != ISSUER else "")
        ended = Ended(issuer=whose, kind=kind, name=name, cutoff=None if cutoff is None else cutoff + _LEEWAY)
        live = _live(opened)
        if not yes:
            _confirm(ended, what, _count(live, ended))
        opened.revoke_all(issuer=whose, kind=kind, name=name, issued_before=cutoff, reason=reason)
        stopped = _stopped(opened, live)
    if as_json:
        result_json(_described(whose, kind, name, stopped, cutoff=cutoff, known=True))
        return
    result(_told_of_many(ended, what, len(stopped)))
    if not later_too and before is None:
        say(
            f"runs that begin in the next {_LEEWAY} s are ended too; later ones are not: --later-too ends those as well"
        )


def _told_of_many(ended: Ended, what: str, stopped: int) -> str:
    """Return how many runs were seen to end; where there was none, that what is out is worth nothing."""
    if stopped:
        return f"ended {_runs(stopped)} of {what}"
    if ended.cutoff is None:
        refused = "what is issued is refused, for good"
    else:
        refused = f"what was issued before {datetime.fromtimestamp(ended.cutoff, UTC):%Y-%m-%d %H:%M:%S} UTC is refused"
    return f"no live run of {what} is on record here: {refused}"


def _revoke_run(store: Store, name: str, *, issuer: str | None, local: bool, reason: str, as_json: bool) -> None:
    records = store.runs()
    record = _find(records, name, issuer)
    whose = _issuer(records, issuer, local=local) if record is None else record.issuer
    run_id = name if record is None else record.run_id
    # Kept until its last token is over; without an end on record, for ever.
    until = None if record is None else record.ends_at + _LEEWAY
    live = _live(store)
    store.revoke(issuer=whose, run_id=run_id, reason=reason, until=until)
    stopped = _stopped(store, live)
    if as_json:
        result_json(_described(whose, Kind.RUN, run_id, stopped, cutoff=None, known=record is not None))
    if record is None and issuer is not None and not any(known.issuer == issuer for known in records):
        # That issuer's runs are on record elsewhere, if at all: nothing is amiss.
        if not as_json:
            result(f"run {run_id} of {issuer} is not on record here: its tokens are refused from now on")
        return
    if record is None:
        fail(
            f"no run `{run_id}` of `{whose}` is on record here; it is revoked all the same, should there be one: "
            "compare its id with `agentguard runs --all`",
            REFUSED,
        )
    if not as_json:
        result(_told(record, len(stopped) - 1))


def _told(record: RunRecord, below: int) -> str:
    """Return what became of a run that was found, and of the live ones below it."""
    if not record.state.live:
        return f"run {record.run_id} was over already: {record.state}"
    return f"ended run {record.run_id} of {printable(record.agent)}" + (
        f", and {_runs(below)} below it" if below else ""
    )


def _find(records: Sequence[RunRecord], name: str, issuer: str | None) -> RunRecord | None:
    """Return the run that is meant: by its id, or by how its id begins if that is enough to tell."""
    ours = [record for record in records if issuer in (None, record.issuer)]
    exact = [record for record in ours if record.run_id == name]
    found = exact or [record for record in ours if record.run_id.startswith(name)]
    if found and not exact and len(name) < _LEAST_PREFIX:
        message = f"a short id wants {_LEAST_PREFIX} characters or more, got `{name}`: give more of it"
        raise ConfigurationError(message)
    if len(found) > 1:
        message = f"`{name}` wants to name one run, got {len(found)}: give the whole id, and --issuer"
        raise ConfigurationError(message)
    return found[0] if found else None


def _issuer(records: Sequence[RunRecord], issuer: str | None, *, local: bool) -> str:
    if issuer is not None:
        return issuer
    if local:
        return ISSUER
    found = sorted({record.issuer for record in records})
    if len(found) != 1:
        names = ", ".join(f"`{name}`" for name in found) or "none"
        message = f"whose runs are meant is not clear; the store has runs of {names}: add --issuer URL"
        raise ConfigurationError(message)
    return found[0]


def _moment(text: str | None, now: float) -> float:
    """Return unix seconds from a time, or from how long ago."""
    if text is None:
        return now
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return max(0.0, now - seconds(text.removesuffix(" ago")))
    if moment.tzinfo is None:
        message = f"--before wants a time with its zone, got `{text}`: add Z for UTC"
        raise ConfigurationError(message)
    if moment.timestamp() > now:
        # Nobody who asks for it wants to end what is yet to begin without being told so.
        message = f"--before wants a time that has passed, got `{text}`: for runs that are yet to begin, --later-too"
        raise ConfigurationError(message)
    return moment.timestamp()


def _live(store: Store) -> tuple[RunRecord, ...]:
    return tuple(record for record in store.runs() if record.state.live)


def _count(live: Sequence[RunRecord], ended: Ended) -> int:
    covered = {record.run_id for record in live if ended.covers(record)}
    return sum(1 for record in live if covered & {record.run_id, *record.ancestors})


def _stopped(store: Store, live: Sequence[RunRecord]) -> list[RunRecord]:
    """Return which of the runs that were live have been revoked since."""
    revoked = {(record.issuer, record.run_id) for record in store.runs() if record.state is RunState.REVOKED}
    return [record for record in live if (record.issuer, record.run_id) in revoked]


def _confirm(ended: Ended, what: str, count: int) -> None:
    later = ", and every later one, for good" if ended.cutoff is None else ""
    if not on_terminal(sys.stdin):
        message = f"this ends {_runs(count)} of {what}{later}: confirm with --yes, there is no terminal to ask on"
        raise ConfigurationError(message)
    if not confirmed(f"End {_runs(count)} of {what}{later}?"):
        fail("given up: nothing was ended", REFUSED)


def _described(
    issuer: str, kind: Kind, name: str, stopped: Sequence[RunRecord], *, cutoff: float | None, known: bool
) -> dict[str, object]:
    return {
        "issuer": issuer,
        "kind": kind.value,
        "name": name,
        "issued_before": cutoff,
        "known": known,
        "ended": [record.run_id for record in stopped],
    }


def _runs(count: int) -> str:
    return "1 live run" if count == 1 else f"{count} live runs"
