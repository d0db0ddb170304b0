"""Something in every place of a recorded request that is not on record, so that Cedar takes it.

What is put in has the right type and means nothing. It serves to look for changes; whether one
helps is never told from it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, cast

from agentguard.policy.deciding.entities import references
from agentguard.request import agent_uid, task_uid, user_uid

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.workspace import Workspace
    from agentguard.model import AccessRequest, EntityUid
    from agentguard.policy.schemas.types import CedarType

_ANY: Final = "?"
_CALLS: Final = {
    "decimal": ("decimal", "0.0"),
    "datetime": ("datetime", "2000-01-01"),
    "duration": ("duration", "0ms"),
    "ipaddr": ("ip", "127.0.0.1"),
}
_PLAIN: Final[Mapping[str, object]] = {"String": "", "Long": 0, "Bool": False}


def filled(request: AccessRequest, workspace: Workspace) -> AccessRequest:
    """Return a request with something in every place that must not be empty.

    Args:
        request: What is known of it; its action is one of the workspace's.
        workspace: Whose types hold.
    """
    type_ = workspace.types.actions[request.action].context
    context = request.context if type_ is None else cast("Mapping[str, object]", _some(type_, request.context))
    entities: dict[EntityUid, Mapping[str, object]] = {}
    pending = [request.resource, *references(dict(context))]
    for invocation in request.invocation.chain:
        pending += [
            uid for uid in (agent_uid(invocation), user_uid(invocation), task_uid(invocation)) if uid is not None
        ]
    while pending:
        uid = pending.pop()
        if uid in entities or uid in workspace.policies.static_uids or uid.type not in workspace.written.loaders:
            continue
        attributes = cast("Mapping[str, object]", _some(workspace.types.entities[uid.type].attributes))
        within = [workspace.policies.action(request.action).tool.itself.as_json()] if uid == request.resource else []
        entities[uid] = {"uid": uid.as_json(), "attrs": attributes, "parents": within}
        pending += references(attributes)
    return replace(request, context=context, entities=tuple(entities.values()))


def _some(type_: CedarType, value: object = None) -> object:
    """Return a value of a type: what is there, and in its gaps something that means nothing."""
    if type_.name == "Record" and (value is None or isinstance(value, dict)):
        known: Mapping[str, object] = value or {}
        wanted = {name: member.type for name, member in type_.members.items() if member.required or name in known}
        return {name: _some(inner, known.get(name)) for name, inner in wanted.items()}
    if value is not None:
        return value
    if type_.is_entity:
        return {"__entity": {"type": type_.name, "id": _ANY}}
    if type_.name in _CALLS:
        function, argument = _CALLS[type_.name]
        return {"__extn": {"fn": function, "arg": argument}}
    return _PLAIN.get(type_.name, [])
