"""All lints, and what they find in a policy folder."""

from __future__ import annotations

from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from agentguard.analysis.finding import Finding, Severity, of_problem
from agentguard.analysis.lints.granting import (
    duplicates,
    overruled_permits,
    shadowed_permits,
    unasked_approvals,
    unconditional_permits,
)
from agentguard.analysis.lints.lint import Lint, Read
from agentguard.analysis.lints.listing import groups_of_users, unlisted_parents
from agentguard.analysis.lints.matching import (
    equal_groups,
    never_matching_forbids,
    never_matching_permits,
    plain_patterns,
    unknown_attributes,
    unknown_labels,
    unknown_values,
)
from agentguard.analysis.lints.offering import stale_schemas, unannotated_tools, unreachable_tools
from agentguard.analysis.lints.silences import UNKNOWN, UNREASONED, USELESS, silenced
from agentguard.analysis.lints.writing import late_agents, missing_owners, overflows, unheard_advice
from agentguard.model import printable
from agentguard.policy.files.written import FILE
from agentguard.policy.text.placing import problem_at

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.lints.lint import Spot
    from agentguard.analysis.workspace import Workspace

# One line on a screen, and an excerpt of a long policy.
_LONGEST: Final = 400

_ALL: Final = (
    Lint(
        name="stale-schema",
        severity=Severity.ERROR,
        why="Everything else is checked against this file, and the server offers something else by now.",
        fix="Write the schema again, and look at what it changes.",
        find=stale_schemas,
        silenceable=False,
    ),
    Lint(
        name="unannotated-tool",
        severity=Severity.WARNING,
        why="Without annotations a tool is in the groups `destructive` and `open-world`, whatever it does, "
        "so policies for these groups hit it too.",
        fix="Let the server's developer annotate the tool, then write the schema again.",
        find=unannotated_tools,
    ),
    Lint(
        name="unreachable-tool",
        severity=Severity.NOTE,
        why="What no permit reaches is always denied. That may be meant so, or a permit is missing.",
        fix="Permit it, if anybody should use it, or say that nobody should: forbid it by name.",
        find=unreachable_tools,
        silenceable=False,
        of_all=True,
    ),
    Lint(
        name="never-matching-forbid",
        severity=Severity.ERROR,
        why="A forbid that never matches looks like one that protects.",
        fix="Mend the condition that can never be so, or delete the policy.",
        find=never_matching_forbids,
    ),
    Lint(
        name="never-matching-permit",
        severity=Severity.WARNING,
        why="A permit that never matches permits nothing, and whoever reads it believes otherwise.",
        fix="Mend the condition that can never be so, or delete the policy.",
        find=never_matching_permits,
    ),
    Lint(
        name="unknown-enum-value",
        severity=Severity.WARNING,
        why="A comparison with a value that the tool never takes is always false, and `!=` with one always true. "
        "Where a forbid never matches for that, it is an error.",
        fix="Write one of the values that there are.",
        find=unknown_values,
    ),
    Lint(
        name="unknown-label",
        severity=Severity.WARNING,
        why="A label that is mistyped is never there, so a forbid that asks for it protects nothing.",
        fix="Write the label as the tools have it.",
        find=unknown_labels,
    ),
    Lint(
        name="has-nothing",
        severity=Severity.WARNING,
        why="Cedar takes `has` with any name, so a name that is mistyped there silences a condition "
        "without an error. In a forbid, `check` takes it for one.",
        fix="Correct the name.",
        find=unknown_attributes,
    ),
    Lint(
        name="group-of-users",
        severity=Severity.WARNING,
        why="A run is in its agent's and its task's groups, and never in those of its user, so that a policy for a "
        "group of users alone would say nothing. Where a forbid never matches for that, it is an error.",
        fix="Ask for the user.",
        find=groups_of_users,
    ),
    Lint(
        name="unlisted-parent",
        severity=Severity.WARNING,
        why="A group that is mistyped where an agent is put into it suspends nobody.",
        fix="Correct the name, or list the group: where groups are listed, one that is not is refused.",
        find=unlisted_parents,
        silenceable=False,
        of_all=True,
    ),
    Lint(
        name="equals-group",
        severity=Severity.WARNING,
        why="An action is in its groups and equals none of them. "
        "Where a forbid never matches for that, it is an error.",
        fix="Write `in`.",
        find=equal_groups,
    ),
    Lint(
        name="like-without-star",
        severity=Severity.WARNING,
        why='Without a `*`, `like` is `==`: `like "/etc/"` holds for that folder\'s name and for nothing in it.',
        fix="Write `*` where anything may stand, or write `==`.",
        find=plain_patterns,
    ),
    Lint(
        name="unconditional-destructive",
        severity=Severity.WARNING,
        why="An agent that is misled can use what it is permitted without a condition at any time, with any arguments.",
        fix="Add a condition, or a forbid that a person's approval lifts.",
        find=unconditional_permits,
        of_all=True,
    ),
    Lint(
        name="unasked-approval",
        severity=Severity.WARNING,
        why="A person is asked only where a forbid says so by its annotation. Without it, a forbid that was meant to "
        "ask denies whatever the call, and a permit that wants an approval never applies.",
        fix='Write `@obligation("approval")` above the forbid, and leave the approval out of the permit.',
        find=unasked_approvals,
        of_all=True,
    ),
    Lint(
        name="shadowed-permit",
        severity=Severity.WARNING,
        why="Where another policy permits the same, to narrow or to delete this one changes nothing.",
        fix="Delete it, or narrow the other.",
        find=shadowed_permits,
    ),
    Lint(
        name="overruled-permit",
        severity=Severity.WARNING,
        why="A permit of which everything is forbidden permits nothing, and whoever reads it believes otherwise.",
        fix="Narrow the forbid, or delete the permit.",
        find=overruled_permits,
    ),
    Lint(
        name="duplicate-policy",
        severity=Severity.WARNING,
        why="Of two policies that say the same, one is forgotten when the other is changed.",
        fix="Delete one of the two.",
        find=duplicates,
    ),
    Lint(
        name="overflow",
        severity=Severity.WARNING,
        why="Arithmetic that passes 64 bits makes the policy fail, and a policy that fails denies the call.",
        fix="Ask for bounds first, `context.input.n < 1000 && context.input.n + 1 > …`, or compare without arithmetic.",
        find=overflows,
    ),
    Lint(
        name="agent-in-when",
        severity=Severity.WARNING,
        why="Policies are looked up by the principal of their head; one that asks for its agent in a condition is "
        "evaluated at each call of every agent.",
        fix="Write the agent in the head.",
        find=late_agents,
    ),
    Lint(
        name="unheard-advice",
        severity=Severity.NOTE,
        why="Advice is told to a caller that is denied, and a permit denies nobody.",
        fix="Take it away, or put it on a forbid.",
        find=unheard_advice,
    ),
    Lint(
        name="missing-owner",
        severity=Severity.WARNING,
        why="Somebody has to be asked before a policy is changed, and told when it denies too much.",
        fix='Write `@owner("team@example.com")` above it.',
        find=missing_owners,
    ),
    Lint(
        name=UNREASONED,
        severity=Severity.WARNING,
        why="Whoever reads the policy later has to know why the finding does not matter.",
        fix="Write the reason, or take the annotation away.",
        silenceable=False,
    ),
    Lint(
        name=UNKNOWN,
        severity=Severity.WARNING,
        why="Cedar takes any annotation, so one that is mistyped would be quietly without effect.",
        fix="Correct the name. What the guard itself refuses to load cannot be silenced.",
        silenceable=False,
    ),
    Lint(
        name=USELESS,
        severity=Severity.WARNING,
        why="A silence that outlives what it silenced would hide the next finding.",
        fix="Take it away.",
        silenceable=False,
    ),
)

LINTS: Final[Mapping[str, Lint]] = MappingProxyType({lint.name: lint for lint in _ALL})


def lint(workspace: Workspace, *, whole: bool = True) -> list[Finding]:
    """Return what there is to mend, or to know, in a folder; sorted.

    Args:
        workspace: The folder.
        whole: Whether its policies are all that there are, and none was left out for a mistake.
    """
    read = Read.of(workspace)
    lints = {name: one for name, one in LINTS.items() if whole or not one.of_all}
    found = ((name, spot) for name, one in lints.items() if one.find is not None for spot in one.find(read))
    told = list(silenced(read, LINTS, found))
    return sorted(
        _finding(LINTS[name], spot)
        for name, spot in told
        # Without what was not looked for, nothing can be said of what silences it.
        if whole or name != USELESS
    )


def _finding(lint: Lint, spot: Spot) -> Finding:
    what = printable(spot.what)
    what = what if len(what) <= _LONGEST else f"{what[: _LONGEST - 1]}…"
    severity = Severity.ERROR if spot.fatal else lint.severity
    if spot.place is not None:
        return replace(of_problem(spot.place), what=what, severity=severity)
    if spot.reading is None:
        return Finding(file=FILE, name=lint.name, what=what, severity=lint.severity)
    policy = spot.reading.policy
    first = policy.text[spot.start : spot.end].partition("\n")[0].rstrip()
    place = problem_at(policy, spot.start, max(len(first), 1), what, lint.name)
    return Finding(
        file=place.file,
        name=lint.name,
        what=what,
        severity=severity,
        line=place.line,
        column=place.column,
        length=place.length,
        policy=policy.id,
    )
