"""A revocation against a call that is just starting, again and again at a random moment.

The calls are those of a real guard with real tokens, made as the adapter makes them:
preflight, then the guarded function. Only the transport is left out; it has no part in
the order of the steps.
"""

from __future__ import annotations

import multiprocessing
import queue
import random
import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import anyio
import pytest

from agentguard.lifecycle.store import MemoryStore, Store
from tests.lifecycle.processes import other
from tests.soak.guarded import Guarded, Tried, make_guarded
from tests.soak.others import Place, revoke_when_told
from tests.world import ISSUER

TRIES = 10_000
TRIES_ACROSS = 1_000


class Revoker:
    """A thread that revokes a run at a given moment."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._orders: queue.SimpleQueue[tuple[str, int] | None] = queue.SimpleQueue()
        self._done: queue.SimpleQueue[int] = queue.SimpleQueue()

    def revoke(self, run: str, at: int) -> None:
        """Revoke *run* at a moment to come."""
        self._orders.put((run, at))

    def returned_at(self) -> int:
        """Wait until it is revoked, and return when that was."""
        return self._done.get(timeout=10)

    def _work(self) -> None:
        while (order := self._orders.get()) is not None:
            run, at = order
            while time.perf_counter_ns() < at:
                time.sleep(0)
            self._store.revoke(issuer=ISSUER, run_id=run)
            self._done.put(time.perf_counter_ns())

    @contextmanager
    def working(self) -> Iterator[Revoker]:
        """Have it work, inside the block."""
        thread = threading.Thread(target=self._work)
        thread.start()
        try:
            yield self
        finally:
            self._orders.put(None)
            thread.join()


async def typical(guarded: Guarded) -> int:
    """Return how long a call takes that nobody disturbs, nanoseconds."""
    taken = []
    for number in range(50):
        run = f"undisturbed-{number}"
        token = guarded.token(run)
        tried = await guarded.call("quick", run, token)
        assert tried.handed_out
        taken.append(time.perf_counter_ns() - tried.called_at)
    return int(statistics.median(taken))


def judge(tried: Tried, revoked_at: int) -> str:
    """Return how a call ended, after making sure that the revocation held."""
    if tried.handed_out:
        # It was over before the revocation was: nothing came out afterwards.
        assert tried.finished_at is not None
        assert tried.finished_at < revoked_at, tried
        return "handed out"
    assert tried.reason == "ended", tried
    if tried.began_at is None:
        return "denied"
    # The thread of a plain function cannot be stopped; what it returns is withheld.
    return "withheld" if tried.finished_at is not None else "cancelled"


@pytest.mark.usefixtures("eager_threads")
async def test_no_call_comes_to_its_result_after_its_run_was_revoked(tmp_path: Path) -> None:
    """In one process, on a store in memory: ten thousand times, at any moment of a call."""
    store = MemoryStore(clock=time.time)
    guarded = make_guarded(tmp_path, store)
    chance = random.Random(1)  # noqa: S311  a moment, not a secret
    span = 2 * await typical(guarded)
    ways = Counter[tuple[str, str]]()
    with Revoker(store).working() as revoker:
        for number in range(TRIES):
            tool = ("quick", "patient", "quick", "threaded")[number % 4]
            run = f"run-{number}"
            token = guarded.token(run)
            revoker.revoke(run, time.perf_counter_ns() + chance.randrange(span))
            # A patient tool whose cancellation was lost would wait here for ever.
            with anyio.fail_after(20):
                tried = await guarded.call(tool, run, token)
            revoked_at = revoker.returned_at()
            way = judge(tried, revoked_at)
            ways[tool, way] += 1
            if tool == "quick" and tried.finished_at is not None:
                # It came to its result, so it had begun by then: what waits once is stopped.
                assert tried.began_at is not None
                assert tried.began_at < revoked_at, tried

    assert sum(ways.values()) == TRIES
    # A race that one side always wins was none.
    for fought in (("quick", "denied"), ("quick", "handed out"), ("patient", "denied"), ("patient", "cancelled")):
        assert ways[fought] > TRIES // 200, ways


async def test_no_call_comes_to_its_result_whose_run_another_process_revoked(place: Place, tmp_path: Path) -> None:
    """Whether the news comes before the call, while it is judged or while the tool runs."""
    orders, sends = multiprocessing.Pipe(duplex=False)
    chance = random.Random(2)  # noqa: S311  a moment, not a secret
    ways = Counter[str]()
    with closing(place.open()) as store, other(revoke_when_told, orders, place) as process:
        guarded = make_guarded(tmp_path / "policies", store)
        process.hear()
        for number in range(TRIES_ACROSS):
            run = f"run-{number}"
            token = guarded.token(run)
            sends.send((run, time.perf_counter_ns() + 8_000_000))
            # How long the news takes is what is not known: so the call comes at any moment.
            await anyio.sleep(chance.uniform(0, 0.02))
            with anyio.fail_after(20):
                tried = await guarded.call("patient", run, token)
            await anyio.to_thread.run_sync(process.hear)
            assert tried.finished_at is None
            ways[judge(tried, 0)] += 1

    assert sum(ways.values()) == TRIES_ACROSS
    assert min(ways["denied"], ways["cancelled"]) > TRIES_ACROSS // 100, ways
