"""Sign what is said of a run, and read it again in a token of one's own."""

from __future__ import annotations

import json
import uuid
from typing import TYPE_CHECKING, Final

import jwt

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.form import required_id, required_moment, unverified
from agentguard.identity.jwk import read_key_set
from agentguard.identity.token import GRANT_TYPE, TrustedIssuer, verify
from agentguard.lifecycle.facts import OWN_CLAIMS, Facts, Issued, act_of, as_facts
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.identity.jwk import KeySet
    from agentguard.lifecycle.keys import KeyRing
    from agentguard.lifecycle.store import Store
    from agentguard.model import Invocation

_JWS: Final = jwt.PyJWS(algorithms=["ES256", "EdDSA"])
_LIMITS: Final = Limits()


class TokenSigner:
    """Signs the tokens of one issuer. Safe to share between threads.

    Args:
        issuer: The ``iss``.
        keys: What signs.
        leeway: How far the clocks of servers may differ, seconds.
        store: Says which runs get no token any more; None lets all of them.
        clock: Gives unix seconds.
    """

    __slots__ = ("_clock", "_issuer", "_keys", "_leeway", "_store")

    def __init__(
        self, *, issuer: str, keys: KeyRing, leeway: int, store: Store | None, clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._keys = keys
        self._leeway = leeway
        self._store = store
        self._clock = clock

    def sign(self, facts: Facts, *, now: int) -> Issued:
        """Sign a token that begins *now*.

        Raises:
            ConfigurationError: No server would accept it.
            Refusal: The store says that no token is to be had, or does not know.
        """
        expires_at = min(now + facts.token_lifetime, facts.ends_at)
        optional = {
            "task": facts.task,
            "purp": facts.purpose,
            "scope": " ".join(sorted(facts.scopes)) or None,
            "ancestors": list(facts.ancestors) or None,
            "act": act_of(facts),
        }
        own: dict[str, object] = {
            "iss": self._issuer,
            "aud": facts.audience,
            "sub": facts.user or facts.agent,
            "client_id": facts.client or facts.agent,
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
        for name in sorted(OWN_CLAIMS & further.keys()):
            message = f"`claims` wants claims that mint does not write itself, got `{name}`: leave it out"
            raise ConfigurationError(message)
        key = self._keys.use(expires_at + self._leeway, run_until=facts.ends_at + self._leeway)
        header = {"alg": key.algorithm, "kid": key.key_id, "typ": "at+jwt"}
        payload = json.dumps({**own, **further}, separators=(",", ":"), allow_nan=False).encode()
        token = _JWS.encode(payload, key.private, algorithm=key.algorithm, headers=header)
        keys, _ = read_key_set({"keys": [dict(key.public)]})
        invocation = self._checked(token, facts, now, keys)
        if self._store is not None:
            self._store.require_mintable(*invocation.chain)
        return Issued(token=token, invocation=invocation, expires_at=expires_at)

    def read(self, token: str, *, expired: bool = False) -> tuple[Facts, Issued]:
        """Return what a token of this issuer says of its run.

        Args:
            token: Its text.
            expired: Whether the token may be over, or not valid yet.

        Raises:
            Refusal: `INVALID_TOKEN`, if it is none of this issuer's; `EXPIRED`.
        """
        claims = unverified(token, _LIMITS)[1]
        audience = required_id(claims, "aud")
        # Whoever ends the run need not agree with us on the time, either way.
        now = required_moment(claims, "iat") if expired else self._clock()
        # A run outlives its tokens, and the key that signed one of them.
        keys, _ = read_key_set({"keys": self._keys.remembered() if expired else self._keys.published()})
        invocation = self._verified(token, {}, keys, audience, now)
        # From here on the claims are ours. Again with the further ones, whose names only they tell.
        facts = as_facts(claims, invocation)
        invocation = self._verified(token, _types(facts), keys, audience, now)
        return facts, Issued(token=token, invocation=invocation, expires_at=required_moment(claims, "exp"))

    def _checked(self, token: str, facts: Facts, now: int, keys: KeySet) -> Invocation:
        """Verify the token as a server will: whoever mints it learns of a mistake first."""
        try:
            invocation = self._verified(token, _types(facts), keys, facts.audience, now)
        except Refusal as refusal:
            message = f"no server would accept this token: {refusal.detail}"
            raise ConfigurationError(message) from refusal
        # A subject that is the agent's or the client's own name means that it acts for nobody.
        if (invocation.agent, invocation.user) != (facts.agent, facts.user):
            message = f"`user` wants somebody else than the agent and its client, got `{facts.user}`: leave it out"
            raise ConfigurationError(message)
        return invocation

    def _verified(self, token: str, claims: Mapping[str, type], keys: KeySet, audience: str, now: float) -> Invocation:
        trusted = TrustedIssuer(issuer=self._issuer, claims=claims)
        return verify(token, {self._issuer: trusted}, {self._issuer: keys}, audience, now)


def _types(facts: Facts) -> dict[str, type]:
    return {name: type(value) for name, value in facts.claims.items()}
