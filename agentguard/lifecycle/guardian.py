"""A second process that ends a run if the first one cannot, since it was killed.

Nothing can be done in a process that gets SIGKILL. So whoever supervises a command has a
guardian, which waits at the other end of a pipe: the supervisor alone holds its writing
end, and the system closes it with the supervisor, however that ends. What the guardian
has to end it was told before, and nothing of it is in arguments or environment.

It has a session of its own, so that no terminal and no signal to the supervisor's group
takes it along. Who kills both at once, or stops the machine, leaves a run whose last
token is good for as long as a token is.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from agentguard.lifecycle.child import mark_of
from agentguard.lifecycle.tokenfile import take_away

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from agentguard.lifecycle.store import Store

_LOG: Final = logging.getLogger("agentguard")
_KILLED: Final = "the process that supervised the command was killed"
_GRACE: Final = 5.0
_RETRY: Final = 1.0
_GLANCE: Final = 0.05
_STANDARD: Final = 3


class Guardian:
    """The guardian of one run, as its supervisor knows it."""

    __slots__ = ("_channel", "_pid")

    def __init__(self, pid: int, channel: int) -> None:
        self._pid = pid
        self._channel = channel

    @classmethod
    def start(cls, open_store: Callable[[], Store], *, held: Collection[int]) -> Guardian:
        """Fork the guardian. Call it before there is a second thread, or a store that is open.

        Args:
            open_store: Opens the store that the run is ended in.
            held: The signals that were held before the supervisor held some of its own.
        """
        reading, writing = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.close(writing)
                _detach(reading)
                guard(reading, open_store, alone=lambda: _alone(held))
            finally:
                # Whatever the supervisor would do at its exit is not for the guardian to do.
                os._exit(0)
        os.close(reading)
        return cls(pid, writing)

    def tell(self, **facts: object) -> None:
        """Tell what there is to end: later facts replace earlier ones.

        Args:
            facts: ``run``, ``issuer`` and ``until`` name the run and when it is over by
                itself; ``folder`` is where its token's file is; ``pid`` and ``mark`` are the child;
                ``reason`` is the reason to end it with.
        """
        try:
            # One write: what a pipe takes at once, it takes whole.
            os.write(self._channel, json.dumps(facts).encode() + b"\n")
        except OSError:
            _LOG.warning("the guardian is gone: should this process be killed, its run ends with its token")

    def dismiss(self) -> None:
        """Let it go: everything was ended as it should."""
        self.tell(done=True)
        self.leave()
        os.waitpid(self._pid, 0)

    def leave(self) -> None:
        """Leave to it what it was told of: it begins at once."""
        os.close(self._channel)


def guard(
    channel: int,
    open_store: Callable[[], Store],
    *,
    alone: Callable[[], object],
    grace: float = _GRACE,
    clock: Callable[[], float] = time.time,
    monotonic: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], object] = time.sleep,
) -> None:
    """Listen to the supervisor, and end what it leaves behind.

    Args:
        channel: The reading end of the pipe.
        open_store: Opens the store that the run is ended in.
        alone: Called once the first try was made.
        grace: How long the child has between SIGTERM and SIGKILL, seconds.
        clock: Gives unix seconds.
        monotonic: Gives seconds that never run backwards.
        sleep: Waits.
    """
    facts = _hear(channel)
    if "run" not in facts or "done" in facts:
        return
    # The file first, since that takes no time: an honest reader has no token any more.
    if "folder" in facts:
        take_away(Path(facts["folder"]))
    ended = _revoke(open_store, facts)
    lives = _signal(facts, signal.SIGTERM)
    _say(facts, ended=ended)
    alone()
    kill_at, try_at = monotonic() + grace, monotonic() + _RETRY
    while lives or (not ended and clock() < facts["until"]):
        sleep(_GLANCE if lives else _RETRY)
        lives = lives and _signal(facts, signal.SIGKILL if monotonic() >= kill_at else None)
        if not ended and monotonic() >= try_at:
            ended = _revoke(open_store, facts)
            try_at = monotonic() + _RETRY


def _hear(channel: int) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    with os.fdopen(channel, "rb") as lines:
        for line in lines:
            # A line that was cut off tells nothing; what was told before it still holds.
            with suppress(ValueError):
                facts |= json.loads(line)
    return facts


def _revoke(open_store: Callable[[], Store], facts: dict[str, Any]) -> bool:
    reason = facts.get("reason", _KILLED)
    try:
        with closing(open_store()) as store:
            store.revoke(issuer=facts["issuer"], run_id=facts["run"], reason=reason, until=facts["until"])
    # Whatever it is, giving up would leave the run alive.
    except Exception:  # noqa: BLE001
        return False
    return True


def _signal(facts: dict[str, Any], number: signal.Signals | None) -> bool:
    """Send the child a signal, if it is still the child; return whether it lives."""
    mark = facts.get("mark")
    # Without a mark it had ended when it was told of, and its id may be anybody's by now.
    if mark is None or mark_of(facts["pid"]) != mark:
        return False
    if number is not None:
        # It may have become another user's, or have ended this moment.
        with suppress(PermissionError, ProcessLookupError):
            os.kill(facts["pid"], number)
    return True


def _say(facts: dict[str, Any], *, ended: bool) -> None:
    """Say what happened, if that can be said without waiting for a reader."""
    happened = "was ended" if ended else "is ended as soon as the store answers"
    line = f"agentguard: {facts.get('reason', _KILLED)}: run `{facts['run']}` {happened}\n"
    poll = select.poll()
    poll.register(2, select.POLLOUT)
    with suppress(OSError):
        if [event for _, event in poll.poll(0) if event & select.POLLOUT]:
            os.write(2, line.encode())


def _detach(channel: int) -> None:
    """Let go of the terminal, and of everything that somebody may wait to see closed."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    os.closerange(_STANDARD, channel)
    os.closerange(channel + 1, os.sysconf("SC_OPEN_MAX"))
    # The collector would write to, and so copy, every page that is shared.
    gc.freeze()


def _alone(held: Collection[int]) -> None:
    """Without a supervisor, hold up neither a reader of its errors nor the system's shutdown."""
    nothing = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    os.dup2(nothing, 2)
    signal.pthread_sigmask(signal.SIG_SETMASK, held)
