"""What a developer's loaders know, as Cedar entities.

A loader is asked at each call, for exactly the entities that the call can reach. What
it returns is mapped as strictly as an argument, and the engine then checks it against
the schema: a loader that gives ``"true"`` for ``true`` would silence a forbid.
"""

from __future__ import annotations

import inspect
import threading
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

import anyio
import anyio.to_thread

from agentguard.errors import ConfigurationError, Refusal
from agentguard.host.cancelled import is_stray
from agentguard.model import EntityUid, Reason
from agentguard.policy.conversion.values import shape_of, to_cedar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from agentguard.limits import Limits

_SCALARS = (
    str, bool, int, float, Decimal, datetime, date, timedelta, IPv4Address, IPv6Address, IPv4Network, IPv6Network,
)  # fmt: skip
_SHAPES = {scalar: shape_of(scalar, where="an attribute") for scalar in _SCALARS}


@dataclass(frozen=True, slots=True)
class Entity:
    """What a loader returns for one id.

    Attributes:
        attributes: By name: strings, bools, whole numbers, decimals, datetimes,
            `EntityUid`, and lists, sets and mappings of these. None leaves one out.
        parents: What it is in, besides the tool that it is the resource of.
    """

    attributes: Mapping[str, object] = field(default_factory=dict)
    parents: Sequence[EntityUid] = ()


# A loader that hangs keeps its thread. Past this many, nobody waits for another one.
_HANGING = 32


def _to_cedar(value: object, limits: Limits, depth: int) -> object:
    if depth == 0:
        raise Refusal(Reason.MISSING_ENTITY, "a loader's value is nested too deep")
    kind = type(value)
    if kind in _SHAPES:
        return to_cedar(value, _SHAPES[kind], limits)
    if isinstance(value, EntityUid):
        return {"__entity": value.as_json()}
    if isinstance(value, Enum) and isinstance(value.value, str):
        return to_cedar(value.value, _SHAPES[str], limits)
    if kind in (list, tuple, set, frozenset):
        return [_to_cedar(item, limits, depth - 1) for item in value]  # type: ignore[attr-defined]
    if kind is dict:
        return _record(value, limits, depth)  # type: ignore[arg-type]
    raise Refusal(Reason.MISSING_ENTITY, f"a loader's value of type `{kind.__qualname__}` has no counterpart in Cedar")


def _record(value: Mapping[str, object], limits: Limits, depth: int) -> dict[str, object]:
    record = {}
    for key, item in value.items():
        # `__extn` and its like would be read as Cedar's own escapes, and one of them
        # makes a forbid not fire.
        if type(key) is not str or key.startswith("__"):
            raise Refusal(Reason.MISSING_ENTITY, "a loader's attribute is not a plain name")
        if item is not None:
            record[to_cedar(key, _SHAPES[str], limits)] = _to_cedar(item, limits, depth - 1)
    return record  # type: ignore[return-value]


def references(value: object) -> Iterator[EntityUid]:
    """Yield every entity that Cedar JSON refers to, attributes and parents alike."""
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict):
            uid = item.get("__entity")
            if isinstance(uid, dict):
                yield EntityUid(uid["type"], uid["id"])
            else:
                stack.extend(item.values())
        elif isinstance(item, (list, tuple)):
            stack.extend(item)


class Loaders:
    """The loaders of one guard, by entity type."""

    def __init__(self, limits: Limits) -> None:
        self._loaders: dict[str, Callable[[str], object]] = {}
        self._limits = limits
        self._running = 0
        self._lock = threading.Lock()

    @property
    def types(self) -> frozenset[str]:
        """The entity types that have a loader."""
        return frozenset(self._loaders)

    def register(self, entity_type: str, loader: Callable[[str], object]) -> None:
        """Register the loader of a type.

        Raises:
            ConfigurationError: If the type has one already, or is the guard's own.
        """
        if entity_type in {"Invocation", "Tool", "Server", "Action"}:
            message = f"entity type `{entity_type}` is made by the guard: give the loader a type of yours"
            raise ConfigurationError(message)
        if entity_type in self._loaders:
            message = f"entity type `{entity_type}` has two loaders: keep one"
            raise ConfigurationError(message)
        self._loaders[entity_type] = loader

    async def load(
        self, wanted: Iterable[EntityUid], *, known: Collection[EntityUid], tool: EntityUid | None
    ) -> tuple[dict[str, object], ...]:
        """Load *wanted* and all that they refer to, as far as loaders know them.

        Args:
            wanted: Where to begin: the resource, and the principal's agent, user, task.
            known: Entities that need no loading.
            tool: The tool that the first of *wanted* is the resource of, its parent.

        Returns:
            Cedar JSON entities. What no loader knows is not among them; the engine
            denies if it matters.

        Raises:
            Refusal: MISSING_ENTITY, if a loader fails, hangs, returns nothing or
                something that is not an entity, or if there is no end to them.
        """
        loaded: dict[EntityUid, dict[str, object]] = {}
        pending = list(wanted)
        resource = pending[0] if tool is not None else None
        while pending:
            uid = pending.pop()
            if uid in loaded or uid in known:
                continue
            entity = await self._one(uid, tool if uid == resource else None)
            if entity is None:
                continue
            if len(loaded) >= self._limits.entities_per_request:
                raise Refusal(Reason.MISSING_ENTITY, "one call reaches more entities than the limit")
            loaded[uid] = entity
            pending.extend(references(entity["attrs"]))
            pending.extend(EntityUid(p["type"], p["id"]) for p in entity["parents"])  # type: ignore[attr-defined]
        return tuple(loaded.values())

    async def _one(self, uid: EntityUid, tool: EntityUid | None) -> dict[str, object] | None:
        loader = self._loaders.get(uid.type)
        if loader is None:
            if tool is None:
                return None
            return {"uid": uid.as_json(), "attrs": {}, "parents": [tool.as_json()]}
        entity = await self._ask(loader, uid)
        parents = [parent.as_json() for parent in entity.parents]
        if tool is not None:
            parents.append(tool.as_json())
        return {
            "uid": uid.as_json(),
            "attrs": _record(entity.attributes, self._limits, self._limits.argument_nesting),
            "parents": parents,
        }

    async def _ask(self, loader: Callable[[str], object], uid: EntityUid) -> Entity:
        try:
            with anyio.fail_after(self._limits.loader_seconds):
                if inspect.iscoroutinefunction(loader):
                    answer = await loader(uid.id)
                else:
                    answer = await self._in_thread(loader, uid.id)
        except Refusal:
            raise
        except TimeoutError:
            raise Refusal(Reason.MISSING_ENTITY, f"the loader of `{uid.type}` did not answer in time") from None
        except BaseException as error:
            # A loader is foreign code; whatever it raises denies, unless it is the call that was cancelled.
            if not isinstance(error, Exception) and not is_stray(error):
                raise
            detail = f"the loader of `{uid.type}` raised {type(error).__qualname__}"
            raise Refusal(Reason.MISSING_ENTITY, detail) from None
        # Exact types: an iterator would be empty by the time that it counts.
        if (
            isinstance(answer, Entity)
            and type(answer.parents) in {list, tuple}
            and all(isinstance(parent, EntityUid) for parent in answer.parents)
        ):
            return answer
        if answer is None:
            raise Refusal(Reason.MISSING_ENTITY, f"the loader of `{uid.type}` knows no such entity")
        raise Refusal(Reason.MISSING_ENTITY, f"the loader of `{uid.type}` did not return an Entity")

    async def _in_thread(self, loader: Callable[[str], object], entity_id: str) -> object:
        """Ask a plain function, which may block, in a thread that can be given up on."""
        state = "waiting"

        def ask() -> object:
            nonlocal state
            with self._lock:
                if state == "given up":
                    return None
                state = "running"
            try:
                return loader(entity_id)
            finally:
                with self._lock:
                    self._running -= 1

        with self._lock:
            if self._running >= _HANGING:
                raise Refusal(Reason.MISSING_ENTITY, "too many loaders hang")
            self._running += 1
        try:
            return await anyio.to_thread.run_sync(ask, abandon_on_cancel=True)
        finally:
            with self._lock:
                # One that never began gives its place back here, any other one when it ends.
                if state == "waiting":
                    state = "given up"
                    self._running -= 1
