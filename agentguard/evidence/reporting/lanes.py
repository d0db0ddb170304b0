"""The picture of the runs: a lane for each, with the authority that it had and had left.

Places are percentages of a lane's width, so that the picture fits a phone, a screen and
paper. What the lanes show stands in the page's tables too.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.evidence.reporting.markup import Markup, element
from agentguard.evidence.reporting.story import REASONS
from agentguard.evidence.vocabulary import RunEnd
from agentguard.evidence.words import moment, span
from agentguard.model import Grade, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agentguard.evidence.reporting.story import Call, Run, RunKey

SHORT: Final = 8
"""How many characters of a run's id name it in the picture."""

_STEPS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400)
_DAY: Final = 86_400
_TICKS: Final = 5
# Calls nearer than this share one mark, so that a lane has a bounded number of them.
_MARK_PER_CENT: Final = 0.5
# A run granted for years would press everything else into a line.
_OVERHANG: Final = 0.25
_DEEPEST: Final = 4

_BAR_Y, _BAR_HEIGHT, _HEIGHT = 18, 16, 44


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """The time that a picture shows, unix seconds."""

    since: float
    until: float

    def place(self, at: float) -> float:
        """Return where a time lies, in per cent of the width."""
        return round(100 * min(1.0, max(0.0, (at - self.since) / (self.until - self.since))), 3)

    def ticks(self) -> list[tuple[float, str]]:
        """Return some round times in it, with their labels."""
        wanted = (self.until - self.since) / _TICKS
        step = next((step for step in _STEPS if step >= wanted), None) or -(-wanted // _DAY) * _DAY
        form = "%d %b" if step >= _DAY else "%H:%M" if step >= 60 else "%H:%M:%S"  # noqa: PLR2004  a minute
        first = -(-self.since // step) * step
        found: list[tuple[float, str]] = []
        while first <= self.until:
            found.append((first, moment(first, form)))
            first += step
        return found


def window_of(runs: Sequence[Run], *, since: float, until: float) -> Window:
    """Return the time to show: that of the records, and some of what was granted beyond."""
    least = max(until - since, 1.0)
    begins = [run.issued_at for run in runs if run.issued_at is not None]
    ends = [run.ends_at for run in runs if run.ends_at is not None]
    first = max(min([since, *begins]), since - _OVERHANG * least)
    last = min(max([until, *ends]), until + _OVERHANG * least)
    margin = 0.01 * (last - first)
    return Window(since=first - margin, until=max(last, first + 1.0) + margin)


def symbols() -> Markup:
    """Return the marks, once for the whole page."""
    return element(
        "svg",
        element(
            "defs",
            element("path", id="m-denied", class_="denied", d="M-5 0h10l-5 9z"),
            element("path", id="m-withheld", class_="withheld", d="M-5 0h10l-5 9z"),
            element("path", id="m-stopped", class_="stopped", d="M0-4l4 4l-4 4l-4-4z"),
            element("path", id="m-allowed", class_="allowed", d="M-1 0h2v10h-2z"),
            element("path", id="m-completed", class_="completed", d="M-3-11h6v22h-6z"),
            element("path", id="m-revoked", class_="revoked", d="M-6-6l12 12m0-12l-12 12"),
            element("path", id="m-expired", class_="expired", d="M0-12v24"),
            element("path", id="m-live", class_="live", d="M0-8l9 8l-9 8z"),
        ),
        class_="defs",
        width="0",
        height="0",
        aria_hidden="true",
    )


def key() -> Markup:
    """Return what the marks mean."""
    marks = (
        ("allowed", "allowed", 5),
        ("denied", "denied", 6),
        ("withheld", "result withheld", 6),
        ("stopped", "stopped in the middle", 10),
        ("completed", "completed", 11),
        ("revoked", "revoked", 11),
        ("expired", "ran out", 11),
        ("live", "may still act, as far as this evidence knows", 11),
    )
    bar = element(
        "svg",
        element("rect", class_="granted", width="34", height="14", y="4", rx="3"),
        element("rect", class_="had", width="18", height="14", y="4", rx="3"),
        width="34",
        height="22",
        aria_hidden="true",
    )
    shared = element(
        "svg",
        element("rect", class_="had shared", x="1", width="32", height="14", y="4", rx="3"),
        width="34",
        height="22",
        aria_hidden="true",
    )
    return element(
        "ul",
        element("li", bar, "authority: had / left unused"),
        [
            element(
                "li",
                element(
                    "svg",
                    element("use", href=f"#m-{name}", x="8", y=str(y)),
                    width="18",
                    height="22",
                    aria_hidden="true",
                ),
                words,
            )
            for name, words, y in marks
        ],
        element("li", shared, "an identity that others share"),
        class_="key",
        aria_label="What the marks mean",
    )


def lanes(
    runs: Sequence[Run],
    window: Window,
    *,
    now: float,
    anchors: Mapping[RunKey, str],
    changes: Sequence[tuple[float, str]] = (),
) -> Markup:
    """Return the picture of *runs*, each a link to its row in the table.

    Args:
        runs: The runs to show, each child after its parent.
        window: The time to show.
        now: Unix seconds.
        anchors: The id of each run's row.
        changes: When other policies came into force, and the mark that they have.
    """
    ruled = [(window.place(at), "grid") for at, _ in window.ticks()]
    ruled += [(window.place(at), "change") for at, _ in changes if window.since <= at <= window.until]
    depths: dict[RunKey, int] = {}
    for run in runs:
        depths[run.key] = 0 if run.parent is None else min(depths.get(run.parent, -1) + 1, _DEEPEST)
    return element(
        "div",
        _axis(window, changes),
        element(
            "ol", [_lane(run, window, now, anchor=anchors[run.key], depth=depths[run.key], ruled=ruled) for run in runs]
        ),
        _axis(window, ()),
        class_="lanes",
    )


def ending(run: Run, now: float) -> str:
    """Return how a run ended, in words."""
    if run.end == RunEnd.COMPLETED:
        # The reason of a run that completed begins with that word.
        return run.reason or "completed"
    if run.end == RunEnd.EXPIRED:
        return "ran out, never completed"
    if run.end:
        return f"{run.end}: {run.reason}" if run.reason else run.end
    if run.live(now):
        return "may still act"
    return "shared, no end of its own" if run.grade == Grade.SHARED else "no end on record"


def _axis(window: Window, changes: Sequence[tuple[float, str]]) -> Markup:
    texts = [
        element("text", label, x=f"{window.place(at)}%", y="12", text_anchor=_anchor(window.place(at)), class_="time")
        for at, label in window.ticks()
    ]
    texts += [
        element("text", label, x=f"{window.place(at)}%", y="27", text_anchor=_anchor(window.place(at)), class_="change")
        for at, label in changes
        if window.since <= at <= window.until
    ]
    height = "32" if changes else "18"
    return element(
        "div",
        element("svg", texts, width="100%", height=height),
        class_="axis",
        aria_hidden="true",
    )


def _anchor(place: float) -> str:
    return "start" if place < 4 else "end" if place > 96 else "middle"  # noqa: PLR2004  near an edge


def _lane(
    run: Run, window: Window, now: float, *, anchor: str, depth: int, ruled: Sequence[tuple[float, str]]
) -> Markup:
    said = ", ".join(part for part in (run.task, run.user and f"for {run.user}", f"run {run.id[:SHORT]}") if part)
    over = ending(run, now)
    return element(
        "li",
        element(
            "a",
            element(
                "span",
                element("b", "↳ " if depth else "", run.agent or "no name"),
                element("small", said),
                class_=f"who d{depth}",
            ),
            _track(run, window, now, ruled),
            element("span", element("b", over), element("small", _counted(run)), class_=f"over {run.end or 'open'}"),
            href=f"#{anchor}",
            aria_label=f"{run.agent}, {said}: {_authority(run, now)}; {over}; {_counted(run)}. To its row.",
        ),
    )


def _counted(run: Run) -> str:
    withheld = f", {run.withheld:,} withheld" if run.withheld else ""
    return f"{run.allowed:,} allowed, {run.denied:,} denied{withheld}"


def _authority(run: Run, now: float) -> str:
    if run.granted is None or run.issued_at is None:
        return "its authority is not on record"
    return f"granted {span(run.granted)}, had {span(run.had_until(now) - run.issued_at)}"


def _track(run: Run, window: Window, now: float, ruled: Sequence[tuple[float, str]]) -> Markup:
    begun = run.first_at if run.issued_at is None else run.issued_at
    over = run.ended_at if run.ended_at is not None else run.had_until(now)
    granted_until = over if run.ends_at is None else run.ends_at
    shared = " shared" if run.grade == Grade.SHARED else ""
    return element(
        "svg",
        [element("line", x1=f"{at}%", x2=f"{at}%", y1="0", y2="100%", class_=name) for at, name in ruled],
        _bar(window, begun, granted_until, "granted"),
        _bar(window, begun, over, f"had{shared}"),
        _marks(run.calls, window),
        element(
            "use",
            href=f"#m-{_end_mark(run, now)}",
            x=f"{window.place(over)}%",
            y=str(_BAR_Y + _BAR_HEIGHT // 2),
        ),
        class_="track",
        width="100%",
        height=str(_HEIGHT),
        aria_hidden="true",
    )


def _end_mark(run: Run, now: float) -> str:
    if run.end or run.live(now):
        return run.end or "live"
    return "revoked" if run.refused is not None and run.refused.reason == Reason.REVOKED else "expired"


def _bar(window: Window, since: float, until: float, name: str) -> Markup:
    first, last = window.place(since), window.place(until)
    return element(
        "rect",
        x=f"{first}%",
        width=f"{max(0.0, round(last - first, 3))}%",
        y=str(_BAR_Y),
        height=str(_BAR_HEIGHT),
        rx="3",
        class_=name,
    )


_MARK_Y: Final = {"allowed": _BAR_Y + 3, "denied": 6, "withheld": 6, "stopped": 11}


def kind_of(call: Call) -> str:
    """Return the mark of a call."""
    if not call.allowed:
        return "denied"
    if call.withheld:
        return "withheld"
    return "stopped" if call.stopped else "allowed"


def _marks(calls: Sequence[Call], window: Window) -> Iterator[Markup]:
    near: defaultdict[tuple[str, int], list[Call]] = defaultdict(list)
    for call in calls:
        near[kind_of(call), int(window.place(call.at) / _MARK_PER_CENT)].append(call)
    for (kind, _), found in near.items():
        yield element(
            "use",
            element("title", _told(kind, found)),
            href=f"#m-{kind}",
            x=f"{window.place(found[0].at)}%",
            y=str(_MARK_Y[kind]),
        )


def _told(kind: str, calls: Sequence[Call]) -> str:
    first = calls[0]
    at = moment(first.at, "%H:%M:%S")
    if len(calls) > 1:
        return f"{at} {len(calls)} calls {kind}, the first {first.tool}"
    return f"{at} {first.tool} {kind}{f': {why(first)}' if kind == 'denied' else ''}"


def why(call: Call) -> str:
    """Return why a call was denied: the policies that did it, or the reason in words."""
    named = ", ".join(id_ for id_ in call.policy_ids if ":" not in id_)
    return named or REASONS.get(call.reason, call.reason)
