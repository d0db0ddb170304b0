"""An issuer's application with two clients, a foreign issuer, and the requests that they make."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from itertools import count
from typing import Any, Final

import httpx2
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey, generate_private_key

from agentguard.identity.assertion import ASSERTION_TYPE
from agentguard.identity.jwk import read_key_set
from agentguard.identity.keys import FixedKeys
from agentguard.identity.token import TrustedIssuer, verify
from agentguard.identity.verifier import InvocationVerifier
from agentguard.lifecycle.asked import ACCESS_TOKEN, EXCHANGE
from agentguard.lifecycle.clients import Client
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.store import MemoryStore, RunRecord
from agentguard.model import Invocation
from tests.tokens import ABSENT, AUDIENCE, ISSUER, KEY, NOW, Clock, make_foreign_claims, make_jwks, sign

CORP: Final = "https://login.example"
PLANNER_KEY: Final = generate_private_key(SECP256R1())
READER_KEY: Final = generate_private_key(SECP256R1())
SERVER_KEY: Final = generate_private_key(SECP256R1())
KEYS: Final = {"planner": PLANNER_KEY, "reader": READER_KEY, "records": SERVER_KEY}
READS: Final = {"type": "agentguard_grant", "tools": ["read"]}

_numbers = count()


def make_assertion(client_id: str = "planner", *, key: EllipticCurvePrivateKey | None = None, **changes: Any) -> str:
    """Return a client's assertion, with changes of its claims; a header of its own goes by `header`."""
    header = {"kid": client_id, "typ": "JWT", **changes.pop("header", {})}
    algorithm = changes.pop("algorithm", "ES256")
    claims = {
        "iss": client_id,
        "sub": client_id,
        "aud": ISSUER,
        "exp": NOW + 60,
        "iat": NOW,
        "jti": f"assertion-{next(_numbers)}",
    }
    claims = {name: value for name, value in {**claims, **changes}.items() if value is not ABSENT}
    return sign(claims, header=header, key=key or KEYS[client_id], algorithm=algorithm)


def make_subject(**changes: Any) -> str:
    """Return a token that the foreign issuer gave alice for this issuer, with changes of its claims."""
    return sign(make_foreign_claims(**{"iss": CORP, "aud": ISSUER, "client_id": "portal", **changes}))


def make_client(client_id: str, **options: Any) -> Client:
    """Return a registered client."""
    return Client(client_id=client_id, keys=FixedKeys(make_jwks(KEYS[client_id], client_id)), **options)


def make_trusted(*, claims: dict[str, type] | None = None, clock: Clock | None = None) -> InvocationVerifier:
    """Return a verifier of the foreign issuer's tokens for this one."""
    return InvocationVerifier(
        TrustedIssuer(issuer=CORP, mints_runs=False, claims=claims or {}),
        audience=ISSUER,
        keys={CORP: FixedKeys(make_jwks(KEY))},
        clock=clock or Clock(),
    )


@dataclass
class Service:
    """An issuer's application within a test's reach."""

    clock: Clock = field(default_factory=Clock)
    clients: tuple[Client, ...] = ()
    trusted: InvocationVerifier | None = None
    store: Any = None
    issuer_url: str = ISSUER
    ledger: Any = None

    def __post_init__(self) -> None:
        self.store = self.store or MemoryStore(clock=self.clock)
        self.issuer = Issuer(
            issuer=self.issuer_url,
            audience=AUDIENCE,
            key=KEY,
            store=self.store,
            clock=self.clock,
            **({} if self.ledger is None else {"ledger": self.ledger}),
        )
        self.clients = self.clients or (
            make_client("planner", scopes=["read", "write"]),
            make_client("reader", scopes=["read"], longest=600),
            make_client("records", may_exchange=False, may_introspect=True),
        )
        self.trusted = self.trusted or make_trusted(clock=self.clock)
        self.app = self.issuer.app(clients=self.clients, trusted=self.trusted)

    async def post(self, path: str, *, client: str | None = "planner", **parameters: Any) -> httpx2.Response:
        """Post a form as a client, which signs an assertion."""
        if client is not None:
            now = int(self.clock.now)
            assertion = make_assertion(client, iat=now, exp=now + 60)
            signed = {"client_assertion_type": ASSERTION_TYPE, "client_assertion": assertion}
            parameters = {**signed, **parameters}
        form = {
            name: json.dumps(value) if isinstance(value, list | dict) else str(value)
            for name, value in parameters.items()
            if value is not ABSENT
        }
        return await self.send("POST", path, data=form)

    async def send(self, method: str, path: str, **options: Any) -> httpx2.Response:
        """Send any request."""
        transport = httpx2.ASGITransport(app=self.app)
        async with httpx2.AsyncClient(transport=transport, base_url=self.issuer_url) as http:
            return await http.request(method, path, **options)

    async def exchange(self, *, client: str | None = "planner", **parameters: Any) -> httpx2.Response:
        """Ask for a run on behalf of alice, with changes of the parameters."""
        usual: dict[str, Any] = {
            "grant_type": EXCHANGE,
            "subject_token": make_subject(),
            "subject_token_type": ACCESS_TOKEN,
            "authorization_details": [READS],
        }
        return await self.post("/token", client=client, **{**usual, **parameters})

    async def token(self, **parameters: Any) -> str:
        """Return the token that an exchange gives."""
        response = await self.exchange(**parameters)
        assert response.status_code == 200, response.text
        text: str = response.json()["access_token"]
        return text

    def read(self, token: str, *, claims: dict[str, type] | None = None) -> Invocation:
        """Verify a token as a server does now."""
        keys, _ = read_key_set(self.issuer.jwks())
        trusted = TrustedIssuer(issuer=self.issuer_url, claims=claims or {})
        return verify(token, {self.issuer_url: trusted}, {self.issuer_url: keys}, AUDIENCE, self.clock.now)

    def records(self) -> tuple[RunRecord, ...]:
        """Return every run on record."""
        records: tuple[RunRecord, ...] = self.store.runs()
        return records


def refusal(response: httpx2.Response) -> tuple[int, str]:
    """Return with what a request was refused: the status and the code."""
    assert response.headers["cache-control"] == "no-store"
    return response.status_code, response.json()["error"]
