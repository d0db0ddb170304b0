"""What is wrong with a policy folder: where, what, and how it is called."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from agentguard.errors import PolicyError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something to mend before the policies can be used.

    Attributes:
        file: Relative to the folder; empty if it is about the folder, or what is beside it.
        line: From 1; 0 if it concerns the whole file.
        what: What is wrong and, after a colon, the fix.
        column: From 1, in characters; 0 if it concerns the whole line.
        length: How many characters are at fault.
        name: What kind of problem it is, in kebab-case; it stays when the wording changes.
    """

    file: str
    line: int
    what: str
    column: int = field(default=0, kw_only=True)
    length: int = field(default=1, kw_only=True)
    name: str = field(default="invalid", kw_only=True)

    def __str__(self) -> str:
        if not self.file:
            return self.what
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


def refused(problems: Sequence[Problem]) -> PolicyError:
    """Return the error that tells all of *problems*, in their order."""
    return PolicyError([str(problem) for problem in problems], problems)


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the fix for a word that is not known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"there is {', '.join(f'`{name}`' for name in names)}" if names else "there is none"
