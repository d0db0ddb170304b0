"""The trap: an HTTP client that follows redirects takes the keys from wherever it is sent."""

from __future__ import annotations

import pytest

from agentguard.errors import Refusal
from agentguard.identity.keys import JWKS
from tests.key_server import KeyServer, Reply
from tests.tokens import KEY_ID, make_jwks


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_key_set_elsewhere_is_refused(status: int) -> None:
    """Keys come from the host that the configuration names."""
    with KeyServer() as server, KeyServer() as other:
        server.replies["/keys"] = Reply(b"", status=status, headers=((b"location", f"{other.url}/keys".encode()),))
        other.replies["/keys"] = Reply.of(make_jwks())

        with pytest.raises(Refusal):
            await JWKS(url=f"{server.url}/keys").get(KEY_ID)

        assert other.asked == []
