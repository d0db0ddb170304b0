"""What can be ended: one run, or every run of an agent, a user, a task or an issuer."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Protocol, Required, TypedDict, Unpack

from agentguard.errors import ConfigurationError

if TYPE_CHECKING:
    from agentguard.model import Invocation

_REASON_CHARACTERS: Final = 256


class Kind(StrEnum):
    """What a revocation names."""

    RUN = "run"
    AGENT = "agent"
    USER = "user"
    TASK = "task"
    ISSUER = "issuer"


class Link(Protocol):
    """What a revocation is compared with: one link of a delegation chain, or a run on record."""

    @property
    def prefix(self) -> str:
        """What a server put before the ids; `named` gives them as their issuer does."""

    @property
    def issuer(self) -> str:
        """The issuer that vouches for the run."""

    @property
    def run_id(self) -> str:
        """The run."""

    @property
    def agent(self) -> str:
        """The workload that acts."""

    @property
    def user(self) -> str | None:
        """On whose behalf."""

    @property
    def task(self) -> str | None:
        """The task."""

    @property
    def issued_at(self) -> int:
        """When the run began, unix seconds."""

    @property
    def ends_at(self) -> float:
        """When the authority ends, unix seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What was ended. It never covers another issuer's runs.

    Attributes:
        issuer: The issuer of the runs.
        kind: What is named.
        name: The run, agent, user or task, as the issuer names it; empty for an issuer.
        cutoff: Runs that began before this are ended, unix seconds, leeway included;
            None ends later ones too.
    """

    issuer: str
    kind: Kind = Kind.RUN
    name: str = ""
    cutoff: float | None = None

    @property
    def key(self) -> tuple[str, Kind, str]:
        """What is named, whatever the cutoff."""
        return (self.issuer, self.kind, self.name)

    def matches(self, invocation: Invocation) -> bool:
        """Return whether this ends *invocation*, by any link of its chain."""
        return any(self.covers(link) for link in invocation.chain)

    def covers(self, link: Link) -> bool:
        """Return whether this ends *link* by itself."""
        if link.issuer != self.issuer or not (self.cutoff is None or link.issued_at < self.cutoff):
            return False
        return self.kind is Kind.ISSUER or self.name == named(link, self.kind)


def named(link: Link, kind: Kind) -> str | None:
    """Return the run, agent, user or task of *link*, as its issuer names it.

    Whoever ends something in a shared store knows what the issuer knows, and not what
    each server puts before ids.
    """
    match kind:
        case Kind.RUN:
            name: str | None = link.run_id
        case Kind.AGENT:
            name = link.agent
        case Kind.USER:
            name = link.user
        case _:
            name = link.task
    return None if name is None else name.removeprefix(link.prefix)


def run_of(link: Link) -> tuple[str, str]:
    """Return what a store knows a run by: its issuer, and its id as the issuer gave it."""
    return (link.issuer, link.run_id.removeprefix(link.prefix))


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """How something was ended before its time.

    Attributes:
        reason: Why, in the words of whoever ended it first.
        at: When, unix seconds.
        until: When it may be forgotten, because nothing that it ends can be valid then.
    """

    reason: str
    at: float
    until: float | None = None


class Ending(TypedDict, total=False):
    """What may be said of an end; see `Store.revoke_all`."""

    issuer: Required[str]
    kind: Required[Kind]
    name: str
    issued_before: float | None
    reason: str
    until: float | None


def ending(*, leeway: float, now: float, **what: Unpack[Ending]) -> tuple[Ended, Revocation]:
    """Return what a request to end something covers, and what is to be kept of it.

    Raises:
        ConfigurationError: It names nothing, or nothing that could be stored.
    """
    issuer, kind, name = what["issuer"], what["kind"], what.get("name", "")
    issued_before, until = what.get("issued_before"), what.get("until")
    if (kind is Kind.ISSUER) is not (name == ""):
        wanted = "no `name`: leave it out" if kind is Kind.ISSUER else f"a `name`: name the {kind}"
        message = f"ending the runs of an issuer's {kind} wants {wanted}"
        raise ConfigurationError(message)
    if issued_before is not None and not math.isfinite(issued_before):
        message = f"`issued_before` wants unix seconds, got `{issued_before}`: leave it out to end later runs too"
        raise ConfigurationError(message)
    for text in (issuer, name):
        try:
            text.encode()
        except UnicodeEncodeError:
            message = f"an id wants text that can be stored, got `{text!a}`: no token can carry it"
            raise ConfigurationError(message) from None
    cutoff = None if issued_before is None else issued_before + leeway
    # What is no moment is kept for ever.
    until = until if until is not None and math.isfinite(until) else None
    # A revocation must not fail for its wording.
    reason = what.get("reason", "")[:_REASON_CHARACTERS].encode("utf-8", "replace").decode()
    return (
        Ended(issuer=issuer, kind=kind, name=name, cutoff=cutoff),
        Revocation(reason=reason, at=now, until=until),
    )
