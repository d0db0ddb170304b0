"""Who may do what, as far as the policies alone say it: always, never, or sometimes.

*Always* and *never* are proved, and hold whatever is not known here; everything else is
*sometimes*, with the condition that is left. A run can be bounded further by its own grant
and by whoever delegated to it: that takes away, and never adds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from agentguard.analysis.proofs.environments import Environment
from agentguard.analysis.proofs.knowing import ERRS, FAILS, HOLDS, Knowing, Part, Who, all_of, any_of, negated
from agentguard.analysis.proofs.reasoning import Reasoning, Terms
from agentguard.model import EntityUid
from agentguard.policy.deciding.looks import Looking
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.files.folder import ENTITIES
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Node, Op

if TYPE_CHECKING:
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.text.tree import Syntax

__all__ = ["Access", "May", "Remaining", "Who", "access", "agents_of", "is_unlisted"]

NOBODY: Final = "\0"
"""No agent, user or task can have it for a name: an issuer's text has no such character."""

# Permits and forbids whose contradiction is looked for.
_MOST: Final = 50


class May(StrEnum):
    """Whether calls are allowed."""

    ALWAYS = "always"
    SOMETIMES = "sometimes"
    NEVER = "never"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remaining:
    """A policy that bears on calls, and what is left of its condition.

    Attributes:
        policy: The policy.
        part: What is left.
    """

    policy: Policy
    part: Part

    @property
    def when(self) -> str:
        """What is left of its condition, as Cedar."""
        return self.part.text


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Whether somebody may do something.

    Attributes:
        who: Who.
        action: What: the action's id.
        may: Whether.
        why: What settles it, or could end it beside the condition, in words.
        permits: The permits that could match.
        forbids: The forbids that could.
        listed: The types of which whoever acts has to be listed, where it is not known who that is:
            a call of another is denied, *always* or not.
    """

    who: Who
    action: str
    may: May
    why: str = ""
    permits: tuple[Remaining, ...] = ()
    forbids: tuple[Remaining, ...] = ()
    listed: tuple[str, ...] = ()

    @property
    def condition(self) -> str:
        """When a call is allowed, as one condition in Cedar."""
        if self.may is not May.SOMETIMES:
            return "true" if self.may is May.ALWAYS else "false"
        permitted = any_of([one.part for one in self.permits])
        return all_of([permitted, *(negated(one.part) for one in self.forbids)]).text


def access(workspace: Workspace, action: str, who: Who) -> Access:
    """Return whether *who* may do *action*.

    Args:
        workspace: The policies.
        action: The id of an action that they know.
        who: Who acts, as far as that is known.
    """
    for uid in (who.agent, who.user):
        if uid is not None and is_unlisted(workspace, uid):
            why = f"its {uid.type.lower()} is not listed in {ENTITIES}"
            return Access(who=who, action=action, may=May.NEVER, why=why)
    tool = workspace.policies.action(action).tool
    environment = Environment(tool, workspace.types)
    looking = Looking(workspace.types, workspace.types.actions[action], environment.resource_type)
    knowing = Knowing(workspace=workspace, environment=environment, looking=looking, who=who)
    permits: list[Remaining] = []
    forbids: list[Remaining] = []
    trees: dict[str, Syntax] = {}
    keys = frozenset(keys_of(tool.name, tool.groups))
    for policy in workspace.policies.policies.values():
        if keys.isdisjoint(policy.part.keys):
            # Its head lets no such call pass.
            continue
        tree = trees[policy.id] = _tree(policy)
        part = _left(knowing, tree)
        if part.can != FAILS:
            (permits if tree.effect == "permit" else forbids).append(Remaining(policy=policy, part=part))
    found = Access(
        who=who,
        action=action,
        may=May.SOMETIMES,
        permits=tuple(permits),
        forbids=tuple(forbids),
        listed=_listed(workspace, who),
    )
    may, why = _settled(found, trees, Reasoning(environment, Terms()))
    return replace(found, may=may, why=why)


def agents_of(workspace: Workspace) -> tuple[EntityUid, ...]:
    """Return the agents that the folder knows: those that are listed, and those that policies name."""
    named = {
        literal.uid for policy in workspace.policies.policies.values() for literal in policy.literals
    } | workspace.policies.static_uids
    return tuple(sorted((uid for uid in named if uid.type == "Agent"), key=lambda uid: uid.id))


def _listed(workspace: Workspace, who: Who) -> tuple[str, ...]:
    unknown = {"Agent": who.agent is None, "User": who.user is None, "Task": True}
    return tuple(name for name, asked in unknown.items() if asked and is_unlisted(workspace, EntityUid(name, NOBODY)))


def is_unlisted(workspace: Workspace, uid: EntityUid) -> bool:
    """Return whether every call of, or on behalf of, somebody is denied, since nothing lists or loads them."""
    policies = workspace.policies
    known = uid in policies.static_uids or uid.type in workspace.written.loaders
    return not known and bool(policies.missing({(uid.type, uid.id)}))


@lru_cache(maxsize=1_024)
def _tree(policy: Policy) -> Syntax:
    return syntax_of(policy)


def _left(knowing: Knowing, tree: Syntax) -> Part:
    """Return what is left of a policy, its head included."""
    head = [node for node in (tree.action, tree.principal, tree.resource) if node.op is not Op.VARIABLE]
    parts = [knowing.left(node, tree.text) for node in head]
    for clause in tree.clauses:
        part = knowing.left(clause.body, tree.text)
        parts.append(part if clause.holds else negated(part))
    return all_of(parts)


def _settled(found: Access, trees: dict[str, Syntax], reasoning: Reasoning) -> tuple[May, str]:
    """Return what can be proved of what is left."""
    possible = [one for one in found.permits if one.part.can & HOLDS]
    if not possible:
        return May.NEVER, "no permit can match"
    # A policy whose evaluation fails denies the call, whatever it is.
    stopping = [one for one in found.forbids if not one.part.can & FAILS]
    stopping += [one for one in found.permits if one.part.can == ERRS]
    if stopping:
        return May.NEVER, f"{stopping[0].policy.id} always stops it"
    failing = [one.policy.id for one in (*found.permits, *found.forbids) if one.part.can & ERRS]
    granting = [one for one in found.permits if one.part.can == HOLDS]
    if granting and not found.forbids and not failing:
        return May.ALWAYS, f"by {granting[0].policy.id}"
    if len(possible) + len(found.forbids) <= _MOST:
        spared = [(_matches(trees[one.policy.id]), False) for one in found.forbids]
        if all(reasoning.never([(_matches(trees[one.policy.id]), True), *spared]) for one in possible):
            return May.NEVER, "whatever permits it, something forbids it or it cannot be"
    return May.SOMETIMES, f"denied where {' or '.join(failing)} cannot be evaluated" if failing else ""


def _matches(tree: Syntax) -> Node:
    """Return what a policy comes to as one expression."""
    nodes = [node for node in (tree.principal, tree.action, tree.resource) if node.op is not Op.VARIABLE]
    nodes += [clause.body if clause.holds else _made(Op.NOT, clause.body) for clause in tree.clauses]
    whole = _made(Op.LITERAL, value=True)
    for node in nodes:
        whole = _made(Op.AND, whole, node)
    return whole


def _made(op: Op, *parts: Node, value: bool | None = None) -> Node:
    return Node(op, parts, value, 0, 0, 0)
