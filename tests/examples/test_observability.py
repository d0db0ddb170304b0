"""The files for a collector, Prometheus and Grafana name what there is, and nothing else."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from agentguard.evidence.vocabulary import ATTRIBUTES, METRICS, STALENESS, Metric, RunEnd
from agentguard.model import Effect, Reason

FOLDER = Path(__file__).parents[2] / "examples" / "observability"
RULES = [rule for group in yaml.safe_load((FOLDER / "alerts.yaml").read_text())["groups"] for rule in group["rules"]]
DASHBOARD = json.loads((FOLDER / "dashboard.json").read_text())
QUERIES = [
    (target.get("expr", ""), target.get("query", "")) for panel in DASHBOARD["panels"] for target in panel["targets"]
]
EXPRESSIONS = [rule["expr"] for rule in RULES] + [expression for expression, _ in QUERIES if expression]
TRACE_QUERIES = [query for _, query in QUERIES if query]

ON_METRICS = {row.name.replace(".", "_") for row in ATTRIBUTES if "metric" in row.on}
ON_SPANS = {row.name for row in ATTRIBUTES if row.on & {"decision", "execution", "run"}}
RECORDED = {rule["record"] for rule in RULES if "record" in rule}
# Named by PromQL, Grafana and the collector's `spanmetrics`.
OTHERS = {"le", "span_name", "status_code", "traces_span_metrics_calls_total"}

NAME = re.compile(r"[a-z_]+(?::[a-z_0-9]+)+|[a-z]+_[a-z_]+")
MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')


def prometheus(metric: Metric) -> set[str]:
    """Return the names of a metric's series in Prometheus."""
    unit = "_seconds" if metric.unit == "s" else ""
    name = f"{metric.name.replace('.', '_')}{unit}"
    if metric.kind == "counter":
        return {f"{name}_total"}
    return {f"{name}{part}" for part in ("_bucket", "_count", "_sum")} if metric.kind == "histogram" else {name}


SERIES = set().union(*map(prometheus, METRICS))
FUNCTIONS = {"avg_over_time", "clamp_min", "histogram_quantile"}


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_what_there_is(expression: str) -> None:
    """Each series, label and recorded rule."""
    bare = re.sub(r'"[^"]*"|\[[^\]]*\]', "", expression)
    named = set(NAME.findall(bare))

    assert named
    assert named - SERIES - ON_METRICS - RECORDED - OTHERS - FUNCTIONS == set()


def test_every_metric_is_looked_at() -> None:
    """One that no panel and no rule shows would be kept for nothing."""
    # No guard measures how old what it knows of revocations is, so far.
    for metric in set(METRICS) - {STALENESS}:
        assert any(name in expression for name in prometheus(metric) for expression in EXPRESSIONS), metric.name


@pytest.mark.parametrize("query", TRACE_QUERIES)
def test_a_query_of_traces_names_attributes_of_spans(query: str) -> None:
    """As the table has them."""
    named = set(re.findall(r"span\.([a-z_]+(?:\.[a-z_]+)+)", query))

    assert named
    assert named <= ON_SPANS


def test_a_value_that_is_compared_with_occurs() -> None:
    """Effects and reasons are closed lists; each part of a pattern fits one."""
    values: dict[str, set[str]] = {
        "agentguard_decision_effect": {effect.value for effect in Effect},
        "agentguard_decision_reason": {reason.value for reason in Reason},
        "span.agentguard.decision.effect": {effect.value for effect in Effect},
        "span.agentguard.run.end": {end.value for end in RunEnd},
    }
    compared = [match for expression in EXPRESSIONS for match in MATCHER.findall(expression) if match[0] in values]

    assert len(compared) >= 4
    for label, _, pattern in compared:
        for part in pattern.split("|"):
            assert any(re.fullmatch(part, value) for value in values[label]), (label, part)


def test_failing_closed_covers_every_reason_that_is_no_policy() -> None:
    """A reason that says that something is broken raises the alert."""
    (alert,) = (rule for rule in RULES if rule.get("alert") == "AgentguardFailingClosed")
    ((_, _, pattern),) = MATCHER.findall(alert["expr"])
    broken = {reason.value for reason in Reason if re.fullmatch(pattern, reason)}

    assert broken >= {"evidence_unavailable", "store_unavailable", "policy_error", "internal_error"}
    assert not broken & {"policy", "no_permit", "permit", "revoked", "expired"}


def test_an_annotation_shows_labels_of_its_expression() -> None:
    """Else it would be empty when it counts."""
    for rule in RULES:
        for label in re.findall(r"\$labels\.(\w+)", str(rule.get("annotations", ""))):
            assert label in ON_METRICS, label


def test_each_alert_that_was_promised_is_there() -> None:
    """By the names that the pages give them."""
    assert {rule["alert"] for rule in RULES if "alert" in rule} == {
        "AgentguardFailingClosed",
        "AgentguardDenialsJumped",
        "AgentguardEvidenceBehind",
        "AgentguardPoliciesNotTaken",
        "AgentguardPoliciesOld",
    }


def test_the_collector_uses_what_it_defines() -> None:
    """Every part of a pipeline, and every part in some pipeline; and none of them samples."""
    found: dict[str, Any] = yaml.safe_load((FOLDER / "collector.yaml").read_text())
    pipelines = found["service"]["pipelines"].values()
    connectors = set(found["connectors"])
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines for name in pipeline[kind]}
        assert used == set(found[kind]) | (connectors if kind != "processors" else set()), kind
    assert set(found["service"]["extensions"]) == set(found["extensions"])
    assert found["exporters"]["file"]["format"] == "json"
    assert not [name for name in found["processors"] if "sampl" in name]
    assert {dimension["name"] for dimension in found["connectors"]["spanmetrics"]["dimensions"]} <= ON_SPANS
    # What the evidence is compared with is whole: no other processor may touch it.
    assert found["service"]["pipelines"]["traces/evidence"]["processors"] == ["memory_limiter", "filter/evidence"]
