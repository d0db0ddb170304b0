"""A mapping whose keys are known: each value is what it should be, or refused where it stands."""

from __future__ import annotations

import math
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from agentguard.analysis.scenarios.yamltext import Listed, Record, Text, mistake, plain, shown
from agentguard.errors import ConfigurationError
from agentguard.identity.form import ID_CHARACTERS
from agentguard.policy.conversion.values import datetime_json
from agentguard.policy.problem import did_you_mean
from agentguard.policy.schemas.types import CedarType, value_of

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from agentguard.analysis.scenarios.yamltext import Node, Place
    from agentguard.policy.conversion.scalars import CedarJson
    from agentguard.policy.schemas.types import Member

_DURATION: Final = CedarType(name="duration")
_MOMENT: Final = CedarType(name="datetime")
_MILLISECONDS: Final = 1000

Choice = TypeVar("Choice", bound=StrEnum)


class Fields:
    """A mapping that may have some keys and no others."""

    def __init__(self, node: Node, known: Collection[str], where: str) -> None:
        record = record_of(node, where)
        for name in record.members:
            if name not in known:
                mistake(f"{where} has no key {shown(name)}: {did_you_mean(name, known)}", record.keys[name])
        self.place: Place = record.place
        self.members: Mapping[str, Node] = record.members

    def needed(self, name: str, example: str) -> Node:
        """Return what has to be there.

        Raises:
            MistakeError: It is not.
        """
        if name not in self.members:
            mistake(f"`{name}` is missing: write `{name}: {example}`", self.place)
        return self.members[name]

    def record(self, name: str) -> Record:
        """Return a mapping; one with nothing in it if it is not there."""
        return record_of(self.members[name], f"`{name}`") if name in self.members else Record({}, {}, self.place)

    def text(self, name: str) -> str | None:
        """Return a text."""
        return text_of(self.members[name], f"`{name}`") if name in self.members else None

    def id(self, name: str) -> str | None:
        """Return a text that can name something."""
        return id_of(self.members[name], f"`{name}`") if name in self.members else None

    def choice(self, name: str, choices: type[Choice]) -> Choice | None:
        """Return one of a few words."""
        word = self.text(name)
        if word is None:
            return None
        if word not in [choice.value for choice in choices]:
            fix = did_you_mean(word, [choice.value for choice in choices])
            mistake(f"`{name}` has no value {shown(word)}: {fix}", self.members[name].place)
        return choices(word)

    def texts(self, name: str) -> list[Text] | None:
        """Return a list of texts; one alone needs no brackets."""
        if name not in self.members:
            return None
        node = self.members[name]
        if isinstance(node, Text):
            return [node]
        items = list_of(node, f"`{name}`").items
        for item in items:
            text_of(item, f"`{name}`")
        return cast("list[Text]", list(items))

    def seconds(self, name: str) -> int | None:
        """Return a duration, in whole seconds."""
        if name not in self.members:
            return None
        node = self.members[name]
        seconds, rest = divmod(int(_argument(typed(node, _DURATION, name)).removesuffix("ms")), _MILLISECONDS)
        if rest or seconds < 0:
            mistake(f"`{name}` wants whole seconds, none of them negative: write `15m`", node.place)
        return seconds

    def moment(self, name: str) -> float | None:
        """Return a moment, in unix seconds."""
        if name not in self.members:
            return None
        moment = datetime.fromisoformat(_argument(typed(self.members[name], _MOMENT, name))).timestamp()
        # A clock's reading is cut to the millisecond below, which is one too early where no float is exact.
        after = math.nextafter(moment, math.inf)
        return moment if datetime_json(moment) == datetime_json(after) else after


def typed(node: Node, type_: CedarType, where: str) -> CedarJson:
    """Return a node as Cedar JSON of a type.

    Raises:
        MistakeError: It is none.
    """
    try:
        return value_of(cast("Any", plain(node)), type_, where)
    except ConfigurationError as error:
        mistake(str(error), node.place)


def typed_members(
    given: Record, members: Mapping[str, Member], *, whose: str, what: str, key: str, place: Place
) -> dict[str, CedarJson]:
    """Return the members of a Cedar record, wherever they were gathered.

    Args:
        given: What was given.
        members: What there is.
        whose: What has such members, for messages.
        what: What one of them is called.
        key: The key of the file that they are given in.
        place: Where to point if one is missing.

    Raises:
        MistakeError: One is unknown, missing, or of another type.
    """
    for name in given.members:
        if name not in members:
            mistake(f"{whose} has no {what} {shown(name)}: {did_you_mean(name, members)}", given.keys[name])
    for name, member in members.items():
        if member.required and name not in given.members:
            mistake(f"{whose} always has {what} {shown(name)}, of type {member.type}: add it to `{key}`", place)
    return {name: typed(node, members[name].type, name) for name, node in given.members.items()}


def text_of(node: Node, where: str) -> str:
    """Return the text of a node that has to be one."""
    if not isinstance(node, Text):
        mistake(f"{where} wants a text, got {_kind(node)}: put it into quotes", node.place)
    return node.text


def id_of(node: Node, where: str) -> str:
    """Return the text of a node that has to be a name."""
    text = text_of(node, where)
    if not 0 < len(text) <= ID_CHARACTERS:
        mistake(f"{where} wants 1 to {ID_CHARACTERS} characters, got {len(text)}: shorten it", node.place)
    return text


def record_of(node: Node, where: str) -> Record:
    """Return a node that has to be a mapping."""
    if not isinstance(node, Record):
        mistake(f"{where} wants a mapping, got {_kind(node)}: write `key: value`", node.place)
    return node


def list_of(node: Node, where: str) -> Listed:
    """Return a node that has to be a list."""
    if not isinstance(node, Listed):
        mistake(
            f"{where} wants a list, got {_kind(node)}: write `[one, two]`, or each on a line after `- `", node.place
        )
    return node


def _kind(node: Node) -> str:
    if isinstance(node, Text):
        return shown(node.text)
    return "a list" if isinstance(node, Listed) else "a mapping"


def _argument(value: CedarJson) -> str:
    """Return the argument of a call, as datetimes and durations are written."""
    return cast("dict[str, dict[str, str]]", value)["__extn"]["arg"]
