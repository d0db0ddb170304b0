"""Approvers that ship with the guard: other places to ask a person than the caller's own client."""

from __future__ import annotations

import hmac
import json
import time
from typing import TYPE_CHECKING, Final

import anyio
import httpx2

from agentguard.approval import Approval
from agentguard.asking import channel_of
from agentguard.errors import ConfigurationError
from agentguard.identity.form import read_object
from agentguard.identity.keys import acceptable

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
_LONGEST_PAUSE: Final = 60.0
_SECRET_CHARACTERS: Final = 16
_KEY_BYTES: Final = 32


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
        self._bearer = bearer
        self._key = signing_key
        self._poll = poll_seconds
        self._timeout = timeout_seconds
        self._clock = clock

    async def __call__(self, request: ApprovalRequest, /) -> Approval | None:
        """Post *request* until it is answered.

        Raises:
            TimeoutError: Nobody answered in time.
            ValueError: The service answered something else.
            httpx2.HTTPError: It could not be reached.
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
            while self._clock() < request.expires_at:
                retry_after = ""
                try:
                    with anyio.fail_after(self._timeout):
                        status, retry_after, answer = await self._post(client, body)
                except (httpx2.TransportError, TimeoutError):
                    away += 1
                    if away >= _PATIENCE:
                        raise
                else:
                    if status == _OK:
                        return _read(answer, request)
                    away = away + 1 if status in _AWAY else 0
                    if status not in _LATER | _AWAY or away >= _PATIENCE:
                        message = f"the approver answered {status}"
                        raise ValueError(message)
                await anyio.sleep(_pause(retry_after, self._poll))
        message = "nobody answered in time"
        raise TimeoutError(message)

    async def _post(self, client: httpx2.AsyncClient, body: bytes) -> tuple[int, str, bytes]:
        headers = {"Content-Type": "application/json", **self._proof(body)}
        answer = bytearray()
        async with client.stream("POST", self._url, content=body, headers=headers) as response:
            # Raw, so that the bound holds for what is compressed too.
            async for part in response.aiter_raw():
                answer += part
                if len(answer) > _MOST_BYTES:
                    message = f"the approver answered with more than {_MOST_BYTES} bytes"
                    raise ValueError(message)
            return response.status_code, response.headers.get("Retry-After", ""), bytes(answer)

    def _proof(self, body: bytes) -> Mapping[str, str]:
        if self._key is None:
            return {"Authorization": f"Bearer {self._bearer}"}
        at = str(int(self._clock()))
        signed = hmac.digest(self._key, at.encode() + b"." + body, "sha256").hex()
        return {SIGNATURE: f"t={at},v1={signed}"}


def _pause(retry_after: str, poll: float) -> float:
    asked = float(retry_after) if retry_after.isascii() and retry_after.isdigit() and len(retry_after) <= 4 else 0.0  # noqa: PLR2004  digits of seconds
    return min(max(poll, asked), _LONGEST_PAUSE)


def _read(body: bytes, request: ApprovalRequest) -> Approval | None:
    answer = read_object(body)
    # An answer that was mixed up with another one, by a cache for example, is none.
    if answer.get("id") != request.id:
        message = "the approver answered another question"
        raise ValueError(message)
    approved, approver = answer.get("approved"), answer.get("approver")
    if not isinstance(approved, bool) or not (approver is None or isinstance(approver, str)):
        message = "the approver's answer wants `approved`, true or false, and at most the name of an `approver`"
        raise ValueError(message)
    return Approval(approver=approver) if approved else None
