"""Write the page of attributes and metrics from the table in the code.

The page is kept beside the others, so that it can be read in a clone; a test fails when
it is not what this writes::

    .venv/bin/python docs/attributes.py
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

from agentguard.evidence.vocabulary import ATTRIBUTES, METRICS, Outcome, RecordKind, RunEnd
from agentguard.lifecycle.states import RunState
from agentguard.model import Reason

if TYPE_CHECKING:
    from enum import StrEnum

PAGE: Final = Path(__file__).parent / "pages" / "reference" / "attributes.md"

# In this order, as the columns of the page.
_PLACES: Final = ("decision", "execution", "run", "record", "metric")

_HEAD: Final = """\
# Attributes and metrics

This page is made from the one table in `agentguard.evidence.vocabulary` that spans, metrics and records are made from
too. What has no row here is not kept.

- **decision**: the span `agentguard.authorize {tool}`. It is ended before the tool runs; its status stays unset on a
  denial, for a denial is an answer and not a fault.
- **execution**: the span `agentguard.execute {tool}`, under which the tool's own spans stand.
- **run**: the span `agentguard.run {agent}`, written when the run has ended.
- **record**: a record in the ledger, of which the spans are a view. Where the ledger is forwarded, a record that is
  none of these is a span too, `agentguard.evidence {kind}`, and each span names its record's place in the chain.
- **metric**: an attribute of a metric.
"""


def attributes_page() -> str:
    """Return the page's Markdown."""
    lines = [_HEAD, "## Attributes", "", _row("Attribute", "Type", *_PLACES, "Says"), _row(*["---"] * 8)]
    for attribute in ATTRIBUTES:
        kind = f"{attribute.type}, {attribute.unit}" if attribute.unit else attribute.type
        places = ["●" if place in attribute.on else "" for place in _PLACES]
        lines.append(_row(f"`{attribute.name}`", kind, *places, attribute.description))
    lines += ["", "## Metrics", "", _row("Metric", "Kind", "Unit", "Attributes", "Says"), _row(*["---"] * 5)]
    for metric in METRICS:
        names = " ".join(f"`{name}`" for name in metric.attributes)
        lines.append(_row(f"`{metric.name}`", metric.kind, f"`{metric.unit}`", names, metric.description))
    lines += ["", "## Closed lists", ""]
    lines += [
        _list("`agentguard.decision.reason`", Reason),
        _list("`agentguard.execution.outcome`", Outcome),
        _list("`agentguard.run.state`", RunState),
        _list("`agentguard.run.end`", RunEnd),
        _list("Kinds of records", RecordKind),
    ]
    return "\n".join(lines) + "\n"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"


def _list(name: str, values: type[StrEnum]) -> str:
    return f"- {name}: {', '.join(f'`{value}`' for value in values)}."


if __name__ == "__main__":
    PAGE.write_text(attributes_page(), "utf-8")
