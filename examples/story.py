"""What the examples' demos tell, line by line, and how many of their expectations were not met."""

from textwrap import wrap
from typing import Final

from rich.console import Console
from rich.text import Text

WIDTH: Final = 80
_NOTE: Final = 8


class Story:
    """Prints what happens and counts what should not have.

    Attributes:
        wrong: How many expectations were not met so far.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self.wrong = 0

    def line(self, text: str = "", *, style: str = "") -> None:
        """Print one line."""
        self._console.print(Text(text, style))

    def decided(self, call: str, effect: str, rest: str) -> None:
        """Print what was decided about a call: as a word, between what is wide enough to stand in columns."""
        line = Text(f"    {call}")
        line.append(*(("allow  ", "green") if effect == "allow" else ("DENY   ", "red")))
        self._console.print(line.append(rest))

    def note(self, text: str, *, style: str = "dim") -> None:
        """Print what belongs to the line above, wrapped under it."""
        for place, part in enumerate(wrap(text, WIDTH - _NOTE)):
            self.line(f"{'' if place else '↳ ':>{_NOTE}}{part}", style=style)

    def expect(self, what: str, got: object, wanted: object) -> None:
        """Count and print a mistake unless *got* is *wanted*."""
        if got != wanted:
            self.wrong += 1
            self.note(f"WRONG: {what} is {got!r}, expected {wanted!r}", style="bold red")

    def ends(self, told: str, *, policies: str) -> None:
        """Say whether everything was as expected, of so many calls.

        Args:
            told: How many calls were decided.
            policies: Where the policies are that one may change now.
        """
        if self.wrong:
            self.line(f"\n{told}, {self.wrong} checks failed", style="bold red")
            return
        self.line(f"\n{told}, each as expected", style="bold green")
        self.line(f"Now change a policy in {policies} and run it again.")
