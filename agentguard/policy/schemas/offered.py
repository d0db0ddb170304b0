"""What a server offers, with all that policies are compiled with beside their folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.policy.schemas.schema import GuardedTool
    from agentguard.request import ResourceTemplate


@dataclass(frozen=True, slots=True, kw_only=True)
class Offered:
    """What a server offers, and what Cedar's types cannot say of it.

    Attributes:
        tool: The tool, resource, prompt or method.
        resource: The template of what it acts on, if it has one.
        annotated: Whether the server says what it does: else it counts as destructive and open-world.
    """

    tool: GuardedTool
    resource: ResourceTemplate | None = None
    annotated: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenSchema:
    """All that policies are compiled with, beside their folder.

    Attributes:
        server: The server's name.
        offers: All that the guard judges there, in its order.
        loaders: The entity types that have a loader.
        claims: The claims that become attributes of an invocation, with their types.
    """

    server: str
    offers: tuple[Offered, ...]
    loaders: frozenset[str] = frozenset()
    claims: Mapping[str, type] = field(default_factory=dict)

    @property
    def tools(self) -> list[GuardedTool]:
        """What is offered, as `compile_policies` takes it."""
        return [offered.tool for offered in self.offers]
