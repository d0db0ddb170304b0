"""The whole memory of an agent that used tools with a credential, searched for that credential."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from agentguard import Issuer
from tests.soak.memory import forms_of, found_in
from tests.world import AUDIENCE, EVERYTHING, ISSUER, listening

ROOT = Path(__file__).parents[2]
ASKS = ("plain", "header", "base64", "hex", "raised")
PLANTED = """
import sys
held = [bytes.fromhex(line) for line in sys.stdin.readline().split()]
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def program(*command: str, told: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start a program, tell it what it has to know, and end it."""
    with subprocess.Popen(
        [sys.executable, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, **environment},
    ) as process:
        assert process.stdin is not None
        try:
            process.stdin.write(told + "\n")
            process.stdin.flush()
            yield process
        finally:
            process.stdin.close()
            process.wait(30)


def said(process: subprocess.Popen[str]) -> str:
    """Return the line that a program says when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, "it ended before it was ready"
    return line.strip()


@pytest.mark.parametrize("form", sorted(forms_of("0123456789abcdef" * 2)))
def test_search_finds_a_secret_in_each_form_that_it_looks_for(form: str) -> None:
    """Else that nothing is found would mean nothing."""
    secret = secrets.token_urlsafe(32)
    held = forms_of(secret)[form]
    # Two lines of hex in the pipe are no form of the secret that is looked for: they are hex of a form.
    with program("-c", PLANTED, told=held.hex()) as process:
        assert said(process) == "held"
        found = found_in(process.pid, forms_of(secret))

    assert form in found


async def test_agent_that_used_a_credential_never_had_it(tmp_path: Path) -> None:
    """Its own token is in its memory, so the search works; the credential is in the server's alone.

    The tools reach the other system with it, and one of them does its best to hand it out.
    """
    secret = secrets.token_urlsafe(32)
    asked: list[str] = []

    async def crm(request: Request) -> PlainTextResponse:
        asked.append(request.headers["authorization"])
        return PlainTextResponse("three customers")

    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    token = issuer.mint(agent="reader", grant=EVERYTHING)
    async with listening(Starlette(routes=[Route("/customers", crm)])) as root:
        serving: dict[str, Any] = {"secret": secret, "folder": str(tmp_path), "crm": f"{root}/customers"}
        ran = await anyio.to_thread.run_sync(partial(searched, serving, token, issuer, secret))

    assert asked == [f"Bearer {secret}"] * 2
    assert ran["answer"] == "three customers"
    assert ran["agent"] == set()
    assert "plain" in ran["token"]
    assert "plain" in ran["server"]


def searched(serving: dict[str, Any], token: str, issuer: Issuer, secret: str) -> dict[str, Any]:
    """Let both programs work, and return what was found in which."""
    keys = json.dumps(issuer.jwks())
    with program("-m", "tests.soak.holding", "serve", told=json.dumps(serving), WORLD_JWKS=keys) as server:
        acting = {"url": said(server), "token": token, "asks": ASKS}
        with program("-m", "tests.soak.holding", "act", told=json.dumps(acting)) as agent:
            return {
                "answer": said(agent),
                "agent": found_in(agent.pid, forms_of(secret)),
                "token": found_in(agent.pid, forms_of(token)),
                "server": found_in(server.pid, forms_of(secret)),
            }
