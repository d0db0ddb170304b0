"""Why a call that is on record was decided as it was, as far as that can still be told.

The evidence keeps digests where values would be secrets. What is known is put to the policies
in the folder, what the record itself says of them is believed where they are the very ones that
decided, and everything else is left open.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentguard.analysis.explanations.changes import NewRun, Value, Who, applied
from agentguard.analysis.explanations.conditions import conditions_by, pieces_of
from agentguard.analysis.explanations.explain import Found, LinkFound, meaning_of
from agentguard.analysis.explanations.mended import Mended
from agentguard.analysis.explanations.suggestions import suggestions
from agentguard.analysis.history.donebefore import RUN
from agentguard.analysis.history.filled import filled
from agentguard.analysis.history.recorded import as_judged, facts_of, is_liftable, may_act_on_others
from agentguard.analysis.history.replay import ANCESTORS, PRINCIPAL, RESOURCE, NoRequestError, Setting, replay, worded
from agentguard.analysis.known import Known
from agentguard.model import Effect, Reason
from agentguard.policy.deciding.looks import ENTITIES
from agentguard.policy.deciding.possible import ANYTHING, ERRS, FAILS, HOLDS, Possible, Tree, doubts, learn, outcome
from agentguard.policy.text.tree import Node, Op, terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.analysis.explanations.changes import Change
    from agentguard.analysis.explanations.conditions import Piece
    from agentguard.analysis.explanations.suggestions import Suggestion
    from agentguard.analysis.history.recorded import Facts
    from agentguard.analysis.history.replay import Replayed
    from agentguard.analysis.workspace import Workspace
    from agentguard.evidence.kept import Kept
    from agentguard.policy.deciding.compiled import PolicySet
    from agentguard.policy.deciding.looks import Path
    from agentguard.policy.deciding.possible import Asked, Parted, Values

# A condition that one policy settles may settle another.
_ROUNDS: Final = 2
_REASONS: Final = frozenset(reason.value for reason in Reason)
# What of a run can be another while all else of it stays.
_ALONE: Final = frozenset(("user", "purpose", "scopes", "grade", "issuer"))
_TOLD: Final = {HOLDS: True, FAILS: False}
_SETTLED: Final = frozenset((HOLDS, FAILS, ERRS))
_NOTHING: Final = Setting()


@dataclass(frozen=True, slots=True, kw_only=True)
class OnRecord:
    """What can be told of a decision that is on record.

    Attributes:
        record: The record.
        same: Whether the folder has the version that decided; what it says of another is
            what these policies would say.
        meaning: What the reason says, where no policy says it.
        link: What the run itself came to; None if policies were not asked, or not about this.
        above: What the run above it came to that the call was denied for; None if it was not denied for one, or that is
            not on record.
        place: The place of the run in its chain that it was denied for, root 0; None as well.
        why: Why there is nothing to look at, or why it does not fit.
        grants: Whether the grants permitted; None if that is not on record.
        delegated: Whether others delegated to the run, of whom the record does not say enough.
        early: Whether it was denied before its arguments were looked at.
        unknown: What policies look at and is not on record.
        suggestions: The smallest changes of the call after which these policies allow it.
        mended: Changes of these policies after which they do.
        setting: How the guard was set up.
    """

    record: Kept
    same: bool
    meaning: str = ""
    link: LinkFound | None = None
    above: LinkFound | None = None
    place: int | None = None
    why: str = ""
    grants: bool | None = None
    delegated: bool = False
    early: bool = False
    unknown: tuple[str, ...] = ()
    suggestions: tuple[Suggestion, ...] = ()
    mended: tuple[Mended, ...] = ()
    setting: Setting = _NOTHING


def explain_record(record: Kept, workspace: Workspace, *, setting: Setting = _NOTHING) -> OnRecord:
    """Explain a decision that is on record.

    Args:
        record: The record of a decision.
        workspace: The policies to explain it by.
        setting: How its guard was set up, as the record of its start says.
    """
    same = record.text("agentguard.policy.version") == workspace.policies.version
    reason = record.text("agentguard.decision.reason")
    detail = record.text("agentguard.decision.detail")
    meaning = "" if reason not in _REASONS else meaning_of(Reason(reason), (detail,) if detail else ())
    try:
        replayed = replay(record, workspace, setting=setting)
        return replace(_explained(replayed, workspace, same=same, meaning=meaning), setting=setting)
    except NoRequestError as error:
        # That no policy was asked is what the reason says already.
        why = "" if meaning and reason in str(error) else str(error)
        return OnRecord(record=record, same=same, meaning=meaning, why=why, setting=setting)


def _explained(replayed: Replayed, workspace: Workspace, *, same: bool, meaning: str) -> OnRecord:
    """Return what can be told of a call that policies were asked about."""
    record, request = replayed.record, replayed.request
    reason = record.text("agentguard.decision.reason")
    depth = len(request.invocation.ancestors)
    possible = Possible(workspace.policies, workspace.types)
    asked = possible.asked(request.action)
    judged = as_judged(replayed, asked) if same else replayed
    facts = facts_of(judged, asked, same=same)
    at = replayed.link
    come = [_come(judged, possible, asked, facts, place) for place in sorted({depth if at is None else at, depth})]
    own = come[-1]
    fits = all(one.fits for one in come)
    # By other policies nothing was decided, whatever they are called.
    found = [one.link(decided=same and (at in {None, one.place} or is_liftable(reason))) for one in come]
    touched = frozenset[tuple[str, ...]]().union(*(one.open() for one in come))
    # What is missing is missing whatever else is changed, a grant that permits no such call permits no other one,
    # and what else a call acts on may be denied too.
    vain = reason == Reason.MISSING_ENTITY or (reason == Reason.GRANT and replayed.early)
    vain = vain or may_act_on_others(replayed, workspace)
    denied = record.text("agentguard.decision.effect") != Effect.ALLOW and not (depth or vain) and fits
    supposed = judged.paths - replayed.paths
    call = _Call(replayed, possible, asked, own.learnt, own.came_to, supposed, workspace.written.loaders)
    return OnRecord(
        record=record,
        same=same,
        meaning=meaning,
        link=found[-1],
        above=found[0] if found[1:] else None,
        place=at if depth else None,
        why="" if fits else "the record says of these policies what they cannot have come to",
        grants=facts.grants,
        delegated=bool(depth),
        early=replayed.early,
        unknown=tuple(sorted(map(worded, touched))),
        suggestions=_suggested(call, workspace) if denied else (),
        mended=_mended(asked.policies, call.changed(())) if denied else (),
    )


def _come(judged: Replayed, possible: Possible, asked: Asked, facts: Facts, place: int) -> _Come:
    """Return what can be told of the policies at one link of the chain."""
    masks, unknown = facts.masks[place], judged.unknown_at(place)
    values, _ = possible.values(judged.request, unknown, place)
    learnt = dict(values)
    for part in asked.policies * _ROUNDS:
        narrowed = outcome(part.tree, learnt) & masks.get(part.policy.id, ANYTHING)
        if narrowed in _TOLD and part.policy.id in masks:
            learn(part.tree, narrowed, learnt)
    came_to = {
        part.policy.id: outcome(part.tree, learnt) & masks.get(part.policy.id, ANYTHING) for part in asked.policies
    }
    fits = 0 not in learnt.values() and 0 not in came_to.values()
    if not fits:
        # What it says of the policies is not believed then.
        learnt, came_to = values, {part.policy.id: outcome(part.tree, values) for part in asked.policies}
    return _Come(judged, possible.policies, asked, place, unknown, learnt, came_to, fits)


@dataclass(frozen=True, slots=True)
class _Come:
    """What can be told of the policies at one link of a chain.

    Attributes:
        judged: The request, as it was judged.
        policies: The policies.
        asked: Those that it is judged by.
        place: The place of the link.
        unknown: What is not known there.
        learnt: What each condition can have come to.
        came_to: What each policy can have come to.
        fits: Whether the record says of them what can be.
    """

    judged: Replayed
    policies: PolicySet
    asked: Asked
    place: int
    unknown: frozenset[Path]
    learnt: Values
    came_to: Mapping[str, int]
    fits: bool

    def link(self, *, decided: bool) -> LinkFound:
        """Return it as it is shown; *decided* says whether a policy of it can have determined the decision."""
        request, record = self.judged.request, self.judged.record
        words = frozenset(map(worded, self.unknown))
        known = Known(request, self.policies, self.place, words)
        found = (_found(part, self.came_to[part.policy.id], self.learnt, known, record) for part in self.asked.policies)
        return LinkFound(
            invocation=request.invocation.chain[self.place],
            organisation=tuple(one if decided else replace(one, decided=False) for one in found),
        )

    def open(self) -> frozenset[Path]:
        """Return what would have to be known to tell what is still open."""
        open_ = [part for part in self.asked.policies if self.came_to[part.policy.id] not in _SETTLED]
        found = doubts(open_, self.learnt, self.asked, self.unknown)
        if self.place == len(self.judged.request.invocation.ancestors):
            return found
        return frozenset((ANCESTORS,) if path == PRINCIPAL or path[:2] == RUN else path for path in found)


def _found(part: Parted, came_to: int, values: Values, known: Known, record: Kept) -> Found:
    """Return one policy with what it can have come to."""
    outcomes = {piece: _outcome(piece, values) for piece in pieces_of(part.policy.text)}
    unknown = {piece for piece, mask in outcomes.items() if mask not in _SETTLED}
    matched = _TOLD.get(came_to)
    allowed = record.text("agentguard.decision.effect") == Effect.ALLOW
    named = part.policy.id in record.policy_ids and part.permit is allowed and matched is True
    failed = came_to == ERRS and record.text("agentguard.decision.reason") == Reason.POLICY_ERROR
    return Found(
        id=part.policy.id,
        permit=part.permit,
        matched=matched,
        error="it cannot be evaluated" if came_to == ERRS else "",
        decided=named or failed,
        conditions=conditions_by(part.policy.text, known, lambda piece: _TOLD.get(outcomes[piece]), unknown=unknown),
        policy=part.policy,
    )


def _outcome(piece: Piece, values: Values) -> int:
    """Return what one condition can have come to."""
    if piece.place == "action":
        # The heads of all others were left out.
        return HOLDS
    return outcome(_tree(piece, piece.node), values)


def _tree(piece: Piece, node: Node) -> Tree:
    """Return a condition as `policy.possible` takes it apart."""
    if node.op in {Op.AND, Op.OR}:
        return Tree(node.op, tuple(_tree(piece, one) for one in terms(node, node.op)))
    if node.op in {Op.NOT, Op.IF}:
        return Tree(node.op, tuple(_tree(piece, one) for one in node.parts))
    return Tree(Op.LITERAL, (), piece.source_of(node))


@dataclass(frozen=True, slots=True)
class _Call:
    """A denied call, and what is known of it.

    Attributes:
        replayed: Its request, as it came.
        possible: The policies.
        asked: Those that it is judged by.
        learnt: What each condition can have come to.
        came_to: What each policy can have come to.
        supposed: What may have been otherwise when it was judged than it came: a person's yes.
        loaders: The types of which nobody but the guard's process knew what there is.
    """

    replayed: Replayed
    possible: Possible
    asked: Asked
    learnt: Values
    came_to: Mapping[str, int]
    supposed: frozenset[Path]
    loaders: frozenset[str]

    def changed(self, changes: Sequence[Change]) -> Mapping[str, int]:
        """Return what each policy can come to if the call comes with some changes; each fails if it lacks an entity."""
        (request,) = applied(changes, [self.replayed.request]) or (self.replayed.request,)
        values, reached = self.possible.values(request, self._unknown(changes), 0)
        elsewhere = self.supposed.union(*map(_places, changes))
        unsaid = self.loaders | ({request.resource.type} if (RESOURCE,) in self.replayed.paths else frozenset())
        if any(type_ not in unsaid for type_, _ in reached.missing):
            return dict.fromkeys(self.came_to, ERRS)
        # What looks at nothing that is changed comes to what it came to.
        same = {text for text in self.learnt if not self.asked.atoms[text].looks.touched(elsewhere)}
        values.update((text, values[text] & self.learnt[text]) for text in same)
        return {
            part.policy.id: self.came_to[part.policy.id] if part.atoms <= same else outcome(part.tree, values)
            for part in self.asked.policies
        }

    def _unknown(self, changes: Sequence[Change]) -> frozenset[Path]:
        """Return what is not known of the call with some changes: of a new run all is, but for what nobody kept."""
        unknown = self.replayed.paths
        if not any(isinstance(change, NewRun) for change in changes):
            return unknown
        known = frozenset(path for path in unknown if path[:2] != RUN)
        if ("context", "now") in unknown:
            known |= {(*RUN, "started_at")}
        tool = self.asked.action.tool
        spending: list[Path] = [("context", "input", part.name) for part in tool.input.parts if part.shape.spends]
        facts = () if tool.facts is None else tool.facts.parts
        spending += [("context", "facts") for part in facts if part.shape.spends]
        return known if known.isdisjoint(spending) else known | {(*RUN, "spent")}

    def allowed(self, changes: Sequence[Change]) -> bool:
        """Return whether the policies allow the call with some changes, whatever is still open."""
        if not _allow(self.asked.policies, self.changed(changes)):
            return False
        before = [change for change in changes if change.who is not Who.APPROVER]
        # A person's yes counts only where somebody would have asked for it.
        return len(before) == len(changes) or _asks(self.asked.policies, self.changed(before))


def _suggested(call: _Call, workspace: Workspace) -> tuple[Suggestion, ...]:
    """Return changes after which the policies allow the call, whatever is not on record."""
    replayed = call.replayed
    template = next(one.resource for one in workspace.written.offers if one.tool.name == replayed.request.action)
    return suggestions(
        [filled(replayed.request, workspace)],
        workspace.policies,
        fixed=frozenset() if template is None else frozenset((template.argument,)),
        unknown=replayed.unknown,
        allows=call.allowed,
    )


def _places(change: Change) -> set[Path]:
    """Return what conditions look at if a change can make a difference to them."""
    if isinstance(change, NewRun):
        return {RUN}
    if not isinstance(change, Value):
        return {(ENTITIES,)}
    if change.depth is None:
        place: Path = change.path if change.holder.entity is None else (ENTITIES,)
        return {place, (*RUN, "spent", change.spends)} if change.spends else {place}
    # A run is in its agent and its task, which may be in anything, and its times hang together.
    return {change.path if change.path[-1] in _ALONE else change.path[:1]}


def _allow(policies: Iterable[Parted], came_to: Mapping[str, int]) -> bool:
    """Return whether policies allow a call, whatever is still open."""
    outcomes = [(part.permit, came_to[part.policy.id]) for part in policies]
    stops = any(mask & ERRS or (not permit and mask != FAILS) for permit, mask in outcomes)
    return not stops and (True, HOLDS) in outcomes


def _asks(policies: Iterable[Parted], came_to: Mapping[str, int]) -> bool:
    """Return whether a person is asked about a call, whatever is still open."""
    lifts = [part.policy.approval for part in policies if came_to[part.policy.id] == HOLDS and not part.permit]
    hard = [came_to[part.policy.id] for part in policies if not (part.permit or part.policy.approval)]
    clean = not any(mask & ERRS for mask in came_to.values())
    return clean and True in lifts and all(mask == FAILS for mask in hard)


def _mended(policies: Sequence[Parted], came_to: Mapping[str, int]) -> tuple[Mended, ...]:
    """Return each forbid without which the others allow the call."""
    return tuple(
        Mended(without=(part.policy,))
        for part in policies
        if not part.permit
        and came_to[part.policy.id] == HOLDS
        and _allow([other for other in policies if other is not part], came_to)
    )
