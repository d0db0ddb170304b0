"""What a case says of its call: where and when it happens, with which arguments, and who approves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, cast
from zoneinfo import ZoneInfo

from agentguard.analysis.scenarios.fields import Fields, text_of, typed_members
from agentguard.analysis.scenarios.yamltext import Listed, Record, Text, mistake, plain, shown
from agentguard.approval import CHANNEL, CLIENT
from agentguard.model import EntityUid, printable
from agentguard.policy.conversion.values import datetime_json
from agentguard.policy.problem import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.analysis.scenarios.yamltext import Node
    from agentguard.limits import Limits
    from agentguard.policy.conversion.scalars import CedarJson
    from agentguard.policy.files.written import Offered
    from agentguard.policy.schemas.types import Member

NOW: Final = 1_767_614_400.0
"""The time of a call where none is said: Monday, 2026-01-05 12:00 UTC."""

APPROVED: Final = ("channel", "approver", "at")
TRANSPORTS: Final = ("http", "stdio")

_UTC: Final = ZoneInfo("UTC")
_SHOWN: Final = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """Where and when a call happens."""

    now: float = NOW
    environment: str = "production"
    transport: str = "http"
    time_zone: ZoneInfo = _UTC

    def over(self, fields: Fields) -> Setting:
        """Return it with what *fields* say otherwise."""
        now, transport = fields.moment("now"), fields.text("transport")
        if now is not None and now < 0:
            mistake("`now` is before 1970, when no token was issued: write a later moment", fields.members["now"].place)
        if transport is not None and transport not in TRANSPORTS:
            what = f"`transport` has no value {shown(transport)}: {did_you_mean(transport, TRANSPORTS)}"
            mistake(what, fields.members["transport"].place)
        return Setting(
            now=self.now if now is None else now,
            environment=fields.id("environment") or self.environment,
            transport=transport or self.transport,
            time_zone=self._zone(fields),
        )

    def _zone(self, fields: Fields) -> ZoneInfo:
        name = fields.text("time_zone")
        if name is None:
            return self.time_zone
        try:
            return ZoneInfo(name)
        except (ValueError, LookupError, OSError):
            what = f"time zone {shown(name)} is not known: use an IANA name such as `Europe/Zurich`"
            mistake(what, fields.members["time_zone"].place)


def input_of(fields: Fields, offered: Offered, context: Mapping[str, Member]) -> dict[str, CedarJson]:
    """Return the arguments, each by its type; those that no policy sees too, where they name the resource."""
    given, tool = fields.record("with"), offered.tool
    nodes = dict(given.members)
    whose = f"`{tool.name}`"
    unseen: dict[str, CedarJson] = {}
    for name in tool.unseen:
        node = nodes.pop(name, None)
        if offered.resource is not None and name == offered.resource.argument:
            if node is None:
                mistake(f"{whose} acts on what `{name}` names: add it to `with`", fields.place)
            # No policy sees it, so that the schema has no type for it; ids are text.
            unseen[name] = cast("CedarJson", plain(node))
        elif node is not None:
            mistake(f"no policy sees the argument `{name}` of {whose}: leave it out", given.keys[name])
    members = context["input"].type.members
    seen = replace(given, members=nodes)
    return unseen | typed_members(seen, members, whose=whose, what="argument", key="with", place=fields.place)


def facts_of(fields: Fields, offered: Offered, context: Mapping[str, Member]) -> dict[str, CedarJson] | None:
    """Return what the tool's declared function would add, if it has one."""
    whose = f"`{offered.tool.name}`"
    if "facts" not in context:
        if "facts" in fields.members:
            mistake(f"{whose} has no facts: remove `facts`", fields.members["facts"].place)
        return None
    members = context["facts"].type.members
    return typed_members(fields.record("facts"), members, whose=whose, what="fact", key="facts", place=fields.place)


def approval_of(fields: Fields, setting: Setting, limits: Limits) -> dict[str, CedarJson] | None:
    """Return ``context.approval``, as an answer of a person makes it."""
    if "approved" not in fields.members:
        return None
    given = Fields(fields.members["approved"], APPROVED, "an approval")
    node, at, approver = given.needed("channel", CLIENT), given.moment("at"), given.id("approver")
    channel = text_of(node, "`channel`")
    if CHANNEL.fullmatch(channel) is None:
        mistake(f"`channel` wants 1 to 32 of `a-z0-9_-`, got {shown(channel)}: write `{CLIENT}`", node.place)
    if approver is not None and channel == CLIENT:
        what = f"who says yes at `channel: {CLIENT}` is never known: remove `approver`, or name the guard's own channel"
        mistake(what, given.members["approver"].place)
    at = setting.now if at is None else at
    if not 0 <= setting.now - at < limits.approval_seconds:
        what = f"a yes holds for {limits.approval_seconds} s: write an `at` so shortly before the call"
        mistake(what, given.members["at"].place)
    approval: dict[str, CedarJson] = {"channel": channel, "at": datetime_json(at)}
    if approver is not None:
        approval["approver"] = {"__entity": cast("CedarJson", EntityUid("User", approver).as_json())}
    return approval


def label_of(row: Fields, called: str) -> str:
    """Return what tells a row from the others: its name, or who calls and what the row itself says."""
    if (name := row.text("name")) is not None:
        return printable(name)
    said = [called]
    for key, node in row.members.items():
        if key in {"with", "facts", "run"}:
            members = row.record(key).members
            if key == "run" and isinstance(spent := members.get("spent"), Record):
                members = {**{name: node for name, node in members.items() if node is not spent}, **spent.members}
            said += (f"{name}={_shown(value)}" for name, value in members.items())
        elif key == "approved":
            said.append("approved")
        elif key in {"call", "now", "environment", "transport"}:
            said.append(f"{key}={_shown(node)}")
    return printable(", ".join(said))


def _shown(node: Node) -> str:
    if isinstance(node, Text):
        return f"{node.text[:_SHOWN]}…" if len(node.text) > _SHOWN else node.text
    return f"[{', '.join(_shown(item) for item in node.items)}]" if isinstance(node, Listed) else "{…}"
