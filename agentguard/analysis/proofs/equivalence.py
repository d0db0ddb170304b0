"""Prove that two policies match the same requests, whatever these are.

A change that changes nothing is no test of the scenarios: `context.input has note` in the
condition does the same for all tools as for the one that has such an argument. What cannot
be proved counts as a difference, which a person then has to look at.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.analysis.proofs.environments import Environment
from agentguard.analysis.proofs.reasoning import Reasoning, Terms, can_fail
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Op

if TYPE_CHECKING:
    from agentguard.analysis.proofs.reasoning import Demand
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.compiled import Policy


def match_the_same(first: Policy, second: Policy, workspace: Workspace) -> bool:
    """Tell whether two policies are proved to match the same requests for every tool of a server."""
    ours, theirs = _demands(first), _demands(second)
    # One that fails matches nothing, whatever its conditions say.
    if any(can_fail(demand) for demand, _ in (*ours, *theirs)):
        return False
    terms = Terms()
    keys = {*first.part.keys, *second.part.keys}
    for tool in workspace.written.tools:
        if keys.isdisjoint(keys_of(tool.name, tool.groups)):
            # Neither head lets it pass.
            continue
        reasoning = Reasoning(Environment(tool, workspace.types), terms)
        if not (_implies(reasoning, ours, theirs) and _implies(reasoning, theirs, ours)):
            return False
    return True


def _demands(policy: Policy) -> list[Demand]:
    """Return all that has to be so for a policy to match."""
    syntax = syntax_of(policy)
    head = (syntax.principal, syntax.action, syntax.resource)
    return [
        *((node, True) for node in head if node.op is not Op.VARIABLE),
        *((clause.body, clause.holds) for clause in syntax.clauses),
    ]


def _implies(reasoning: Reasoning, demands: list[Demand], others: list[Demand]) -> bool:
    """Whether what meets *demands* meets *others* too, for certain."""
    return all(reasoning.never([*demands, (node, not wanted)]) for node, wanted in others)
