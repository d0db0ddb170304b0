"""What there is to choose other values from: what policies and types name, and a few more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.explanations.conditions import pieces_of
from agentguard.analysis.known import ABSENT, entity_of
from agentguard.analysis.notation import written
from agentguard.model import EntityUid, Grade
from agentguard.policy.deciding.reach import ancestors
from agentguard.policy.text.tree import Node, Op, path_of, walk

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from agentguard.policy.conversion.values import Shape
    from agentguard.policy.deciding.compiled import PolicySet
    from agentguard.policy.deciding.reach import Uid
    from agentguard.policy.schemas.schema import GuardedTool

_INPUT: Final = ("context", "input")
_FUNCTIONS: Final = frozenset(("decimal", "datetime", "duration", "ip"))
_CALCULATES: Final = frozenset((Op.PLUS, Op.MINUS, Op.TIMES, Op.NEGATIVE))
_TURNS: Final = frozenset(
    ("offset", "durationSince", "toDate", "toTime", "toMilliseconds", "toSeconds", "toMinutes", "toHours", "toDays")
)
# What is at a path of every request where there is something.
_KINDS: Final = {
    ("principal", "agent"): "Agent",
    ("principal", "user"): "User",
    ("principal", "task"): "Task",
    ("principal", "purpose"): "String",
    ("principal", "grade"): "String",
    ("context", "approval", "approver"): "User",
}
_PLAIN: Final[Mapping[type, str]] = {bool: "Bool", int: "Long", str: "String", list: "Set"}
_GRADES: Final = [grade.value for grade in Grade]
_FEW: Final = 8
_MOST: Final = 64


def constants_of(node: Node) -> tuple[object, ...]:
    """Return the values that stand in an expression, as Cedar JSON, each once."""
    found: list[object] = []
    pending = [node]
    while pending:
        node = pending.pop()
        if node.op is Op.LITERAL:
            found.append(node.value)
        elif isinstance(node.value, EntityUid):
            found.append({"__entity": node.value.as_json()})
        elif node.op is Op.CALL and node.value in _FUNCTIONS and node.parts and isinstance(node.parts[0].value, str):
            found.append({"__extn": {"fn": node.value, "arg": node.parts[0].value}})
        elif node.op is Op.LIKE and isinstance(node.value, tuple):
            # The shortest text of the pattern, and one with something in every gap.
            found += ["".join(piece or "" for piece in node.value), "".join(piece or "x" for piece in node.value)]
            pending += node.parts
        else:
            pending += reversed(node.parts)
    return _once(found)


def is_calculated(node: Node) -> bool:
    """Return whether an expression makes numbers or times of others."""
    return any(
        part.op in _CALCULATES or (part.op is Op.METHOD and part.value in _TURNS) or part.op is Op.IF
        for part in walk(node)
    )


def kind_of(value: object) -> str:
    """Return the kind of a value: a type of Cedar, of an entity its own; empty for what has none."""
    if isinstance(value, dict):
        if (uid := entity_of(value)) is not None:
            return uid[0]
        return str(value["__extn"]["fn"]) if "__extn" in value else "Record"
    return _PLAIN.get(type(value), "")


class Pools:
    """What there is to choose other values from, for calls of one tool."""

    def __init__(self, texts: Iterable[str], tool: GuardedTool, policies: PolicySet) -> None:
        """Take what names values.

        Args:
            texts: Policies, which Cedar parsed before.
            tool: What is called.
            policies: Whose entities are known.
        """
        self._policies = policies
        self.tool = tool
        self._shapes = {part.name: part.shape for part in tool.input.parts}
        facts = () if tool.facts is None else tool.facts.parts
        spending = [("input", part) for part in tool.input.parts] + [("facts", part) for part in facts]
        self._spending: dict[tuple[str, ...], str] = {
            ("context", record, part.name): part.shape.spends for record, part in spending if part.shape.spends
        }
        self._literals: dict[tuple[str, ...], list[object]] = {}
        for text in texts:
            for piece in pieces_of(text):
                self._collect(piece.node)

    def _collect(self, node: Node) -> None:
        for part in walk(node):
            constants = constants_of(part) if part.parts and part.op not in {Op.AND, Op.OR, Op.NOT, Op.IF} else ()
            for inner in part.parts if constants else ():
                if path := path_of(inner):
                    kept = self._literals.setdefault(path, [])
                    kept[:] = _once((*kept, *constants))[:_MOST]

    def spends(self, path: tuple[str, ...]) -> str:
        """Return the total of a run that a path adds to; empty if it adds to none."""
        return self._spending.get(path, "")

    def spending(self, total: str) -> Sequence[tuple[str, ...]]:
        """Return the paths that add to a total of a run."""
        return [path for path, spends in self._spending.items() if spends == total]

    def named(self, path: tuple[str, ...]) -> Sequence[object]:
        """Return what policies compare a path with."""
        return self._literals.get(path, ())

    def is_named(self, path: tuple[str, ...], value: object, beside: Iterable[object]) -> bool:
        """Return whether a value is one that a policy or a type names, one of two, or *beside* it."""
        named = (*beside, *self.named(path), *self._members(path))
        return value is ABSENT or isinstance(value, bool) or any(_same(value, one) for one in named)

    def values(self, path: tuple[str, ...], now: object, node: Node, others: Iterable[object]) -> list[object]:
        """Return what else could be at a path: first what is named nearest, `ABSENT` last.

        Args:
            path: The path.
            now: What is there.
            node: The condition that looks at it.
            others: What else that condition looks at.
        """
        constants = (*constants_of(node), *(other for other in others if kind_of(other)))
        kind = self._kind(path, now, constants)
        like = [value for value in (*constants, *self.named(path)) if kind_of(value) == kind]
        if kind == "Bool":
            found: list[object] = [True, False]
        elif kind == "Set":
            found = _sets(now if isinstance(now, list) else [], constants)
        elif kind == "String":
            members = self._members(path)
            found = [*like, *members] if members else [*like, _unlike(like)]
        elif kind == "ip":
            found = [{"__extn": {"fn": "ip", "arg": _address(value)}} for value in like if isinstance(value, dict)]
        elif kind in {"", "Record"}:
            found = []
        elif kind in {"Long", "decimal", "datetime", "duration"}:
            found = like or [_nothing(kind)]
        else:
            found = [*like, *self._entities(kind, constants)]
        return [*_once(found), *([] if now is ABSENT else [ABSENT])]

    def set_text(self, subject: str, now: object, value: list[object]) -> str:
        """Return how a set is told that is another: by what comes to it, or goes."""
        before = now if isinstance(now, list) else []
        more = [written(one) for one in value if not any(_same(one, old) for old in before)]
        gone = [written(one) for one in before if not any(_same(one, new) for new in value)]
        parts = ([f"with {', '.join(more)}"] if more else []) + ([f"without {', '.join(gone)}"] if gone else [])
        return f"{subject} {' and '.join(parts)}" if parts else f"{subject} == {written(value)}"

    def _members(self, path: tuple[str, ...]) -> Sequence[object]:
        """Return the values that there are, where they are few."""
        if path == ("principal", "grade"):
            return _GRADES
        shape = self._shape(path)
        return () if shape is None else shape.members

    def _shape(self, path: tuple[str, ...]) -> Shape | None:
        if path[:2] != _INPUT or not path[2:]:
            return None
        shape = self._shapes.get(path[2])
        for name in path[3:]:
            shape = None if shape is None else next((part.shape for part in shape.parts if part.name == name), None)
        return shape

    def _kind(self, path: tuple[str, ...], now: object, constants: Sequence[object]) -> str:
        if now is not ABSENT:
            return kind_of(now)
        shape = self._shape(path)
        if shape is not None:
            if shape.element is not None:
                return "Set"
            return "ip" if shape.cedar == "ipaddr" else "Record" if shape.parts else shape.cedar
        if path in _KINDS:
            return _KINDS[path]
        named = [*constants, *self.named(path)]
        return kind_of(named[0]) if named else ""

    def _entities(self, type_: str, constants: Sequence[object]) -> list[object]:
        """Return entities of a type: those in a group that is named, then others, then one that nobody knows."""
        known = self._policies.known
        asked = {uid for value in constants if (uid := entity_of(value)) is not None}
        of_type = sorted(uid for uid in known.text if uid[0] == type_)
        within = [uid for uid in of_type if not asked.isdisjoint(ancestors((uid,), known.parents))]
        uids: list[Uid] = [*within[:_FEW], *of_type[:_FEW], (type_, f"some-{type_.rpartition('::')[2].lower()}")]
        return [{"__entity": {"type": uid[0], "id": uid[1]}} for uid in dict.fromkeys(uids)]


def _sets(now: list[object], constants: Sequence[object]) -> list[object]:
    flat = _once(one for value in constants for one in (value if isinstance(value, list) else [value]))
    found: list[object] = [[*now, one] for one in flat if not any(_same(one, old) for old in now)]
    found.append(list(_once((*now, *flat))))
    found += [[old for old in now if not _same(old, one)] for one in flat]
    found.append([old for old in now if not any(_same(old, one) for one in flat)])
    return [*found, list(flat), *([one] for one in flat), []]


def _unlike(named: Iterable[object]) -> str:
    """Return a text that is none of these, and begins and ends as none does."""
    taken = {str(one) for one in named}
    return next(word for word in ("other", *(f"other-{place}" for place in range(len(taken) + 1))) if word not in taken)


def _address(value: Mapping[str, Mapping[str, object]]) -> str:
    """Return one address of a range."""
    return str(value["__extn"]["arg"]).partition("/")[0]


def _nothing(kind: str) -> object:
    arguments = {"decimal": "0.0", "datetime": "2000-01-01", "duration": "0ms"}
    return {"__extn": {"fn": kind, "arg": arguments[kind]}} if kind in arguments else 0


def _same(one: object, other: object) -> bool:
    """Return whether two values are one: true is not 1."""
    return type(one) is type(other) and one == other


def _once(values: Iterable[object]) -> tuple[object, ...]:
    return tuple({(type(value), written(value)): value for value in values}.values())
