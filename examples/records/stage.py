"""What the demo plays on: an issuer, the server as a process of its own, its spans.

All of it is on the loopback interface, on ports that the system picks, and ends with
the block that opened it.
"""

import json
import secrets
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import anyio
from anyio.abc import Process
from mcp import Client

from agentguard import Issuer, Store
from agentguard.adapters.client import carry
from examples.loopback import serving, url_of
from examples.records.issuer import issuer_app

ROOT: Final = Path(__file__).parents[2]

STATE: Final = "state"
"""The folder, in the demo's own, of the evidence, and of the ends of runs that the issuer keeps there too."""

SPANS: Final = "spans.jsonl"
SEARCH_SECONDS: Final = 2.0

_START_SECONDS: Final = 60
_STOP_SECONDS: Final = 10


class ServerFailedError(Exception):
    """The server did not start; the message is its log."""


@asynccontextmanager
async def loopback_issuer(store: Store | None = None) -> AsyncIterator[Issuer]:
    """Run an issuer in this process; its URL is its ``issuer``."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        issuer = Issuer(issuer=url_of(listening), store=store)
        async with serving(issuer_app(issuer), listening):
            yield issuer


@asynccontextmanager
async def records_server(issuer: str, *, policies: Path, folder: Path) -> AsyncIterator[str]:
    """Run the server as a process, with its log and its spans in *folder*; gives its URL.

    Raises:
        ServerFailedError: If it ends, or says nothing, before it serves.
    """
    command = [sys.executable, "-m", "examples.records.server", "--http", "0", "--issuer", issuer]
    command += ["--policies", str(policies), "--spans", str(folder / SPANS), "--state", str(folder / STATE)]
    command += ["--search-seconds", str(SEARCH_SECONDS)]
    log = folder / "server.log"
    url = ""
    with log.open("wb") as errors:
        process = await anyio.open_process(command, stdin=subprocess.DEVNULL, stderr=errors, cwd=ROOT)
        try:
            with anyio.move_on_after(_START_SECONDS):
                url = await _first_line(process)
            if not url:
                # Without its output it is ending by itself; what it has to say is in its log.
                with anyio.move_on_after(_STOP_SECONDS):
                    await process.wait()
                raise ServerFailedError(log.read_text(errors="replace"))
            yield url
        finally:
            with anyio.CancelScope(shield=True):
                await _stop(process)


async def _first_line(process: Process) -> str:
    line = b""
    if process.stdout is not None:
        async for chunk in process.stdout:
            line += chunk
            if line.endswith(b"\n"):
                break
    return line.decode().strip()


async def _stop(process: Process) -> None:
    if process.returncode is None:
        process.terminate()
    with anyio.move_on_after(_STOP_SECONDS):
        await process.wait()
    if process.returncode is None:
        process.kill()
    await process.aclose()


def copied(url: str, token: str) -> Client:
    """Return a client with a token that was copied: it goes on using it, whatever becomes of its run."""
    return Client(carry(url, lambda: token))


@dataclass(frozen=True, slots=True)
class Span:
    """One span, as the server's SDK wrote it."""

    name: str
    id: str
    parent: str | None
    attributes: dict[str, Any]
    status: str
    microseconds: int


@dataclass(frozen=True, slots=True)
class Trace:
    """The spans that one call left in the server."""

    id: str
    spans: tuple[Span, ...]

    @property
    def request(self) -> Span:
        """The MCP SDK's span of the whole request."""
        return self._one("tools/call")

    @property
    def decision(self) -> Span:
        """The span of the decision."""
        return self._one("agentguard.authorize")

    def _one(self, beginning: str) -> Span:
        if (span := self.named(beginning)) is None:
            message = f"the server wrote no span `{beginning}` for trace {self.id}"
            raise LookupError(message)
        return span

    def named(self, beginning: str) -> Span | None:
        """Return the span whose name begins so, if the call left one."""
        return next((span for span in self.spans if span.name.startswith(beginning)), None)


def new_traceparent() -> tuple[str, str]:
    """Return a new trace's id and the ``traceparent`` that a call carries to belong to it."""
    trace_id = secrets.token_hex(16)
    return trace_id, f"00-{trace_id}-{secrets.token_hex(8)}-01"


def read_trace(folder: Path, trace_id: str) -> Trace:
    """Return what the server has written about one trace so far."""
    # The last line may be half written while a call is still running.
    lines = (line for line in (folder / SPANS).read_text().splitlines(keepends=True) if line.endswith("\n"))
    spans = (json.loads(line) for line in lines)
    return Trace(trace_id, tuple(_span(span) for span in spans if span["context"]["trace_id"] == f"0x{trace_id}"))


def _span(span: dict[str, Any]) -> Span:
    started, ended = (datetime.fromisoformat(span[key]) for key in ("start_time", "end_time"))
    return Span(
        name=span["name"],
        id=span["context"]["span_id"],
        parent=span["parent_id"],
        attributes=span["attributes"],
        status=span["status"]["status_code"],
        microseconds=(ended - started) // timedelta(microseconds=1),
    )
