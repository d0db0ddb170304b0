"""What runs have done, counted by several processes at once, and by some that are killed meanwhile."""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
from contextlib import closing

from agentguard.lifecycle.tally import Tally
from tests.lifecycle.processes import other
from tests.soak.others import Place
from tests.soak.tallying import AMOUNT, CALL, RUNS, count_for_ever, count_when_told

PROCESSES = 2
EACH = 100
TURNS = 10
KILLS = 30


def test_two_processes_count_exactly(place: Place) -> None:
    """Two hundred calls, each of a run and its parent: none is lost, and none counts twice."""
    vain = 0
    for turn in range(1, TURNS + 1):
        pipes = [multiprocessing.Pipe(duplex=False) for _ in range(PROCESSES)]
        with (
            other(count_when_told, pipes[0][0], place, EACH) as one,
            other(count_when_told, pipes[1][0], place, EACH) as another,
            closing(place.open()) as store,
        ):
            one.hear()
            another.hear()
            for _, sends in pipes:
                sends.send("go")
            vain += sum(one.hear() + another.hear())

            for tally in store.tallies(*RUNS):
                counted = turn * PROCESSES * EACH
                assert tally == Tally(
                    version=counted,
                    started_at=1.0,
                    calls=counted,
                    tools={CALL.tool: counted},
                    labels=CALL.labels,
                    spent={"payments": counted * AMOUNT},
                )

    # Two that never met would prove nothing.
    assert vain > 0


def test_killed_process_leaves_nothing_half_done_and_loses_nothing_that_it_said(place: Place) -> None:
    """Both runs always have the same; who goes on is not disturbed, and the file stays whole."""
    chance = random.Random(7)  # noqa: S311  a moment, not a secret
    with closing(place.open()) as store, other(count_for_ever, place, "survivor") as survivor:
        for number in range(KILLS):
            name = f"killed-{number}"
            with other(count_for_ever, place, name) as process:
                heard = process.hear(chance.randrange(1, 25))
                # Not in step with what it says.
                for _ in range(chance.randrange(20_000)):
                    pass
                said = [*heard, *process.kill()][-1]
            # The other one goes on.
            survivor.hear(50)

            parent, child = store.tallies(*RUNS)
            assert parent == child, name
            # What it was killed in the middle of is done or not done.
            assert 0 <= parent.tools[name] - said <= 1
            assert parent.calls == parent.version == sum(parent.tools.values())
            assert parent.spent == {tool: calls * AMOUNT for tool, calls in parent.tools.items()}

        said = [*survivor.hear(), *survivor.kill()][-1]
        parent, child = store.tallies(*RUNS)
        assert parent == child
        assert 0 <= parent.tools["survivor"] - said <= 1
    # As whoever starts afterwards finds it.
    with closing(place.open()) as store:
        assert store.tallies(*RUNS) == (parent, child)
    if place.kind == "sqlite":
        with closing(sqlite3.connect(place.where)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
