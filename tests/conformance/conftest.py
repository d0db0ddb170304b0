"""The scores, told at the end of the run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from tests.conformance.suite import Score
    from tests.world import Era


_WORDS: Final = {"SUCCESS": "passed", "SKIPPED": "skipped", "WARNING": "warned", "FAILURE": "failed"}


class Scores:
    """What the suite found so far, a line for each server and protocol era.

    Attributes:
        lines: What is told at the end.
        bare: What it found on bare servers, which guarded ones share.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.bare: dict[tuple[object, Era], Score] = {}

    def tell(self, server: str, era: Era, score: Score) -> None:
        """Keep what is told of one server at the end."""
        counts = ", ".join(f"{score.count(status)} {word}" for status, word in _WORDS.items())
        self.lines.append(f"{server:<30} {era}: {len(score.checks)} scenarios, checks: {counts}")


_SCORES: Final = pytest.StashKey[Scores]()


def pytest_configure(config: pytest.Config) -> None:
    """Begin without scores."""
    config.stash[_SCORES] = Scores()


@pytest.fixture(scope="session")
def scores(request: pytest.FixtureRequest) -> Scores:
    """Return where scores are kept."""
    return request.config.stash[_SCORES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Tell the scores."""
    if lines := config.stash[_SCORES].lines:
        terminalreporter.section("conformance")
        for line in lines:
            terminalreporter.line(line)
