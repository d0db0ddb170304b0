"""What `agentguard test` came to, as findings, as a summary, and drawn for a person."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.table import Table
from rich.text import Text

from agentguard.analysis.finding import Finding, Severity
from agentguard.analysis.scenarios.failures import failure, told
from agentguard.cli.findings import place_of
from agentguard.cli.output import draw, fold, terminal
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from agentguard.analysis.scenarios.cases import CaseResult, Suite
    from agentguard.analysis.scenarios.coverage import Coverage, Covered, MutationReport
    from agentguard.analysis.workspace import Workspace

# So many policies fit a screen; of more, those are shown of which something was not seen.
_MOST_ROWS: Final = 12
_GAP: Final = 2
# Where it is told what was wanted, and what came.
_TOLD: Final = 11
_LEFT: Final = "\N{LEFTWARDS ARROW}"
_MARKS: Final = {True: Text("✓", style="green"), False: Text("✗", style="red")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """What came of the scenarios of one policy folder.

    Attributes:
        workspace: The policies.
        suites: The files of scenarios.
        results: What came of each case.
        coverage: What the cases have seen of each policy; None if that was not asked.
        mutation: Which changes of policies the cases notice; None if that was not asked.
    """

    workspace: Workspace
    suites: Sequence[Suite]
    results: Sequence[CaseResult]
    coverage: Coverage | None = None
    mutation: MutationReport | None = None

    @property
    def failed(self) -> list[CaseResult]:
        """The cases that came out otherwise than expected."""
        return [one for one in self.results if not one.passed]

    @property
    def findings(self) -> list[Finding]:
        """A finding for each case that failed, and for all that the cases leave untested."""
        failures = [
            Finding(
                file=one.file,
                line=one.line,
                column=one.case.column,
                name="failed-scenario",
                what=f"{one.name}: {'; '.join(' '.join(pair) for pair in failure(one, self.workspace.policies))}",
                title=one.name,
            )
            for one in self.failed
        ]
        return failures + self.untested

    @property
    def untested(self) -> list[Finding]:
        """A finding for each policy, and for each change of one, that the cases leave untested."""
        found = [] if self.coverage is None else self.coverage.findings()
        found += [] if self.mutation is None else self.mutation.findings()
        # The policies themselves are as their scenarios say.
        return [replace(one, severity=Severity.WARNING) for one in found]

    @property
    def passed(self) -> list[tuple[str, str]]:
        """The file and the name of each case that came out as expected."""
        return [(self._place(one.file), one.name) for one in self.results if one.passed]

    @property
    def texts(self) -> dict[str, str]:
        """What each file holds that a finding can be about."""
        return {**dict(self.workspace.source.files), **{suite.file: suite.text for suite in self.suites}}

    @property
    def summary(self) -> str:
        """All of it in one line."""
        failed = f", {len(self.failed)} failed" if self.failed else ""
        parts = [f"{_count(len(self.results), 'case')}{failed}"]
        if self.coverage is not None:
            policies = _count(len(self.coverage.policies), "policy", "policies")
            parts.append(f"{policies}, {self.coverage.both or 'none'} covered both ways")
        if (mutation := self.mutation) is not None:
            parts.append(", ".join(_of_mutants(mutation)))
        return " · ".join(parts)

    def as_json(self) -> dict[str, object]:
        """Return it for a program."""
        fields: dict[str, object] = {"cases": [self._case(one) for one in self.results]}
        if self.coverage is not None:
            fields["coverage"] = [
                {"policy": one.policy.id, "fired": one.fired, "did_not_fire": one.silent}
                for one in self.coverage.policies
            ]
        if (mutation := self.mutation) is not None:
            fields["mutants"] = {
                "total": mutation.total,
                "noticed": mutation.killed,
                "explained": len(mutation.explained),
                "survived": len(mutation.survivors),
                "left_out": mutation.left_out,
            }
        return fields

    def _case(self, one: CaseResult) -> dict[str, object]:
        near = [] if one.passed else [line for word, line in failure(one, self.workspace.policies) if word == "nearest"]
        return {
            "file": one.file,
            "line": one.line,
            "name": one.name,
            "passed": one.passed,
            "wanted": str(one.wanted),
            "got": told(one.got),
            "effect": one.got.effect.value,
            "reason": one.got.reason.value,
            "policies": list(one.got.policy_ids),
            "nearest": near,
        }

    def draw(self) -> None:
        """Write to standard output what a person reads, but for findings and the summary."""
        parts: list[str | Text | Table] = [self._files()]
        for one in self.failed:
            parts += ["", *self._failure(one)]
        if self.coverage is not None and not self.coverage.complete:
            parts += ["", _covered(self.coverage)]
        draw(*parts, "")

    def _files(self) -> Table:
        drawn = _table()
        drawn.add_column(overflow="fold")
        for _ in range(3):
            drawn.add_column(justify="right", no_wrap=True)
        for suite in self.suites:
            own = [one for one in self.results if one.file == suite.file]
            failed = sum(not one.passed for one in own)
            drawn.add_row(
                Text(printable(self._place(suite.file)), style="bold"),
                _count(len(own), "case"),
                Text(f"{len(own) - failed} ok", style="" if failed else "green"),
                Text(f"{failed} FAILED" if failed else "", style="bold red"),
            )
        return drawn

    def _failure(self, one: CaseResult) -> Iterator[Text]:
        where = f"{printable(self._place(one.file))}:{one.line}"
        yield Text.assemble(("FAILED", "bold red"), " ", (where, "bold"), f"  {one.name}")
        console = terminal()
        for word, line in failure(one, self.workspace.policies):
            told = Text.assemble("  ", (f"{word:<9}", "dim"), line)
            yield from fold(told, console.width, set_in=_TOLD) if console.is_terminal else (told,)

    def _place(self, file: str) -> str:
        return place_of(Finding(file=file, name="", what=""), self.workspace.folder, Path.cwd())


def _covered(coverage: Coverage) -> Table:
    """Return the policies as a table: which were seen to match a call, and which not to."""
    rows = [one for one in coverage.policies if len(coverage.policies) <= _MOST_ROWS or not one.both]
    drawn = _table()
    drawn.show_header = True
    drawn.add_column("coverage", overflow="fold")
    drawn.add_column("fired", justify="center", no_wrap=True)
    drawn.add_column("did not fire", justify="center", no_wrap=True)
    drawn.add_column("")
    for one in rows:
        note = _lacking(one)
        drawn.add_row(
            Text(f"  {printable(one.policy.id)}"),
            _MARKS[one.fired],
            _MARKS[one.silent],
            Text(f"{_LEFT} {note}" if note else "", style="yellow"),
        )
    return drawn


def _lacking(one: Covered) -> str:
    if one.both:
        return ""
    if not one.called:
        return "never called"
    if one.fired:
        return "never silent"
    return f"never {'permits' if one.policy.part.permit else 'forbids'}"


def _of_mutants(mutation: MutationReport) -> Iterator[str]:
    yield f"{_count(mutation.total, 'mutant')}"
    yield f"{mutation.killed} noticed"
    if mutation.explained:
        yield f"{len(mutation.explained)} explained"
    if mutation.survivors:
        yield f"{len(mutation.survivors)} not noticed"
    if mutation.left_out:
        yield f"{mutation.left_out} more left out"


def _count(number: int, one: str, several: str = "") -> str:
    return f"{number} {one if number == 1 else several or f'{one}s'}"


def _table() -> Table:
    return Table(box=None, pad_edge=False, show_header=False, header_style="bold", padding=(0, _GAP, 0, 0))
