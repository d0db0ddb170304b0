"""Where in its file a part of a policy stands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agentguard.policy.problem import Problem
from agentguard.policy.text.lexer import Kind, position, tokens

if TYPE_CHECKING:
    from agentguard.policy.deciding.compiled import Policy


def line_of(policy: Policy, offset: int) -> int:
    """Return the line, in its file, of an offset into a policy's text."""
    return policy.line + position(policy.text, offset)[0] - 1


def problem_at(policy: Policy, offset: int, length: int, what: str, name: str) -> Problem:
    """Return a problem of a policy that stands at an offset into its text."""
    line, column = position(policy.text, offset)
    if line == 1:
        column += policy.column - 1
    return Problem(policy.file, policy.line + line - 1, what, column=column, length=length, name=name)


def entity_at(policy: Policy, offset: int, what: str, name: str) -> Problem:
    """Return a problem of a policy with the entity that begins at an offset."""
    id_ = next(token for token in tokens(policy.text) if token.offset > offset and token.kind is Kind.STRING)
    return problem_at(policy, offset, id_.offset + len(id_.text) - offset, what, name)
