"""Changes of a call: another argument, another identity, a person's yes; and how each is told.

A change is tried on requests, so what it says of a call is only what the engine then says.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Final, Protocol, cast

from agentguard.analysis.explanations.runs import changed_run, granted_run
from agentguard.analysis.known import ABSENT
from agentguard.analysis.notation import entity_text, name_text, of_units, path_text, written
from agentguard.model import EntityUid, printable
from agentguard.policy.conversion.values import decimal_json, units_of_json
from agentguard.policy.deciding.reach import uid_of
from agentguard.steps.tallying import spent_by

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Mapping, Sequence

    from agentguard.analysis.known import Holder
    from agentguard.model import AccessRequest
    from agentguard.policy.conversion.scalars import CedarJson
    from agentguard.policy.deciding.reach import Uid
    from agentguard.policy.schemas.schema import GuardedTool


class Who(IntEnum):
    """Whose hand a change is in, whoever comes first can do it most easily."""

    CALLER = 0
    IDENTITY = 1
    APPROVER = 2
    RUN = 3
    CLOCK = 4
    DEPLOYMENT = 5
    DATA = 6
    GRANT = 7
    POLICY = 8


_INPUT: Final = ("context", "input")
_CONTEXT: Final = {
    "input": Who.CALLER,
    "facts": Who.CALLER,
    "approval": Who.APPROVER,
    "run": Who.RUN,
    "now": Who.CLOCK,
    "local": Who.CLOCK,
}


class Change(Protocol):
    """One thing that is other than it was."""

    @property
    def key(self) -> Hashable:
        """What it changes: a later change of the same replaces it."""

    @property
    def who(self) -> Who:
        """Whose hand it is in."""

    @property
    def text(self) -> str:
        """What would be, as a condition: `max_rows ≤ 500`."""

    def apply(self, request: AccessRequest) -> AccessRequest | None:
        """Return a request with it, or None if no call can be like that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """How far a value may go, both ends included and in units of its type; None where nothing was found to stop it."""

    kind: str
    least: int | None
    most: int | None

    def text(self, subject: str) -> str:
        """Return it as a condition."""
        least, most = (None if end is None else written(of_units(self.kind, end)) for end in (self.least, self.most))
        if least is not None and most is not None:
            return f"{subject} == {least}" if least == most else f"{least} ≤ {subject} ≤ {most}"
        if least is None and most is None:
            return f"any {subject}"
        return f"{subject} ≤ {most}" if least is None else f"{subject} ≥ {least}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Value:
    """One value that is another.

    Attributes:
        path: The path in a policy that leads there, the variable first.
        holder: Where the value stands.
        value: What it would be, Cedar JSON; `ABSENT` for nothing.
        depth: The link of the chain whose principal it is about; None for what all links share.
        spends: The total of the run that it adds to, if it does.
        told: How it is told, where it is not told as `path == value`: the value may be an example.
        span: How far it may go, where that was tried.
    """

    path: tuple[str, ...]
    holder: Holder
    value: object
    depth: int | None = None
    spends: str = ""
    told: str = ""
    span: Span | None = None

    @property
    def key(self) -> Hashable:
        """Where it stands."""
        return self.depth, self.holder

    @property
    def who(self) -> Who:
        """Whose hand it is in."""
        if self.depth is not None:
            return Who.IDENTITY
        if self.holder.entity is None:
            return _CONTEXT.get(self.holder.names[0], Who.DEPLOYMENT)
        return Who.DATA

    def apply(self, request: AccessRequest) -> AccessRequest | None:
        """Return a request with it, or None if no call can be like that."""
        if self.depth is not None:
            invocation = changed_run(request.invocation, self.depth, self.holder.names, self.value)
            return None if invocation is None else replace(request, invocation=invocation)
        try:
            if self.holder.entity is None:
                changed = _with_context(request, self.holder.names, self.value)
                return _respent(changed, self.spends, self._before(request), self.value) if self.spends else changed
            entities = tuple(
                {**entity, "attrs": _with(cast("Mapping[str, object]", entity["attrs"]), self.holder.names, self.value)}
                if uid_of(entity["uid"]) == self.holder.entity
                else entity
                for entity in request.entities
            )
        except KeyError:
            # What it would stand in came with another change, and nothing has a part without the whole.
            return None
        return replace(request, entities=entities)

    def _before(self, request: AccessRequest) -> object:
        found: object = request.context
        for name in self.holder.names:
            found = found.get(name, ABSENT) if isinstance(found, dict) else ABSENT
        return found

    @property
    def subject(self) -> str:
        """What it changes, as short as it can be told."""
        return subject_of(self.path)

    @property
    def text(self) -> str:
        """What would be, as a condition."""
        if self.told:
            return self.told
        if self.value is ABSENT:
            return f"no {self.subject}"
        if self.span is not None:
            return self.span.text(self.subject)
        return f"{self.subject} == {written(self.value)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewRun:
    """The same call, as the first of a run that nobody delegated anything to before.

    Attributes:
        tool: What is called: what it declares to spend is spent in the new run too.
        totals: Every total of the server, whether or not it is known of the run as it is.
    """

    tool: GuardedTool
    totals: tuple[str, ...]

    @property
    def key(self) -> Hashable:
        """All that a run has done."""
        return "run"

    @property
    def who(self) -> Who:
        """Whoever begins runs."""
        return Who.RUN

    def apply(self, request: AccessRequest) -> AccessRequest | None:
        """Return a request with it."""
        spent = spent_by(self.tool, request.context)
        run: dict[str, object] = {
            "calls": 0,
            "calls_of_this_tool": 0,
            "denied": 0,
            "labels": [],
            "spent": {total: decimal_json(spent.get(total, 0)) for total in self.totals},
            "shared": False,
        }
        # Of a call on record it may not be known when it was judged.
        if "now" in request.context:
            run["started_at"] = request.context["now"]
        context = {**request.context, "run": run}
        return replace(request, context=context, runs=tuple(run for _ in request.runs))

    @property
    def text(self) -> str:
        """What would be, as a condition."""
        return "a new run"


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """One entity that is in a group.

    Attributes:
        entity: Who or what.
        group: In what.
        path: The path that leads to it.
    """

    entity: Uid
    group: Uid
    path: tuple[str, ...]

    @property
    def key(self) -> Hashable:
        """The two."""
        return self.entity, self.group

    @property
    def who(self) -> Who:
        """Whoever keeps the groups."""
        return Who.DATA

    def apply(self, request: AccessRequest) -> AccessRequest | None:
        """Return a request with it."""
        group = {"type": self.group[0], "id": self.group[1]}
        entities: list[Mapping[str, object]] = []
        found = False
        for entity in request.entities:
            if uid_of(entity["uid"]) == self.entity:
                found = True
                entities.append({**entity, "parents": [*cast("list[object]", entity["parents"]), group]})
            else:
                entities.append(entity)
        if not found:
            uid = {"type": self.entity[0], "id": self.entity[1]}
            entities.append({"uid": uid, "attrs": {}, "parents": [group]})
        return replace(request, entities=tuple(entities))

    @property
    def text(self) -> str:
        """What would be, as a condition."""
        return f"{entity_text(*self.entity)} in {entity_text(*self.group)}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """A grant that permits more.

    Attributes:
        depth: The link of the chain whose grant it is.
        agent: Who acts there.
        action: What it would permit.
    """

    depth: int
    agent: str
    action: str

    @property
    def key(self) -> Hashable:
        """The link."""
        return "grant", self.depth

    @property
    def who(self) -> Who:
        """Whoever made the grant."""
        return Who.GRANT

    def apply(self, request: AccessRequest) -> AccessRequest | None:
        """Return a request with it."""
        action = EntityUid("Action", self.action)
        permit = f"permit (principal, action == {action}, resource);"
        return replace(request, invocation=granted_run(request.invocation, self.depth, permit))

    @property
    def text(self) -> str:
        """What would be, as a condition."""
        return f"a grant for {printable(self.agent)} that permits {printable(self.action)}"


def subject_of(path: Sequence[str]) -> str:
    """Return what a path leads to, as short as it can be told: an argument by its name."""
    *record, last = path
    return name_text(last) if tuple(record) == _INPUT else path_text(path)


def applied(changes: Iterable[Change], requests: Sequence[AccessRequest]) -> tuple[AccessRequest, ...] | None:
    """Return requests with all of some changes, or None if no call can be like that."""
    found = []
    for request in requests:
        changed: AccessRequest | None = request
        for change in changes:
            changed = None if changed is None else change.apply(changed)
        if changed is None:
            return None
        found.append(changed)
    return tuple(found)


def _with_context(request: AccessRequest, names: Sequence[str], value: object) -> AccessRequest:
    """Return a request with another value in its context: what its run has done is the same at every link then.

    Raises:
        KeyError: A record that leads there is not there itself.
    """
    first, *rest = names
    runs = tuple(_with(run, rest, value) for run in request.runs) if first == "run" else request.runs
    return replace(request, context=_with(request.context, names, value), runs=runs)


def _respent(request: AccessRequest, total: str, before: object, after: object) -> AccessRequest | None:
    """Return a request that spends something else than *before*; None if nothing can be spent so."""
    old, new = (0 if value is ABSENT else units_of_json(cast("CedarJson", value)) for value in (before, after))
    if new < 0:
        return None

    def respent(run: object) -> dict[str, object]:
        found = dict(cast("Mapping[str, object]", run))
        spent = dict(cast("Mapping[str, CedarJson]", found.get("spent", {})))
        if total in spent:
            spent[total] = decimal_json(units_of_json(spent[total]) + new - old)
        return {**found, "spent": spent}

    runs = tuple(respent(run) for run in request.runs)
    return replace(request, context={**request.context, "run": respent(request.context["run"])}, runs=runs)


def _with(record: Mapping[str, object], names: Sequence[str], value: object) -> dict[str, object]:
    """Return a record with another value in it, however deep.

    Raises:
        KeyError: A record that leads there is not there itself.
    """
    first, *rest = names
    found = dict(record)
    if rest:
        found[first] = _with(cast("Mapping[str, object]", found[first]), rest, value)
    elif value is ABSENT:
        found.pop(first, None)
    else:
        found[first] = value
    return found
