"""A call that somebody supposes: who calls, what, with what, and when."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from agentguard.lifecycle.tally import Tally
from agentguard.model import Grade
from agentguard.testing import unsafe_invocation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.model import Claim, Invocation
    from agentguard.policy.conversion.scalars import CedarJson

LIFETIME: Final = 900
"""How long a run lasts where nothing else is said, in seconds."""

ISSUER: Final = "urn:agentguard:supposed"
"""Who vouches for a run where nothing else is said."""

_UTC: Final = ZoneInfo("UTC")
_FRESH: Final = Tally()
_NOTHING: Final[Mapping[str, Claim]] = MappingProxyType({})


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """Who is supposed to call: what a verified token would say.

    Attributes:
        agent: The agent.
        user: On whose behalf, if somebody's.
        task: The task, if one is named.
        purpose: The purpose, if one is named.
        grade: How distinct the identity is.
        scopes: The token's scopes.
        claims: What the issuer's configuration maps, by attribute name.
        issuer: Who vouches for it.
        lifetime: From the run's beginning to its end, in seconds.
        age: How long ago the run began, in seconds.
        grant: Cedar text that bounds the run; None for a token that has none.
        run: What the run has done before; of tools, `THIS_TOOL` is the one that is called.
        ancestors: Who delegated to it, root first; what they have for ancestors is not looked at.
    """

    agent: str
    user: str | None = None
    task: str | None = None
    purpose: str | None = None
    grade: Grade = Grade.RUN
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Claim] = field(default_factory=lambda: _NOTHING)
    issuer: str = ISSUER
    lifetime: int = LIFETIME
    age: int = 0
    grant: str | None = None
    run: Tally = _FRESH
    ancestors: tuple[Identity, ...] = ()

    def invocation(self, now: float) -> Invocation:
        """Return it as the guard has it, at a time in unix seconds."""
        links: list[Invocation] = []
        for link in (*self.ancestors, self):
            began = int(now) - link.age
            links.append(
                unsafe_invocation(
                    link.agent,
                    run_id=f"supposed-{len(links)}",
                    issuer=link.issuer,
                    grade=link.grade,
                    issued_at=began,
                    run_ends_at=began + link.lifetime,
                    user=link.user,
                    task=link.task,
                    purpose=link.purpose,
                    scopes=link.scopes,
                    claims=link.claims,
                    grant=link.grant,
                    ancestors=tuple(links),
                )
            )
        return links[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class SupposedCall:
    """A call that somebody supposes.

    Attributes:
        identity: Who calls.
        action: The tool, or what else is called.
        input: The arguments as policies would see them, in Cedar JSON; an argument that no
            policy sees may be among them where it names the resource.
        facts: What the tool's declared function would add, in Cedar JSON.
        entities: What loaders would answer, as Cedar JSON entities; where a type has no loader,
            what ``cedarentities.json`` would list too.
        approval: ``context.approval``, if a person is supposed to say yes when asked.
        now: When, unix seconds.
        environment: ``context.environment``.
        transport: ``context.transport``.
        time_zone: Where ``context.local`` holds.
    """

    identity: Identity
    action: str
    input: Mapping[str, CedarJson]
    facts: Mapping[str, CedarJson] | None = None
    entities: tuple[Mapping[str, object], ...] = ()
    approval: Mapping[str, CedarJson] | None = None
    now: float
    environment: str = "production"
    transport: str = "http"
    time_zone: ZoneInfo = _UTC
