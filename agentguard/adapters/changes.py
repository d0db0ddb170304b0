"""Telling clients that what they listed may have changed: the policies did, or their run ended.

Up to 2025-11-25 a notification goes to every connection that listed something. From
2026-07-28 on it goes to the streams that clients opened for it, in their own words. A
stream belongs to a run and ends with it, so there it is the last thing said.

Notifications are advice. They say that a list changed and not what, may come without a
change for this caller, and are lost where nobody listens.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import (
    SUBSCRIPTION_ID_META_KEY,
    PromptsListChanged,
    ResourcesListChanged,
    ToolsListChanged,
    event_matches,
    event_to_notification,
)
from mcp_types import SubscriptionFilter, SubscriptionsAcknowledgedNotification
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from agentguard.errors import raised
from agentguard.lifecycle.ended import run_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from mcp.server.connection import Connection
    from mcp.server.context import CallNext, HandlerResult
    from mcp.server.session import ServerSession
    from mcp_types import RequestId, ServerNotification

    from agentguard.adapters.mcp import Handler
    from agentguard.adapters.surface import Context
    from agentguard.lifecycle.ended import Ended
    from agentguard.lifecycle.store import Store
    from agentguard.model import Invocation
    from agentguard.steps.call import Call

_LOG: Final = logging.getLogger("agentguard")

LISTEN: Final = "subscriptions/listen"

KINDS: Final = ("tools", "prompts", "resources")
"""What can be listed, by the first word of the method."""

_EVENTS: Final = (ToolsListChanged(), PromptsListChanged(), ResourcesListChanged())
# Of one connection: where each message names its own run, there can be many.
_RUNS: Final = 64


class _Teller:
    """Runs one message at a time on the event loop where its connection lives.

    What changes while a message waits for a slow client is said once more, and not once
    for each change.
    """

    def __init__(self, send: Callable[[], Awaitable[None]]) -> None:
        self._send = send
        self._loop: asyncio.AbstractEventLoop | None = None
        self._busy = self._again = False
        self._task: asyncio.Task[None] | None = None
        # Nothing but asyncio lets a task begin from outside, and it is what servers run on.
        with suppress(RuntimeError):
            self._loop = asyncio.get_running_loop()

    def tell(self) -> None:
        """Have the message sent soon, from whichever thread this is, without waiting for it."""
        if self._loop is not None:
            # A loop that is closed has no client any more.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._start, self._loop)

    def _start(self, loop: asyncio.AbstractEventLoop) -> None:
        self._again = True
        if not self._busy:
            self._busy = True
            # The loop itself keeps a task by a weak reference alone.
            self._task = loop.create_task(self._run())

    async def _run(self) -> None:
        try:
            while self._again:
                self._again = False
                await self._send()
        except Exception as error:  # noqa: BLE001  nobody waits for this
            _LOG.debug("a client could not be told of a change, because %s", raised(error))
        finally:
            self._busy = False


@dataclass(slots=True)
class _Listed:
    """What one connection listed, and for which runs."""

    teller: _Teller
    kinds: set[str] = field(default_factory=set)
    runs: dict[tuple[str, str], Invocation] = field(default_factory=dict)


class _Session:
    """A session whose acknowledgement of a stream is noticed: before it, nothing may be said there."""

    def __init__(self, session: ServerSession, opened: Callable[[SubscriptionFilter], None]) -> None:
        self._session = session
        self._opened = opened

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    async def send_notification(
        self, notification: ServerNotification, related_request_id: RequestId | None = None
    ) -> None:
        """Send a notification."""
        await self._session.send_notification(notification, related_request_id)
        if isinstance(notification, SubscriptionsAcknowledgedNotification):
            self._opened(notification.params.notifications)


class _Stream:
    """One stream that a client listens to."""

    def __init__(self, ctx: Context) -> None:
        self._ctx = ctx
        self._honoured: SubscriptionFilter | None = None
        self._missed = False
        self._teller = _Teller(self.say)
        session: Any = _Session(ctx.session, self._open)
        self.ctx: Context = replace(ctx, session=session)

    def _open(self, honoured: SubscriptionFilter) -> None:
        self._honoured = honoured
        if self._missed:
            self._teller.tell()

    def tell(self) -> None:
        """Say that lists changed, from whichever thread this is."""
        self._missed = True
        self._teller.tell()

    async def say(self) -> None:
        """Say it here and now, as far as the client asked for it."""
        if self._honoured is None:
            return
        for event in _EVENTS:
            if event_matches(self._honoured, frozenset(), event):
                notification = event_to_notification(event, {SUBSCRIPTION_ID_META_KEY: self._ctx.request_id})
                await self._ctx.session.send_notification(notification, related_request_id=self._ctx.request_id)


class Changes:
    """Which clients of one server to tell of a change."""

    def __init__(self, store: Store) -> None:
        self._lock = threading.Lock()
        self._connections: weakref.WeakKeyDictionary[Connection, _Listed] = weakref.WeakKeyDictionary()
        self._streams: set[_Stream] = set()
        store.subscribe(self._ended)

    def announced(self, ctx: Context, result: HandlerResult) -> HandlerResult:
        """Return the answer to `initialize`, which says that lists may change, where that can be told."""
        capabilities = result.get("capabilities") if isinstance(result, dict) else None
        if not isinstance(result, dict) or not isinstance(capabilities, dict):
            return result
        if not _connection(ctx).has_standalone_channel:
            return result
        changing = {kind: {**capabilities[kind], "listChanged": True} for kind in KINDS if kind in capabilities}
        return {**result, "capabilities": {**capabilities, **changing}}

    def listed(self, ctx: Context, invocation: Invocation) -> None:
        """Remember that *invocation* asks for a list."""
        if ctx.protocol_version in MODERN_PROTOCOL_VERSIONS:
            return
        connection = _connection(ctx)
        with self._lock:
            known = self._connections.get(connection)
            if known is None:
                known = self._connections[connection] = _Listed(_Teller(_sender(connection, self._kinds)))
            known.kinds.add(ctx.method.partition("/")[0])
            known.runs.pop(run_of(invocation), None)
            known.runs[run_of(invocation)] = invocation
            if len(known.runs) > _RUNS:
                del known.runs[next(iter(known.runs))]

    def listening(self, handler: Handler) -> Handler:
        """Return the handler of a stream, so that the client is told there of changes."""

        async def listen(ctx: Context, call: Call, call_next: CallNext) -> HandlerResult:
            stream = _Stream(ctx)

            async def opened(own: Context) -> HandlerResult:
                if own is not ctx:
                    # It asks for something else first.
                    return await call_next(own)
                with self._lock:
                    self._streams.add(stream)
                return await call_next(stream.ctx)

            try:
                return await handler(ctx, call, opened)
            except MCPError:
                # Its run is over, most likely. Where nobody reads any more, nothing is lost.
                with suppress(Exception):
                    await stream.say()
                raise
            finally:
                with self._lock:
                    self._streams.discard(stream)

        return listen

    def policies(self) -> None:
        """Tell everybody that the policies changed, from whichever thread this is."""
        with self._lock:
            listed, streams = list(self._connections.values()), list(self._streams)
        for known in listed:
            known.teller.tell()
        for stream in streams:
            stream.tell()

    def _ended(self, ended: Ended) -> None:
        """Tell those whose run was ended, or a run above it."""
        with self._lock:
            listed = list(self._connections.values())
            over = [one for one in listed if any(ended.matches(run) for run in one.runs.values())]
        for known in over:
            known.teller.tell()

    def _kinds(self, connection: Connection) -> tuple[str, ...]:
        with self._lock:
            known = self._connections.get(connection)
            return () if known is None else tuple(kind for kind in KINDS if kind in known.kinds)


def _connection(ctx: Context) -> Connection:
    # A session is made for each request; the SDK has no public way to what it stands for.
    return ctx.session._connection  # noqa: SLF001


def _sender(connection: Connection, kinds: Callable[[Connection], tuple[str, ...]]) -> Callable[[], Awaitable[None]]:
    """Return what tells a connection, and does not keep it."""
    kept = weakref.ref(connection)

    async def send() -> None:
        there = kept()
        if there is not None:
            for kind in kinds(there):
                await there.notify(f"notifications/{kind}/list_changed", None)

    return send
