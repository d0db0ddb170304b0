"""One supposed call and what is expected of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.model import Effect

if TYPE_CHECKING:
    from agentguard.analysis.supposed import Verdict
    from agentguard.analysis.supposedcall import SupposedCall
    from agentguard.model import AccessRequest, Reason

_WITHIN: Final = "\N{SINGLE RIGHT-POINTING ANGLE QUOTATION MARK}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Expectation:
    """What somebody expects the guard to answer.

    Attributes:
        effect: Allow or deny.
        policy_ids: Exactly the policies that determine it, sorted; None if any may. Those of
            grants count only where one is named, since every grant has a part in an allow.
        reason: Why; None if for any reason.
        advice: What the caller is told; None if anything.
    """

    effect: Effect
    policy_ids: tuple[str, ...] | None = None
    reason: Reason | None = None
    advice: str | None = None

    @property
    def allows(self) -> bool:
        """Whether the call is expected to be allowed."""
        return self.effect is Effect.ALLOW

    def met_by(self, verdict: Verdict) -> bool:
        """Tell whether a verdict is as expected, in all that is expected."""
        return (
            verdict.effect is self.effect
            and self.policy_ids in {None, self._comparable(verdict)}
            and self.reason in {None, verdict.reason}
            and self.advice in {None, verdict.advice}
        )

    def _comparable(self, verdict: Verdict) -> tuple[str, ...]:
        if any(":" in id_ for id_ in self.policy_ids or ()):
            return verdict.policy_ids
        return tuple(id_ for id_ in verdict.policy_ids if ":" not in id_)

    def __str__(self) -> str:
        parts = [self.effect.value]
        if self.reason is not None and not self.allows:
            parts = [f"{self.effect}, {self.reason}"]
        if self.policy_ids is not None:
            parts.append(f"by {', '.join(self.policy_ids) or 'no policy'}")
        if self.advice is not None:
            parts.append(f"with advice `{self.advice}`")
        return " ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One case of a scenario.

    Attributes:
        file: The file that it stands in, relative to the policy folder.
        line: Where it begins.
        column: The same, from 1.
        scenario: The scenario's name.
        label: What tells it from the scenario's other cases.
        identity: What the file calls who calls.
        call: What is supposed.
        expected: What should come of it.
    """

    file: str
    line: int
    column: int
    scenario: str
    label: str
    identity: str
    call: SupposedCall
    expected: Expectation

    @property
    def name(self) -> str:
        """Its name for people."""
        return f"{self.scenario} {_WITHIN} {self.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """A mutant that no scenario notices, and why that is as it should be.

    Attributes:
        policy: The policy's id.
        mutant: What was changed, as the command words it.
        because: Why it makes no difference that anybody could test.
        line: Where it stands.
        column: The same, from 1.
    """

    policy: str
    mutant: str
    because: str
    line: int
    column: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A file of scenarios.

    Attributes:
        file: Its name, relative to the policy folder.
        text: What it holds.
        cases: Its cases, in order.
        survivors: The mutants that it explains.
    """

    file: str
    text: str
    cases: tuple[Case, ...]
    survivors: tuple[Explained, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CaseResult:
    """What came of one case.

    Attributes:
        case: The case.
        got: What the guard would answer.
    """

    case: Case
    got: Verdict

    @property
    def file(self) -> str:
        """The file that the case stands in, relative to the policy folder."""
        return self.case.file

    @property
    def line(self) -> int:
        """Where it begins there."""
        return self.case.line

    @property
    def name(self) -> str:
        """Its name for people: the scenario, and what tells it from the others."""
        return self.case.name

    @property
    def wanted(self) -> Expectation:
        """What was expected."""
        return self.case.expected

    @property
    def requests(self) -> tuple[AccessRequest, ...]:
        """What was asked, one request for each resource; empty if it came to no request."""
        return self.got.requests

    @property
    def passed(self) -> bool:
        """Whether it came out as expected."""
        return self.wanted.met_by(self.got)
