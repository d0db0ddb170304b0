"""What a record of a decision says of the policies that made it.

An allow names every permit that matched, so no other one did, and no forbid. A denial
says less: of which link it is, and what the policies came to that it does not name, is
said of some denials alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from agentguard.model import Effect, Reason
from agentguard.policy.deciding.possible import ERRS, FAILS, HOLDS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.analysis.history.replay import Replayed
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.possible import Asked

APPROVAL: Final = ("context", "approval")
"""The yes of a person."""

_EFFECT: Final = "agentguard.decision.effect"
_LIFTABLE: Final = frozenset((Reason.APPROVAL_REQUIRED, Reason.APPROVAL_DECLINED, Reason.APPROVAL_UNAVAILABLE))
# What is judged before anybody is asked, so by a context without an approval.
_BEFORE_ASKING: Final = frozenset((Reason.APPROVAL_REQUIRED, Reason.APPROVAL_DECLINED))
# What names every forbid that matched, and no other policy.
_NAMING: Final = frozenset((Reason.POLICY, Reason.POLICY_ERROR, *_LIFTABLE))


def is_liftable(reason: str | None) -> bool:
    """Return whether what denies is all such that a person can lift it."""
    return reason in _LIFTABLE


@dataclass(frozen=True, slots=True)
class Facts:
    """What a record says beside the request.

    Attributes:
        masks: What each policy can have come to at each link, by its id; what it is not said of,
            to anything.
        grants: Whether the grants permitted; None if that is not said.
        clean: Whether it is known that no grant forbade the call, or failed.
        present: At how many links, from the root, all that loaders were asked for was there.
        granted: Whether the run, or one above it, has a grant; None if that is not said.
        failed: Whether a grant was not evaluated to its end: nothing else can be why it was denied.
    """

    masks: Sequence[Mapping[str, int]]
    grants: bool | None
    clean: bool
    present: int
    granted: bool | None
    failed: bool = False


def may_act_on_others(replayed: Replayed, workspace: Workspace) -> bool:
    """Return whether a call that was denied for one entity may act on others too, of which nothing is on record.

    Args:
        replayed: The record's request.
        workspace: What the server offered.
    """
    request, arguments = replayed.request, replayed.request.context["input"]
    template = next(one.resource for one in workspace.written.offers if one.tool.name == request.action)
    # What is denied before its arguments are looked at is denied for all of them.
    if template is None or not template.each or replayed.early or replayed.record.text(_EFFECT) == Effect.ALLOW:
        return False
    named = arguments.get(template.argument) if isinstance(arguments, dict) else None
    return not (isinstance(named, list) and len(named) == 1)


def as_judged(replayed: Replayed, asked: Asked) -> Replayed:
    """Return a denied request as it was judged: perhaps as if a person had said yes, to see whether to ask one.

    Args:
        replayed: The record's request, as it came.
        asked: The very policies that decided.
    """
    if not _may_be_supposed(replayed, asked):
        return replayed
    return replace(replayed, paths=replayed.paths | {APPROVAL})


def _may_be_supposed(replayed: Replayed, asked: Asked) -> bool:
    """Return whether it may have been judged with a person's yes, of which the replayed request says nothing."""
    reason = replayed.record.text("agentguard.decision.reason")
    settled = reason == Reason.PERMIT or reason in _BEFORE_ASKING or replayed.early
    # Nobody is asked where no policy asks for it.
    return not settled and any(part.policy.approval for part in asked.policies)


def facts_of(replayed: Replayed, asked: Asked, *, same: bool) -> Facts:
    """Return what a record says.

    Args:
        replayed: The record's request.
        asked: The policies that the action is judged by.
        same: Whether these are the very ones that decided; of others it says nothing.
    """
    links = len(replayed.request.invocation.chain)
    return Facts(
        masks=_masks(replayed, asked, links) if same else [{}] * links,
        grants=_grants(replayed),
        clean=_is_clean(replayed, links),
        present=_present(replayed, links),
        granted=_granted(replayed),
    )


def with_grant(facts: Facts, replayed: Replayed) -> Facts:
    """Return what a record says that was denied, and that all policies but those of a grant would have allowed."""
    if replayed.record.text("agentguard.decision.reason") != Reason.POLICY_ERROR:
        return facts
    return replace(facts, grants=False, granted=True, failed=True)


def _grants(replayed: Replayed) -> bool | None:
    reason = replayed.record.text("agentguard.decision.reason")
    return True if reason == Reason.PERMIT else False if reason == Reason.GRANT else None


def _granted(replayed: Replayed) -> bool | None:
    reason = replayed.record.text("agentguard.decision.reason")
    if reason == Reason.PERMIT:
        # An allow names each grant beside the permits: no other id has a colon.
        return any(":" in id_ for id_ in replayed.record.policy_ids)
    return True if reason == Reason.GRANT else None


def _is_clean(replayed: Replayed, links: int) -> bool:
    record = replayed.record
    reason = record.text("agentguard.decision.reason")
    # A forbid of a grant would be named, or be the reason; so would a failure.
    named = reason == Reason.NO_PERMIT or (bool(record.policy_ids) and is_liftable(reason))
    return reason == Reason.PERMIT or (links == 1 and not replayed.early and named)


def _present(replayed: Replayed, links: int) -> int:
    """Return how many links, from the root, were judged with all entities there."""
    reason = replayed.record.text("agentguard.decision.reason")
    if reason == Reason.PERMIT:
        return links
    if replayed.early or reason == Reason.MISSING_ENTITY or replayed.link is None:
        return 0
    if is_liftable(reason):
        # An answer that a person gave to another question names none: it says nothing of this call.
        return links if replayed.record.policy_ids else 0
    return replayed.link + 1


def _masks(replayed: Replayed, asked: Asked, links: int) -> list[Mapping[str, int]]:
    """Return what each of the policies that decided can have come to, at each link."""
    record = replayed.record
    reason = record.text("agentguard.decision.reason")
    ids = frozenset(record.policy_ids)
    if reason == Reason.PERMIT:
        return [_of_allow(asked, ids, links)] * links
    if replayed.link is None:
        # It is not said which of them was denied.
        return [{}] * links
    denied = _of_denial(asked, ids, reason, early=replayed.early)
    masks: list[dict[str, int]] = [{} for _ in range(links)]
    masks[replayed.link] = denied
    if links > 1 and not replayed.early:
        lifted = is_liftable(reason)
        masks[: replayed.link] = [_of_passed(asked, lifted=lifted)] * replayed.link
        if lifted:
            # It names what a person could lift at any of them, and all were judged.
            masks[replayed.link :] = _of_several(asked, ids, links - replayed.link)
    if APPROVAL not in replayed.paths and _may_be_supposed(replayed, asked):
        approvals = asked.touched(frozenset((APPROVAL,)))
        alone = {part.policy.id for part in asked.policies if part.atoms.isdisjoint(approvals)}
        masks = [{id_: mask for id_, mask in one.items() if id_ in alone} for one in masks]
    return list(masks)


def _of_allow(asked: Asked, ids: frozenset[str], links: int) -> dict[str, int]:
    """Return it of an allow, which names every permit that matched at any link."""
    permits = [part.policy.id for part in asked.policies if part.permit and part.policy.id in ids]
    # With several links, each of them may have matched at some alone, unless it is the only one.
    matched = HOLDS if links == 1 or len(permits) == 1 else HOLDS | FAILS
    return {part.policy.id: matched if part.policy.id in permits else FAILS for part in asked.policies}


def _of_passed(asked: Asked, *, lifted: bool) -> dict[str, int]:
    """Return it of a link above the first that was denied: there, nothing failed, and nothing forbade it for good.

    Args:
        asked: The policies.
        lifted: Whether what denied it is what a person could lift: else that may have matched above already.
    """
    either = HOLDS | FAILS
    return {
        part.policy.id: either if part.permit or (part.policy.approval and not lifted) else FAILS
        for part in asked.policies
    }


def _of_several(asked: Asked, ids: frozenset[str], links: int) -> list[dict[str, int]]:
    """Return it of the first link that a person has to lift something at, and of those below."""
    either = HOLDS | FAILS
    below = {part.policy.id: either if part.permit or part.policy.id in ids else FAILS for part in asked.policies}
    first = {**below, **dict.fromkeys(ids, HOLDS)} if len(ids) == 1 else below
    return [first, *[below] * (links - 1)]


def _of_denial(asked: Asked, ids: frozenset[str], reason: str, *, early: bool) -> dict[str, int]:
    """Return it of the link that was denied."""
    masks: dict[str, int] = {}
    for part in asked.policies:
        id_ = part.policy.id
        if reason == Reason.NO_PERMIT:
            # Before the arguments are known, nothing is said of forbids, and a permit may have failed.
            if part.permit or not early:
                masks[id_] = FAILS | ERRS if early else FAILS
        elif ids and reason in _NAMING:
            if id_ in ids:
                masks[id_] = HOLDS
            elif not early and not part.permit:
                # A denial by forbids does not say which other policies failed.
                masks[id_] = FAILS if reason in _LIFTABLE else FAILS | ERRS
    return masks
