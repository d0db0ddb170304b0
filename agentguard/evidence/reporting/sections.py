"""The sections of the page: each shows one thing that a story tells."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from agentguard.evidence.reporting.lanes import SHORT, ending, key, kind_of, lanes, why, window_of
from agentguard.evidence.reporting.markup import Markup, element, table
from agentguard.evidence.reporting.notable import notable
from agentguard.evidence.reporting.story import REASONS
from agentguard.evidence.vocabulary import RunEnd
from agentguard.evidence.words import count, iso, moment, span

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.evidence.proof import Proof, ProvenChain
    from agentguard.evidence.reporting.story import Call, PolicyVersion, Run, RunKey, Story

MOST_LANES: Final = 40
"""How many runs the picture shows."""

MOST_ROWS: Final = 500
"""How many rows a table has."""

_MOST_CHANGES: Final = 20
_MOST_LINES: Final = 40
_MOST_NAMES: Final = 4
_HASH_CHARACTERS: Final = 12


def runs_section(
    story: Story,
    rows: Sequence[Run],
    anchors: Mapping[RunKey, str],
    changes: Sequence[tuple[float, str]],
    now: float,
) -> Markup:
    """Return the picture of the runs, and the tables behind it."""
    shown = foremost(rows, MOST_LANES)
    window = window_of(shown, since=story.since, until=story.until)
    rest = len(story.runs) - len(shown)
    return element(
        "section",
        element("h2", "Runs, their authority and its end"),
        element(
            "p",
            "Who acted, for whom, for how long. What was granted and not used up shows pale to the right of the end. "
            "Times are UTC.",
            class_="mut",
        ),
        [
            key(),
            lanes(shown, window, now=now, anchors=anchors, changes=changes),
            element(
                "p",
                f"{count(rest, 'more run')} not in this picture: it shows those with withheld results, those "
                "that did not complete, and those with denials first.",
                class_="mut",
            )
            if rest
            else None,
            _run_rows(story, rows, anchors, now),
            _call_rows(story, anchors),
        ]
        if shown
        else element("p", "No run is on record."),
        id="picture",
    )


def foremost(runs: Sequence[Run], most: int) -> Sequence[Run]:
    """Return at most so many runs, those that most is to be seen in, in the order that they had."""
    if len(runs) <= most:
        return runs

    def interest(run: Run) -> tuple[bool, bool, bool, int]:
        return (run.withheld > 0, run.end != RunEnd.COMPLETED, run.denied > 0, len(run.calls))

    chosen = {run.key for run in sorted(runs, key=interest, reverse=True)[:most]}
    return [run for run in runs if run.key in chosen]


def _run_rows(story: Story, rows: Sequence[Run], anchors: Mapping[RunKey, str], now: float) -> Markup:
    left = len(story.runs) - len(rows)
    return element(
        "details",
        element("summary", "The runs as a table"),
        table(
            f"{count(len(rows), 'run')}{f' of {len(story.runs):,}' if left else ''}, each after the one above it",
            ("run", "issued", "granted", "had", "end", "allowed", "denied", "withheld"),
            [_run_row(run, anchors[run.key], now) for run in rows],
            numbers=3,
        ),
    )


def _run_row(run: Run, anchor: str, now: float) -> Markup:
    begun = run.first_at if run.issued_at is None else run.issued_at
    said = [
        run.task and f"task {run.task}",
        run.user and f"for {run.user}",
        run.purpose and f"“{run.purpose}”",
        run.grade and f"grade {run.grade}",
        run.parent and f"from run {run.parent[1]}",
    ]
    ended = "" if run.ended_at is None else f"{moment(run.ended_at)} "
    return element(
        "tr",
        element(
            "th",
            run.agent or "no name",
            element("small", " · ".join(part for part in said if part)),
            element("small", element("code", run.id), f" of {run.key[0]}" if run.key[0] else None),
            scope="row",
        ),
        element("td", element("time", moment(begun), datetime=iso(begun))),
        element("td", "not on record" if run.granted is None else span(run.granted), class_="mark"),
        element("td", span(run.had_until(now) - begun), class_="mark"),
        element("td", ended, ending(run, now)),
        [element("td", f"{number:,}", class_="n") for number in (run.allowed, run.denied, run.withheld)],
        id=anchor,
        tabindex="-1",
    )


def _call_rows(story: Story, anchors: Mapping[RunKey, str]) -> Markup | None:
    """Return the calls that did not simply run, the latest ones."""
    found: list[tuple[Call, Run | None]] = [
        (call, run) for run in story.runs for call in run.calls if kind_of(call) != "allowed"
    ]
    found += [(call, None) for call in story.strangers]
    found.sort(key=lambda pair: pair[0].at)
    shown = found[-MOST_ROWS:]
    if not shown:
        return None
    caption = f"{count(len(shown), 'call')}{f', the latest of {len(found):,}' if len(found) > len(shown) else ''}"
    return element(
        "details",
        element("summary", "Every call that was denied, stopped or withheld"),
        table(
            caption,
            ("time", "call", "what", "why", "by", "decision"),
            [_call_row(call, run, anchors) for call, run in shown],
        ),
    )


def _call_row(call: Call, run: Run | None, anchors: Mapping[RunKey, str]) -> Markup:
    kind = kind_of(call)
    # A tool that names no resource acts on itself.
    about = call.resource and call.resource != f"Tool {call.tool}"
    by: Markup | str = "nobody who could be verified"
    if run is not None:
        name = f"{run.agent}, run {run.id[:SHORT]}"
        by = element("a", name, href=f"#{anchors[run.key]}") if run.key in anchors else name
    return element(
        "tr",
        element("td", element("time", moment(call.at), datetime=iso(call.at))),
        element("th", call.tool, element("small", call.resource) if about else None, scope="row"),
        element("td", kind),
        element("td", why(call) if kind == "denied" else REASONS.get(call.stopped_by, call.stopped_by)),
        element("td", by),
        element("td", element("code", call.decision_id)),
    )


def denials_section(story: Story) -> Markup:
    """Return why calls were denied, and who answers for that."""
    if not story.denials:
        return element("section", element("h2", "Why calls were denied"), element("p", "No call was denied."))
    most = max(denial.calls for denial in story.denials)
    owned = any(denial.owner for denial in story.denials)
    shown = story.denials[:MOST_ROWS]
    rows = [
        element(
            "tr",
            element(
                "th",
                element("code", denial.policy_id) if denial.policy_id else REASONS.get(denial.reason, denial.reason),
                element("small", REASONS.get(denial.reason, denial.reason))
                if denial.policy_id and denial.reason != "policy"
                else None,
                scope="row",
            ),
            element(
                "td",
                element("data", f"{denial.calls:,}", value=str(denial.calls)),
                element(
                    "svg",
                    element("rect", width=f"{round(100 * denial.calls / most, 2)}%", height="12", rx="2"),
                    width="100%",
                    height="12",
                    aria_hidden="true",
                ),
                class_="bar",
            ),
            element("td", _names(denial.tools)),
            element("td", _names(denial.agents)),
            element("td", denial.owner or "—") if owned else None,
        )
        for denial in shown
    ]
    return element(
        "section",
        element("h2", "Why calls were denied"),
        table(
            "A call that two policies deny counts for both." + ("" if owned else _why_no_owner(story)),
            ("policy, or reason", "calls", "tools", "agents", *(("owner",) if owned else ())),
            rows,
        ),
        id="denials",
    )


def _why_no_owner(story: Story) -> str:
    if not any(denial.policy_id for denial in story.denials):
        return ""
    if story.owners_known:
        return " None of these policies has an `@owner`."
    return " Give the folder of policies, and their owners are named here."


def _names(names: Sequence[str]) -> str:
    more = len(names) - _MOST_NAMES
    return ", ".join(names[:_MOST_NAMES]) + (f" and {more} more" if more > 0 else "") or "—"


def policy_changes(story: Story) -> list[tuple[float, str]]:
    """Return when policies came into force, or were refused, and how that is marked in the picture."""
    return [
        (version.first_at if version.activated_at is None else version.activated_at, f"P{number}")
        for number, version in enumerate(_listed(story), 1)
    ]


def _listed(story: Story) -> Sequence[PolicyVersion]:
    return [version for version in story.versions if version.version or version.refused][-_MOST_CHANGES:]


def policies_section(story: Story, changes: Sequence[tuple[float, str]]) -> Markup:
    """Return the versions of the policies, those that were refused among them."""
    listed = _listed(story)
    older = sum(bool(version.version or version.refused) for version in story.versions) - len(listed)
    unasked = sum(version.decisions for version in story.versions if not version.version)
    return element(
        "section",
        element("h2", "Under which policies"),
        table(
            "The marks stand in the picture above." + (f" {older} older ones are left out." if older else ""),
            ("", "version", "in force since", "decisions", "denied"),
            [_version_row(version, mark) for version, (_, mark) in zip(listed, changes, strict=True)],
            numbers=2,
        )
        if listed
        else element("p", "No policy version is on record."),
        element("p", f"{count(unasked, 'decision')} before any policy was asked.", class_="mut") if unasked else None,
        id="policies",
    )


def _version_row(version: PolicyVersion, mark: str) -> Markup:
    since = version.first_at if version.activated_at is None else version.activated_at
    when = element("time", moment(since, "%Y-%m-%d %H:%M"), datetime=iso(since))
    if version.refused:
        return element(
            "tr",
            element("td", mark, class_="mark"),
            element(
                "th",
                element("span", "refused", class_="tag alarm"),
                version.refused,
                element("small", "the version before it stayed in force"),
                scope="row",
            ),
            element("td", when),
            element("td", "—", class_="n"),
            element("td", "—", class_="n"),
        )
    starts = f"{count(version.starts, 'start')} of a server" if version.starts else None
    return element(
        "tr",
        element("td", mark, class_="mark"),
        element(
            "th",
            element("code", _digest(version.version)),
            element("small", version.label) if version.label else None,
            scope="row",
        ),
        element("td", when, element("small", starts) if starts else None),
        element("td", f"{version.decisions:,}", class_="n"),
        element("td", f"{version.denied:,}", class_="n"),
    )


def _digest(version: str) -> str:
    name, _, digest = version.rpartition(":")
    short = digest if len(digest) <= _HASH_CHARACTERS else f"{digest[:8]}…{digest[-4:]}"
    return f"{name}:{short}" if name else short


def look_section(story: Story, anchors: Mapping[RunKey, str], now: float) -> Markup:
    """Return what to look at."""
    found = notable(story, now=now)
    shown = found[:_MOST_LINES]
    lines = [
        element(
            "li",
            element("span", one.tag, class_="tag alarm" if one.alarm else "tag"),
            element("a", one.text, href=f"#{anchors[one.run]}") if one.run and one.run in anchors else one.text,
        )
        for one in shown
    ]
    if len(found) > len(shown):
        lines.append(element("li", f"and {len(found) - len(shown):,} more"))
    return element(
        "section",
        element("h2", "What to look at"),
        element("ul", lines, class_="look") if lines else element("p", "Nothing stands out."),
        id="look",
    )


def proof_section(proof: Proof | None, sources: Sequence[str]) -> Markup:
    """Return how to prove it without this page."""
    chains = () if proof is None else proof.chains
    # An export cannot be verified by itself.
    named = "STATE" if proof is None else shlex.join(sources[:_MOST_NAMES])
    return element(
        "section",
        element("h2", "Prove it yourself"),
        element(
            "p",
            "A record's hash covers its text, its place and the hash before it. Run this where the chains lie, with a "
            "copy of `head.jwk` that you kept elsewhere, and compare the last hash with one that you kept:",
        ),
        element(
            "p",
            element("code", f"agentguard evidence verify {named} --key KEPT.jwk --against COLLECTOR-EXPORT.jsonl"),
        ),
        table(
            count(len(chains), "chain"),
            ("chain", "records", "first hash", "last hash", "signed heads", "result"),
            [_chain_row(chain) for chain in chains[:MOST_ROWS]],
        )
        if chains
        else None,
        _notes(() if proof is None else proof.notes),
        id="prove",
    )


def _notes(notes: Sequence[str]) -> Markup | None:
    if not notes:
        return None
    more = len(notes) - _MOST_LINES
    return element(
        "details",
        element(
            "summary",
            f"{count(len(notes), 'note')} of the verification, "
            f"which {'proves' if len(notes) == 1 else 'prove'} nothing either way",
        ),
        element(
            "ul",
            [element("li", note) for note in notes[:_MOST_LINES]],
            element("li", f"and {more:,} more: see `agentguard evidence verify`") if more > 0 else None,
        ),
    )


def _chain_row(chain: ProvenChain) -> Markup:
    return element(
        "tr",
        element("th", element("code", chain.chain_id), scope="row"),
        element("td", f"{chain.records:,}", element("small", f"seq {chain.first_seq:,} to {chain.last_seq:,}")),
        element("td", element("code", chain.first_hash[:_HASH_CHARACTERS])),
        element("td", element("code", chain.last_hash[:_HASH_CHARACTERS])),
        element(
            "td", f"{chain.heads:,}", element("small", f"key {chain.key[:_HASH_CHARACTERS]}") if chain.key else None
        ),
        element("td", "✓ whole" if chain.whole else "✗ see above", class_="ok" if chain.whole else "bad"),
    )
