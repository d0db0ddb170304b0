"""Which permits the calls on record took, and which of what they permit nobody used.

Only an allow says which permits it took. What was decided by another version of the
policies counts where hindsight can tell which permits of this one it would have taken.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agentguard.analysis.history.hindsight import Hindsight
from agentguard.analysis.history.impact import decisions
from agentguard.analysis.history.remembered import Remembered
from agentguard.analysis.history.replay import NoRequestError, replay
from agentguard.analysis.proofs.access import May, Who, access, agents_of
from agentguard.model import Effect, EntityUid
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.files.several import COMMON, split

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from agentguard.analysis.history.replay import Replayed, Setting
    from agentguard.analysis.workspace import Workspace
    from agentguard.evidence.kept import Kept
    from agentguard.policy.deciding.compiled import Policy

# Different values that are kept of one thing: past that it is said to be many.
_MOST: Final = 64
_RUNS: Final = 100_000
# Calls that differ in something that a policy looks at, to try other policies on.
_EXAMPLES: Final = 50_000


@dataclass(slots=True)
class Use:
    """How one permit was used.

    Attributes:
        calls: How many allows took it.
        last: When the newest was, unix seconds; None if there is none.
        actions: By which action, how often.
        agents: By which agent, how often.
        purposes: For which purpose, how often; empty for none.
        delegated: How many of the calls were of a delegated run, at one of whose links it matched.
        may_have: By action, how many allows may have taken it besides: which they took cannot be told.
    """

    calls: int = 0
    last: float | None = None
    actions: Counter[str] = field(default_factory=Counter)
    agents: Counter[str] = field(default_factory=Counter)
    purposes: Counter[str] = field(default_factory=Counter)
    delegated: int = 0
    may_have: Counter[str] = field(default_factory=Counter)

    def add(self, record: Kept) -> None:
        """Count an allow that took it."""
        self.calls += 1
        self.last = record.at if self.last is None else max(self.last, record.at)
        self.actions[record.text("agentguard.action.id")] += 1
        for counter, name in ((self.agents, "agentguard.agent.id"), (self.purposes, "agentguard.purpose")):
            value = record.text(name)
            if value in counter or len(counter) < _MOST:
                counter[value] += 1
        self.delegated += bool(record.number("agentguard.delegation.depth"))

    @property
    def many_agents(self) -> bool:
        """Whether there may be more agents than are listed."""
        return len(self.agents) >= _MOST

    @property
    def purpose(self) -> str:
        """The purpose of all of them; empty if they have none, or several."""
        (only, *others) = self.purposes or ("",)
        return "" if others else only


@dataclass(slots=True)
class Usage:
    """What was used of a policy folder.

    Attributes:
        workspace: The folder.
        decisions: How many decisions there are.
        allowed: How many of them allow.
        by_others: How many were made by another version of the policies.
        untold: How many allows by other versions cannot be told to have taken one of these permits.
        since: When the first was made by this version, unix seconds.
        first: When the first of all was made.
        last: When the last was.
        begins: When the oldest record was made, whatever it is about and whenever that was.
        permits: How each permit was used, by its id, in the folder's order.
        claims: The actions that each one's head lets pass, sorted.
        runs: The tools that each run was allowed; the first so many runs.
        agents: By agent and tool, how many calls were allowed.
        examples: Allowed calls, one of each kind that policies tell apart.
    """

    workspace: Workspace
    decisions: int = 0
    allowed: int = 0
    by_others: int = 0
    untold: int = 0
    since: float | None = None
    first: float | None = None
    last: float | None = None
    begins: float | None = None
    permits: dict[str, Use] = field(default_factory=dict)
    claims: dict[str, tuple[str, ...]] = field(default_factory=dict)
    runs: dict[tuple[str, str], set[str]] = field(default_factory=dict)
    agents: dict[str, Counter[str]] = field(default_factory=dict)
    examples: list[Replayed] = field(default_factory=list)

    def never(self, id_: str) -> tuple[str, ...]:
        """Return those of them that nobody can have used by it, sorted."""
        use = self.permits[id_]
        return tuple(one for one in self.claims[id_] if one not in use.actions and one not in use.may_have)

    @property
    def shared(self) -> frozenset[str]:
        """The ids of permits that other servers have too, of whose calls this evidence says nothing."""
        policies = self.workspace.policies.policies
        return frozenset(id_ for id_ in self.permits if split(policies[id_].file)[0] == COMMON)

    @property
    def unused(self) -> tuple[str, ...]:
        """The ids of permits that no call can have taken."""
        return tuple(id_ for id_, use in self.permits.items() if not (use.calls or use.may_have))

    @property
    def too_wide(self) -> tuple[str, ...]:
        """The ids of permits that some calls took, and that permit actions that none can have taken."""
        return tuple(id_ for id_, use in self.permits.items() if use.calls and self.never(id_))


def permits_of(workspace: Workspace) -> Sequence[Policy]:
    """Return the permits of a folder, in its order."""
    return [policy for policy in workspace.policies.policies.values() if policy.part.permit]


def not_done(usage: Usage) -> dict[str, tuple[str, ...]]:
    """Return what policies let each agent do and no call of it did: of so many agents that are known.

    What a run does that it delegated to is done by another agent, and takes a permit of this one too.
    """
    workspace = usage.workspace
    # Those that act come first, the busiest before the others.
    busy = sorted(usage.agents, key=lambda name: -usage.agents[name].total())
    known = (*(EntityUid("Agent", name) for name in busy), *agents_of(workspace))
    found: dict[str, tuple[str, ...]] = {}
    for agent in dict.fromkeys(known[:_MOST]):
        did = usage.agents.get(agent.id, Counter())
        others = [name for name in sorted(workspace.policies.actions) if name not in did]
        found[agent.id] = tuple(
            name for name in others if access(workspace, name, Who(agent=agent)).may is not May.NEVER
        )
    return found


def _claimed(policy: Policy, workspace: Workspace) -> tuple[str, ...]:
    keys = set(policy.part.keys)
    tools = (action.tool for action in workspace.policies.actions.values())
    return tuple(sorted(tool.name for tool in tools if not keys.isdisjoint(keys_of(tool.name, tool.groups))))


def usage_of(
    records: Iterable[Kept], workspace: Workspace, *, since: float | None = None, until: float | None = None
) -> Usage:
    """Return what was used of a folder by the decisions among some records.

    Args:
        records: The records, each chain in its order.
        workspace: The folder.
        since: No earlier decisions, unix seconds.
        until: Earlier ones than that.
    """
    permits = permits_of(workspace)
    found = Usage(
        workspace,
        permits={policy.id: Use() for policy in permits},
        claims={policy.id: _claimed(policy, workspace) for policy in permits},
    )
    remembered = Remembered(Hindsight(workspace, workspace), keep=_EXAMPLES)
    version = workspace.policies.version
    for record, setting in decisions(_begun(records, found), since=since, until=until):
        found.decisions += 1
        found.first = record.at if found.first is None else min(found.first, record.at)
        found.last = record.at if found.last is None else max(found.last, record.at)
        same = record.text("agentguard.policy.version") == version
        if same:
            found.since = record.at if found.since is None else min(found.since, record.at)
        found.by_others += not same
        if record.text("agentguard.decision.effect") != Effect.ALLOW:
            continue
        found.allowed += 1
        _count_run(found, record)
        ids, others = _taken(found, record, remembered, setting, same=same)
        for id_ in ids:
            found.permits[id_].add(record)
        found.untold += not ids
        for id_ in others:
            found.permits[id_].may_have[record.text("agentguard.action.id")] += 1
    found.examples = remembered.examples
    return found


def _begun(records: Iterable[Kept], found: Usage) -> Iterator[Kept]:
    for record in records:
        found.begins = record.at if found.begins is None else min(found.begins, record.at)
        yield record


def _taken(
    found: Usage, record: Kept, remembered: Remembered, setting: Setting, *, same: bool
) -> tuple[list[str], list[str]]:
    """Return the permits that an allow took, and those of which that cannot be told."""
    action = record.text("agentguard.action.id")
    claiming = [id_ for id_, actions in found.claims.items() if action in actions]
    try:
        replayed = replay(record, found.workspace, setting=setting)
    except NoRequestError:
        return (_of(found, record.policy_ids), []) if same else ([], claiming)
    answer = remembered.answer(replayed)
    if same:
        ids = _of(found, record.policy_ids)
        return ids, [] if ids else claiming
    if answer.effect is Effect.ALLOW and (ids := _of(found, answer.policy_ids)):
        return ids, []
    # A policy keeps its name when it is changed: one that was taken then counts as taken. But
    # what has another name by now may be what was taken, and what has changed may take it now.
    ids = [id_ for id_ in claiming if id_ in record.policy_ids]
    could = remembered.could_permit(replayed) if ids else frozenset(claiming)
    return ids, [id_ for id_ in claiming if id_ in could and id_ not in ids]


def _of(found: Usage, ids: Iterable[str]) -> list[str]:
    return [id_ for id_ in ids if id_ in found.permits]


def _count_run(found: Usage, record: Kept) -> None:
    action, agent = record.text("agentguard.action.id"), record.text("agentguard.agent.id")
    found.agents.setdefault(agent, Counter())[action] += 1
    run = record.text("agentguard.invocation.issuer"), record.text("agentguard.run.id")
    if run in found.runs or len(found.runs) < _RUNS:
        found.runs.setdefault(run, set()).add(action)
