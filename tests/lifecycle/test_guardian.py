from __future__ import annotations

import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.lifecycle import guardian
from agentguard.lifecycle.child import mark_of
from agentguard.lifecycle.guardian import Guardian, guard
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.states import RunRecord, RunState
from agentguard.lifecycle.tokenfile import TokenFile
from tests.lifecycle.processes import other

ISSUER = "https://issuer.example"
RUN = "7f3a9c"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(flush=True); input()"


class Time:
    """A clock that goes on when somebody sleeps."""

    def __init__(self) -> None:
        self.now = time.time()
        self.slept: list[float] = []

    def __call__(self) -> float:
        """Return seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.slept.append(seconds)
        self.now += seconds


class Told:
    """A pipe as the supervisor has it, which is closed as if it had been killed."""

    def __init__(self) -> None:
        self.channel, writing = os.pipe()
        self._guardian = Guardian(0, writing)

    def __call__(self, **facts: object) -> Told:
        """Tell."""
        self._guardian.tell(**facts)
        return self

    def killed(self) -> int:
        """Close the supervisor's end, and return the guardian's."""
        self._guardian.leave()
        return self.channel


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return a store's file, with a run that lives."""
    path = tmp_path / "store.db"
    now = int(time.time())
    with contextlib.closing(SQLiteStore(path)) as store:
        store.record_run(RunRecord(issuer=ISSUER, run_id=RUN, agent="agent", issued_at=now, ends_at=now + 600.0))
    return path


@pytest.fixture
def told() -> Told:
    """Return a supervisor that has told of its run."""
    return Told()(run=RUN, issuer=ISSUER, until=time.time() + 630)


@pytest.fixture
def stubborn() -> Iterator[subprocess.Popen[str]]:
    """Give a process that ignores SIGTERM."""
    with subprocess.Popen(
        [sys.executable, "-c", STUBBORN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


def found(path: Path) -> RunRecord:
    """Return the run as it is on record."""
    with contextlib.closing(SQLiteStore(path)) as store:
        (run,) = store.runs()
    return run


def test_supervisor_that_is_killed_leaves_nothing_behind(path: Path, told: Told) -> None:
    """The run is revoked, the token's file and its folder are gone, and the command ends."""
    file = TokenFile(lambda: "token", every=3600)
    command = subprocess.Popen(["sleep", "60"])
    told(folder=str(file.path.parent))(pid=command.pid, mark=mark_of(command.pid))

    guard(told.killed(), lambda: SQLiteStore(path), alone=bool)

    run = found(path)
    assert (run.state, run.reason) == (RunState.REVOKED, "the process that supervised the command was killed")
    assert not file.path.parent.exists()
    assert command.wait() == -signal.SIGTERM
    file.remove()


def test_command_that_ignores_the_request_to_end_is_killed(
    path: Path, told: Told, stubborn: subprocess.Popen[str]
) -> None:
    """After a time in which it could have tidied up."""
    passing = Time()
    told(pid=stubborn.pid, mark=mark_of(stubborn.pid))
    glances: list[int | None] = []

    def sleep(seconds: float) -> None:
        passing.sleep(seconds)
        # Once it is killed, the next glance finds it dead, however long the system takes.
        glances.append(stubborn.poll() if passing.now < began + 5 else stubborn.wait())

    began = passing.now
    guard(told.killed(), lambda: SQLiteStore(path), alone=bool, grace=4.9, monotonic=passing, sleep=sleep)

    assert stubborn.wait() == -signal.SIGKILL
    assert 4.9 < passing.now - began < 5.2
    assert set(glances[:-3]) == {None}


@pytest.mark.parametrize("mark", ["another", None])
def test_process_that_has_the_commands_id_by_now_is_left_alone(
    path: Path, told: Told, stubborn: subprocess.Popen[str], mark: str | None
) -> None:
    """An id is given again; when a process began is not."""
    told(pid=stubborn.pid, mark=mark)

    guard(told.killed(), lambda: SQLiteStore(path), alone=bool, grace=0)

    assert stubborn.poll() is None
    assert found(path).state is RunState.REVOKED


@pytest.mark.parametrize("error", [PermissionError, ProcessLookupError])
def test_command_that_cannot_be_signalled_holds_up_nothing(
    path: Path, told: Told, monkeypatch: pytest.MonkeyPatch, error: type[OSError]
) -> None:
    """It has become another user's, or ends this moment."""
    marks = iter(["mark", "mark", None])

    def refuse(pid: int, number: int) -> None:
        raise error

    monkeypatch.setattr(guardian, "mark_of", lambda _: next(marks))
    monkeypatch.setattr(os, "kill", refuse)

    guard(told(pid=1, mark="mark").killed(), lambda: SQLiteStore(path), alone=bool, grace=0, sleep=bool)

    assert found(path).state is RunState.REVOKED


def test_supervisor_that_ends_as_it_should_leaves_nothing_to_do(path: Path, told: Told) -> None:
    """It has ended the run by itself, with a reason of its own."""
    guard(told(done=True).killed(), lambda: SQLiteStore(path), alone=bool)

    assert found(path).state is RunState.ISSUED


def test_supervisor_that_is_killed_before_there_is_a_run_leaves_nothing_to_do() -> None:
    """No store is opened for it."""
    guard(Told().killed(), lambda: pytest.fail("a store was opened"), alone=bool)


def test_line_that_was_cut_off_hides_nothing(path: Path, told: Told) -> None:
    """What was told before it is ended."""
    os.write(told._guardian._channel, b'{"reason": "comp')

    guard(told.killed(), lambda: SQLiteStore(path), alone=bool)

    assert found(path).state is RunState.REVOKED


def failing(path: Path, times: int) -> Callable[[], SQLiteStore]:
    """Return what opens the store, after it failed some times."""
    left = iter(range(times))

    def open_store() -> SQLiteStore:
        if next(left, None) is not None:
            message = "the store is away"
            raise ConfigurationError(message)
        return SQLiteStore(path)

    return open_store


def test_store_that_is_away_is_asked_again_until_it_is_there(
    path: Path, told: Told, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once a second; what the supervisor said last is the reason."""
    passing = Time()
    alone: list[str] = []
    told(reason="completed: exit status 3")

    guard(
        told.killed(),
        failing(path, 5),
        alone=lambda: alone.append(found(path).state),
        clock=passing,
        monotonic=passing,
        sleep=passing.sleep,
    )

    run = found(path)
    assert (run.state, run.reason) == (RunState.COMPLETED, "completed: exit status 3")
    assert passing.slept == [1.0] * 5
    assert alone == [RunState.ISSUED]
    assert f"run `{RUN}` is ended as soon as the store answers" in capfd.readouterr().err


def test_store_that_stays_away_is_given_up_when_the_run_is_over(path: Path, told: Told) -> None:
    """Its tokens are over then, with their leeway."""
    passing = Time()
    began = passing.now

    guard(told.killed(), failing(path, 10**6), alone=bool, clock=passing, monotonic=passing, sleep=passing.sleep)

    assert 628 < passing.now - began < 632
    assert found(path).state is RunState.ISSUED


def test_store_is_asked_again_while_the_command_has_time_to_end(
    path: Path, told: Told, stubborn: subprocess.Popen[str]
) -> None:
    """A command that takes its time does not keep its run alive."""
    passing = Time()
    states: list[str] = []

    def sleep(seconds: float) -> None:
        passing.sleep(seconds)
        if passing.now > began + 3:
            states.append(found(path).state)
            stubborn.communicate("\n")

    began = passing.now
    told(pid=stubborn.pid, mark=mark_of(stubborn.pid))
    guard(told.killed(), failing(path, 2), alone=bool, monotonic=passing, sleep=sleep)

    assert states[0] == RunState.REVOKED


def test_reader_of_errors_that_does_not_read_holds_up_nothing(path: Path, told: Told) -> None:
    """A full pipe would take the line never."""
    reading, writing = os.pipe()
    fcntl.fcntl(writing, fcntl.F_SETFL, os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 65536)
    fcntl.fcntl(writing, fcntl.F_SETFL, 0)
    kept = os.dup(2)
    os.dup2(writing, 2)
    try:
        guard(told.killed(), lambda: SQLiteStore(path), alone=bool)
    finally:
        os.dup2(kept, 2)
        for file in (kept, reading, writing):
            os.close(file)

    assert found(path).state is RunState.REVOKED


def test_guardian_that_is_gone_is_told_of_once_more(caplog: pytest.LogCaptureFixture) -> None:
    """The command goes on; the log says what is missing now."""
    reading, writing = os.pipe()
    os.close(reading)
    alone = Guardian(0, writing)

    alone.tell(run=RUN)
    alone.leave()

    assert "the guardian is gone" in caplog.text


def test_supervisor_waits_for_the_guardian_that_it_dismisses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the end of our errors does not wait for it."""
    stand_in = subprocess.Popen(["sleep", "0"])
    monkeypatch.setattr(os, "fork", lambda: stand_in.pid)

    Guardian.start(lambda: pytest.fail("a store was opened"), held=()).dismiss()

    assert mark_of(stand_in.pid) is None
    stand_in.returncode = 0


class Exited(BaseException):
    """Stands for the end of a process."""


def test_forked_process_lets_go_of_everything_and_guards(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    """Whoever waits for a stream to be closed does not wait for the guardian."""
    let_go: list[tuple[Any, ...]] = []

    def leave(status: int) -> None:
        let_go.append(("exit", status))
        raise Exited

    kept = os.dup(2)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fork", lambda: 0)
        patch.setattr(os, "setsid", lambda: let_go.append(("setsid",)))
        patch.setattr(os, "dup2", lambda _, new: let_go.append(("null", new)))
        patch.setattr(os, "closerange", lambda low, high: let_go.append(("close", low, high)))
        patch.setattr(os, "_exit", leave)
        patch.setattr(gc, "freeze", bool)
        patch.setattr(signal, "pthread_sigmask", lambda *mask: let_go.append(mask))
        patch.setattr(guardian, "_hear", lambda _: {"run": RUN, "issuer": ISSUER, "until": time.time() + 9})
        with pytest.raises(Exited):
            Guardian.start(lambda: SQLiteStore(path), held={signal.SIGUSR1})
    os.close(kept)

    assert let_go[:3] == [("setsid",), ("null", 0), ("null", 1)]
    (_, low, channel), (_, after, _) = let_go[3:5]
    assert (low, after) == (3, channel + 1)
    assert let_go[5:] == [("null", 2), (signal.SIG_SETMASK, {signal.SIGUSR1}), ("exit", 0)]
    assert found(path).state is RunState.REVOKED


def supervise(says: Any, path: str, away: bool, out: str) -> None:
    """Begin as a supervisor does, and wait to be killed."""
    file = os.open(out, os.O_WRONLY)
    os.dup2(file, 1)
    os.close(file)
    store = failing(Path(path), 10**6 if away else 0)
    watching = Guardian.start(store, held=())
    watching.tell(run=RUN, issuer=ISSUER, until=time.time() + 630)
    says.send(watching._pid)
    signal.pause()


@pytest.mark.parametrize("away", [False, True])
def test_guardian_of_a_process_that_is_killed_holds_up_no_reader(path: Path, tmp_path: Path, away: bool) -> None:
    """The end of its output is seen at once, though the guardian has not done yet."""
    fifo = tmp_path / "out"
    os.mkfifo(fifo)
    with other(supervise, str(path), away, str(fifo)) as process, fifo.open() as output:
        (pid,) = process.hear()
        mark = mark_of(pid)
        process.kill()
        assert output.read() == ""

    if away:
        assert mark_of(pid) == mark
        os.kill(pid, signal.SIGKILL)
        return
    while mark_of(pid) == mark:
        os.sched_yield()
    assert found(path).state is RunState.REVOKED
