"""Values that a type allows, for a file of scenarios that somebody is to go on with."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

from agentguard.policy.conversion.values import quoted
from agentguard.policy.schemas.schema import CREDENTIALS, OwnType

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.schemas.offered import Offered
    from agentguard.policy.schemas.types import CedarType

Sample: TypeAlias = "str | list[Sample] | dict[str, Sample]"
"""A value as such a file has it: its scalars are all text."""

ID: Final = "example"
"""The id of every entity, and every text that may be anything."""

_PLAIN: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*|-?[0-9]+(?:\.[0-9]+)?|(?:[A-Za-z_]\w*::)+[A-Za-z_]\w*", re.ASCII)
_SCALARS: Final[Mapping[str, str]] = {
    "String": ID,
    "Long": "1",
    "Bool": "false",
    "decimal": "1.00",
    "datetime": "2026-01-05T09:00:00Z",
    "duration": "1h",
    "ipaddr": "192.0.2.1",
}


@dataclass(frozen=True, slots=True)
class SampleCall:
    """What a call of a tool could look like.

    Attributes:
        action: The tool, or what else is called.
        input: Its arguments, those that have to be there.
        facts: What its declared function could add; None without one.
        entities: What loaders would bring, by name.
    """

    action: str
    input: Mapping[str, Sample]
    facts: Mapping[str, Sample] | None = None
    entities: Mapping[str, Sample] = field(default_factory=dict)


def sample_call(offered: Offered, workspace: Workspace) -> SampleCall:
    """Return a call of something that a server offers. No policy has been asked about it."""
    tool = offered.tool
    declared = workspace.types.actions[tool.name].context
    context = {} if declared is None else declared.members
    arguments = _record(context["input"].type)
    entities: dict[str, Sample] = {}
    if offered.tool.name == CREDENTIALS:
        # Whoever wants one is among what the server offers.
        offers = (one.tool.name for one in workspace.written.offers if one.tool.kind is not OwnType.SERVER)
        arguments["tool"] = next(offers, ID)
    if offered.resource is not None:
        named = arguments.setdefault(offered.resource.argument, [ID] if offered.resource.each else ID)
        id_ = named[0] if isinstance(named, list) else named
        _load(offered.resource.type, str(id_), workspace, entities)
    facts = _record(context["facts"].type) if "facts" in context else None
    return SampleCall(tool.name, arguments, facts, entities)


def sample_entities(names: Iterable[tuple[str, str]], workspace: Workspace) -> dict[str, Sample]:
    """Return what loaders would bring of these, each a type and an id, by name; nothing of a type that has none."""
    entities: dict[str, Sample] = {}
    for type_, id_ in names:
        _load(type_, id_, workspace, entities)
    return entities


def _load(type_: str, id_: str, workspace: Workspace, entities: dict[str, Sample]) -> None:
    """Add an entity that a loader would bring, and all that it refers to."""
    name = f"{type_}::{id_}" if _PLAIN.fullmatch(id_) else f"{type_}::{quoted(id_)}"
    if type_ not in workspace.written.loaders or name in entities:
        return
    attributes = workspace.types.entities[type_].attributes
    entities[name] = _record(attributes)
    for referred in _entities_in(attributes):
        _load(referred, ID, workspace, entities)


def _entities_in(type_: CedarType) -> Collection[str]:
    """Return the entity types of which a sample of a type names one."""
    if type_.is_entity:
        return {type_.name}
    inner = [member.type for member in type_.members.values() if member.required]
    if type_.element is not None:
        inner.append(type_.element)
    return {name for one in inner for name in _entities_in(one)}


def _record(type_: CedarType) -> dict[str, Sample]:
    return {name: _sample(member.type) for name, member in type_.members.items() if member.required}


def _sample(type_: CedarType) -> Sample:
    if type_.is_entity:
        return f"{type_.name}::{ID}"
    if type_.name == "Set" and type_.element is not None:
        return [_sample(type_.element)]
    if type_.name == "Record":
        return _record(type_)
    return type_.one_of[0] if type_.one_of else _SCALARS[type_.name]


def flow(value: Sample) -> str:
    """Return a value as YAML on one line."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(map(flow, value))}]"
    return f"{{ {', '.join(f'{flow(name)}: {flow(inner)}' for name, inner in value.items())} }}" if value else "{}"


def _quoted(text: str) -> str:
    """Return a text in quotes, with what YAML does not take as it is written as a number."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    signs = (sign if sign.isprintable() else f"\\U{ord(sign):08X}" for sign in escaped)
    return f'"{"".join(signs)}"'
