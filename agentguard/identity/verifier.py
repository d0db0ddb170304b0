"""Verify tokens as they come in, and remember those that were verified.

The judgement itself is `identity.token.verify`; this adds the keys, the clock and a
bounded memory.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.form import peek
from agentguard.identity.issuers import TrustedIssuer
from agentguard.identity.keys import JWKS, Keys
from agentguard.identity.token import untrusted, verify
from agentguard.limits import Limits
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from agentguard.identity.jwk import PublicKey
    from agentguard.model import Invocation

_DEFAULT_LIMITS: Final = Limits()

# How often what has ended is looked for: a token of 16 KiB and its invocation are dear to
# keep, and looking at 10,000 of them takes a millisecond.
_SWEEP_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class _Remembered:
    invocation: Invocation
    issuer: str
    key: PublicKey


class InvocationVerifier:
    """Turns a token's text into the invocation that it proves.

    Attributes:
        issuers: Who is trusted, by ``iss``.
        prefixes: What stands before the ids of each, by ``iss``.
        claims: The claims that policies may read, of all issuers, with their types.
        audience: The audience where `verify` is given none.
    """

    __slots__ = ("_clock", "_keys", "_limits", "_remembered", "_swept_at", "audience", "claims", "issuers", "prefixes")

    def __init__(
        self,
        *issuers: TrustedIssuer,
        audience: str | None = None,
        keys: Mapping[str, Keys] | None = None,
        limits: Limits = _DEFAULT_LIMITS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Set up a verifier.

        Args:
            *issuers: Whom to believe; at least one.
            audience: What ``aud`` must name: the server's canonical URI.
            keys: Where each issuer's keys come from, by ``iss``; without an entry, from
                the issuer's metadata.
            limits: The bounds.
            clock: Gives unix seconds.

        Raises:
            ConfigurationError: No issuer, two that cannot be told apart, an issuer
                whose keys cannot be found, or an audience that is no string.
        """
        if audience is not None and type(audience) is not str:
            message = f"`audience` wants one string, got `{audience!r}`: a server has one canonical URI"
            raise ConfigurationError(message)
        for problem in _problems(issuers, keys or {}):
            raise ConfigurationError(problem)
        self.issuers: Mapping[str, TrustedIssuer] = MappingProxyType({one.issuer: one for one in issuers})
        self.claims: Mapping[str, type] = MappingProxyType(
            {n: kind for one in issuers for n, kind in one.claims.items()}
        )
        self.audience = audience
        several = len(self.issuers) > 1
        self.prefixes: Mapping[str, str] = MappingProxyType(
            {name: f"{one.alias}|" if several else "" for name, one in self.issuers.items()}
        )
        self._keys: dict[str, Keys] = {iss: JWKS(iss, limits=limits) for iss in self.issuers if iss not in (keys or {})}
        self._keys.update(keys or {})
        self._limits = limits
        self._clock = clock
        # By the token's exact text, never by a part of it or a hash.
        self._remembered: OrderedDict[tuple[str, str], _Remembered] = OrderedDict()
        self._swept_at = clock()

    def issuer_of(self, run_id: str, issuer: str | None = None) -> tuple[str, str]:
        """Return whose run this is, and the id that its issuer gave it.

        Args:
            run_id: The run, as policies and evidence name it here.
            issuer: Who must have issued it; None for whoever has.

        Raises:
            ConfigurationError: It names no run of a trusted issuer.
        """
        for name, prefix in self.prefixes.items():
            if run_id.startswith(prefix) and issuer in {None, name}:
                return name, run_id.removeprefix(prefix)
        trusted = ", ".join(f"`{prefix}…` of `{name}`" for name, prefix in self.prefixes.items())
        by = "" if issuer is None else f" of `{issuer}`"
        message = f"guard.revoke wants a run as evidence names it, {trusted}, got `{run_id}`{by}: give its name in full"
        raise ConfigurationError(message)

    async def verify(self, token: str, *, audience: str | None = None) -> Invocation:
        """Verify a token.

        The same text gives the same object for as long as it stays valid.

        Args:
            token: The token's text.
            audience: The audience to ask for instead of the verifier's own.

        Raises:
            Refusal: The token cannot be believed, for whatever reason.
        """
        try:
            wanted = self.audience if audience is None else audience
            if not wanted:
                raise Refusal(Reason.UNAUTHENTICATED, "no audience is configured")
            return await self._verify(token, wanted)
        except Refusal:
            raise
        except Exception as error:
            raise Refusal(Reason.INVALID_TOKEN, f"verification stopped with {type(error).__name__}") from error

    async def _verify(self, token: str, audience: str) -> Invocation:
        place = (token, audience)
        known = self._remembered.get(place)
        if known is not None:
            issuer, key_id = known.issuer, known.key.key_id
        else:
            peeked = peek(token, self._limits)
            issuer, key_id = peeked.issuer, peeked.key_id
        if issuer not in self.issuers:
            raise Refusal(Reason.INVALID_TOKEN, untrusted(issuer, self.issuers))
        keys = await self._keys[issuer].get(key_id)
        now = self._clock()
        # Looked up again, since others ran while we waited for the keys.
        known = self._remembered.pop(place, None)
        if known is not None and known.key == keys.get(key_id) and now < known.invocation.ends_at:
            self._remembered[place] = known
            return known.invocation
        invocation = verify(token, self.issuers, {issuer: keys}, audience, now, self._limits)
        self._forget_ended(now)
        self._remembered[place] = _Remembered(invocation, issuer, keys[key_id])
        if len(self._remembered) > self._limits.token_cache_entries:
            self._remembered.popitem(last=False)
        return invocation

    def _forget_ended(self, now: float) -> None:
        # A clock that was set back must not put this off.
        if 0 <= now - self._swept_at < _SWEEP_SECONDS:
            return
        self._swept_at = now
        for place in [place for place, known in self._remembered.items() if not now < known.invocation.ends_at]:
            del self._remembered[place]


def _problems(issuers: tuple[TrustedIssuer, ...], keys: Mapping[str, Keys]) -> list[str]:
    given: tuple[object, ...] = issuers
    if strays := [one for one in given if not isinstance(one, TrustedIssuer)]:
        return [f"the verifier wants trusted issuers, got `{strays[0]!r}`: write `TrustedIssuer(issuer=...)`"]
    names = [one.issuer for one in issuers]
    aliases = [one.alias for one in issuers]
    problems = []
    if not issuers:
        problems.append("the verifier wants at least one trusted issuer, got none: pass `TrustedIssuer(issuer=...)`")
    if len(set(names)) < len(names):
        problems.append(f"issuers want to be different, got {_listed(names)}: merge those with the same `issuer`")
    if len(issuers) > 1 and (None in aliases or len(set(aliases)) < len(aliases)):
        problems.append(f"several issuers want an alias each, got {_listed(aliases)}: give each its own `alias=`")
    if not keys.keys() <= set(names):
        problems.append(
            f"`keys` wants the trusted issuers {_listed(names)}, got {_listed(list(keys))}: spell `iss` exactly"
        )
    types = {(name, kind) for one in issuers for name, kind in one.claims.items()}
    if len({name for name, _ in types}) < len(types):
        problems.append("a claim wants one type, got several from different issuers: map it alike for all of them")
    return problems


def _listed(names: list[str] | list[str | None]) -> str:
    return ", ".join(f"`{name}`" for name in names)
