"""What the options of a trusted issuer may be."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.identity.dialects import RFC_9068, Dialect
from agentguard.identity.jwk import ASYMMETRIC
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.identity.issuers import TrustedIssuer

# Tokens for other purposes that the same issuer signs with the same keys.
_OTHER_TYPES: Final = frozenset({"dpop+jwt", "logout+jwt", "txntoken+jwt", "oauth-id-jag+jwt"})

DOMAIN: Final = r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+"
"""A pattern for the domain of an organisation or a tenant."""

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


def type_problems(trusted: TrustedIssuer) -> Iterator[str]:
    """Name what has another type than it should."""
    # A value of another type would be read as something: a string as the set of its
    # letters, "false" as true.
    for name in ("mints_runs", "several_audiences"):
        if type(getattr(trusted, name)) is not bool:
            yield f"`{name}` wants True or False, got `{getattr(trusted, name)!r}`: write one of them"
    for name in ("algorithms", "types", "other_audiences"):
        given = getattr(trusted, name)
        if not isinstance(given, (frozenset, set, list, tuple)) or any(type(item) is not str for item in given):
            yield f"`{name}` wants a set of strings, got `{given!r}`: put braces around them"
    for name in ("issuer", "alias", "run_claim"):
        given = getattr(trusted, name)
        if type(given) is not str and (given is not None or name == "issuer"):
            yield f"`{name}` wants a string, got `{given!r}`: write it in quotes"
    claims: object = trusted.claims
    if not isinstance(claims, Mapping) or any(type(name) is not str for name in claims):
        yield f"`claims` wants types by the names of claims, got `{claims!r}`: write a dict"
    dialect: object = trusted.dialect
    if not isinstance(dialect, Dialect):
        yield f"`dialect` wants a Dialect, got `{dialect!r}`: write `Dialect(...)`"


def problems(trusted: TrustedIssuer) -> Iterator[str]:
    """Name what would weaken the rest, once all types are right."""
    most = Limits().leeway_seconds
    if not trusted.issuer:
        yield "`issuer` wants the exact `iss` of its tokens, got an empty string: name the issuer"
    if trusted.alias is not None and re.fullmatch(r"[A-Za-z0-9._-]+", trusted.alias) is None:
        yield f"`alias` wants letters, digits, dots or dashes, got `{trusted.alias}`: choose a short name"
    if not trusted.algorithms or not trusted.algorithms <= ASYMMETRIC:
        got = f"wants some of {_listed(ASYMMETRIC)}, got {_listed(trusted.algorithms)}"
        yield f"`algorithms` {got}: name those that the issuer signs with"
    if not trusted.types or trusted.types & (_OTHER_TYPES | {""}):
        got = f"wants types of access tokens, got {_listed(trusted.types)}"
        yield f"`types` {got}: leave out those that are made for something else"
    if type(trusted.max_lifetime) is not int or not trusted.max_lifetime > 0:
        got = f"wants a positive whole number of seconds, got `{trusted.max_lifetime}`"
        yield f"`max_lifetime` {got}: give the longest lifetime of the issuer's tokens"
    if type(trusted.leeway) is not int or not 0 <= trusted.leeway <= most:
        yield f"`leeway` wants 0 to {most} seconds, got `{trusted.leeway}`: mend the clocks instead"
    if trusted.run_claim is not None and (trusted.mints_runs or not all(trusted.run_claim.split("."))):
        got = f"wants a dotted path and `mints_runs=False`, got `{trusted.run_claim}`"
        yield f"`run_claim` {got}: agentguard's own tokens name their run in `run`"
    if trusted.mints_runs and trusted.dialect != RFC_9068:
        yield "`dialect` wants `mints_runs=False`, got True: agentguard's own tokens have one form"
    yield from _claim_problems(trusted.claims)


def check_part(option: str, value: object, pattern: str, example: str) -> None:
    """Check a part of an issuer's URL: anything that does not belong there could make it another one."""
    if type(value) is not str or re.fullmatch(pattern, value) is None:
        message = f"`{option}` wants {example}, got `{value!r}`: give nothing but that"
        raise ConfigurationError(message)


def _listed(names: frozenset[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names)) or "none"


def _claim_problems(claims: Mapping[str, type]) -> Iterator[str]:
    for name, kind in claims.items():
        if re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name) is None or name in _OWN_ATTRIBUTES:
            yield f"`claims` wants names of new attributes, got `{name}`: rename the claim at the issuer"
        if kind not in _CLAIM_TYPES:
            yield f"`claims` wants str, int, bool or frozenset, got `{kind}` for `{name}`: choose one of them"
