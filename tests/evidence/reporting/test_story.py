"""What the records tell: runs, their calls and their ends, denials, policies, and what to look at."""

from __future__ import annotations

import random

import pytest

from agentguard.evidence.kept import Kept
from agentguard.evidence.reporting.notable import Notable, notable
from agentguard.evidence.reporting.retell import story_of
from agentguard.evidence.reporting.story import Denial, Run, Story
from agentguard.evidence.vocabulary import Outcome, RecordKind
from agentguard.evidence.words import count, iso, moment, span
from agentguard.model import Grade, Reason
from tests.evidence.history import ISSUER, NINE_THIRTY, OWNERS, QUARTER, RESTRICTED, History, an_hour, run_of

NOW = NINE_THIRTY + 61 * 60


@pytest.fixture(scope="module")
def hour() -> Story:
    """Return what an hour's records tell."""
    return story_of(an_hour().kept, OWNERS)


def run_for(story: Story, task: str) -> Run:
    """Return the run of a task; one that was delegated comes last."""
    return [run for run in story.runs if run.task == task][-1]


def told(history: History, *, now: float = NOW) -> list[tuple[str, str]]:
    """Return what there is to look at."""
    return [(one.tag, one.text) for one in notable(story_of(history.kept), now=now)]


def test_the_figures_count_the_records(hour: Story) -> None:
    """Whoever counts the records finds the same."""
    kept = an_hour().kept
    decisions = [record for record in kept if record.kind == "decision"]
    effects = [record.text("agentguard.decision.effect") for record in decisions]
    outcomes = [record.text("agentguard.execution.outcome") for record in kept]

    assert hour.allowed == effects.count("allow") == 31
    assert hour.denied == effects.count("deny") == 15
    assert hour.withheld == outcomes.count("withheld") == 1
    assert len(hour.runs) == len({record.text("agentguard.run.id") for record in decisions} - {""}) == 8
    assert hour.records["decision"] == len(decisions)
    assert (hour.since, hour.until) == (NINE_THIRTY, NINE_THIRTY + 57.5 * 60)


def test_the_order_of_the_records_changes_nothing(hour: Story) -> None:
    """Chains and exports are read one after the other."""
    kept = an_hour().kept
    random.Random(4).shuffle(kept)  # noqa: S311  any order will do

    assert story_of(kept, OWNERS) == hour


def test_a_run_is_told_with_its_authority_and_its_end(hour: Story) -> None:
    """Who acted, for whom, on what, for how long."""
    run = run_for(hour, "ticket-7")

    assert (run.agent, run.user, run.purpose, run.grade, run.key[0]) == ("support-agent", "alice", "", "run", ISSUER)
    assert (run.issued_at, run.granted) == (NINE_THIRTY + 15 * 60, 900)
    assert (run.end, run.reason, run.ended_at) == ("revoked", "ticket withdrawn by carol", NINE_THIRTY + 24.4 * 60)
    assert run.had_until(NOW) == run.ended_at
    assert (run.allowed, run.denied, run.withheld) == (5, 2, 1)
    assert [call.outcome for call in run.calls if call.stopped] == ["cancelled", "withheld"]
    assert {call.stopped_by for call in run.calls if call.stopped} == {"revoked"}
    assert not run.live(NOW)


def test_a_run_that_lasts_is_live_until_its_time_is_over(hour: Story) -> None:
    """Until a record, or the clock, says otherwise."""
    run = run_for(hour, "board-pack")
    ends_at = NINE_THIRTY + 67 * 60

    assert (run.live(ends_at - 1), run.live(ends_at)) == (True, False)
    assert (run.had_until(NOW), run.had_until(ends_at + 100)) == (NOW, ends_at)


def test_a_child_stands_after_the_run_that_delegated_to_it(hour: Story) -> None:
    """And names it."""
    agents = [run.agent for run in hour.runs]
    parent, child = hour.runs[0], hour.runs[1]

    assert agents[:3] == ["billing-agent", "mailer", "etl-batch"]
    assert (child.parent, child.depth) == (parent.key, 1)


def test_runs_that_name_each_other_as_parents_are_told_too() -> None:
    """Nobody's honest record hides a run."""
    names = {"a": "b", "b": "a", "c": "c", "d": "a"}
    records = [
        Kept(
            kind="decision",
            time_unix_nano=number,
            attributes={"agentguard.run.id": run, "agentguard.run.parent": parent},
        )
        for number, (run, parent) in enumerate(names.items())
    ]

    assert sorted(run.id for run in story_of(records).runs) == ["a", "b", "c", "d"]


def test_a_run_of_which_little_is_known_is_told() -> None:
    """An export may hold its calls alone."""
    record = Kept(kind="decision", time_unix_nano=5_000_000_000, attributes={"agentguard.run.id": "r"})

    (run,) = story_of([record]).runs

    assert (run.granted, run.issued_at, run.ends_at, run.ended_at) == (None, None, None, None)
    assert (run.live(10), run.had_until(10), run.first_at) == (True, 10, 5)
    assert story_of([record]).longest is None


def test_a_run_that_a_later_token_makes_longer_has_the_later_end() -> None:
    """Where the issuer does not say how long a run lasts; its beginning stays the first."""
    history = History()
    for lasts in (100, 300, 200):
        history.call(run_of("a", 1, NINE_THIRTY, lasts, grade=Grade.TOKEN), NINE_THIRTY, "read")

    (run,) = story_of(history.kept).runs

    assert (run.ends_at, run.granted) == (NINE_THIRTY + 300, 300)


def test_an_end_without_a_granted_time_has_no_beginning() -> None:
    """What is not on record is not made up."""
    attributes: dict[str, str | int] = {"agentguard.run.id": "r", "agentguard.run.ends_at": 50}

    (run,) = story_of([Kept(kind="decision", time_unix_nano=1, attributes=attributes)]).runs

    assert (run.issued_at, run.ends_at) == (None, 50)


def test_the_first_end_on_record_is_the_end() -> None:
    """Each server that knew the run tells of it."""
    history = History()
    run = run_of("a", 1, NINE_THIRTY, 600)
    history.state(run, NINE_THIRTY + 90, "expired")
    history.state(run, NINE_THIRTY + 60, "revoked", "why")
    history.state(run, NINE_THIRTY + 70, "revoked", "why")

    (found,) = story_of(history.kept).runs

    assert (found.end, found.ended_at, found.reason) == ("revoked", NINE_THIRTY + 60, "why")


def test_a_state_of_no_run_is_passed_over() -> None:
    """It tells of nothing."""
    record = Kept(kind="run", time_unix_nano=5, attributes={"agentguard.run.state": "revoked"})

    assert story_of([record]).runs == ()


def test_one_run_id_of_two_issuers_is_two_runs() -> None:
    """A run is known by its issuer and its id."""
    records = [
        Kept(
            kind="decision",
            time_unix_nano=5,
            attributes={"agentguard.run.id": "r", "agentguard.invocation.issuer": issuer},
        )
        for issuer in ("https://a.example", "https://b.example")
    ]

    assert len(story_of(records).runs) == 2


def test_denials_are_told_by_what_caused_them(hour: Story) -> None:
    """By the policy where one did it, by the reason elsewhere; with the owner, if somebody says."""
    causes = {(denial.policy_id or denial.reason): denial for denial in hour.denials}

    assert causes["restricted-needs-a-person"] == Denial(
        reason="policy",
        policy_id="restricted-needs-a-person",
        calls=6,
        tools=("read_record", "update_record"),
        agents=("claude-code", "billing-agent"),
        owner="data-protection@example.com",
    )
    assert (causes["grant"].agents, causes["grant"].owner) == (("mailer",), "")
    assert causes["invalid_token"].agents == ()
    assert [denial.calls for denial in hour.denials] == sorted((denial.calls for denial in hour.denials), reverse=True)


def test_a_call_that_two_policies_deny_counts_for_both(hour: Story) -> None:
    """And once in the number of denied calls."""
    by_cause = {denial.policy_id: denial.calls for denial in hour.denials}

    assert by_cause["large-write-off"] == 1
    assert sum(denial.calls for denial in hour.denials) == hour.denied + 1


def test_a_call_by_nobody_belongs_to_no_run(hour: Story) -> None:
    """It is counted all the same."""
    (stranger,) = hour.strangers

    assert (stranger.tool, stranger.reason) == ("tools/list", "invalid_token")
    assert stranger in hour.calls


def test_policy_versions_are_told_in_time_with_what_they_decided(hour: Story) -> None:
    """A refused one too, and what stayed in force then."""
    first, second, refused = hour.versions

    assert (first.version, first.label, first.starts) == (QUARTER, "2026-11-20 quarter end", 1)
    assert first.activated_at == NINE_THIRTY - 4000
    assert (second.version, second.activated_at, second.label) == (
        RESTRICTED,
        NINE_THIRTY + 29 * 60,
        "restricted records",
    )
    assert first.decisions + second.decisions == hour.allowed + hour.denied
    assert first.denied + second.denied == hour.denied
    assert (refused.refused, refused.version) == ("20-guardrails.cedar:9: unknown argument", RESTRICTED)


def test_a_version_is_in_force_from_its_first_record_on_if_nobody_says_since_when() -> None:
    """A server's start says no more."""
    history = History()
    history.keep(RecordKind.START, NINE_THIRTY, {"agentguard.policy.version": "sha256:a"})
    history.keep(RecordKind.START, NINE_THIRTY + 5, {"agentguard.policy.version": "sha256:a"})

    (version,) = story_of(history.kept).versions

    assert (version.activated_at, version.starts, version.last_at) == (NINE_THIRTY, 2, NINE_THIRTY + 5)


def test_nothing_tells_nothing() -> None:
    """A story of no records is one."""
    story = story_of([])

    assert (story.runs, story.calls, story.since, story.until, story.longest) == ((), (), 0, 0, None)
    assert notable(story, now=NOW) == ()


def test_what_to_look_at_in_an_hour(hour: Story) -> None:
    """The gravest first, each with the run to begin with."""
    found = notable(hour, now=NOW)

    assert [one.tag for one in found] == [
        "refused policies",
        "no outcome",
        "withheld result",
        "after its end",
        "repeated",
        "shared identity",
        "ran out",
        "refused tokens",
        "no identity",
    ]
    texts = {one.tag: one for one in found}
    assert texts["repeated"] == Notable(
        tag="repeated",
        text="claude-code: one denied call of read_record made 4 times within 60 s",
        run=next(run.key for run in hour.runs if run.agent == "claude-code"),
    )
    assert texts["after its end"].text == "support-agent: 1 call refused after the end of 1 run"
    assert texts["refused tokens"].text == "17 tokens: the token was not accepted"
    assert texts["refused policies"].alarm


@pytest.mark.parametrize(
    "reason", [Reason.EVIDENCE_UNAVAILABLE, Reason.STORE_UNAVAILABLE, Reason.INTERNAL_ERROR, Reason.POLICY_ERROR]
)
def test_a_guard_that_fails_closed_is_an_alarm(reason: Reason) -> None:
    """It says more of the server than of the caller."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 600), NINE_THIRTY, "read", reason, "broken")

    (found,) = notable(story_of(history.kept), now=NINE_THIRTY)

    assert (found.tag, found.alarm) == ("failing closed", True)


def test_an_outcome_without_a_decision_is_an_alarm() -> None:
    """A call that ran was decided, or the evidence lacks something."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 600), NINE_THIRTY, "read")
    (outcome,) = (record for record in history.kept if record.kind == "outcome")

    (found,) = notable(story_of([outcome]), now=NINE_THIRTY)

    assert (found.tag, found.text, found.alarm) == ("no decision", "1 outcome without a decision on record", True)


def test_a_run_whose_time_is_over_without_an_end_is_told() -> None:
    """Its server may have been killed."""
    history = History()
    history.call(run_of("a", 1, NINE_THIRTY, 600), NINE_THIRTY, "read")

    assert told(history, now=NINE_THIRTY + 601) == [("no end", "a: the time of 1 run is over, and no end is on record")]


def test_a_token_that_names_no_run_is_told_by_agent() -> None:
    """One line for many runs."""
    history = History()
    for number in range(3):
        history.call(run_of("", number, NINE_THIRTY, 600, grade=Grade.TOKEN), NINE_THIRTY, "read")

    assert told(history, now=NINE_THIRTY) == [
        ("weak identity", "an agent without a name: 3 runs known by the token alone: the issuer names no run")
    ]


def test_denied_calls_that_differ_or_are_far_apart_are_no_repetition() -> None:
    """Neither is a call after the run's end, which has a line of its own."""
    history = History()
    run = run_of("a", 1, NINE_THIRTY, 6000)
    for number in range(3):
        history.call(run, NINE_THIRTY + 40 * number, "read", Reason.POLICY, "p")
        history.call(run, NINE_THIRTY + number, f"tool-{number}", Reason.POLICY, "p")
        history.call(run, NINE_THIRTY + number, "late", Reason.REVOKED)

    assert [tag for tag, _ in told(history, now=NINE_THIRTY)] == ["after its end"]


def test_authority_of_more_than_a_day_is_told() -> None:
    """A day is what a run lasts by default: that alone is not worth a line."""
    history = History()
    for number, lasts in enumerate((86_400, 86_401, 2 * 86_400)):
        history.call(run_of("a", number, NINE_THIRTY, lasts), NINE_THIRTY, "read")

    assert told(history, now=NINE_THIRTY) == [("long authority", "a: 2 runs of more than 1 d, the longest 2 d")]


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.EXPIRED])
def test_a_run_that_was_over_before_it_was_seen_is_not_live(reason: Reason) -> None:
    """Every call was refused for it, and nobody here followed it to its end."""
    history = History()
    run = run_of("a", 1, NINE_THIRTY, 86_400)
    for seconds in (5, 9):
        history.call(run, NINE_THIRTY + seconds, "read", reason)
    history.call(run, NINE_THIRTY + 10, "read", Reason.POLICY, "p")

    (found,) = story_of(history.kept).runs

    assert found.refused is not None
    assert (found.live(NOW), found.end, found.had_until(NOW)) == (False, "", NINE_THIRTY + 5)
    assert [tag for tag, _ in told(history)] == ["after its end"]


def test_a_run_that_goes_on_with_a_new_token_is_live() -> None:
    """One token of it was over, and what came after was allowed."""
    history = History()
    run = run_of("a", 1, NINE_THIRTY, 86_400)
    history.call(run, NINE_THIRTY + 5, "read", Reason.EXPIRED)
    history.call(run, NINE_THIRTY + 9, "read")
    (found,) = story_of(history.kept).runs

    assert (found.live(NOW), found.had_until(NOW), found.refused) == (True, NOW, None)


def test_a_withheld_result_is_told_with_what_it_may_mean() -> None:
    """The tool may have done its work."""
    history = History()
    run = run_of("a", 1, NINE_THIRTY, 600)
    history.call(run, NINE_THIRTY, "pay", outcome=Outcome.WITHHELD, stopped_by=Reason.REVOKED)

    assert told(history, now=NINE_THIRTY) == [
        ("withheld result", "a: 1 result withheld, a side effect may have happened")
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0 s"),
        (0.4, "0 s"),
        (59, "59 s"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (3605, "1 h"),
        (3660, "1 h 1 min"),
        (90_000, "1 d 1 h"),
        (1e12, "11,574,074 d 1 h"),
    ],
)
def test_a_span_of_time_is_told_in_two_units(seconds: float, text: str) -> None:
    """Nobody reads seconds."""
    assert span(seconds) == text


def test_times_and_numbers_in_words() -> None:
    """A time past the calendar is its last, and not an error."""
    assert (moment(0), iso(NINE_THIRTY)) == ("1970-01-01 00:00:00", "2026-11-24T09:30:00.000Z")
    assert (moment(1e300), moment(-1e300)) == ("9999-12-31 23:59:59", "1970-01-01 00:00:00")
    assert (count(1, "run"), count(1200, "run"), count(2, "person", "people")) == ("1 run", "1,200 runs", "2 people")
