"""A store that is slow, damaged or full denies and recovers by itself; a clock that steps back revives nothing."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import sqlite3
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from agentguard import Invocation, Refusal
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.valkey import ValkeyStore
from agentguard.limits import Limits
from tests.lifecycle.processes import other
from tests.lifecycle.stores import KINDS, invocation, kept, served
from tests.soak.guarded import make_guarded
from tests.soak.others import fill_the_disk
from tests.soak.test_valkey_away import Load
from tests.world import ISSUER

STALE = Limits().staleness_seconds
STEPS = 300


def soon(condition: Callable[[], bool]) -> None:
    """Ask again and again, for at most ten seconds: what another process learns comes in its own time."""
    pause = threading.Event()
    give_up = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < give_up
        pause.wait(0.002)


async def test_a_server_that_hangs_denies_and_serves_again_when_it_goes_on(tmp_path: Path) -> None:
    """It keeps its connections open and says nothing: no error tells that what is known grows old."""
    with served(tmp_path) as server, closing(ValkeyStore(server.connection_url, wait=0.5)) as store:
        load = Load(make_guarded(tmp_path / "policies", store))
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(40):
                for run in ("live", "ended"):
                    tasks.start_soon(load.of, run)
                await load.until("live", denied_as="")
                os.kill(server._process.pid, signal.SIGSTOP)
                try:
                    with pytest.raises(Refusal):
                        await anyio.to_thread.run_sync(lambda: store.revoke(issuer=ISSUER, run_id="ended"))
                    await load.until("ended", denied_as="ended")
                    began = time.monotonic()
                    await load.until("live", denied_as="unavailable")
                    assert time.monotonic() - began < STALE + 1
                finally:
                    os.kill(server._process.pid, signal.SIGCONT)
                await load.until("live", denied_as="")
                await load.until("ended", denied_as="ended")
                load.stop()


async def test_a_file_that_becomes_garbage_denies_and_serves_again_when_it_is_replaced(tmp_path: Path) -> None:
    """What was ended is ended before, meanwhile and afterwards, and in the new file too; new runs are served."""
    path = tmp_path / "state" / "store.db"
    with closing(SQLiteStore(path)) as store:
        load = Load(make_guarded(tmp_path / "policies", store))
        async with anyio.create_task_group() as tasks:
            with anyio.fail_after(40):
                for run in ("live", "ended", "meanwhile"):
                    tasks.start_soon(load.of, run)
                store.revoke(issuer=ISSUER, run_id="ended")
                await load.until("live", denied_as="")
                for file in path.parent.iterdir():
                    # In place: what is mapped into memory must not become shorter.
                    with file.open("r+b") as opened:
                        opened.write(os.urandom(max(file.stat().st_size, 4096)))
                damaged = time.perf_counter_ns()
                with pytest.raises(Refusal):
                    await anyio.to_thread.run_sync(lambda: store.revoke(issuer=ISSUER, run_id="meanwhile"))
                revoked = time.perf_counter_ns()
                await load.until("live", denied_as="unavailable")
                assert time.perf_counter_ns() - damaged < (STALE + 2) * 1e9

                for file in path.parent.iterdir():
                    file.unlink()
                path.touch(0o600)
                tasks.start_soon(load.of, "fresh")
                await load.until("fresh", denied_as="")
                await load.until("ended", denied_as="ended")
                # What it has done nobody knows any more, so it does no more.
                await load.until("live", denied_as="unavailable")
                load.stop()
        assert {tried.reason for tried in load.between(revoked, time.perf_counter_ns(), "ended", "meanwhile")} <= {
            "ended",
            "unavailable",
        }
        with closing(SQLiteStore(path)) as beside:
            await anyio.to_thread.run_sync(
                soon, lambda: all(beside.ended(invocation(run, run_ends_at=2**40)) for run in ("ended", "meanwhile"))
            )


def test_a_full_disk_refuses_what_it_cannot_keep_and_keeps_it_when_there_is_room(tmp_path: Path) -> None:
    """What was refused holds in its process, and is written without being asked for again."""
    path = tmp_path / "state" / "store.db"
    orders, sends = multiprocessing.Pipe(duplex=False)
    with other(fill_the_disk, orders, path) as process:
        ((confirmed, refused),) = process.hear()
        with closing(SQLiteStore(path)) as store:
            assert len(confirmed) > 50
            assert all(store.ended(invocation(run)) for run in confirmed)
            assert not any(store.ended(invocation(run)) for run in refused)
            sends.send("there is room")
            soon(lambda: all(store.ended(invocation(run)) for run in refused))
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


@pytest.mark.parametrize("kind", KINDS)
def test_a_clock_that_steps_back_and_forth_revives_nothing(kind: str, tmp_path: Path) -> None:
    """Two processes' worth of stores on one truth, one of them opened anew now and then, and a clock that jumps."""
    chance = random.Random(4)  # noqa: S311  a case, not a secret
    ended: list[Invocation] = []
    with kept(kind, tmp_path) as truth:
        stores = [truth.open(), truth.open()]
        truth.clock.now = 10_000.0

        def nobody_is_back() -> bool:
            # As a guard asks: a run whose time is over is denied without its store.
            return all(not truth.clock.now < run.ends_at or store.ended(run) for run in ended for store in stores)

        for step in range(STEPS):
            truth.clock.now = max(1_000.0, truth.clock.now + chance.choice((-2_000, -400, -1, 0, 1, 50, 400, 900)))
            began = int(truth.clock.now)
            run = invocation(f"run-{step}", issued_at=began, run_ends_at=began + chance.randrange(1, 300))
            one = chance.choice(stores)
            one.revoke(issuer=run.issuer, run_id=run.run_id, until=run.ends_at)
            ended.append(run)
            assert one.ended(run)
            soon(nobody_is_back)
            if step % 50 == 49:
                stores[1].close()
                stores[1] = truth.open()
            # Whatever the time is now, and with nothing new to learn.
            for moment in (0.0, began - 1_000.0, float(began)):
                truth.clock.now = moment
                assert nobody_is_back()
