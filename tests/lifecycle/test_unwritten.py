"""What a store could not write yet."""

from __future__ import annotations

import pytest

from agentguard.lifecycle import unwritten
from agentguard.lifecycle.ended import Ended, Revocation
from agentguard.lifecycle.mirror import Mirror
from agentguard.lifecycle.unwritten import Unwritten
from tests.lifecycle.stores import ISSUER, Clock, invocation

A, B, C = (Ended(issuer=ISSUER, name=name) for name in "abc")
NOW = Revocation(reason="stolen", at=100.0)


def write_one_of_each(waiting: Unwritten) -> None:
    """Write one end and the calls of one run, and fail while more comes in."""
    with waiting.taken() as (ends, calls):
        del ends[0]
        del calls[ISSUER, "b"]
        waiting.ended(C, NOW)
        waiting.used(invocation("a"))
        message = "no space"
        raise OSError(message)


def test_what_could_not_be_written_is_kept_beside_what_came_meanwhile() -> None:
    """What was written is not: whoever writes takes it out, one after the other."""
    waiting = Unwritten(Clock())
    waiting.ended(A, NOW)
    waiting.ended(B, NOW)
    waiting.used(invocation("a"))
    waiting.used(invocation("b"))

    with pytest.raises(OSError, match="no space"):
        write_one_of_each(waiting)

    with waiting.taken() as (ends, calls):
        assert ends == [(B, NOW), (C, NOW)]
        assert calls == {(ISSUER, "a"): (100.0, 2)}
    with waiting.taken() as (ends, calls):
        assert (ends, calls) == ([], {})


def test_two_who_write_at_once_lose_nothing() -> None:
    """The second one finds what came since the first one took the rest."""
    waiting = Unwritten(Clock())
    waiting.ended(A, NOW)

    with waiting.taken() as (first, _):
        waiting.ended(B, NOW)
        with waiting.taken() as (second, _):
            assert (first, second) == ([(A, NOW)], [(B, NOW)])


def test_calls_of_more_runs_than_can_be_kept_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table for people must not take the memory of a guard."""
    monkeypatch.setattr(unwritten, "COUNTED_RUNS", 1)
    waiting = Unwritten(Clock())

    for run_id in ("a", "b", "a"):
        waiting.used(invocation(run_id))

    with waiting.taken() as (_, calls):
        assert calls == {(ISSUER, "a"): (100.0, 2)}


def test_a_truth_that_came_back_is_told_what_it_does_not_know() -> None:
    """Nor what is to be written already; and nothing twice."""
    mirror, waiting = Mirror(), Unwritten(Clock())
    for ended in (A, B, C):
        mirror.add(ended, 330.0)
    waiting.ended(B, NOW)

    for _ in range(2):
        waiting.remind(mirror, {A.key})

    with waiting.taken() as (ends, _):
        assert ends == [(B, NOW), (C, Revocation(reason="", at=100.0, until=330.0))]
