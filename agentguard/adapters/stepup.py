"""Step-up: a denial for a missing scope as the 403 that a client can act on.

The MCP authorization specification of 2026-07-28 ("Runtime Insufficient Scope Errors";
RFC 6750, section 3.1; RFC 9728) answers such a call with 403 and a ``WWW-Authenticate``
that names all scopes it needs. By the time that a call is judged, the transport may have
begun its answer: it sends the headers of an event stream first. So an ASGI application
around the framework's own holds the beginning of an answer back until there is something
in it, or the call was allowed.

Only what judges a request can challenge, and only before anything was allowed in it: from
then on the answer is what the tool makes of it.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import anyio
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.routes import build_resource_metadata_url
from mcp_types import INVALID_PARAMS
from pydantic import AnyHttpUrl, ValidationError

from agentguard.steps.denial import META_KEY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from agentguard.model import Decision
    from agentguard.steps.call import StepUp

    Message = MutableMapping[str, Any]
    Scope = MutableMapping[Any, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

# No text that a request, a header or another middleware brings can be this key.
_KEY: Final = object()
# RFC 6750, section 3: what may stand between the quotes of a challenge, blanks aside.
_QUOTABLE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
# An answer's headers and what says nothing yet: an event that only begins the stream, and a
# ping or two. A proxy that waits for bytes gets them with the next.
_HELD_MESSAGES: Final = 4
_HELD_BYTES: Final = 1_024
# Headers of an answer that is an event stream, which the challenge is not.
_OF_THE_BODY: Final = frozenset(
    (
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"transfer-encoding",
        b"www-authenticate",
    )
)


class _Place:
    """Where the judging of one HTTP request leaves a challenge.

    Attributes:
        challenge: The messages that answer the request, if a scope is all that it lacks.
        allowed: Set as soon as anything was allowed: there is no challenge any more.
    """

    __slots__ = ("allowed", "challenge")

    def __init__(self) -> None:
        self.challenge: _Challenge | None = None
        self.allowed = anyio.Event()


@dataclass(frozen=True, slots=True)
class _Challenge:
    header: bytes
    body: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Offer:
    """One JSON-RPC request's way to its HTTP answer: a `StepUp`."""

    place: _Place
    metadata: str
    request_id: str | int

    def offer(self, decision: Decision) -> None:
        """Let the challenge for this denial be the answer; a denial that is none takes an earlier one back."""
        if not self.place.allowed.is_set():
            self.place.challenge = _challenge(decision, self) if decision.scopes else None

    def close(self) -> None:
        """Let the answer be what it becomes."""
        self.place.challenge = None
        self.place.allowed.set()


def step_up(request: object, request_id: str | int) -> StepUp | None:
    """Return how the answer to a request becomes a challenge; None if it cannot.

    Args:
        request: What the SDK says that the message came with: an HTTP request, if any.
        request_id: The message's own id.
    """
    scope = cast("Scope", getattr(request, "scope", {}))
    place, user = scope.get(_KEY), scope.get("user")
    if not isinstance(place, _Place) or not isinstance(user, AuthenticatedUser):
        return None
    try:
        metadata = str(build_resource_metadata_url(AnyHttpUrl(user.access_token.resource or "")))
    except ValidationError:
        return None
    # The header is built by hand, so nothing may end its quotes.
    return _Offer(place=place, metadata=metadata, request_id=request_id) if _QUOTABLE.fullmatch(metadata) else None


def _challenge(decision: Decision, offer: _Offer) -> _Challenge:
    said = f"This call needs a token with more scopes. Decision {decision.id}."
    parameters = {
        "error": "insufficient_scope",
        # Each is a scope token: the policies were refused otherwise.
        "scope": " ".join(decision.scopes),
        "resource_metadata": offer.metadata,
        "error_description": said,
    }
    told = {"id": decision.id, "effect": "deny", "reason": "denied", "retry": "scopes"}
    error = {"code": INVALID_PARAMS, "message": said, "data": {META_KEY: told}}
    return _Challenge(
        header=("Bearer " + ", ".join(f'{name}="{value}"' for name, value in parameters.items())).encode("ascii"),
        body=json.dumps({"jsonrpc": "2.0", "id": offer.request_id, "error": error}).encode(),
    )


def with_step_up(app: Any) -> Any:
    """Return the framework's ASGI application, with challenges in place of some of its answers.

    One that takes middleware stays the object that it is. What its owner adds later, such as
    CORS, lies around this and sees the challenges.
    """
    if hasattr(app, "add_middleware"):
        app.add_middleware(StepUpApp)
        return app
    return StepUpApp(app)


class StepUpApp:
    """An ASGI application around another."""

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        # A call is a POST. A stream that is opened by GET must begin at once.
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        place = _Place()
        answer = _Answer(place, send)
        failed: Exception | None = None
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(answer.release_when_allowed)
            try:
                await self._app({**scope, _KEY: place}, receive, answer.send)
                await answer.release()
            except Exception as error:  # noqa: BLE001  raised again outside the group, which would wrap it
                failed = error
            tasks.cancel_scope.cancel()
        if failed is not None:
            raise failed


class _Answer:
    """One HTTP answer: held back at first, then what the application sends, or a challenge."""

    __slots__ = ("_held", "_lock", "_place", "_send", "_taken")

    def __init__(self, place: _Place, send: Send) -> None:
        self._place = place
        self._send = send
        self._lock = anyio.Lock(fast_acquire=True)
        # None as soon as messages go through as they come.
        self._held: list[Message] | None = []
        self._taken = False

    async def send(self, message: Message) -> None:
        """Take one message of the application's own answer."""
        async with self._lock:
            if self._taken:
                # The client has its answer; what is left of this one is nobody's.
                return
            if self._held is None:
                await self._send(message)
                return
            self._held.append(message)
            says = not _says_nothing(message)
            if says and self._place.challenge is not None:
                await self._answer(self._place.challenge, self._held[0])
            elif says or self._place.allowed.is_set() or len(self._held) > _HELD_MESSAGES:
                await self._release()

    async def release(self) -> None:
        """Send what is held, and hold nothing from here on."""
        async with self._lock:
            await self._release()

    async def release_when_allowed(self) -> None:
        """Let the client know at once that a call is running: it may be for long."""
        await self._place.allowed.wait()
        # Where the client has left, a web server may raise; it does so again where the application sends.
        with suppress(OSError):
            await self.release()

    async def _release(self) -> None:
        held, self._held = self._held or [], None
        for message in held:
            await self._send(message)

    async def _answer(self, challenge: _Challenge, begun: Message) -> None:
        self._taken, self._held = True, None
        headers = [(name, value) for name, value in begun.get("headers", ()) if name.lower() not in _OF_THE_BODY]
        headers += [
            (b"content-type", b"application/json"),
            (b"content-length", str(len(challenge.body)).encode()),
            (b"www-authenticate", challenge.header),
        ]
        await self._send({"type": "http.response.start", "status": 403, "headers": headers})
        await self._send({"type": "http.response.body", "body": challenge.body})


def _says_nothing(message: Message) -> bool:
    """Return whether there is nothing in a message yet that a client could act on.

    That is what begins an answer, and events of a stream without data: comments, and the
    id that a client may resume by.
    """
    if message["type"] == "http.response.start":
        return True
    if message["type"] != "http.response.body" or not message.get("more_body", False):
        return False
    body: bytes = message.get("body", b"")
    return len(body) <= _HELD_BYTES and all(
        line.startswith((b":", b"id:", b"retry:")) or line.strip() in {b"", b"data:"} for line in body.splitlines()
    )
