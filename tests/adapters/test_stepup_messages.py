"""What the ASGI application of step-up lets out, and when: message by message."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import anyio
import pytest
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken

from agentguard.adapters.stepup import StepUpApp, step_up, with_step_up
from agentguard.model import Decision, Effect, Reason
from tests.world import AUDIENCE


def body(text: bytes, *, more: bool = True) -> dict[str, Any]:
    """Return a piece of an answer's body."""
    return {"type": "http.response.body", "body": text, "more_body": more}


START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [(b"content-type", b"text/event-stream"), (b"x-own", b"1")],
}
PRIMING = body(b"id: 1\r\ndata: \r\nretry: 3000\r\n\r\n")
PING = body(b": ping\r\n\r\n")
EVENT = body(b"event: message\r\ndata: {}\r\n\r\n")
END = body(b"", more=False)
DENIED = Decision(effect=Effect.DENY, reason=Reason.NO_PERMIT, scopes=("a", "b"), id="D1")
POST = {"type": "http", "method": "POST"}


@dataclass
class Wire:
    """An application behind the wrapper, which sends what it is told, and what came out in front."""

    sent: list[dict[str, Any]] = field(default_factory=list)
    seen: list[list[str]] = field(default_factory=list)

    async def run(self, *steps: Any, scope: dict[str, Any] | None = None, resource: str | None = AUDIENCE) -> list[str]:
        """Send messages, call functions with the request's offer, and return the kinds of what came out."""

        async def app(scope: Any, receive: Any, send: Any) -> None:
            user = AuthenticatedUser(AccessToken(token="t", client_id="c", scopes=[], resource=resource))
            offer = step_up(SimpleNamespace(scope={**scope, "user": user}), "id-1")
            for step in steps:
                if callable(step):
                    await step(offer)
                elif isinstance(step, Exception):
                    raise step
                else:
                    await send(dict(step))
                self.seen.append(self.kinds())

        async def receive() -> dict[str, Any]:
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            self.sent.append(message)

        await StepUpApp(app)({**POST, **(scope or {})}, receive, send)
        return self.kinds()

    def kinds(self) -> list[str]:
        """Return what came out so far, each message in a word."""
        return [str(message.get("status", message.get("body", message["type"]))) for message in self.sent]


def shown(*messages: dict[str, Any]) -> list[str]:
    """Return messages, each in a word, as they are without the wrapper."""
    return [str(message.get("status", message.get("body", message["type"]))) for message in messages]


async def deny(offer: Any) -> None:
    """Deny for a missing scope."""
    offer.offer(DENIED)


async def deny_otherwise(offer: Any) -> None:
    """Deny for something else."""
    offer.offer(Decision(effect=Effect.DENY, reason=Reason.POLICY, id="D2"))


async def allow_at_once(offer: Any) -> None:
    """Let something run that has its answer before anybody else has a turn."""
    offer.close()


async def allow(offer: Any) -> None:
    """Let something run, and give the wrapper its turn."""
    offer.close()
    await anyio.wait_all_tasks_blocked()


async def test_challenge_takes_the_place_of_the_answer() -> None:
    """Nothing of the other answer comes out, but for headers that are not its body's."""
    wire = Wire()

    await wire.run(START, PRIMING, PING, deny, PING, EVENT, EVENT, END)

    start, reply = wire.sent
    assert start["status"] == 403
    assert dict(start["headers"])[b"x-own"] == b"1"
    assert dict(start["headers"])[b"content-type"] == b"application/json"
    assert dict(start["headers"])[b"content-length"] == str(len(reply["body"])).encode()
    assert dict(start["headers"])[b"www-authenticate"].startswith(b'Bearer error="insufficient_scope", scope="a b", ')
    assert json.loads(reply["body"])["id"] == "id-1"


@pytest.mark.parametrize(
    "steps",
    [
        [deny, deny_otherwise, START, EVENT],
        [deny, allow, START, EVENT],
        [START, deny, allow_at_once, EVENT],
        [allow, deny, START, EVENT],
        [START, EVENT, deny, EVENT],
        [deny_otherwise, START, EVENT],
    ],
)
async def test_answer_that_is_not_for_a_scope_comes_as_it_is(steps: list[Any]) -> None:
    """A later denial, anything that ran, and an answer that has begun take the challenge back."""
    messages = [step for step in steps if isinstance(step, dict)]

    assert await Wire().run(*steps, END) == shown(*messages, END)


async def test_answer_is_held_until_there_is_something_in_it() -> None:
    """What a client cannot act on yet stays here, and then all comes in order."""
    wire = Wire()

    await wire.run(START, PRIMING, PING, EVENT, PING, END)

    assert wire.seen[:3] == [[], [], []]
    assert wire.seen[3] == shown(START, PRIMING, PING, EVENT)
    assert wire.kinds() == shown(START, PRIMING, PING, EVENT, PING, END)


async def test_allowed_call_is_held_no_longer() -> None:
    """Its headers, and the id to resume by, come out though the tool has said nothing."""
    wire = Wire()

    await wire.run(START, PRIMING, allow, PING, EVENT, END)

    assert wire.seen[2] == shown(START, PRIMING)
    assert wire.seen[3] == shown(START, PRIMING, PING)


@pytest.mark.parametrize("beginning", [[allow], [allow, START]])
async def test_call_that_was_allowed_before_it_is_answered_is_not_held(beginning: list[Any]) -> None:
    """Nor one whose answer begins later."""
    wire = Wire()

    await wire.run(*beginning, START, PRIMING)

    assert wire.seen[len(beginning)] == shown(*[step for step in beginning if isinstance(step, dict)], START)


@pytest.mark.parametrize(
    "last",
    [
        body(b": " + b"x" * 2_000),
        {"type": "http.response.body", "body": b""},
        {"type": "http.response.trailers"},
        body(b"data: {}"),
        body(b"<html>"),
        PING,
    ],
)
async def test_holding_is_bounded(last: dict[str, Any]) -> None:
    """A proxy that waits for bytes gets them: after some pings, some length, or anything that is no ping."""
    wire = Wire()

    await wire.run(START, PING, PING, PING, last)

    assert wire.seen[3] == []
    assert wire.seen[4] == shown(START, PING, PING, PING, last)


@pytest.mark.parametrize(
    "scope",
    [{"type": "websocket"}, {"type": "lifespan"}, {"method": "GET"}, {"method": "DELETE"}, {"method": "OPTIONS"}],
)
async def test_only_posts_are_held(scope: dict[str, Any]) -> None:
    """Whatever else there is goes through untouched, without a way to challenge."""
    wire = Wire()

    async def no_offer(offer: Any) -> None:
        assert offer is None

    await wire.run(no_offer, START, PING, scope=scope)

    assert wire.seen[1] == shown(START)


async def test_answer_that_ends_without_a_word_comes_out() -> None:
    """An application may send headers and return."""
    assert await Wire().run(START, PRIMING) == shown(START, PRIMING)
    assert await Wire().run() == []


async def test_what_the_application_raises_is_raised_as_it_is() -> None:
    """The web server reports it, and answers 500 since nothing has come out."""
    wire = Wire()

    with pytest.raises(ConnectionError, match="broken"):
        await wire.run(START, ConnectionError("broken"))

    assert wire.sent == []


async def test_client_that_has_left_stops_nothing_but_its_answer() -> None:
    """Some web servers raise then. The application learns it as it would by itself, where it sends."""
    did: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        user = AuthenticatedUser(AccessToken(token="t", client_id="c", scopes=[], resource=AUDIENCE))
        offer = step_up(SimpleNamespace(scope={**scope, "user": user}), 1)
        assert offer is not None
        await send(START)
        offer.close()
        await anyio.wait_all_tasks_blocked()
        did.append("ran")
        with pytest.raises(OSError, match="gone"):
            await send(EVENT)
        did.append("told")

    async def send(message: Any) -> None:
        raise OSError(*["gone"])

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    await StepUpApp(app)(POST, receive, send)

    assert did == ["ran", "told"]


@pytest.mark.parametrize("resource", [None, "", "not a url", "http://127.0.0.1/a\\b"])
async def test_without_the_address_of_the_metadata_there_is_no_challenge(resource: str | None) -> None:
    """A client could not find out where to get a token."""

    async def no_offer(offer: Any) -> None:
        assert offer is None or "\\" not in offer.metadata

    await Wire().run(no_offer, START, EVENT, resource=resource)


def test_request_without_a_verified_bearer_has_no_challenge() -> None:
    """Nor has what is no request over HTTP."""
    assert step_up(None, 1) is None
    assert step_up(SimpleNamespace(scope={"user": "mallory", "_KEY": "x"}), 1) is None


def test_application_that_takes_no_middleware_is_wrapped() -> None:
    """Any ASGI application will do."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        """Answer nothing."""

    assert isinstance(with_step_up(app), StepUpApp)
