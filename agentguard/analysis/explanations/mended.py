"""What of the policies would have to be other than it is, for a denied call to be allowed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.analysis.supposed import judge
from agentguard.errors import PolicyError
from agentguard.model import EntityUid, Reason
from agentguard.policy.files.reader import read_policies

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.analysis.supposed import Verdict
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.compiled import Policy

_NEW: Final = "new-permit"
# Each is compiled and tried: more forbids at once than that are told all together.
_MOST: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Mended:
    """A change of the policies after which a call is allowed: it was tried.

    Attributes:
        without: The policies that would not be there.
        permit: The permit that would be; empty if none has to.
    """

    without: tuple[Policy, ...] = ()
    permit: str = ""

    @property
    def text(self) -> str:
        """What would be."""
        if self.permit:
            return f"there were a permit such as {self.permit}"
        names = " and ".join(policy.id for policy in self.without)
        return f"{names} did not exist"

    @property
    def owners(self) -> tuple[str, ...]:
        """Who answers for what would not be there, each once."""
        return tuple(dict.fromkeys(policy.owner for policy in self.without if policy.owner is not None))


def mended(verdict: Verdict, workspace: Workspace) -> tuple[Mended, ...]:
    """Return changes of the policies after which a denied call is allowed.

    Args:
        verdict: The denial.
        workspace: The folder whose policies denied it.

    Returns:
        One for each forbid, or policy that failed, that alone stands against it, or one for all
        of them together; for a call that no permit matches, a permit for it. Empty if that is
        not enough, or if no policy denied it.
    """
    if not verdict.requests:
        return ()
    if verdict.reason is Reason.NO_PERMIT:
        return _permitted(verdict, workspace)
    policies = workspace.policies.policies
    named = [policies[id_] for id_ in _named(verdict) if id_ in policies]
    alone = [[policy] for policy in named[:_MOST]]
    for choices in (alone, [named] if len(named) > 1 else []):
        found = [Mended(without=tuple(some)) for some in choices if _allows(verdict, workspace, _rest(policies, some))]
        if found:
            return tuple(found)
    return ()


def _named(verdict: Verdict) -> tuple[str, ...]:
    if verdict.reason is not Reason.POLICY_ERROR:
        return verdict.policy_ids
    # The engine names what failed in its errors alone.
    return tuple(dict.fromkeys(error.split("`")[1] for error in verdict.errors if error.count("`") > 1))


def _rest(policies: Mapping[str, Policy], without: Sequence[Policy]) -> list[Policy]:
    gone = {policy.id for policy in without}
    return [policy for id_, policy in policies.items() if id_ not in gone]


def _permitted(verdict: Verdict, workspace: Workspace) -> tuple[Mended, ...]:
    first = verdict.requests[0]
    # Every link of a chain needs its permit, and one for each is none that anybody should write.
    agents = {invocation.agent for invocation in first.invocation.chain}
    if len(agents) > 1:
        return ()
    agent, action = EntityUid("Agent", agents.pop()), EntityUid("Action", first.action)
    permit = f"permit (principal in {agent}, action == {action}, resource);"
    policies = workspace.policies.policies
    id_ = _NEW
    while id_ in policies:
        id_ += "-"
    found, _ = read_policies("", f'@id("{id_}")\n{permit}', workspace.limits)
    return (Mended(permit=permit),) if _allows(verdict, workspace, [*policies.values(), *found]) else ()


def _allows(verdict: Verdict, workspace: Workspace, policies: Iterable[Policy]) -> bool:
    try:
        other = workspace.with_policies(list(policies))
    except PolicyError:
        return False
    return judge(verdict.requests, other.policies).allowed
