"""`oidc-provider` from npm: somebody else's authorization server, with real grants, on loopback."""

import base64
import hashlib
import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from jwt.algorithms import RSAAlgorithm

from tests.clients.npm import NODE, installed

VERSION: Final = "9.13.3"
RECORDS: Final = "https://records.example/mcp"
OTHER: Final = "https://other.example/mcp"
SHORT: Final = "https://short.example/mcp"
OPAQUE: Final = "https://opaque.example/mcp"
LIFETIMES: Final = {RECORDS: 300, OTHER: 300, SHORT: 5}
MACHINE: Final = "billing-agent"
PERSON_CLIENT: Final = "support-agent"

_SCRIPT: Final = Path(__file__).with_suffix(".mjs")
SECRET: Final = "s" * 32
_CALLBACK: Final = "http://127.0.0.1/callback"
_VERIFIER: Final = "v" * 43
_CLIENTS: Final = [
    {
        "client_id": MACHINE,
        "client_secret": SECRET,
        "grant_types": ["client_credentials"],
        "response_types": [],
        "redirect_uris": [],
    },
    {
        "client_id": PERSON_CLIENT,
        "application_type": "native",
        "token_endpoint_auth_method": "none",
        "grant_types": ["authorization_code"],
        "response_types": ["code"],
        "redirect_uris": [_CALLBACK],
    },
]


@dataclass(frozen=True)
class Provider:
    """A provider that listens.

    Attributes:
        issuer: Its ``iss``, and its URL.
    """

    issuer: str

    def machine_token(self, resource: str) -> str:
        """Get an access token with the client's own credentials (RFC 6749 section 4.4, RFC 8707)."""
        grant = {"grant_type": "client_credentials", "resource": resource, "scope": "read"}
        with httpx2.Client(base_url=self.issuer, trust_env=False, timeout=30) as http:
            token: str = _answer(http.post("/token", data=grant, auth=(MACHINE, SECRET)))["access_token"]
        return token

    def person_tokens(self, user: str, resource: str) -> dict[str, Any]:
        """Sign in as *user* in the provider's own forms, and get an access token and an ID token."""
        digest = hashlib.sha256(_VERIFIER.encode()).digest()
        request = {
            "client_id": PERSON_CLIENT,
            "response_type": "code",
            "redirect_uri": _CALLBACK,
            "scope": "openid read",
            "resource": resource,
            "nonce": "n-1",
            "code_challenge": base64.urlsafe_b64encode(digest).rstrip(b"=").decode(),
            "code_challenge_method": "S256",
        }
        with httpx2.Client(base_url=self.issuer, trust_env=False, timeout=30) as http:
            page = http.get("/auth", params=request)
            for form in ({"prompt": "login", "login": user, "password": "any"}, {"prompt": "consent"}):
                while page.is_redirect:
                    page = http.get(page.headers["location"])
                page = http.post(page.url, data=form)
            while not (target := page.headers["location"]).startswith(_CALLBACK):
                page = http.get(target)
            grant = {
                "grant_type": "authorization_code",
                "code": httpx2.URL(target).params["code"],
                "redirect_uri": _CALLBACK,
                "client_id": PERSON_CLIENT,
                "code_verifier": _VERIFIER,
                "resource": resource,
            }
            return _answer(http.post("/token", data=grant))


@contextmanager
def running_provider(*resources: str) -> Iterator[Provider]:
    """Run a provider on a free loopback port, with a key of its own, that knows *resources* too."""
    folder = installed("oidc-provider", VERSION)
    key = RSAAlgorithm.to_jwk(generate_private_key(65537, 2048), as_dict=True)
    jwk = {**{name: value for name, value in key.items() if name != "key_ops"}, "kid": "k-1", "use": "sig"}
    lifetimes = LIFETIMES | dict.fromkeys(resources, 300)
    setup = {"jwt": lifetimes, "opaque": OPAQUE, "clients": _CLIENTS, "jwks": {"keys": [jwk]}}
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
            yield Provider(process.stdout.readline().strip())
        finally:
            # It ends with its input, so it cannot outlive the tests.
            process.stdin.close()


def _answer(response: httpx2.Response) -> dict[str, Any]:
    assert response.status_code == 200, response.text
    told: dict[str, Any] = response.json()
    return told
