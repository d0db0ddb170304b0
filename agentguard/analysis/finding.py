"""What was found in a policy folder, as values that each output tells in its own way."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from agentguard.policy.problem import Problem


class Severity(StrEnum):
    """How much a finding weighs."""

    ERROR = "error"
    """The policies cannot be used so, or do not mean what they say."""

    WARNING = "warning"
    """They can be used, and somebody should look."""

    NOTE = "note"
    """Good to know; it fails nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing to mend, or to know.

    Attributes:
        file: Relative to the folder that was looked at, or absolute if it is elsewhere.
        name: What kind of finding it is, in kebab-case; stable, so that it can be searched for and silenced.
        what: What is wrong and, after a colon, the fix; one line.
        severity: How much it weighs.
        line: From 1; 0 if it concerns the whole file.
        column: From 1, in characters; 0 if it concerns the whole line.
        length: How many characters are at fault, from *column* on.
        policy: The id of the policy that it is about, if it is about one.
        title: The name of the test that failed, if it is about one.
    """

    file: str
    name: str
    what: str
    severity: Severity = Severity.ERROR
    line: int = 0
    column: int = 0
    length: int = 1
    policy: str = ""
    title: str = ""

    @property
    def place(self) -> tuple[str, int, int, str]:
        """What findings are sorted by."""
        return self.file, self.line, self.column, self.name

    def __lt__(self, other: Finding) -> bool:
        return (*self.place, self.what) < (*other.place, other.what)

    @property
    def fails(self) -> bool:
        """Whether somebody has to act on it."""
        return self.severity is not Severity.NOTE


def of_problem(problem: Problem) -> Finding:
    """Return the finding for what the loader refuses."""
    return Finding(
        file=problem.file,
        name=problem.name,
        what=problem.what,
        line=problem.line,
        column=problem.column,
        length=problem.length,
    )
