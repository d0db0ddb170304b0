"""Whose tokens are believed, and how far."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.identity.jwk import ASYMMETRIC
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

_LOG: Final = logging.getLogger("agentguard")

# Tokens for other purposes that the same issuer signs with the same keys.
_OTHER_TYPES: Final = frozenset({"dpop+jwt", "logout+jwt", "txntoken+jwt", "oauth-id-jag+jwt"})

_CLAIM_TYPES: Final = (str, int, bool, frozenset)

# What every Invocation has in the policies' vocabulary; a claim must not speak for it.
_OWN_ATTRIBUTES: Final = frozenset(
    {
        "agent",
        "delegation_depth",
        "ends_at",
        "grade",
        "issued_at",
        "issuer",
        "lifetime",
        "purpose",
        "scopes",
        "task",
        "user",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """One issuer whose tokens are believed, and what is asked of them.

    Attributes:
        issuer: The exact ``iss``.
        alias: The prefix of its ids (``corp|alice``) as soon as more than one issuer
            is trusted; needed from then on.
        algorithms: The signature algorithms that are accepted, asymmetric ones alone.
        types: The values of ``typ`` that are accepted, in any case.
        max_lifetime: The longest ``exp - iat`` that is accepted, seconds.
        leeway: How far clocks may differ, seconds.
        mints_runs: Whether its tokens name a run and carry a grant, as those of
            agentguard's own issuer do. They must then.
        run_claim: For other issuers: the dotted path of the claim that names the run
            (``mission.id``). A token without it counts as one run, named by its ``jti``.
        claims: Claims that policies may read as attributes of the same name, with
            their type: `str`, `int`, `bool` or `frozenset` (of strings).
        several_audiences: Whether ``aud`` may hold further values beside ours.
        shared: Whether tokens that name neither a run nor themselves are admitted.
            Set by `UnsafeSharedIdentity` alone.

    Raises:
        ConfigurationError: A value that would weaken what the others promise.
    """

    issuer: str
    alias: str | None = None
    algorithms: frozenset[str] = frozenset({"ES256", "EdDSA"})
    types: frozenset[str] = frozenset({"at+jwt", "application/at+jwt"})
    max_lifetime: int = 900
    leeway: int = 30
    mints_runs: bool = True
    run_claim: str | None = None
    claims: Mapping[str, type] = field(default_factory=dict, hash=False)
    several_audiences: bool = False
    shared: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for problem in self._type_problems():
            raise ConfigurationError(problem)
        put = object.__setattr__
        put(self, "algorithms", frozenset(self.algorithms))
        put(self, "types", frozenset(kind.lower() for kind in self.types))
        put(self, "claims", MappingProxyType(dict(self.claims)))
        for problem in self._problems():
            raise ConfigurationError(problem)

    def _type_problems(self) -> Iterator[str]:
        # A value of another type would be read as something: a string as the set of its
        # letters, "false" as true.
        for name in ("mints_runs", "several_audiences"):
            if type(getattr(self, name)) is not bool:
                yield f"`{name}` wants True or False, got `{getattr(self, name)!r}`: write one of them"
        for name in ("algorithms", "types"):
            given = getattr(self, name)
            if not isinstance(given, (frozenset, set, list, tuple)) or any(type(item) is not str for item in given):
                yield f"`{name}` wants a set of strings, got `{given!r}`: put braces around them"
        for name in ("issuer", "alias", "run_claim"):
            given = getattr(self, name)
            if type(given) is not str and (given is not None or name == "issuer"):
                yield f"`{name}` wants a string, got `{given!r}`: write it in quotes"
        claims: object = self.claims
        if not isinstance(claims, Mapping) or any(type(name) is not str for name in claims):
            yield f"`claims` wants types by the names of claims, got `{claims!r}`: write a dict"

    def _problems(self) -> Iterator[str]:
        most = Limits().leeway_seconds
        if not self.issuer:
            yield "`issuer` wants the exact `iss` of its tokens, got an empty string: name the issuer"
        if self.alias is not None and re.fullmatch(r"[A-Za-z0-9._-]+", self.alias) is None:
            yield f"`alias` wants letters, digits, dots or dashes, got `{self.alias}`: choose a short name"
        if not self.algorithms or not self.algorithms <= ASYMMETRIC:
            got = f"wants some of {_listed(ASYMMETRIC)}, got {_listed(self.algorithms)}"
            yield f"`algorithms` {got}: name those that the issuer signs with"
        if not self.types or self.types & _OTHER_TYPES:
            got = f"wants types of access tokens, got {_listed(self.types)}"
            yield f"`types` {got}: leave out those that are made for something else"
        if type(self.max_lifetime) is not int or not self.max_lifetime > 0:
            got = f"wants a positive whole number of seconds, got `{self.max_lifetime}`"
            yield f"`max_lifetime` {got}: give the longest lifetime of the issuer's tokens"
        if type(self.leeway) is not int or not 0 <= self.leeway <= most:
            yield f"`leeway` wants 0 to {most} seconds, got `{self.leeway}`: mend the clocks instead"
        if self.run_claim is not None and (self.mints_runs or not all(self.run_claim.split("."))):
            got = f"wants a dotted path and `mints_runs=False`, got `{self.run_claim}`"
            yield f"`run_claim` {got}: agentguard's own tokens name their run in `run`"
        yield from _claim_problems(self.claims)


def UnsafeSharedIdentity(  # noqa: N802  named like the weaker choice that it is
    *,
    issuer: str,
    alias: str | None = None,
    algorithms: frozenset[str] = frozenset({"ES256", "EdDSA"}),
    types: frozenset[str] = frozenset({"at+jwt", "application/at+jwt"}),
    max_lifetime: int = 900,
    leeway: int = 30,
    run_claim: str | None = None,
    claims: Mapping[str, type] | None = None,
    several_audiences: bool = False,
) -> TrustedIssuer:
    """Trust an issuer whose tokens need not tell one run from another.

    Everyone who shares such an identity is one principal: ending one ends all, and the
    evidence cannot say which of them acted. Policies see the grade ``shared``.

    Args:
        issuer: As in `TrustedIssuer`; likewise all others.
        alias: The prefix of its ids.
        algorithms: The accepted signature algorithms.
        types: The accepted values of ``typ``.
        max_lifetime: The longest accepted ``exp - iat``, seconds.
        leeway: How far clocks may differ, seconds.
        run_claim: The claim that names the run, where there is one.
        claims: Claims that become attributes.
        several_audiences: Whether ``aud`` may hold further values.
    """
    trusted = TrustedIssuer(
        issuer=issuer,
        alias=alias,
        algorithms=algorithms,
        types=types,
        max_lifetime=max_lifetime,
        leeway=leeway,
        mints_runs=False,
        run_claim=run_claim,
        claims=claims or {},
        several_audiences=several_audiences,
    )
    object.__setattr__(trusted, "shared", True)
    _LOG.warning("issuer `%s` is trusted without identities that tell runs apart", issuer)
    return trusted


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _claim_problems(claims: Mapping[str, type]) -> Iterator[str]:
    for name, kind in claims.items():
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None or name in _OWN_ATTRIBUTES:
            yield f"`claims` wants names of new attributes, got `{name}`: rename the claim at the issuer"
        if kind not in _CLAIM_TYPES:
            yield f"`claims` wants str, int, bool or frozenset, got `{kind}` for `{name}`: choose one of them"
