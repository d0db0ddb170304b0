"""Whose tokens are believed, and how far."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from agentguard.errors import ConfigurationError
from agentguard.identity.dialects import AUTH0, KEYCLOAK, OKTA, RFC_9068, Dialect, entra
from agentguard.identity.options import DOMAIN, check_part, problems, type_problems

if TYPE_CHECKING:
    from collections.abc import Mapping

_LOG: Final = logging.getLogger("agentguard")


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
        several_audiences: Whether ``aud`` may hold any further values beside ours.
        other_audiences: The further values that it may hold, where not any.
        dialect: For other issuers: where the client and the user stand.
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
    other_audiences: frozenset[str] = frozenset()
    dialect: Dialect = RFC_9068
    shared: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        for problem in type_problems(self):
            raise ConfigurationError(problem)
        put = object.__setattr__
        put(self, "algorithms", frozenset(self.algorithms))
        put(self, "types", frozenset(kind.lower() for kind in self.types))
        put(self, "claims", MappingProxyType(dict(self.claims)))
        put(self, "other_audiences", frozenset(self.other_audiences))
        for problem in problems(self):
            raise ConfigurationError(problem)

    @classmethod
    def generic(
        cls,
        *,
        issuer: str,
        alias: str | None = None,
        max_lifetime: int = 3_600,
        run_claim: str | None = None,
        claims: Mapping[str, type] | None = None,
    ) -> TrustedIssuer:
        """Trust an issuer of access tokens as in RFC 9068.

        Args:
            issuer: The exact ``iss``.
            alias: As in the class; likewise all others.
            max_lifetime: The longest ``exp - iat`` that is accepted, seconds.
            run_claim: The claim that names the run.
            claims: Claims that become attributes.

        Raises:
            ConfigurationError: An option that does not fit.
        """
        return cls(
            issuer=issuer,
            alias=alias,
            algorithms=frozenset({"RS256", "PS256", "ES256", "EdDSA"}),
            max_lifetime=max_lifetime,
            mints_runs=False,
            run_claim=run_claim,
            claims=claims or {},
        )

    @classmethod
    def entra(
        cls,
        *,
        tenant: str,
        version: Literal[1, 2] = 2,
        alias: str | None = None,
        max_lifetime: int = 5_700,
        run_claim: str | None = None,
        claims: Mapping[str, type] | None = None,
    ) -> TrustedIssuer:
        """Trust one tenant of Microsoft Entra ID. The user is its ``oid``.

        Args:
            tenant: The tenant's id.
            version: The version of its access tokens (``ver``), which the API's
                registration chooses.
            alias: As in the class; likewise all others.
            max_lifetime: Entra gives 60 to 90 minutes, from five minutes ago; a managed
                identity gets 24 hours, 86,700.
            run_claim: The claim that names the run.
            claims: Claims that become attributes.

        Raises:
            ConfigurationError: An option that does not fit.
        """
        check_part("tenant", tenant, r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "the tenant's id in lower case")
        if repr(version) not in {"1", "2"}:
            message = f"`version` wants 1 or 2, got `{version}`: look at `ver` in a token"
            raise ConfigurationError(message)
        first = f"https://sts.windows.net/{tenant}/"
        return cls(
            issuer=first if version == 1 else f"https://login.microsoftonline.com/{tenant}/v2.0",
            alias=alias,
            algorithms=frozenset({"RS256"}),
            types=frozenset({"JWT"}),
            max_lifetime=max_lifetime,
            mints_runs=False,
            run_claim=run_claim,
            claims=claims or {},
            dialect=entra(tenant, version),
        )

    @classmethod
    def okta(
        cls,
        *,
        domain: str,
        authorization_server: str = "default",
        alias: str | None = None,
        max_lifetime: int = 3_600,
        run_claim: str | None = None,
        claims: Mapping[str, type] | None = None,
    ) -> TrustedIssuer:
        """Trust a custom authorization server of Okta. The user is its ``uid``.

        The tokens of the organisation's own server are for Okta alone and are refused.

        Args:
            domain: The organisation's domain, ``company.okta.com``.
            authorization_server: The server's id.
            alias: As in the class; likewise all others.
            max_lifetime: Okta gives one hour; a policy of the server may say up to 24.
            run_claim: The claim that names the run.
            claims: Claims that become attributes.

        Raises:
            ConfigurationError: An option that does not fit.
        """
        check_part("domain", domain, DOMAIN, "`company.okta.com`")
        check_part("authorization_server", authorization_server, r"[A-Za-z0-9_-]+", "the server's id")
        return cls(
            issuer=f"https://{domain}/oauth2/{authorization_server}",
            alias=alias,
            algorithms=frozenset({"RS256"}),
            max_lifetime=max_lifetime,
            mints_runs=False,
            run_claim=run_claim,
            claims=claims or {},
            dialect=OKTA,
        )

    @classmethod
    def auth0(
        cls,
        *,
        domain: str,
        alias: str | None = None,
        max_lifetime: int = 86_400,
        run_claim: str | None = None,
        claims: Mapping[str, type] | None = None,
    ) -> TrustedIssuer:
        """Trust a tenant of Auth0, for APIs with the RFC 9068 token profile.

        The default profile has no ``jti``, so its tokens cannot be told apart and are
        refused.

        Args:
            domain: The tenant's domain, ``company.eu.auth0.com``.
            alias: As in the class; likewise all others.
            max_lifetime: Auth0 gives 24 hours unless the API says less.
            run_claim: The claim that names the run.
            claims: Claims that become attributes.

        Raises:
            ConfigurationError: An option that does not fit.
        """
        check_part("domain", domain, DOMAIN, "`company.eu.auth0.com`")
        return cls(
            issuer=f"https://{domain}/",
            alias=alias,
            algorithms=frozenset({"RS256"}),
            max_lifetime=max_lifetime,
            mints_runs=False,
            run_claim=run_claim,
            claims=claims or {},
            other_audiences=frozenset({f"https://{domain}/userinfo"}),
            dialect=AUTH0,
        )

    @classmethod
    def keycloak(
        cls,
        *,
        url: str,
        realm: str,
        alias: str | None = None,
        max_lifetime: int = 300,
        run_claim: str | None = None,
        claims: Mapping[str, type] | None = None,
    ) -> TrustedIssuer:
        """Trust one realm of Keycloak. The user is its ``sub``.

        Args:
            url: The server's URL, ``https://sso.example.com``.
            realm: The realm's name.
            alias: As in the class; likewise all others.
            max_lifetime: Keycloak gives five minutes unless the realm or the client says more.
            run_claim: The claim that names the run.
            claims: Claims that become attributes.

        Raises:
            ConfigurationError: An option that does not fit.
        """
        check_part("url", url, r"https?://[^?#\s]+[^/?#\s]", "`https://sso.example.com`")
        if "/realms/" in url:
            message = f"`url` is without `/realms/…`, got `{url}`: give what stands before it, and the realm as realm="
            raise ConfigurationError(message)
        check_part("realm", realm, r"[^/?#\s]+", "the realm's name")
        return cls(
            issuer=f"{url}/realms/{realm}",
            alias=alias,
            algorithms=frozenset({"RS256"}),
            types=frozenset({"JWT", "at+jwt"}),
            max_lifetime=max_lifetime,
            mints_runs=False,
            run_claim=run_claim,
            claims=claims or {},
            other_audiences=frozenset({"account"}),
            dialect=KEYCLOAK,
        )


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
