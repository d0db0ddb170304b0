"""Policies that permit what was used, and no more: a proposal, made of the policies that there are.

Each permit keeps all of its conditions, and its head demands at least what it demanded: so
whatever the proposal permits, the folder permits today. A permit that may fail to be evaluated
is left alone, since where it fails the call is denied. Forbids and everything else stay as they
are written. What was allowed stays allowed: that is tried on the calls themselves.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.analysis.history.hindsight import Hindsight, MisfitError
from agentguard.analysis.proofs.access import is_unlisted
from agentguard.errors import PolicyError
from agentguard.evidence.words import moment
from agentguard.model import Effect, EntityUid, printable
from agentguard.policy.conversion.values import quoted
from agentguard.policy.deciding.possible import Possible
from agentguard.policy.files.reader import read_policies
from agentguard.policy.text.lexer import statements
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Op

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.analysis.history.unused import Usage
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.text.tree import Syntax

# A permit for everybody is split by agent as long as that stays readable.
_MOST_AGENTS: Final = 16
# An id holds 128 of them; a number may come behind.
_ID_CHARACTERS: Final = 120
_NOT_OF_AN_ID: Final = re.compile(r"[^A-Za-z0-9_-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tighter:
    """A proposal.

    Attributes:
        files: Every file of the folder that decides, by name, with the proposed text.
        workspace: The same, compiled.
        removed: The ids of the permits that are not in it any more.
        narrowed: The ids of those that permit less.
        allowed: How many kinds of calls were tried and stay allowed.
        untold: Of how many kinds it cannot be told.
        lost: The ids of decisions that allow what the proposal would deny: there should be none.
    """

    files: Mapping[str, str]
    workspace: Workspace
    removed: tuple[str, ...]
    narrowed: tuple[str, ...]
    allowed: int
    untold: int
    lost: tuple[str, ...]


def tighter_of(usage: Usage) -> Tighter:
    """Return a proposal for what was used.

    Raises:
        PolicyError: If the server does not take it.
    """
    workspace = usage.workspace
    texts: dict[str, str] = {}
    narrowed: list[str] = []
    taken = set(workspace.policies.policies)
    left_alone = usage.shared | _failing(workspace)
    for id_ in usage.permits:
        policy = workspace.policies.policies[id_]
        if id_ in left_alone:
            continue
        if id_ in usage.unused:
            texts[id_] = _farewell(policy, usage)
            continue
        text = _narrowed(policy, usage, taken)
        if text != policy.text:
            texts[id_] = text
            narrowed.append(id_)
    files = {name: _edited(name, text, workspace, texts) for name, text in workspace.source.files}
    policies = _read(files, workspace)
    if not any(policy.part.permit for policy in policies):
        message = "no call took any permit, and without one a folder allows nothing"
        raise PolicyError([message])
    proposed = workspace.with_policies(policies)
    allowed, untold, lost = _tried(usage, proposed)
    return Tighter(
        files=files,
        workspace=proposed,
        removed=tuple(id_ for id_ in usage.unused if id_ in texts),
        narrowed=tuple(narrowed),
        allowed=allowed,
        untold=untold,
        lost=lost,
    )


def _failing(workspace: Workspace) -> frozenset[str]:
    """Return the ids of policies that may fail to be evaluated, at a call that they are asked about."""
    possible = Possible(workspace.policies, workspace.types)
    asked = [possible.asked(name) for name in workspace.policies.actions]
    return frozenset(
        part.policy.id
        for one in asked
        for part in one.policies
        if any(one.atoms[text].looks.may_err for text in part.atoms)
    )


def _read(files: Mapping[str, str], workspace: Workspace) -> list[Policy]:
    found: list[Policy] = []
    for name, text in files.items():
        if name.endswith(".cedar"):
            read, problems = read_policies(name, text, workspace.limits)
            if problems:
                raise PolicyError([str(problem) for problem in problems])
            found += read
    return found


def _tried(usage: Usage, proposed: Workspace) -> tuple[int, int, tuple[str, ...]]:
    """Return how many calls stay allowed, of how many that cannot be told, and which would not be."""
    hindsight = Hindsight(usage.workspace, proposed)
    allowed = untold = 0
    lost = []
    for replayed in usage.examples:
        try:
            answer = hindsight.answer(replayed)
        except MisfitError:
            untold += 1
            continue
        allowed += answer.effect is Effect.ALLOW
        untold += answer.effect is None
        if answer.effect is Effect.DENY:
            lost.append(replayed.record.text("agentguard.decision.id"))
    return allowed, untold, tuple(lost)


def _edited(name: str, text: str, workspace: Workspace, texts: Mapping[str, str]) -> str:
    """Return a file with other texts in the place of some of its policies."""
    here = {policy.line: policy.id for policy in workspace.policies.policies.values() if policy.file == name}
    if not here.keys() or texts.keys().isdisjoint(here.values()):
        return text
    parts: list[str] = []
    end = 0
    for statement in statements(text):
        id_ = here.get(statement.line, "")
        if id_ in texts and workspace.policies.policies[id_].text == statement.text:
            parts += (text[end : statement.offset], texts[id_])
            end = statement.offset + len(statement.text)
    return "".join((*parts, text[end:]))


def _farewell(policy: Policy, usage: Usage) -> str:
    """Return what stands in the place of a permit that nobody used."""
    times = [moment(at, "%Y-%m-%d") for at in (usage.first, usage.last) if at is not None]
    # An id may hold anything, and a line break would end the comment.
    return f"// {printable(policy.id)}: no call took it from {' to '.join(times)}."


def _narrowed(policy: Policy, usage: Usage, taken: set[str]) -> str:
    """Return a permit for what was used of it."""
    use = usage.permits[policy.id]
    syntax = syntax_of(policy)
    edits: list[tuple[int, int, str]] = []
    if usage.never(policy.id):
        names = sorted(use.actions.keys() | use.may_have.keys())
        actions = ", ".join(f"Action::{quoted(name)}" for name in names)
        demand = f"action in [{actions}]" if len(names) > 1 else f"action == {actions}"
        edits.append((syntax.action.start, syntax.action.end, demand))
    everybody = syntax.principal.op is Op.VARIABLE
    # At which link of a chain a permit matched is not on record, so neither is for whom.
    known = not (use.delegated or use.many_agents or use.may_have)
    # Whoever was allowed by another version and is listed no more may do nothing, and cannot be named.
    agents = [name for name in sorted(use.agents) if not is_unlisted(usage.workspace, EntityUid("Agent", name))]
    if not (everybody and known and 0 < len(agents) <= _MOST_AGENTS):
        return _with(policy.text, edits)
    parts = []
    for agent in agents:
        own = [*edits, (syntax.principal.start, syntax.principal.end, f"principal in {_agent(agent)}")]
        if len(agents) > 1:
            own.append(_renamed(syntax, policy.id, agent, taken))
        parts.append(_with(policy.text, own))
    return "\n\n".join(parts)


def _agent(name: str) -> str:
    uid = EntityUid("Agent", name)
    return f"{uid.type}::{quoted(uid.id)}"


def _renamed(syntax: Syntax, id_: str, agent: str, taken: set[str]) -> tuple[int, int, str]:
    """Return the edit that gives a policy an id of its own."""
    wanted = f"{id_}-{_NOT_OF_AN_ID.sub('-', agent).strip('-') or 'agent'}"[:_ID_CHARACTERS]
    name, number = wanted, 1
    while name in taken:
        number += 1
        name = f"{wanted}-{number}"
    taken.add(name)
    (annotation,) = [one for one in syntax.annotations if one.name == "id"]
    return annotation.start, annotation.end, f"@id({quoted(name)})"


def _with(text: str, edits: Sequence[tuple[int, int, str]]) -> str:
    for start, end, new in sorted(edits, reverse=True):
        text = f"{text[:start]}{new}{text[end:]}"
    return text
