"""What a run has done so far: what policies see as ``context.run``, kept in the store.

A tally has a number that grows with each change. Whoever changes one says which number
was read, and the store takes the change only if that is still the number it has: so a
decision that rests on a tally holds at the moment when it counts.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from agentguard.errors import Refusal
from agentguard.lifecycle.origin import together
from agentguard.model import Reason

if TYPE_CHECKING:
    from collections.abc import Mapping

Run = tuple[str, str]
"""A run: its issuer, and its id as the issuer gave it."""

_NONE: Final[Mapping[str, Any]] = MappingProxyType({})
_MOST_LABELS: Final = 64
_LABEL: Final = re.compile(r"[A-Za-z0-9_.:/-]{1,64}", re.ASCII)
_MOST_UNITS: Final = 2**63 - 1
KEPT_AFTER: Final = 3_600.0
"""For how many seconds a tally is kept past the end of its run: a clock may be set back."""


def is_label(name: object) -> bool:
    """Return whether a run can carry *name*."""
    return isinstance(name, str) and _LABEL.fullmatch(name) is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one call adds to the tally of its run, and to those of the runs that it stems from.

    Attributes:
        calls: How many calls were let run.
        denied: How many were denied.
        tool: What was let run: its server and its action; empty for nothing that is counted by itself.
        labels: What the run carries from now on.
        spent: What was added to totals, in ten-thousandths, none of it negative.
        back: Whether it is taken back, since the call never began; what the run carries it goes on carrying.
    """

    calls: int = 0
    denied: int = 0
    tool: str = ""
    labels: frozenset[str] = frozenset()
    spent: Mapping[str, int] = field(default_factory=lambda: _NONE)
    back: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What a run has done so far.

    Attributes:
        version: Grows by one with each change; 0 while nothing is kept.
        started_at: When the first call of it came, unix seconds; None before that.
        calls: How many calls were let run, those of the runs that stem from it included.
        denied: How many were denied, likewise.
        tools: How many were let run, by server and action.
        labels: What it carries.
        spent: What was added to named totals, in ten-thousandths.
        bound: From where it was used first, by server.
        shared: Whether it was used from elsewhere since.
    """

    version: int = 0
    started_at: float | None = None
    calls: int = 0
    denied: int = 0
    tools: Mapping[str, int] = field(default_factory=lambda: _NONE)
    labels: frozenset[str] = frozenset()
    spent: Mapping[str, int] = field(default_factory=lambda: _NONE)
    bound: Mapping[str, str] = field(default_factory=lambda: _NONE)
    shared: bool = False

    def used_from(self, server: str, origin: str) -> Tally:
        """Return it as it is once the run was used at *server* from *origin*; its version stays.

        The first use binds it; one from elsewhere says that the run is shared, for good.
        """
        known = self.bound.get(server, "")
        both = together(known, origin)
        if both is None:
            return self if self.shared else replace(self, shared=True)
        return self if both == known else replace(self, bound={**self.bound, server: both})

    def spending(self, spent: Mapping[str, int]) -> Tally:
        """Return it with *spent* added to its totals, in ten-thousandths; its version stays.

        Raises:
            Refusal: INVALID_ARGUMENT, if an amount is negative, or a total is more than Cedar's decimal holds.
        """
        if not spent:
            return self
        totals = dict(self.spent)
        for name, units in spent.items():
            totals[name] = totals.get(name, 0) + units
            if units < 0 or totals[name] > _MOST_UNITS:
                raise Refusal(Reason.INVALID_ARGUMENT, f"what is added to total `{name}` is negative, or too much")
        return replace(self, spent=totals)

    def after(self, change: Change, now: float) -> Tally:
        """Return it as it is after *change*, under the next version.

        Args:
            change: What was done.
            now: Unix seconds.

        Raises:
            Refusal: INVALID_ARGUMENT, as for `spending`; or if it would carry more labels than a run may.
        """
        if change.back:
            return self._without(change)
        labels = self.labels | change.labels
        if len(labels) > _MOST_LABELS:
            raise Refusal(Reason.INVALID_ARGUMENT, f"a run carries at most {_MOST_LABELS} labels")
        tools = self.tools
        if change.tool:
            tools = {**tools, change.tool: tools.get(change.tool, 0) + 1}
        return replace(
            self.spending(change.spent),
            version=self.version + 1,
            started_at=now if self.started_at is None else self.started_at,
            calls=self.calls + change.calls,
            denied=self.denied + change.denied,
            tools=tools,
            labels=labels,
        )

    def _without(self, change: Change) -> Tally:
        tools = {name: number - (name == change.tool) for name, number in self.tools.items()}
        spent = {total: units - change.spent.get(total, 0) for total, units in self.spent.items()}
        return replace(
            self,
            version=self.version + 1,
            calls=max(0, self.calls - change.calls),
            tools={name: number for name, number in tools.items() if number > 0},
            spent={total: max(0, units) for total, units in spent.items()},
        )

    def as_text(self) -> str:
        """Return it as a store keeps it, without its version."""
        return json.dumps(
            [
                self.started_at,
                self.calls,
                self.denied,
                dict(self.tools),
                sorted(self.labels),
                dict(self.spent),
                dict(self.bound),
                self.shared,
            ],
            separators=(",", ":"),
        )

    @classmethod
    def of_text(cls, version: int, text: str) -> Tally:
        """Return what a store kept.

        Raises:
            ValueError: It is none.
        """
        try:
            started_at, calls, denied, tools, labels, spent, bound, shared = json.loads(text)
            readable = (
                version > 0
                and all(map(_is_count, (version, calls, denied, *tools.values(), *spent.values())))
                and (started_at is None or (type(started_at) in {int, float} and math.isfinite(started_at)))
                and type(labels) is list
                and all(type(name) is str for name in (*labels, *bound.values()))
                and type(shared) is bool
            )
        # What nests too deeply, holds too large a number or another number of things, or no object where one has to be.
        except (TypeError, ValueError, AttributeError, OverflowError, RecursionError):
            raise _unreadable() from None
        if not readable:
            raise _unreadable()
        return cls(
            version=version,
            started_at=started_at,
            calls=calls,
            denied=denied,
            tools=tools,
            labels=frozenset(labels),
            spent=spent,
            bound=bound,
            shared=shared,
        )


def _unreadable() -> ValueError:
    return ValueError("a tally cannot be read")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST_UNITS


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One tally in the place of another.

    Attributes:
        run: Whose.
        before: The version that was read.
        after: What is to be there now; its version is greater.
        until: When every token of the run is over, unix seconds; it is forgotten some time after that.

    Raises:
        ValueError: It puts nothing newer there, or its end is no moment.
    """

    run: Run
    before: int
    after: Tally
    until: float

    def __post_init__(self) -> None:
        if not (0 <= self.before < self.after.version and math.isfinite(self.until)):
            message = "an exchange wants a greater version and a moment"
            raise ValueError(message)

    @property
    def kept_until(self) -> float:
        """Until when it is kept at least, unix seconds."""
        return self.until + KEPT_AFTER


def forgotten() -> Refusal:
    """Return the refusal of a run whose tally would begin anew after it was let go of: a clock was set back."""
    return Refusal(Reason.STORE_UNAVAILABLE, "what this run has done was forgotten already: look at the clocks")
