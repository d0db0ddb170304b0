"""Asking at a URL: what is posted, what counts as an answer, and what never does."""

from __future__ import annotations

import hmac
import json
import socket
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import httpx2
import pytest
import uvicorn

from agentguard import Approval, ApprovalRequest, ConfigurationError, HTTPApprover, Reason, Refusal
from agentguard.approvers import SIGNATURE, _pause
from agentguard.host.unreached import unreached
from tests.approvals import ASKS, NO, Person, call
from tests.tokens import Clock
from tests.world import ERAS, Era, free_socket, make_world

SECRET = "a-secret-of-the-desk"
KEY = bytes(range(32))
QUESTION = ApprovalRequest(
    id="Q1",
    prompt="",
    server="records",
    action="export",
    resources=(),
    arguments={"note": "\ud800 and ü"},
    run="r1",
    issuer="https://issuer.example",
    agent="reader",
    expires_at=300.0,
)
YES = {"id": "Q1", "approved": True}


class Service:
    """An approver's service on loopback.

    Attributes:
        url: Where it is.
        replies: Status, body (or what makes it of the question) and headers of each answer in
            turn; the last one stays.
        bodies: What was posted.
        headers: The headers of each post.
        hangs: Whether it never answers.
    """

    def __init__(self, url: str, replies: list[tuple[int, Any, dict[str, str]]]) -> None:
        self.url = url
        self.replies = replies
        self.bodies: list[Any] = []
        self.headers: list[dict[str, str]] = []
        self.hangs = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one post."""
        body, more = b"", True
        while more:
            message = await receive()
            body += message.get("body", b"")
            more = message.get("more_body", False)
        assert (scope["method"], scope["path"]) == ("POST", "/ask")
        self.bodies.append(body)
        self.headers.append({name.decode(): value.decode() for name, value in scope["headers"]})
        if self.hangs:
            await anyio.sleep_forever()
        status, answer, headers = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        if callable(answer):
            answer = answer(json.loads(body))
        sent = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        listed = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": listed})
        await send({"type": "http.response.body", "body": sent})


@asynccontextmanager
async def service(*replies: tuple[int, Any] | tuple[int, Any, dict[str, str]]) -> AsyncIterator[Service]:
    """Serve on a free port, with these answers."""
    bound = free_socket()
    desk = Service(
        f"http://127.0.0.1:{bound.getsockname()[1]}/ask",
        [(reply[0], reply[1], reply[2] if len(reply) > 2 else {}) for reply in replies],
    )
    server = uvicorn.Server(uvicorn.Config(desk, log_level="critical", lifespan="off", ws="none"))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(server.serve, [bound])
        while not server.started:
            await anyio.lowlevel.checkpoint()
        try:
            yield desk
        finally:
            server.should_exit = server.force_exit = True
    bound.close()


def approver(url: str, **options: Any) -> HTTPApprover:
    """Return an approver that does not wait long."""
    options.setdefault("bearer", SECRET) if "signing_key" not in options else None
    return HTTPApprover(url, **{"poll_seconds": 0.001, "clock": lambda: 100.0, **options})


async def test_question_is_posted_and_its_answer_counts() -> None:
    """The body is the whole question; the secret goes along."""
    async with service((200, YES | {"approver": "carol"})) as desk:
        answer = await approver(desk.url)(QUESTION)

    assert answer == Approval(approver="carol")
    assert json.loads(desk.bodies[0]) == json.loads(json.dumps(QUESTION.as_json()))
    assert desk.headers[0]["authorization"] == f"Bearer {SECRET}"
    assert desk.headers[0]["content-type"] == "application/json"


async def test_body_is_signed() -> None:
    """With a key, whoever has it too can tell that the guard asks, and when."""
    async with service((200, YES)) as desk:
        assert await approver(desk.url, signing_key=KEY)(QUESTION) == Approval()

    expected = hmac.digest(KEY, b"100." + desk.bodies[0], "sha256").hex()
    assert desk.headers[0][SIGNATURE.lower()] == f"t=100,v1={expected}"
    assert "authorization" not in desk.headers[0]


async def test_no_is_a_no() -> None:
    """A person declined."""
    async with service((200, {"id": "Q1", "approved": False, "approver": "carol"})) as desk:
        assert await approver(desk.url)(QUESTION) is None


async def test_same_question_is_asked_until_it_is_answered() -> None:
    """While nobody has decided, and over a moment in which the service is away."""
    waits: list[Any] = [
        (202, {}),
        (503, b""),
        (429, b"", {"Retry-After": "0"}),
        (502, b""),
        (504, b"<html>"),
        (202, {}),
    ]
    async with service(*waits, (200, YES)) as desk:
        assert await approver(desk.url)(QUESTION) == Approval()

    assert len(desk.bodies) == 7
    assert len(set(desk.bodies)) == 1


@pytest.mark.parametrize(
    ("asked", "pause"),
    [("5", 5.0), ("1", 1.0), ("0", 1.0), ("", 2.0), ("9999", 60.0), ("99999", 2.0), ("-1", 2.0), ("²", 2.0)],
)
def test_service_says_when_to_ask_again(asked: str, pause: float) -> None:
    """Within bounds: neither at once nor next year."""
    assert _pause(asked, 2.0) == pause


def test_pause_of_a_quick_approver_stays_quick() -> None:
    """Whoever asks more often than each second may go on so."""
    assert _pause("0", 0.5) == 0.5


NO_JSON = "answered with something else than one JSON object"
APPROVED_AS = "answered with `approved` as"
NO_ANSWERS: list[tuple[str, Any]] = [
    (NO_JSON, (200, b"")),
    (NO_JSON, (200, b"yes, by carol")),
    (NO_JSON, (200, b"[]")),
    (NO_JSON, (200, b"<html>carol</html>")),
    (NO_JSON, (200, b"\xff carol")),
    (NO_JSON, (200, b"[" * 60_000)),
    (NO_JSON, (200, b'{"id": "Q1", "approved": false, "approved": true}')),
    ("answered without the `id` of the question: add it", (200, {"approved": True, "approver": "carol"})),
    (
        "answered with another `id` than the question's: give back the one that was posted",
        (200, {"id": "carol", "approved": True}),
    ),
    (f"{APPROVED_AS} nothing: it wants true or false", (200, {"id": "Q1"})),
    (f"{APPROVED_AS} a string: it wants true or false", (200, {"id": "Q1", "approved": "carol"})),
    (f"{APPROVED_AS} a number: it wants true or false", (200, {"id": "Q1", "approved": 1})),
    (f"{APPROVED_AS} a list: it wants true or false", (200, {"id": "Q1", "approved": ["carol"]})),
    ("answered with `approver` as a number: it wants a string", (200, YES | {"approver": 7.5})),
    ("answered with `approver` as true or false: it wants a string", (200, YES | {"approver": True})),
    ("answered with `approver` as an object: it wants a string", (200, YES | {"approver": {"carol": 1}})),
    ("answered with more than 65536 bytes", (200, b'{"id": "Q1", "padding": "' + b"x" * 70_000 + b'"}')),
    *((f"answered {status}", (status, YES | {"approver": "carol"})) for status in (201, 400, 401, 403, 404, 500)),
    ("answered 204", (204, b"")),
    ("answered 301", (301, YES, {"Location": "/ask"})),
    ("answered 307", (307, YES, {"Location": "/ask"})),
]


async def test_anything_else_is_no_answer() -> None:
    """A clear yes to this question, or nothing, and why in words of ours; a redirect is not followed."""
    async with service(*(reply for _, reply in NO_ANSWERS), (200, YES)) as desk:
        host = desk.url.removesuffix("/ask")
        for number, (why, reply) in enumerate(NO_ANSWERS, 1):
            with pytest.raises(Refusal) as caught:
                # What follows the host may be a secret.
                await approver(f"{desk.url}?key=carol")(QUESTION)

            assert caught.value.reason is Reason.APPROVAL_UNAVAILABLE
            assert caught.value.detail == f"the approver at `{host}` {why}"
            assert str(caught.value) == "refused"
            assert len(desk.bodies) == number, reply


@pytest.mark.parametrize("status", [502, 504])
async def test_service_that_stays_away_is_given_up(status: int) -> None:
    """Three times in a row, and the caller hears of it."""
    async with service((status, b"")) as desk:
        with pytest.raises(Refusal) as caught:
            await approver(desk.url)(QUESTION)

    assert caught.value.detail.endswith(f"` answered {status}, 3 tries")
    assert len(desk.bodies) == 3


async def test_service_that_is_not_there_is_given_up() -> None:
    """Nobody listens on that port."""
    # Held, so that nobody else comes to listen there.
    with free_socket() as held:
        port = held.getsockname()[1]
        with pytest.raises(Refusal) as caught:
            await approver(f"http://127.0.0.1:{port}/ask")(QUESTION)

    assert caught.value.detail == (
        f"the approver at `http://127.0.0.1:{port}` refused the connection: check that it runs, and its port, 3 tries"
    )


def caused(error: BaseException, cause: BaseException) -> BaseException:
    """Return *error* as it is raised because of *cause*."""
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (httpx2.ReadTimeout("carol"), "did not answer in time"),
        (
            caused(httpx2.ConnectError("carol"), ssl.SSLCertVerificationError("carol")),
            "could not be reached by TLS: check its certificate",
        ),
        (
            caused(httpx2.ConnectError("carol"), caused(OSError("carol"), socket.gaierror("carol"))),
            "could not be found: check the name of its host",
        ),
        (caused(httpx2.ReadError("carol"), OSError("carol")), "could not be reached, ReadError"),
    ],
)
def test_service_that_cannot_be_reached_is_told_in_words_of_ours(error: BaseException, why: str) -> None:
    """An exception's own words may hold more than the log should."""
    assert unreached(error) == why


async def test_log_says_why_the_service_did_not_answer(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The caller reads what they read of any call that a person has to approve."""
    caplog.set_level("INFO", "agentguard")
    async with service((401, b"carol")) as desk:
        world = make_world(tmp_path, policies=ASKS, approver=approver(desk.url, clock=time.time))

        result = await call(world, ERAS[0], None)

    why = f"the approver at `{desk.url.removesuffix('/ask')}` answered 401"
    assert f"could not be asked, because {why}" in caplog.text
    assert f", approval_unavailable: ask; nobody could be asked, because {why}" in caplog.text
    assert "401" not in str(result)
    assert SECRET not in caplog.text


async def test_service_that_hangs_is_given_up() -> None:
    """Each post has its time."""
    async with service((200, YES)) as desk:
        desk.hangs = True
        with pytest.raises(Refusal) as caught:
            await approver(desk.url, timeout_seconds=0.05)(QUESTION)

    assert caught.value.detail.endswith(" did not answer in time, 3 tries")


async def test_nobody_is_asked_past_the_end() -> None:
    """A question that is over is not posted any more."""
    clock = Clock(299.0)
    async with service((202, {})) as desk:

        def tick() -> float:
            clock.now += 0.25
            return clock.now

        with pytest.raises(Refusal) as caught:
            await approver(desk.url, clock=tick)(QUESTION)

    assert caught.value.detail.endswith(" had no answer in time")
    assert 0 < len(desk.bodies) < 4


@pytest.mark.parametrize("era", ERAS)
async def test_policy_can_insist_on_the_url(era: Era, tmp_path: Path) -> None:
    """The whole way, in both eras: the service says yes, and the caller's own client is not asked."""
    insists = ASKS.replace(
        "unless { context has approval }", 'unless { context has approval && context.approval.channel == "url" }'
    )
    person = Person(NO)
    async with service((202, {}), (200, lambda question: {"id": question["id"], "approved": True})) as desk:
        elsewhere = HTTPApprover(desk.url, bearer=SECRET, poll_seconds=0.001)
        world = make_world(tmp_path, policies=insists, approver=elsewhere)

        result = await call(world, era, person)

    assert not result.is_error
    assert world.ran == ["export 5 csv"]
    assert person.seen == []


@pytest.mark.parametrize(
    ("url", "options", "message"),
    [
        ("http://desk.example/ask", {"bearer": SECRET}, "wants an https URL, or http on loopback, got `http://desk"),
        ("ftp://127.0.0.1/ask", {"bearer": SECRET}, "wants an https URL"),
        ("https://user:pass@desk.example/", {"bearer": SECRET}, "wants an https URL"),
        ("", {"bearer": SECRET}, "wants an https URL"),
        ("https://desk.example/ask", {}, "wants one of `bearer=` and `signing_key=`, got neither"),
        ("https://desk.example/ask", {"bearer": SECRET, "signing_key": KEY}, "`signing_key=`, got both"),
        ("https://desk.example/ask", {"bearer": "short"}, "`bearer` wants at least 16 visible ASCII characters"),
        ("https://desk.example/ask", {"bearer": SECRET + "\r\nX: y"}, "`bearer` wants"),
        ("https://desk.example/ask", {"bearer": SECRET + " é"}, "`bearer` wants"),
        ("https://desk.example/ask", {"signing_key": b"short"}, "`signing_key` wants at least 32 bytes"),
        ("https://desk.example/ask", {"signing_key": "x" * 32}, "`signing_key` wants"),
        ("https://desk.example/ask", {"bearer": SECRET, "poll_seconds": 0}, "`poll_seconds` wants more than 0"),
        ("https://desk.example/ask", {"bearer": SECRET, "timeout_seconds": 61}, "`timeout_seconds` wants more than"),
        ("https://desk.example/ask", {"bearer": SECRET, "poll_seconds": float("nan")}, "`poll_seconds` wants"),
        ("https://desk.example/ask", {"bearer": SECRET, "channel": "client"}, "the `channel` of an approver wants"),
    ],
)
def test_mistake_is_refused_at_once(url: str, options: dict[str, Any], message: str) -> None:
    """When it is set up, with the fix."""
    with pytest.raises(ConfigurationError) as caught:
        HTTPApprover(url, **options)

    assert message in str(caught.value)
    assert SECRET not in str(caught.value)
