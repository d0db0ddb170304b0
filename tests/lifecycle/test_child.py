from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentguard.lifecycle import child
from agentguard.lifecycle.child import (
    Caught,
    Child,
    exit_status,
    fill_streams,
    hold_signals,
    how,
    mark_of,
    next_signal,
    unstartable,
    waiting_to_end,
)
from tests.heeding import heeding

SHELL = "/bin/sh"

# A supervisor has one thread when it forks; a test's process may have more, and its fork goes on to another program.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[set[int]]:
    """Hold the signals as a supervisor does, and give the mask of before.

    A thread of another test would get the news that a child has ended, which is looked for often instead.
    """
    monkeypatch.setattr(child, "_PAUSE", 0.05)
    before = hold_signals()
    with heeding():
        yield before
        while signal.sigpending() & child._HELD:
            signal.sigwait(child._HELD)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def send(number: int) -> None:
    """Send a signal to this thread: another test's thread may be there, which does not hold it."""
    signal.pthread_kill(threading.main_thread().ident or 0, number)


def start(script: str, held: set[int], **environment: str) -> Child:
    """Start a shell."""
    started = Child(["sh", "-c", script], held=held)
    started.start({**os.environ, **environment})
    return started


@pytest.mark.parametrize(
    ("script", "end"),
    [
        ("exit 0", (0, 0, "")),
        ("exit 3", (3, 3, "exit status 3")),
        ("kill -9 $$", (-9, 137, "SIGKILL")),
        ("kill -TERM $$", (-15, 143, "SIGTERM")),
    ],
)
def test_end_of_a_command_is_told_as_a_shell_tells_it(held: set[int], script: str, end: tuple[int, int, str]) -> None:
    """Its own status, or 128 and the signal's number."""
    found = start(script, held).wait(each_second=bool)

    assert (found, exit_status(found), how(found)) == end


def test_signal_without_a_name_is_told_by_its_number() -> None:
    """Real-time signals have none."""
    assert how(-40) == "signal 40"


def test_command_finds_signals_as_they_were(held: set[int], tmp_path: Path) -> None:
    """Neither our mask nor what Python ignores is handed down: a pipe that breaks ends the command."""
    out = tmp_path / "out"

    start(f"grep -E 'Sig(Blk|Ign)' /proc/self/status > {out}", held).wait(each_second=bool)

    masks = {name: int(mask, 16) for name, mask in (line.split(":\t") for line in out.read_text().splitlines())}
    bits = sum(1 << (number - 1) for number in held)
    assert masks["SigBlk"] == bits
    assert not masks["SigIgn"] & (1 << (signal.SIGPIPE - 1))


def test_command_gets_the_environment_that_it_is_given(held: set[int], tmp_path: Path) -> None:
    """And nothing else is made of it."""
    start(f"echo $GIVEN > {tmp_path / 'out'}", held, GIVEN="here").wait(each_second=bool)

    assert (tmp_path / "out").read_text() == "here\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGWINCH])
def test_signal_for_this_process_is_handed_on(held: set[int], number: int, tmp_path: Path) -> None:
    """The command decides what becomes of it."""
    fifo = tmp_path / "ready"
    os.mkfifo(fifo)
    name = signal.Signals(number).name.removeprefix("SIG")
    running = start(f"trap 'exit 7' {name}; echo > {fifo}; while :; do sleep 0.01; done", held)
    fifo.read_text()
    send(number)

    assert running.wait(each_second=bool) == 7


def test_signal_that_the_system_sent_to_the_group_is_not_handed_on(
    held: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C reaches the command by itself; twice would interrupt its tidying up."""
    caught = iter([Caught(signal.SIGINT, by_system=True)])
    monkeypatch.setattr(child, "next_signal", lambda _: next(caught, None) or next_signal(0.05))

    assert start("sleep 0.1; exit 5", held).wait(each_second=bool) == 5


def test_wait_looks_up_each_second(held: set[int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whoever supervises sees what else happens."""
    monkeypatch.setattr(child, "_PAUSE", 0.01)
    looks: list[int] = []
    fifo = tmp_path / "go"
    os.mkfifo(fifo)
    running = start(f"read go < {fifo}", held)

    def look() -> None:
        looks.append(1)
        if len(looks) == 3:
            fifo.write_text("go\n")

    assert running.wait(each_second=look) == 0
    assert len(looks) >= 3


@pytest.mark.parametrize(
    ("number", "stops"),
    [(signal.SIGTSTP, True), (signal.SIGTTIN, True), (signal.SIGTTOU, True), (signal.SIGSTOP, False)],
)
def test_only_a_terminal_stops_the_supervisor_too(
    held: set[int], number: int, stops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A supervisor that sleeps renews no token and sees no end; the shell of a stopped job waits for both."""
    sent: list[tuple[int, int]] = []
    # The group of a test has no shell, so a terminal's signals would not stop the command.
    running = start("kill -STOP $$; exit 4", held)
    os.waitid(os.P_PID, running.pid, os.WSTOPPED | os.WNOWAIT)
    kill = os.kill
    monkeypatch.setattr(os, "WSTOPSIG", lambda _: number)
    monkeypatch.setattr(os, "kill", lambda pid, sig: sent.append((pid, sig)))

    ended = running.wait(each_second=lambda: kill(running.pid, signal.SIGCONT))

    assert ended == 4
    assert ((os.getpid(), signal.SIGSTOP) in sent) is stops


def test_signal_to_end_that_waits_is_seen(held: set[int]) -> None:
    """A command that is given up before it is started is not started."""
    assert waiting_to_end() is None
    send(signal.SIGUSR1)
    assert waiting_to_end() is None
    send(signal.SIGTERM)
    assert waiting_to_end() == signal.SIGTERM


def test_sender_of_a_signal_is_told_apart(held: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """A process sends to this one; the kernel sends by itself."""
    # It would send word of another test's child that ends.
    monkeypatch.setattr(child, "_HELD", child._HELD - {signal.SIGCHLD})
    assert next_signal(0) is None
    send(signal.SIGHUP)
    assert next_signal(1) == Caught(signal.SIGHUP, by_system=False)


@pytest.mark.parametrize(
    ("number", "foreground", "by_system"),
    [
        (signal.SIGINT, True, True),
        (signal.SIGINT, False, False),
        (signal.SIGTERM, True, False),
        (signal.SIGCHLD, False, True),
    ],
)
def test_without_a_sender_the_foreground_is_the_terminals(
    held: set[int], number: int, foreground: bool, by_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some systems do not tell who sent a signal."""
    monkeypatch.delattr(signal, "sigtimedwait")
    monkeypatch.setattr(child, "_in_foreground", lambda: foreground)
    monkeypatch.setattr(child, "_SHORT_PAUSE", 0)
    # The kernel would send word of another test's child that ends.
    monkeypatch.setattr(child, "_HELD", {number})

    assert number == signal.SIGCHLD or next_signal(1) is None
    send(number)

    assert next_signal(1) == Caught(number, by_system)


def test_process_without_a_terminal_is_not_in_the_foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host's servers have none."""

    def refuse() -> int:
        raise OSError(errno.ENXIO, "no such device")

    open_instead(refuse, monkeypatch)

    assert not child._in_foreground()


def open_instead(terminal: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Have *terminal* open the process's own; another test's thread may open something else."""
    really = os.open
    monkeypatch.setattr(os, "open", lambda path, *how: terminal() if path == "/dev/tty" else really(path, *how))


@pytest.mark.parametrize("ours", [True, False])
def test_group_of_the_terminal_is_in_the_foreground(monkeypatch: pytest.MonkeyPatch, ours: bool) -> None:
    """The terminal says which group that is."""
    opened = os.open(os.devnull, os.O_RDONLY)
    open_instead(lambda: opened, monkeypatch)
    monkeypatch.setattr(os, "tcgetpgrp", lambda _: os.getpgrp() if ours else 1)

    assert child._in_foreground() is ours
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(opened)


@pytest.mark.parametrize(
    ("command", "status"),
    [("no-such-command-anywhere", 127), ("/etc/passwd/x", 127), ("/etc/passwd", 126), ("/", 126)],
)
def test_command_that_cannot_be_started_has_a_status_of_its_own(held: set[int], command: str, status: int) -> None:
    """As in a shell: 127 is not found, 126 is found and cannot be executed."""
    running = Child([command], held=held)
    running.start(os.environ)

    with pytest.raises(OSError, match=f"'{command}'") as caught:
        running.wait(each_second=bool)

    assert unstartable(caught.value) == status


def test_command_that_is_given_up_never_was(held: set[int], tmp_path: Path) -> None:
    """Its process waits at the gate, and ends when nobody can open it any more."""
    waiting = Child(["touch", str(tmp_path / "there")], held=held)
    assert mark_of(waiting.pid) is not None

    waiting.give_up()

    assert mark_of(waiting.pid) is None
    assert list(tmp_path.iterdir()) == []


def test_command_that_ended_at_the_gate_is_no_failure_of_ours(held: set[int]) -> None:
    """Somebody killed it before it was started."""
    waiting = Child(["true"], held=held)
    os.kill(waiting.pid, signal.SIGKILL)
    os.waitid(os.P_PID, waiting.pid, os.WEXITED | os.WNOWAIT)

    waiting.start(os.environ)

    assert waiting.wait(each_second=bool) == -signal.SIGKILL


class Became(BaseException):
    """Stands for the end of a process, or for another program in it."""


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Go the way of the forked process in this one, and give what it does."""
    done: list[object] = []

    def become(*program: object) -> None:
        done.append(program)
        raise Became

    def leave(status: int) -> None:
        done.append(status)
        raise Became

    dispositions = {number: signal.getsignal(number) for number in child._CHANGED_BY_PYTHON}
    monkeypatch.setattr(os, "fork", lambda: 0)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(os, "execvpe", become)
    yield done
    for number, disposition in dispositions.items():
        signal.signal(number, disposition)


def gate_with(text: bytes, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """Let the next child find *text* at its gate; return the pipe that it reports to."""
    gate, report = os.pipe(), os.pipe()
    os.write(gate[1], text)
    pipes = iter([gate, report])
    monkeypatch.setattr(os, "pipe", lambda: next(pipes))
    return report


def test_forked_process_becomes_the_command(
    held: set[int], forked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the signals of before, in the environment that it was given."""
    reports = gate_with(b'{"NAME": "value"}', monkeypatch)

    with pytest.raises(Became):
        Child(["program", "argument"], held=held)

    assert forked == [("program", ["program", "argument"], {"NAME": "value"}), 127]
    assert signal.getsignal(signal.SIGPIPE) is signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    for file in reports:
        os.close(file)


def test_forked_process_reports_why_it_cannot(
    held: set[int], forked: list[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the system's own number; a Ctrl-C that was ignored stays ignored."""

    def fail(*program: object) -> None:
        raise OSError(errno.ENOEXEC, "no program")

    monkeypatch.setattr(os, "execvpe", fail)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reading, writing = gate_with(b"{}", monkeypatch)
    kept = os.dup(reading)

    with pytest.raises(Became):
        Child(["program"], held=held)

    assert os.read(kept, 9) == str(errno.ENOEXEC).encode()
    assert forked == [127]
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    for file in (kept, reading, writing):
        os.close(file)


@pytest.mark.parametrize("text", [b"", b'{"NAME": "val'])
def test_forked_process_whose_parent_is_gone_becomes_nothing(
    held: set[int], forked: list[object], monkeypatch: pytest.MonkeyPatch, text: bytes
) -> None:
    """An environment that is cut off is no permission to start."""
    reports = gate_with(text, monkeypatch)

    with pytest.raises(Became):
        Child(["program"], held=held)

    assert forked == [127]
    for file in reports:
        os.close(file)


def test_mark_tells_a_process_from_a_later_one_and_is_none_at_its_end() -> None:
    """A zombie is over: an id that is reaped may be anybody's next."""
    sleeping = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    mark = mark_of(sleeping.pid)
    again, other = mark_of(sleeping.pid), mark_of(os.getpid())
    sleeping.communicate(b"\n")

    assert mark is not None
    assert again == mark != other
    assert mark_of(sleeping.pid) is None


def test_zombie_has_no_mark() -> None:
    """It is dead, though its id is not free yet."""
    dead = subprocess.Popen([SHELL, "-c", "exit"])
    os.waitid(os.P_PID, dead.pid, os.WEXITED | os.WNOWAIT)

    assert mark_of(dead.pid) is None
    dead.wait()


def test_without_proc_a_process_is_alive_or_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every system has it."""
    real = Path

    def elsewhere(path: str) -> Path:
        return real("/nowhere") / path.removeprefix("/")

    dead = subprocess.Popen([SHELL, "-c", "exit"])
    dead.wait()
    monkeypatch.setattr(child, "Path", elsewhere)

    assert mark_of(os.getpid()) == "alive"
    assert mark_of(dead.pid) is None

    def forbidden(pid: int, number: int) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "kill", forbidden)
    assert mark_of(1) == "alive"


def test_closed_standard_stream_is_filled_for_this_process_alone() -> None:
    """A pipe that got its number would be taken for the stream; the command finds it closed, as it was."""
    saved = [os.dup(number) for number in range(3)]
    try:
        for closed in ((0,), (1, 2), (0, 1, 2)):
            for number in closed:
                os.close(number)
            fill_streams()
            found = [(os.path.samestat(os.fstat(n), Path(os.devnull).stat()), os.get_inheritable(n)) for n in closed]
            for number, stream in enumerate(saved):
                os.dup2(stream, number)
            assert found == [(True, False)] * len(closed)
    finally:
        for stream in saved:
            os.close(stream)


def test_command_of_another_user_cannot_be_sent_a_signal(held: set[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """One that `sudo` started goes on, and so do we."""

    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    running = start("sleep 0.1; exit 5", held)
    send(signal.SIGTERM)
    monkeypatch.setattr(os, "kill", refuse)

    assert running.wait(each_second=bool) == 5


class Sent:
    """What `sigtimedwait` tells of a signal that the kernel sent."""

    si_code = 128

    def __init__(self, number: int) -> None:
        self.si_signo = number


@pytest.mark.parametrize(
    ("number", "leader", "by_system"),
    [(signal.SIGHUP, True, False), (signal.SIGHUP, False, True), (signal.SIGINT, True, True)],
)
def test_hang_up_that_reaches_the_leader_of_a_session_alone_is_handed_on(
    held: set[int], number: int, leader: bool, by_system: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under `ssh -t` or `docker run -t`: nobody else would tell the command that its terminal is gone."""
    monkeypatch.setattr(signal, "sigtimedwait", lambda *_: Sent(number), raising=False)
    monkeypatch.setattr(os, "getsid", lambda _: os.getpid() if leader else 1)

    assert next_signal(1) == Caught(number, by_system=by_system)
