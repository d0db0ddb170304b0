"""The page of what `agentguard check` finds is made, and is what would be made now."""

import runpy

from agentguard.analysis.checking.refusals import REFUSALS
from agentguard.analysis.lints.run import LINTS
from tests.docs.pages import ROOT


def test_the_page_of_checks_is_what_the_tables_and_the_broken_folders_say() -> None:
    """Where it is not, `.venv/bin/python docs/checks.py` writes it anew."""
    made = runpy.run_path(str(ROOT / "docs" / "checks.py"))

    page = made["PAGE"].read_text("utf-8")
    assert page == made["checks_page"]()
    for name in (*LINTS, *REFUSALS):
        assert f"### {name}\n" in page
