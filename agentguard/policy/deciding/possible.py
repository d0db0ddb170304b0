"""What policies can come to where not all of a request is known.

A policy is taken apart at `&&`, `||`, `!` and `if`. What is left are conditions, and one
that looks at nothing that is unknown is put to Cedar itself; any other could come to
anything. So no value is made up, no rule of Cedar's is told again but those four, and
what is found holds for whatever the unknown turns out to be.

Nothing may run on these answers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.errors import Refusal
from agentguard.policy.deciding.engine import context_text
from agentguard.policy.deciding.looks import Looking
from agentguard.policy.deciding.reach import json_text, references_of, resolve
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Node, Op, terms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.model import AccessRequest
    from agentguard.policy.deciding.compiled import Action, Link, Policy, PolicySet
    from agentguard.policy.deciding.looks import Looks, Path
    from agentguard.policy.deciding.reach import Uid
    from agentguard.policy.schemas.types import SchemaTypes

HOLDS: Final = 1
"""That it can be true, or match."""

FAILS: Final = 2
"""That it can be false, or not match."""

ERRS: Final = 4
"""That it can fail to be evaluated."""

ANYTHING: Final = HOLDS | FAILS | ERRS
_EITHER: Final = HOLDS | FAILS

# Sets of conditions that stay parsed, for one action.
_KEPT: Final = 64
_FAILED: Final = re.compile(r"error while evaluating policy `policy([0-9]+)`")


@dataclass(frozen=True, slots=True)
class Atom:
    """A condition that is not taken apart any further.

    Attributes:
        text: Its text, by which equal ones are known to be equal.
        looks: What it looks at.
    """

    text: str
    looks: Looks


@dataclass(frozen=True, slots=True)
class Tree:
    """A policy, taken apart.

    Attributes:
        op: AND, OR, NOT, IF, or LITERAL for an atom.
        parts: What it is made of.
        atom: The text of the atom.
    """

    op: Op
    parts: tuple[Tree, ...] = ()
    atom: str = ""


@dataclass(frozen=True, slots=True)
class Parted:
    """One policy of an action."""

    policy: Policy
    permit: bool
    tree: Tree
    atoms: frozenset[str]


Values = dict[str, int]
"""What each atom can come to, by its text."""


@dataclass(frozen=True, slots=True)
class Asked:
    """All that can be asked about one action.

    Attributes:
        action: The action.
        policies: The policies whose head lets it pass, in their order.
        atoms: Their conditions, by their text.
        kept: Conditions that are parsed.
        hidden: What was found to be touched.
    """

    action: Action
    policies: tuple[Parted, ...]
    atoms: Mapping[str, Atom]
    kept: dict[tuple[str, ...], cedarpy.PolicySet] = field(default_factory=dict)
    hidden: dict[frozenset[Path], frozenset[str]] = field(default_factory=dict)

    def touched(self, unknown: frozenset[Path]) -> frozenset[str]:
        """Return the conditions that something unknown could make a difference to."""
        found = self.hidden.get(unknown)
        if found is None:
            if len(self.hidden) >= _KEPT:
                self.hidden.clear()
            texts = (text for text, atom in self.atoms.items() if atom.looks.touched(unknown))
            found = self.hidden[unknown] = frozenset(texts)
        return found

    def parsed(self, texts: tuple[str, ...]) -> cedarpy.PolicySet:
        """Return conditions as policies that permit what they are true of."""
        found = self.kept.get(texts)
        if found is None:
            if len(self.kept) >= _KEPT:
                self.kept.clear()
            text = "\n".join(f"permit(principal,action,resource)when{{{text}\n}};" for text in texts)
            found = self.kept[texts] = cedarpy.PolicySet.from_str(text)
        return found


class Possible:
    """Policies, to be asked about requests of which not all is known."""

    def __init__(self, policies: PolicySet, types: SchemaTypes) -> None:
        self.policies = policies
        self._types = types
        self._asked: dict[str, Asked] = {}

    def asked(self, action: str) -> Asked:
        """Return what can be asked about an action.

        Raises:
            Refusal: If the policies do not know it.
        """
        found = self._asked.get(action)
        if found is None:
            found = self._asked[action] = self._take_apart(action)
        return found

    def _take_apart(self, name: str) -> Asked:
        action = self.policies.action(name)
        tool = action.tool
        looking = Looking(self._types, self._types.actions[name], tool.resource_type or tool.itself.type)
        atoms: dict[str, Atom] = {}
        keys = set(keys_of(tool.name, tool.groups))
        parted = tuple(
            _parted(policy, looking, atoms)
            for policy in self.policies.policies.values()
            if not keys.isdisjoint(policy.part.keys)
        )
        return Asked(action, parted, atoms)

    def values(self, request: AccessRequest, unknown: frozenset[Path], depth: int) -> tuple[Values, Reached]:
        """Return what each condition can come to at one link of the chain.

        Args:
            request: The request, with what is known of it.
            unknown: What is not known.
            depth: The place of the link.

        Returns:
            The values; and what is reached.

        Raises:
            Refusal: The policies do not know the action, or the principal cannot be.
        """
        asked = self.asked(request.action)
        link = self.policies.link(request.invocation.chain[depth], asked.action)
        start = {(request.resource.type, request.resource.id)}
        try:
            context: str | None = context_text(request.of_link(depth), start)
        except Refusal:
            # Evidence can be forged: what Cedar cannot be given settles nothing.
            context = None
        reached, entities = self._around(link, asked.action, request, start)
        values = {text: _EITHER | (ERRS if atom.looks.may_err else 0) for text, atom in asked.atoms.items()}
        hidden = asked.touched(unknown)
        settled = tuple(text for text in asked.atoms if text not in hidden)
        if entities is None or context is None or not settled:
            return values, reached
        result = cedarpy.is_authorized(
            {
                "principal": link.principal,
                "action": asked.action.uid,
                "resource": request.resource.as_json(),
                "context": context,
            },
            asked.parsed(settled),
            entities,
        )
        values.update(_read(result, settled))
        return values, reached

    def _around(
        self, link: Link, action: Action, request: AccessRequest, start: set[Uid]
    ) -> tuple[Reached, cedarpy.Entities | None]:
        """Return everything that is known without loaders, and what is missing in that."""
        resource = request.resource.type, request.resource.id
        known = self.policies.known
        given = dict(references_of(entity, self.policies.plain) for entity in request.entities)
        used, absent = resolve({*start, *link.unresolved, *given}, known, given, link.present)
        missing = frozenset(uid for uid in absent if self.policies.missing({uid}))
        texts = [json_text(entity) for entity in request.entities]
        texts += [action.resources.get(uid, known.text[uid]) if uid == resource else known.text[uid] for uid in used]
        if not texts:
            return Reached(missing), link.base
        try:
            return Reached(missing), link.base.with_added_json_str(f"[{','.join(texts)}]", action.schema)
        except ValueError:
            # What is listed was checked when it was loaded, so it is what acts on nothing that is listed.
            return Reached(missing | {resource}), None


@dataclass(frozen=True, slots=True)
class Reached:
    """What a request reaches.

    Attributes:
        missing: What only the request itself could bring, and the answer depends on.
    """

    missing: frozenset[Uid]


def _read(result: cedarpy.AuthzResult, settled: Sequence[str]) -> Values:
    """Return what Cedar made of conditions; where it cannot be told, they could be anything."""
    failed = [_FAILED.match(error) for error in result.diagnostics.errors]
    if result.decision is cedarpy.Decision.NoDecision or not all(failed):
        return dict.fromkeys(settled, ANYTHING)
    values = dict.fromkeys(settled, FAILS)
    # Cedar numbers the policies of a text in order, and an allow names all that are satisfied.
    for reason in result.diagnostics.reasons:
        values[settled[int(reason.removeprefix("policy"))]] = HOLDS
    values.update((settled[int(match[1])], ERRS) for match in failed if match)
    return values


def _parted(policy: Policy, looking: Looking, atoms: dict[str, Atom]) -> Parted:
    syntax = syntax_of(policy)
    own: set[str] = set()

    def part(node: Node) -> Tree:
        if node.op in {Op.AND, Op.OR}:
            return Tree(node.op, tuple(part(one) for one in terms(node, node.op)))
        if node.op in {Op.NOT, Op.IF}:
            return Tree(node.op, tuple(part(one) for one in node.parts))
        text = syntax.text[node.start : node.end]
        own.add(text)
        if text not in atoms:
            atoms[text] = Atom(text, looking.of(node))
        return Tree(Op.LITERAL, (), text)

    # Which actions it lets pass is settled: it would not be here.
    head = [part(node) for node in (syntax.principal, syntax.resource) if node.op is not Op.VARIABLE]
    clauses = [part(clause.body) if clause.holds else Tree(Op.NOT, (part(clause.body),)) for clause in syntax.clauses]
    return Parted(policy, syntax.effect == "permit", Tree(Op.AND, (*head, *clauses)), frozenset(own))


def outcome(tree: Tree, values: Mapping[str, int]) -> int:
    """Return what a policy, or a part of one, can come to."""
    if tree.op is Op.LITERAL:
        return values[tree.atom]
    if tree.op is Op.NOT:
        return _negated(outcome(tree.parts[0], values))
    if tree.op is Op.IF:
        asked, then, otherwise = tree.parts
        found = outcome(asked, values)
        result = found & ERRS
        if found & HOLDS:
            result |= outcome(then, values)
        if found & FAILS:
            result |= outcome(otherwise, values)
        return result
    return _chained(tree, values)


def _chained(tree: Tree, values: Mapping[str, int]) -> int:
    """Return what a chain can come to; Cedar looks no further than at the first that decides it."""
    goes_on, ends = (HOLDS, FAILS) if tree.op is Op.AND else (FAILS, HOLDS)
    result = 0
    for part in tree.parts:
        found = outcome(part, values)
        result |= found & (ends | ERRS)
        if not found & goes_on:
            return result
    return result | goes_on


def _negated(found: int) -> int:
    return (found & ERRS) | (HOLDS if found & FAILS else 0) | (FAILS if found & HOLDS else 0)


def learn(tree: Tree, came_to: int, values: Values) -> None:
    """Narrow what conditions can come to, by what the whole came to.

    Args:
        tree: A policy, or a part of one.
        came_to: What it is known to have come to: HOLDS or FAILS.
        values: Changed; one that cannot be what it has to be becomes 0.
    """
    if tree.op is Op.LITERAL:
        values[tree.atom] &= came_to
    elif tree.op is Op.NOT:
        learn(tree.parts[0], _negated(came_to), values)
    elif tree.op is Op.IF:
        asked, then, otherwise = tree.parts
        found = outcome(asked, values)
        if found in {HOLDS, FAILS}:
            learn(then if found == HOLDS else otherwise, came_to, values)
    elif came_to == (HOLDS if tree.op is Op.AND else FAILS):
        # All of them were looked at, and none ended the chain.
        for part in tree.parts:
            learn(part, came_to, values)
    else:
        # One of them ended it: if only one could, that did.
        could = [part for part in tree.parts if outcome(part, values) & came_to]
        if len(could) == 1:
            learn(could[0], came_to, values)


def doubts(
    parts: Iterable[Parted], values: Mapping[str, int], asked: Asked, unknown: frozenset[Path]
) -> frozenset[Path]:
    """Return the unknown paths that it hangs on what policies come to."""
    texts = {text for part in parts for text in part.atoms if values[text] not in {HOLDS, FAILS, ERRS}}
    found = [asked.atoms[text].looks.touched(unknown) for text in texts]
    return frozenset[tuple[str, ...]]().union(*found)
