"""Valkey is stopped for ten seconds while calls come in, and started again."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from agentguard import Refusal
from agentguard.lifecycle.valkey import ValkeyStore
from agentguard.limits import Limits
from tests.lifecycle.stores import served
from tests.soak.guarded import Guarded, Tried, make_guarded
from tests.world import ISSUER

AWAY_SECONDS = 10
STALE = Limits().staleness_seconds
SECOND = 1_000_000_000
RUNS = ("live-1", "live-2", "live-3", "before", "meanwhile")


class Load:
    """Calls of several runs, each as soon as the last one is answered."""

    def __init__(self, guarded: Guarded) -> None:
        self.guarded = guarded
        self._stop = False
        self._answered = anyio.Event()
        self.tries: list[Tried] = []

    async def of(self, run: str) -> None:
        """Call for one run, until it is stopped."""
        token = self.guarded.token(run)
        number = 0
        while not self._stop:
            self.tries.append(await self.guarded.call("quick", run, token, key=f"{run}-{number}"))
            self._answered.set()
            self._answered = anyio.Event()
            number += 1
            await anyio.sleep(0.002)

    async def until(self, run: str, *, denied_as: str) -> None:
        """Wait until a call of *run*, made from now on, ends like this."""
        now = time.perf_counter_ns()
        while not any(t.run == run and t.called_at > now and t.reason == denied_as for t in self.tries[-50:]):
            await self._answered.wait()

    def stop(self) -> None:
        """Call no more."""
        self._stop = True

    def between(self, begin: int, end: int, *runs: str) -> list[Tried]:
        """Return the calls of *runs* that were made in this time."""
        return [tried for tried in self.tries if tried.run in runs and begin <= tried.called_at < end]


async def test_ten_seconds_without_valkey_let_no_revoked_run_through(tmp_path: Path) -> None:
    """Past the limit on staleness nobody is let through, and afterwards those who live are again."""
    with (
        served(tmp_path) as server,
        closing(ValkeyStore(server.connection_url)) as store,
        closing(ValkeyStore(server.connection_url)) as issuers,
    ):
        load = Load(make_guarded(tmp_path / "policies", store))
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(60):
                for run in RUNS:
                    tasks.start_soon(load.of, run)
                await load.until("before", denied_as="")
                await anyio.to_thread.run_sync(lambda: issuers.revoke(issuer=ISSUER, run_id="before"))
                await load.until("before", denied_as="ended")
                before = time.perf_counter_ns()

                await anyio.to_thread.run_sync(server.stop)
                stopped = time.perf_counter_ns()
                with pytest.raises(Refusal):
                    await anyio.to_thread.run_sync(lambda: issuers.revoke(issuer=ISSUER, run_id="meanwhile"))
                await load.until("live-1", denied_as="unavailable")
                await anyio.sleep(AWAY_SECONDS - (time.perf_counter_ns() - stopped) / SECOND)
                starting = time.perf_counter_ns()
                await anyio.to_thread.run_sync(server.start)
                started = time.perf_counter_ns()

                await load.until("live-1", denied_as="")
                served_again = time.perf_counter_ns()
                await load.until("meanwhile", denied_as="ended")
                known = time.perf_counter_ns()
                for run in RUNS[:3]:
                    await load.until(run, denied_as="")
                load.stop()
                end = time.perf_counter_ns()

    assert {tried.reason for tried in load.between(before, end, "before")} == {"ended", "unavailable"}
    stale = load.between(stopped + int((STALE + 0.01) * SECOND), starting, *RUNS)
    # How many there are is a question of the machine.
    assert len(stale) > 100
    assert {tried.reason for tried in stale} == {"unavailable"}
    reasons = {record["agentguard.decision.reason"] for record in load.guarded.world.records()}
    assert reasons == {"permit", "revoked", "store_unavailable"}
    assert {tried.reason for tried in load.between(known, end, "meanwhile")} == {"ended"}
    assert {tried.reason for tried in load.between(served_again, end, *RUNS[:3])} == {""}
    assert (served_again - started) / SECOND < 2
    assert (known - started) / SECOND < STALE
