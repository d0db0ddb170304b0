"""Approvers that ship with the guard: other places to ask a person than the caller's own client."""

from __future__ import annotations

import hmac
import json
import time
from typing import TYPE_CHECKING, Final, NoReturn
from urllib.parse import urlsplit

import anyio
import httpx2

from agentguard.approval import Approval
from agentguard.errors import ConfigurationError, Refusal
from agentguard.host.unreached import unreached
from agentguard.identity.form import read_object
from agentguard.identity.keys import acceptable
from agentguard.model import Reason
from agentguard.steps.asking import channel_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.approval import ApprovalRequest

SIGNATURE: Final = "AgentGuard-Signature"
"""The header with ``t=<unix seconds>,v1=<hex>``: HMAC-SHA-256 over ``<t>.`` and the body."""

_OK: Final = 200
_LATER: Final = frozenset((202, 429, 503))
_AWAY: Final = frozenset((502, 504))
# How often in a row the service may be away before nobody waits for it any longer.
_PATIENCE: Final = 3
_MOST_BYTES: Final = 64 * 1024
_SHORTEST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 60.0
_SECRET_CHARACTERS: Final = 16
_KEY_BYTES: Final = 32
_KINDS: Final = {
    type(None): "nothing",
    bool: "true or false",
    str: "a string",
    int: "a number",
    float: "a number",
    list: "a list",
    dict: "an object",
}


class HTTPApprover:
    """Posts each question to a URL, and asks there again until it is answered.

    The body is the `ApprovalRequest` as JSON. The service answers 202 as long as nobody has
    decided, which makes the guard post the same again after a pause (``Retry-After``, or
    *poll_seconds*); and then 200 with ``{"id": …, "approved": true, "approver": "carol"}``, where
    ``id`` is the question's and ``approver`` may be left out. Everything else denies the call.

    Attributes:
        channel: How policies name it.
    """

    def __init__(
        self,
        url: str,
        *,
        bearer: str | None = None,
        signing_key: bytes | None = None,
        channel: str = "url",
        poll_seconds: float = 2.0,
        timeout_seconds: float = 10.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set it up.

        Args:
            url: Where to post: https, or http on loopback. Redirects are not followed.
            bearer: A secret that goes along as ``Authorization: Bearer``.
            signing_key: At least 32 random bytes, which each body is signed with, ``AgentGuard-Signature``.
            channel: How policies name it.
            poll_seconds: The pause before the same is asked again.
            timeout_seconds: The longest that one post may take.
            clock: Gives unix seconds.

        Raises:
            ConfigurationError: With what to change.
        """
        if not acceptable(url, loopback=True):
            message = f"`HTTPApprover` wants an https URL, or http on loopback, got `{url}`: name one"
            raise ConfigurationError(message)
        if (bearer is None) == (signing_key is None):
            got = "neither" if bearer is None else "both"
            message = f"`HTTPApprover` wants one of `bearer=` and `signing_key=`, got {got}: it shows who asks"
            raise ConfigurationError(message)
        if bearer is not None and not (
            len(bearer) >= _SECRET_CHARACTERS and bearer.isascii() and bearer.isprintable() and " " not in bearer
        ):
            message = f"`bearer` wants at least {_SECRET_CHARACTERS} visible ASCII characters: make it with `secrets`"
            raise ConfigurationError(message)
        if signing_key is not None and not (type(signing_key) is bytes and len(signing_key) >= _KEY_BYTES):
            message = f"`signing_key` wants at least {_KEY_BYTES} bytes: make it once with os.urandom(32), and keep it"
            raise ConfigurationError(message)
        for name, seconds in (("poll_seconds", poll_seconds), ("timeout_seconds", timeout_seconds)):
            if not 0 < seconds <= _LONGEST_PAUSE:
                message = (
                    f"`{name}` wants more than 0 and at most {_LONGEST_PAUSE:.0f}, got `{seconds}`: choose another"
                )
                raise ConfigurationError(message)
        self.channel = channel
        channel_of(self)
        self._url = url
        # Whoever has a webhook's path may post to it, so the log names its host alone.
        parts = urlsplit(url)
        self._host = f"{parts.scheme}://{parts.netloc}"
        self._bearer = bearer
        self._key = signing_key
        self._poll = poll_seconds
        self._timeout = timeout_seconds
        self._clock = clock

    async def __call__(self, request: ApprovalRequest, /) -> Approval | None:
        """Post *request* until it is answered.

        Raises:
            Refusal: APPROVAL_UNAVAILABLE, with what became of the question.
        """
        body = json.dumps(request.as_json(), ensure_ascii=True).encode()
        away = 0
        # A proxy from the environment must not see what is meant for loopback.
        async with httpx2.AsyncClient(
            follow_redirects=False,
            trust_env=acceptable(self._url, loopback=False),
            timeout=self._timeout,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as client:
            while True:
                if not self._clock() < request.expires_at:
                    self._fail("had no answer in time")
                retry_after = away_because = ""
                try:
                    with anyio.fail_after(self._timeout):
                        status, retry_after, answer = await self._post(client, body)
                except (httpx2.TransportError, TimeoutError) as error:
                    away_because = unreached(error)
                else:
                    if status == _OK:
                        return self._read(answer, request)
                    if status not in _LATER | _AWAY:
                        self._fail(f"answered {status}")
                    away_because = f"answered {status}" if status in _AWAY else ""
                away = away + 1 if away_because else 0
                if away >= _PATIENCE:
                    self._fail(f"{away_because}, {away} tries")
                await anyio.sleep(_pause(retry_after, self._poll))

    def _fail(self, what: str) -> NoReturn:
        raise Refusal(Reason.APPROVAL_UNAVAILABLE, f"the approver at `{self._host}` {what}") from None

    async def _post(self, client: httpx2.AsyncClient, body: bytes) -> tuple[int, str, bytes]:
        headers = {"Content-Type": "application/json", **self._proof(body)}
        answer = bytearray()
        async with client.stream("POST", self._url, content=body, headers=headers) as response:
            # Raw, so that the bound holds for what is compressed too.
            async for part in response.aiter_raw():
                answer += part
                if len(answer) > _MOST_BYTES:
                    self._fail(f"answered with more than {_MOST_BYTES} bytes")
            return response.status_code, response.headers.get("Retry-After", ""), bytes(answer)

    def _proof(self, body: bytes) -> Mapping[str, str]:
        if self._key is None:
            return {"Authorization": f"Bearer {self._bearer}"}
        at = str(int(self._clock()))
        signed = hmac.digest(self._key, at.encode() + b"." + body, "sha256").hex()
        return {SIGNATURE: f"t={at},v1={signed}"}

    def _read(self, body: bytes, request: ApprovalRequest) -> Approval | None:
        try:
            answer = read_object(body)
        except (ValueError, RecursionError):
            # What is wrong with it quotes it.
            self._fail("answered with something else than one JSON object")
        if "id" not in answer:
            self._fail("answered without the `id` of the question: add it")
        # An answer that was mixed up with another one, by a cache for example, is none.
        if answer["id"] != request.id:
            self._fail("answered with another `id` than the question's: give back the one that was posted")
        approved, approver = answer.get("approved"), answer.get("approver")
        if not isinstance(approved, bool):
            self._fail(f"answered with `approved` as {_KINDS[type(approved)]}: it wants true or false")
        if not (approver is None or isinstance(approver, str)):
            self._fail(f"answered with `approver` as {_KINDS[type(approver)]}: it wants a string")
        return Approval(approver=approver) if approved else None


def _pause(retry_after: str, poll: float) -> float:
    """Return the seconds until the same is asked again: those that were asked for, within bounds."""
    if not (retry_after.isascii() and retry_after.isdigit() and len(retry_after) <= 4):  # noqa: PLR2004  digits of seconds
        return poll
    return min(max(float(retry_after), min(poll, _SHORTEST_PAUSE)), _LONGEST_PAUSE)
