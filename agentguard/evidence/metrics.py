"""The instruments, named by the vocabulary; their attributes have few values by construction."""

from __future__ import annotations

from importlib.metadata import version
from typing import TYPE_CHECKING, Final

from opentelemetry.metrics import Observation, get_meter

from agentguard.evidence.vocabulary import (
    APPEND_DURATION,
    BACKLOG,
    DECISION_DURATION,
    DECISIONS,
    POLICY_AGE,
    RELOADS,
    STALENESS,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.metrics import CallbackOptions, Histogram, Meter, MeterProvider

    from agentguard.evidence.vocabulary import Metric
    from agentguard.model import Decision

OTHER: Final = "_OTHER"
"""What the semantic conventions write for a value outside the known ones."""

# A decision takes about 150 µs; an approval by a person up to five minutes.
_BUCKETS: Final = (
    *(0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0),
)


class Metrics:
    """Counts decisions, and measures what they and their evidence cost.

    Args:
        meter_provider: Where they go; None for the process's own, whatever it is by then.
        backlog: Gives the number of records that are not yet delivered elsewhere.
        staleness: Gives the age of what is known of revocations, in seconds.
        policy_age: Gives how long ago the policies in force were last confirmed, in seconds.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        backlog: Callable[[], float] | None = None,
        staleness: Callable[[], float] | None = None,
        policy_age: Callable[[], float] | None = None,
    ) -> None:
        meter = get_meter("agentguard", version("agentguard"), meter_provider)
        self._decisions = meter.create_counter(DECISIONS.name, DECISIONS.unit, DECISIONS.description)
        self._duration = _histogram(meter, DECISION_DURATION)
        self._append = _histogram(meter, APPEND_DURATION)
        self._reloads = meter.create_counter(RELOADS.name, RELOADS.unit, RELOADS.description)
        for metric, read in ((BACKLOG, backlog), (STALENESS, staleness), (POLICY_AGE, policy_age)):
            if read is not None:
                meter.create_observable_gauge(metric.name, [_observe(read)], metric.unit, metric.description)

    def decided(self, decision: Decision, *, tool: str | None, seconds: float) -> None:
        """Count one decision and what it took.

        Args:
            decision: What was decided.
            tool: The tool; None for a name that the server does not have: a caller must
                not be able to make time series without end.
            seconds: From the call's arrival to the decision.
        """
        attributes = {
            "agentguard.decision.effect": decision.effect.value,
            "agentguard.decision.reason": decision.reason.value,
            "gen_ai.tool.name": OTHER if tool is None else tool,
        }
        self._decisions.add(1, attributes)
        self._duration.record(seconds, attributes)

    def reloaded(self, outcome: str) -> None:
        """Count one change of the policy folder, by what it came to."""
        self._reloads.add(1, {"agentguard.policy.outcome": outcome})

    def appended(self, seconds: float) -> None:
        """Measure what one record took until it was kept."""
        self._append.record(seconds)


def _histogram(meter: Meter, metric: Metric) -> Histogram:
    return meter.create_histogram(
        metric.name, metric.unit, metric.description, explicit_bucket_boundaries_advisory=_BUCKETS
    )


def _observe(read: Callable[[], float]) -> Callable[[CallbackOptions], Iterable[Observation]]:
    def observe(_options: CallbackOptions) -> Iterable[Observation]:
        return (Observation(read()),)

    return observe
