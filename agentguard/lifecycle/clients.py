"""Who may ask an issuer for tokens, for what, and how a client says who it is.

A client signs an assertion with a private key of its own (`private_key_jwt`). A secret
that both sides know is never accepted, and neither is no authentication at all.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from agentguard.errors import ConfigurationError, OAuthError, Refusal
from agentguard.identity.assertion import ASSERTION_TYPE, USUAL_SECONDS, peek_assertion, verify_assertion
from agentguard.identity.form import ID_CHARACTERS
from agentguard.lifecycle.delegation import read_scopes
from agentguard.model import Reason, canonical_json

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from agentguard.identity.assertion import Assertion, Claimed
    from agentguard.identity.keys import Keys
    from agentguard.lifecycle.store import Store

_PRINTABLE: Final = re.compile(r"[\x20-\x7e]+")
_ASSERTION_SECONDS: Final = range(1, 3_600 + 1)
_NOT_AUTHENTICATED: Final = "client authentication failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """One registered client: what it may ask for, and the keys that prove it is who asks.

    Attributes:
        client_id: Its name: the agent of its runs, unless an actor token names one.
        keys: Its own public keys: `FixedKeys`, or `JWKS` with a URL.
        audiences: The servers that it may have tokens for; None is the issuer's usual one.
        scopes: The OAuth scopes that it may have; none, unless they are listed.
        longest: The longest that a run of it may last, seconds.
        longest_assertion: How far ahead the end of its assertions may lie, seconds, up to
            an hour: some libraries write so much.
        may_exchange: Whether it may have tokens at all.
        may_introspect: Whether it may ask about every token for one of its `audiences`,
            as a server does, and not only about those that it was given itself.

    Raises:
        ConfigurationError: It could do nothing, or what it may do is not clear.
    """

    client_id: str
    keys: Keys
    audiences: Collection[str] | None = None
    scopes: Collection[str] = ()
    longest: int = 3_600
    longest_assertion: int = USUAL_SECONDS
    may_exchange: bool = True
    may_introspect: bool = False

    def __post_init__(self) -> None:
        for problem in self._problems():
            message = f"client `{self.client_id}`: {problem}"
            raise ConfigurationError(message)
        put = object.__setattr__
        put(self, "scopes", read_scopes(self.scopes))
        put(self, "audiences", None if self.audiences is None else frozenset(self.audiences))

    def _problems(self) -> Iterator[str]:
        name, most = self.client_id, ID_CHARACTERS
        if type(name) is not str or len(name) > most or _PRINTABLE.fullmatch(name) is None:
            yield f"`client_id` wants 1 to {most} printable ASCII characters, got `{name}`: choose another name"
        if not callable(getattr(self.keys, "get", None)):
            yield f"`keys` wants FixedKeys or JWKS, got `{type(self.keys).__name__}`: pass its public keys"
        if self.audiences is not None and not _names(self.audiences):
            yield f"`audiences` wants a list of servers, got `{self.audiences!r}`: leave it out for the usual one"
        if type(self.longest) is not int or not self.longest > 0:
            yield f"`longest` wants a positive whole number, got `{self.longest}`: give the seconds of its longest run"
        if type(self.longest_assertion) is not int or self.longest_assertion not in _ASSERTION_SECONDS:
            got = f"wants 1 to {_ASSERTION_SECONDS[-1]} seconds, got `{self.longest_assertion}`"
            yield f"`longest_assertion` {got}: leave it out for {USUAL_SECONDS}"
        for flag in ("may_exchange", "may_introspect"):
            if type(getattr(self, flag)) is not bool:
                yield f"`{flag}` wants True or False, got `{getattr(self, flag)!r}`: write one of them"
        if not self.may_exchange and not self.may_introspect:
            yield "it may do nothing, neither may_exchange= nor may_introspect=: leave the client out"


def _names(given: Collection[str]) -> bool:
    return bool(given) and not isinstance(given, str) and all(type(one) is str and one for one in given)


class Clients:
    """The registered clients, and what tells them apart from everybody else.

    Args:
        clients: At least one.
        issuer: The issuer's name: what an assertion names as its audience.
        endpoint: The token endpoint, which many clients name instead.
        audience: The issuer's usual server, for clients that name none.
        store: Keeps which assertions were used.
        clock: Gives unix seconds.

    Raises:
        ConfigurationError: There is none, two have one name, or one has no server.
    """

    __slots__ = ("_audiences", "_clients", "_clock", "_issuer", "_store")

    def __init__(
        self,
        clients: Iterable[Client],
        *,
        issuer: str,
        endpoint: str,
        audience: str | None,
        store: Store,
        clock: Callable[[], float],
    ) -> None:
        given = tuple(_for(client, audience) for client in clients)
        if not given:
            message = "`clients` wants at least one client, got none: nobody could ask for a token"
            raise ConfigurationError(message)
        self._clients: Mapping[str, Client] = MappingProxyType({client.client_id: client for client in given})
        if len(self._clients) < len(given):
            names = ", ".join(f"`{client.client_id}`" for client in given)
            message = f"`clients` wants each client once, got {names}: merge those of one name"
            raise ConfigurationError(message)
        self._audiences = frozenset({issuer, endpoint})
        self._issuer = issuer
        self._store = store
        self._clock = clock

    def __contains__(self, client_id: object) -> bool:
        """Return whether there is a client of this name."""
        return client_id in self._clients

    async def authenticate(self, parameters: Mapping[str, str]) -> Client:
        """Return the client that makes a request.

        Args:
            parameters: The request's form.

        Raises:
            OAuthError: ``invalid_client``, always with the same words.
            Refusal: `STORE_UNAVAILABLE`, if it cannot be known whether it said so before.
        """
        try:
            return await self._authenticated(parameters)
        except Refusal as refusal:
            if refusal.reason is Reason.STORE_UNAVAILABLE:
                raise
            raise OAuthError(error="invalid_client", description=_NOT_AUTHENTICATED) from refusal

    async def _authenticated(self, parameters: Mapping[str, str]) -> Client:
        assertion = parameters.get("client_assertion", "")
        if "client_secret" in parameters or parameters.get("client_assertion_type") != ASSERTION_TYPE:
            raise Refusal(Reason.UNAUTHENTICATED, "it did not use private_key_jwt")
        claimed = peek_assertion(assertion)
        try:
            return await self._proved(assertion, claimed, parameters)
        except Refusal as refusal:
            # For the log: nobody else learns whose name it was.
            detail = f"as client `{claimed.client_id}`: {refusal.detail}"
            raise Refusal(refusal.reason, detail) from refusal

    async def _proved(self, assertion: str, claimed: Claimed, parameters: Mapping[str, str]) -> Client:
        client = self._clients.get(claimed.client_id)
        if client is None:
            raise Refusal(Reason.UNAUTHENTICATED, "there is no such client")
        if parameters.get("client_id", claimed.client_id) != claimed.client_id:
            raise Refusal(Reason.UNAUTHENTICATED, "client_id names another one than its assertion")
        keys = await client.keys.get(claimed.key_id)
        proved = verify_assertion(
            assertion,
            client_id=client.client_id,
            keys=keys,
            audiences=self._audiences,
            now=self._clock(),
            most_seconds=client.longest_assertion,
        )
        if not await anyio.to_thread.run_sync(self._spend, proved):
            raise Refusal(Reason.INVALID_TOKEN, "its assertion was used before")
        return client

    def _spend(self, proved: Assertion) -> bool:
        # By all that makes it unique: another client's `jti` may be the same.
        key = canonical_json(["assertion", self._issuer, proved.client_id, proved.token_id])
        return self._store.spend(key, proved.until)


def _for(client: Client, audience: str | None) -> Client:
    if client.audiences is not None:
        return client
    if audience is None:
        message = f"client `{client.client_id}`: a token is for one server: pass audiences=, or audience= to the issuer"
        raise ConfigurationError(message)
    return replace(client, audiences={audience})
