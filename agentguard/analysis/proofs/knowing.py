"""What is settled of a condition when it is known who acts, for whom and with which tool.

Everything else is unknown: which task, which arguments, which record. So a condition comes
out as true, as false, or as what is left of it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.model import EntityUid
from agentguard.policy.deciding.reach import ancestors
from agentguard.policy.text.lexer import tokens
from agentguard.policy.text.tree import Node, Op, fold, path_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.proofs.environments import Environment
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.looks import Looking

HOLDS: Final = 1
"""It can be true."""

FAILS: Final = 2
"""It can be false."""

ERRS: Final = 4
"""Its evaluation can fail, which denies the call."""

_LOOSE, _OR, _AND, _COMPARED, _ALONE = range(5)
_STRENGTHS: Final[Mapping[Op, int]] = {
    **dict.fromkeys((Op.EQUAL, Op.UNEQUAL, Op.LESS, Op.LESS_EQUAL, Op.GREATER, Op.GREATER_EQUAL), _COMPARED),
    **dict.fromkeys((Op.IN, Op.HAS, Op.LIKE, Op.IS), _COMPARED),
}


class Part(NamedTuple):
    """What is left of a condition.

    Attributes:
        can: What it can come to: some of HOLDS, FAILS and ERRS.
        text: What is left of it, as Cedar; ``true`` or ``false`` where it is settled.
        strength: How strongly its outermost operator binds.
        opposite: The text and the strength of what it is the opposite of, where it is one.
    """

    can: int
    text: str
    strength: int = _ALONE
    opposite: tuple[str, int] | None = None

    def within(self, strength: int) -> str:
        """Return its text as an operand, in brackets where it needs them."""
        return self.text if self.strength >= strength else f"({self.text})"


TRUE: Final = Part(HOLDS, "true")
FALSE: Final = Part(FAILS, "false")


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """Whom something is asked about.

    Attributes:
        agent: The agent that acts; None if it could be any.
        user: On whose behalf; None if that is not known, or nobody's.
    """

    agent: EntityUid | None = None
    user: EntityUid | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Knowing:
    """What is known of calls of one tool.

    Attributes:
        workspace: The policies and the entities that are listed.
        environment: The tool.
        looking: Tells which conditions may fail to be evaluated.
        who: Who acts, as far as that is known.
    """

    workspace: Workspace
    environment: Environment
    looking: Looking
    who: Who
    _above: dict[EntityUid, frozenset[EntityUid] | None] = field(default_factory=dict, repr=False)

    def left(self, node: Node, text: str) -> Part:
        """Return what is left of an expression of the policy *text*."""

        def combine(node: Node, parts: tuple[Part, ...]) -> Part:
            match node.op:
                case Op.AND:
                    return _and(*parts)
                case Op.OR:
                    return _or(*parts)
                case Op.NOT:
                    return negated(*parts)
                case Op.IF:
                    return _if(*parts)
            return self._atom(node, text)

        return fold(node, combine)

    def _atom(self, node: Node, text: str) -> Part:
        settled = self.settled(node)
        errs = ERRS if self.looking.of(node).may_err else 0
        if settled is not None and not errs:
            return TRUE if settled else FALSE
        can = HOLDS | FAILS if settled is None else HOLDS if settled else FAILS
        return Part(can | errs, one_line(text[node.start : node.end]), _STRENGTHS.get(node.op, _ALONE))

    def settled(self, atom: Node) -> bool | None:
        """Return what a condition without `&&`, `||`, `!` and `if` is at each such call; None if that differs."""
        found = None
        match atom.op:
            case Op.LITERAL if isinstance(atom.value, bool):
                return atom.value
            case Op.IS if len(atom.parts) > 1:
                is_one = self.environment.settled(replace(atom, parts=atom.parts[:1]))
                return is_one and self.settled(replace(atom, op=Op.IN))
            case Op.HAS if isinstance(atom.value, tuple) and len(atom.value) > 1:
                # `has a.b` fails with its first name; what it holds with is more than that.
                has_first = self.environment.settled(replace(atom, value=atom.value[:1]))
                return None if has_first else has_first
            case Op.HAS if path_of(atom.parts[0]) == ("principal",) and atom.value == ("user",):
                found = True if self.who.user is not None else None
            case Op.EQUAL | Op.UNEQUAL:
                left, right = map(self._entity, atom.parts)
                if left is not None and right is not None:
                    found = (left == right) is (atom.op is Op.EQUAL)
            case Op.IN:
                found = self._in(*atom.parts)
            case Op.METHOD if atom.value == "contains" and atom.parts[0].op is Op.SET:
                listed = [self._entity(part) for part in atom.parts[0].parts]
                asked = self._entity(atom.parts[1])
                if asked is not None and None not in listed:
                    found = asked in listed
        return self.environment.settled(atom) if found is None else found

    def _entity(self, node: Node) -> EntityUid | None:
        """Return the entity that an expression is at every such call."""
        if node.op is Op.ENTITY and isinstance(node.value, EntityUid):
            return node.value
        known = {("principal", "agent"): self.who.agent, ("principal", "user"): self.who.user}
        return next((uid for path, uid in known.items() if path_of(node) == path), None)

    def _in(self, inner: Node, outer: Node) -> bool | None:
        wanted = [self._entity(part) for part in (outer.parts if outer.op is Op.SET else (outer,))]
        answers = [None if one is None else self._in_one(inner, one) for one in wanted]
        if True in answers:
            return True
        return None if None in answers else False

    def _in_one(self, inner: Node, outer: EntityUid) -> bool | None:
        if path_of(inner) == ("principal",):
            # A run is in its agent and its task, and in what these are in.
            if outer.type == "Invocation" or self.who.agent is None:
                return None
            of_agent = self._is_above(self.who.agent, outer)
            return of_agent if of_agent or not self.environment.may_be_in("Task", outer.type) else None
        uid = self._entity(inner)
        return None if uid is None else self._is_above(uid, outer)

    def _is_above(self, uid: EntityUid, outer: EntityUid) -> bool | None:
        """Return whether *uid* is *outer* or in it; None where a loader would know."""
        if uid == outer:
            return True
        if not self.environment.may_be_in(uid.type, outer.type):
            return False
        if uid not in self._above:
            self._above[uid] = self._closure(uid)
        closure = self._above[uid]
        return None if closure is None else outer in closure

    def _closure(self, uid: EntityUid) -> frozenset[EntityUid] | None:
        parents = self.workspace.policies.known.parents
        found = ancestors([(uid.type, uid.id)], parents)
        # What is not listed is in nothing, unless a loader says so.
        if any(one not in parents and one[0] in self.workspace.written.loaders for one in found):
            return None
        return frozenset(EntityUid(*one) for one in found)


def _and(left: Part, right: Part) -> Part:
    if left.can == HOLDS:
        return right
    can = left.can & (FAILS | ERRS) | (right.can if left.can & HOLDS else 0)
    if can == FAILS:
        return FALSE
    if right.can == HOLDS:
        return left._replace(can=can)
    return Part(can, f"{left.within(_AND)} && {right.within(_AND)}", _AND)


def _or(left: Part, right: Part) -> Part:
    if left.can == FAILS:
        return right
    can = left.can & (HOLDS | ERRS) | (right.can if left.can & FAILS else 0)
    if can == HOLDS:
        return TRUE
    if right.can == FAILS:
        return left._replace(can=can)
    return Part(can, f"{left.within(_OR)} || {right.within(_OR)}", _OR)


def _if(asked: Part, then: Part, otherwise: Part) -> Part:
    if asked.can in {HOLDS, FAILS}:
        return then if asked.can == HOLDS else otherwise
    can = asked.can & ERRS
    can |= then.can if asked.can & HOLDS else 0
    can |= otherwise.can if asked.can & FAILS else 0
    if can in {HOLDS, FAILS}:
        return TRUE if can == HOLDS else FALSE
    return Part(can, f"if {asked.text} then {then.text} else {otherwise.text}", _LOOSE)


def negated(part: Part) -> Part:
    """Return what is left of the opposite."""
    can = part.can & ERRS | (HOLDS if part.can & FAILS else 0) | (FAILS if part.can & HOLDS else 0)
    if can in {HOLDS, FAILS}:
        return TRUE if can == HOLDS else FALSE
    if part.opposite is not None:
        return Part(can, *part.opposite)
    return Part(can, f"!{part.within(_ALONE)}", opposite=(part.text, part.strength))


def all_of(parts: list[Part]) -> Part:
    """Return what is left of several conditions that all have to hold."""
    found = TRUE
    for part in parts:
        found = _and(found, part)
    return found


def any_of(parts: list[Part]) -> Part:
    """Return what is left of several conditions of which one has to hold."""
    found = FALSE
    for part in parts:
        found = _or(found, part)
    return found


def one_line(text: str) -> str:
    """Return a part of a policy on one line, without comments."""
    written = ""
    end = 0
    for token in tokens(text):
        gap = text[end : token.offset]
        written += (" " if "\n" in gap or "//" in gap else gap) + token.text
        end = token.offset + len(token.text)
    return written.strip()
