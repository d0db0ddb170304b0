"""What a server offers, for a command that asks and serves nothing.

A guard that is made and attached while `COLLECTING` is set judges nothing and keeps
nothing: it leaves what it would have judged by here. So the schema of a server can be
written even where its policies do not fit it, or are not there yet.
"""

from __future__ import annotations

import os
import time
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.policy.files.folder import ENTITIES, SCHEMA_SUFFIX
from agentguard.policy.files.source import PolicySource, survey_folder
from agentguard.policy.problem import refused
from agentguard.state import State

if TYPE_CHECKING:
    from pathlib import Path

    from agentguard.guarding.rulebook import Rulebook
    from agentguard.limits import Limits


@dataclass(frozen=True, slots=True)
class Collected:
    """What guards left.

    Attributes:
        guarded: Each server that a guard was attached to, how it would be judged, and the policy folder.
        folders: The policy folders of all guards, attached or not.
    """

    guarded: list[tuple[object, Rulebook, Path]] = field(default_factory=list)
    folders: list[Path] = field(default_factory=list)

    def source(self, folder: Path, limits: Limits) -> PolicySource:
        """Return what a guard's folder says of types.

        Raises:
            PolicyError: If that cannot be read.
        """
        self.folders.append(folder)
        return read_vocabulary(folder, limits)

    def state(self) -> State:
        """Return a state for a guard that keeps nothing."""
        return State(store=MemoryStore(clock=time.time), ledger=MemoryLedger(), key=os.urandom(32))


COLLECTING: Final[ContextVar[Collected | None]] = ContextVar("agentguard_collecting", default=None)
"""Set by `agentguard schema` alone, around what loads a server."""


def read_vocabulary(folder: Path, limits: Limits) -> PolicySource:
    """Return what a folder says of types and entities, whatever its policies are; nothing if it is not there yet.

    Raises:
        PolicyError: If its types or entities cannot be read.
    """
    if not folder.exists():
        return PolicySource(folder=str(folder), files=(), policies=(), fragments=(), entities=())
    source, problems = survey_folder(folder, limits)
    if problems := [problem for problem in problems if _is_vocabulary(problem.file)]:
        raise refused(problems)
    return replace(source, policies=())


def _is_vocabulary(name: str) -> bool:
    return name.rpartition("/")[2] == ENTITIES or name.lower().endswith(SCHEMA_SUFFIX)
