"""What is said of a run: in its tokens, on record, and in the tokens of its children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from agentguard.lifecycle.states import RunRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.model import Claim, Invocation


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What stays the same in all tokens of a run.

    Attributes:
        run_id: The run.
        agent: The workload that acts.
        grant: Cedar text that bounds it.
        audience: The one server that it is for.
        began: When it began, unix seconds.
        ends_at: Its absolute end, unix seconds.
        user: On whose behalf, when somebody.
        task: The task.
        purpose: The purpose.
        scopes: OAuth scopes.
        claims: Further claims, for policies that read them.
        ancestors: Who delegated to it, root first, as the token has it.
    """

    run_id: str
    agent: str
    grant: str
    audience: str
    began: int
    ends_at: int
    user: str | None = None
    task: str | None = None
    purpose: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Claim] = field(default_factory=dict)
    ancestors: tuple[Mapping[str, object], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A token, with what a server reads in it.

    Attributes:
        token: Its text.
        invocation: The identity that it proves.
        expires_at: Its own end, unix seconds.
    """

    token: str = field(repr=False)
    invocation: Invocation
    expires_at: int


class Signer(Protocol):
    """Who signs a run's tokens."""

    def __call__(self, facts: Facts, *, now: int) -> Issued:
        """Sign a token that begins *now*.

        Raises:
            ConfigurationError: No server would accept it.
            Refusal: The store says that no token is to be had, or does not know.
        """
        ...


def as_record(invocation: Invocation) -> RunRecord:
    """Return a run as a store records it."""
    return RunRecord(
        issuer=invocation.issuer,
        run_id=invocation.run_id,
        agent=invocation.agent,
        issued_at=invocation.issued_at,
        ends_at=float(invocation.run_ends_at),
        user=invocation.user,
        task=invocation.task,
        purpose=invocation.purpose,
        ancestors=tuple(link.run_id for link in invocation.ancestors),
    )


def as_ancestor(link: Invocation) -> dict[str, object]:
    """Return a link's complete facts as the ``ancestors`` claim has them."""
    optional = {
        "user": link.user,
        "task": link.task,
        "purp": link.purpose,
        "claims": {
            name: sorted(value) if isinstance(value, frozenset) else value for name, value in link.claims.items()
        }
        or None,
    }
    return {
        "iss": link.issuer,
        "run": link.run_id,
        "agent": link.agent,
        "scope": sorted(link.scopes),
        "grade": link.grade.value,
        "iat": link.issued_at,
        "exp": link.run_ends_at,
        "grant": link.grant,
        **{name: value for name, value in optional.items() if value is not None},
    }
