"""Calls in flight, by run: so that ending a run can stop them.

A call is registered before the store is asked whether its run has ended. The other
order loses a race: revoked between the check and the registration, a call would run on.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from anyio.lowlevel import current_token

from agentguard.lifecycle.ended import Kind, run_of

if TYPE_CHECKING:
    import anyio
    from anyio.lowlevel import EventLoopToken

    from agentguard.lifecycle.ended import Ended
    from agentguard.lifecycle.store import Store
    from agentguard.model import Invocation


@dataclass(frozen=True, slots=True, eq=False)
class LiveCall:
    """One call in flight: what cancels it, and the thread and event loop it lives on."""

    scope: anyio.CancelScope
    thread: int
    loop: EventLoopToken

    def cancel(self) -> None:
        """Cancel the call, from whichever thread this is, without waiting for it."""
        if self.thread == threading.get_ident():
            self.scope.cancel()
            return
        # Never wait for the other loop: two loops that end each other's runs would
        # wait for one another. asyncio and trio name the same thing differently.
        loop: Any = self.loop.native_token
        schedule = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
        schedule(self.scope.cancel)


class LiveCalls:
    """The calls in flight of one guard, found by any link of their delegation chain."""

    def __init__(self, store: Store) -> None:
        self._calls: dict[tuple[str, str], dict[anyio.CancelScope, LiveCall]] = {}
        self._invocations: dict[anyio.CancelScope, tuple[Invocation, LiveCall]] = {}
        self._lock = threading.Lock()
        store.subscribe(self.end)

    def add(self, invocation: Invocation, scope: anyio.CancelScope) -> None:
        """Register a call under its run and every run that delegated to it."""
        call = LiveCall(scope, threading.get_ident(), current_token())
        with self._lock:
            self._invocations[scope] = (invocation, call)
            for link in invocation.chain:
                self._calls.setdefault(run_of(link), {})[scope] = call

    def remove(self, invocation: Invocation | None, scope: anyio.CancelScope) -> None:
        """Forget a call that is over, if it was ever registered."""
        if invocation is None:
            return
        with self._lock:
            self._invocations.pop(scope, None)
            for link in invocation.chain:
                run = run_of(link)
                calls = self._calls.get(run)
                if calls is not None and calls.pop(scope, None) is not None and not calls:
                    del self._calls[run]

    def end(self, ended: Ended) -> None:
        """Cancel what runs for whatever was ended, and for every run below it."""
        with self._lock:
            if ended.kind is Kind.RUN and ended.cutoff is None:
                calls = list(self._calls.get((ended.issuer, ended.name), {}).values())
            else:
                calls = [call for invocation, call in self._invocations.values() if ended.matches(invocation)]
        errors: list[Exception] = []
        for call in calls:
            try:
                call.cancel()
            except Exception as error:  # noqa: BLE001  a loop that is gone must not keep the others from stopping
                errors.append(error)
        if errors:
            message = "a run was ended, and some of its calls could not be told"
            raise ExceptionGroup(message, errors)
