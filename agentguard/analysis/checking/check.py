"""Everything that can be said of a policy folder without asking anybody.

All that is wrong is told at once: a policy that cannot be read keeps no other from being
checked, and policies that do not fit the server keep the others from no lint.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.checking.offers import changes
from agentguard.analysis.checking.whose import Whose
from agentguard.analysis.finding import Finding, of_problem
from agentguard.analysis.lints.run import LINTS, lint
from agentguard.analysis.workspace import workspace_of
from agentguard.errors import ConfigurationError, PolicyError
from agentguard.policy.files.folder import POLICY_SUFFIX, read_written
from agentguard.policy.files.several import NO_SUCH_SERVER
from agentguard.policy.files.source import survey_folder
from agentguard.policy.files.written import FILE, named_server, read_schema
from agentguard.policy.schemas.schema import OwnType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from agentguard.analysis.workspace import Workspace
    from agentguard.limits import Limits
    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.files.source import PolicySource
    from agentguard.policy.files.written import WrittenSchema
    from agentguard.policy.problem import Problem

_NONE: Final = "no-schema"
_BAD: Final = "bad-schema"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found in a policy folder.

    Attributes:
        findings: What is to mend, or to know, in order of place.
        texts: The files that were read, by name.
        policies: The policies that could be read.
        tools: How many tools the server has.
        version: What a guard that loads this would record; None if it would not load it.
    """

    findings: tuple[Finding, ...]
    texts: Mapping[str, str]
    policies: tuple[Policy, ...]
    tools: int = 0
    version: str | None = None

    @property
    def good(self) -> list[Policy]:
        """The policies of which there is nothing to say."""
        return _without(self.policies, self.findings)


def check(folder: Path, limits: Limits, *, offered: WrittenSchema | None = None) -> Checked:
    """Return all that can be said of a policy folder.

    Args:
        folder: The policy folder.
        limits: The bounds.
        offered: What the server offers now; without it, what was written down counts.

    Raises:
        PolicyError: If the folder itself cannot be read.
    """
    source, problems = survey_folder(folder, limits)
    check = _Check(source, limits)
    check.tell(problems)
    # A folder for several servers has no schema of its own: each of them has one.
    is_one = all(problem.name != NO_SUCH_SERVER for problem in problems)
    text, written = check.written(folder, offered) if is_one else ("", None)
    workspace = None
    # What a schema file or the entities lack would be told again of every policy that asks for it.
    if written is not None and all(problem.file.lower().endswith(POLICY_SUFFIX) for problem in problems):
        workspace = check.compiled(written, text)
    version = None
    if workspace is not None:
        if not check.refused:
            version = workspace.policies.version
        # With the server at hand, what came and went was told, and more exactly.
        check.findings += lint(workspace if offered is None else replace(workspace, stale=()), whole=not check.refused)
    return Checked(
        findings=tuple(sorted(map(check.named, check.findings))),
        texts=dict(source.files) | ({FILE: text} if text else {}),
        policies=source.policies,
        tools=0 if written is None else sum(tool.kind is OwnType.TOOL for tool in written.tools),
        version=version,
    )


@dataclass
class _Check:
    """What was found so far of what was read."""

    source: PolicySource
    limits: Limits
    findings: list[Finding] = field(default_factory=list)
    refused: bool = False

    def __post_init__(self) -> None:
        self.whose = Whose(self.source.policies)

    def tell(self, problems: Sequence[Problem]) -> None:
        """Take over what would keep a guard from loading the folder."""
        self.findings += map(of_problem, problems)
        self.refused |= bool(problems)

    def named(self, finding: Finding) -> Finding:
        """Return a finding with the policy that it is about."""
        about = self.whose.about(finding) if finding.line and not finding.policy else ()
        return replace(finding, policy=about[0].id) if about else finding

    def written(self, folder: Path, offered: WrittenSchema | None) -> tuple[str, WrittenSchema | None]:
        """Return the text of the written schema, and what policies are to be checked against."""
        try:
            text = read_written(folder)
            if text is None:
                self.findings.append(_no_schema(folder))
                return "", offered
            before = read_schema(text, self.limits)
        except PolicyError as error:
            # The guard does not read the file.
            self.findings += map(of_problem, error.found)
            return "", offered
        if offered is not None:
            stale = LINTS["stale-schema"]
            again = f"write the schema again, `agentguard schema {named_server(text)} --write FOLDER`"
            self.findings += (
                Finding(file=FILE, name=stale.name, severity=stale.severity, what=f"{change}: {again}")
                for change in changes(before, offered)
            )
        return text, offered or before

    def compiled(self, written: WrittenSchema, text: str) -> Workspace | None:
        """Compile what fits the server, and tell what does not."""
        rest = self.source.policies
        while rest:
            try:
                return workspace_of(replace(self.source, policies=rest), written, text, self.limits)
            except PolicyError as error:
                self.tell(error.found)
                broken = [of_problem(problem) for problem in error.found]
            except ConfigurationError as error:
                self.findings.append(Finding(file=FILE, name=_BAD, what=str(error)))
                self.refused = True
                return None
            if not all(finding.file.lower().endswith(POLICY_SUFFIX) for finding in broken):
                return None
            fit = tuple(_without(rest, broken))
            rest = fit if len(fit) < len(rest) else ()
        return None


def _without(policies: Sequence[Policy], findings: Iterable[Finding]) -> list[Policy]:
    """Return the policies that no finding is about."""
    whose = Whose(policies)
    about = {id(policy) for finding in findings for policy in whose.about(finding)}
    return [policy for policy in policies if id(policy) not in about]


def _no_schema(folder: Path) -> Finding:
    what = (
        "is not there, so nothing says what the server offers, and whether the policies fit it: "
        f"write it with `agentguard schema SERVER --write {folder}`"
    )
    return Finding(file=FILE, name=_NONE, what=what)
