"""One tool call as Cedar sees it: principal, resource, context.

Everything here is a function of its arguments: who the invocation is was verified
before, and what an entity's attributes are is a loader's to say.
"""

from __future__ import annotations

import collections.abc
import re
import typing
from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal, get_args, get_origin
from uuid import UUID

import typing_extensions

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle.tally import Tally
from agentguard.limits import Limits
from agentguard.model import EntityUid, Reason
from agentguard.policy.conversion.values import datetime_json, decimal_json, duration_json, shape_of, to_cedar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from zoneinfo import ZoneInfo

    from agentguard.model import Claim, Invocation

_LIMITS: Final = Limits()
# Past that, which recorded or supposed calls may be, a zone may lead out of the calendar.
_LAST_DAY: Final = 253_402_214_400
_TEMPLATE: Final = re.compile(
    r"(?P<type>(?:[A-Za-z_]\w*::)*[A-Za-z_]\w*)::\{(?P<argument>[A-Za-z_]\w*)(?P<each>\[\*\])?\}", re.ASCII
)
_OURS: Final = frozenset({"Action", "Invocation", "Server", "Tool"})
_COLLECTIONS: Final = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set)
_TEXT: Final = shape_of(str, where="an id")
_NUMBER: Final = shape_of(int, where="an id")
_CLAIMS: Final = {
    str: shape_of(str, where="a claim"),
    int: shape_of(int, where="a claim"),
    bool: shape_of(bool, where="a claim"),
    list: shape_of(list[str], where="a claim"),
}


def principal_uid(invocation: Invocation) -> EntityUid:
    """Return the entity of a run."""
    return EntityUid("Invocation", invocation.run_id)


def agent_uid(invocation: Invocation) -> EntityUid:
    """Return the entity of the agent that acts."""
    return EntityUid("Agent", invocation.agent)


def user_uid(invocation: Invocation) -> EntityUid | None:
    """Return the entity of the user on whose behalf, if there is one."""
    return None if invocation.user is None else EntityUid("User", invocation.user)


def task_uid(invocation: Invocation) -> EntityUid | None:
    """Return the entity of the task, if there is one."""
    return None if invocation.task is None else EntityUid("Task", invocation.task)


def principal_entities(invocation: Invocation, *, scopes: frozenset[str] | None = None) -> list[dict[str, object]]:
    """Return the principal as Cedar JSON entities: the invocation, and only itself.

    Its parents are the agent and the task, and not the user: an agent that acts for an
    admin must not become one.

    Args:
        invocation: The run.
        scopes: What the token's scopes are supposed to be, for a question that leads to no run.

    Raises:
        Refusal: INVALID_TOKEN, if a fact of it has no exact counterpart in Cedar.
    """
    user, task = user_uid(invocation), task_uid(invocation)
    try:
        attributes = {name: _claim(claim) for name, claim in invocation.claims.items()}
        # Ours come last, so that no claim can pass for one of them.
        attributes |= {
            "agent": {"__entity": agent_uid(invocation).as_json()},
            "issuer": invocation.issuer,
            "scopes": _claim(invocation.scopes if scopes is None else scopes),
            "grade": invocation.grade.value,
            "issued_at": datetime_json(invocation.issued_at),
            "ends_at": datetime_json(invocation.run_ends_at),
            "lifetime": duration_json(invocation.lifetime),
            "delegation_depth": invocation.delegation_depth,
        }
    except Refusal as refusal:
        raise Refusal(Reason.INVALID_TOKEN, refusal.detail) from None
    if user is not None:
        attributes["user"] = {"__entity": user.as_json()}
    if task is not None:
        attributes["task"] = {"__entity": task.as_json()}
    if invocation.purpose is not None:
        attributes["purpose"] = invocation.purpose
    parents = [agent_uid(invocation).as_json()]
    if task is not None:
        parents.append(task.as_json())
    return [{"uid": principal_uid(invocation).as_json(), "attrs": attributes, "parents": parents}]


def _claim(claim: Claim) -> object:
    value = sorted(claim) if isinstance(claim, frozenset) else claim
    shape = _CLAIMS.get(type(value))
    if shape is None:
        raise Refusal(Reason.INVALID_TOKEN, f"a claim of type `{type(value).__name__}` has no counterpart in Cedar")
    return to_cedar(value, shape, _LIMITS)


def run_record(
    tally: Tally, *, now: float, tool: str = "", totals: Collection[str] = (), labels: frozenset[str] = frozenset()
) -> dict[str, object]:
    """Return ``context.run``: what a run has done so far.

    Args:
        tally: That, with what this call declares to spend.
        now: Unix seconds.
        tool: What is called, as the tally names it.
        totals: Every total that tools of the server add to.
        labels: What the runs carry that it stems from.
    """
    return {
        "calls": tally.calls,
        "calls_of_this_tool": tally.tools.get(tool, 0),
        "denied": tally.denied,
        "labels": sorted(tally.labels | labels),
        "spent": {total: decimal_json(tally.spent.get(total, 0)) for total in totals},
        "shared": tally.shared,
        "started_at": datetime_json(now if tally.started_at is None else tally.started_at),
    }


def base_context(
    now: float, zone: ZoneInfo, environment: str, transport: str, run: Mapping[str, object] | None = None
) -> dict[str, object]:
    """Return what every call's context has; the arguments come on top.

    Args:
        now: Unix seconds.
        zone: Where ``local.weekday`` (1 is Monday) and ``local.minute`` (of the day) hold.
        environment: The deployment's name, as the guard was given it.
        transport: How the call arrived: ``http``, or ``stdio`` for anything without a request of its own.
        run: From `run_record`; None for a run that has done nothing, at a server without totals.
    """
    weekday, minute = _local(int(now), zone)
    return {
        "now": datetime_json(now),
        "local": {"weekday": weekday, "minute": minute},
        "environment": environment,
        "transport": transport,
        "run": run_record(Tally(), now=now) if run is None else run,
    }


@lru_cache(maxsize=8)
def _local(second: int, zone: ZoneInfo) -> tuple[int, int]:
    """Return the weekday and the minute of the day, the same for every call of one second."""
    local = datetime.fromtimestamp(min(second, _LAST_DAY), zone)
    return local.isoweekday(), local.hour * 60 + local.minute


@dataclass(frozen=True, slots=True)
class ResourceTemplate:
    """Which entities a call acts on, as a function of its arguments.

    Attributes:
        type: The entities' type.
        argument: The argument that holds the id, or the ids.
        each: Whether it holds several.
    """

    type: str
    argument: str
    each: bool = False

    @classmethod
    def parse(cls, text: str) -> ResourceTemplate:
        """Read ``Record::{record_id}`` or ``Record::{record_ids[*]}``.

        Raises:
            ConfigurationError: If it is neither, or of a type that the guard makes.
        """
        match = _TEMPLATE.fullmatch(text)
        if match is None:
            message = f"resource `{text}` is no template: write `Record::{{record_id}}` or `Record::{{record_ids[*]}}`"
            raise ConfigurationError(message)
        if match["type"] in _OURS:
            message = f"resource `{text}` has a type that the guard makes: name a type of your own"
            raise ConfigurationError(message)
        return cls(match["type"], match["argument"], match["each"] is not None)

    def check(self, annotations: Mapping[str, object], *, where: str) -> None:
        """Refuse a template that these arguments cannot fill.

        Args:
            annotations: The type of each argument, by name.
            where: What has them, for the message: ``tool `read```.

        Raises:
            ConfigurationError: If there is no such argument, or it holds no id.
        """
        if self.argument not in annotations:
            names = ", ".join(f"`{name}`" for name in annotations) or "none"
            message = f"{where}: `{self}` needs argument `{self.argument}`, and the arguments are {names}: name one"
            raise ConfigurationError(message)
        plain = _plain(annotations[self.argument])
        if self.each:
            plain = _plain(get_args(plain)[0]) if get_origin(plain) in _COLLECTIONS and get_args(plain) else None
        if not _holds_id(plain):
            wanted = "a list of strings, whole numbers, UUIDs" if self.each else "a string, a whole number, a UUID"
            message = (
                f"{where}: `{self}` needs {wanted} or enums of strings, always given: "
                f"change the type of argument `{self.argument}`"
            )
            raise ConfigurationError(message)

    def uids(self, arguments: Mapping[str, object], limits: Limits = _LIMITS) -> tuple[EntityUid, ...]:
        """Return the entities that a call acts on, each once.

        Raises:
            Refusal: INVALID_ARGUMENT, if there is none, there are more than
                ``entities_per_request``, or an id is not exactly a string, a whole
                number of 64 bits, a UUID or an enum of strings.
        """
        value = arguments.get(self.argument)
        if not self.each:
            return (EntityUid(self.type, _id(value, limits)),)
        if not isinstance(value, (list, tuple, set, frozenset)) or not 0 < len(value) <= limits.entities_per_request:
            raise Refusal(Reason.INVALID_ARGUMENT, f"`{self.argument}` names no entities, or too many")
        ids = dict.fromkeys(_id(item, limits) for item in value)
        return tuple(EntityUid(self.type, id_) for id_ in (ids if isinstance(value, (list, tuple)) else sorted(ids)))

    def __str__(self) -> str:
        return f"{self.type}::{{{self.argument}{'[*]' if self.each else ''}}}"


def _id(value: object, limits: Limits) -> str:
    raw = value.value if isinstance(value, Enum) else value
    if type(raw) is UUID:
        return str(raw)
    # An enum's value counts when it is a string: those of numbers are its own affair.
    if type(raw) is int and raw is value:
        return str(to_cedar(raw, _NUMBER, limits))
    return str(to_cedar(raw, _TEXT, limits))


def _plain(annotation: Any) -> Any:
    """Return what an annotation's values are, without what is only written around it."""
    aliases = (typing_extensions.TypeAliasType, getattr(typing, "TypeAliasType", typing_extensions.TypeAliasType))
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
        elif isinstance(annotation, typing.NewType):
            annotation = annotation.__supertype__
        elif isinstance(annotation, aliases):
            annotation = annotation.__value__
        else:
            return annotation


def _holds_id(plain: object) -> bool:
    if isinstance(plain, type) and issubclass(plain, Enum):
        return _all_exactly(str, [member.value for member in plain])
    if get_origin(plain) is Literal:
        members = get_args(plain)
        return _all_exactly(str, members) or _all_exactly(int, members)
    return plain in (str, int, UUID)


def _all_exactly(kind: type, values: Collection[object]) -> bool:
    return bool(values) and all(type(value) is kind for value in values)
