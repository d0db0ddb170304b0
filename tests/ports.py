"""A port for a program that listens by itself."""

from __future__ import annotations

import secrets
import socket
from contextlib import suppress

# Below those that a system gives to whoever asks for any, or connects: nobody gets it before the program does.
_PORTS = range(10_000, 32_000)


def free_port() -> int:
    """Return a loopback port that nobody has now."""
    while True:
        port = secrets.choice(_PORTS)
        with suppress(OSError), socket.socket() as found:
            found.bind(("127.0.0.1", port))
            return port
