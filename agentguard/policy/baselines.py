"""Ready policies that fit most servers: about groups of actions, and what a run has done.

They are files below ``baseline/``, and decide nothing until somebody copies one into a
policy folder, where it is the team's own. Each has scenarios beside it, which name kinds
of tools, such as ``<destructive>``: whoever copies them puts the server's own in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from agentguard.errors import ConfigurationError
from agentguard.model import printable
from agentguard.policy.files.folder import POLICY_SUFFIX
from agentguard.policy.problem import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

NAMES: Final = (
    "lifetime-caps",
    "shared-principal",
    "untrusted-to-egress",
    "destructive-needs-approval",
    "office-hours",
    "budget",
)
"""What there is, in the order in which it is listed."""

ALL: Final = "all"
"""Stands for every one that fits."""

# The total that a policy about one names, until it is known which ones the server has.
_TOTAL: Final = "payments"
_ID: Final = re.compile(r'^@id\("([^"]*)"\)', re.MULTILINE)
_ADVICE: Final = re.compile(r'^@advice\("([^"]*)"\)', re.MULTILINE)
# Which of them a tool is in unless it says otherwise; a comment may name them too.
_GROUPS: Final = re.compile(r'^[^/\n]*Action::"(?:open-world|destructive)"', re.MULTILINE)
_SCENARIOS: Final = "scenarios:\n"
# What no call of a tool is.
_CREDENTIALS: Final = '\nunless { action == Action::"credentials/issue" }'


@dataclass(frozen=True, slots=True)
class Baseline:
    """Ready policies for one purpose.

    Attributes:
        name: What they are chosen by.
        policies: Their Cedar text, with comments that say what to adapt.
        scenarios: Calls that they stop and calls that they do not; instead of tools, kinds of them.
    """

    name: str
    policies: str
    scenarios: str

    @property
    def file(self) -> str:
        """Where the policies stand in a policy folder."""
        return f"30-{self.name}{POLICY_SUFFIX}"

    @property
    def suite(self) -> str:
        """Where the scenarios stand there."""
        return f"scenarios/{self.name}.test.yaml"

    @property
    def says(self) -> str:
        """What they are for, in one line."""
        return self.policies.partition("\n")[0].removeprefix("// ")

    @property
    def ids(self) -> tuple[str, ...]:
        """The ids of the policies."""
        return tuple(_ID.findall(self.policies))

    @property
    def advice(self) -> tuple[str, ...]:
        """What callers are told, by each policy in turn."""
        return tuple(_ADVICE.findall(self.policies))

    @property
    def is_of_totals(self) -> bool:
        """Whether they are about what a run has spent, so that a server without totals has no use for them."""
        return "context.run.spent." in self.policies

    @property
    def is_of_annotations(self) -> bool:
        """Whether they are about what a tool's annotations say, so that one without any counts as all of it."""
        return _GROUPS.search(self.policies) is not None

    def for_totals(self, totals: Sequence[str]) -> Baseline:
        """Return it with a policy for each of a server's totals, if it is about totals."""
        if not self.is_of_totals:
            return self
        above, first, policy = self.policies.partition("@id(")
        head, key, scenario = self.scenarios.partition(_SCENARIOS)
        return replace(
            self,
            policies=above + "\n".join(f"{first}{policy}".replace(_TOTAL, total) for total in totals),
            scenarios=head + key + "\n".join(scenario.replace(_TOTAL, total) for total in totals),
        )

    def without_credentials(self) -> Baseline:
        """Return it for a server whose tools get none: no policy may name an action that there is not."""
        return replace(self, policies=self.policies.replace(_CREDENTIALS, ""))


@cache
def baselines() -> tuple[Baseline, ...]:
    """Return all that there are."""
    folder = files("agentguard").joinpath("policy", "baseline")
    return tuple(
        Baseline(
            name,
            folder.joinpath(f"{name}{POLICY_SUFFIX}").read_text("utf-8"),
            folder.joinpath(f"{name}.test.yaml").read_text("utf-8"),
        )
        for name in NAMES
    )


def chosen(names: Iterable[str]) -> tuple[Baseline, ...]:
    """Return those of these names, each once; all for `ALL`.

    Raises:
        ConfigurationError: There is none of some name.
    """
    wanted = set(names)
    if unknown := sorted(wanted - {*NAMES, ALL}):
        message = f"there are no baseline policies `{printable(unknown[0])}`: {did_you_mean(unknown[0], (*NAMES, ALL))}"
        raise ConfigurationError(message)
    return tuple(baseline for baseline in baselines() if ALL in wanted or baseline.name in wanted)
