"""The values that pass between the layers: frozen, slotted, free of behaviour that decides."""

from __future__ import annotations

import json
from dataclasses import InitVar, dataclass, field
from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

Claim = str | int | bool | frozenset[str]
"""A mapped claim's value: one of Cedar's String, Long, Bool, Set<String>."""

_NO_CLAIMS: Final[Mapping[str, Claim]] = MappingProxyType({})


class Effect(StrEnum):
    """What a decision does: Cedar's two outcomes."""

    ALLOW = "allow"
    DENY = "deny"


class Reason(StrEnum):
    """Why a decision came out as it did, as recorded. The list is closed."""

    PERMIT = "permit"
    POLICY = "policy"
    NO_PERMIT = "no_permit"
    GRANT = "grant"
    POLICY_ERROR = "policy_error"
    UNAUTHENTICATED = "unauthenticated"
    INVALID_TOKEN = "invalid_token"  # noqa: S105  a reason, not a secret
    EXPIRED = "expired"
    REVOKED = "revoked"
    INVALID_ARGUMENT = "invalid_argument"
    MISSING_ENTITY = "missing_entity"
    UNGUARDED = "unguarded"
    APPROVAL_REQUIRED = "approval_required"
    APPROVAL_DECLINED = "approval_declined"
    APPROVAL_INVALID = "approval_invalid"
    APPROVAL_UNAVAILABLE = "approval_unavailable"
    EVIDENCE_UNAVAILABLE = "evidence_unavailable"
    STORE_UNAVAILABLE = "store_unavailable"
    CREDENTIAL_UNAVAILABLE = "credential_unavailable"
    CREDENTIAL_LEAK = "credential_leak"
    INTERNAL_ERROR = "internal_error"


class Grade(StrEnum):
    """How far an identity can be told apart from others of the same agent."""

    RUN = "run"
    TOKEN = "token"  # noqa: S105  a grade, not a secret
    SHARED = "shared"


@dataclass(frozen=True, slots=True)
class EntityUid:
    """A Cedar entity's name: its type, with namespace if it has one, and its id."""

    type: str
    id: str

    def as_json(self) -> dict[str, str]:
        """Return the structured form, which an id cannot escape out of."""
        return {"type": self.type, "id": self.id}

    def __str__(self) -> str:
        """Return Cedar text, ``Type::"id"``, with the id escaped so that nothing in it is more than text."""
        escaped = "".join(
            c if c.isascii() and c.isprintable() and c not in '"\\' else f"\\u{{{ord(c):x}}}" for c in self.id
        )
        return f'{self.type}::"{escaped}"'


# Held by the verifier and by `agentguard.testing` alone: what keeps an invocation from
# being built by hand.
VERIFIED: Final = object()


# Compared and hashed by identity: a cache keyed by an invocation can then never be
# hit by another one that merely names the same run.
@dataclass(frozen=True, slots=True, kw_only=True, eq=False, weakref_slot=True)
class Invocation:
    """The verified identity of one run of one agent: the Cedar principal.

    Built by verification alone; `agentguard.testing.unsafe_invocation` is the one
    other way, and says what it is.

    Attributes:
        run_id: The run, constant across renewal of its token. Like *agent*, *user* and
            *task*, it begins with *prefix*.
        issuer: The ``iss`` that vouches for it.
        agent: The workload that acts now.
        grade: How distinct the identity is.
        issued_at: When the run began, unix seconds.
        ends_at: The end of this authority, unix seconds: the token's end with its
            leeway, never past the run's end.
        run_ends_at: The run's absolute end, unix seconds, as the token gave it.
        token_id: ``jti`` (or ``uti``); empty for an ancestor.
        client_id: The OAuth client.
        subject: ``sub``.
        user: On whose behalf, when somebody.
        task: The task, when named.
        purpose: The purpose, when named.
        scopes: The OAuth scopes.
        claims: What the issuer's configuration maps, by attribute name.
        grant: Cedar text that bounds this run; None for a foreign token.
        ancestors: Who delegated to this run, root first, each complete.
        transaction: ``txn``; correlates, decides nothing.
        prefix: What this server puts before ids, such as ``corp|``, so that two issuers'
            alices stay two; its issuer and the stores know the ids without it.
    """

    run_id: str
    issuer: str
    agent: str
    grade: Grade
    issued_at: int
    ends_at: float
    run_ends_at: int
    token_id: str = ""
    client_id: str = ""
    subject: str = ""
    user: str | None = None
    task: str | None = None
    purpose: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Claim] = field(default_factory=lambda: _NO_CLAIMS)
    grant: str | None = None
    ancestors: tuple[Invocation, ...] = ()
    transaction: str | None = None
    prefix: str = ""
    seal: InitVar[object] = None

    def __post_init__(self, seal: object) -> None:
        if seal is not VERIFIED:
            message = (
                "an invocation is built by verifying a token: "
                "in a test, use agentguard.testing.acting_as or unsafe_invocation"
            )
            raise TypeError(message)

    @property
    def chain(self) -> tuple[Invocation, ...]:
        """Every link that must be allowed, root first, this run last."""
        return (*self.ancestors, self)

    @property
    def delegation_depth(self) -> int:
        """The number of ancestors."""
        return len(self.ancestors)

    @property
    def lifetime(self) -> int:
        """Seconds from the run's beginning to its absolute end."""
        return self.run_ends_at - self.issued_at


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessRequest:
    """One question for the engine: may this invocation do this, to this, in this context?

    Attributes:
        invocation: Who asks, with the whole chain of delegation.
        action: The Cedar action's id: a tool's name, or ``resources/read``.
        resource: What is acted on.
        context: Cedar JSON for the ``context`` record.
        entities: Cedar JSON entities that were loaded for this call, the resource
            among them unless it is the tool itself.
        runs: ``context.run`` for each link of the chain, root first; empty where that of
            *context* is for all of them.
    """

    invocation: Invocation
    action: str
    resource: EntityUid
    context: Mapping[str, object]
    entities: tuple[Mapping[str, object], ...] = ()
    runs: tuple[Mapping[str, object], ...] = ()

    def of_link(self, depth: int, context: Mapping[str, object] | None = None) -> Mapping[str, object]:
        """Return the context that a link of the chain is judged in: with what its own run has done.

        Args:
            depth: The link, root 0.
            context: What to judge in otherwise; None for the request's own.
        """
        whole = self.context if context is None else context
        return {**whole, "run": self.runs[depth]} if self.runs else whole


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The answer to an `AccessRequest`, or to a call that never became one.

    Attributes:
        effect: Allow or deny.
        reason: Why, one of the closed list.
        policy_ids: The ids of the policies that determined it, sorted.
        policy_version: The digest of the policies that were asked; empty if none were.
        errors: Evaluation errors, for the evidence alone.
        advice: What the deciding policy says to the caller, if it says anything.
        link: Which link of the delegation chain decided, root 0.
        scopes: Every scope that the call needs, if all that stops it is that the token lacks some.
        id: The decision's name in evidence and in what the caller is told.
        missing: The entity that was not there, if that is why; no caller learns of it.
    """

    effect: Effect
    reason: Reason
    policy_ids: tuple[str, ...] = ()
    policy_version: str = ""
    errors: tuple[str, ...] = ()
    advice: str | None = None
    link: int = 0
    scopes: tuple[str, ...] = ()
    id: str = ""
    missing: EntityUid | None = None

    @property
    def allowed(self) -> bool:
        """Whether the effect is exactly allow."""
        return self.effect is Effect.ALLOW


_SHOWN: Final = 256


def not_there(missing: EntityUid) -> str:
    """Return what is said of an entity that is not there, by its type alone."""
    return f"an entity of type `{missing.type}` is not there: list it in cedarentities.json, or give its type a loader"


def naming(text: str, missing: EntityUid | None) -> str:
    """Return what `not_there` is part of, with the entity's id, for whoever may know it."""
    if missing is None:
        return text
    named = str(missing)
    named = named if len(named) <= _SHOWN else f"{named[:_SHOWN]}…"
    return text.replace(f"an entity of type `{missing.type}` is", f"`{named}` is", 1)


_CANONICAL: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def printable(text: str) -> str:
    """Return *text* with what is no sign of its own replaced: a name must not steer a terminal or begin a log line."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text)


def canonical_json(value: object) -> str:
    """Return JSON with sorted keys, no blanks, ASCII alone: one text for one value.

    Raises:
        ValueError: For NaN and infinities, which JSON does not have.
    """
    return _CANONICAL.encode(value)
