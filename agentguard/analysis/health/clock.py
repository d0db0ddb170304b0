"""How far this host's clock is from an issuer's.

A token is judged by this clock and stamped by that one: what lies between them is taken
from the life of every token, or added to it.
"""

from __future__ import annotations

import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final

import httpx2

from agentguard.errors import ConfigurationError
from agentguard.identity.keys import acceptable

if TYPE_CHECKING:
    from collections.abc import Callable

_METADATA: Final = "/.well-known/oauth-authorization-server"
_SECONDS: Final = 5.0


async def seconds_apart(issuer: str, *, clock: Callable[[], float] = time.time) -> float | None:
    """Return by how many seconds this clock is ahead of the issuer's; None if the issuer does not tell the time.

    HTTP tells whole seconds, and the answer takes its time, so that about one second is as
    near as it can be.

    Args:
        issuer: Its ``iss``, an https URL, or http on this host.
        clock: Gives unix seconds.

    Raises:
        ConfigurationError: It is no such URL, or nobody answers there.
    """
    if not acceptable(issuer, loopback=True):
        message = f"--issuer wants an https URL, or http on loopback, got `{issuer}`: write the issuer's `iss`"
        raise ConfigurationError(message)
    start = httpx2.URL(issuer)
    # RFC 8414 section 3.1: between the host and the path. Whatever is answered there has a date.
    url = start.copy_with(path=f"{_METADATA}{start.path.rstrip('/')}")
    local = not acceptable(issuer, loopback=False)
    try:
        async with (
            httpx2.AsyncClient(follow_redirects=False, trust_env=not local, timeout=_SECONDS) as client,
            client.stream("GET", url) as response,
        ):
            before = clock()
            told = response.headers.get("date", "")
    except httpx2.HTTPError as error:
        message = f"issuer `{issuer}` does not answer, {type(error).__name__}: start it, or leave --issuer out"
        raise ConfigurationError(message) from None
    try:
        there = parsedate_to_datetime(told)
    except (ValueError, OverflowError):
        return None
    if there.tzinfo is None:
        return None
    # A second that has begun there is told as it began.
    return before - there.timestamp() - 0.5
