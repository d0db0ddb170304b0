"""The evidence as one page that people look at: self-contained, and without a script.

Everything in it stands in the file: no address leads out of it, its one style sheet is
named by its digest in the page's own security policy, and whatever a record says is text.
"""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from agentguard.evidence.reporting.lanes import SHORT, symbols
from agentguard.evidence.reporting.markup import Markup, element, page, stylesheet
from agentguard.evidence.reporting.notable import LONG_SECONDS
from agentguard.evidence.reporting.sections import (
    MOST_ROWS,
    denials_section,
    foremost,
    look_section,
    policies_section,
    policy_changes,
    proof_section,
    runs_section,
)
from agentguard.evidence.words import count, iso, moment, span

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agentguard.evidence.proof import Proof
    from agentguard.evidence.reporting.story import Story

_MOST_PROBLEMS: Final = 40
_MOST_SOURCES: Final = 4


def report_page(
    story: Story,
    *,
    now: float,
    proof: Proof | None,
    sources: Sequence[str],
    unread: Sequence[str] = (),
    version: str,
) -> str:
    """Return the page.

    Args:
        story: What the records tell.
        now: When the page is written, unix seconds.
        proof: What a verification found; None if nothing was verified.
        sources: Where the records were read.
        unread: What could not be read as a record, one line each.
        version: The version of what writes it.
    """
    css = (files("agentguard") / "evidence" / "reporting" / "report.css").read_text("utf-8")
    rows = foremost(story.runs, MOST_ROWS)
    anchors = {run.key: f"run-{number}" for number, run in enumerate(rows, 1)}
    changes = policy_changes(story)
    return page(
        _head(css, story),
        element(
            "body",
            element("a", "To the runs", href="#picture", class_="skip"),
            symbols(),
            element("header", _title(story, now, sources, version), _verdict(story, proof, unread), _numbers(story)),
            element(
                "main",
                runs_section(story, rows, anchors, changes, now),
                denials_section(story),
                element("div", policies_section(story, changes), look_section(story, anchors, now), class_="two"),
                proof_section(proof, sources),
            ),
            element("footer", _limits()),
        ),
        lang="en",
    )


def _head(css: str, story: Story) -> Markup:
    digest = base64.b64encode(hashlib.sha256(css.encode()).digest()).decode()
    return element(
        "head",
        element("meta", charset="utf-8"),
        element(
            "meta",
            http_equiv="Content-Security-Policy",
            content=f"default-src 'none'; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'",
        ),
        element("meta", name="viewport", content="width=device-width,initial-scale=1"),
        element("meta", name="referrer", content="no-referrer"),
        element("title", f"What the agents did · {_period(story)}"),
        stylesheet(css),
    )


def _period(story: Story) -> str:
    if not story.records:
        return "no time"
    first, last = moment(story.since, "%Y-%m-%d %H:%M"), moment(story.until, "%Y-%m-%d %H:%M")
    if first == last:
        return f"{first} UTC"
    return f"{first} to {last[11:] if first[:10] == last[:10] else last} UTC"


def _title(story: Story, now: float, sources: Sequence[str], version: str) -> Sequence[Markup]:
    names = [element("code", source) for source in sources[:_MOST_SOURCES]]
    more = len(sources) - len(names)
    return (
        element("h1", "What the agents did"),
        element(
            "p",
            f"{_period(story)} · {count(sum(story.records.values()), 'record')} from ",
            _joined(names),
            f" and {more} more" if more else None,
            " · written ",
            element("time", moment(now, "%Y-%m-%d %H:%M"), datetime=iso(now)),
            f" by agentguard {version}",
            class_="mut",
        ),
    )


def _joined(parts: Sequence[Markup]) -> list[Markup | str]:
    joined: list[Markup | str] = []
    for part in parts:
        joined += [", ", part] if joined else [part]
    return joined


def _verdict(story: Story, proof: Proof | None, unread: Sequence[str]) -> Markup:
    problems = [*(proof.problems if proof is not None else ()), *unread]
    if proof is None:
        state, words = "unproved", "◌ Not verified."
        said = "The records were read and not proved. Verify the chains before you rely on them."
    elif proof.holds and not unread and proof.unproved:
        state, words = "unproved", "◌ Verified in part."
        said = f"{_held(story, proof)} Read too, and not verified: {', '.join(proof.unproved[:_MOST_SOURCES])}."
    elif proof.holds and not unread:
        state, words, said = "holds", "✓ The evidence holds.", _held(story, proof)
    else:
        state, words = "broken", "✗ The evidence does not hold."
        said = f"{count(len(problems), 'problem')} in {count(len(proof.chains), 'chain')}:"
    shown = problems[:_MOST_PROBLEMS]
    lines = [element("li", problem) for problem in shown]
    if len(problems) > len(shown):
        lines.append(element("li", f"and {len(problems) - len(shown):,} more: see `agentguard evidence verify`"))
    return element(
        "section",
        element("strong", words),
        element("p", said),
        element("ul", lines) if lines else None,
        class_=f"verdict {state}",
        aria_label="Does the evidence hold?",
        id="verdict",
    )


def _held(story: Story, proof: Proof) -> str:
    records = sum(chain.records for chain in proof.chains)
    heads = sum(chain.heads for chain in proof.chains)
    ran = " Every call that ran has a decision before it." if not story.orphans else ""
    against = ""
    if proof.against:
        there = f"{proof.compared:,} of {count(proof.records, 'record')}"
        verb = "is" if proof.compared == 1 else "are"
        against = f" Compared with {proof.against}: {there} {verb} there and the same."
    return (
        f"{count(records, 'record')} in {count(len(proof.chains), 'chain')}, no gap and no edit{_pruned(proof)}, "
        f"{count(heads, 'signed head')}.{ran}{against}"
    )


def _pruned(proof: Proof) -> str:
    begun = [chain.first_seq for chain in proof.chains if chain.first_seq > 1]
    if not begun:
        return ""
    if len(proof.chains) == 1:
        return f", from seq {begun[0]:,} on: what is older was pruned"
    which = f"{count(len(begun), 'chain')} from a later record than the first on"
    return f", {which}: what is older was pruned"


def _numbers(story: Story) -> Markup:
    agents = {run.agent for run in story.runs if run.agent}
    users = {run.user for run in story.runs if run.user}
    stopped = sum(call.stopped for call in story.calls)
    longest = story.longest
    granted = 0.0 if longest is None else longest.granted or 0.0
    whom = f"for {count(len(users), 'person', 'people')}" if users else "for nobody by name"
    return element(
        "dl",
        _number("runs", len(story.runs), f"{count(len(agents), 'agent')}, {whom}"),
        _number("allowed calls", story.allowed, f"{stopped or 'none'} of them stopped in the middle"),
        _number("denied calls", story.denied, count(len(story.denials), "cause"), kind="grave" if story.denied else ""),
        _number(
            "withheld results",
            story.withheld,
            "a side effect may have happened" if story.withheld else "no result came after its run had ended",
            kind="grave" if story.withheld else "",
        ),
        _number(
            "longest authority",
            round(granted),
            "none is on record" if longest is None else f"{longest.agent}, run {longest.id[:SHORT]}",
            shown="none" if longest is None else span(granted),
            kind="long" if granted > LONG_SECONDS else "",
        ),
        class_="numbers",
    )


def _number(name: str, value: int, said: str, *, shown: str = "", kind: str = "") -> Markup:
    return element(
        "div",
        element("dt", name),
        element("dd", element("data", shown or f"{value:,}", value=str(value), id=name.replace(" ", "-"))),
        element("dd", element("small", said)),
        class_=kind or None,
    )


def _limits() -> Markup:
    """Return what a reader must not take the page for."""
    return element(
        "section",
        element("h2", "What this page cannot show"),
        element(
            "ul",
            element(
                "li",
                "Whoever holds the key that signs the heads can write a chain anew. Only a head or an export that "
                "was elsewhere already shows it.",
            ),
            element(
                "li", "What a tool did inside one allowed call. A result that was withheld may have had its effect."
            ),
            element(
                "li", "Arguments and results. Arguments are kept as keyed digests alone, unless a tool names them."
            ),
            element("li", "Calls that never reached a guarded server, and servers whose evidence was not given."),
            element("li", "The page itself is not signed: it is a view. The chains are the evidence."),
        ),
        class_="note",
    )
