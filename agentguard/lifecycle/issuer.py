"""Begin runs, and sign the tokens that name them."""

from __future__ import annotations

import time
import uuid
from typing import TYPE_CHECKING

from agentguard.errors import ConfigurationError
from agentguard.evidence.runs import runs_of_issuer
from agentguard.identity.token import TrustedIssuer
from agentguard.lifecycle.delegation import bounds_of, read_bounds, read_scopes
from agentguard.lifecycle.facts import TOKEN_SECONDS, Facts, whole_seconds
from agentguard.lifecycle.keys import KeyRing
from agentguard.lifecycle.lasting import lasting
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.signing import TokenSigner
from agentguard.lifecycle.states import RunState
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from starlette.applications import Starlette

    from agentguard.evidence.ledger import Ledger
    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.lifecycle.clients import Client
    from agentguard.lifecycle.delegation import Arguments
    from agentguard.lifecycle.keys import KeySource
    from agentguard.lifecycle.store import Store
    from agentguard.model import Claim


class Issuer:
    """Begins runs and signs their tokens. Safe to share between threads.

    Attributes:
        issuer: The ``iss`` of its tokens.
        audience: The ``aud`` of its tokens where nothing else is said.
        store: Where its runs are on record and their ends are told.
    """

    __slots__ = ("_clock", "_keys", "_lives", "_signer", "audience", "issuer", "store")

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | None = None,
        key: KeySource | None = None,
        store: Store | None = None,
        ledger: Ledger | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set up an issuer.

        Args:
            issuer: The ``iss`` of its tokens, a URL as a rule.
            audience: The server that its tokens are for, where nothing else is said.
            key: A private key on P-256 (ES256) or Ed25519 (EdDSA): PEM text, a JWK, or the
                key itself. Without one, a key that lives as long as this object.
            store: What guards ask whether a run was ended: the same store, or one that
                shares its file or its server. `run` wants one.
            ledger: Where the evidence of its runs is kept: that they began, how they ended,
                and how long they lasted. Without that of its beginning, no run begins.
            limits: How many live runs are followed for that; no further one is begun.
            clock: Gives unix seconds.

        Raises:
            ConfigurationError: The key is none that tokens are signed with.
        """
        self.issuer = issuer
        self.audience = audience
        self.store = store
        self._clock = clock
        trusted = TrustedIssuer(issuer=issuer)
        self._lives = None if ledger is None else runs_of_issuer(ledger, store, clock, limits or Limits())
        self._keys = KeyRing(key, lingers=trusted.max_lifetime + trusted.leeway, clock=clock)
        self._signer = TokenSigner(issuer=issuer, keys=self._keys, leeway=trusted.leeway, store=store, clock=clock)

    def jwks(self) -> dict[str, object]:
        """Return the public keys that a valid token may be signed with, as a JWK set (RFC 7517)."""
        return {"keys": self._keys.published()}

    def rotate(self, key: KeySource | None = None, *, after: float = 0) -> None:
        """Sign with another key.

        The present one stays in `jwks` until the last token that it signed has expired. A
        process that starts with a new key does the same for the old one: it begins with the
        old key and rotates to the new one.

        Args:
            key: As for `Issuer`.
            after: How long the new key is in `jwks` before it signs, seconds. A server that
                has just fetched the keys refuses a new one until it may fetch again, 10 s by
                default.

        Raises:
            ConfigurationError: It cannot sign, or is the one that signs now.
        """
        self._keys.rotate(key, after=after)

    def run(
        self,
        *,
        agent: str,
        user: str | None = None,
        task: str | None = None,
        purpose: str | None = None,
        scopes: Iterable[str] = (),
        tools: Sequence[str] | None = None,
        arguments: Arguments | None = None,
        grant: str | None = None,
        ends_in: int = 300,
        audience: str | None = None,
        claims: Mapping[str, Claim] | None = None,
    ) -> AbstractAsyncContextManager[Run]:
        """Begin a run that ends with the ``async with`` block.

        Left by its end, the run is completed; left by an exception, it is completed with
        that exception's class as the reason. Either way it, and what it delegated, is over
        everywhere, calls in flight included.

        Args:
            agent: The workload that acts.
            user: On whose behalf, when somebody.
            task: The task.
            purpose: The purpose.
            scopes: OAuth scopes.
            tools: The tools that it may call.
            arguments: For a tool, the values that an argument may have; a call without that
                argument is not permitted.
            grant: Cedar text instead; given together with *tools*, a call has to satisfy both.
            ends_in: Seconds to the run's absolute end, which renewing its token never moves.
            audience: Another server than the issuer's usual one.
            claims: Further claims, for policies that read them.

        Raises:
            ConfigurationError: No server would accept it, or there is no store to end it in.
            Refusal: The store does not let it begin, or the ledger cannot keep that it did;
                nothing of it is left.
        """
        return lasting(
            lambda: self.begin(
                agent=agent,
                user=user,
                task=task,
                purpose=purpose,
                scopes=scopes,
                tools=tools,
                arguments=arguments,
                grant=grant,
                ends_in=ends_in,
                audience=audience,
                claims=claims,
            )
        )

    def begin(
        self,
        *,
        agent: str,
        user: str | None = None,
        task: str | None = None,
        purpose: str | None = None,
        scopes: Iterable[str] = (),
        tools: Sequence[str] | None = None,
        arguments: Arguments | None = None,
        grant: str | None = None,
        ends_in: int = 300,
        audience: str | None = None,
        claims: Mapping[str, Claim] | None = None,
        client: str | None = None,
        run: str | None = None,
        token_lifetime: int = TOKEN_SECONDS,
    ) -> Run:
        """Begin a run as `run` does; whoever begins it so calls `Run.end`.

        Beyond what `run` takes, *client* is the OAuth client that holds its tokens, where
        that is not the agent; *run* its id, unique for each run, else a random one; and
        *token_lifetime* how many seconds each of its tokens lasts, which are renewed.
        """
        store = self._require_store()
        # A subject that is the agent's own name means that it acts for nobody.
        if user is not None and user == agent:
            message = f"`user` wants somebody else than the agent, got `{user}` for both: leave it out"
            raise ConfigurationError(message)
        bounds = read_bounds(tools=tools, arguments=arguments, grant=grant)
        began = int(self._clock())
        facts = Facts(
            run_id=run or uuid.uuid4().hex,
            agent=agent,
            grant=bounds.text,
            audience=self._audience(audience, "run"),
            began=began,
            ends_at=began + whole_seconds("ends_in", ends_in),
            user=user,
            client=client,
            task=task,
            purpose=purpose,
            scopes=read_scopes(scopes),
            claims=dict(claims or {}),
            token_lifetime=whole_seconds("token_lifetime", token_lifetime),
        )
        return Run(facts, bounds, sign=self._signer.sign, store=store, clock=self._clock, lives=self._lives)

    def resume(self, token: str, *, expired: bool = False) -> Run:
        """Take up a run again by one of its tokens, wherever it was begun.

        What it hands on is compared as far as its grant is text that `grant_text` wrote.

        Args:
            token: A token of this issuer's own.
            expired: Whether the token may be over, or not valid yet by this clock, for
                whoever ends the run.

        Raises:
            ConfigurationError: There is no store to end it in.
            Refusal: `INVALID_TOKEN`, if it is none of this issuer's; `EXPIRED`.
        """
        store = self._require_store()
        facts, issued = self._signer.read(token, expired=expired)
        return Run(
            facts,
            bounds_of(facts.grant),
            sign=self._signer.sign,
            store=store,
            clock=self._clock,
            issued=issued,
            lives=self._lives,
        )

    def app(self, *, clients: Iterable[Client], trusted: InvocationVerifier | None = None) -> Starlette:
        """Return this issuer as a Starlette application.

        It serves metadata (RFC 8414), ``jwks``, and the endpoints for exchange (RFC 8693),
        revocation (RFC 7009) and introspection (RFC 7662), each under the issuer's own URL.

        Args:
            clients: Who may ask; at least one.
            trusted: Whose tokens begin a run; without it, only this issuer's own tokens
                are exchanged.

        Raises:
            ConfigurationError: There is no store, the issuer is no URL, or a client or
                *trusted* does not fit.
        """
        # Whoever serves nothing does not pay for it.
        from agentguard.lifecycle.app import create_app  # noqa: PLC0415

        store = self._require_store()
        return create_app(self, store=store, clients=clients, trusted=trusted, clock=self._clock)

    def _require_store(self) -> Store:
        if self.store is None:
            message = "a run is ended in a store, and the issuer has none: pass it store=, the one of the guard's state"
            raise ConfigurationError(message)
        return self.store

    def mint(
        self,
        *,
        agent: str,
        grant: str,
        user: str | None = None,
        task: str | None = None,
        purpose: str | None = None,
        scopes: Iterable[str] = (),
        run: str | None = None,
        ends_in: int = 300,
        token_lifetime: int = TOKEN_SECONDS,
        audience: str | None = None,
        ancestors: Sequence[Mapping[str, object]] = (),
        claims: Mapping[str, Claim] | None = None,
    ) -> str:
        """Mint one token of a run that begins now, which nobody renews or ends.

        Args:
            agent: The workload that acts.
            grant: Cedar text that bounds the run.
            user: On whose behalf, when somebody.
            task: The task.
            purpose: The purpose.
            scopes: OAuth scopes.
            run: The run's id, unique for each run; a random one if left out.
            ends_in: Seconds to the run's absolute end.
            token_lifetime: Seconds to the token's own end, which is never past the run's.
            audience: Another server than the issuer's usual one.
            ancestors: The complete facts of each delegator, root first.
            claims: Further claims, for policies that read them.

        Raises:
            ConfigurationError: No server would accept the token.
            Refusal: There is a store, and it says that the run was ended or does not know;
                or there is a ledger, and it cannot keep that the run began.
        """
        now = int(self._clock())
        facts = Facts(
            run_id=run or uuid.uuid4().hex,
            agent=agent,
            grant=grant,
            audience=self._audience(audience, "mint"),
            began=now,
            ends_at=now + whole_seconds("ends_in", ends_in),
            user=user,
            task=task,
            purpose=purpose,
            scopes=read_scopes(scopes),
            claims=dict(claims or {}),
            ancestors=tuple(ancestors),
            token_lifetime=whole_seconds("token_lifetime", token_lifetime),
        )
        issued = self._signer.sign(facts, now=now)
        if self._lives is not None:
            self._lives.begin(issued.invocation, RunState.ISSUED)
        return issued.token

    def _audience(self, audience: str | None, method: str) -> str:
        audience = audience or self.audience
        if not audience:
            message = f"a token is for one server: pass audience= to `{method}`, or to the issuer"
            raise ConfigurationError(message)
        return audience
