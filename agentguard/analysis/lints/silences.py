"""Lints that a policy's annotations silence, and silences that do nothing.

``@silence_missing_owner("a demonstration")`` silences the lint ``missing-owner`` for the policy
that it stands above, and for no other: what is true of the server as well is told of each policy
that it matters to. What is told of the server alone cannot be silenced.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from agentguard.analysis.lints.lint import Spot
from agentguard.policy.problem import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from agentguard.analysis.lints.lint import Lint, Read, Reading
    from agentguard.policy.text.tree import Annotation

PREFIX: Final = "silence_"
UNREASONED: Final = "silence-without-reason"
UNKNOWN: Final = "unknown-silence"
USELESS: Final = "useless-silence"


class Silence(NamedTuple):
    """One annotation that silences a lint."""

    reading: Reading
    note: Annotation
    lint: str


def silences(read: Read) -> Iterator[Silence]:
    """Yield every annotation that is meant to silence something, whatever it names."""
    for reading in read.readings:
        for note in reading.syntax.annotations:
            if note.name.startswith(PREFIX):
                yield Silence(reading, note, note.name.removeprefix(PREFIX).replace("_", "-"))


def silenced(read: Read, lints: Mapping[str, Lint], found: Iterable[tuple[str, Spot]]) -> Iterator[tuple[str, Spot]]:
    """Yield what was found and is not silenced, and then what is wrong with the silences.

    Args:
        read: What was looked at.
        lints: The lints by name.
        found: The name of a lint, and what it found.
    """
    given = list(silences(read))
    can = {name for name, lint in lints.items() if lint.silenceable}
    works = [silence for silence in given if silence.lint in can and silence.note.value.strip()]
    used: set[Annotation] = set()
    for name, spot in found:
        by = [silence.note for silence in works if silence.lint == name and silence.reading is spot.reading]
        used.update(by)
        if not by:
            yield name, spot
    for reading, note, name in given:
        if name not in can:
            known = {lint.annotation for lint in lints.values() if lint.silenceable}
            what = f"@{note.name} silences no lint: {did_you_mean(note.name, known)}"
            yield UNKNOWN, Spot(what, reading, note.start, note.end)
        elif not note.value.strip():
            what = f'@{note.name} silences nothing without a reason: write @{note.name}("why")'
            yield UNREASONED, Spot(what, reading, note.start, note.end)
        elif note not in used and not reading.shared:
            what = f"`{name}` has nothing to say here: take @{note.name} away"
            yield USELESS, Spot(what, reading, note.start, note.end)
