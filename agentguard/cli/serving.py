"""Serve something from a command: on which address, and with what it logs and prints on standard error."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
from contextlib import contextmanager, redirect_stdout, suppress
from typing import IO, TYPE_CHECKING, Any, Final, cast

import uvicorn

from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK: Final = "127.0.0.1"

_ADDRESS: Final = re.compile(r"(?:(?P<host>\[[0-9A-Fa-f:.]+\]|[^\s:/\[\]]+):)?(?P<port>[0-9]{1,5})")
_PORTS: Final = 65_535


def read_address(text: str, *, option: str) -> tuple[str, int]:
    """Return host and port of ``[HOST:]PORT``: loopback where no host is named.

    Raises:
        ConfigurationError: It is none.
    """
    found = _ADDRESS.fullmatch(text)
    if found is None or int(found["port"]) > _PORTS:
        message = f"{option} wants a port, or host and port, got `{text}`: write 8000 or 127.0.0.1:8000"
        raise ConfigurationError(message)
    return (found["host"] or LOOPBACK).strip("[]"), int(found["port"])


def listening(host: str, port: int, *, option: str) -> socket.socket:
    """Return a socket that listens; port 0 is any that is free.

    Raises:
        ConfigurationError: It cannot.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        # Its own text names the address again.
        why = os.strerror(error.errno) if error.errno else str(error)
        message = f"{option} wants an address to listen on, got `{host}` and `{port}`: {why}: choose another"
        raise ConfigurationError(message) from None


def url_of(listens: socket.socket, host: str, path: str) -> str:
    """Return the URL of what is served there."""
    return f"http://{f'[{host}]' if ':' in host else host}:{listens.getsockname()[1]}{path}"


def http_server(app: Any, *, lifespan: bool = False) -> uvicorn.Server:
    """Return what serves an ASGI application.

    Args:
        app: The application.
        lifespan: Whether it wants to be told when serving begins and ends.
    """
    # No headers of a proxy are believed: nothing here depends on where a request came from.
    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,
        lifespan="on" if lifespan else "off",
        proxy_headers=False,
        ws="none",
        timeout_graceful_shutdown=5 if lifespan else None,
    )
    return uvicorn.Server(config)


@contextmanager
def logging_shown(level: int = logging.INFO, *, sdk: int = logging.NOTSET) -> Iterator[None]:
    """Write the log to standard error: why a request was refused, and which runs began and ended.

    Args:
        level: From which level on.
        sdk: From which level on the MCP SDK's own log is written, as far as it writes one.
    """
    log, theirs = logging.getLogger("agentguard"), logging.getLogger("mcp")
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    before = log.level, log.propagate, theirs.level
    log.addHandler(handler)
    # The SDK writes everything to standard error too, as soon as there is a server of it.
    log.propagate = False
    log.setLevel(level)
    theirs.setLevel(sdk or theirs.level)
    try:
        yield
    finally:
        level, log.propagate, sdk = before
        log.setLevel(level)
        theirs.setLevel(sdk)
        log.removeHandler(handler)


@contextmanager
def prints_aside() -> Iterator[None]:
    """Let what a server prints while it speaks stdio go to standard error: standard output is the protocol's.

    The SDK keeps the descriptor from whoever prints for as long as it serves. Text that waits
    in the stream until then would be written behind the last answer.
    """
    stdout = sys.stdout
    try:
        with redirect_stdout(cast("IO[str]", _Aside(stdout.buffer))):
            yield
    finally:
        kept = os.dup(1)
        try:
            os.dup2(2, 1)
            with suppress(OSError, ValueError):
                stdout.flush()
        finally:
            os.dup2(kept, 1)
            os.close(kept)


class _Aside:
    """Standard error for whoever prints, above the bytes of standard output, by which the SDK finds its descriptor."""

    def __init__(self, buffer: object) -> None:
        self.buffer = buffer

    def __getattr__(self, name: str) -> Any:
        # A command leaves none behind where nobody reads it.
        return getattr(sys.stderr or sys.__stderr__, name)
