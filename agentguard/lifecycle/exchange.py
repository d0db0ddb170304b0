"""Exchange a token for one that names a run (RFC 8693).

What comes in decides what comes out:

- a token of a trusted issuer begins a run, on behalf of the user whom it names;
- a token of a run of our own, with a grant beside it, hands on some of that run;
- a token of a run of our own alone is renewed, for the client that holds it.

No HTTP here: `lifecycle.app` reads the request and words the answer.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import anyio.to_thread

from agentguard.errors import ConfigurationError, OAuthError, Refusal
from agentguard.identity.form import peek, unverified
from agentguard.lifecycle.asked import read_asked, reject
from agentguard.lifecycle.facts import OWN_CLAIMS
from agentguard.lifecycle.lasting import begun
from agentguard.limits import Limits
from agentguard.model import Reason, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.lifecycle.asked import Asked, Grant
    from agentguard.lifecycle.clients import Client, Clients
    from agentguard.lifecycle.facts import Facts, Issued
    from agentguard.lifecycle.issuer import Issuer
    from agentguard.lifecycle.runs import Run
    from agentguard.model import Invocation

OUTAGES: Final = frozenset({Reason.STORE_UNAVAILABLE, Reason.EVIDENCE_UNAVAILABLE})
"""Why a request may be granted later that cannot be now."""

_LOG: Final = logging.getLogger("agentguard")
_LIMITS: Final = Limits()
_USUAL_SECONDS: Final = 300

_NOT_ACCEPTED: Final = "not accepted: it is none of a trusted issuer for this one, or it is over"
_ENDED: Final = "the run is over, or runs of this agent, user or task were ended"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchanged:
    """What came out.

    Attributes:
        issued: The token.
        facts: The run that it names.
        kind: Its type, as it was asked for.
    """

    issued: Issued = field(repr=False)
    facts: Facts
    kind: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """Who asks for what, as whom."""

    client: Client
    asked: Asked
    agent: str
    acts_for: str | None

    @property
    def holder(self) -> str | None:
        return None if self.agent == self.client.client_id else self.client.client_id


class Exchange:
    """Exchanges tokens for registered clients.

    Args:
        issuer: Whose runs they are; it has a store.
        clients: The registered clients.
        trusted: Whose tokens begin a run; without one, only our own are exchanged.
        clock: Gives unix seconds.

    Raises:
        ConfigurationError: *trusted* is for somebody else, or has what a new run would lose.
    """

    __slots__ = ("_clients", "_clock", "_issuer", "_trusted")

    def __init__(
        self, issuer: Issuer, clients: Clients, trusted: InvocationVerifier | None, *, clock: Callable[[], float]
    ) -> None:
        if trusted is not None:
            _check_trusted(trusted, issuer.issuer)
        self._issuer = issuer
        self._clients = clients
        self._trusted = trusted
        self._clock = clock

    async def exchange(self, client: Client, parameters: Mapping[str, str], targets: Collection[str]) -> Exchanged:
        """Exchange a token.

        Args:
            client: Who asks, authenticated.
            parameters: The request's parameters, each once.
            targets: The values of ``audience`` and ``resource``.

        Raises:
            OAuthError: As RFC 6749 section 5.2, RFC 8693 section 2.2.2, RFC 8707 and
                RFC 9396 word it.
            Refusal: The store, the evidence or an issuer's keys are not to be had now.
                Nothing is left of it.
        """
        asked = read_asked(parameters, targets)
        if not client.may_exchange:
            reject("unauthorized_client", "this client may not exchange tokens")
        try:
            actor = None if asked.actor is None else await self._verified(asked.actor)
        except Refusal as refusal:
            raise _not_accepted(refusal, "actor_token") from refusal
        try:
            run = await self._run(client, asked, actor)
        except ConfigurationError as error:
            # Names what was asked for, and what there is to have; no token is among it.
            raise OAuthError(error="invalid_request", description=str(error)) from error
        except Refusal as refusal:
            raise _not_accepted(refusal, "subject_token") from refusal
        return Exchanged(issued=run.issued, facts=run.facts, kind=asked.kind)

    async def _run(self, client: Client, asked: Asked, actor: Invocation | None) -> Run:
        if actor is not None and actor.client_id != client.client_id:
            reject("invalid_request", "actor_token wants to be one of this client's own")
        agent = client.client_id if actor is None else actor.agent
        # Who is named like a client may end what stems from that client's runs.
        if agent != client.client_id and agent in self._clients:
            reject("invalid_request", "actor_token names an agent that is another client")
        request = _Request(client=client, asked=asked, agent=agent, acts_for=None if actor is None else actor.user)
        grant = asked.grant
        if peek(asked.subject, _LIMITS).issuer != self._issuer.issuer:
            subject = await self._verified(asked.subject)
            if grant is None:
                reject("invalid_request", "authorization_details is missing: say what the run may call")
            # It would be spent in this client's name, and nothing would say whose it was.
            if subject.user is None and subject.client_id != client.client_id:
                reject("invalid_request", "subject_token names no user, and is another client's own")
            _check_may_act(unverified(asked.subject, _LIMITS)[1], client, actor)
            run = await begun(lambda: self._root(request, grant, subject))
            _log_begun(client, run, "began")
            return run
        if grant is not None:
            run = await begun(lambda: self._child(request, grant))
            _log_begun(client, run, f"was handed on from run `{run.invocation.ancestors[-1].run_id}`")
            return run
        if actor is not None:
            reject("invalid_request", "authorization_details is missing: say what the actor may call")
        return await anyio.to_thread.run_sync(self._renewed, request)

    async def _verified(self, token: str) -> Invocation:
        """Verify a token of a trusted issuer; what is for another server is not for us to pass on."""
        if self._trusted is None:
            raise Refusal(Reason.INVALID_TOKEN, "no issuer is trusted")
        return await self._trusted.verify(token, audience=self._issuer.issuer)

    def _root(self, request: _Request, grant: Grant, subject: Invocation) -> Run:
        """Begin a run for whom *subject* names."""
        client, asked = request.client, request.asked
        _check_acts_for(request, subject.user)
        claims = unverified(asked.subject, _LIMITS)[1]
        scopes = asked.scopes or frozenset()
        _check_scopes(scopes, client.scopes, "this client may have")
        # A token that says what it is good for is good for no more; one that does not speak
        # of scopes leaves them to the client's registration.
        if not {"scope", "scp"}.isdisjoint(claims):
            _check_scopes(scopes, subject.scopes, "subject_token has")
        return self._issuer.begin(
            agent=request.agent,
            client=request.holder,
            user=subject.user,
            task=_same("task", asked.task, subject.task),
            purpose=_same("purpose", asked.purpose, subject.purpose),
            scopes=scopes,
            tools=grant.tools,
            arguments=grant.arguments,
            grant=grant.cedar,
            ends_in=_seconds(asked.ends_in, client) or min(_USUAL_SECONDS, client.longest),
            audience=self._target(client, asked.targets),
            claims=subject.claims,
        )

    def _child(self, request: _Request, grant: Grant) -> Run:
        """Hand on some of a run of our own to the client that was given its token."""
        client, asked = request.client, request.asked
        parent = self._issuer.resume(asked.subject)
        _check_kept(parent, client, asked)
        _check_acts_for(request, parent.facts.user)
        scopes = asked.scopes or frozenset()
        _check_scopes(scopes, client.scopes, "this client may have")
        _check_scopes(scopes, parent.facts.scopes, "the run that is handed on has")
        left = parent.facts.ends_at - int(self._clock())
        return parent.begin_child(
            agent=request.agent,
            client=request.holder,
            tools=grant.tools,
            arguments=grant.arguments,
            grant=grant.cedar,
            ends_in=_seconds(asked.ends_in, client) or (client.longest if client.longest < left else None),
            scopes=scopes,
        )

    def _renewed(self, request: _Request) -> Run:
        """Sign the next token of a run for the client that holds it."""
        client, asked = request.client, request.asked
        run = self._issuer.resume(asked.subject)
        if run.invocation.client_id != client.client_id:
            reject(
                "invalid_request", "subject_token is another client's: to hand on its run, say authorization_details"
            )
        _check_kept(run, client, asked)
        if asked.scopes not in {None, run.facts.scopes} or asked.ends_in is not None:
            reject("invalid_request", "a renewal keeps scopes and end: leave out scope and ends_in")
        run.renew()
        _LOG.debug("client `%s` renewed the token of run `%s`", client.client_id, run.id)
        return run

    def _target(self, client: Client, targets: frozenset[str]) -> str:
        allowed = frozenset(client.audiences or ())
        if len(targets) > 1:
            reject("invalid_target", "a run is for one server: name one audience or resource")
        usual = allowed if len(allowed) == 1 else allowed & {self._issuer.audience}
        (target,) = targets or usual or {None}
        if target is None:
            reject("invalid_target", "audience is missing: this client may have tokens for several servers")
        if target not in allowed:
            reject("invalid_target", "this client may not have tokens for that audience or resource")
        return target


def _not_accepted(refusal: Refusal, name: str) -> OAuthError:
    """Return the answer to a token that is not accepted, in the same words whatever is wrong with it.

    Raises:
        Refusal: It may be accepted later.
    """
    if refusal.reason in OUTAGES | {Reason.UNAUTHENTICATED}:
        raise refusal
    description = _ENDED if refusal.reason is Reason.REVOKED else f"{name} {_NOT_ACCEPTED}"
    # RFC 8693 section 2.2.2: this code, and not `invalid_grant`.
    return OAuthError(error="invalid_request", description=description)


def _log_begun(client: Client, run: Run, how: str) -> None:
    facts = run.facts
    whose = "nobody" if facts.user is None else f"user `{facts.user}`"
    line = f"run `{run.id}` {how}: agent `{facts.agent}` for {whose}, over in {facts.ends_at - facts.began} s"
    _LOG.info("%s", printable(f"{line}, asked for by client `{client.client_id}`"))


def _check_trusted(trusted: InvocationVerifier, issuer: str) -> None:
    if trusted.audience not in {None, issuer}:
        message = f"`trusted` wants tokens for this issuer, audience `{issuer}`, got `{trusted.audience}`: leave it out"
        raise ConfigurationError(message)
    for one in trusted.issuers.values():
        if one.issuer == issuer:
            message = f"`trusted` wants other issuers, got `{issuer}` itself: its own tokens are known"
            raise ConfigurationError(message)
        # A run's grant and ancestors would be lost: what begins here is bounded by neither.
        if one.mints_runs:
            message = f"`trusted` wants issuers whose tokens name no run, got `{one.issuer}`: set mints_runs=False"
            raise ConfigurationError(message)
    for name in sorted(OWN_CLAIMS & trusted.claims.keys()):
        message = f"`trusted` maps the claim `{name}`, which says something else in a run's token: leave it out"
        raise ConfigurationError(message)


def _check_may_act(claims: Mapping[str, object], client: Client, actor: Invocation | None) -> None:
    """Refuse who is not meant, where the subject token says who may act (RFC 8693 section 4.4)."""
    if "may_act" not in claims:
        return
    given = claims["may_act"]
    meant: dict[str, object] = given if isinstance(given, dict) else {}
    names = {"client_id": client.client_id, "sub": client.client_id}
    if meant and actor is not None:
        names = {"client_id": actor.client_id, "sub": actor.subject, "iss": actor.issuer}
        # Another issuer's actor may have the same name.
        meant = {"iss": claims["iss"], **meant}
    if not meant or not meant.items() <= names.items():
        reject("invalid_request", "subject_token says that somebody else may act")


def _check_acts_for(request: _Request, user: str | None) -> None:
    """Refuse an actor whom somebody else sent: the run would not say so."""
    if request.acts_for not in {None, user}:
        reject("invalid_request", "actor_token acts for another user than subject_token")


def _check_kept(run: Run, client: Client, asked: Asked) -> None:
    """Refuse a change of what is the same for a run and all that stems from it."""
    if not asked.targets <= {run.facts.audience}:
        reject("invalid_target", "a run stays with its server: leave out audience and resource")
    if run.facts.audience not in (client.audiences or ()):
        reject("invalid_target", "this client may not have tokens for the server of this run")
    _same("task", asked.task, run.facts.task, must=True)
    _same("purpose", asked.purpose, run.facts.purpose, must=True)


def _check_scopes(scopes: frozenset[str], most: Collection[str], whose: str) -> None:
    if more := scopes - frozenset(most):
        listed = ", ".join(f"`{scope}`" for scope in sorted(more))
        reject("invalid_scope", f"scope wants scopes that {whose}, got also {listed}: ask for less")


def _same(name: str, asked: str | None, known: str | None, *, must: bool = False) -> str | None:
    """Return a task or purpose, which nobody changes that a token has named it."""
    if asked is not None and asked != known and (must or known is not None):
        reject("invalid_request", f"{name} is another one than that of subject_token: leave it out")
    return known if asked is None else asked


def _seconds(asked: int | None, client: Client) -> int | None:
    if asked is not None and not asked <= client.longest:
        reject("invalid_request", f"ends_in wants up to {client.longest} seconds for this client, got {asked}")
    return asked
