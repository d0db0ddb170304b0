"""Why a server could not be reached, in words of ours: an exception's own may hold more."""

from __future__ import annotations

import socket
import ssl

import httpx2


def unreached(error: BaseException) -> str:
    """Return why nothing came, as the end of a sentence about the server."""
    if isinstance(error, (TimeoutError, httpx2.TimeoutException)):
        return "did not answer in time"
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, ssl.SSLError):
            return "could not be reached by TLS: check its certificate"
        if isinstance(cause, socket.gaierror):
            return "could not be found: check the name of its host"
        if isinstance(cause, ConnectionRefusedError):
            return "refused the connection: check that it runs, and its port"
        cause = cause.__cause__ or cause.__context__
    return f"could not be reached, {type(error).__qualname__}"
