"""The page on the low-level server: both of its tools are judged as it says."""

from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client

from agentguard.testing import acting_as
from tests.docs.pages import run_python
from tests.world import meta, text

PAGE: Final = "docs/pages/how-to/low-level-server.md"

CALLS: Final[list[tuple[str, dict[str, Any], str | None]]] = [
    ("read_record", {"record_id": "r1", "pages": "2"}, "2 pages of record r1"),
    ("read_record", {"record_id": "r1"}, "1 pages of record r1"),
    ("read_record", {}, None),
    ("export_records", {"max_rows": 500}, "500 rows"),
    ("export_records", {"max_rows": 500, "format": "csv"}, "500 rows"),
    ("export_records", {"max_rows": 500, "format": "json"}, None),
    ("export_records", {"max_rows": 501}, None),
    ("export_records", {"max_rows": "5"}, None),
    ("export_records", {"max_rows": 5, "also": 1}, None),
]


async def test_calls_of_the_page_are_judged_as_it_says(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A function on what it gets, a schema on what was sent; and nothing is unseen."""
    names = run_python(PAGE, tmp_path)

    with acting_as("support-agent"):
        async with Client(names["server"]) as client:
            results = [await client.call_tool(name, arguments) for name, arguments, _ in CALLS]

    assert [None if one.is_error else text(one) for one in results] == [wanted for *_, wanted in CALLS]
    assert {meta(one)["reason"] for one in results if one.is_error} == {"denied", "invalid_argument"}
    assert "policies do not see" not in caplog.text
