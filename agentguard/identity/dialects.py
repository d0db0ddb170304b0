"""How a make of issuer says what RFC 9068 says otherwise: where the client and the user stand.

A *pattern* is a regular expression for the whole text of a claim. An absent claim has the
empty text, which no present one can have: ``""`` wants a claim absent, ``.+`` wants it there.
In a pattern, ``{client}`` and ``{user}`` are the client's id and the text of `user_claim`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator

CLIENT_CLAIMS: Final = frozenset({"client_id", "azp", "appid"})
"""The names of the client's id that are looked at in every token: they must not contradict each other."""

_PATTERNS: Final = ("wanted", "nobody", "somebody")


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How the access tokens of one make of issuer are read.

    Attributes:
        client_claims: The names under which the client's id may stand; one of them must be there.
        user_claim: The claim that names the user, where there is one.
        wanted: Patterns by claim that every token has to fit.
        nobody: Patterns by claim that tell an application's own token: it acts for nobody.
        somebody: Patterns by claim that tell a token that acts for a user. Each token has to
            fit exactly one of the two. Without both, `user_claim` names a user wherever it
            is neither the agent nor the client.
        spaced_claims: Claims that are a set written as one text, with blanks between.
        untyped: Whether the header may lack ``typ``.

    Raises:
        ConfigurationError: No token could be read by it, or not surely.
    """

    client_claims: frozenset[str] = CLIENT_CLAIMS
    user_claim: str = "sub"
    wanted: Mapping[str, str] = field(default_factory=dict, hash=False)
    nobody: Mapping[str, str] = field(default_factory=dict, hash=False)
    somebody: Mapping[str, str] = field(default_factory=dict, hash=False)
    spaced_claims: frozenset[str] = frozenset()
    untyped: bool = False

    def __post_init__(self) -> None:
        for problem in self._problems():
            raise ConfigurationError(problem)
        put = object.__setattr__
        for name in ("client_claims", "spaced_claims"):
            put(self, name, frozenset(getattr(self, name)))
        for name in _PATTERNS:
            put(self, name, MappingProxyType(dict(getattr(self, name))))

    def _problems(self) -> Iterator[str]:
        for name in ("client_claims", "spaced_claims"):
            given = getattr(self, name)
            if not isinstance(given, (frozenset, set, list, tuple)) or any(type(item) is not str for item in given):
                yield f"`{name}` wants a set of strings, got `{given!r}`: put braces around them"
        if not self.client_claims:
            yield "`client_claims` wants at least one name, got none: name the claim that has the client's id"
        user_claim: object = self.user_claim
        if type(user_claim) is not str or not user_claim:
            yield f"`user_claim` wants the name of a claim, got `{user_claim!r}`: leave it out for `sub`"
        untyped: object = self.untyped
        if type(untyped) is not bool:
            yield f"`untyped` wants True or False, got `{untyped!r}`: write one of them"
        for name in _PATTERNS:
            yield from _pattern_problems(name, getattr(self, name))
        if bool(self.nobody) is not bool(self.somebody):
            yield "`nobody` and `somebody` want each other, got one of them: say how both kinds of token look"


def _pattern_problems(name: str, patterns: object) -> Iterator[str]:
    wants = f"`{name}` wants patterns by the names of claims"
    if not isinstance(patterns, Mapping):
        yield f"{wants}, got `{patterns!r}`: write a dict"
    else:
        for claim, pattern in patterns.items():
            if type(claim) is not str or type(pattern) is not str or not _compiles(pattern):
                yield f"{wants}, got `{pattern!r}` for `{claim!r}`: write a regular expression"


def _compiles(pattern: str) -> bool:
    try:
        re.compile(filled(pattern, client="", user=""))
    except re.error:
        return False
    return True


def filled(pattern: str, *, client: str, user: str) -> str:
    """Return *pattern* with the two ids in their places, in which nothing is more than text."""
    # One pass: an id that reads `{user}` must not be filled in turn.
    ids = {"{client}": re.escape(client), "{user}": re.escape(user)}
    return re.sub(r"\{client\}|\{user\}", lambda match: ids[match[0]], pattern)


RFC_9068: Final = Dialect()
"""As the RFC has it, with the names for the client that are in use beside ``client_id``."""

# What an ID token has and an access token has not (OpenID Connect Core 1.0, 3.1.3.6 and 3.3.2.11).
_NO_ID_TOKEN: Final = {"nonce": "", "at_hash": "", "c_hash": ""}


def entra(tenant: str, version: int) -> Dialect:
    """Return how Microsoft Entra ID writes the tokens of one tenant.

    ``sub`` differs from one application to the next, ``oid`` is the user in the whole tenant.
    Users' tokens have ``scp``, applications' own have not, and there ``sub`` is ``oid``.
    ``idtyp`` is optional, and says the same.
    """
    return Dialect(
        client_claims=frozenset({"appid" if version == 1 else "azp"}),
        user_claim="oid",
        wanted={"tid": re.escape(tenant), "ver": rf"{version}\.0", **_NO_ID_TOKEN},
        nobody={"scp": "", "sub": "{user}", "idtyp": "(app)?"},
        somebody={"scp": ".+", "idtyp": "(user)?"},
        spaced_claims=frozenset({"xms_act_fct", "xms_sub_fct", "xms_tnt_fct", "xms_idrel"}),
    )


OKTA: Final = Dialect(
    client_claims=frozenset({"cid"}),
    user_claim="uid",
    wanted=_NO_ID_TOKEN,
    nobody={"uid": "", "sub": "{client}"},
    somebody={"uid": ".+"},
    untyped=True,
)
"""Okta's custom authorization servers.

``sub`` is the user's login, which may change hands; ``uid`` does not, and is there for users alone.
"""

AUTH0: Final = Dialect(
    client_claims=frozenset({"client_id"}),
    wanted=_NO_ID_TOKEN,
    nobody={"sub": "{client}@clients"},
    somebody={"sub": r"[^|]+\|.+"},
)
"""Auth0's RFC 9068 profile. A user is ``connection|id``."""

KEYCLOAK: Final = Dialect(
    client_claims=frozenset({"azp"}),
    wanted={"typ": "Bearer", "at_hash": "", "c_hash": ""},
    nobody={"client_id": "{client}", "preferred_username": "(?i:service-account-{client})"},
    somebody={"client_id": "", "preferred_username": "(?i:(?!service-account-).+)"},
)
"""Keycloak. All that it signs has ``typ: JWT``; the claim ``typ`` tells what it is.

Names of accounts are in lower case there, ids of clients as they were given. A person
may be called like a service account, so the name alone makes none: ``client_id`` stands
in the tokens of service accounts and in no others. That it is absent makes no person
either: a service account's exchanged token has none, nor has one of an old mapper.
"""
