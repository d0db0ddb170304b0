"""Policies that differ from one by a single small change.

Tests of a policy that pass with a mutant of it in its place do not hold what was changed.
A mutant is itself a policy that could stand in the file: it parses, and the reader takes
it. Whether it fits the server's schema is known when it is compiled with the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.analysis.scenarios.edits import Edit, edits_of
from agentguard.policy.files.reader import read_policies
from agentguard.policy.text.lexer import position

if TYPE_CHECKING:
    from agentguard.limits import Limits
    from agentguard.policy.deciding.compiled import Policy

MOST: Final = 200
"""How many mutants of one policy there are at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One policy, changed in one place.

    Attributes:
        original: The policy as it is.
        policy: What stands in its place, under the same id; None where it is gone.
        what: What was changed, in one line; of the mutants of a policy, no two say the same.
        offset: Where, in characters from the policy's first.
        length: How many characters were there.
        text: What is there now.
        line: Where, in the policy's file, from 1.
        column: Where in that line, from 1.
    """

    original: Policy
    policy: Policy | None
    what: str
    offset: int
    length: int
    text: str
    line: int
    column: int


class Mutants(NamedTuple):
    """The mutants of one policy, and how many more there would be."""

    found: tuple[Mutant, ...]
    left_out: int


def mutants_of(policy: Policy, limits: Limits, *, most: int = MOST) -> Mutants:
    """Return the mutants of a policy that `read_policies` gave.

    Args:
        policy: The policy.
        limits: The bounds of policies; a mutant stays under them too.
        most: How many to make at most; of more, some from all over the policy.
    """
    edits = edits_of(policy.text)
    step = -(-len(edits) // max(most - 1, 1)) or 1
    gone = Edit(0, len(policy.text), "", "the policy was dropped")
    found = [_mutant(policy, None, gone)]
    for edit in edits[::step]:
        changed = f"{policy.text[: edit.start]}{edit.text}{policy.text[edit.end :]}"
        read, problems = read_policies(policy.file, changed, limits)
        # The reader refuses, for one, a forbid without the `unless` that an approval would lift it by.
        if not problems:
            found.append(_mutant(policy, replace(read[0], line=policy.line, column=policy.column), edit))
    return Mutants(tuple(found), len(edits) - len(edits[::step]))


def _mutant(original: Policy, policy: Policy | None, edit: Edit) -> Mutant:
    below, across = position(original.text, edit.start)
    return Mutant(
        original=original,
        policy=policy,
        what=edit.what,
        offset=edit.start,
        length=edit.end - edit.start,
        text=edit.text,
        line=original.line + below - 1,
        column=across + (original.column - 1 if below == 1 else 0),
    )
