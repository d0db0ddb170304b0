"""What loaders are supposed to answer, and what then comes with a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from agentguard.errors import ConfigurationError, Refusal
from agentguard.model import EntityUid, Reason
from agentguard.policy.deciding.entities import references
from agentguard.policy.deciding.reach import uid_of
from agentguard.policy.schemas.schema import OwnType

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.analysis.workspace import Workspace

_ACTS: Final = frozenset(kind.value for kind in OwnType)


def check_loadable(workspace: Workspace, entities: Iterable[Mapping[str, object]]) -> None:
    """Pass entities that can come with a call.

    Raises:
        ConfigurationError: One is known without it.
    """
    for entity in entities:
        uid = EntityUid(*uid_of(entity["uid"]))
        if uid in workspace.policies.static_uids:
            message = f"`{uid}` is in `cedarentities.json`, and stays as it is there: suppose another one"
            raise ConfigurationError(message)


def reached(entity: Mapping[str, object]) -> list[EntityUid]:
    """Return what an entity refers to, and what it is in."""
    parents = cast("list[object]", entity["parents"])
    return [*references(entity["attrs"]), *(EntityUid(*uid_of(parent)) for parent in parents)]


class Loaded:
    """What loaders are supposed to answer."""

    def __init__(self, workspace: Workspace, entities: Iterable[Mapping[str, object]]) -> None:
        self._workspace = workspace
        self._given = {EntityUid(*uid_of(entity["uid"])): entity for entity in entities}

    def of(self, wanted: Iterable[EntityUid], *, tool: EntityUid | None = None) -> tuple[Mapping[str, object], ...]:
        """Return *wanted* and all that they refer to, as far as loaders know them.

        Args:
            wanted: Where to begin.
            tool: What the first of *wanted* is the resource of, its parent.

        Raises:
            Refusal: MISSING_ENTITY, if a loader would have to know more than is said.
        """
        loaded: dict[EntityUid, Mapping[str, object]] = {}
        pending = list(wanted)
        resource = pending[0] if tool is not None else None
        while pending:
            uid = pending.pop()
            if uid in loaded or uid in self._workspace.policies.static_uids:
                continue
            if uid not in self._given and uid.type not in self._workspace.written.loaders and uid != resource:
                continue
            if len(loaded) >= self._workspace.limits.entities_per_request:
                raise Refusal(Reason.MISSING_ENTITY, "one call reaches more entities than the limit")
            loaded[uid] = entity = self._one(uid, tool if uid == resource else None)
            pending += reached(entity)
        return tuple(loaded.values())

    def _one(self, uid: EntityUid, tool: EntityUid | None) -> dict[str, object]:
        given = self._given.get(uid)
        if given is None:
            if uid.type in self._workspace.written.loaders and self._says_something(uid.type):
                raise Refusal(Reason.MISSING_ENTITY, f"no entity `{uid}` is given, which a loader would have to know")
            given = {"attrs": {}, "parents": []}
        parents = list(cast("list[object]", given["parents"]))
        if tool is not None and tool.as_json() not in parents:
            parents.append(tool.as_json())
        return {"uid": uid.as_json(), "attrs": given["attrs"], "parents": parents}

    def _says_something(self, type_: str) -> bool:
        """Whether there is more to know of an entity than that it is there, and what acts on it."""
        declared = self._workspace.types.entities[type_]
        return bool(declared.attributes.members) or not _ACTS.issuperset(declared.parents)
