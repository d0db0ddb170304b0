"""A client library that others wrote, against an issuer's endpoints over the network."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from authlib.integrations.requests_client import OAuth2Session  # type: ignore[import-untyped]  # it has no types
from authlib.oauth2.rfc7523 import PrivateKeyJWT  # type: ignore[import-untyped]  # it has no types
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc.jwk import ECKey

from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.asked import ACCESS_TOKEN, EXCHANGE
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.store import MemoryStore, RunState
from tests.lifecycle.service import CORP, PLANNER_KEY, READS, make_client, make_subject
from tests.tokens import AUDIENCE, KEY, make_jwks


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    """Serve an issuer on a free loopback port, from a thread of its own."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        made = Issuer(issuer=url, audience=AUDIENCE, key=KEY, store=MemoryStore(clock=time.time))
        trusted = InvocationVerifier(
            TrustedIssuer(issuer=CORP, mints_runs=False), keys={CORP: FixedKeys(make_jwks(KEY))}
        )
        # Its assertions last an hour.
        app = made.app(clients=[make_client("planner", longest_assertion=3600)], trusted=trusted)
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="none"))
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        yield made
        server.should_exit = True
        thread.join()


def test_authlib_exchanges_introspects_renews_and_revokes(issuer: Issuer) -> None:
    """With its own `private_key_jwt`, and its own reading of the answers."""
    url, now = issuer.issuer, int(time.time())
    pem = PLANNER_KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    method = PrivateKeyJWT(f"{url}/token", headers={"kid": "planner"}, alg="ES256")
    session: Any = OAuth2Session(
        "planner",
        ECKey.import_key(pem),
        token_endpoint_auth_method=method,
        revocation_endpoint_auth_method=method,
    )
    # The environment's proxies have no business on loopback.
    session.trust_env = False
    with session:
        first = session.fetch_token(
            f"{url}/token",
            grant_type=EXCHANGE,
            subject_token=make_subject(aud=url, iat=now, exp=now + 60),
            subject_token_type=ACCESS_TOKEN,
            authorization_details=json.dumps([READS]),
        )
        second = session.fetch_token(
            f"{url}/token", grant_type=EXCHANGE, subject_token=first["access_token"], subject_token_type=ACCESS_TOKEN
        )
        before = session.introspect_token(f"{url}/introspect", token=second["access_token"])
        revoked = session.revoke_token(f"{url}/revoke", token=second["access_token"])
        after = session.introspect_token(f"{url}/introspect", token=first["access_token"])

    assert first["run"] == second["run"]
    assert (before.json()["active"], revoked.status_code, after.json()) == (True, 200, {"active": False})
    assert issuer.store is not None
    assert [record.state for record in issuer.store.runs()] == [RunState.REVOKED]
