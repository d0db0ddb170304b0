"""What is to be said of the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.lint import Spot, listed
from agentguard.model import EntityUid
from agentguard.policy.files.written import named_server
from agentguard.policy.schemas.schema import OwnType
from agentguard.policy.text.tree import walk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.analysis.lints.lint import Read
    from agentguard.policy.text.tree import Node

# The groups that a tool is in for what its annotations say.
_SAID: Final = frozenset(("read-only", "destructive", "open-world", "idempotent"))


def stale_schemas(read: Read) -> Iterator[Spot]:
    """Find that the written schema is not what would be written now."""
    for difference in read.workspace.stale:
        yield Spot(f"{difference}: run `agentguard schema {named_server(read.workspace.text)} --write FOLDER`")


def unannotated_tools(read: Read) -> Iterator[Spot]:
    """Find policies that ask what a tool does, where the server does not say it of every tool.

    Each policy that asks is told of, so that one that is fine with it silences nothing of the others.
    """
    unsaid = [offered.tool.name for offered in read.workspace.written.offers if not offered.annotated]
    has, them = ("has", "it") if len(unsaid) == 1 else ("have", "them")
    for reading in read.readings if unsaid else ():
        parts = (reading.syntax.action, *(clause.body for clause in reading.syntax.clauses))
        asked = (node for part in parts for node in walk(part) if _asks_what_is_said(node))
        if (node := next(asked, None)) is not None:
            what = (
                f"{listed(unsaid)} {has} no annotations, so this takes {them} for destructive and open-world, "
                f"as MCP says: annotate {them} in the server"
            )
            yield reading.spot(node, what)


def _asks_what_is_said(node: Node) -> bool:
    return isinstance(node.value, EntityUid) and node.value.type == "Action" and node.value.id in _SAID


def unreachable_tools(read: Read) -> Iterator[Spot]:
    """Find what no permit reaches and no forbid names, so that it may be forgotten; all of it at once."""
    thought_of = frozenset[str]().union(
        *(permit.names for permit in read.permits),
        *(forbid.policy.scope.actions or () for forbid in read.forbids),
    )
    tools = [offered.tool for offered in read.workspace.written.offers if offered.tool.kind is not OwnType.SERVER]
    if left := [tool.name for tool in tools if tool.name not in thought_of]:
        yield Spot(f"no permit reaches {listed(left, most=5)}: permit what somebody should use, or forbid it by name")
