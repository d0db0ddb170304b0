"""Two policies with one `@id`.

Cedar does not look at it, so evidence that names the id would name two policies.
"""

from pathlib import Path

import cedarpy
import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files.source import read_folder
from tests.policy.records import LIMITS

PERMIT = '@id("same") permit (principal, action, resource);'


def test_cedar_alone_takes_both() -> None:
    """The trap."""
    assert len(cedarpy.PolicySet.from_str(PERMIT + PERMIT)) == 2


def test_an_id_that_is_taken_in_any_file_is_refused(tmp_path: Path) -> None:
    """With both places, so that one of them can be found."""
    (tmp_path / "a.cedar").write_text(PERMIT)
    (tmp_path / "b.cedar").write_text(f"\n{PERMIT}")

    with pytest.raises(PolicyError) as caught:
        read_folder(tmp_path, LIMITS)

    assert caught.value.problems == ('b.cedar:2: @id("same") is taken by a.cedar:1: rename one of the two',)
