"""A real HTTP server on loopback that answers as an issuer would, or as one should not."""

from __future__ import annotations

import json
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import anyio.to_thread
import uvicorn

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send


@dataclass(frozen=True)
class Reply:
    """What one path answers."""

    body: bytes
    status: int = 200
    headers: tuple[tuple[bytes, bytes], ...] = ()

    @classmethod
    def of(cls, value: object) -> Reply:
        """Answer with JSON."""
        return cls(json.dumps(value).encode())


class KeyServer:
    """Serves replies by path from a thread of its own.

    Attributes:
        replies: What to answer; a path without a reply is not found.
        asked: The paths that were asked for, in order.
        gate: While it is not set, requests wait.
        arrived: Set once a request has come.
    """

    def __init__(self) -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.arrived = threading.Event()
        self._socket = socket.create_server(("127.0.0.1", 0))
        config = uvicorn.Config(self._answer, interface="asgi3", log_level="critical", lifespan="off", ws="none")
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],))

    @property
    def url(self) -> str:
        """The server's URL, without a path."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.gate.set()
        self._server.should_exit = True
        self._thread.join()
        self._socket.close()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path: str = scope["path"]
        self.asked.append(path)
        self.arrived.set()
        await anyio.to_thread.run_sync(self.gate.wait)
        reply = self.replies.get(path, Reply(b"{}", status=404))
        await send({"type": "http.response.start", "status": reply.status, "headers": list(reply.headers)})
        await send({"type": "http.response.body", "body": reply.body})
