"""Find an issuer's public keys.

Fixed ones, or a JWK set over HTTP: from a given URL, or from the one that the issuer's
metadata names. Fetching is asynchronous and sparing. A crowd of callers shares one
fetch, and neither an endpoint that fails nor a caller that invents key ids can make us
ask again before a pause. Keys outlive an endpoint that is down, for a bounded time.
"""

from __future__ import annotations

import ipaddress
import logging
import math
import time
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Protocol

import anyio
import httpx2

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.form import read_object
from agentguard.identity.jwk import KeySet, read_key_set
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_LOG: Final = logging.getLogger("agentguard")
_DEFAULT_LIMITS: Final = Limits()
_OK: Final = 200
_NO_KEYS: Final[KeySet] = MappingProxyType({})


class Keys(Protocol):
    """Where one issuer's public keys come from."""

    async def get(self, key_id: str) -> KeySet:
        """Return the issuer's present keys.

        Args:
            key_id: The key that is wanted; it may turn out not to be there.

        Raises:
            Refusal: The keys cannot be known now.
        """


class FixedKeys:
    """Keys that are known when the server is set up.

    Args:
        jwks: A JWK set (RFC 7517), ``{"keys": [...]}``.

    Raises:
        ConfigurationError: It is no JWK set, or holds no key that may verify a token.
    """

    __slots__ = ("_keys",)

    def __init__(self, jwks: Mapping[str, object]) -> None:
        try:
            keys, problems = read_key_set(jwks)
        except ValueError as error:
            message = f"`jwks` wants a JWK set: {error}"
            raise ConfigurationError(message) from error
        if not keys:
            message = f"`jwks` wants at least one usable public key, got none ({'; '.join(problems) or 'it is empty'})"
            raise ConfigurationError(message)
        self._keys = keys

    async def get(self, key_id: str) -> KeySet:  # noqa: ARG002  all keys are at hand, whichever is wanted
        """Return the keys."""
        return self._keys


class JWKS:
    """Keys that are fetched from the issuer, and fetched again as they change.

    One object serves one event loop at a time.

    Args:
        issuer: The issuer, whose metadata names the key set (RFC 8414, then OpenID
            Connect Discovery). This or `url`.
        url: The key set's own URL.
        refresh_seconds: The age from which on keys are fetched again.
        stale_seconds: The age up to which they serve while that fails.
        cooldown_seconds: The least pause between two fetches, whatever the reason.
        timeout_seconds: The longest that one fetch may take, all of it.
        limits: The bounds.
        clock: Gives seconds; only differences count.

    Raises:
        ConfigurationError: A URL is neither https nor loopback.
    """

    __slots__ = (
        "_clock",
        "_cooldown",
        "_fetched_at",
        "_issuer",
        "_keys",
        "_limits",
        "_lock",
        "_loopback",
        "_refresh",
        "_stale",
        "_timeout",
        "_tried_at",
        "_url",
    )

    def __init__(
        self,
        issuer: str | None = None,
        *,
        url: str | None = None,
        refresh_seconds: float = 300,
        stale_seconds: float = 3600,
        cooldown_seconds: float = 10,
        timeout_seconds: float = 5,
        limits: Limits = _DEFAULT_LIMITS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        start = url if issuer is None else issuer
        if start is None or (issuer is not None and url is not None):
            message = "`JWKS` wants an issuer or `url=`, got both or neither: leave one out"
            raise ConfigurationError(message)
        if not acceptable(start, loopback=True):
            message = (
                f"`JWKS` wants an https URL, or http on loopback, got `{start}`: give the keys themselves, `keys=`"
            )
            raise ConfigurationError(message)
        self._loopback = not acceptable(start, loopback=False)
        self._issuer = issuer
        self._url = url
        self._refresh = refresh_seconds
        self._stale = stale_seconds
        self._cooldown = cooldown_seconds
        self._timeout = timeout_seconds
        self._limits = limits
        self._clock = clock
        self._lock = anyio.Lock()
        self._keys: KeySet = _NO_KEYS
        self._fetched_at = -math.inf
        self._tried_at = -math.inf

    async def get(self, key_id: str) -> KeySet:
        """Return the issuer's present keys, fetching them when they are old or *key_id* is new.

        Raises:
            Refusal: There are none, or they are too old and cannot be fetched.
        """
        # While one caller fetches, the others go on with keys that still serve.
        if self._is_due(key_id) and not (self._lock.locked() and key_id in self._keys and self._serves()):
            async with self._lock:
                # Whoever waited here finds that the fetch it wanted has just been made.
                if self._is_due(key_id):
                    await self._try()
        if not self._serves():
            raise Refusal(Reason.UNAUTHENTICATED, "the issuer's keys cannot be fetched")
        return self._keys

    def _is_due(self, key_id: str) -> bool:
        now = self._clock()
        wanted = key_id not in self._keys or now - self._fetched_at >= self._refresh
        return wanted and now - self._tried_at >= self._cooldown

    def _serves(self) -> bool:
        return self._clock() - self._fetched_at < self._stale

    async def _try(self) -> None:
        try:
            # Shielded: a caller that hangs up would else cost everybody the fetch, and
            # could start one after another.
            with anyio.fail_after(self._timeout, shield=True):
                self._keys = await self._fetch()
            self._fetched_at = self._clock()
        # Whatever went wrong: the keys that we have serve on until they are too old.
        except Exception as error:  # noqa: BLE001
            source = self._issuer or self._url
            _LOG.warning("keys of `%s` could not be fetched: %s: %s", source, type(error).__name__, error)
        self._tried_at = self._clock()

    async def _fetch(self) -> KeySet:
        # Redirects are not followed: keys come from where the configuration says. A proxy
        # from the environment must not see what is meant for loopback.
        async with httpx2.AsyncClient(
            follow_redirects=False,
            trust_env=not self._loopback,
            timeout=self._timeout,
            headers={"Accept": "application/json", "Accept-Encoding": "identity"},
        ) as client:
            url = self._url or await self._discover(client)
            keys, problems = read_key_set(await self._read(client, url))
        for problem in problems:
            _LOG.info("a key of `%s` is left out: %s", url, problem)
        return keys

    async def _discover(self, client: httpx2.AsyncClient) -> str:
        """Return the key set's URL as the issuer's metadata gives it."""
        problem: Exception | None = None
        for url in metadata_urls(httpx2.URL(self._issuer or "")):
            try:
                metadata = await self._read(client, url)
            except (httpx2.HTTPError, ValueError) as error:
                problem = error
                continue
            found = metadata.get("jwks_uri")
            # RFC 8414 section 3.3: other metadata would make another issuer's keys this one's.
            if metadata.get("issuer") != self._issuer:
                problem = ValueError(f"{url} is the metadata of another issuer")
            elif not isinstance(found, str) or not acceptable(found, loopback=self._loopback):
                problem = ValueError(f"{url} names no acceptable `jwks_uri`")
            else:
                return found
        raise ValueError(str(problem)) from problem

    async def _read(self, client: httpx2.AsyncClient, url: str | httpx2.URL) -> dict[str, object]:
        most = self._limits.jwks_bytes
        body = bytearray()
        async with client.stream("GET", url) as response:
            if response.status_code != _OK:
                message = f"{url} answered {response.status_code}"
                raise ValueError(message)
            # Raw, so that the bound holds for what is compressed too.
            async for part in response.aiter_raw():
                body += part
                if len(body) > most:
                    message = f"{url} answered with more than {most} bytes"
                    raise ValueError(message)
        return read_object(bytes(body))


def metadata_urls(issuer: httpx2.URL) -> tuple[httpx2.URL, httpx2.URL]:
    """Return where an issuer's metadata may be: RFC 8414 section 3, then OpenID Connect Discovery."""
    path = issuer.path.rstrip("/")
    return (
        issuer.copy_with(path=f"/.well-known/oauth-authorization-server{path}"),
        issuer.copy_with(path=f"{path}/.well-known/openid-configuration"),
    )


def acceptable(text: str, *, loopback: bool) -> bool:
    """Whether keys may come from this URL: https, or http to this machine where *loopback* allows it."""
    try:
        url = httpx2.URL(text)
    except httpx2.InvalidURL:
        return False
    if not url.host or url.userinfo or url.fragment:
        return False
    return url.scheme == "https" or (loopback and url.scheme == "http" and _is_loopback(url.host))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
