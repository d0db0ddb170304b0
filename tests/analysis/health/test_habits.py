from dataclasses import replace
from typing import Any

import pytest

from agentguard.analysis.health.habits import DAY, Habits, habits_of
from agentguard.evidence.kept import Kept

NOW = 1_800_000_000.0


def kept(kind: str, at: float, chain: str = "c1", **attributes: Any) -> Kept:
    """Return a record; the attributes' names are written with `__` for a dot."""
    named = {name.replace("__", "."): value for name, value in attributes.items()}
    return Kept(kind=kind, time_unix_nano=int(at * 1e9), attributes=named, chain_id=chain)


def call(at: float, run: str = "r1", chain: str = "c1", **more: Any) -> Kept:
    """Return a decision about a call."""
    return kept(
        "decision",
        at,
        chain,
        **{
            "agentguard__run__id": run,
            "agentguard__agent__id": "reader",
            "agentguard__invocation__issuer": "https://issuer.example",
            "agentguard__invocation__grade": "run",
            "agentguard__authority__granted": 600.0,
            "agentguard__run__ends_at": int(NOW) + 100,
            "agentguard__decision__effect": "allow",
            "agentguard__decision__reason": "permit",
            "agentguard__transport": "http",
            **more,
        },
    )


def state(at: float, name: str, run: str = "r1", **more: Any) -> Kept:
    """Return what is kept when a run's state changes."""
    return kept(
        "run",
        at,
        **{
            "agentguard__run__id": run,
            "agentguard__agent__id": "reader",
            "agentguard__invocation__issuer": "https://issuer.example",
            "agentguard__invocation__grade": "run",
            "agentguard__run__state": name,
            **more,
        },
    )


def denied(at: float, reason: str, **more: Any) -> Kept:
    """Return a denial."""
    return call(at, agentguard__decision__effect="deny", agentguard__decision__reason=reason, **more)


def told(*records: Kept, since: float = 0.0) -> Habits:
    """Return what records tell now."""
    return habits_of(records, since=since, now=NOW)


def test_run_is_told_with_its_authority_and_its_end() -> None:
    """From the records of its calls and of its states, in whatever order they are read."""
    habits = told(
        state(NOW - 10, "completed"),
        call(NOW - 90),
        call(NOW - 60, agentguard__authority__granted=900.0),
        call(NOW - 70),
    )

    run = habits.runs["https://issuer.example", "r1"]
    assert habits.records == 4
    assert habits.agents == ["reader"]
    assert (run.agent, run.grade, run.granted, run.ends_at) == ("reader", "run", 900.0, NOW + 100)
    assert (run.last_call, run.ended_at, run.end, run.late) == (NOW - 60, NOW - 10, "completed", 0)
    assert run.idle(NOW) == 50


def test_agent_that_was_only_ever_denied_did_not_act() -> None:
    """A name in a token need not be that of an agent that anybody runs here."""
    denial = {"agentguard__decision__effect": "deny", "agentguard__decision__reason": "no_permit"}

    assert told(call(NOW - 90, **denial)).agents == []
    assert told(call(NOW - 90, **denial), call(NOW - 80)).agents == ["reader"]


def test_what_is_older_is_left_out() -> None:
    """And what a clock that ran ahead has stamped is not."""
    habits = told(call(NOW - 100, "old"), call(NOW - 10, "new"), call(NOW + 10, "ahead"), since=NOW - 50)

    assert [key[1] for key in habits.runs] == ["new", "ahead"]
    assert habits.days["reader", 0].calls == 2


def test_records_of_nobody_and_outcomes_name_no_run() -> None:
    """They count as records, and tell nothing of who acts."""
    habits = told(kept("start", NOW), kept("outcome", NOW, agentguard__run__id="r1", agentguard__agent__id="reader"))

    assert habits.records == 2
    assert habits.runs == {}
    assert habits.agents == []


@pytest.mark.parametrize(
    ("calls", "at_once"),
    [
        ([(1, "http", "s1"), (2, "http", "s2"), (3, "http", "s1")], True),
        ([(1, "http", "s1"), (2, "http", "s1"), (3, "http", "s2"), (4, "http", "s2")], False),
        ([(1, "http", "s1"), (2, "http", "s2")], False),
        ([(1, "http", ""), (2, "http", "s2"), (3, "http", "")], False),
        ([(1, "http", "s1"), (2, "stdio", ""), (3, "http", "s1")], True),
        ([(1, "", "s1"), (2, "", "s2"), (3, "", "s1")], False),
    ],
    ids=["interleaved", "one after the other", "once each", "no session", "two transports", "not judged"],
)
def test_run_of_two_clients_at_once_is_seen(calls: list[tuple[int, str, str]], at_once: bool) -> None:
    """A client that comes back after another is the same flow; one in the midst of another's calls is not."""
    habits = told(
        *(call(NOW + at, agentguard__transport=transport, mcp__session__id=session) for at, transport, session in calls)
    )

    (run,) = habits.runs.values()
    assert run.by_two is at_once


def test_two_processes_that_speak_stdio_at_once_are_two_clients() -> None:
    """Each has a chain of its own, and one client."""
    calls = [call(NOW + at, chain=chain, agentguard__transport="stdio") for at, chain in ((1, "a"), (2, "b"), (3, "a"))]

    (run,) = told(*calls).runs.values()

    assert run.by_two


@pytest.mark.parametrize(("grade", "by_two"), [("run", True), ("token", True), ("shared", False)])
def test_run_that_its_guard_saw_used_from_elsewhere_is_that_of_two_clients(grade: str, by_two: bool) -> None:
    """Over the current protocol no call has a session, so nothing else tells; an identity that all share is none."""
    elsewhere = state(NOW - 5, "", agentguard__invocation__grade=grade)

    (run,) = told(
        call(NOW - 9, agentguard__invocation__grade=grade), replace(elsewhere, kind="shared_run")
    ).runs.values()

    assert run.by_two is by_two


def test_shared_identity_is_not_told_as_two_clients() -> None:
    """It is told as what it is."""
    calls = [
        call(NOW + at, mcp__session__id=session, agentguard__invocation__grade="shared")
        for at, session in ((1, "a"), (2, "b"), (3, "a"))
    ]

    habits = told(*calls)

    (run,) = habits.runs.values()
    assert not run.by_two
    assert habits.issuers["https://issuer.example"] == {"shared": 3}


def test_calls_after_the_end_are_no_use_of_the_run() -> None:
    """They were refused, and say that somebody still has the token."""
    (run,) = told(call(NOW - 50), denied(NOW - 20, "revoked"), denied(NOW - 10, "expired")).runs.values()

    assert run.late == 2
    assert run.last_call == NOW - 50


def test_what_a_person_is_asked_about_is_no_denial() -> None:
    """It goes on when they have answered."""
    habits = told(denied(NOW - 5, "approval_required"), denied(NOW - 5 - DAY, "policy"), call(NOW - 5))

    assert habits.days["reader", 0].calls == 1
    assert habits.days["reader", 0].denied == {}
    assert habits.days["reader", 1].denied == {"policy": 1}


@pytest.mark.parametrize(
    ("states", "wanted"),
    [
        ([("expired", 10), ("completed", 5)], ("completed", NOW - 5)),
        ([("completed", 5), ("expired", 10)], ("completed", NOW - 5)),
        ([("active", 20), ("revoked", 5)], ("revoked", NOW - 5)),
        ([("issued", 20)], ("", None)),
    ],
)
def test_end_that_somebody_made_is_the_end(states: list[tuple[str, float]], wanted: tuple[str, float | None]) -> None:
    """A guard that only saw the time pass knows less."""
    (run,) = told(*(state(NOW - ago, name) for name, ago in states)).runs.values()

    assert (run.end, run.ended_at) == wanted


def test_run_is_not_idle_while_its_call_runs() -> None:
    """A tool may take its time; what came out of it names no issuer, and tells when it was done."""
    done = kept("outcome", NOW - 20, agentguard__run__id="r1")

    (run,) = told(call(NOW - 3_000), done, state(NOW - 10, "completed")).runs.values()

    assert run.idle(NOW) == 10


def test_idle_time_is_told_where_it_can_be() -> None:
    """Not of a run that was never used, nor of one that has no end; one that lives is idle until now."""
    (unused,) = told(state(NOW, "completed")).runs.values()
    (endless,) = told(state(NOW - 50, "issued"), call(NOW - 50, agentguard__run__ends_at="soon")).runs.values()
    (living,) = told(call(NOW - 50)).runs.values()

    assert unused.idle(NOW) is None
    assert endless.idle(NOW) is None
    assert living.idle(NOW) == 50
