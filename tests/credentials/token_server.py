"""A real HTTP server on loopback that answers as an authorization server would, or as one should not."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl

import anyio.to_thread
import uvicorn
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

from agentguard.credentials.answer import ACCESS_TOKEN
from agentguard.credentials.broker import CredentialRequest
from agentguard.credentials.tokenexchange import ExchangeFor, TokenExchangeBroker
from agentguard.testing import unsafe_invocation
from tests import leaks
from tests.tokens import NOW

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

CRM: Final = "https://crm.example/api"
SUBJECT_TOKEN: Final = "subject.token-of-the-run.signature"
ACCESS: Final = "an-access-token-of-the-crm"
REFRESH: Final = "a refresh token of the crm"
KEY: Final = generate_private_key(SECP256R1())
CLIENT: Final = "records-server"


@dataclass
class TokenServer:
    """What a running server answers, and what it was asked.

    Attributes:
        url: Its URL, without a path; the issuer.
        answers: Status and body of each path, and headers after them, or a function of the
            form that was posted; a path without one is not found.
        asked: Each path that was asked for, and the form that came.
        gate: While it is not set, requests wait.
    """

    url: str
    answers: dict[str, Any] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def forms(self, path: str) -> list[dict[str, str]]:
        """Return the forms that were posted to a path."""
        return [form for asked, form in self.asked if asked == path]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        path, form = scope["path"], dict(parse_qsl(body.decode(), strict_parsing=True) if body else [])
        self.asked.append((path, form))
        await anyio.to_thread.run_sync(self.gate.wait)
        answer = self.answers.get(path, (404, {}))
        status, content, *headers = answer(form) if callable(answer) else answer
        raw = content if isinstance(content, bytes) else json.dumps(content).encode()
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": raw})


@contextmanager
def running() -> Iterator[TokenServer]:
    """Run a server from a thread of its own; it has metadata, gives a token and revokes."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        told = TokenServer(url)
        told.gate.set()
        told.answers = {
            "/.well-known/oauth-authorization-server": (200, metadata(url)),
            "/token": (200, granted()),
            "/revoke": (200, b""),
        }
        config = uvicorn.Config(told, interface="asgi3", log_level="critical", lifespan="off", ws="none")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listening],))
        thread.start()
        try:
            yield told
        finally:
            told.gate.set()
            server.should_exit = True
            thread.join()


def metadata(url: str, **changes: object) -> dict[str, object]:
    """Return a server's metadata, with changes."""
    usual = {"issuer": url, "token_endpoint": f"{url}/token", "revocation_endpoint": f"{url}/revoke"}
    return {**usual, **changes}


def granted(**changes: object) -> dict[str, object]:
    """Return the answer to an exchange, with changes; None leaves a member out."""
    usual = {
        "access_token": leaks.register(ACCESS),
        "token_type": "Bearer",
        "issued_token_type": ACCESS_TOKEN,
        "expires_in": 300,
        "scope": "read",
    }
    return {name: value for name, value in {**usual, **changes}.items() if value is not None}


def broker_of(url: str, **changes: Any) -> TokenExchangeBroker:
    """Return a broker for one credential, ``crm``, whose clock stands, with changes."""
    usual: dict[str, Any] = {
        "client_id": CLIENT,
        "key": KEY,
        "credentials": {"crm": ExchangeFor(resource=CRM, scopes={"read", "write"})},
        "clock": lambda: float(NOW),
    }
    return TokenExchangeBroker(url, **{**usual, **changes})


def wanting(name: str = "crm", *, until: float = NOW + 600, token: str = SUBJECT_TOKEN) -> CredentialRequest:
    """Return what a tool asks for."""
    return CredentialRequest(
        name=name,
        invocation=unsafe_invocation("support", user="alice", at=NOW),
        token=leaks.register(token),
        server="records",
        tool="read_record",
        until=until,
    )
