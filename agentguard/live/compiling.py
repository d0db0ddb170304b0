"""Compile policies for what a server offers, and take what was compiled into force.

Two things change while a server runs: what it offers, which is learned on its event loop,
and the policy folder, which is read in a thread. Each compiles everything, which takes up
to seconds, with what the other one had by then. So nothing is locked while something is
compiled, and what was compiled with something that is not so any more is compiled again.
"""

from __future__ import annotations

import logging
import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError, PolicyError, raised
from agentguard.policy.files.source import PolicySet, compile_policies

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from agentguard.limits import Limits
    from agentguard.policy.deciding.entities import Loaders
    from agentguard.policy.files.source import PolicySource
    from agentguard.policy.schemas.schema import GuardedTool

_LOG: Final = logging.getLogger("agentguard")


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What policies are compiled with. All but the sources and the label is fixed when the guard is built."""

    source: PolicySource
    shadow: PolicySource | None = None
    loaders: Loaders
    claims: Mapping[str, type]
    limits: Limits
    label: str | None


class Compiling:
    """Compiles for one server.

    Attributes:
        terms: What the policies in force were compiled with.
        tools: All that the server offers, as far as it is learned; another tuple when that changes.
        adopt: Takes policies into force; the guard sets it, once it has begun.
        shade: Takes what is judged by in the shadow, None for nothing; the guard sets it too.
    """

    adopt: Callable[[PolicySet], None]
    shade: Callable[[PolicySet | None], None]

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.tools: tuple[GuardedTool, ...] = ()
        # Held to take something into force, and never while it is compiled.
        self._taking = threading.Lock()

    def begin(self, tools: Sequence[GuardedTool]) -> tuple[PolicySet, PolicySet | None]:
        """Return what judges *tools*, and what does in the shadow.

        Raises:
            PolicyError: One of them does not fit the tools.
            ConfigurationError: What the guard was given does not fit them.
        """
        terms = self.terms
        policies = self._compiled(terms.source, tools, terms.label)
        shadow = None if terms.shadow is None else self._compiled(terms.shadow, tools, None)
        self.tools = tuple(tools)
        return policies, shadow

    def learn(self, tools: Sequence[GuardedTool], taken: Callable[[], None]) -> Exception | None:
        """Judge *tools* from now on, or return why that cannot be.

        Args:
            tools: All that the server offers.
            taken: Called as soon as that is in force, before anything else is taken.

        Raises:
            Refusal: EVIDENCE_UNAVAILABLE, if that cannot be kept; the old ones stay in force.
        """
        while True:
            terms = self.terms
            try:
                policies = self._compiled(terms.source, tools, terms.label)
            except (PolicyError, ConfigurationError) as error:
                return error
            shadow = None if terms.shadow is None else self._shadow_of(terms.shadow, tools)
            with self._taking:
                if self.terms is terms:
                    self.adopt(policies)
                    self.tools = tuple(tools)
                    taken()
                    self.shade(shadow)
                    return None

    def renew(self, source: PolicySource, label: str | None) -> None:
        """Judge by *source* from now on, from whichever thread this is.

        Raises:
            PolicyError: It does not fit what the server offers.
            ConfigurationError: What the guard was given does not fit it.
            Refusal: EVIDENCE_UNAVAILABLE, if that cannot be kept; the old ones stay in force.
        """

        def take(policies: PolicySet) -> None:
            self.adopt(policies)

        self._renew(replace(self.terms, source=source, label=label), source, label, take)

    def renew_shadow(self, source: PolicySource, keep: Callable[[PolicySet], None]) -> None:
        """Judge by *source* in the shadow, if *keep* can keep that; errors as for `renew`."""

        def take(policies: PolicySet) -> None:
            keep(policies)
            self.shade(policies)

        self._renew(replace(self.terms, shadow=source), source, None, take)

    def after_fork(self) -> None:
        """Go on in the child of a fork: whoever held the lock is not there."""
        self._taking = threading.Lock()

    def _renew(self, to: Terms, source: PolicySource, label: str | None, take: Callable[[PolicySet], None]) -> None:
        while True:
            tools = self.tools
            policies = self._compiled(source, tools, label)
            with self._taking:
                # Nothing but a reload changes the terms, and these take turns.
                if self.tools is tools:
                    take(policies)
                    self.terms = to
                    return

    def _shadow_of(self, source: PolicySource, tools: Sequence[GuardedTool]) -> PolicySet | None:
        """Return what judges in the shadow; nothing does if it does not fit, which is no reason to learn nothing."""
        try:
            return self._compiled(source, tools, None)
        except Exception as error:  # noqa: BLE001  what nobody expected of it touches no call either
            why = error if isinstance(error, PolicyError | ConfigurationError) else raised(error)
            _LOG.error("nothing is judged in the shadow until its policies are mended: %s", why)
            return None

    def _compiled(self, source: PolicySource, tools: Sequence[GuardedTool], label: str | None) -> PolicySet:
        terms = self.terms
        try:
            return compile_policies(
                source,
                tools,
                loaders=terms.loaders.types,
                claims=terms.claims,
                limits=terms.limits,
                label=label,
            )
        except PolicyError as error:
            raise error.within(Path(source.folder)) from None
