"""From where a run is used, as a short text that a store can keep.

It has three parts, ``http:0f3a…:9c41…``: the transport, the peer's address, and what the MCP
client calls itself, which is empty where a client had no way to say it. The OAuth client of the
verified identity may follow, after a space. Addresses and names are digests: no address is kept
in clear, though whoever reads the store can try all addresses that there are.

What may change while a client stays the same is in none of them: its port, its session, its
token, the version of the protocol that it speaks. What a client calls itself proves nothing,
since another can say the same: it tells two honest flows apart. The address, as the server
sees it, is what a thief of a token has to share.
"""

from __future__ import annotations

import hashlib
import ipaddress
import json
from functools import lru_cache
from typing import Final

_DIGEST: Final = 16
_SHORT: Final = 256


def origin_of(transport: str, *, address: str, named: tuple[str, str] | None) -> str:
    """Return the text for one client, at one place.

    Args:
        transport: ``http`` or ``stdio``.
        address: The host of the peer, without its port; empty where there is none.
        named: What the MCP client calls itself, name and version; empty ones if it could have said
            that and did not, None if it could not.
    """
    # Clients come again and again. What one says of itself may be long, and is not kept then.
    short = len(address) + sum(map(len, named or ())) <= _SHORT
    return (_written if short else _written.__wrapped__)(transport, address, named)


@lru_cache(maxsize=1_024)
def _written(transport: str, address: str, named: tuple[str, str] | None) -> str:
    return f"{transport}:{_digest(normal_address(address))}:{'' if named is None else _digest(*named)}"


def normal_address(address: str) -> str:
    """Return *address* in the one form for all that stand for the same host.

    IPv4 in IPv6 is the IPv4 address, and the loopback address of IPv6 that of IPv4: which of
    the two a client of `localhost` takes may change from one connection to the next. What is
    no address stays as it is.
    """
    try:
        # An IPv6 zone says over which of its own interfaces this host was reached.
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    if isinstance(ip, ipaddress.IPv6Address):
        ip = ip.ipv4_mapped or (ipaddress.IPv4Address("127.0.0.1") if ip.is_loopback else ip)
    return str(ip)


def together(known: str, origin: str) -> str | None:
    """Return all that is known of one client, if two uses may be of the same; None if they are of two.

    Args:
        known: Where it was used before.
        origin: Where it is used now. Empty stands for no place at all: it is never elsewhere.
    """
    if not known or not origin or known == origin:
        return known or origin
    (before, named_before), (now, named_now) = _split(known), _split(origin)
    if before != now or (named_before and named_now):
        return None
    return known if named_before else origin


def _split(origin: str) -> tuple[tuple[str, str], str]:
    """Return what has to be the same, and what the client calls itself."""
    text, _, oauth_client = origin.partition(" ")
    place, _, named = text.rpartition(":")
    return (place, oauth_client), named


def _digest(*parts: str) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:_DIGEST]
