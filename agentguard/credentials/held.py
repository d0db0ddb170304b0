"""A credential that a broker gave for a run, and those that are held, found by what ends them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from agentguard.credentials.containment import runs_for_another
from agentguard.credentials.credential import Credential
from agentguard.evidence.record import run_attributes
from agentguard.lifecycle.ended import Kind, named, run_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.credentials.broker import CredentialRequest, IssuedCredential
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.lifecycle.ended import Ended
    from agentguard.lifecycle.tally import Run
    from agentguard.model import Invocation

Key = tuple[object, ...]
"""What a lease is for: a run, all that its token says of who acts and what for, and a credential's name."""

# A lease is renewed when so much of its life is left: this share of it, and no fewer
# seconds, but never before half of it is over.
_SHARE: Final = 0.1
_SECONDS: Final = 30.0
_MOST: Final = 0.5
# While it cannot be renewed, it serves until this much is left: a tool has to come to use it.
_LEEWAY_SECONDS: Final = 5.0
# Whoever made it may have a clock that is behind: until then it counts as good when it comes to giving it back.
_SKEW_SECONDS: Final = 30.0


class Event(StrEnum):
    """What became of a credential, as it is recorded."""

    ISSUED = "issued"
    RENEWED = "renewed"
    RELEASED = "released"
    RELEASE_FAILED = "release_failed"


def holder_of(invocation: Invocation) -> Key:
    """Return who acts in a run, and for whom: what no token of it changes, nor what a server puts before ids."""
    who = (named(invocation, Kind.AGENT), named(invocation, Kind.USER), invocation.subject)
    return (*run_of(invocation), *who)


def key_of(request: CredentialRequest) -> Key:
    """Return what a request asks for a lease of.

    An issuer may tell runs apart by what two users share, and one run may have tokens that
    differ in what they are good for: what a broker gave for one of them is for no other.
    """
    own = request.invocation
    what_for = (own.client_id, own.task, own.purpose, own.scopes, own.grant, frozenset(own.claims.items()))
    return (*holder_of(own), *what_for, request.name)


@dataclass(slots=True, eq=False, kw_only=True)
class Lease:
    """One credential that a broker gave for one run.

    Attributes:
        key: What it is for.
        name: The credential.
        invocation: The run.
        issued: What the broker gave.
        until: The run's end, unix seconds; another token of the run may put it off.
        got_at: When it came, unix seconds.
        since: The same in seconds that never run backwards.
        again: When it may be renewed again after that failed, likewise.
        superseded: Whether another one came in its place.
        given_back: Whether it was, or is about to be.
        heir: What took its place under the same lease id: what ends that ends both.
    """

    key: Key
    name: str
    invocation: Invocation
    issued: IssuedCredential
    until: float
    got_at: float
    since: float
    again: float = 0.0
    superseded: bool = False
    given_back: bool = False
    heir: Lease | None = None

    @property
    def secrets(self) -> tuple[str, ...]:
        """What nobody else may see."""
        return self.issued.secrets

    @property
    def life(self) -> float:
        """How many seconds it was good for when it came."""
        return self.issued.expires_at - self.got_at

    def left(self, now: float, tick: float) -> float:
        """Return how many seconds it is still good for: the fewer of two clocks, one of which may be set back."""
        return min(self.issued.expires_at - now, self.life - (tick - self.since))

    def serves(self, now: float, tick: float) -> bool:
        """Return whether it may be used, although it is to be renewed."""
        return self.left(now, tick) > min(_LEEWAY_SECONDS, self.margin / 2)

    def is_fresh(self, now: float, tick: float) -> bool:
        """Return whether it may be used, and nothing is to be renewed now."""
        if tick < self.again:
            return self.serves(now, tick)
        # One that outlasts its run gains nothing.
        return self.left(now, tick) > (0.0 if self.until <= self.issued.expires_at else self.margin)

    @property
    def margin(self) -> float:
        """With how many seconds left it is renewed."""
        return min(max(_SECONDS, _SHARE * self.life), _MOST * self.life)

    def is_over(self, now: float, tick: float) -> bool:
        """Return whether it is to be given back: its run is over, or nothing can renew it any more."""
        return not now < self.until or (self.superseded and not self.left(now, tick) > 0)

    def is_spent(self, now: float, tick: float) -> bool:
        """Return whether nothing of it is good any more, so that there is nothing to give back.

        By both clocks: one may have been set forward.
        """
        left = max(self.issued.expires_at - now, self.life - (tick - self.since))
        return self.issued.renewal is None and not left > -_SKEW_SECONDS

    def credential(self, until: float) -> Credential:
        """Return what a tool gets, which is good until the run's end at most."""
        end, kind = min(self.issued.expires_at, until), self.issued.token_type
        return Credential(self.issued.secret, name=self.name, expires_at=end, token_type=kind, problem=self._problem)

    def _problem(self) -> str | None:
        """Return why a credential that some tool kept may not be used here and now."""
        last = self
        while last.heir is not None:
            last = last.heir
        if last.given_back:
            return "is over"
        return "was made for another run" if runs_for_another(holder_of(self.invocation)) else None

    def attributes(self, event: Event) -> dict[str, AttributeValue]:
        """Return what is kept of it: who has which credential, for how long, and never the secret."""
        return {
            **run_attributes(self.invocation),
            "agentguard.credential.name": self.name,
            "agentguard.credential.event": event.value,
            "agentguard.credential.lease_id": self.issued.lease_id,
            "agentguard.credential.expires_at": int(self.issued.expires_at),
        }


class Held:
    """The leases that nobody gives back yet. Added to by one thread alone, asked and taken out of by any."""

    def __init__(self) -> None:
        # For each run: the leases of it, and of the runs below it.
        self._below: dict[Run, dict[Lease, None]] = {}
        self._every: dict[Lease, None] = {}

    def __len__(self) -> int:
        """Return how many there are."""
        return len(self._every)

    def __iter__(self) -> Iterator[Lease]:
        """Iterate over those that there are now."""
        return iter(list(self._every))

    def __contains__(self, lease: Lease) -> bool:
        """Return whether a lease is held."""
        return lease in self._every

    def add(self, lease: Lease) -> None:
        """Hold one more."""
        self._every[lease] = None
        for link in lease.invocation.chain:
            self._below.setdefault(run_of(link), {})[lease] = None

    def remove(self, lease: Lease) -> bool:
        """Hold it no more, and return whether it was held."""
        # In one step: whoever closes while the worker's thread is held up is another one.
        if self._every.pop(lease, lease) is lease:
            return False
        for run in {run_of(link) for link in lease.invocation.chain}:
            below = self._below.get(run, {})
            below.pop(lease, None)
            if not below:
                self._below.pop(run, None)
        return True

    def ended(self, ended: Ended) -> list[Lease]:
        """Return the leases of every run that was ended by itself, or from above."""
        near = self._below.get((ended.issuer, ended.name), {}) if ended.kind is Kind.RUN else self._every
        return [lease for lease in list(near) if ended.matches(lease.invocation)]
