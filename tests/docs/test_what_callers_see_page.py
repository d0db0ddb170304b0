"""The page on what callers see: its server shows what it says."""

from pathlib import Path
from typing import Final

import pytest

from tests.docs.pages import blocks, run_python

PAGE: Final = "docs/pages/how-to/what-callers-see.md"


async def test_lists_of_the_page_are_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Run by run."""
    names = run_python(PAGE, tmp_path)
    (said,) = blocks(PAGE, "text")

    await names["shown"]()

    assert capsys.readouterr().out == said.text
