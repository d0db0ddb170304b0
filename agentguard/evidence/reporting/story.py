"""What the records tell: runs and their calls, why calls were denied, under which policies.

The values alone; `evidence.retell` makes them of records, and `evidence.notable` says
what to look at in them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.evidence.vocabulary import Outcome
from agentguard.model import Effect, Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

RunKey = tuple[str, str]
"""The issuer and the run id."""

REASONS: Final[Mapping[str, str]] = {
    Reason.POLICY: "a policy forbids it",
    Reason.NO_PERMIT: "no permit matched",
    Reason.GRANT: "the grant of the run does not permit it",
    Reason.POLICY_ERROR: "a policy failed to evaluate",
    Reason.UNAUTHENTICATED: "no identity",
    Reason.INVALID_TOKEN: "the token was not accepted",
    Reason.EXPIRED: "the run or its token was over",
    Reason.REVOKED: "the run was ended",
    Reason.INVALID_ARGUMENT: "an argument could not be judged",
    Reason.MISSING_ENTITY: "what it acts on was not found",
    Reason.UNGUARDED: "the tool is not guarded",
    Reason.APPROVAL_REQUIRED: "a person was asked",
    Reason.APPROVAL_DECLINED: "a person declined",
    Reason.APPROVAL_INVALID: "the approval was not for this call",
    Reason.APPROVAL_UNAVAILABLE: "no approval could be had",
    Reason.EVIDENCE_UNAVAILABLE: "evidence could not be written",
    Reason.STORE_UNAVAILABLE: "the store could not be asked",
    Reason.INTERNAL_ERROR: "an internal error",
}
"""Why a call was denied, in words."""

OVER: Final = frozenset((Reason.REVOKED, Reason.EXPIRED))
"""Why a call is denied whose run or token was over."""

_STOPPED: Final = frozenset((Outcome.CANCELLED, Outcome.WITHHELD))


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One decision, and what came of it.

    Attributes:
        at: When it was decided, unix seconds.
        decision_id: The decision.
        tool: The tool, or the action where the protocol names none.
        effect: ``allow`` or ``deny``.
        reason: Why.
        policy_ids: The determining policies.
        resource: What it was about, type and id; empty if that was not known.
        digest: The keyed digest of its arguments; empty if there was none.
        outcome: How it came out; empty if it was denied, or if none is on record.
        stopped_by: Why it was cancelled or withheld.
    """

    at: float
    decision_id: str
    tool: str
    effect: str
    reason: str
    policy_ids: tuple[str, ...] = ()
    resource: str = ""
    digest: str = ""
    outcome: str = ""
    stopped_by: str = ""

    @property
    def allowed(self) -> bool:
        """Whether it was allowed."""
        return self.effect == Effect.ALLOW

    @property
    def withheld(self) -> bool:
        """Whether it ran and its result was withheld."""
        return self.outcome == Outcome.WITHHELD

    @property
    def stopped(self) -> bool:
        """Whether it was cancelled or withheld in the middle."""
        return self.outcome in _STOPPED


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One run: who acted, for whom, with what authority, and how it ended.

    Attributes:
        key: The issuer and the run id.
        agent: Who acted.
        user: For whom, when somebody.
        task: In which task, when named.
        purpose: What for, when named.
        grade: ``run``, ``token`` or ``shared``.
        issued_at: Its beginning, unix seconds; None if no record says.
        ends_at: Its absolute end, unix seconds; None if no record says.
        first_at: The first record of it.
        last_at: The last record of it.
        ended_at: When it was over, unix seconds; None if no record says.
        end: ``completed``, ``revoked`` or ``expired``; empty if no record says.
        reason: Why it ended.
        parent: The run that delegated to it; None for a root.
        depth: How many runs stand above it.
        calls: Its calls, in the order of time.
    """

    key: RunKey
    agent: str = ""
    user: str = ""
    task: str = ""
    purpose: str = ""
    grade: str = ""
    issued_at: float | None = None
    ends_at: float | None = None
    first_at: float = 0.0
    last_at: float = 0.0
    ended_at: float | None = None
    end: str = ""
    reason: str = ""
    parent: RunKey | None = None
    depth: int = 0
    calls: tuple[Call, ...] = ()

    @property
    def id(self) -> str:
        """The run id."""
        return self.key[1]

    @property
    def granted(self) -> float | None:
        """How long it was allowed to last, seconds."""
        return None if self.issued_at is None or self.ends_at is None else self.ends_at - self.issued_at

    def had_until(self, now: float) -> float:
        """Return until when it had its authority, at most *now*."""
        ends = (now, self.ends_at, self.ended_at, None if self.refused is None else self.refused.at)
        return min(end for end in ends if end is not None)

    def live(self, now: float) -> bool:
        """Whether it could still act, as far as the records say."""
        return not self.end and self.refused is None and (self.ends_at is None or now < self.ends_at)

    @property
    def refused(self) -> Call | None:
        """The first call since which every one was refused because the run, or its token, was over."""
        found = None
        for call in reversed(self.calls):
            if call.reason in OVER:
                found = call
            elif call.allowed:
                break
        return found

    @property
    def allowed(self) -> int:
        """How many of its calls were allowed."""
        return sum(call.allowed for call in self.calls)

    @property
    def denied(self) -> int:
        """How many of its calls were denied."""
        return len(self.calls) - self.allowed

    @property
    def withheld(self) -> int:
        """How many of its results were withheld."""
        return sum(call.withheld for call in self.calls)


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """One cause of denials.

    Attributes:
        reason: The reason.
        policy_id: The policy; empty where the reason is no policy's.
        calls: How many calls it denied.
        tools: The tools that were asked for, most often first.
        agents: The agents that asked, most often first.
        owner: Who answers for the policy; empty if nobody says.
    """

    reason: str
    policy_id: str
    calls: int
    tools: tuple[str, ...]
    agents: tuple[str, ...]
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyVersion:
    """One version of the policies, or one that was refused.

    Attributes:
        version: The digest; of a refused one, that of what stayed in force, if it is known.
        label: Its name for people.
        activated_at: When it came into force, unix seconds; None if no record says.
        first_at: The first record under it.
        last_at: The last one.
        decisions: How many decisions it gave.
        denied: How many of them were denials.
        starts: How many times a server started with it.
        refused: Why it was refused; empty for one that was in force.
    """

    version: str
    label: str = ""
    activated_at: float | None = None
    first_at: float
    last_at: float
    decisions: int = 0
    denied: int = 0
    starts: int = 0
    refused: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """Everything that the page and the table show.

    Attributes:
        records: How many records there are, of each kind.
        since: The first of them, unix seconds.
        until: The last of them.
        runs: The runs, in the order in which they began, each child after its parent.
        strangers: Calls by nobody whose identity could be verified.
        denials: The causes of denials, the most frequent first.
        versions: The versions of the policies, and the refused ones, in the order of time.
        refused_tokens: How many tokens were refused, for each reason.
        orphans: Outcomes without a decision on record.
        owners_known: Whether it was looked up who answers for the policies.
    """

    records: Mapping[str, int]
    since: float
    until: float
    runs: tuple[Run, ...]
    strangers: tuple[Call, ...]
    denials: tuple[Denial, ...]
    versions: tuple[PolicyVersion, ...]
    refused_tokens: Mapping[str, int]
    orphans: int
    owners_known: bool = False

    @property
    def calls(self) -> tuple[Call, ...]:
        """Every call."""
        return (*(call for run in self.runs for call in run.calls), *self.strangers)

    @property
    def allowed(self) -> int:
        """How many calls were allowed."""
        return sum(call.allowed for call in self.calls)

    @property
    def denied(self) -> int:
        """How many calls were denied."""
        return sum(not call.allowed for call in self.calls)

    @property
    def withheld(self) -> int:
        """How many results were withheld."""
        return sum(call.withheld for call in self.calls)

    @property
    def longest(self) -> Run | None:
        """The run with the longest authority."""
        return max(
            (run for run in self.runs if run.granted is not None), key=lambda run: run.granted or 0, default=None
        )
