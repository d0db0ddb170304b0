"""A thread that goes on, whatever its step does."""

from __future__ import annotations

import logging
import threading

import pytest

from agentguard.errors import Refusal
from agentguard.lifecycle.follower import Follower
from agentguard.model import Reason


def test_a_step_that_fails_is_told_once_and_tried_again(caplog: pytest.LogCaptureFixture) -> None:
    """What went wrong is in the log, once each time, and so is that it is well again."""
    done = threading.Event()
    outcomes: list[Exception | None] = [
        None,
        Refusal(Reason.STORE_UNAVAILABLE, "the disk is gone"),
        Refusal(Reason.STORE_UNAVAILABLE, "the disk is still gone"),
        None,
        ValueError("a secret"),
        None,
    ]

    def step() -> None:
        if not outcomes:
            done.set()
            return
        outcome = outcomes.pop(0)
        if outcome is not None:
            raise outcome

    with caplog.at_level(logging.WARNING, "agentguard"):
        follower = Follower(step, name="store x", pause=0, retry=0)
        assert done.wait(10)
        follower.close()

    assert [record.getMessage() for record in caplog.records] == [
        "store x cannot be followed: the disk is gone",
        "store x is followed again",
        "store x cannot be followed: ValueError",
        "store x is followed again",
    ]


def test_a_first_step_is_over_before_anything_is_asked() -> None:
    """Even if it fails, there is a follower."""
    taken: list[str] = []

    follower = Follower(
        lambda: taken.append(threading.current_thread().name), name="x", pause=10**6, retry=0, first=True
    )

    assert taken == [threading.current_thread().name]
    follower.close()


def test_a_step_may_close_its_own_follower() -> None:
    """It does not wait for itself."""
    made: list[Follower] = []
    ready, closed = threading.Event(), threading.Event()

    def step() -> None:
        assert ready.wait(10)
        made[0].close()
        closed.set()

    made.append(Follower(step, name="x", pause=0, retry=0))
    ready.set()

    assert closed.wait(10)
    made[0].close()
