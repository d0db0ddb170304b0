"""What an adapter tells the enforcer of a request, and what it is told back."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from agentguard.approval import Approved, Approver, Declined, Question
    from agentguard.errors import AccessDenied, Refusal
    from agentguard.evidence.vocabulary import AttributeValue
    from agentguard.model import Decision, Invocation
    from agentguard.policy.deciding.engine import PolicySet
    from agentguard.policy.schemas.schema import GuardedTool
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


class StepUp(Protocol):
    """How the transport is told that a denial may be answered by asking for a token with more scopes."""

    def offer(self, decision: Decision) -> None:
        """Answer with the scopes of *decision*, a denial; where it has none, as usual."""

    def close(self) -> None:
        """Answer as usual, whatever is offered: something was allowed."""


@dataclass(slots=True, kw_only=True)
class Call:
    """One request, as an adapter received it.

    Attributes:
        identify: Step 1's one source of identity; raises `Refusal`.
        answers: How the framework is told of a denial.
        transport: ``http`` or ``stdio``; policies see it.
        origin: From where it comes, as `agentguard.lifecycle.origin` writes it; empty if from nowhere,
            as a direct call.
        token: The text that `identify` verified, the last time that it was awaited; None where there
            is none. It is a secret.
        facts: Attributes for the evidence: the method, the request's id, the session.
        framework: What only the adapter understands.
        depth: How many guarded functions run in it now, one inside the other.
        rule: How the tool that the request names is judged, where it names one.
        entered: Whether that tool's function was reached.
        open: Whether the request is still being answered.
        step_up: How the answer can ask for more scopes; None if the transport has no such answer.
        ask: How a person is asked at the caller's own client while the call waits; None if
            there is no way back.
        unasked: Why the caller's own client cannot be asked, for the log, where it cannot.
        rounds: Whether a question can be the answer to this request, and another request bring the reply.
        given: The answer to an earlier question that came with this request, or why what came is none.
        question: What has to be asked before this call can be allowed: the answer, in place of the denial.
        approved: The approval that the call ran by.
        rehearse: Whether nothing runs whatever is decided, so that no person is asked.
        rehearsed: Whether that was decided, and allowed.
        judged: What the request names, where that was judged by its method as a whole.
        inner: The same request at servers with guards of their own, which are mounted in this one.
        policies: What judges it, from its first judgement on.
    """

    identify: Callable[[], Awaitable[Invocation]]
    answers: Answers
    transport: str
    origin: str = ""
    token: str | None = field(default=None, repr=False)
    facts: Mapping[str, AttributeValue] = field(default_factory=dict)
    framework: object = None
    depth: int = 0
    rule: Rule | None = None
    entered: bool = False
    open: bool = True
    step_up: StepUp | None = None
    ask: Approver | None = None
    unasked: str = "this request has no way to ask the client: give the guard an `approver=`"
    rounds: bool = False
    given: Approved | Declined | Refusal | None = None
    question: Question | None = None
    approved: Approved | None = None
    rehearse: bool = False
    rehearsed: bool = False
    judged: tuple[str, str] | None = None
    inner: list[Call] = field(default_factory=list)
    policies: PolicySet | None = None

    def close(self) -> None:
        """End the request, here and wherever it went: nobody acts by it any more."""
        self.open = False
        self.token = None
        for call in self.inner:
            call.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What the guard knows of one guarded tool, from its decorator and its server.

    Attributes:
        tool: Its name, groups and typed arguments.
        resource: Which entities a call acts on; None for what stands for the tool itself.
        facts: The pure function that adds ``context.facts``.
        facts_arguments: The arguments that *facts* takes, by name.
        record_inputs: The arguments whose values the evidence keeps, by name.
    """

    tool: GuardedTool
    resource: ResourceTemplate | None = None
    facts: Callable[..., object] | None = None
    facts_arguments: tuple[str, ...] = ()
    record_inputs: tuple[str, ...] = ()
