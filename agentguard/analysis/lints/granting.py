"""Permits that give more than they seem to, or nothing; policies that say what another says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.lint import listed
from agentguard.analysis.lints.writing import agent_of
from agentguard.analysis.proofs.reasoning import can_fail
from agentguard.policy.text.tree import Op, path_of, walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from agentguard.analysis.lints.lint import Read, Reading, Spot
    from agentguard.analysis.proofs.reasoning import Reasoning
    from agentguard.model import EntityUid
    from agentguard.policy.text.tree import Node

_ALL: Final = "tools/call"
_DESTRUCTIVE: Final = "destructive"
# Pairs of policies that are looked at, a second's worth or two, and what a proof counts as.
_MOST_PAIRS: Final = 2_000_000
_PROOF: Final = 100


def unconditional_permits(read: Read) -> Iterator[Spot]:
    """Find permits that ask nothing before something destructive is done, where no forbid stands in the way."""
    unsaid = {offered.tool.name for offered in read.workspace.written.offers if not offered.annotated}
    for permit in read.permits:
        free = [tool.environment.tool for tool in permit.live if _asks_nothing(permit, tool)]
        stopped = frozenset[str]().union(
            *(forbid.names for forbid in read.forbids if _stands_in_the_way(forbid, permit))
        )
        destructive = {tool.name for tool in free if _DESTRUCTIVE in tool.groups}
        if left := destructive - stopped - unsaid:
            yield permit.whole(
                f"{listed(left)} can destroy, and this permits it whatever the call: "
                "add a `when`, or a forbid with `unless { context has approval }`"
            )
        elif len(free) == len(permit.live) and _is_for_all(permit) and not destructive & stopped:
            yield permit.whole(
                "this permits every tool, those that are still to come included, whatever the call: "
                "name the actions in the head, or add a `when`"
            )


def unasked_approvals(read: Read) -> Iterator[Spot]:
    """Find conditions on a person's approval where no policy has anybody asked for one."""
    asked = frozenset[str]().union(*(forbid.names for forbid in read.forbids if forbid.policy.approval))
    for reading in read.readings:
        names = {tool.environment.tool.name for tool in reading.live}
        if reading.shared or not names or names & asked:
            continue
        node = next(
            (node for clause in reading.syntax.clauses for node in walk(clause.body) if _is_approval(node)), None
        )
        if node is not None:
            what = f"nobody is asked for an approval of {listed(names)}, so this is never so"
            yield reading.spot(node, f'{what}: write `@obligation("approval")` above the forbid that it lifts')


def _is_approval(node: Node) -> bool:
    """Whether it asks if there is an approval."""
    if node.op is not Op.HAS or not isinstance(node.value, tuple):
        return False
    return (*path_of(node.parts[0]), *node.value)[:2] == ("context", "approval")


def _asks_nothing(permit: Reading, tool: Reasoning) -> bool:
    """Whether all that it demands beside who acts is so at every call of a tool."""
    asked = [(node, not wanted) for node, wanted in permit.conditions if agent_of(node, wanted=wanted) is None]
    if permit.syntax.resource.op is not Op.VARIABLE:
        asked.append((permit.syntax.resource, False))
    return all(tool.never([demand]) for demand in asked)


def _is_for_all(permit: Reading) -> bool:
    actions = permit.policy.scope.actions
    return permit.syntax.action.op is Op.VARIABLE or (actions is not None and _ALL in actions)


def _stands_in_the_way(forbid: Reading, permit: Reading) -> bool:
    """Whether somebody thought of these tools, and of whom this permit is for."""
    about = forbid.syntax.action.op is not Op.VARIABLE or forbid.syntax.resource.op is not Op.VARIABLE
    principal = forbid.policy.scope.principal
    whom = forbid.syntax.principal.op is Op.VARIABLE or (
        principal is not None and principal == permit.policy.scope.principal
    )
    return whom and (about or forbid.policy.approval)


def shadowed_permits(read: Read) -> Iterator[Spot]:
    """Find permits whose every request another one permits, for certain."""
    wider = _Wider.of(read.permits)
    for permit in _sure(read.permits):
        for other in wider.than(permit):
            # Of two that permit the same, the first one stays.
            if other.place < permit.place or _can_fail(other) or not _implies(other, permit):
                yield permit.whole(
                    f"`{other.policy.id}` ({other.where}) permits all that this permits: "
                    "delete this one, or narrow the other"
                )
                break


def overruled_permits(read: Read) -> Iterator[Spot]:
    """Find permits whose every request a forbid forbids, for certain."""
    wider = _Wider.of(read.forbids)
    for permit in _sure(read.permits):
        overruling = next(wider.than(permit), None)
        if overruling is not None:
            yield permit.whole(
                f"`{overruling.policy.id}` ({overruling.where}) forbids all that this permits: "
                "narrow the forbid, or delete this one"
            )


@dataclass(slots=True)
class _Wider:
    """Policies, to look for one that matches, or fails, wherever another one matches.

    Attributes:
        by_principal: The policies, by the principal of their head.
        left: How many more pairs are looked at: most folders are done long before.
    """

    by_principal: Mapping[EntityUid | None, Sequence[Reading]]
    left: int = _MOST_PAIRS

    @classmethod
    def of(cls, readings: Iterable[Reading]) -> _Wider:
        found: dict[EntityUid | None, list[Reading]] = {}
        for reading in readings:
            found.setdefault(reading.policy.scope.principal, []).append(reading)
        return cls(found)

    def than(self, inner: Reading) -> Iterator[Reading]:
        # Others could be wider by what the conditions say; for that not every pair is looked at.
        for principal in dict.fromkeys((None, inner.policy.scope.principal)):
            for outer in self.by_principal.get(principal, ()):
                if self.left <= 0:
                    return
                self.left -= 1
                # Of two that say the same, another lint tells.
                if outer.key != inner.key and inner.names <= outer.covers:
                    self.left -= _PROOF
                    if _implies(inner, outer):
                        yield outer


def _implies(inner: Reading, outer: Reading) -> bool:
    """Whether *outer* matches, or fails, wherever *inner* matches."""
    return inner.names <= outer.covers and all(
        tool.never_both(ways, refusal) for tool, ways in inner.ways for refusal in outer.refusals
    )


def _sure(permits: Iterable[Reading]) -> Iterator[Reading]:
    """Yield the permits that match some calls, never fail, and are this server's own to delete."""
    return (permit for permit in permits if permit.ways and not permit.shared and not _can_fail(permit))


def _can_fail(reading: Reading) -> bool:
    """Whether it may fail to evaluate, and so deny what nothing else does."""
    return any(can_fail(clause.body) for clause in reading.syntax.clauses)


def duplicates(read: Read) -> Iterator[Spot]:
    """Find policies that an earlier one repeats but for their annotations."""
    first: dict[object, Reading] = {}
    for reading in read.readings:
        # A forbid that a person can lift stops less than one that says the same and that nobody can.
        earlier = first.setdefault((reading.key, reading.policy.approval), reading)
        if earlier is not reading:
            yield reading.whole(f"`{earlier.policy.id}` ({earlier.where}) says the same: delete one of the two")
