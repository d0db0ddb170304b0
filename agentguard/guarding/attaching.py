"""What a guard was given, and how it begins to judge one server by it."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from agentguard.adapters.elicitation import Rounds
from agentguard.adapters.mcp import Adapter
from agentguard.credentials.containment import stops
from agentguard.credentials.leases import Leases
from agentguard.credentials.live import Place
from agentguard.credentials.logs import LOGS
from agentguard.enforce import Enforcer, Setting
from agentguard.errors import ConfigurationError
from agentguard.evidence.record import setting_attributes
from agentguard.evidence.trail import Trail
from agentguard.evidence.vocabulary import RecordKind
from agentguard.guarding.gate import Lender
from agentguard.live.reloading import versions_of
from agentguard.steps.running import IN_SPANS

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextvars import ContextVar

    from agentguard.approval import Approver
    from agentguard.credentials.broker import CredentialBroker
    from agentguard.evidence.metrics import Metrics
    from agentguard.evidence.spans import Spans
    from agentguard.guarding.gate import Gate
    from agentguard.guarding.rulebook import Rulebook
    from agentguard.identity.sources import EnvironmentSource
    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.limits import Limits
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.policy.deciding.entities import Loaders
    from agentguard.state import State
    from agentguard.steps.call import Call


def zone_of(name: str) -> ZoneInfo:
    """Return a time zone.

    Raises:
        ConfigurationError: If nobody knows it.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        message = f"time zone `{name}` is not known: use an IANA name such as `Europe/Zurich`"
        raise ConfigurationError(message) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class Attaching:
    """What a guard was given, of all that it judges with.

    Attributes:
        verifier: Whose tokens it believes.
        loaders: Who knows entities.
        limits: The bounds.
        environment: ``context.environment``.
        zone: The zone of ``context.local``.
        approver: Who is asked in place of the caller's own client.
        broker: What gives credentials.
        spans: Where spans come from.
        metrics: Where metrics go.
        clock: Gives unix seconds.
        call: The request that is being answered.
    """

    verifier: InvocationVerifier
    loaders: Loaders
    limits: Limits
    environment: str
    zone: ZoneInfo
    approver: Approver | None
    broker: CredentialBroker | None
    spans: Spans
    metrics: Metrics
    clock: Callable[[], float]
    call: ContextVar[Call | None]

    def trail(self, state: State, private: frozenset[str]) -> Trail:
        """Return where the evidence goes."""
        return Trail(
            ledger=state.ledger,
            spans=self.spans,
            metrics=self.metrics,
            key=state.key,
            private=private,
            clock=self.clock,
            entropy=secrets.token_bytes,
            stops=partial(stops, place=Place.RECORD),
        )

    def enforcer(
        self, state: State, trail: Trail, server: str, policies: PolicySet, shadow: PolicySet | None
    ) -> Enforcer:
        """Return what judges a server, once it is on record that it begins to.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE.
        """
        setting = Setting(
            store=state.store,
            trail=trail,
            loaders=self.loaders,
            server=server,
            limits=self.limits,
            environment=self.environment,
            time_zone=self.zone,
            clock=self.clock,
            approver=self.approver,
            prefixes=tuple(self.verifier.prefixes.values()),
        )
        set_up = setting_attributes(environment=self.environment, time_zone=self.zone.key)
        trail.keep(RecordKind.START, {**versions_of(policies, shadow), **set_up})
        enforcer = Enforcer(setting, policies)
        enforcer.shadow.shade(shadow)
        return enforcer

    def install(
        self, gate: Gate, book: Rulebook, enforcer: Enforcer, state: State, environment: EnvironmentSource | None
    ) -> None:
        """Begin to judge: from here on every message of the server passes by the guard."""
        gate.enforcer = enforcer
        trail = enforcer.trail
        if self.broker is not None and book.credentials is not None:
            leases = Leases(
                self.broker,
                store=state.store,
                keep=trail.keep,
                clock=self.clock,
                limits=self.limits,
                leaked=trail.leaked,
            )
            gate.lender = Lender(leases, book.credentials)
        LOGS.install()
        trail.spans.look_through(IN_SPANS)
        Adapter(
            book,
            enforcer,
            environment=environment,
            verifier=self.verifier,
            current=self.call,
            clock=self.clock,
            limits=self.limits,
            rounds=Rounds(state.key, limits=self.limits, clock=self.clock),
        ).install()
