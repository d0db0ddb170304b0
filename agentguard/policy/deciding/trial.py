"""Try policies one by one: which of them match a request, and which conditions hold for it.

`decide` names only the policies that determined its answer. Whoever explains one, or measures
what the tests of a policy have seen of it, has to know about the others too. So here each is
asked with its effect turned to `permit`, since Cedar then names every one that is satisfied.
Request, entities and schema are those that `decide` asks with, link by link.

Nothing may run on these answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

import cedarpy

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.deciding.engine import context_text
from agentguard.policy.deciding.given import Given
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.text.lexer import LexError, check_bounds, statements, tokens

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.model import AccessRequest
    from agentguard.policy.deciding.compiled import Link, Policy, PolicySet
    from agentguard.policy.deciding.reach import Uid
    from agentguard.policy.text.lexer import Statement, Token

_LIMITS: Final = Limits()
_FAILED: Final = re.compile(r"error while evaluating policy `policy([0-9]+)`: ([^`]*)")
_CLOSED_BY: Final = {"(": ")", "[": "]", "{": "}"}
_CLOSING: Final = frozenset(_CLOSED_BY.values())
# Sets of policies that stay parsed: the same few are asked about every request.
_KEPT: Final = 256


class Answer(NamedTuple):
    """What came of one policy or condition: whether it holds, None if it failed, and how it failed."""

    holds: bool | None
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One policy, tried alone.

    Attributes:
        id: As a decision names it: its ``@id``, or ``grant:`` and the link.
        text: Its text.
        permit: Whether it permits.
        matched: Whether it matches the request; None if it cannot be evaluated.
        error: What failed, without the values that Cedar quotes.
        policy: The organisation's policy that it is; None for one of a grant.
    """

    id: str
    text: str
    permit: bool
    matched: bool | None
    error: str = ""
    policy: Policy | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTrials:
    """What was found at one link of a chain of delegation.

    Attributes:
        organisation: The organisation's policies whose head covers the action, in their order.
        grant: The policies of the link's grant; None if it has none.
        refusal: Why nothing could be tried here; None if all was.
    """

    organisation: tuple[Trial, ...] = ()
    grant: tuple[Trial, ...] | None = None
    refusal: Refusal | None = None


@dataclass(frozen=True, slots=True)
class _Asked:
    link: Link
    entities: cedarpy.Entities
    closure: frozenset[Uid]


class Question:
    """A request that any policies and conditions can be put to, at any link of its chain.

    Raises:
        Refusal: If no link of it can be judged; `decide` denies it with that reason.
    """

    def __init__(self, request: AccessRequest, policies: PolicySet) -> None:
        self.request = request
        self.policies = policies
        self.action = policies.action(request.action)
        resource = request.resource
        self._start = {(resource.type, resource.id)}
        # Told early: what cannot be given to Cedar is denied at every link.
        self._contexts = [
            context_text(request.of_link(depth), self._start) for depth in range(len(request.invocation.chain))
        ]
        self._given = Given(request.entities, policies)
        self._asked: dict[int, _Asked] = {}

    def link(self, depth: int) -> Link:
        """Return one link of the chain, ready for the action; -1 is the run itself.

        Raises:
            Refusal: If this link cannot be judged.
        """
        return self._of(depth).link

    def closure(self, depth: int) -> frozenset[Uid]:
        """Return the principal of one link, and everything that it is in.

        Raises:
            Refusal: If this link cannot be judged.
        """
        return self._of(depth).closure

    def ask(self, permits: Sequence[str], depth: int) -> list[Answer]:
        """Return for each permit whether it is satisfied at one link.

        Args:
            permits: Text of one policy each, from `as_permit` or `condition_permit`.
            depth: The place of the link in the chain.

        Raises:
            Refusal: If this link cannot be judged.
        """
        asked = self._of(depth)
        result = cedarpy.is_authorized(
            {
                "principal": asked.link.principal,
                "action": self.action.uid,
                "resource": self.request.resource.as_json(),
                "context": self._contexts[depth],
            },
            _parsed(tuple(permits)),
            asked.entities,
            self.action.schema,
        )
        if result.decision is cedarpy.Decision.NoDecision:
            raise Refusal(Reason.INVALID_ARGUMENT, "the request does not fit the action's schema")
        # Cedar numbers the policies of a text in order.
        satisfied = {int(reason.removeprefix("policy")) for reason in result.diagnostics.reasons}
        failed: dict[int, str] = {}
        for error in result.diagnostics.errors:
            match = _FAILED.match(error)
            if match is None:
                # It cannot be told which one failed, so nothing can be told of any.
                return [Answer(None, "it cannot be evaluated")] * len(permits)
            failed[int(match[1])] = match[2].strip() or "it cannot be evaluated"
        return [
            Answer(None, failed[place]) if place in failed else Answer(place in satisfied)
            for place in range(len(permits))
        ]

    def _of(self, depth: int) -> _Asked:
        found = self._asked.get(depth)
        if found is None:
            resource = self.request.resource
            link = self.policies.link(self.request.invocation.chain[depth], self.action)
            entities = self._given.around(link, self.action, self._start, (resource.type, resource.id))
            found = self._asked[depth] = _Asked(link, entities, self._given.closure(link))
        return found


def trials(request: AccessRequest, policies: PolicySet) -> tuple[LinkTrials, ...]:
    """Try every policy that `decide` could have looked at, and those whose principal is another.

    Args:
        request: The call.
        policies: The policies.

    Returns:
        What was found at each link, root first; a request that cannot be judged has one entry
        that says why, or one for each link that cannot.
    """
    try:
        question = Question(request, policies)
    except Refusal as refusal:
        return (LinkTrials(refusal=refusal),)
    return tuple(_at(question, depth) for depth in range(len(request.invocation.chain)))


def matching(request: AccessRequest, policies: PolicySet) -> tuple[Mapping[str, bool | None], ...]:
    """Return for each link, root first, which policies match.

    Args:
        request: The call.
        policies: The policies.

    Returns:
        By policy id, for every policy whose head covers the action: whether it matches; None if
        it cannot be evaluated. A link's grant counts as ``grant:`` and the link, and matches if
        it permits. Empty for a link that cannot be judged.
    """
    found: list[Mapping[str, bool | None]] = []
    for depth, link in enumerate(trials(request, policies)):
        matched = {trial.id: trial.matched for trial in link.organisation}
        if link.grant is not None:
            matched[f"grant:{depth}"] = permits(link.grant)
        found.append(matched)
    return tuple(found)


def permits(layer: Sequence[Trial]) -> bool | None:
    """Return whether policies alone would permit what they were tried on; None if one failed."""
    if any(trial.matched is None for trial in layer):
        return None
    matched = [trial.permit for trial in layer if trial.matched]
    return bool(matched) and all(matched)


def holds(condition: str, request: AccessRequest, policies: PolicySet, *, link: int = -1) -> bool | None:
    """Tell whether one Cedar expression is true of a request.

    Args:
        condition: The expression, as it stands in `when { … }`.
        request: The call.
        policies: The policies whose entities and schema hold.
        link: The link of the chain whose principal it is about.

    Returns:
        Whether it is true; None if it cannot be evaluated, or is no truth value.

    Raises:
        LexError: If it is not one expression, or passes the bounds of policies.
        Refusal: If the request cannot be judged.
    """
    return Question(request, policies).ask([condition_permit(condition, policies.limits)], link)[0].holds


def _at(question: Question, depth: int) -> LinkTrials:
    policies, action = question.policies, question.action
    try:
        selected = set(policies.organisation(action, question.closure(depth)).names.values())
        grant = question.link(depth).grant
        own = () if grant is None else tuple(statement.text for statement in statements(grant.text))
        keys = set(keys_of(action.tool.name, action.tool.groups))
        covering = [policy for policy in policies.policies.values() if not keys.isdisjoint(policy.part.keys)]
        tried = [policy for policy in covering if policy.id in selected]
        answers = question.ask([as_permit(text) for text in (*(policy.text for policy in tried), *own)], depth)
    except Refusal as refusal:
        return LinkTrials(refusal=refusal)
    by_id = {policy.id: answer for policy, answer in zip(tried, answers, strict=False)}
    return LinkTrials(
        organisation=tuple(
            # One whose head names another principal was not asked: it cannot match, and cannot fail.
            _trial(policy.id, policy.text, by_id.get(policy.id, Answer(holds=False)), policy)
            for policy in covering
        ),
        grant=None
        if grant is None
        else tuple(
            _trial(f"grant:{depth}", text, answer) for text, answer in zip(own, answers[len(tried) :], strict=True)
        ),
    )


def _trial(id_: str, text: str, answer: Answer, policy: Policy | None = None) -> Trial:
    return Trial(
        id=id_, text=text, permit=_split(text)[1] == "permit", matched=answer.holds, error=answer.error, policy=policy
    )


@lru_cache(maxsize=_KEPT)
def _parsed(permits: tuple[str, ...]) -> cedarpy.PolicySet:
    return cedarpy.PolicySet.from_str("\n".join(permits))


def as_permit(text: str) -> str:
    """Return a policy that permits whatever *text*, one policy that Cedar parsed before, matches."""
    before, effect, after = _split(text)
    return text if effect == "permit" else f"{before}permit{after}"


@lru_cache(maxsize=4 * _KEPT)
def _split(text: str) -> tuple[str, str, str]:
    """Split a policy's text around its effect."""
    (statement,) = statements(text)
    effect = statement.tokens[_effect_at(statement)]
    start = effect.offset - statement.offset
    return text[:start], effect.text, text[start + len(effect.text) :]


def _effect_at(statement: Statement) -> int:
    """Return the place of the token that says `permit` or `forbid`."""
    at = 0
    while statement.tokens[at].text == "@":
        at += 5 if statement.tokens[at + 2].text == "(" else 2
    return at


@lru_cache(maxsize=4 * _KEPT)
def condition_permit(condition: str, limits: Limits = _LIMITS) -> str:
    """Return a policy that permits whatever *condition* is true of.

    Raises:
        LexError: If *condition* is not one expression, or passes the bounds of policies.
    """
    found = tokens(condition)
    _check_closed(condition, found)
    # Its own policy may be as large as a policy may be, so nothing that can be left out stands here.
    text = f"permit(principal,action,resource)when{{{condition}\n}};"
    check_bounds(text, tokens(text), limits)
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as error:
        raise LexError(condition, 0, f"this is no condition: {' '.join(str(error).split())}") from None
    return text


def _check_closed(condition: str, found: Sequence[Token]) -> None:
    """Refuse a condition that closes what it did not open: the rest of it would be another clause, or policy.

    Raises:
        LexError: Where it does.
    """
    opened: list[str] = []
    for token in found:
        if token.text in _CLOSED_BY:
            opened.append(_CLOSED_BY[token.text])
        elif token.text == ";" or (token.text in _CLOSING and (not opened or token.text != opened.pop())):
            raise LexError(condition, token.offset, f"`{token.text}` ends a condition too early: take it away")
