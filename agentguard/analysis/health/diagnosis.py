"""What the doctor says: one answer each of a checklist, good or not."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from agentguard.analysis.finding import Severity
from agentguard.analysis.health.controls import CONTROLS

if TYPE_CHECKING:
    from collections.abc import Iterable


class Area(StrEnum):
    """What an answer is about, in the order in which they are told."""

    IDENTITY = "identity"
    LIFECYCLE = "lifecycle"
    POLICY = "policy"
    EVIDENCE = "evidence"
    ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """One answer.

    Attributes:
        area: What it is about.
        name: What it is called, in kebab-case; the same whether it is good or not.
        what: What was found and, if it is not good, the fix after a colon.
        severity: How much it weighs; None if all is well.
    """

    area: Area
    name: str
    what: str
    severity: Severity | None = None

    @property
    def controls(self) -> tuple[str, ...]:
        """The controls that it touches."""
        return CONTROLS[self.name]

    @property
    def fails(self) -> bool:
        """Whether somebody has to act on it."""
        return self.severity in {Severity.ERROR, Severity.WARNING}


def good(area: Area, name: str, what: str) -> Diagnosis:
    """Return an answer that needs nobody."""
    return Diagnosis(area=area, name=name, what=what)


def bad(area: Area, name: str, what: str) -> Diagnosis:
    """Return an answer that somebody has to act on."""
    return Diagnosis(area=area, name=name, what=what, severity=Severity.ERROR)


def doubtful(area: Area, name: str, what: str) -> Diagnosis:
    """Return an answer that somebody has to look at."""
    return Diagnosis(area=area, name=name, what=what, severity=Severity.WARNING)


def in_order(diagnoses: Iterable[Diagnosis]) -> list[Diagnosis]:
    """Return answers by area, and what is bad before what is good."""
    areas, weights = list(Area), [*Severity, None]
    return sorted(diagnoses, key=lambda one: (areas.index(one.area), weights.index(one.severity)))
