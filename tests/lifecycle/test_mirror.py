"""What one process knows of what was ended."""

from __future__ import annotations

from typing import Any

import pytest

from agentguard.errors import Refusal
from agentguard.lifecycle.ended import Ended, Kind
from agentguard.lifecycle.mirror import Mirror
from tests.lifecycle.stores import ISSUER, Clock, invocation, record


def test_a_mirror_that_was_never_brought_up_to_date_does_not_answer() -> None:
    """Nor one that was too long ago, or whose clock gives nonsense."""
    clock = Clock()
    mirror = Mirror(limit=5, monotonic=clock)
    with pytest.raises(Refusal):
        mirror.ended(invocation("a"))

    mirror.synced(100)
    assert not mirror.ended(invocation("a"))

    for now in (105.1, float("nan")):
        clock.now = now
        with pytest.raises(Refusal, match="refused"):
            mirror.ended(invocation("a"))


def test_an_earlier_moment_does_not_make_a_mirror_older() -> None:
    """Two may bring it up to date at once."""
    mirror = Mirror(limit=5, monotonic=Clock(104))
    mirror.synced(100)
    mirror.synced(10)

    mirror.require_fresh()


def test_much_is_forgotten_some_at_a_time() -> None:
    """Whoever ends a run meanwhile does not wait for all of it; then nothing is left."""
    mirror = Mirror()
    mirror.add_all((Ended(issuer=ISSUER, name=str(number)), 200.0) for number in range(2500))
    mirror.add(Ended(issuer=ISSUER, kind=Kind.USER, name="alice"), 200.0)
    mirror.add(Ended(issuer=ISSUER, kind=Kind.USER, name="bob"), 200.0)

    assert [len(mirror.forget(200.0)) for _ in range(4)] == [1000, 1000, 502, 0]

    assert (mirror._runs, mirror._wide, mirror._due) == ({}, {}, [])
    assert list(mirror.entries()) == []


@pytest.mark.parametrize(
    ("ended", "why"),
    [
        ({"name": "a"}, "run `a` was ended"),
        ({"kind": Kind.AGENT, "name": "billing"}, "every run of agent `billing` is ended, for good"),
        ({"kind": Kind.USER, "name": "alice"}, "every run of user `alice` is ended, for good"),
        ({"kind": Kind.TASK, "name": "t-1"}, "every run of task `t-1` is ended, for good"),
        ({"kind": Kind.ISSUER}, "every run of this issuer is ended, for good"),
        (
            {"kind": Kind.ISSUER, "cutoff": 1_790_000_000.5},
            "runs of this issuer that begin before 2026-09-21 14:13:21 UTC are ended: begin one after that",
        ),
        (
            {"kind": Kind.AGENT, "name": "billing", "cutoff": 1_790_000_000.0},
            "runs of agent `billing` that begin before 2026-09-21 14:13:20 UTC are ended: begin one after that",
        ),
        (
            {"kind": Kind.AGENT, "name": "billing", "cutoff": 1e300},
            "every run of agent `billing` is ended, for good",
        ),
    ],
)
def test_run_that_may_not_begin_is_told_why_and_until_when(ended: dict[str, Any], why: str) -> None:
    """Whoever begins it can wait, or has to take another name; the cutoff stands with its leeway."""
    mirror = Mirror()
    mirror.add(Ended(issuer=ISSUER, **ended), None)

    with pytest.raises(Refusal) as refused:
        mirror.require_mintable(record("b"), record("a", agent="billing", user="alice", task="t-1"))

    assert refused.value.detail == why


def test_name_in_a_log_is_one_line() -> None:
    """A user is called what somebody else's issuer calls them."""
    mirror = Mirror()
    mirror.add(Ended(issuer=ISSUER, kind=Kind.USER, name="a\nrefused"), None)

    with pytest.raises(Refusal) as refused:
        mirror.require_mintable(record("a", user="a\nrefused"))

    assert refused.value.detail == "every run of user `a\ufffdrefused` is ended, for good"


def test_run_that_ended_before_what_was_forgotten_may_not_begin() -> None:
    """Nobody could say any more whether it was ended."""
    mirror = Mirror()
    mirror.raise_horizon(5000)

    with pytest.raises(Refusal) as refused:
        mirror.require_mintable(record("a"))

    assert refused.value.detail == "run `a` ends before what is forgotten: look at the clocks"


def test_what_is_known_can_be_told_in_full() -> None:
    """With cutoffs and ends, as somebody who knows nothing needs it."""
    mirror = Mirror()
    known: list[tuple[Ended, float | None]] = [
        (Ended(issuer=ISSUER, name="a"), 200.0),
        (Ended(issuer=ISSUER, name="b"), None),
        (Ended(issuer=ISSUER, kind=Kind.TASK, name="t-1", cutoff=90.0), 300.0),
        (Ended(issuer="https://other.example", kind=Kind.ISSUER), None),
    ]

    assert mirror.add_all(known) == [ended for ended, _ in known]

    assert list(mirror.entries()) == known


def test_what_another_process_forgot_is_over_here_too() -> None:
    """Its horizon counts, and never moves back."""
    mirror = Mirror()
    mirror.raise_horizon(300.0)
    mirror.raise_horizon(100.0)

    assert mirror.ended(invocation("a", run_ends_at=300))
    assert not mirror.ended(invocation("a", run_ends_at=301))
