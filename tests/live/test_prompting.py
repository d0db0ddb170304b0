"""What has policies reloaded by itself: news of the folder, and a signal that was asked for."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import pytest

from agentguard import ConfigurationError, Guard
from agentguard.adapters.again import Bell
from agentguard.live import prompting
from agentguard.live.prompting import Asked, Prompting
from agentguard.policy.deciding.engine import PolicySet
from tests.live.test_reloading import ROWS, files, rows
from tests.publishing import lock, move, put, swap
from tests.world import POLICIES, World, connected, make_world


@pytest.fixture
def started() -> Iterator[Callable[[World], World]]:
    """Give what stops the threads of a world after the test."""
    worlds: list[World] = []

    def start(world: World) -> World:
        worlds.append(world)
        return world

    yield start
    for world in worlds:
        world.guard.stop_watching()


class Looks:
    """Counts looks."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.came = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.go_on.set()
        self.fails: type[BaseException] | None = None
        self.forked = 0

    def __call__(self, asked: Asked) -> None:
        """Look."""
        # Before anybody is told: whoever is told may change it at once.
        fails = self.fails
        self.asked.append(asked)
        self.came.release()
        assert self.go_on.wait(5)
        if fails is not None:
            raise fails

    def after_fork(self) -> None:
        """Count it."""
        self.forked += 1


@pytest.fixture
def looks() -> Looks:
    """Return a counter."""
    return Looks()


@pytest.fixture
def hangup() -> Iterator[list[int]]:
    """Give the signals that somebody else's handler got, and put back what was there."""
    heard: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, _: heard.append(number))
    yield heard
    signal.signal(signal.SIGHUP, before)


def news_of(world: World) -> Bell:
    """Return what rings when other policies judge, or do so in the shadow."""
    bell = Bell()
    enforcer = world.guard._enforcer
    assert enforcer is not None
    compiling = world.guard._reloading._live.compiling  # type: ignore[union-attr]
    enforcer.in_force.tell(bell.ring)
    shade = compiling.shade

    def shaded(policies: PolicySet | None) -> None:
        shade(policies)
        bell.ring()

    compiling.shade = shaded
    return bell


async def rung(bell: Bell) -> None:
    """Wait until it rang."""
    with anyio.fail_after(20):
        await bell.wait()


async def may(world: World) -> bool:
    """Return whether 600 rows may be exported."""
    async with connected(world, "memory", "2026-07-28") as client:
        return await rows(client)


async def test_watched_folder_goes_live_by_itself(tmp_path: Path, started: Callable[[World], World]) -> None:
    """However it is put there, as long as it is whole."""
    world = started(make_world(tmp_path / "policies", watch=True))
    bell = news_of(world)
    assert not await may(world)

    move(world.folder, files(ROWS))
    await rung(bell)
    assert await may(world)
    put(world.folder, files(POLICIES))
    lock(world.folder)
    await rung(bell)
    assert not await may(world)


async def test_link_on_the_way_is_watched_too(tmp_path: Path, started: Callable[[World], World]) -> None:
    """The folder that it led to does not change at all."""
    swap(tmp_path / "current", {f"policies/{name}": text for name, text in files(POLICIES).items()}, name="1")
    real = tmp_path / "current" / "policies"
    world = started(make_world(real, watch=True))
    bell = news_of(world)

    swap(tmp_path / "current", {f"policies/{name}": text for name, text in files(ROWS).items()}, name="2")

    await rung(bell)
    assert await may(world)


async def test_shadow_is_watched_with_the_policies(tmp_path: Path, started: Callable[[World], World]) -> None:
    """By the same news."""
    shadow = put(tmp_path / "shadow", files(POLICIES))
    world = started(make_world(tmp_path / "policies", watch=True, shadow=shadow))
    bell = news_of(world)

    move(shadow, files(ROWS))

    await rung(bell)
    assert "agentguard.shadow.policy.version" in world.records("policy")[0]


async def test_signal_has_the_folder_looked_at_and_is_handed_on(
    tmp_path: Path, started: Callable[[World], World], hangup: list[int]
) -> None:
    """Whoever had it before still gets it, and gets it back."""
    world = started(make_world(tmp_path / "policies"))
    bell = news_of(world)
    world.guard.reload_on_sighup()
    world.guard.reload_on_sighup()
    move(world.folder, files(ROWS))
    os.kill(os.getpid(), signal.SIGHUP)
    await rung(bell)

    world.guard.stop_watching()
    os.kill(os.getpid(), signal.SIGHUP)

    assert hangup == [signal.SIGHUP] * 2


async def test_signal_may_be_asked_for_before_the_guard_is_attached(
    tmp_path: Path, started: Callable[[World], World], hangup: list[int]
) -> None:
    """That is looked for from then on."""
    world = started(make_world(tmp_path / "policies", attach=False))
    world.guard.reload_on_sighup()
    os.kill(os.getpid(), signal.SIGHUP)
    world.guard.attach(world.server)
    bell = news_of(world)
    move(world.folder, files(ROWS))

    os.kill(os.getpid(), signal.SIGHUP)

    await rung(bell)
    # The first signal may have had it looked while the folder was on its way.
    assert len([one for one in world.records("policy") if "agentguard.policy.refused" not in one]) == 1


def test_no_signal_is_taken_that_nobody_asked_for(tmp_path: Path, started: Callable[[World], World]) -> None:
    """What it does is the program's own affair."""
    before = signal.getsignal(signal.SIGHUP)

    started(make_world(tmp_path / "policies", watch=True))

    assert signal.getsignal(signal.SIGHUP) is before


def test_signal_is_for_the_main_thread_alone(tmp_path: Path) -> None:
    """With what there is elsewhere."""
    world = make_world(tmp_path / "policies")
    found: list[BaseException] = []

    def elsewhere(guard: Guard) -> None:
        try:
            guard.reload_on_sighup()
        except ConfigurationError as error:
            found.append(error)

    thread = threading.Thread(target=elsewhere, args=(world.guard,))
    thread.start()
    thread.join()

    assert "wants the main thread of a system that has it" in str(found[0])


def test_signal_that_is_not_pythons_is_left_alone(
    looks: Looks, hangup: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What handles it in another language could be neither called nor put back."""
    here = Prompting([tmp_path], looks, watches=False, after_fork=looks.after_fork)
    before = signal.getsignal(signal.SIGHUP)
    with monkeypatch.context() as patch:
        patch.setattr(signal, "getsignal", lambda _: None)
        with pytest.raises(ConfigurationError, match=r"has a handler that is not Python's.*: call guard.reload"):
            here.on_sighup()
    here.begin()
    here.stop()

    assert signal.getsignal(signal.SIGHUP) is before


def test_thousand_signals_are_answered_by_a_look_or_two(looks: Looks, hangup: list[int], tmp_path: Path) -> None:
    """What came while somebody looked is answered by the next look."""
    here = Prompting([tmp_path], looks, watches=False, after_fork=looks.after_fork)
    here.on_sighup()
    here.begin()
    looks.go_on.clear()
    os.kill(os.getpid(), signal.SIGHUP)
    assert looks.came.acquire(timeout=5)
    for _ in range(1_000):
        os.kill(os.getpid(), signal.SIGHUP)
    looks.go_on.set()
    assert looks.came.acquire(timeout=5)
    here.stop()

    assert looks.asked == [Asked.BY_NAME, Asked.BY_NAME]
    assert len(hangup) > 1


@pytest.mark.parametrize("fails", [RuntimeError, BaseException])
def test_thread_outlives_a_look_that_failed(
    fails: type[BaseException], looks: Looks, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The next one may come out well. What Cedar raises where it panics is no `Exception`."""
    here = Prompting([tmp_path], looks, watches=True, after_fork=looks.after_fork)
    looks.fails = fails
    here.begin()
    assert looks.came.acquire(timeout=5)
    looks.fails = None
    (tmp_path / "a.cedar").touch()
    assert looks.came.acquire(timeout=5)
    here.stop()

    assert set(looks.asked) == {Asked.BY_NEWS}
    assert f"the policies could not be looked at: {fails.__name__} was raised at" in caplog.text


def test_thread_that_is_told_to_stop_looks_no_more(looks: Looks, hangup: list[int], tmp_path: Path) -> None:
    """Not even at what was asked for before."""
    here = Prompting([tmp_path], looks, watches=False, after_fork=looks.after_fork)
    here.begin()
    assert looks.asked == []
    here.on_sighup()
    looks.go_on.clear()
    os.kill(os.getpid(), signal.SIGHUP)
    assert looks.came.acquire(timeout=5)
    os.kill(os.getpid(), signal.SIGHUP)
    stopping = threading.Thread(target=here.stop)
    stopping.start()
    while here._asked.qsize() < 2:
        pass
    looks.go_on.set()
    stopping.join()

    assert len(looks.asked) == 1
    here.stop()


def test_signal_that_is_asked_for_after_the_end_has_nobody_watch_again(
    looks: Looks, hangup: list[int], tmp_path: Path
) -> None:
    """Whoever stopped that asks for the signal alone."""
    # Looked at once, however long this takes.
    here = Prompting([tmp_path], looks, watches=True, pause=3_600.0, after_fork=looks.after_fork)
    here.begin()
    assert looks.came.acquire(timeout=5)
    here.stop()
    looks.asked.clear()

    here.on_sighup()
    os.kill(os.getpid(), signal.SIGHUP)
    assert looks.came.acquire(timeout=5)
    here.stop()

    assert looks.asked == [Asked.BY_NAME]


def test_look_may_end_it_all(hangup: list[int], tmp_path: Path) -> None:
    """What runs in the thread does not wait for the thread."""
    ended = threading.Event()

    def look(_asked: Asked) -> None:
        here.stop()
        ended.set()

    here = Prompting([tmp_path], look, watches=False, after_fork=lambda: None)
    here.on_sighup()
    here.begin()
    os.kill(os.getpid(), signal.SIGHUP)
    assert ended.wait(5)
    here.stop()


def test_signal_that_somebody_took_since_is_left_to_them(looks: Looks, hangup: list[int], tmp_path: Path) -> None:
    """Theirs may call ours, which does nothing any more."""
    here = Prompting([tmp_path], looks, watches=False, after_fork=looks.after_fork)
    here.on_sighup()
    ours = signal.getsignal(signal.SIGHUP)
    theirs: list[int] = []

    def other(number: int, frame: object) -> None:
        theirs.append(number)
        ours(number, frame)  # type: ignore[operator, arg-type, misc]

    signal.signal(signal.SIGHUP, other)
    here.stop()
    os.kill(os.getpid(), signal.SIGHUP)

    assert signal.getsignal(signal.SIGHUP) is other
    assert (theirs, looks.asked) == ([signal.SIGHUP], [])


@pytest.mark.parametrize("before", [signal.SIG_IGN, signal.SIG_DFL])
def test_signal_that_nobody_had_is_handed_on_to_nobody(
    before: signal.Handlers, looks: Looks, hangup: list[int], tmp_path: Path
) -> None:
    """It would have ended the process, or nothing."""
    signal.signal(signal.SIGHUP, before)
    here = Prompting([tmp_path], looks, watches=False, after_fork=looks.after_fork)
    here.on_sighup()
    here.begin()
    os.kill(os.getpid(), signal.SIGHUP)
    assert looks.came.acquire(timeout=5)
    here.stop()

    assert signal.getsignal(signal.SIGHUP) is before


def test_child_of_a_fork_has_threads_of_its_own(tmp_path: Path, started: Callable[[World], World]) -> None:
    """Those of the parent are not there, and what they held is nobody's."""
    world = started(make_world(tmp_path / "policies", watch=True))
    idle = make_world(tmp_path / "idle", attach=False)
    reading, writing = os.pipe()
    logging.getLogger("agentguard").debug("before the fork")
    world.guard._reloading._turn.acquire()
    child = os.fork()
    if child == 0:  # pragma: no branch
        # Whatever happens there: no second run of the tests goes on in it.
        try:
            os._exit(_in_child(world, idle, writing))
        finally:
            os._exit(1)
    world.guard._reloading._turn.release()
    os.close(writing)
    with os.fdopen(reading) as told:
        said = told.read()
    _, status = os.waitpid(child, 0)

    assert (said, status) == ("loaded alive", 0)


def _in_child(world: World, idle: World, writing: int) -> int:
    before = world.guard._reloading.check().version
    move(world.folder, files(ROWS))
    # Whoever was first: its own thread watches too.
    loaded = world.guard._reloading.check().version != before
    worker = world.guard._reloading._prompting._worker
    alive = worker is not None and worker.is_alive() and idle.guard._reloading._prompting._worker is None
    os.write(writing, f"{'loaded' if loaded else 'not'} {'alive' if alive else 'dead'}".encode())
    return 0


def test_after_a_fork_what_ran_begins_anew_and_nothing_else(looks: Looks, tmp_path: Path) -> None:
    """With queues and locks of its own."""
    running = Prompting([tmp_path], looks, watches=True, after_fork=looks.after_fork)
    idle = Prompting([tmp_path], looks, watches=True, after_fork=looks.after_fork)
    running.begin()
    worker, watch = running._worker, running._watch
    assert looks.came.acquire(timeout=10)
    running.begin()
    assert (running._worker, running._watch) == (worker, watch)
    running.stop()
    running._worker, running._watches = worker, True

    prompting._after_fork()

    assert looks.forked == 2
    assert looks.came.acquire(timeout=10)
    assert running._worker is not worker
    assert idle._worker is None
    running.stop()


def test_after_a_fork_nobody_waits_for_who_held_a_lock(tmp_path: Path) -> None:
    """Attached or not."""
    for world in (make_world(tmp_path / "a"), make_world(tmp_path / "b", attach=False)):
        world.guard._reloading._turn.acquire()

        world.guard._reloading.after_fork()

        assert not world.guard._reloading._turn.locked()
