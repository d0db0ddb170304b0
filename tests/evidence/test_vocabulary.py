"""The table itself: closed lists, and metrics whose attributes have rows."""

import ast
import re
from pathlib import Path

import agentguard
from agentguard.evidence.vocabulary import ATTRIBUTES, METRICS


def test_each_metric_names_only_attributes_of_the_table() -> None:
    """A metric's attribute has a row that says it occurs on metrics."""
    on_metrics = {attribute.name for attribute in ATTRIBUTES if "metric" in attribute.on}

    assert {name for metric in METRICS for name in metric.attributes} == on_metrics


def test_each_description_is_a_sentence() -> None:
    """The reference page is made of them."""
    for description in [row.description for row in ATTRIBUTES] + [row.description for row in METRICS]:
        assert description.endswith("."), description


def test_no_metric_goes_by_a_name_of_one_run() -> None:
    """Runs, users and resources are without number; a time series for each is not."""
    assert not {name for metric in METRICS for name in metric.attributes if name.endswith(".id") or "digest" in name}


def test_no_name_is_written_that_has_no_row() -> None:
    """Wherever in the package it is written: a name outside the table is in no reference."""
    # A module of the SDK is no attribute.
    spaces = r"agentguard\.[a-z_]+|mcp(?!\.(?:server|client)\b)|gen_ai|jsonrpc|openinference"
    pattern = re.compile(rf"({spaces})\.[a-z_]+(\.[a-z_]+)*|error\.type")
    # A module without such a text need not be taken apart.
    begins = re.compile(rf"""["'](?:(?:{spaces})\.|error\.type)""")
    known = {row.name for row in ATTRIBUTES} | {row.name for row in METRICS}
    written = {
        node.value
        for path in Path(agentguard.__file__).parent.rglob("*.py")
        if begins.search(text := path.read_text("utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and pattern.fullmatch(node.value)
    }

    assert written - known == set()
