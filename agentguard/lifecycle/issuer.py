"""Begin runs, and sign the tokens that name them."""

from __future__ import annotations

import json
import time
import uuid
from typing import TYPE_CHECKING, Final

import jwt

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.jwk import read_key_set
from agentguard.identity.token import GRANT_TYPE, TrustedIssuer, verify
from agentguard.lifecycle.delegation import read_bounds, read_scopes
from agentguard.lifecycle.facts import Facts, Issued
from agentguard.lifecycle.keys import KeyRing
from agentguard.lifecycle.runs import Run, lasting

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager

    from agentguard.lifecycle.delegation import Arguments
    from agentguard.lifecycle.keys import KeySource, SigningKey
    from agentguard.lifecycle.store import Store
    from agentguard.model import Claim, Invocation

_JWS: Final = jwt.PyJWS(algorithms=["ES256", "EdDSA"])
_TOKEN_SECONDS: Final = 300


class Issuer:
    """Begins runs and signs their tokens. Safe to share between threads.

    Attributes:
        issuer: The ``iss`` of its tokens.
        audience: The ``aud`` of its tokens where nothing else is said.
        store: Where its runs are on record and their ends are told.
    """

    __slots__ = ("_clock", "_keys", "_leeway", "audience", "issuer", "store")

    def __init__(
        self,
        *,
        issuer: str,
        audience: str | None = None,
        key: KeySource | None = None,
        store: Store | None = None,
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
            clock: Gives unix seconds.

        Raises:
            ConfigurationError: The key is none that tokens are signed with.
        """
        self.issuer = issuer
        self.audience = audience
        self.store = store
        self._clock = clock
        trusted = TrustedIssuer(issuer=issuer)
        self._leeway = trusted.leeway
        self._keys = KeyRing(key, lingers=trusted.max_lifetime + trusted.leeway, clock=clock)

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
            grant: Cedar text instead, or, beside *tools*, as well: then both bind.
            ends_in: Seconds to the run's absolute end, which renewing its token never moves.
            audience: Another server than the issuer's usual one.
            claims: Further claims, for policies that read them.

        Raises:
            ConfigurationError: No server would accept it, or there is no store to end it in.
            Refusal: The store does not let it begin; nothing of it is left.
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
    ) -> Run:
        """Begin a run as `run` does; whoever begins it so calls `Run.end`."""
        if self.store is None:
            message = "a run is ended in a store, and the issuer has none: pass it store=, the one of the guard's state"
            raise ConfigurationError(message)
        # A subject that is the agent's own name means that it acts for nobody.
        if user is not None and user == agent:
            message = f"`user` wants somebody else than the agent, got `{user}` for both: leave it out"
            raise ConfigurationError(message)
        bounds = read_bounds(tools=tools, arguments=arguments, grant=grant)
        began = int(self._clock())
        facts = Facts(
            run_id=uuid.uuid4().hex,
            agent=agent,
            grant=bounds.text,
            audience=self._audience(audience, "run"),
            began=began,
            ends_at=began + ends_in,
            user=user,
            task=task,
            purpose=purpose,
            scopes=read_scopes(scopes),
            claims=dict(claims or {}),
        )
        return Run(facts, bounds, sign=self._sign, store=self.store, clock=self._clock)

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
        token_lifetime: int = _TOKEN_SECONDS,
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
            Refusal: There is a store, and it says that the run was ended or does not know.
        """
        now = int(self._clock())
        facts = Facts(
            run_id=run or uuid.uuid4().hex,
            agent=agent,
            grant=grant,
            audience=self._audience(audience, "mint"),
            began=now,
            ends_at=now + ends_in,
            user=user,
            task=task,
            purpose=purpose,
            scopes=read_scopes(scopes),
            claims=dict(claims or {}),
            ancestors=tuple(ancestors),
        )
        return self._sign(facts, now=now, lifetime=token_lifetime).token

    def _audience(self, audience: str | None, method: str) -> str:
        audience = audience or self.audience
        if not audience:
            message = f"a token is for one server: pass audience= to `{method}`, or to the issuer"
            raise ConfigurationError(message)
        return audience

    def _sign(self, facts: Facts, *, now: int, lifetime: int = _TOKEN_SECONDS) -> Issued:
        expires_at = min(now + lifetime, facts.ends_at)
        optional = {
            "task": facts.task,
            "purp": facts.purpose,
            "scope": " ".join(sorted(facts.scopes)) or None,
            "ancestors": list(facts.ancestors) or None,
        }
        own: dict[str, object] = {
            "iss": self.issuer,
            "aud": facts.audience,
            "sub": facts.user or facts.agent,
            "client_id": facts.agent,
            "iat": now,
            "exp": expires_at,
            "jti": uuid.uuid4().hex,
            "run": facts.run_id,
            "run_iat": facts.began,
            "run_exp": facts.ends_at,
            "authorization_details": [{"type": GRANT_TYPE, "cedar": facts.grant}],
            **{name: value for name, value in optional.items() if value is not None},
        }
        further = {
            name: sorted(value) if isinstance(value, frozenset) else value for name, value in facts.claims.items()
        }
        for name in sorted(own.keys() & further.keys()):
            message = f"`claims` wants claims that mint does not write itself, got `{name}`: leave it out"
            raise ConfigurationError(message)
        key = self._keys.use(expires_at + self._leeway)
        header = {"alg": key.algorithm, "kid": key.key_id, "typ": "at+jwt"}
        payload = json.dumps({**own, **further}, separators=(",", ":"), allow_nan=False).encode()
        token = _JWS.encode(payload, key.private, algorithm=key.algorithm, headers=header)
        invocation = self._checked(token, facts, now, key)
        if self.store is not None:
            self.store.require_mintable(*invocation.chain)
        return Issued(token=token, invocation=invocation, expires_at=expires_at)

    def _checked(self, token: str, facts: Facts, now: int, key: SigningKey) -> Invocation:
        """Verify the token as a server will: whoever mints it learns of a mistake first."""
        claims = {name: type(value) for name, value in facts.claims.items()}
        trusted = TrustedIssuer(issuer=self.issuer, claims=claims)
        keys, _ = read_key_set({"keys": [dict(key.public)]})
        try:
            return verify(token, {self.issuer: trusted}, {self.issuer: keys}, facts.audience, now)
        except Refusal as refusal:
            message = f"no server would accept this token: {refusal.detail}"
            raise ConfigurationError(message) from refusal
