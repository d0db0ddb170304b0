"""`oidc-provider` from npm, with a token exchange grant: somebody else's authorization server, on loopback."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa_key
from jwt.algorithms import RSAAlgorithm

from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.keys import PrivateKey, read_signing_key
from tests.clients.npm import NODE, installed
from tests.clients.oidc_provider import VERSION

CRM: Final = "https://crm.example/api"
BRIEF: Final = "https://brief.example/api"
WIDE: Final = "https://wide.example/api"
RECORDS: Final = "https://records.example/mcp"
RUNS: Final = "https://runs.example"

SERVER: Final = "records-server"
RENEWING: Final = "renewing-server"
KEYS: Final[dict[str, PrivateKey]] = {SERVER: generate_private_key(SECP256R1()), RENEWING: Ed25519PrivateKey.generate()}

_SCRIPT: Final = Path(__file__).with_suffix(".mjs")
_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_API: Final = ("crm", "s" * 32)
_RESOURCES: Final = {
    CRM: {"scope": "read write", "seconds": 300},
    BRIEF: {"scope": "read", "seconds": 4},
    WIDE: {"scope": "read admin", "seconds": 300, "more": ["admin"]},
}


@dataclass(frozen=True)
class Exchanging:
    """A provider that listens, and the issuer of the runs that it knows.

    Attributes:
        url: Its ``iss``, and its URL.
        runs: Whose tokens it exchanges.
        process: The provider itself.
    """

    url: str
    runs: Issuer
    process: subprocess.Popen[str]

    def run_token(self, **changes: Any) -> str:
        """Return the token of a run that began now."""
        usual: dict[str, Any] = {"agent": "support", "user": "alice", "grant": "permit (principal, action, resource);"}
        return self.runs.mint(**{**usual, **changes})

    def introspected(self, token: str) -> dict[str, Any]:
        """Return what the other system learns of a token (RFC 7662)."""
        with httpx2.Client(trust_env=False, auth=_API, timeout=30) as http:
            told: dict[str, Any] = http.post(f"{self.url}/token/introspection", data={"token": token}).json()
        return told

    def asked(self) -> dict[str, int]:
        """Return how often each path was asked for."""
        with httpx2.Client(trust_env=False, timeout=30) as http:
            told: dict[str, int] = http.get(f"{self.url}/asked").json()
        return told

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Keep it from answering, though connections to it are taken."""
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def running_exchange() -> Iterator[Exchanging]:
    """Run a provider on a free loopback port, with keys of its own."""
    folder = installed("oidc-provider", VERSION)
    runs = Issuer(issuer=RUNS, audience=RECORDS, key=generate_private_key(SECP256R1()))
    jwk = RSAAlgorithm.to_jwk(generate_rsa_key(65537, 2048), as_dict=True)
    own = {**{name: value for name, value in jwk.items() if name != "key_ops"}, "kid": "k-1", "use": "sig"}
    public = {name: dict(read_signing_key(key).public) for name, key in KEYS.items()}
    setup = {
        "clients": [_client(SERVER, public[SERVER]), _client(RENEWING, public[RENEWING], "refresh_token"), _resource()],
        "jwks": {"keys": [own]},
        "resources": _RESOURCES,
        "subject": {"issuer": RUNS, "audience": RECORDS, "jwks": runs.jwks()},
        "actors": {"keys": list(public.values())},
    }
    with subprocess.Popen(
        [NODE, _SCRIPT, folder, json.dumps(setup)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield Exchanging(process.stdout.readline().strip(), runs, process)
        finally:
            # It ends with its input, so it cannot outlive the tests.
            process.stdin.close()


def _client(name: str, key: dict[str, object], *grants: str) -> dict[str, object]:
    return {
        "client_id": name,
        "token_endpoint_auth_method": "private_key_jwt",
        "token_endpoint_auth_signing_alg": key["alg"],
        "jwks": {"keys": [key]},
        "grant_types": [_EXCHANGE, *grants],
        "response_types": [],
        "redirect_uris": [],
    }


def _resource() -> dict[str, object]:
    name, secret = _API
    nothing: list[str] = []
    return {
        "client_id": name,
        "client_secret": secret,
        "grant_types": nothing,
        "response_types": nothing,
        "redirect_uris": nothing,
    }
