"""What is said of a run: in its tokens, on record, and in the tokens of its children."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, cast

from agentguard.errors import ConfigurationError
from agentguard.lifecycle.ended import Kind, named, run_of
from agentguard.lifecycle.states import RunRecord
from agentguard.limits import Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.model import Claim, Invocation

_LIMITS: Final = Limits()

OWN_CLAIMS: Final = frozenset(
    {
        "act",
        "ancestors",
        "aud",
        "authorization_details",
        "client_id",
        "exp",
        "iat",
        "iss",
        "jti",
        "purp",
        "run",
        "run_exp",
        "run_iat",
        "scope",
        "sub",
        "task",
    }
)
"""The claims of a token that say what `Facts` has a name for; all others are further claims."""

TOKEN_SECONDS: Final = 300
"""How long a token lasts where nothing else is said."""


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
        client: The OAuth client that holds its tokens, where that is not the agent.
        task: The task.
        purpose: The purpose.
        scopes: OAuth scopes.
        claims: Further claims, for policies that read them.
        ancestors: Who delegated to it, root first, as the token has it.
        token_lifetime: Seconds from a token's beginning to its end, which is never past the run's.
    """

    run_id: str
    agent: str
    grant: str
    audience: str
    began: int
    ends_at: int
    user: str | None = None
    client: str | None = None
    task: str | None = None
    purpose: str | None = None
    scopes: frozenset[str] = frozenset()
    claims: Mapping[str, Claim] = field(default_factory=dict)
    ancestors: tuple[Mapping[str, object], ...] = ()
    token_lifetime: int = TOKEN_SECONDS


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


def whole_seconds(name: str, given: object) -> int:
    """Return a time that is given in seconds.

    Raises:
        ConfigurationError: It is no whole number.
    """
    if type(given) is not int:
        message = f"`{name}` wants seconds, a whole number, got `{given}`: write 3600 for an hour"
        raise ConfigurationError(message)
    return given


def as_facts(claims: Mapping[str, object], invocation: Invocation) -> Facts:
    """Return what a token of our own says of its run.

    Args:
        claims: The claims of the token, which were verified.
        invocation: What verifying it gave.
    """
    further = {name: value for name, value in claims.items() if name not in OWN_CLAIMS}
    return Facts(
        run_id=invocation.run_id,
        agent=invocation.agent,
        grant=cast("str", invocation.grant),
        audience=cast("str", claims["aud"]),
        began=invocation.issued_at,
        ends_at=invocation.run_ends_at,
        user=invocation.user,
        client=None if invocation.client_id == invocation.agent else invocation.client_id,
        task=invocation.task,
        purpose=invocation.purpose,
        scopes=invocation.scopes,
        claims={
            name: frozenset(value) if isinstance(value, list) else cast("Claim", value)
            for name, value in further.items()
        },
        # As the token has them: what we know of an ancestor's claims is what it says.
        ancestors=tuple(cast("list[Mapping[str, object]]", claims.get("ancestors", []))),
    )


def act_of(facts: Facts) -> dict[str, object] | None:
    """Return the ``act`` claim: who acts, and inside it who delegated, nearest first (RFC 8693 section 4.1).

    None for an agent that acts for nobody, by nobody's delegation and with tokens of its own.
    """
    if facts.user is None and facts.client in {None, facts.agent} and not facts.ancestors:
        return None
    act: dict[str, object] | None = None
    # A chain that is longer than servers accept is refused for its ancestors, not for this.
    above = facts.ancestors[-_LIMITS.ancestors :]
    for agent in (*(link.get("agent") for link in above), facts.agent):
        act = {"sub": agent} if act is None else {"sub": agent, "act": act}
    return act


class Signer(Protocol):
    """Who signs a run's tokens."""

    def __call__(self, facts: Facts, *, now: int) -> Issued:
        """Sign a token that begins *now*.

        Raises:
            ConfigurationError: No server would accept it.
            Refusal: The store says that no token is to be had, or does not know.
        """
        ...


def as_record(invocation: Invocation, *, audience: str = "") -> RunRecord:
    """Return a run, for the server *audience*, as a store records it: by the ids that its issuer gave."""
    return RunRecord(
        issuer=invocation.issuer,
        run_id=run_of(invocation)[1],
        agent=invocation.agent.removeprefix(invocation.prefix),
        issued_at=invocation.issued_at,
        ends_at=float(invocation.run_ends_at),
        user=named(invocation, Kind.USER),
        task=named(invocation, Kind.TASK),
        purpose=invocation.purpose,
        audience=audience,
        ancestors=tuple(run_of(link)[1] for link in invocation.ancestors),
    )


def as_ancestor(link: Invocation) -> dict[str, object]:
    """Return a link's complete facts as the ``ancestors`` claim has them."""
    optional = {
        "user": named(link, Kind.USER),
        "task": named(link, Kind.TASK),
        "purp": link.purpose,
        "claims": {
            name: sorted(value) if isinstance(value, frozenset) else value for name, value in link.claims.items()
        }
        or None,
    }
    return {
        "iss": link.issuer,
        "run": named(link, Kind.RUN),
        "agent": named(link, Kind.AGENT),
        "scope": sorted(link.scopes),
        "grade": link.grade.value,
        "iat": link.issued_at,
        "exp": link.run_ends_at,
        "grant": link.grant,
        **{name: value for name, value in optional.items() if value is not None},
    }
