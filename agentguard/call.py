"""What an adapter tells the enforcer of a request, and what it is told back."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agentguard.errors import AccessDenied
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.model import Decision, EntityUid, Invocation
    from agentguard.policy.schema import GuardedTool
    from agentguard.request import ResourceTemplate

ACTING: Final[ContextVar[Invocation | None]] = ContextVar("agentguard_acting", default=None)
"""Set by `agentguard.testing` alone; no adapter looks at it for a request over HTTP."""


class Denial(Exception):  # noqa: N818  a decision on its way to the adapter, not an error
    """A call that was denied, on its way to whoever words it for the framework.

    Not an `AccessDenied`: one of those may come out of a tool, from a nested call, and
    must not be taken for the tool's own denial.
    """

    def __init__(self, decision: Decision) -> None:
        super().__init__("access denied")
        self.decision = decision


class Answers(Protocol):
    """How an adapter words a denial for its framework."""

    def denied(self, decision: Decision) -> object:
        """Return the result that answers the outermost call."""

    def denied_nested(self, decision: Decision) -> AccessDenied:
        """Return the exception that a nested call raises."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request, as an adapter received it.

    Attributes:
        identify: Step 1's one source of identity; raises `Refusal`.
        answers: How the framework is told of a denial.
        transport: ``http`` or ``stdio``; policies see it.
        facts: Attributes for the evidence: the method, the request's id, the session.
        framework: What only the adapter understands.
        depth: How many guarded functions run in it now, one inside the other.
        rule: How the tool that the request names is judged, where it names one.
        entered: Whether that tool's function was reached.
        open: Whether the request is still being answered.
    """

    identify: Callable[[], Awaitable[Invocation]]
    answers: Answers
    transport: str
    facts: Mapping[str, AttributeValue] = field(default_factory=dict)
    framework: object = None
    depth: int = 0
    rule: Rule | None = None
    entered: bool = False
    open: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the guard knows of one guarded tool, from its decorator and its server.

    Attributes:
        tool: Its name, groups and typed arguments.
        itself: What a call acts on where *resource* names nothing: the tool, or the server.
        resource: Which entities a call acts on.
        facts: The pure function that adds ``context.facts``.
        facts_arguments: The arguments that *facts* takes, by name.
    """

    tool: GuardedTool
    itself: EntityUid
    resource: ResourceTemplate | None = None
    facts: Callable[..., object] | None = None
    facts_arguments: tuple[str, ...] = ()
