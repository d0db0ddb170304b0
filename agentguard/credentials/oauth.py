"""Ask one authorization server for tokens, and to revoke them, as one of its clients.

Redirects are not followed, answers are bounded, and plain HTTP goes to this machine alone.
Each request has a connection of its own: whoever asks may do so from several event loops.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final, NoReturn, TypeGuard

import anyio
import httpx2

from agentguard.credentials.answer import FAILING, OK, check_status
from agentguard.errors import ConfigurationError, CredentialError
from agentguard.host.unreached import unreached
from agentguard.identity.assertion import ASSERTION_TYPE, sign_assertion
from agentguard.identity.form import read_object
from agentguard.identity.keys import acceptable, metadata_urls
from agentguard.lifecycle.keys import read_signing_key

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from agentguard.lifecycle.keys import KeySource

_MOST_BYTES: Final = 64 * 1024
_PAUSE_SECONDS: Final = 0.2
_LONGEST_TIMEOUT: Final = 60
_ASSERTION_SECONDS: Final = 60
_METADATA_SECONDS: Final = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoints:
    """Where to ask.

    Attributes:
        token: For tokens.
        revocation: To take them back, if the server does.
    """

    token: str
    revocation: str | None = None


class AuthorizationServer:
    """An authorization server, as the client that signs with *key* knows it.

    Args:
        issuer: Its ``iss``, whose metadata names its endpoints (RFC 8414).
        client_id: What it knows us as.
        key: Our private key.
        key_id: ``kid`` of our key; its thumbprint if left out.
        endpoints: Where to ask, if there is no metadata.
        assertion_audience: ``aud`` of what we sign; its ``iss`` if left out.
        timeout_seconds: The longest that one request may take, all of it.
        clock: Gives unix seconds.

    Raises:
        ConfigurationError: With what to change.
    """

    __slots__ = (
        "_audience",
        "_client_id",
        "_clock",
        "_found",
        "_found_at",
        "_given",
        "_issuer",
        "_key",
        "_key_id",
        "_loopback",
        "_timeout",
    )

    def __init__(
        self,
        issuer: str,
        *,
        client_id: str,
        key: KeySource,
        key_id: str | None,
        endpoints: Endpoints | None,
        assertion_audience: str | None,
        timeout_seconds: float,
        clock: Callable[[], float],
    ) -> None:
        for problem in _problems(issuer, client_id, endpoints, timeout_seconds):
            raise ConfigurationError(problem)
        self._issuer = issuer
        self._loopback = not acceptable(issuer, loopback=False)
        self._client_id = client_id
        self._key = read_signing_key(key)
        self._key_id = key_id or self._key.key_id
        self._audience = assertion_audience or issuer
        self._given = endpoints
        self._timeout = timeout_seconds
        self._clock = clock
        self._found: Endpoints | None = None
        self._found_at = 0.0

    @property
    def jwk(self) -> dict[str, object]:
        """The public half of our key."""
        return {**self._key.public, "kid": self._key_id}

    async def token(self, form: Mapping[str, str]) -> bytes:
        """Ask for a token, and return what was answered.

        Raises:
            CredentialError: There is none.
        """
        endpoints = await self._endpoints()
        return await self._granted(endpoints.token, form)

    async def revoke(self, tokens: Iterable[tuple[str, str]]) -> None:
        """Revoke tokens (RFC 7009), the others too where one is refused.

        Args:
            tokens: Each with its ``token_type_hint`` before it.

        Raises:
            CredentialError: One of them may still be good.
        """
        url = (await self._endpoints()).revocation
        if url is None:
            _fail(self._issuer, "revokes nothing: its tokens are good until their end")
        problem: CredentialError | None = None
        for hint, token in tokens:
            try:
                await self._granted(url, {"token": token, "token_type_hint": hint})
            except CredentialError as error:
                if error.retry:
                    raise
                problem = error
        if problem is not None:
            raise problem

    async def _granted(self, url: str, form: Mapping[str, str]) -> bytes:
        status, body = await self._sent(url, form)
        check_status(status, body)
        return body

    async def _endpoints(self) -> Endpoints:
        if self._given is not None:
            return self._given
        if self._found is None or not 0 <= self._clock() - self._found_at < _METADATA_SECONDS:
            self._found = await self._discovered()
            self._found_at = self._clock()
        return self._found

    async def _discovered(self) -> Endpoints:
        tried = metadata_urls(httpx2.URL(self._issuer))
        problem = f"has no metadata at `{tried[0]}`: pass token_endpoint= and revocation_endpoint="
        for url in tried:
            status, body = await self._sent(url)
            if status >= FAILING:
                _fail(self._issuer, f"answered {status} where its metadata is wanted", retry=True)
            if status == OK:
                found = self._read_metadata(body)
                if isinstance(found, Endpoints):
                    return found
                problem = found
        message = f"the authorization server `{self._issuer}` {problem}"
        raise CredentialError(message)

    def _read_metadata(self, body: bytes) -> Endpoints | str:
        """Return what the metadata names, or what is wrong with it."""
        try:
            metadata = read_object(body)
        except (ValueError, RecursionError):
            metadata = {}
        # RFC 8414 section 3.3: what another issuer says would send the run's token there.
        if metadata.get("issuer") != self._issuer:
            return "has metadata of another issuer, or none that can be read"
        token, revocation = metadata.get("token_endpoint"), metadata.get("revocation_endpoint")
        if not self._is_acceptable(token):
            return "has metadata that names no acceptable `token_endpoint`"
        if revocation is None or self._is_acceptable(revocation):
            return Endpoints(token=token, revocation=revocation)
        return "has metadata that names no acceptable `revocation_endpoint`"

    def _is_acceptable(self, url: object) -> TypeGuard[str]:
        return isinstance(url, str) and acceptable(url, loopback=self._loopback)

    async def _sent(self, url: str | httpx2.URL, form: Mapping[str, str] | None = None) -> tuple[int, bytes]:
        """Send a request, once more where it may not have arrived, and return the status and what was answered."""
        status, body, problem = await self._try(url, form)
        if problem or status >= FAILING:
            await anyio.sleep(_PAUSE_SECONDS)
            status, body, problem = await self._try(url, form)
        # Raised here, and not where it was caught: what the client raises holds the whole
        # request, with the tokens, and an exception holds the one that it was raised in.
        if problem:
            _fail(self._issuer, problem, retry=True)
        return status, body

    async def _try(self, url: str | httpx2.URL, form: Mapping[str, str] | None) -> tuple[int, bytes, str]:
        """Send a request, and return the status and what was answered, or why nothing came.

        An answer that is too long is as good as an empty one.
        """
        body = bytearray()
        try:
            # A proxy from the environment must not see what is meant for loopback.
            async with httpx2.AsyncClient(
                follow_redirects=False,
                trust_env=not self._loopback,
                timeout=self._timeout,
                verify=_tls(),
                headers={"Accept": "application/json", "Accept-Encoding": "identity"},
            ) as client:
                method, data = ("GET", None) if form is None else ("POST", {**form, **self._proof()})
                with anyio.fail_after(self._timeout):
                    async with client.stream(method, url, data=data) as response:
                        # Raw, so that the bound holds for what is compressed too.
                        async for part in response.aiter_raw():
                            body += part
                            if len(body) > _MOST_BYTES:
                                return response.status_code, b"", ""
                    return response.status_code, bytes(body), ""
        except (httpx2.HTTPError, TimeoutError) as error:
            return 0, b"", unreached(error)

    def _proof(self) -> dict[str, str]:
        """Return what says who we are, good for one request."""
        assertion = sign_assertion(
            client_id=self._client_id,
            audience=self._audience,
            private=self._key.private,
            algorithm=self._key.algorithm,
            key_id=self._key_id,
            token_id=uuid.uuid4().hex,
            now=int(self._clock()),
            seconds=_ASSERTION_SECONDS,
        )
        # RFC 7521 section 4.2 lets the name be left out, and some servers do not.
        return {
            "client_id": self._client_id,
            "client_assertion_type": ASSERTION_TYPE,
            "client_assertion": assertion,
        }


def _problems(issuer: str, client_id: str, endpoints: Endpoints | None, timeout: float) -> Iterator[str]:
    if not acceptable(issuer, loopback=True):
        yield f"`issuer` wants an https URL, or http on loopback, got `{issuer}`: name the authorization server"
    loopback = not acceptable(issuer, loopback=False)
    if endpoints is not None:
        for name, url in (("token_endpoint", endpoints.token), ("revocation_endpoint", endpoints.revocation)):
            if url is not None and not acceptable(url, loopback=loopback):
                yield f"`{name}` wants an https URL, or http on loopback as the issuer's, got `{url}`: name another"
    if type(client_id) is not str or not client_id:
        yield f"`client_id` wants the name of this client at the server, got `{client_id!r}`: register one"
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        yield f"`timeout_seconds` wants more than 0 and at most {_LONGEST_TIMEOUT}, got `{timeout}`: choose another"


@cache
def _tls() -> ssl.SSLContext:
    """Return whom we trust, read once: that takes longer than a whole request."""
    return httpx2.create_ssl_context()


def _fail(issuer: str, what: str, *, retry: bool = False) -> NoReturn:
    message = f"the authorization server `{issuer}` {what}"
    raise CredentialError(message, retry=retry)
