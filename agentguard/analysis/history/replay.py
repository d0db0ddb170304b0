"""A decision that is on record, as the question that it answered, as far as the record says.

Evidence keeps digests where values would be secrets. So a replayed request has what was
kept, and names beside it what was not: whoever judges it by other policies has to say
"cannot tell" wherever that could make a difference. Nothing is filled in.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final
from zoneinfo import ZoneInfo

from agentguard.analysis.history.donebefore import RUN, done_above, done_before
from agentguard.evidence.record import UNCONFIRMED
from agentguard.evidence.vocabulary import RecordKind
from agentguard.evidence.withheld import WITHHELD
from agentguard.model import AccessRequest, Effect, EntityUid, Grade, Reason
from agentguard.policy.conversion.values import datetime_json
from agentguard.policy.deciding.looks import ENTITIES
from agentguard.policy.deciding.reach import add_references, json_text
from agentguard.request import base_context
from agentguard.testing import unsafe_invocation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.workspace import Workspace
    from agentguard.evidence.kept import Kept
    from agentguard.model import Invocation
    from agentguard.policy.deciding.looks import Path
    from agentguard.policy.deciding.reach import Uid
    from agentguard.policy.schemas.offered import Offered

GRANT: Final = "grant"
"""What a run's own grant says."""

ANCESTORS: Final = "ancestors"
"""Who delegated to a run."""

PRINCIPAL: Final = ("principal",)
"""All that is said of a run."""

RESOURCE: Final = "resource"
"""Which entity a call acted on."""

_INPUT: Final = ("context", "input")

_BY_POLICIES: Final = frozenset(
    (
        Reason.PERMIT,
        Reason.POLICY,
        Reason.NO_PERMIT,
        Reason.GRANT,
        Reason.POLICY_ERROR,
        Reason.MISSING_ENTITY,
        Reason.APPROVAL_REQUIRED,
        Reason.APPROVAL_DECLINED,
        Reason.APPROVAL_UNAVAILABLE,
    )
)
_GRADES: Final = frozenset(grade.value for grade in Grade)
_STAND_IN: Final = re.compile(rf"hmac-sha256:[0-9a-f]{{64}}|{re.escape(WITHHELD)}")
_SURROGATE: Final = re.compile("[\ud800-\udfff]")
_WHOLE: Final = re.compile(r"-?[0-9]{1,19}")
# Nobody's name: what is made with it is not looked at.
_NOBODY: Final = "?"
_MOST_LINKS: Final = 16
# The year 9999, past which no calendar goes.
_LAST_SECOND: Final = 253_402_300_799
_INVOCATIONS: Final = 4_096
_UTC: Final = ZoneInfo("UTC")


class NoRequestError(Exception):
    """A record of no question that policies could answer; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """How a guard was set up, where somebody says so: no decision's record does.

    Attributes:
        environment: ``context.environment``.
        time_zone: Where ``context.local`` holds.
    """

    environment: str | None = None
    time_zone: ZoneInfo | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """What a record says of the request that it is about.

    Attributes:
        record: The record.
        request: The request with what is known of it. What is not known is left out, or is
            something that stands for it: look at *unknown* first.
        paths: What is not known, with all that lies below it: ``("principal", "scopes")``, or
            `ENTITIES` and a type for the attributes and parents of its entities; and `GRANT`,
            `ANCESTORS`, `RESOURCE`, each alone.
        early: Whether the call was stopped before its arguments were looked at.
        link: The first link of the chain that it was denied at; None if it was not, or that is not known.
        above: What is not known of what each run had done that delegated, root first.
    """

    record: Kept
    request: AccessRequest
    paths: frozenset[Path]
    early: bool = False
    link: int | None = None
    above: tuple[frozenset[Path], ...] = ()

    def unknown_at(self, depth: int) -> frozenset[Path]:
        """Return what is not known at one link: of a run that delegated, what it had done is on record alone."""
        if depth == len(self.request.invocation.ancestors):
            return self.paths
        return frozenset(path for path in self.paths if path[:2] != RUN) | {PRINCIPAL} | self.above[depth]

    @property
    def unknown(self) -> frozenset[str]:
        """What is not known, in words: ``context.input.max_rows``, ``Record.*``, ``grant``."""
        return frozenset(map(worded, self.paths))


def worded(path: Path) -> str:
    """Return a path in words."""
    return ".".join((*path[1:], "*") if path[0] == ENTITIES else path)


def argument_of(path: Path) -> str | None:
    """Return the argument that a path names or leads into, if it does."""
    return path[2] if path[:2] == _INPUT and len(path) > len(_INPUT) else None


_NOTHING: Final = Setting()


def replay(record: Kept, workspace: Workspace, *, setting: Setting = _NOTHING) -> Replayed:
    """Return the request that a decision's record is about.

    Args:
        record: The record of a decision.
        workspace: What the server offered.
        setting: How its guard was set up.

    Raises:
        NoRequestError: It is about none that policies judge: the call had no identity, its
            run was over, or there is no such tool.
    """
    if record.kind != RecordKind.DECISION:
        message = f"a {record.kind} is no decision"
        raise NoRequestError(message)
    reason = record.text("agentguard.decision.reason")
    if reason not in _BY_POLICIES:
        message = f"policies were not asked: {reason}"
        raise NoRequestError(message)
    if (record.text("agentguard.decision.effect") == Effect.ALLOW) is not (reason == Reason.PERMIT):
        message = "its effect is none that its reason has"
        raise NoRequestError(message)
    if record.text("agentguard.decision.detail") == UNCONFIRMED:
        message = f"policies were not asked: {UNCONFIRMED}"
        raise NoRequestError(message)
    name = record.text("agentguard.action.id")
    offered = next((one for one in workspace.written.offers if one.tool.name == name), None)
    if offered is None:
        message = f"the server has no `{name}`"
        raise NoRequestError(message)
    invocation, unknown = _invocation(record, workspace)
    resource, id_known = _resource(record, offered)
    if not id_known:
        unknown.add((RESOURCE,))
    context = _context(record, offered, resource if id_known else None, unknown, setting)
    run, not_kept = done_before(record, workspace.policies.totals)
    if run is not None:
        context["run"] = run
    unknown |= not_kept
    depth = len(invocation.ancestors)
    above = done_above(record, workspace.policies.totals, depth)
    unknown |= {(ENTITIES, type_) for type_ in workspace.written.loaders}
    request = AccessRequest(
        invocation=invocation,
        action=name,
        resource=resource,
        context=context,
        entities=_made(resource, offered, workspace),
        runs=tuple(done or {} for done in (*(done for done, _ in above), run)) if above else (),
    )
    return Replayed(
        record=record,
        request=request,
        paths=frozenset(unknown),
        early=_is_early(record),
        link=_link(record, depth),
        above=tuple(frozenset(paths) for _, paths in above),
    )


def _link(record: Kept, depth: int) -> int | None:
    """Return the first link that a call was denied at; None if there is none, or it is not known."""
    if record.text("agentguard.decision.effect") == Effect.ALLOW:
        return None
    link = record.attributes.get("agentguard.decision.link") if depth else 0
    return link if type(link) is int and 0 <= link <= depth else None


def _is_early(record: Kept) -> bool:
    return not record.text("agentguard.arguments.digest")


def _invocation(record: Kept, workspace: Workspace) -> tuple[Invocation, set[Path]]:
    run_id, agent = record.text("agentguard.run.id"), record.text("agentguard.agent.id")
    grade = record.text("agentguard.invocation.grade")
    ends_at, granted = record.number("agentguard.run.ends_at"), record.number("agentguard.authority.granted")
    depth = record.number("agentguard.delegation.depth")
    if not (
        run_id and agent and grade in _GRADES and ends_at is not None and granted is not None and depth is not None
    ):
        message = "it does not say for whom"
        raise NoRequestError(message)
    texts = "".join(value for value in record.attributes.values() if isinstance(value, str))
    possible = 0 <= depth <= _MOST_LINKS and 0 <= granted <= ends_at <= _LAST_SECOND and float(granted).is_integer()
    if not possible or _SURROGATE.search(texts):
        message = "it says of its run what cannot be"
        raise NoRequestError(message)
    invocation = _invoked(
        run_id,
        agent,
        Grade(grade),
        record.text("agentguard.invocation.issuer"),
        int(ends_at),
        int(granted),
        _optional(record, "agentguard.user.id"),
        _optional(record, "agentguard.task.id"),
        _optional(record, "agentguard.purpose"),
        int(depth),
        record.text("agentguard.run.parent"),
    )
    unknown: set[Path] = {("principal", name) for name in ("scopes", *workspace.written.claims)}
    unknown.add((GRANT,))
    if depth:
        unknown.add((ANCESTORS,))
    return invocation, unknown


# One run makes many calls, and what policies make of an invocation is kept by the invocation.
@lru_cache(maxsize=_INVOCATIONS)
def _invoked(  # noqa: PLR0917  the key of the cache
    run_id: str,
    agent: str,
    grade: Grade,
    issuer: str,
    ends_at: int,
    granted: int,
    user: str | None,
    task: str | None,
    purpose: str | None,
    depth: int,
    parent: str,
) -> Invocation:
    times = {"issued_at": ends_at - granted, "run_ends_at": ends_at}
    above: list[Invocation] = []
    for place in range(depth):
        link = parent if place == depth - 1 and parent else f"{_NOBODY}{place}"
        above.append(unsafe_invocation(_NOBODY, run_id=link, issuer=issuer, ancestors=tuple(above), at=ends_at))
    return unsafe_invocation(
        agent,
        run_id=run_id,
        issuer=issuer,
        grade=grade,
        issued_at=times["issued_at"],
        run_ends_at=times["run_ends_at"],
        user=user,
        task=task,
        purpose=purpose,
        ancestors=tuple(above),
    )


def _optional(record: Kept, name: str) -> str | None:
    return record.text(name) if name in record.attributes else None


def _resource(record: Kept, offered: Offered) -> tuple[EntityUid, bool]:
    """Return what was acted on, and whether its id is known."""
    type_ = offered.tool.resource_type
    if type_ is None:
        return offered.tool.itself, True
    id_ = record.text("agentguard.resource.id")
    if record.text("agentguard.resource.type") != type_ or "agentguard.resource.id" not in record.attributes:
        return EntityUid(type_, _NOBODY), False
    # Of a private type, a digest stands in the id's place. An id that looks like one is not believed either.
    return EntityUid(type_, id_), _STAND_IN.fullmatch(id_) is None


def _made(resource: EntityUid, offered: Offered, workspace: Workspace) -> tuple[Mapping[str, object], ...]:
    """Return what the guard itself makes of a resource that nobody loads and no file lists."""
    tool = offered.tool
    if tool.resource_type is None or resource.type in workspace.written.loaders:
        return ()
    if resource in workspace.policies.static_uids:
        return ()
    return ({"uid": resource.as_json(), "attrs": {}, "parents": [tool.itself.as_json()]},)


def _context(
    record: Kept, offered: Offered, resource: EntityUid | None, unknown: set[Path], setting: Setting
) -> dict[str, object]:
    """Return what is known of the context, and add to *unknown* what is not."""
    now = _now(record)
    zone = setting.time_zone or _UTC
    context = base_context(record.at if now is None else now, zone, setting.environment or _NOBODY, _NOBODY)
    transport = record.text("agentguard.transport")
    context["transport"] = transport
    del context["run"]
    left_out = {
        "environment": setting.environment,
        "local": None if now is None else setting.time_zone,
        "transport": transport or None,
        "now": now,
    }
    for name, known in left_out.items():
        if known is None:
            del context[name]
            unknown.add(("context", name))
    context["input"] = _input(record, offered, resource, unknown)
    if offered.tool.facts is not None:
        unknown.add(("context", "facts"))
    approval = _approval(record, unknown)
    if approval is not None:
        context["approval"] = approval
    return context


def _now(record: Kept) -> float | None:
    """Return the moment by which a call was judged; None if that is not known."""
    now = record.number("agentguard.now")
    if now is not None:
        return now if 0 <= now <= _LAST_SECOND else None
    # It was judged when it came, and recorded later, by minutes if a person thought it over.
    return None if record.text("agentguard.approval.id") else record.at


def _input(record: Kept, offered: Offered, resource: EntityUid | None, unknown: set[Path]) -> dict[str, object]:
    known: dict[str, object] = {}
    for member in offered.tool.input.parts:
        if member.name in record.inputs:
            value = record.inputs[member.name]
            if value is None:
                # It was named to be kept, and the call did not have it.
                continue
            if value != WITHHELD and _is_plain(value):
                known[member.name] = value
                continue
        elif (named := _from_resource(offered, member.name, member.shape.cedar, resource)) is not None:
            known[member.name] = named
            continue
        unknown.add((*_INPUT, member.name))
    return known


def _from_resource(offered: Offered, name: str, cedar: str, resource: EntityUid | None) -> object | None:
    """Return an argument that the id of the resource was made of, if it is that."""
    template = offered.resource
    if template is None or resource is None or template.each or template.argument != name:
        return None
    if cedar == "String":
        return resource.id
    if cedar == "Long" and _WHOLE.fullmatch(resource.id):
        return int(resource.id)
    return None


def _is_plain(value: object) -> bool:
    """Return whether Cedar would read a value as nothing more than a value: evidence may be forged."""
    found: set[Uid] = set()
    try:
        add_references(value, found, special=False)
        json_text(value)
    except (ValueError, RecursionError):
        return False
    return not found


def _approval(record: Kept, unknown: set[Path]) -> dict[str, object] | None:
    """Return ``context.approval`` of a call that was allowed with one; a denied one is judged as if there was none."""
    channel = record.text("agentguard.approval.channel")
    if not channel or record.text("agentguard.decision.effect") != "allow":
        return None
    unknown.add(("context", "approval", "at"))
    approval: dict[str, object] = {"channel": channel, "at": datetime_json(record.at)}
    approver = record.text("agentguard.approval.approver")
    if _STAND_IN.fullmatch(approver):
        unknown.add(("context", "approval", "approver"))
    elif approver:
        approval["approver"] = {"__entity": EntityUid("User", approver).as_json()}
    return approval
