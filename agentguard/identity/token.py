"""Turn a token's text into an invocation: text, keys and a time in, an identity out.

`verify` is pure: it reads no file, clock or network. Finding keys belongs to
`identity.keys`, remembering what was verified to `identity.verifier`.

The profile is RFC 9068 with the claims that name a run. Conditions are stated as what
is accepted; everything else is refused.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import jwt

from agentguard.errors import Refusal
from agentguard.identity.dialects import CLIENT_CLAIMS, filled
from agentguard.identity.form import (
    Peeked,
    optional_id,
    optional_moment,
    peek,
    read_claims,
    refuse,
    required_id,
    required_moment,
)
from agentguard.identity.issuers import TrustedIssuer, UnsafeSharedIdentity
from agentguard.identity.jwk import ASYMMETRIC, KeySet, PublicKey
from agentguard.limits import Limits
from agentguard.model import VERIFIED, Claim, Grade, Invocation, Reason, canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["GRANT_TYPE", "KeySet", "Peeked", "PublicKey", "TrustedIssuer", "UnsafeSharedIdentity", "peek", "verify"]

GRANT_TYPE: Final = "agentguard_grant"
"""The type of the entry of ``authorization_details`` (RFC 9396) that holds the grant."""

LOCAL_ISSUER: Final = "urn:agentguard:local"
"""Who issues the tokens of this host's own commands."""

_DEFAULT_LIMITS: Final = Limits()
_LONG: Final = 2**63
_ANCESTOR_NEEDS: Final = frozenset({"iss", "run", "agent", "scope", "grade", "iat", "exp", "grant"})
_ANCESTOR_HAS: Final = _ANCESTOR_NEEDS | {"user", "task", "purp", "claims"}

_JWS: Final = jwt.PyJWS(algorithms=sorted(ASYMMETRIC), options={"enforce_minimum_key_length": True})


def verify(  # noqa: PLR0917  the order is that of the sentence: this token, by these, for this, now
    token: str,
    issuers: Mapping[str, TrustedIssuer],
    keys: Mapping[str, KeySet],
    audience: str,
    now: float,
    limits: Limits = _DEFAULT_LIMITS,
) -> Invocation:
    """Verify a token and return the identity that it proves.

    Args:
        token: A signed access token in compact form.
        issuers: Whom to believe, by exact ``iss``.
        keys: Each issuer's own public keys, by ``iss``; never merged.
        audience: What ``aud`` must name: this server.
        now: Unix seconds.
        limits: The bounds.

    Raises:
        Refusal: With `Reason.EXPIRED` for a genuine token whose time is over, else
            `Reason.INVALID_TOKEN`.
    """
    try:
        peeked = peek(token, limits)
        trusted = issuers.get(peeked.issuer)
        if trusted is None:
            refuse(untrusted(peeked.issuer, issuers))
        if peeked.type not in trusted.types and not (peeked.type == "" and trusted.dialect.untyped):
            refuse("`typ` is not accepted from this issuer")
        key = keys[trusted.issuer].get(peeked.key_id)
        if key is None:
            refuse("the issuer has no key with this `kid`")
        if peeked.algorithm not in trusted.algorithms & key.algorithms:
            refuse("`alg` is not accepted for this key")
        signed = _JWS.decode_complete(token, key=key.key, algorithms=[peeked.algorithm])
        reading = _Reading(read_claims(signed["payload"]), trusted, limits, several=len(issuers) > 1)
        return reading.invocation(audience, now)
    except Refusal:
        raise
    # pyjwt and cryptography raise more than `PyJWTError` on hostile input.
    except Exception as error:  # noqa: BLE001
        refuse(f"verification stopped with {type(error).__name__}")


def untrusted(issuer: str, trusted: Iterable[str]) -> str:
    """Return why a token of *issuer* is refused, for the log: with whom one trusts, and never a stranger's text."""
    names = sorted(trusted)
    got = "another"
    if issuer == LOCAL_ISSUER:
        got = f"`{LOCAL_ISSUER}`"
    elif close := next((name for name in names if name.rstrip("/") == issuer.rstrip("/")), None):
        got = f"`{close.rstrip('/')}` {'without' if close.endswith('/') else 'with'} a slash at its end"
    return f"the issuer is not trusted: got {got}, trusted is {', '.join(f'`{name}`' for name in names)}"


class _Reading:
    """One reading of a genuine token's claims."""

    __slots__ = ("claims", "limits", "prefix", "trusted")

    def __init__(self, claims: dict[str, object], trusted: TrustedIssuer, limits: Limits, *, several: bool) -> None:
        if several and trusted.alias is None:
            refuse("several issuers are trusted and this one has no alias")
        self.claims = claims
        self.trusted = trusted
        self.limits = limits
        # Two issuers' alices stay two.
        self.prefix = f"{trusted.alias}|" if several else ""

    def invocation(self, audience: str, now: float) -> Invocation:
        claims, trusted = self.claims, self.trusted
        self._check_audience(audience)
        # A token that is bound to a key we never ask for would be a stolen one's disguise.
        if "cnf" in claims:
            refuse("`cnf` binds the token to something that is not verified here")
        issued_at, expires_at = self._check_times(now)
        subject = required_id(claims, "sub")
        client = self._client()
        token_id = self._one_of("jti", "uti")
        if token_id is None and not trusted.shared:
            refuse("`jti` is missing")
        agent = self._actor() or client
        if trusted.mints_runs:
            run, grade = required_id(claims, "run"), Grade.RUN
            run_ends_at = required_moment(claims, "run_exp")
            began = optional_moment(claims, "run_iat")
            began = issued_at if began is None else began
            if not began <= issued_at < run_ends_at:
                refuse("wants `run_iat` <= `iat` < `run_exp`")
            ends_at = float(min(expires_at + self._leeway, run_ends_at))
            ancestors = self._ancestors(run, run_ends_at)
            grant: str | None = self._grant(ancestors)
        else:
            run, grade = self._foreign_run(token_id, agent, subject)
            began, run_ends_at, ends_at = issued_at, expires_at, float(expires_at + self._leeway)
            self._check_foreign()
            ancestors, grant = (), None
        if not now < ends_at:
            raise Refusal(Reason.EXPIRED, "the token or its run is over")
        return Invocation(
            run_id=self.prefix + run,
            issuer=trusted.issuer,
            agent=self.prefix + agent,
            grade=grade,
            issued_at=began,
            ends_at=ends_at,
            run_ends_at=run_ends_at,
            token_id=token_id or "",
            client_id=client,
            subject=subject,
            user=self._prefixed(self._user(agent, client)),
            task=self._prefixed(optional_id(claims, "task")),
            purpose=optional_id(claims, "purp", self.limits.purpose_characters),
            scopes=self._scopes(),
            claims=_mapped(claims, trusted.claims, trusted.dialect.spaced_claims),
            grant=grant,
            ancestors=ancestors,
            transaction=optional_id(claims, "txn"),
            prefix=self.prefix,
            seal=VERIFIED,
        )

    @property
    def _leeway(self) -> int:
        return min(self.trusted.leeway, self.limits.leeway_seconds)

    def _prefixed(self, value: str | None) -> str | None:
        return None if value is None else self.prefix + value

    def _check_audience(self, audience: str) -> None:
        named = self.claims.get("aud")
        several = named if isinstance(named, list) else [named]
        if audience not in several or not all(isinstance(name, str) for name in several):
            refuse(f"`aud` does not name this server, which is `{audience}`")
        if not (self.trusted.several_audiences or {audience, *several} <= {audience, *self.trusted.other_audiences}):
            refuse("`aud` names other servers too, which this issuer's configuration does not allow (other_audiences=)")

    def _check_times(self, now: float) -> tuple[int, int]:
        issued_at, expires_at = required_moment(self.claims, "iat"), required_moment(self.claims, "exp")
        not_before = optional_moment(self.claims, "nbf")
        lifetime, most = expires_at - issued_at, self.trusted.max_lifetime
        if not 0 < lifetime <= most:
            refuse(f"the token lives {lifetime} s; 1 to {most} s are accepted from this issuer")
        if not max(issued_at, not_before or 0) <= now + self._leeway:
            refuse("the token is not valid yet")
        return issued_at, expires_at

    def _one_of(self, *names: str) -> str | None:
        """Return the one value of a claim that goes by several names."""
        values = {value for name in names if (value := optional_id(self.claims, name)) is not None}
        if len(values) > 1:
            refuse(f"{_listed(names)} contradict each other")
        return values.pop() if values else None

    def _client(self) -> str:
        names = self.trusted.dialect.client_claims
        client = self._one_of(*sorted(CLIENT_CLAIMS | names))
        if client is None or names.isdisjoint(self.claims):
            refuse(f"{_listed(names)} is missing")
        if not self._fits(self.trusted.dialect.wanted, client):
            refuse("the claims are not those of this issuer's access tokens")
        return client

    def _user(self, agent: str, client: str) -> str | None:
        """Return on whose behalf, where the token says for sure whether there is somebody."""
        dialect = self.trusted.dialect
        if not dialect.nobody:
            user = required_id(self.claims, dialect.user_claim)
            return None if user in {agent, client} else user
        nobody = self._fits(dialect.nobody, client)
        if nobody is self._fits(dialect.somebody, client):
            looked = {*dialect.nobody, *dialect.somebody}
            absent = _listed(looked - self.claims.keys()) or "none"
            refuse(f"the claims do not tell whether the token acts for a user: {_listed(looked)}; absent: {absent}")
        return None if nobody else required_id(self.claims, dialect.user_claim)

    def _fits(self, patterns: Mapping[str, str], client: str) -> bool:
        user = self._text(self.trusted.dialect.user_claim)
        return all(
            re.fullmatch(filled(pattern, client=client, user=user), self._text(name), re.DOTALL)
            for name, pattern in patterns.items()
        )

    def _text(self, name: str) -> str:
        return optional_id(self.claims, name, self.limits.token_bytes) or ""

    def _actor(self) -> str | None:
        """Return the outermost actor (RFC 8693 section 4.1); the inner ones are history."""
        if "act" not in self.claims:
            return None
        agents: list[str] = []
        link: object = self.claims
        while isinstance(link, dict) and "act" in link:
            link = link["act"]
            if not isinstance(link, dict) or len(agents) == self.limits.act_depth:
                refuse(f"`act` wants objects, nested at most {self.limits.act_depth} deep")
            # An actor of another issuer would be taken for this issuer's of the same name.
            if link.get("iss", self.trusted.issuer) != self.trusted.issuer:
                refuse("`act` names another issuer's actor")
            agents.append(required_id(link, "sub"))
        return agents[0]

    def _scopes(self) -> frozenset[str]:
        found = {_strings(self.claims[name], name, split=True) for name in ("scope", "scp") if name in self.claims}
        if len(found) > 1:
            refuse("`scope` and `scp` contradict each other")
        return found.pop() if found else frozenset()

    def _foreign_run(self, token_id: str | None, agent: str, subject: str) -> tuple[str, Grade]:
        link, name = self.claims, self.trusted.run_claim
        for part in name.split(".")[:-1] if name else ():
            inner = link.get(part, {})
            if not isinstance(inner, dict):
                refuse(f"`{name}` wants objects on its way")
            link = inner
        run = optional_id(link, name.split(".")[-1]) if name else None
        if run is not None:
            return run, Grade.RUN
        # Never a hash of the token's text: an ES256 signature can be varied without
        # being broken, and each variation would be another identity.
        if token_id is not None:
            return token_id, Grade.TOKEN
        return "shared:" + canonical_json([agent, subject]), Grade.SHARED

    def _check_foreign(self) -> None:
        # Who mints no runs has no say in what bounds one.
        if "ancestors" in self.claims:
            refuse("`ancestors` is not accepted from this issuer")
        if any(kind == GRANT_TYPE for kind, _ in self._details()):
            refuse("a grant is not accepted from this issuer")

    def _details(self) -> list[tuple[str, dict[str, object]]]:
        details = self.claims.get("authorization_details", [])
        if not isinstance(details, list) or not all(isinstance(entry, dict) for entry in details):
            refuse("`authorization_details` wants a list of objects")
        return [(required_id(entry, "type"), entry) for entry in details]

    def _grant(self, ancestors: tuple[Invocation, ...]) -> str:
        details = self._details()
        if [kind for kind, _ in details] != [GRANT_TYPE] or details[0][1].keys() != {"type", "cedar"}:
            refuse(f"`authorization_details` wants one `{GRANT_TYPE}` and nothing else")
        grant = _grant_text(details[0][1]["cedar"])
        size = sum(len(text.encode()) for text in (grant, *(link.grant or "" for link in ancestors)))
        if size > self.limits.grants_bytes:
            refuse(f"the grants have {size} bytes, {self.limits.grants_bytes} are accepted")
        return grant

    def _ancestors(self, run: str, run_ends_at: int) -> tuple[Invocation, ...]:
        entries = self.claims.get("ancestors", [])
        if not isinstance(entries, list) or len(entries) > self.limits.ancestors:
            refuse(f"`ancestors` wants a list of at most {self.limits.ancestors}")
        links: list[Invocation] = []
        for entry in entries:
            links.append(self._ancestor(entry, tuple(links)))
        # Delegation only narrows, time included: a run outlives none that it came from.
        ends = [link.run_ends_at for link in links] + [run_ends_at]
        if ends != sorted(ends, reverse=True):
            refuse("a run ends after the one that it was delegated by")
        if len({link.run_id for link in links} | {self.prefix + run}) != len(links) + 1:
            refuse("a run occurs twice in its own delegation")
        return tuple(links)

    def _ancestor(self, entry: object, above: tuple[Invocation, ...]) -> Invocation:
        if not isinstance(entry, dict) or not _ANCESTOR_NEEDS <= entry.keys() <= _ANCESTOR_HAS:
            refuse("an ancestor has not the members that it should")
        if entry["iss"] != self.trusted.issuer or entry["grade"] != Grade.RUN:
            refuse("an ancestor is not a run of this issuer")
        began, ends_at = required_moment(entry, "iat"), required_moment(entry, "exp")
        if not began < ends_at:
            refuse("an ancestor ends before it began")
        claims = entry.get("claims", {})
        if not isinstance(claims, dict):
            refuse("an ancestor's `claims` wants an object")
        return Invocation(
            run_id=self.prefix + required_id(entry, "run"),
            issuer=self.trusted.issuer,
            agent=self.prefix + required_id(entry, "agent"),
            grade=Grade.RUN,
            issued_at=began,
            ends_at=float(ends_at),
            run_ends_at=ends_at,
            user=self._prefixed(optional_id(entry, "user")),
            task=self._prefixed(optional_id(entry, "task")),
            purpose=optional_id(entry, "purp", self.limits.purpose_characters),
            scopes=_strings(entry["scope"], "scope"),
            claims=_mapped(claims, self.trusted.claims),
            grant=_grant_text(entry["grant"]),
            ancestors=above,
            prefix=self.prefix,
            seal=VERIFIED,
        )


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in sorted(names))


def _grant_text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        refuse("a grant wants Cedar text")
    return value


def _strings(value: object, name: str, *, split: bool = False) -> frozenset[str]:
    if split and isinstance(value, str):
        return frozenset(value.split())
    if not isinstance(value, list) or not all(isinstance(part, str) and part for part in value):
        refuse(f"`{name}` wants a set of strings")
    return frozenset(value)


def _mapped(
    claims: dict[str, object], types: Mapping[str, type], spaced: frozenset[str] = frozenset()
) -> Mapping[str, Claim]:
    """Return the claims that policies may read, each of exactly its declared type."""
    present = (name for name in types if name in claims)
    return MappingProxyType({name: _claim(claims[name], name, types[name], split=name in spaced) for name in present})


def _claim(value: object, name: str, kind: type, *, split: bool) -> Claim:
    if kind is frozenset:
        return _strings(value, name, split=split)
    # Exact types: to Python, True is an int.
    if type(value) is not kind or not isinstance(value, str | int):
        refuse(f"`{name}` is not a {kind.__name__}")
    if type(value) is int and not -_LONG <= value < _LONG:
        refuse(f"`{name}` has more than 64 bits")
    return value
