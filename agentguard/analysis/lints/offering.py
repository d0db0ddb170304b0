"""What is to be said of the server itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from agentguard.analysis.lints.lint import Spot, listed
from agentguard.policy.schema import OwnType
from agentguard.policy.written import named_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.analysis.lints.lint import Read

# The groups that a tool is in for what its annotations say.
_SAID: Final = frozenset(("read-only", "destructive", "open-world", "idempotent"))


def stale_schemas(read: Read) -> Iterator[Spot]:
    """Find that the written schema is not what would be written now."""
    for difference in read.workspace.stale:
        yield Spot(f"{difference}: run `agentguard schema {named_server(read.workspace.text)} --write FOLDER`")


def unannotated_tools(read: Read) -> Iterator[Spot]:
    """Find tools of which the server does not say what they do, where a policy asks for that."""
    asking = [
        reading.policy.id
        for reading in read.readings
        if any(literal.uid.type == "Action" and literal.uid.id in _SAID for literal in reading.policy.literals)
    ]
    for offered in read.workspace.written.offers if asking else ():
        if not offered.annotated:
            name = offered.tool.name
            what = (
                f"`{name}` has no annotations, so {listed(asking, most=1)} takes it for destructive and open-world, "
                "as MCP says: annotate it in the server"
            )
            yield Spot(what, tool=name)


def unreachable_tools(read: Read) -> Iterator[Spot]:
    """Find what no permit reaches and no forbid names, so that it may be forgotten; all of it at once."""
    thought_of = frozenset[str]().union(
        *(permit.names for permit in read.permits),
        *(forbid.policy.scope.actions or () for forbid in read.forbids),
    )
    tools = [offered.tool for offered in read.workspace.written.offers if offered.tool.kind is not OwnType.SERVER]
    if left := [tool.name for tool in tools if tool.name not in thought_of]:
        yield Spot(f"no permit reaches {listed(left, most=5)}: permit what somebody should use, or forbid it by name")
