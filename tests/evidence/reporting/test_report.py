"""The page: what it shows is what the records say, and nothing in them becomes more than text."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

from agentguard.evidence.kept import Kept
from agentguard.evidence.proof import Proof, ProvenChain
from agentguard.evidence.reporting.lanes import Window, window_of
from agentguard.evidence.reporting.markup import Markup, element, stylesheet
from agentguard.evidence.reporting.report import report_page
from agentguard.evidence.reporting.retell import story_of
from agentguard.evidence.reporting.sections import MOST_LANES, MOST_ROWS, foremost
from agentguard.evidence.showing import row_of
from agentguard.model import Reason
from tests.evidence.history import NINE_THIRTY, OWNERS, History, an_hour, many_runs, run_of

NOW: Final = NINE_THIRTY + 61 * 60
CHAIN: Final = ProvenChain(
    chain_id="records-1",
    records=93,
    first_seq=1,
    last_seq=93,
    first_hash="a1be9bbbd0c1ff",
    last_hash="b3d2ca7e8fed00",
    heads=3,
    key="Qm4xJdEYw2",
    whole=True,
    compared=46,
    compared_up_to=91,
)
HOLDS: Final = Proof(holds=True, chains=(CHAIN,), against="export.jsonl")


def page_of(records: list[Kept], proof: Proof | None = HOLDS, **options: object) -> str:
    """Return the page of some records."""
    given: dict[str, object] = {"now": NOW, "sources": ["state"], "version": "0.1.0", **options}
    owners = given.pop("owners", OWNERS)
    return report_page(story_of(records, owners), proof=proof, **given)  # type: ignore[arg-type]


class Page(HTMLParser):
    """A page, as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.texts: list[str] = []
        self.data: dict[str, str] = {}
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Count it."""
        self.tags[tag] += 1
        found = {name: value or "" for name, value in attrs}
        self.attributes += [(tag, name, value) for name, value in found.items()]
        if tag == "data" and "id" in found:
            self.data[found["id"]] = found["value"]
        if tag not in {"meta", "br"}:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        """Every element is closed where it was opened."""
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        """Keep it."""
        self.texts.append(data)

    @property
    def text(self) -> str:
        """What there is to read."""
        return " ".join(" ".join(self.texts).split())

    def values(self, name: str) -> list[str]:
        """Return the values of an attribute."""
        return [value for _, found, value in self.attributes if found == name]


@pytest.fixture(scope="module")
def hour() -> Page:
    """Return the page of an hour."""
    return Page(page_of(an_hour().kept))


def figures(rows: list[dict[str, object]]) -> dict[str, str]:
    """Return the five numbers, counted from what `evidence show --json` gives."""
    effects = Counter(row["effect"] for row in rows)
    granted = [row["authority_granted_s"] for row in rows if isinstance(row["authority_granted_s"], float)]
    return {
        "runs": str(len({(row["issuer"], row["run_id"]) for row in rows if row["run_id"] and row["issuer"]})),
        "allowed-calls": str(effects["allow"]),
        "denied-calls": str(effects["deny"]),
        "withheld-results": str(sum(row["outcome"] == "withheld" for row in rows)),
        "longest-authority": str(round(max(granted, default=0))),
    }


def test_the_figures_are_those_of_the_records(hour: Page) -> None:
    """Counted from the rows that a program gets."""
    assert hour.data == figures([row_of(record) for record in an_hour().kept])
    assert hour.data["allowed-calls"] == "31"


def test_the_page_shows_what_happened(hour: Page) -> None:
    """Runs, ends, causes, owners, policies, what to look at, how to prove it."""
    for said in (
        "The evidence holds.",
        "93 records in 1 chain, no gap and no edit, 3 signed heads. Every call that ran has a decision before it.",
        "Compared with export.jsonl: 46 of 93 records are there and the same.",
        "revoked: ticket withdrawn by carol",
        "ran out, never completed",
        "completed: ValueError",
        "shared, no end of its own",
        "may still act, as far as this evidence knows",
        "5 allowed, 2 denied, 1 withheld",
        "restricted-needs-a-person",
        "data-protection@example.com",
        "sha256:9c1e0000…a04f",
        "20-guardrails.cedar:9: unknown argument",
        "claude-code: one denied call of read_record made 4 times within 60 s",
        "agentguard evidence verify state --key KEPT.jwk --against",
        "What this page cannot show",
    ):
        assert said in hour.text, said


def test_the_page_fetches_nothing_and_runs_nothing(hour: Page) -> None:
    """No script, no address but places in the page, and a policy that names its one style sheet."""
    assert not {"script", "img", "link", "iframe", "object", "form", "base"} & set(hour.tags)
    assert hour.tags["style"] == 1
    assert all(re.fullmatch("#[a-z0-9-]+", value) for value in hour.values("href"))
    assert not [name for _, name, _ in hour.attributes if name.startswith("on") or name in {"style", "src"}]
    (policy,) = (value for value in hour.values("content") if "default-src" in value)
    assert re.fullmatch(
        "default-src 'none'; style-src 'sha256-[A-Za-z0-9+/=]{44}'; base-uri 'none'; form-action 'none'", policy
    )


def test_every_link_leads_somewhere_and_every_place_is_named_once(hour: Page) -> None:
    """A keyboard gets from each lane to its row."""
    ids = hour.values("id")

    assert len(ids) == len(set(ids))
    assert {value.removeprefix("#") for value in hour.values("href")} <= set(ids)
    assert sum(value.startswith("#run-") for value in hour.values("href")) >= 8


def test_what_is_drawn_can_be_read_too(hour: Page) -> None:
    """Each table has a caption, its heads a scope; a picture is hidden from who cannot see it, or told in words."""
    assert hour.tags["caption"] == hour.tags["table"] >= 5
    assert hour.tags["th"] == len(hour.values("scope"))
    assert all(("svg", "aria-hidden", "true") in hour.attributes for _ in range(1))
    labels = [value for value in hour.values("aria-label") if value.startswith("support-agent, ticket-7")]
    assert labels == [
        (
            "support-agent, ticket-7, for alice, run 7279f168: granted 15 min, had 9 min 24 s; "
            "revoked: ticket withdrawn by carol; 5 allowed, 2 denied, 1 withheld. To its row."
        )
    ]


@pytest.mark.parametrize(
    "attributes",
    [
        {"agentguard.run.ends_at": 2**62},
        {"agentguard.run.ends_at": -(2**62)},
        {"agentguard.run.ends_at": 5, "agentguard.authority.granted": 1e308},
        {"agentguard.run.ends_at": 5, "agentguard.authority.granted": -1e308},
        {"agentguard.policy.activated_at": 2**62},
        {"agentguard.delegation.depth": 2**62},
        {"agentguard.run.parent": "r"},
        {"agentguard.run.state": "someday"},
    ],
)
def test_no_number_in_a_record_keeps_the_page_from_being_written(attributes: dict[str, int | float]) -> None:
    """One that nobody's clock ever showed, or a run that is its own parent."""
    found = {"agentguard.run.id": "r", "agentguard.policy.version": "sha256:a", **attributes}
    records = [
        Kept(kind=kind, time_unix_nano=NINE_THIRTY * 10**9, attributes=found) for kind in ("decision", "run", "start")
    ]

    assert Page(page_of(records)).data["runs"] == "1"


def test_evidence_that_does_not_hold_is_said_first() -> None:
    """With what is wrong; what could not be read is part of it."""
    broken = Proof(holds=False, chains=(replace(CHAIN, whole=False),), problems=("chain a, seq 12: edited",))

    page = Page(page_of(an_hour().kept, broken, unread=["x.jsonl:3: is not JSON"]))

    assert "✗ The evidence does not hold. 2 problems in 1 chain: chain a, seq 12: edited x.jsonl:3: is not" in page.text
    assert "✗ see above" in page.text
    assert "The evidence holds." not in page.text


def test_records_that_could_not_be_read_take_the_verdict_away() -> None:
    """A chain may be whole, and an export beside it cut."""
    assert "does not hold" in Page(page_of(an_hour().kept, HOLDS, unread=["x.jsonl:3: is not JSON"])).text


def test_evidence_that_nobody_verified_is_not_called_whole() -> None:
    """An export alone proves nothing about itself."""
    page = Page(page_of(an_hour().kept, None))

    assert "◌ Not verified." in page.text
    assert "✓" not in page.text


def test_what_was_read_beside_the_chains_takes_part_of_the_verdict_away() -> None:
    """The figures are of both; whoever wrote the export could have made up its part of them."""
    page = Page(page_of(an_hour().kept, replace(HOLDS, unproved=("more.jsonl",))))

    assert "◌ Verified in part. 93 records in 1 chain" in page.text
    assert "Read too, and not verified: more.jsonl." in page.text
    assert "The evidence holds." not in page.text


def test_an_outcome_without_a_decision_is_not_passed_over() -> None:
    """The page does not say then that every call has one."""
    records = [record for record in an_hour().kept if record.kind == "outcome"]

    page = Page(page_of(records))

    assert "Every call that ran" not in page.text
    assert "30 outcomes without a decision on record" in page.text


def test_many_problems_and_notes_are_bounded_and_said_so() -> None:
    """A whole file that is no export has a million broken lines."""
    proof = Proof(holds=False, problems=("p",) * 50, notes=("n",) * 50)

    page = Page(page_of([], proof, sources=list("abcdef")))

    assert "50 problems in 0 chains" in page.text
    assert page.text.count("and 10 more: see `agentguard evidence verify`") == 2
    assert "a , b , c , d and 2 more" in page.text


def test_a_page_of_nothing_is_a_page() -> None:
    """It says what it does not have."""
    page = Page(page_of([], None))

    for said in (
        "No run is on record.",
        "No call was denied.",
        "No policy version is on record.",
        "Nothing stands out.",
    ):
        assert said in page.text


def test_a_busy_day_is_bounded_and_the_rest_is_said() -> None:
    """Hundreds of runs: those with something to see stand in the picture."""
    records = list(many_runs(MOST_ROWS + 50))

    page = Page(page_of(records, owners=None))

    runs = MOST_ROWS + 50
    assert page.data["runs"] == str(runs)
    assert f"{runs - MOST_LANES} more runs not in this picture" in page.text
    assert f"{MOST_ROWS} runs of {runs}, each after the one above it" in page.text
    assert page.tags["ol"] == 1
    assert "the latest of" in page.text
    assert "and their owners are named here" in page.text
    assert "and 2 more" in page.text


def test_policies_without_an_owner_are_told_as_such() -> None:
    """The folder was given, so nobody is asked for it; where no policy denied anything there is nothing to tell."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 600), NINE_THIRTY, "x", Reason.POLICY, "p")
    nameless = History()
    nameless.call(run_of("a", 1, NINE_THIRTY, 600), NINE_THIRTY, "x", Reason.GRANT)

    assert "None of these policies has an `@owner`." in Page(page_of(history.kept, owners={})).text
    text = Page(page_of(nameless.kept, owners={})).text
    assert "@owner" not in text
    assert "Give the folder" not in text


@pytest.mark.parametrize(("reason", "mark"), [(Reason.REVOKED, "revoked"), (Reason.EXPIRED, "expired")])
def test_a_run_that_was_over_before_it_was_seen_has_no_end_on_record(reason: Reason, mark: str) -> None:
    """It is not told as one that may still act."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 86_400), NINE_THIRTY + 5, "x", reason)

    page = Page(page_of(history.kept))

    assert any("no end on record; 0 allowed, 1 denied" in value for value in page.values("aria-label"))
    assert page.values("href").count(f"#m-{mark}") == 2
    assert page.values("href").count("#m-live") == 1


def test_a_run_whose_time_is_over_has_no_end_on_record() -> None:
    """Its server may have been killed."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 60), NINE_THIRTY + 5, "x")

    page = Page(page_of(history.kept))

    assert any("no end on record; 1 allowed" in value for value in page.values("aria-label"))
    assert page.values("href").count("#m-expired") == 2


def test_a_page_of_one_minute_names_it_once() -> None:
    """Nobody reads `18:58 to 18:58`."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 600), NINE_THIRTY, "x")

    assert "2026-11-24 09:30 UTC" in Page(page_of(history.kept)).text


def test_a_pruned_chain_is_told_with_where_it_begins() -> None:
    """The evidence holds from there on, and says nothing of what is older."""
    pruned = replace(CHAIN, records=2, first_seq=48, last_seq=49)
    one = Page(page_of([], replace(HOLDS, chains=(pruned,)))).text
    two = Page(page_of([], replace(HOLDS, chains=(pruned, CHAIN), against=""))).text

    assert "2 records in 1 chain, no gap and no edit, from seq 48 on: what is older was pruned, 3 signed heads" in one
    assert "no edit, 1 chain from a later record than the first on: what is older was pruned, 6 signed heads" in two


@pytest.mark.parametrize(("notes", "said"), [(1, "1 note of the verification, which proves"), (2, "which prove ")])
def test_notes_are_counted_in_good_grammar(notes: int, said: str) -> None:
    """One proves, two prove."""
    assert said in Page(page_of([], replace(HOLDS, notes=("n",) * notes))).text


def test_what_most_is_to_be_seen_in_is_shown_first() -> None:
    """In the order that it had."""
    runs = story_of(an_hour().kept).runs

    shown = foremost(runs, 3)

    assert [run.agent for run in shown] == ["etl-batch", "support-agent", "claude-code"]
    assert foremost(runs, 8) == runs


def test_many_policy_versions_are_bounded_and_the_rest_is_said() -> None:
    """The latest ones are listed; what was decided before any is counted beside them."""
    history = History()
    for number in range(25):
        history.policies(NINE_THIRTY + number, f"sha256:{number:064}", None)
    history.policies(NINE_THIRTY + 30, "plain", None)
    history.version = ""
    history.call(None, NINE_THIRTY + 40, "x", Reason.INVALID_TOKEN)

    page = Page(page_of(history.kept))

    assert "6 older ones are left out" in page.text
    assert "P20 plain" in page.text
    assert "1 decision before any policy was asked" in page.text


def test_many_things_to_look_at_are_bounded_and_the_rest_is_said() -> None:
    """The gravest come first."""
    history = History()
    for number in range(50):
        history.call(run_of(f"agent-{number}", number, NINE_THIRTY, 2000), NINE_THIRTY, "x")

    assert "and 10 more" in Page(page_of(history.kept)).text


def test_a_source_with_a_blank_is_quoted_in_the_command() -> None:
    """It is there to be copied."""
    page = Page(page_of([], sources=["my 'state'", "state/a-b_c.db"]))

    assert """verify 'my '"'"'state'"'"'' state/a-b_c.db --key KEPT.jwk --against""" in page.text


def test_calls_that_lie_close_share_a_mark() -> None:
    """A lane has a bounded number of them, however many calls there are."""
    history = History()
    run = run_of("a", 1, NINE_THIRTY, 900)
    for number in range(1500):
        history.call(run, NINE_THIRTY + number / 3, "x", Reason.PERMIT if number % 2 else Reason.POLICY, "p")

    page = Page(page_of(history.kept))

    assert page.tags["use"] < 450
    assert "calls denied, the first x" in page.text


def test_runs_that_are_all_over_in_a_moment_have_a_picture() -> None:
    """No time at all has a width."""
    window = window_of((), since=5, until=5)

    assert window.place(5) == pytest.approx(1, abs=1)
    assert window.until > window.since


@pytest.mark.parametrize(
    ("seconds", "first", "number"),
    [
        (4, "09:30:00", 5),
        (50, "09:30:00", 6),
        (3600, "09:30", 5),
        (86_400, "12:00", 4),
        (40 * 86_400, "27 Nov", 5),
        (400 * 86_400, "13 Dec", 5),
    ],
)
def test_times_on_the_axis_are_round(seconds: int, first: str, number: int) -> None:
    """And few, so that they fit a phone."""
    ticks = Window(since=NINE_THIRTY, until=NINE_THIRTY + seconds).ticks()

    assert len(ticks) <= 6
    assert (ticks[0][1], len(ticks)) == (first, number)


def test_what_was_granted_for_years_does_not_press_the_rest_into_a_line() -> None:
    """A bar is cut at the window's edge."""
    runs = story_of(an_hour().kept).runs
    long = replace(runs[0], ends_at=NINE_THIRTY + 10 * 365 * 86_400)

    window = window_of([long], since=NINE_THIRTY, until=NINE_THIRTY + 3600)

    assert window.until < NINE_THIRTY + 2 * 3600
    assert window.place(1e12) == 100


def test_markup_has_no_names_for_what_runs_or_fetches() -> None:
    """Only what is on the list can be written."""
    for name in ("script", "img", "iframe", "style"):
        with pytest.raises(ValueError, match="no element"):
            element(name)
    for name in ("onclick", "style", "src"):
        with pytest.raises(ValueError, match="no attribute"):
            element("p", **{name: "x"})
    for address in ("javascript:x", "https://a.example", "#A b", "//a"):
        with pytest.raises(ValueError, match="no address out of the page"):
            element("a", href=address)
    with pytest.raises(ValueError, match="no `<`"):
        stylesheet("</style>")


def test_markup_leaves_out_what_is_not_there() -> None:
    """Nothing, no text, no attribute."""
    made = element("p", None, "a<b", 5, [element("br"), Markup("<i>")], class_="x", id=None, hidden=False, open=True)

    assert made.text == '<p class="x" open>a&lt;b5<br><i></p>'


CSS: Final = files("agentguard.evidence.reporting").joinpath("report.css").read_text("utf-8")
LIGHT, DARK = (
    dict(re.findall(r"--([a-z]+):(#[0-9a-f]{3,6})", root)) for root in re.findall(r":root\{([^}]*)\}", CSS)[:2]
)


def luminance(colour: str) -> float:
    """Return the relative luminance of a colour (WCAG 2.2)."""
    digits = colour[1:] if len(colour) == 7 else "".join(digit * 2 for digit in colour[1:])
    parts = [int(digits[at : at + 2], 16) / 255 for at in (0, 2, 4)]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize(
    ("text", "ground"),
    [
        ("fg", "bg"), ("mut", "bg"), ("mut", "card"), ("deny", "bg"), ("deny", "card"), ("deny", "badbg"),
        ("warn", "warnbg"), ("warn", "card"), ("ok", "okbg"), ("ok", "bg"), ("pol", "bg"), ("fg", "okbg"),
        ("fg", "warnbg"), ("mut", "warnbg"), ("fg", "badbg"),
    ],
)  # fmt: skip
def test_text_stands_out_from_its_ground(colours: dict[str, str], text: str, ground: str) -> None:
    """By 4.5 to 1, as WCAG 2.2 AA asks."""
    high, low = sorted((luminance(colours[text]), luminance(colours[ground])), reverse=True)

    assert (high + 0.05) / (low + 0.05) >= 4.5


@pytest.mark.parametrize("colours", [LIGHT, DARK], ids=["light", "dark"])
@pytest.mark.parametrize("mark", ["allow", "fg"])
def test_marks_stand_out_from_their_bar(colours: dict[str, str], mark: str) -> None:
    """By 3 to 1, as WCAG 2.2 AA asks of what is drawn."""
    high, low = sorted((luminance(colours[mark]), luminance(colours["had"])), reverse=True)

    assert (high + 0.05) / (low + 0.05) >= 3


CHROMIUM: Final = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None
)
in_a_browser = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium: install `chromium` to open the page")

FRAMES: Final = """<!doctype html><title>frames</title>
<iframe id="wide" src="report.html" width="1120" height="900"></iframe>
<iframe id="narrow" src="report.html" width="400" height="900"></iframe>
<pre id="said"></pre><script>
addEventListener("load", () => {
  const pages = ["wide", "narrow"].map((id) => [id, document.getElementById(id).contentDocument]);
  for (const [, page] of pages) page.querySelector(".lanes a")?.click();
  setTimeout(() => {
    const said = {};
    for (const [id, page] of pages) {
      said[id] = {
        overflow: page.documentElement.scrollWidth - page.documentElement.clientWidth,
        styled: getComputedStyle(page.querySelector("main")).maxWidth,
        lanes: page.querySelectorAll(".lanes a").length,
        data: Object.fromEntries([...page.querySelectorAll("dl data")].map((data) => [data.id, data.value])),
        opened: page.querySelector("#run-1").closest("details").open,
      };
    }
    document.getElementById("said").textContent = JSON.stringify(said);
  }, 200);
});
</script>"""


def opened(folder: Path, page: str) -> tuple[dict[str, dict[str, object]], list[str]]:
    """Open a page in Chromium, wide and narrow; return what it measures, and what the console says."""
    assert CHROMIUM is not None
    (folder / "report.html").write_text(page, "utf-8")
    (folder / "frames.html").write_text(FRAMES, "utf-8")
    profile = folder / "profile"
    profile.mkdir()
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--allow-file-access-from-files", f"--user-data-dir={profile}", "--enable-logging=stderr", "--v=0",
            "--virtual-time-budget=5000", "--dump-dom", (folder / "frames.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )  # fmt: skip
    said = re.search(r'<pre id="said">(.*?)</pre>', done.stdout, re.DOTALL)
    assert said is not None, done.stderr
    return json.loads(html.unescape(said[1])), [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@in_a_browser
def test_the_page_opens_in_a_browser_and_shows_the_figures_of_the_records(tmp_path: Path) -> None:
    """No console error, nothing wider than the window, and the numbers that a program counts."""
    records = an_hour().kept

    said, console = opened(tmp_path, page_of(records))

    assert console == []
    for measured in said.values():
        assert measured["overflow"] == 0
        assert measured["styled"] == "1120px"
        assert measured["data"] == figures([row_of(record) for record in records])
        assert measured["lanes"] == 8
        # A lane leads to its row, in a table that was closed.
        assert measured["opened"] is True


@in_a_browser
def test_a_page_that_breaks_its_own_policy_is_found(tmp_path: Path) -> None:
    """The test above can fail."""
    page = page_of(an_hour().kept).replace(".numbers{", ".numbers {")

    said, console = opened(tmp_path, page)

    assert any("Content Security Policy" in line for line in console)
    assert said["wide"]["styled"] == "none"
