"""For tests of guarded tools: act as an invocation that no issuer vouched for."""

from __future__ import annotations

import logging
import time
import uuid
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Final, TypedDict, Unpack

from agentguard.model import VERIFIED, Claim, Grade, Invocation
from agentguard.steps.call import ACTING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_LOG: Final = logging.getLogger("agentguard")
_HOUR: Final = 3600


class Facts(TypedDict, total=False):
    """What can be said of an invocation; see `Invocation` for each."""

    run_id: str
    issuer: str
    grade: Grade
    issued_at: int
    ends_at: float
    run_ends_at: int
    token_id: str
    client_id: str
    subject: str
    user: str | None
    task: str | None
    purpose: str | None
    scopes: frozenset[str]
    claims: Mapping[str, Claim]
    grant: str | None
    ancestors: tuple[Invocation, ...]
    prefix: str


def unsafe_invocation(agent: str, *, at: float | None = None, **facts: Unpack[Facts]) -> Invocation:
    """Return an invocation that nobody verified.

    Args:
        agent: The agent.
        at: When its run begins, unix seconds; now, if left out. For a guard with a clock
            of its own, what that clock says.
        facts: Anything else; by default, a run of its own that began now and ends in an hour.
    """
    now = int(time.time() if at is None else at)
    facts.setdefault("run_id", f"test-{uuid.uuid4().hex}")
    facts.setdefault("issuer", "urn:agentguard:testing")
    facts.setdefault("grade", Grade.RUN)
    facts.setdefault("issued_at", now)
    facts.setdefault("run_ends_at", now + _HOUR)
    facts.setdefault("ends_at", float(facts["run_ends_at"]))
    facts.setdefault("client_id", agent)
    facts.setdefault("subject", facts.get("user") or agent)
    return Invocation(agent=agent, seal=VERIFIED, **facts)


@contextmanager
def acting_as(agent: str, *, at: float | None = None, **facts: Unpack[Facts]) -> Iterator[Invocation]:
    """Call guarded tools as this agent, inside the ``with`` block.

    It holds for guarded functions that are called directly, and for calls through an
    in-memory ``Client(server)``, one that is open already included. It never holds for a
    request that came over HTTP, and cannot be reached from another process.

    Args:
        agent: The agent.
        at: As for `unsafe_invocation`; likewise all others.
        facts: Anything else.
    """
    invocation = unsafe_invocation(agent, at=at, **facts)
    _warn_once()
    acting = ACTING.set(invocation)
    try:
        yield invocation
    finally:
        ACTING.reset(acting)


@cache
def _warn_once() -> None:
    _LOG.warning("acting as agents without tokens: this process runs tests")
