"""The whole memory of an agent that used tools with a credential, searched for that credential."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
    with program("-c", PLANTED, told=held.hex()) as process:
        assert said(process) == "held"
        found = found_in(process.pid, forms_of(secret))

    assert form in found


@dataclass
class Searched:
    """What was found of secrets, and where.

    Attributes:
        told: What the agent says that it got.
        credential: What the other system was asked with.
        in_agent: The forms in which the agent's memory holds the credential.
        in_server: The same, of the server's memory.
        own_token: The forms in which the agent's memory holds its own token.
    """

    told: dict[str, Any]
    credential: set[bool]
    in_agent: set[str]
    in_server: set[str]
    own_token: set[str]


async def searched(folder: Path, *asks: str) -> Searched:
    """Let an agent use tools that need a credential, and search its memory and the server's.

    Args:
        folder: Where the server's policies are written.
        asks: In which ways the agent talks a tool into handing the credential out.
    """
    secret = secrets.token_urlsafe(32)
    asked: set[bool] = set()

    async def crm(request: Request) -> PlainTextResponse:
        asked.add(request.headers["authorization"] == f"Bearer {secret}")
        return PlainTextResponse("three customers")

    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    token = issuer.mint(agent="reader", grant=EVERYTHING)

    def work(root: str) -> Searched:
        serving = json.dumps({"secret": secret, "folder": str(folder), "crm": f"{root}/customers"})
        keys = json.dumps(issuer.jwks())
        with program("-m", "tests.soak.holding", "serve", told=serving, WORLD_JWKS=keys) as server:
            acting = json.dumps({"url": said(server), "token": token, "asks": asks})
            with program("-m", "tests.soak.holding", "act", told=acting) as agent:
                return Searched(
                    told=json.loads(said(agent)),
                    credential=asked,
                    in_agent=found_in(agent.pid, forms_of(secret)),
                    in_server=found_in(server.pid, forms_of(secret)),
                    own_token=found_in(agent.pid, forms_of(token)),
                )

    async with listening(Starlette(routes=[Route("/customers", crm)])) as root:
        return await anyio.to_thread.run_sync(work, root)


async def test_agent_that_used_a_credential_never_had_it(tmp_path: Path) -> None:
    """Its own token is in its memory, so the search works; the credential is in the server's alone.

    The tools reach the other system with it, and one of them does its best to hand it out.
    """
    found = await searched(tmp_path, "plain", "header", "base64", "hex", "raised")

    assert found.told == {"answers": ["three customers"], "stopped": [True]}
    assert found.credential == {True}
    assert "plain" in found.own_token
    assert "plain" in found.in_server
    assert found.in_agent == set()


async def test_credential_that_a_hostile_tool_hands_out_is_found_in_the_agent(tmp_path: Path) -> None:
    """Written backwards it is not known again on its way out. So what is not found above was not there."""
    found = await searched(tmp_path, "backwards")

    assert found.told == {"answers": ["three customers"], "stopped": [False]}
    assert found.in_agent == {"backwards"}
