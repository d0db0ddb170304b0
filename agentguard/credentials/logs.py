"""Log lines: one that holds a secret is replaced by a line that says so.

Python has two public places where a record comes by while it is made, and both are used.
The *factory* sees message, arguments, exception and stack. `logging.Logger.makeRecord` sees
what is added after that: ``extra=``, and what others' factories add. A factory that somebody
sets later stands in ours from the next call of a tool on.

What does not come by: what is printed, or sent by a library's own means; the ``extra=`` of
a class of loggers that makes records by itself; what a filter adds; the records of other
processes; objects that change after their record was made; what a traceback shows of local
variables, for those that do.
"""

from __future__ import annotations

import functools
import logging
import weakref
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from agentguard.credentials.containment import stops
from agentguard.credentials.live import LIVE, Place

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from agentguard.credentials.live import Live

_WITHHELD: Final = "[credential]"
_PLAIN: Final = (tuple, type(None))
_USUAL: Final = frozenset(vars(logging.LogRecord("", 0, "", 0, "", (), None)))


class LogContainment:
    """Looks through the log records of a process; one is enough for all guards: `LOGS`."""

    def __init__(self, live: Live = LIVE) -> None:
        self._live = live
        self._lock = Lock()
        self._on = False
        # Whoever put another in the place of one may put that one back.
        self._ours: weakref.WeakSet[Callable[..., logging.LogRecord]] = weakref.WeakSet()
        self._hooked = False

    def install(self) -> None:
        """Look through every record from now on.

        Once is enough, unless somebody sets a factory of his own afterwards: more often does no harm.
        """
        if self._on and logging.getLogRecordFactory() in self._ours:
            return
        with self._lock:
            self._on = True
            if logging.getLogRecordFactory() not in self._ours:
                self._hook_factory()
            if not self._hooked:
                self._hooked = True
                self._hook_loggers()

    def remove(self) -> None:
        """Look through no more records. What was put in their way stays there, and lets all pass."""
        self._on = False

    def _hook_factory(self) -> None:
        factory = logging.getLogRecordFactory()

        @functools.wraps(factory)
        def contained(*args: Any, **options: Any) -> logging.LogRecord:
            record = factory(*args, **options)
            # The look that costs nothing comes first: most processes log before any run has begun.
            if self._live and self._on and stops(_shown(record), Place.LOG, self._live):
                self._stop(record)
            return record

        self._ours.add(contained)
        logging.setLogRecordFactory(contained)

    def _hook_loggers(self) -> None:
        make = logging.Logger.makeRecord

        @functools.wraps(make)
        def made(  # noqa: PLR0917  the standard library's own
            logger: logging.Logger,
            name: str,
            level: int,
            fn: str,
            lno: int,
            msg: object,
            args: Any,
            exc_info: Any,
            func: str | None = None,
            extra: Mapping[str, object] | None = None,
            sinfo: str | None = None,
        ) -> logging.LogRecord:
            record = make(logger, name, level, fn, lno, msg, args, exc_info, func, extra, sinfo)
            if self._live and self._on:
                # Whoever set a factory may have added to it, too.
                self._look_at_added(record, vars(record).keys() - _USUAL)
            return record

        logging.Logger.makeRecord = made  # type: ignore[assignment,method-assign]

    def _look_at_added(self, record: logging.LogRecord, added: Collection[str]) -> None:
        fields = vars(record)
        if not added or not stops([(key, fields[key]) for key in added], Place.LOG, self._live):
            return
        self._stop(record)
        for key in added:
            if stops(key, Place.LOG, self._live):
                del fields[key]
            else:
                # A formatter may ask for it.
                fields[key] = _WITHHELD

    def _stop(self, record: logging.LogRecord) -> None:
        """Leave nothing of a record but where it comes from."""
        for place in ("name", "threadName"):
            if stops(getattr(record, place), Place.LOG, self._live):
                setattr(record, place, _WITHHELD)
        record.msg = f"a log line of `{record.name}` held a credential, and was stopped"
        record.args = ()
        record.exc_info = record.exc_text = record.stack_info = None


def _shown(record: logging.LogRecord) -> object:
    """Return whatever a handler may show of a record."""
    error, args = record.exc_info, record.args
    try:
        message = record.getMessage()
    except Exception:  # noqa: BLE001  the handler will fail likewise, and print what it was given
        message = ""
    if type(record.msg) is str and type(args) in _PLAIN and not error and not record.stack_info:
        # Most lines: nothing to open. An argument may be one that the message leaves out, or cuts.
        texts = [one for one in args or () if type(one) is not int]
        if all(type(one) is str for one in texts):
            return "\n".join([message, record.msg, record.name, str(record.threadName), *map(str, texts)])
    return (
        message,
        record.msg,
        record.args,
        error[1] if isinstance(error, tuple) else None,
        record.exc_text,
        record.stack_info,
        record.name,
        record.threadName,
    )


LOGS: Final = LogContainment()
"""That of this process."""
