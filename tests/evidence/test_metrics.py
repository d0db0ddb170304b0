"""The instruments: names and units from the table, few series, microsecond buckets."""

from opentelemetry.sdk.metrics.export import Gauge, Histogram, Sum

from agentguard.evidence.metrics import Metrics
from agentguard.evidence.vocabulary import METRICS
from agentguard.model import Decision, Effect, Reason
from tests.evidence.exporting import metering, metrics_of

ALLOWED = Decision(effect=Effect.ALLOW, reason=Reason.PERMIT)


def test_every_metric_of_the_table_is_made() -> None:
    """With its name, its unit and its description."""
    provider, reader = metering()
    metrics = Metrics(provider, backlog=lambda: 7, staleness=lambda: 0.5, policy_age=lambda: 1.5)
    metrics.decided(ALLOWED, tool="read_record", seconds=0.000_184)
    metrics.appended(0.000_02)
    metrics.reloaded("loaded")

    made = metrics_of(reader)

    assert {(row.name, row.unit, row.description) for row in METRICS} == {
        (metric.name, metric.unit, metric.description) for metric in made.values()
    }
    kinds = {"counter": Sum, "histogram": Histogram, "gauge": Gauge}
    for row in METRICS:
        assert isinstance(made[row.name].data, kinds[row.kind]), row.name


def test_a_decision_is_counted_by_effect_reason_and_tool() -> None:
    """The three attributes, on the counter and on the duration alike."""
    provider, reader = metering()
    Metrics(provider).decided(ALLOWED, tool="read_record", seconds=0.000_184)

    made = metrics_of(reader)

    counted = made["agentguard.decisions"].data
    measured = made["agentguard.decision.duration"].data
    assert isinstance(counted, Sum)
    assert isinstance(measured, Histogram)
    (count,) = counted.data_points
    (duration,) = measured.data_points
    assert count.value == 1
    assert duration.sum == 0.000_184
    assert (
        dict(count.attributes or {})
        == dict(duration.attributes or {})
        == {
            "agentguard.decision.effect": "allow",
            "agentguard.decision.reason": "permit",
            "gen_ai.tool.name": "read_record",
        }
    )


def test_names_that_the_server_does_not_have_share_one_series() -> None:
    """Else a caller could make time series without end."""
    provider, reader = metering()
    metrics = Metrics(provider)
    for _ in range(3):
        metrics.decided(ALLOWED, tool=None, seconds=0.1)

    counted = metrics_of(reader)["agentguard.decisions"].data

    assert isinstance(counted, Sum)
    assert [dict(point.attributes or {})["gen_ai.tool.name"] for point in counted.data_points] == ["_OTHER"]


def test_the_buckets_tell_fifty_microseconds_from_a_hundred() -> None:
    """The default buckets begin at five milliseconds, where no decision is."""
    provider, reader = metering()
    metrics = Metrics(provider)
    metrics.appended(0.000_04)
    metrics.appended(0.000_06)

    measured = metrics_of(reader)["agentguard.evidence.append.duration"].data

    assert isinstance(measured, Histogram)
    (point,) = measured.data_points
    assert point.explicit_bounds[:2] == (0.000_05, 0.000_1)
    assert list(point.bucket_counts[:2]) == [1, 1]


def test_a_gauge_is_read_when_it_is_collected() -> None:
    """It costs a call nothing."""
    provider, reader = metering()
    waiting = [3.0]
    metrics = Metrics(provider, backlog=lambda: waiting[0])
    waiting[0] = 4.0

    data = metrics_of(reader)["agentguard.evidence.backlog"].data

    assert metrics is not None
    assert isinstance(data, Gauge)
    assert [point.value for point in data.data_points] == [4.0]


def test_without_a_reader_of_it_there_is_no_gauge() -> None:
    """A guard without a backlog shows none, rather than a zero that nobody measured."""
    provider, reader = metering()
    metrics = Metrics(provider)
    metrics.appended(0.1)

    assert set(metrics_of(reader)) == {"agentguard.evidence.append.duration"}
