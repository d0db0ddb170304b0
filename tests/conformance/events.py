"""A memory of what was sent, for clients that lost their stream and come back for the rest."""

from __future__ import annotations

from mcp.server.streamable_http import EventCallback, EventId, EventMessage, EventStore, StreamId
from mcp_types import JSONRPCMessage


class Events(EventStore):
    """Every event of every stream, in one list; an event's id is its place."""

    def __init__(self) -> None:
        self._sent: list[tuple[StreamId, JSONRPCMessage | None]] = []

    async def store_event(self, stream_id: StreamId, message: JSONRPCMessage | None) -> EventId:
        """Keep one event; None is the empty one that begins a stream."""
        self._sent.append((stream_id, message))
        return str(len(self._sent) - 1)

    async def replay_events_after(self, last_event_id: EventId, send_callback: EventCallback) -> StreamId | None:
        """Send what the same stream had after one of its events."""
        if not last_event_id.isdecimal() or int(last_event_id) >= len(self._sent):
            return None
        seen = int(last_event_id)
        stream = self._sent[seen][0]
        for place, (stream_id, message) in enumerate(self._sent[seen + 1 :], seen + 1):
            if stream_id == stream and message is not None:
                await send_callback(EventMessage(message, str(place)))
        return stream
