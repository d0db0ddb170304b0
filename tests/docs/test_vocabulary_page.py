"""The page of what policies can name: its tables come from the code, and none of them lacks anything."""

import re
import runpy
from typing import Any, Final

import pytest

from agentguard.analysis.lints.silences import PREFIX
from agentguard.lifecycle.tally import Tally
from agentguard.model import Reason
from agentguard.policy.files.written import write_schema
from agentguard.policy.schemas.fragments import VOCABULARY
from agentguard.policy.schemas.schema import ATTRIBUTES, CONTEXT, GROUPS, OwnType
from agentguard.policy.text.annotated import ANNOTATIONS
from agentguard.request import run_record
from tests.docs.pages import ROOT
from tests.policy.files.test_written import TYPES, WRITTEN, source

MADE: Final[dict[str, Any]] = runpy.run_path(str(ROOT / "docs" / "vocabulary.py"))


def test_page_of_the_vocabulary_is_what_the_code_says() -> None:
    """Where it is not, `.venv/bin/python docs/vocabulary.py` writes its tables anew."""
    assert MADE["PAGE"].read_text("utf-8") == MADE["vocabulary_page"]()


@pytest.mark.parametrize(
    ("table", "known"),
    [
        ("ABOVE_POLICIES", {*ANNOTATIONS, "owner", f"{PREFIX}…"}),
        ("TYPES", VOCABULARY | {kind.value for kind in OwnType} | {"Invocation"}),
        ("PRINCIPAL", set(ATTRIBUTES)),
        ("ACTION_GROUPS", GROUPS),
        ("CALL", set(CONTEXT)),
        ("RUN", set(run_record(Tally(), now=0))),
        ("REASONS", {reason.value for reason in Reason}),
    ],
)
def test_everything_that_the_code_knows_is_explained(table: str, known: set[str]) -> None:
    """Nothing is missing, and nothing is made up."""
    assert set(MADE[table]) == known


def test_every_annotation_of_a_written_schema_is_explained() -> None:
    """A schema with all that there can be has no other."""
    text = write_schema(WRITTEN, source(TYPES, grouped=True))

    assert set(re.findall(r"@([a-z_]+)\(", text)) == set(MADE["IN_THE_SCHEMA"])


def test_table_without_its_place_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    """Whoever edits the page by hand learns what the comments are for."""
    page = tmp_path / "vocabulary.md"
    page.write_text("# Vocabulary\n")
    monkeypatch.setitem(MADE["vocabulary_page"].__globals__, "PAGE", page)

    with pytest.raises(SystemExit, match="the table `annotations of policies` wants its place, once"):
        MADE["vocabulary_page"]()
