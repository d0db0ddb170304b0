"""Get credentials for other systems by exchanging the run's own token (RFC 8693).

The token of the run goes to an authorization server, and what comes back is for one other
system, for as long as the server says. It is renewed by its refresh token, if it came with
one, else by another exchange, and given back by revocation (RFC 7009).

A request that may not have arrived is repeated once. If it had arrived, the server has made
a token that nobody got: it ends by itself.
"""

from __future__ import annotations

import re
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal, NoReturn, get_args

from agentguard.credentials.answer import ACCESS_TOKEN, TYPE, check_answer, read_answer
from agentguard.credentials.broker import IssuedCredential
from agentguard.credentials.oauth import AuthorizationServer, Endpoints
from agentguard.errors import ConfigurationError, CredentialError
from agentguard.lifecycle.delegation import read_scopes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping

    from agentguard.credentials.broker import CredentialRequest
    from agentguard.lifecycle.keys import KeySource

TokenType = Literal["access_token", "jwt"]
"""What a token is announced as (RFC 8693 section 3)."""

_EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
_ABSOLUTE: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[\x21\x22\x24-\x7e]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExchangeFor:
    """What one credential is for, in the words of the authorization server.

    Attributes:
        resource: The other system's URI (RFC 8707).
        audience: Its name at the server, where that is how it is known.
        scopes: The OAuth scopes; none leaves them to the server.
        longest: The longest that a token may be good, seconds: what lasts longer is refused.

    Raises:
        ConfigurationError: It is for nothing, or for what no server could give.
    """

    resource: str | None = None
    audience: str | None = None
    scopes: Collection[str] = ()
    longest: int = 3_600

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", read_scopes(self.scopes))
        for problem in self._problems():
            raise ConfigurationError(problem)

    def _problems(self) -> Iterator[str]:
        if self.resource is None and self.audience is None and not self.scopes:
            yield "`ExchangeFor` wants resource=, audience= or scopes=, got none: say what the credential is for"
        if self.resource is not None and _ABSOLUTE.fullmatch(self.resource) is None:
            yield f"`resource` wants an absolute URI without a fragment, got `{self.resource}`: name the other system"
        if self.audience == "":
            yield "`audience` wants the other system's name, got an empty one: leave it out for none"
        if type(self.longest) is not int or not self.longest > 0:
            yield f"`longest` wants a positive whole number, got `{self.longest!r}`: give seconds"

    def parameters(self) -> dict[str, str]:
        """Return what a request says of it."""
        given = {"resource": self.resource, "audience": self.audience, "scope": " ".join(sorted(self.scopes))}
        return {name: value for name, value in given.items() if value}


class TokenExchangeBroker:
    """Exchanges a run's token at one authorization server; a `CredentialBroker`.

    It authenticates by ``private_key_jwt`` (RFC 7523) alone: there is no secret that both
    sides know.

    Args:
        issuer: The server's ``iss``: its metadata names the endpoints (RFC 8414), unless they
            are given.
        client_id: What the server knows us as.
        key: Our private key, on P-256 or Ed25519; `jwk` is what to register of it.
        credentials: What is to be had, by name.
        key_id: ``kid`` of our key at the server; its thumbprint if left out.
        token_endpoint: Where to exchange, if the server has no metadata.
        revocation_endpoint: Where to revoke then.
        assertion_audience: What the server wants to read as ``aud`` of what we sign, if that
            is not its ``iss``.
        subject_token_type: What the run's token is announced as: ``access_token``, or ``jwt``,
            which some servers want for a token that is not their own.
        actor_token: Gives the token of who acts, which is us, if the server wants one beside
            the client's authentication.
        actor_token_type: Its type.
        timeout_seconds: The longest that one request may take; it is tried twice, within
            `Limits.broker_seconds`.
        clock: Gives unix seconds.

    Raises:
        ConfigurationError: With what to change.
    """

    __slots__ = ("_actor", "_actor_type", "_clock", "_credentials", "_server", "_subject_type")

    def __init__(
        self,
        issuer: str,
        *,
        client_id: str,
        key: KeySource,
        credentials: Mapping[str, ExchangeFor],
        key_id: str | None = None,
        token_endpoint: str | None = None,
        revocation_endpoint: str | None = None,
        assertion_audience: str | None = None,
        subject_token_type: TokenType = "access_token",  # noqa: S107  a type, not a secret
        actor_token: Callable[[CredentialRequest], Awaitable[str]] | None = None,
        actor_token_type: TokenType = "jwt",  # noqa: S107  the same
        timeout_seconds: float = 4.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if token_endpoint is None and revocation_endpoint is not None:
            message = "`revocation_endpoint` wants token_endpoint= beside it, got none: pass both, or leave both out"
            raise ConfigurationError(message)
        if not credentials:
            message = "`credentials` wants at least one, got none: nothing could be had from this broker"
            raise ConfigurationError(message)
        given: Mapping[str, object] = credentials
        for name, what in given.items():
            if not isinstance(what, ExchangeFor):
                message = f"credential `{name}` wants an ExchangeFor, got `{type(what).__name__}`: say what it is for"
                raise ConfigurationError(message)
        for option, kind in (("subject_token_type", subject_token_type), ("actor_token_type", actor_token_type)):
            if kind not in get_args(TokenType):
                message = f"`{option}` wants `access_token` or `jwt`, got `{kind}`: choose one of them"
                raise ConfigurationError(message)
        self._server = AuthorizationServer(
            issuer,
            client_id=client_id,
            key=key,
            key_id=key_id,
            endpoints=None
            if token_endpoint is None
            else Endpoints(token=token_endpoint, revocation=revocation_endpoint),
            assertion_audience=assertion_audience,
            timeout_seconds=timeout_seconds,
            clock=clock,
        )
        self._credentials = MappingProxyType(dict(credentials))
        self._subject_type = TYPE + subject_token_type
        self._actor = actor_token
        self._actor_type = TYPE + actor_token_type
        self._clock = clock

    @property
    def names(self) -> Collection[str]:
        """The credentials that it gives."""
        return self._credentials.keys()

    @property
    def jwk(self) -> dict[str, object]:
        """The public half of our key, to register with the server (RFC 7517)."""
        return self._server.jwk

    async def issue(self, request: CredentialRequest, /) -> IssuedCredential:
        """Exchange the run's token for a credential.

        Raises:
            CredentialError: There is none to be had.
        """
        wanted = self._wanted(request.name)
        if not request.token:
            _fail("the run has no token that could be exchanged")
        form = {
            "grant_type": _EXCHANGE,
            "subject_token": request.token,
            "subject_token_type": self._subject_type,
            "requested_token_type": ACCESS_TOKEN,
            **wanted.parameters(),
        }
        if self._actor is not None:
            form["actor_token"] = await _acting(self._actor, request)
            form["actor_token_type"] = self._actor_type
        return await self._obtained(form, request, uuid.uuid4().hex)

    async def renew(self, issued: IssuedCredential, request: CredentialRequest, /) -> IssuedCredential:
        """Get the next credential: by the refresh token and under the same lease, or by another exchange.

        Raises:
            CredentialError: There is none to be had.
        """
        if issued.renewal is None:
            return await self.issue(request)
        # Without `scope`: what was granted may be less than what we would ask for again.
        form = {"grant_type": "refresh_token", "refresh_token": issued.renewal}
        resource = self._wanted(request.name).resource
        if resource is not None:
            form["resource"] = resource
        try:
            return await self._obtained(form, request, issued.lease_id, issued)
        except CredentialError as error:
            if error.retry:
                raise
        # It is over, or was used up by an answer that never arrived.
        return await self.issue(request)

    async def release(self, issued: IssuedCredential, name: str, /) -> None:  # noqa: ARG002  all are revoked alike
        """Revoke a credential, and what renews it (RFC 7009), even if it should have ended by itself.

        Raises:
            CredentialError: It may be good until its end.
        """
        await self._revoke(issued.renewal, issued.secret, *issued.parts)

    def _wanted(self, name: str) -> ExchangeFor:
        wanted = self._credentials.get(name)
        if wanted is None:
            _fail(f"the broker knows no credential `{name}`")
        return wanted

    async def _obtained(
        self, form: Mapping[str, str], request: CredentialRequest, lease_id: str, before: IssuedCredential | None = None
    ) -> IssuedCredential:
        wanted = self._wanted(request.name)
        # Counted from before it is asked for, so that a slow answer makes nothing last longer.
        asked_at = self._clock()
        if not asked_at < request.until:
            _fail("the run is over, so nothing was asked for")
        answer = read_answer(await self._server.token(form))
        if answer.access_token in form.values():
            # The other system could act by it where the run does; and to revoke it would end the run.
            _fail("the authorization server gave back what it was sent")
        try:
            seconds = check_answer(
                answer, scopes=wanted.scopes, longest=wanted.longest, exchanged=form["grant_type"] == _EXCHANGE
            )
        except CredentialError:
            # It is good, whatever is wrong with it, and nobody will ask for it again.
            with suppress(CredentialError):
                await self._revoke(answer.refresh_token, answer.access_token)
            raise
        return IssuedCredential(
            secret=answer.access_token,
            expires_at=asked_at + seconds,
            lease_id=lease_id,
            # RFC 6749 section 6: where no other one comes, the same renews again.
            renewal=answer.refresh_token or (None if before is None else before.renewal),
            # It is good for a while yet, and not every server ends it with what renewed it (RFC 7009 section 2.1).
            parts=() if before is None or before.secret == answer.access_token else (before.secret,),
        )

    async def _revoke(self, refresh_token: str | None, *access_tokens: str) -> None:
        tokens = [("access_token", token) for token in access_tokens]
        # It goes first, since it could get further ones.
        await self._server.revoke(tokens if refresh_token is None else [("refresh_token", refresh_token), *tokens])


async def _acting(actor: Callable[[CredentialRequest], Awaitable[str]], request: CredentialRequest) -> str:
    try:
        token: object = await actor(request)
    # What it says may hold the token.
    except Exception as error:  # noqa: BLE001
        token = error
    if type(token) is not str or not token:
        _fail(f"`actor_token` gave no token, but `{type(token).__name__}`")
    return token


def _fail(what: str) -> NoReturn:
    raise CredentialError(what)
