"""Which policy a finding is about, by where it stands."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from agentguard.analysis.finding import Finding
    from agentguard.policy.deciding.compiled import Policy


class _Span(NamedTuple):
    """Where a policy begins, and where it is over, each by line and column."""

    start: tuple[int, int]
    end: tuple[int, int]
    policy: Policy


class Whose:
    """Knows where each policy stands.

    Args:
        policies: In the order of their files.
    """

    def __init__(self, policies: Iterable[Policy]) -> None:
        self._files: defaultdict[str, list[_Span]] = defaultdict(list)
        for policy in policies:
            *_, last = lines = policy.text.split("\n")
            column = len(last) + (policy.column if len(lines) == 1 else 1)
            span = _Span((policy.line, policy.column), (policy.line + len(lines) - 1, column), policy)
            self._files[policy.file].append(span)

    def about(self, finding: Finding) -> list[Policy]:
        """Return the policies that a finding is about: all of a file, if it names no line."""
        spans = self._files.get(finding.file, [])
        if not finding.line:
            return [span.policy for span in spans if finding.policy in {"", span.policy.id}]
        # Without a column, all that stands in the line is meant.
        first = (finding.line, finding.column)
        last = first if finding.column else (finding.line + 1, 0)
        found = []
        for span in reversed(spans[: bisect_right(spans, last, key=lambda span: span.start)]):
            if span.end <= first:
                break
            found.append(span.policy)
        return found
