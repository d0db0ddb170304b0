"""One command as a child of this process: start it, hand signals on to it, tell how it ended.

The child has this process's standard streams, terminal and process group, as if it had
been started directly. So what a terminal or the system sends to the whole group reaches
it without us; only a signal that was meant for this process alone is handed on.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127
"""Exit statuses of a command that could not be started, as shells have them."""

_SIGNAL: Final = 128

# By name: not every system has all of them.
_ENDING: Final = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT") if name in signal.Signals.__members__
)
_FURTHER: Final = tuple(
    signal.Signals[name]
    for name in ("SIGUSR1", "SIGUSR2", "SIGWINCH", "SIGTSTP", "SIGCONT", "SIGCHLD")
    if name in signal.Signals.__members__
)
_HELD: Final = frozenset({*_ENDING, *_FURTHER})

# With these a terminal stops a whole job.
_STOPPING: Final = frozenset({"SIGTSTP", "SIGTTIN", "SIGTTOU"})

# What Python ignores for itself and a command expects as it is by default; and Ctrl-C,
# which Python turns into an exception.
_IGNORED_BY_PYTHON: Final = tuple(
    signal.Signals[name] for name in ("SIGPIPE", "SIGXFSZ") if name in signal.Signals.__members__
)
_CHANGED_BY_PYTHON: Final = (*_IGNORED_BY_PYTHON, signal.SIGINT)

_PAUSE: Final = 1.0
_SHORT_PAUSE: Final = 0.05


class Caught(NamedTuple):
    """A signal that this process got.

    Attributes:
        number: Which.
        by_system: Whether the terminal or the system sent it, and to the whole group.
    """

    number: int
    by_system: bool


def fill_streams() -> None:
    """Put the null device in the place of each standard stream that is closed, for this process alone.

    A pipe would get its number otherwise, and be taken for the stream. A command finds it
    closed, as it was.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            # The lowest number that is free, which is this one.
            os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)


def hold_signals() -> set[int]:
    """Keep the signals that concern a child waiting, in this thread and in those it starts.

    Call it before there are other threads: one of those would get them otherwise.

    Returns:
        What was held before, for the child.
    """
    # Whoever ignores it never learns how a child ended, and may have been started so.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return set(signal.pthread_sigmask(signal.SIG_BLOCK, _HELD))


def waiting_to_end() -> int | None:
    """Return a waiting signal that asks this process to end, if there is one."""
    return min(signal.sigpending().intersection(_ENDING), default=None)


class Child:
    """A command, which waits to be started and then runs.

    Its process is there before anything depends on it, so that whoever has to end it in
    our place knows it before it can do anything.

    Attributes:
        pid: The id of its process.
    """

    __slots__ = ("_command", "_gate", "_report", "pid")

    def __init__(self, command: Sequence[str], *, held: Collection[int]) -> None:
        """Fork the process. Call it before there is a second thread, after `hold_signals`.

        Args:
            command: Its name or path, and its arguments.
            held: The signals that it finds held, as `hold_signals` returned them.
        """
        self._command = tuple(command)
        gate, self._gate = os.pipe()
        self._report, report = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(self._gate)
                _become(self._command, gate, report, held)
            finally:
                # Whatever its parent would do at its exit is not for this process to do.
                os._exit(NOT_FOUND)
        os.close(gate)
        os.close(report)

    def start(self, environment: Mapping[str, str]) -> None:
        """Let it become the command, looked for as a shell does.

        Args:
            environment: Its environment.
        """
        with suppress(BrokenPipeError), os.fdopen(self._gate, "wb") as gate:
            gate.write(json.dumps(dict(environment)).encode())

    def give_up(self) -> None:
        """Let it end without having been the command."""
        os.close(self._gate)
        os.waitpid(self.pid, 0)
        os.close(self._report)

    def wait(self, *, each_second: Callable[[], object]) -> int:
        """Wait for its end, and hand on what this process is sent meanwhile.

        Args:
            each_second: Called about that often.

        Returns:
            Its exit status, or the number of the signal that ended it below zero.

        Raises:
            OSError: It could not be started; `unstartable` says with which status to exit.
        """
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG | os.WUNTRACED)
            if pid and os.WIFSTOPPED(status):
                stop_with_job(os.WSTOPSIG(status))
            elif pid:
                break
            caught = next_signal(_PAUSE)
            # It is not reaped yet, so the id is still its own. What the system sent to the
            # group has reached it: Ctrl-C twice would kill what meant to tidy up.
            if caught is not None and not caught.by_system:
                # It may have become another user's, as with `sudo`.
                with suppress(PermissionError):
                    os.kill(self.pid, caught.number)
            each_second()
        with os.fdopen(self._report, "rb") as report:
            if number := int(report.read() or 0):
                raise OSError(number, os.strerror(number), self._command[0])
        return os.waitstatus_to_exitcode(status)


def _become(command: Sequence[str], gate: int, report: int, held: Collection[int]) -> None:
    """Wait until the gate is opened, and become the command."""
    with os.fdopen(gate, "rb") as opened:
        text = opened.read()
    # Nothing, or not all: the parent is gone, and nobody would end the run of this command.
    environment = json.loads(text)
    # Neither the parent's mask nor what Python does with signals is the command's business.
    # Inherited descriptors stay, as with `env` or `nice`; those of ours close themselves.
    for number in _CHANGED_BY_PYTHON:
        if number in _IGNORED_BY_PYTHON or signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
    try:
        os.execvpe(command[0], list(command), environment)  # noqa: S606  no shell is meant
    except OSError as error:
        os.write(report, str(error.errno).encode())


def next_signal(seconds: float) -> Caught | None:
    """Wait for one of the signals that are held.

    Args:
        seconds: The longest that it waits.
    """
    wait = getattr(signal, "sigtimedwait", None)
    if wait is not None:
        found = wait(_HELD, seconds)
        if found is None:
            return None
        # Linux: above zero the kernel sent it by itself, as a terminal's key or a child's end.
        # That its terminal is gone it tells the leader of the session alone.
        alone = found.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
        return Caught(found.si_signo, found.si_code > 0 and not alone)
    # macOS does not tell who sent a signal: in the foreground it was the terminal.
    if not (waiting := signal.sigpending() & _HELD):
        time.sleep(_SHORT_PAUSE)
        return None
    number = signal.sigwait(waiting)
    return Caught(number, number == signal.SIGCHLD or (number != signal.SIGTERM and _in_foreground()))


def _in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    finally:
        os.close(terminal)


def stop_with_job(number: int) -> None:
    """Stop this process as well, if a terminal stopped the child: the shell waits for both.

    One that was stopped in another way is left to whoever did it: we go on renewing its
    token, and notice its end.

    Args:
        number: The signal that stopped the child.
    """
    if signal.Signals(number).name in _STOPPING:
        os.kill(os.getpid(), signal.SIGSTOP)


def exit_status(ended: int) -> int:
    """Return with what to exit after a child, as shells do it.

    Args:
        ended: What `Child.wait` returned.
    """
    return ended if ended >= 0 else _SIGNAL - ended


def how(ended: int) -> str:
    """Return in words how a child ended; empty if all was well.

    Args:
        ended: What `Child.wait` returned.
    """
    if ended >= 0:
        return f"exit status {ended}" if ended else ""
    known = {number.value: number.name for number in signal.Signals}
    return known.get(-ended, f"signal {-ended}")


def unstartable(error: OSError) -> int:
    """Return with what to exit if a command could not be started."""
    return NOT_FOUND if error.errno in {errno.ENOENT, errno.ENOTDIR} else NOT_EXECUTABLE


def mark_of(pid: int) -> str | None:
    """Return what tells a process from a later one with its id; None if it is over.

    Args:
        pid: Its id.
    """
    try:
        found = Path(f"/proc/{pid}/stat").read_text("utf-8", "replace")
    except OSError:
        return None if Path("/proc/self/stat").exists() else _alive(pid)
    # The name before the bracket may hold anything; the state is field 3, the start 22.
    state, *fields = found.rpartition(")")[2].split()
    return None if state in {"Z", "X"} else fields[18]


def _alive(pid: int) -> str | None:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
