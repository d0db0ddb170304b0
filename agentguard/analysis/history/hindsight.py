"""What policies say, with hindsight, of a call that is on record: allow, deny, or that it cannot be told.

Two things are known. The record says who called what, with which of the arguments; and
it says what the old policies came to, so each policy, and each condition, that the new
ones share with them has come to the same. What is still open is left open: an answer is
given only if it is the same whatever the unknown turns out to be.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.history.differing import changed_types, may_lack, misfit, offer_of, reach_is_kept
from agentguard.analysis.history.donebefore import RUN
from agentguard.analysis.history.recorded import facts_of, is_liftable, may_act_on_others, with_grant
from agentguard.analysis.history.replay import ANCESTORS, GRANT, PRINCIPAL, RESOURCE
from agentguard.model import Effect, Reason, printable
from agentguard.policy.deciding.looks import ENTITIES
from agentguard.policy.deciding.possible import ANYTHING, ERRS, FAILS, HOLDS, Possible, doubts, learn, outcome

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.analysis.history.recorded import Facts
    from agentguard.analysis.history.replay import Replayed
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.looks import Path
    from agentguard.policy.deciding.possible import Asked, Parted, Tree, Values
    from agentguard.policy.deciding.reach import Uid

# Why a call is denied whatever its grant says, as long as that is valid.
_FIRST: Final = frozenset((Reason.POLICY, Reason.MISSING_ENTITY))
# A condition that one policy settles may settle another.
_ROUNDS: Final = 2


class MisfitError(Exception):
    """A record that cannot have come about by these policies; the message says how that shows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What policies say of a call, as far as that can be told.

    Attributes:
        effect: Allow or deny; None if it cannot be told.
        reason: Why, if that can be told too. What a person could lift is `APPROVAL_REQUIRED`.
        policy_ids: The policies that surely determine it, sorted.
        within_grant: Of an allow: that it also takes the run's own grant, which is not on record.
        doubts: What would have to be known to tell.
        why: Why it cannot be told, where it is no value that is missing.
    """

    effect: Effect | None = None
    reason: Reason | None = None
    policy_ids: tuple[str, ...] = ()
    within_grant: bool = False
    doubts: frozenset[Path] = frozenset()
    why: str = ""


@dataclass(frozen=True, slots=True)
class _Link:
    """One link of a chain, judged."""

    effect: Effect | None
    reason: Reason | None = None
    policy_ids: tuple[str, ...] = ()
    doubts: frozenset[Path] = frozenset()

    def at(self, depth: int, replayed: Replayed) -> _Link:
        """Return it with its doubts about who delegated named as such."""
        about = {path for path in self.doubts if path == PRINCIPAL or path[: len(RUN)] == RUN}
        if depth == _links(replayed) - 1 or not about:
            return self
        return replace(self, doubts=(self.doubts - about) | {(ANCESTORS,)})


@dataclass(frozen=True, slots=True)
class _Before:
    """What came of the old policies at one link."""

    values: Values
    trees: Mapping[tuple[bool, Tree], int]
    missing: frozenset[Uid]


class Hindsight:
    """Two versions of policies, to be asked about records of decisions by the first.

    Attributes:
        old: What was in force.
        new: What would have been.
    """

    def __init__(self, old: Workspace, new: Workspace) -> None:
        self.old = old
        self.new = new
        self._old = Possible(old.policies, old.types)
        self._new = self._old if new is old else Possible(new.policies, new.types)
        self._changed = changed_types(old, new)
        self._reach_is_kept = reach_is_kept(old, new)
        self._loaded_are_whole = not may_lack(old)
        self._misfit = misfit(old, new)
        self._unchanged: dict[str, bool] = {}

    def looks(self, action: str) -> frozenset[Path]:
        """Return all paths that policies, old or new, look at in calls of an action."""
        found: set[Path] = set()
        for possible in (self._old, self._new):
            if action in possible.policies.actions:
                for atom in possible.asked(action).atoms.values():
                    found.update(look.path for look in atom.looks.at)
        return frozenset(found)

    def answer(self, replayed: Replayed) -> Answer:
        """Return what the new policies say of a call.

        Raises:
            MisfitError: The old ones cannot have decided as the record says.
        """
        action = replayed.request.action
        same = replayed.record.text("agentguard.policy.version") == self.old.policies.version
        facts = facts_of(replayed, self._old.asked(action), same=same)
        present = facts.present if same or self._loaded_are_whole else 0
        before, facts = self._before(replayed, facts, same=same, present=present)
        if action not in self.new.policies.actions:
            return Answer(why=f"the new folder's schema has no `{printable(action)}`")
        if offer_of(self.old, action) != offer_of(self.new, action):
            return Answer(why=f"`{printable(action)}` is not the same in the new folder's schema")
        if self._misfit is not None and _is_loaded(self.new, replayed):
            return Answer(why=f"`{self._misfit}` is not the same in the new folder's schema")
        if same and self._is_unchanged(action):
            return self._as_recorded(replayed)
        some = same and self._is_kept(replayed)
        links = [self._after(replayed, one, depth, present=present, some=some) for depth, one in enumerate(before)]
        # A grant may look at what is listed too: where that has changed, it need not say what it said.
        moved = bool(self._changed) and facts.granted is not False
        facts = replace(facts, clean=facts.clean and not moved)
        answer = _together(links, facts, open_=moved and facts.granted is True)
        if answer.effect is Effect.ALLOW and may_act_on_others(replayed, self.old):
            return Answer(doubts=frozenset({(RESOURCE,)}))
        return answer

    def could_permit(self, replayed: Replayed) -> frozenset[str]:
        """Return the ids of the new permits that a call can have matched, whatever its record says of the old ones."""
        found: set[str] = set()
        for depth in range(_links(replayed)):
            values, _ = self._new.values(replayed.request, replayed.unknown_at(depth), depth)
            permits = [part for part in self._new.asked(replayed.request.action).policies if part.permit]
            found.update(part.policy.id for part in permits if outcome(part.tree, values) & HOLDS)
        return frozenset(found)

    def _is_unchanged(self, action: str) -> bool:
        """Return whether all that an action is judged by is the same in both versions."""
        if self._changed:
            return False
        found = self._unchanged.get(action)
        if found is None:
            old, new = (frozenset(map(_likeness, one.asked(action).policies)) for one in (self._old, self._new))
            found = self._unchanged[action] = old == new
        return found

    def _as_recorded(self, replayed: Replayed) -> Answer:
        """Return what is on record, by the names that the new policies have for the same."""
        record, action = replayed.record, replayed.request.action
        reason = record.text("agentguard.decision.reason")
        decided = {_likeness(one) for one in self._old.asked(action).policies if one.policy.id in record.policy_ids}
        return Answer(
            effect=Effect(record.text("agentguard.decision.effect")),
            reason=Reason.APPROVAL_REQUIRED if is_liftable(reason) else Reason(reason),
            policy_ids=tuple(
                sorted(one.policy.id for one in self._new.asked(action).policies if _likeness(one) in decided)
            ),
        )

    def _is_kept(self, replayed: Replayed) -> bool:
        """Return whether the new policies have each permit that let a call pass: then one of them does at each link."""
        action, ids = replayed.request.action, replayed.record.policy_ids
        permits = {
            _likeness(part) for part in self._old.asked(action).policies if part.permit and part.policy.id in ids
        }
        asked = self._new.asked(action)
        others = asked.touched(self._changed)
        return bool(permits) and permits <= {
            _likeness(part) for part in asked.policies if part.atoms.isdisjoint(others)
        }

    def _before(self, replayed: Replayed, facts: Facts, *, same: bool, present: int) -> tuple[list[_Before], Facts]:
        """Return what came of the old policies at each link, and what the record says in the light of that.

        Raises:
            MisfitError: They cannot have decided so.
        """
        asked = self._old.asked(replayed.request.action)
        found: list[_Before] = []
        links: list[_Link] = []
        for depth, masks in enumerate(facts.masks):
            unknown = replayed.unknown_at(depth)
            values, reached = self._old.values(replayed.request, unknown, depth)
            for part in asked.policies * _ROUNDS:
                if masks.get(part.policy.id) in {HOLDS, FAILS}:
                    learn(part.tree, masks[part.policy.id], values)
            outcomes = {
                part.policy.id: outcome(part.tree, values) & masks.get(part.policy.id, ANYTHING)
                for part in asked.policies
            }
            trees = {(part.permit, part.tree): outcomes[part.policy.id] for part in asked.policies}
            found.append(_Before(values, trees, reached.missing))
            if 0 in outcomes.values() or 0 in values.values():
                message = "its policies cannot have come to what it says of them"
                raise MisfitError(message)
            lacks = _lacks(self.old, reached.missing, replayed, depth, present=depth < present)
            links.append(_judge(asked, values, outcomes, unknown, lacks=lacks).at(depth, replayed))
        if same and _together(links, facts).within_grant:
            facts = with_grant(facts, replayed)
        _check(replayed, _together(links, facts), same=same)
        return found, facts

    def _after(self, replayed: Replayed, before: _Before, depth: int, *, present: int, some: bool) -> _Link:
        """Return what the new policies say at one link."""
        asked = self._new.asked(replayed.request.action)
        unknown = replayed.unknown_at(depth)
        values, reached = self._new.values(replayed.request, unknown, depth)
        # Of what has changed in listed entities, the record says nothing.
        others = asked.touched(self._changed)
        for text in (values.keys() & before.values.keys()) - others:
            values[text] &= before.values[text]
        outcomes = {}
        for part in asked.policies:
            came_to = outcome(part.tree, values)
            if part.atoms.isdisjoint(others):
                came_to &= before.trees.get((part.permit, part.tree), ANYTHING)
            outcomes[part.policy.id] = came_to
        kept = self._reach_is_kept and _loaded(self.new, reached.missing) <= before.missing
        if depth < _links(replayed) - 1:
            # Whoever that is may have been listed.
            kept = kept and self.old.policies.static_uids <= self.new.policies.static_uids
        lacks = _lacks(self.new, reached.missing, replayed, depth, present=depth < present and kept)
        return _judge(asked, values, outcomes, unknown, lacks=lacks, some=some).at(depth, replayed)


def _likeness(part: Parted) -> tuple[bool, bool, Tree]:
    """Return all of a policy that decides."""
    return part.permit, part.policy.approval, part.tree


def _links(replayed: Replayed) -> int:
    return len(replayed.request.invocation.chain)


def _check(replayed: Replayed, answer: Answer, *, same: bool) -> None:
    """Pass a record that the old policies can have led to.

    Raises:
        MisfitError: They cannot, or that cannot be told of a record by another version.
    """
    record = replayed.record
    version = "" if same else ", and it was decided under another version"
    recorded = record.text("agentguard.decision.effect")
    by_grant = answer.within_grant and record.text("agentguard.decision.reason") == Reason.GRANT
    if answer.effect is not None and answer.effect != recorded and not by_grant:
        message = f"the old policies {answer.effect} it, and it says {printable(recorded)}{version}"
        raise MisfitError(message)
    if not same and answer.effect is None:
        message = "it was decided under another version"
        raise MisfitError(message)


def _loaded(workspace: Workspace, missing: frozenset[Uid]) -> frozenset[Uid]:
    return frozenset(uid for uid in missing if uid[0] in workspace.written.loaders)


def _lacks(
    workspace: Workspace, missing: frozenset[Uid], replayed: Replayed, depth: int, *, present: bool
) -> bool | None:
    """Return whether something is missing without which nothing is allowed; None if it may be."""
    if depth < _links(replayed) - 1:
        # Of somebody of whom nothing is known, it is not known either what is missing.
        return False if present else None
    if missing - _loaded(workspace, missing):
        return None if (RESOURCE,) in replayed.paths else True
    return False if present or not _is_loaded(workspace, replayed) else None


def _is_loaded(workspace: Workspace, replayed: Replayed) -> bool:
    """Return whether a loader may have been asked for anything at this call."""
    resource = replayed.request.resource.type
    return not workspace.written.loaders.isdisjoint({resource, "Agent", "User", "Task"})


def _judge(
    asked: Asked,
    values: Values,
    outcomes: Mapping[str, int],
    unknown: frozenset[Path],
    *,
    lacks: bool | None,
    some: bool = False,
) -> _Link:
    """Return what policies say at one link, without its grant; with *some* permit that is known to match.

    | of the policies                      | says                               |
    | ------------------------------------ | ---------------------------------- |
    | something is missing                 | deny, missing_entity               |
    | a forbid matches or fails            | deny                               |
    | a policy fails                       | deny                               |
    | no permit can match                  | deny                               |
    | a permit matches, all else is clean  | allow, if nothing can be missing   |
    | anything else                        | cannot be told                     |
    """
    if lacks:
        return _Link(Effect.DENY, Reason.MISSING_ENTITY)
    forbids = [part for part in asked.policies if not part.permit]
    permits = [part for part in asked.policies if part.permit]

    def ids(parts: Sequence[Parted], came_to: int) -> tuple[str, ...]:
        return tuple(sorted(part.policy.id for part in parts if outcomes[part.policy.id] == came_to))

    clean = not any(came_to & ERRS for came_to in outcomes.values())
    denied = (
        any(not outcomes[part.policy.id] & FAILS for part in forbids)
        or ERRS in outcomes.values()
        or not any(outcomes[part.policy.id] & HOLDS for part in permits)
    )
    if denied:
        reason = None if lacks is None else _reason(forbids, permits, outcomes, clean=clean)
        return _Link(Effect.DENY, reason, ids(forbids, HOLDS))
    open_ = [part for part in asked.policies if outcomes[part.policy.id] not in {HOLDS, FAILS, ERRS}]
    matched = ids(permits, HOLDS)
    # Another permit that may match as well changes nothing, if it cannot fail.
    if (matched or some) and clean and lacks is False and not any(part in open_ for part in forbids):
        return _Link(Effect.ALLOW, Reason.PERMIT, matched)
    found = doubts(open_, values, asked, unknown)
    return _Link(None, doubts=found or (frozenset({(ENTITIES,)}) if lacks is None else frozenset()))


def _reason(
    forbids: Sequence[Parted], permits: Sequence[Parted], outcomes: Mapping[str, int], *, clean: bool
) -> Reason | None:
    """Return why one link is denied, if that can be told."""
    matched = [part for part in forbids if outcomes[part.policy.id] == HOLDS]
    if any(not part.policy.approval for part in matched):
        return Reason.POLICY
    if not clean or any(
        outcomes[part.policy.id] != FAILS for part in forbids if not (part.policy.approval and part in matched)
    ):
        return None
    if matched:
        return Reason.APPROVAL_REQUIRED
    return Reason.NO_PERMIT if all(outcomes[part.policy.id] == FAILS for part in permits) else None


def _together(links: Sequence[_Link], facts: Facts, *, open_: bool = False) -> Answer:
    """Return what a whole chain comes to: every link, and every grant, has to allow.

    Args:
        links: What each link came to.
        facts: What the record says.
        open_: Whether there is a grant that may say something else than it said.
    """
    denied = [link for link in links if link.effect is Effect.DENY]
    if denied:
        ids = {id_ for link in denied for id_ in link.policy_ids}
        reason = denied[0].reason
        # Which link decides, and so why, is told only of a run that nobody delegated to. And a
        # grant that forbids or fails is another reason, but for what comes before it.
        if len(links) > 1 or facts.grants is False or not (facts.clean or reason in _FIRST):
            reason = None
        return Answer(effect=Effect.DENY, reason=reason, policy_ids=tuple(sorted(ids)))
    allowed = all(link.effect is Effect.ALLOW for link in links)
    if facts.grants is False and not open_:
        why = Reason.POLICY_ERROR if facts.failed else Reason.GRANT
        return Answer(effect=Effect.DENY, reason=why if allowed else None)
    if allowed and not open_:
        ids = {id_ for link in links for id_ in link.policy_ids}
        return Answer(
            effect=Effect.ALLOW, reason=Reason.PERMIT, policy_ids=tuple(sorted(ids)), within_grant=facts.grants is None
        )
    found = frozenset[tuple[str, ...]]().union(*(link.doubts for link in links))
    if open_:
        found |= {(GRANT,)}
    return Answer(doubts=found)
