"""What a lint is, and what it looks at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from agentguard.analysis.proofs.environments import Environment
from agentguard.analysis.proofs.reasoning import Reasoning, Terms, alternatives
from agentguard.policy.deciding.sketch import keys_of
from agentguard.policy.files.several import COMMON
from agentguard.policy.text.syntax import syntax_of
from agentguard.policy.text.tree import Op, terms

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable

    from agentguard.analysis.finding import Severity
    from agentguard.analysis.proofs.reasoning import Alternatives, Demand
    from agentguard.analysis.workspace import Workspace
    from agentguard.policy.deciding.compiled import Policy
    from agentguard.policy.problem import Problem
    from agentguard.policy.text.tree import Node, Syntax


class Spot(NamedTuple):
    """What a lint found, and where.

    Attributes:
        what: What is wrong and, after a colon, the fix.
        reading: The policy that it is about; None if it is about the server.
        start: Where in the policy's text.
        end: Where that ends.
        fatal: Whether it is an error here, whatever it is elsewhere.
        place: Where it is, if that is neither in a policy nor in the written schema.
    """

    what: str
    reading: Reading | None = None
    start: int = 0
    end: int = 0
    fatal: bool = False
    place: Problem | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Lint:
    """One thing that `agentguard check` looks for.

    Attributes:
        name: In kebab-case.
        severity: How much a finding of it weighs.
        why: Why it matters, one sentence.
        fix: What to do about it, one sentence.
        find: Looks for it; None for what is looked for among the silences.
        silenceable: Whether an annotation may silence it.
        of_all: Whether it says something only where no policy of the folder is left out.
    """

    name: str
    severity: Severity
    why: str
    fix: str
    find: Callable[[Read], Iterable[Spot]] | None = None
    silenceable: bool = True
    of_all: bool = False

    @property
    def annotation(self) -> str:
        """The name of the annotation that silences it."""
        return f"silence_{self.name.replace('-', '_')}"


@dataclass(eq=False)
class Reading:
    """One policy, with all that was read of it.

    Attributes:
        policy: The policy.
        syntax: Its tree.
        place: Its place among the others.
        key: Equal for policies that differ in their annotations alone.
        covered: The tools whose action its head covers.
    """

    policy: Policy
    syntax: Syntax
    place: int
    key: Hashable
    covered: tuple[Reasoning, ...]

    @property
    def where(self) -> str:
        """The file and the line that it stands in."""
        return f"{self.policy.file}:{self.policy.line}"

    @property
    def permits(self) -> bool:
        """Whether it is a permit."""
        return self.syntax.effect == "permit"

    @property
    def shared(self) -> bool:
        """Whether other servers have it too: then it may be about tools that this one does not have."""
        return self.policy.file.startswith(f"{COMMON}/")

    @cached_property
    def head(self) -> tuple[Demand, ...]:
        """What its head demands."""
        parts = (self.syntax.principal, self.syntax.action, self.syntax.resource)
        return tuple((part, True) for part in parts if part.op is not Op.VARIABLE)

    @cached_property
    def conditions(self) -> tuple[Demand, ...]:
        """What its clauses demand, each term by itself, in the order in which Cedar comes to them."""
        return tuple(
            (term, clause.holds)
            for clause in self.syntax.clauses
            for term in terms(clause.body, Op.AND if clause.holds else Op.OR)
        )

    @cached_property
    def covers(self) -> frozenset[str]:
        """The names of the tools whose action its head covers."""
        return frozenset(tool.environment.tool.name for tool in self.covered)

    @cached_property
    def live(self) -> tuple[Reasoning, ...]:
        """The tools that its head lets pass."""
        return tuple(tool for tool in self.covered if not tool.never(self.head))

    @cached_property
    def ways(self) -> tuple[tuple[Reasoning, Alternatives], ...]:
        """The tools that it may match a call of, and in which ways."""
        demands = (*self.head, *self.conditions)
        found = ((tool, tool.open(demands)) for tool in self.live)
        return tuple((tool, ways) for tool, ways in found if ways)

    @property
    def is_mute(self) -> bool:
        """Whether it is a forbid that matches no call, for certain."""
        return not (self.permits or self.shared or self.ways)

    @cached_property
    def refusals(self) -> tuple[Alternatives, ...]:
        """For each demand, the ways in which it is not met."""
        return tuple(alternatives((node, not wanted)) for node, wanted in (*self.head, *self.conditions))

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the tools that it may match a call of."""
        return frozenset(tool.environment.tool.name for tool, _ in self.ways)

    def spot(self, node: Node, what: str) -> Spot:
        """Return what is to be said of an expression of it."""
        return Spot(what, self, node.start, node.end)

    def whole(self, what: str) -> Spot:
        """Return what is to be said of all of it, at its effect."""
        return Spot(what, self, self.syntax.start, self.syntax.start + len(self.syntax.effect))


@dataclass(frozen=True, slots=True)
class Read:
    """A workspace, read for the lints.

    Attributes:
        workspace: The workspace.
        readings: Its policies, in order.
    """

    workspace: Workspace
    readings: tuple[Reading, ...]

    @classmethod
    def of(cls, workspace: Workspace) -> Read:
        """Read a workspace."""
        known = Terms()
        reasonings = [
            (frozenset(keys_of(tool.name, tool.groups)), Reasoning(Environment(tool, workspace.types), known))
            for tool in workspace.written.tools
        ]
        readings = []
        for place, policy in enumerate(workspace.source.policies):
            syntax = syntax_of(policy)
            covered = tuple(tool for keys, tool in reasonings if not keys.isdisjoint(policy.part.keys))
            readings.append(Reading(policy, syntax, place, _key(syntax, known), covered))
        return cls(workspace, tuple(readings))

    @property
    def permits(self) -> tuple[Reading, ...]:
        """The permits."""
        return tuple(reading for reading in self.readings if reading.permits)

    @property
    def forbids(self) -> tuple[Reading, ...]:
        """The forbids."""
        return tuple(reading for reading in self.readings if not reading.permits)


def _key(syntax: Syntax, known: Terms) -> Hashable:
    head = tuple(known(part) for part in (syntax.principal, syntax.action, syntax.resource))
    return syntax.effect, head, tuple((clause.kind, known(clause.body)) for clause in syntax.clauses)


def listed(names: Iterable[str], *, most: int = 3) -> str:
    """Return names for a message: the first few, and how many more."""
    first = sorted(set(names))
    shown = ", ".join(f"`{name}`" for name in first[:most])
    return f"{shown} and {len(first) - most} more" if len(first) > most else shown
