"""The property of `tests/analysis/proofs/test_access.py`, on many policies."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.proofs.test_access import POLICIES, assert_never_contradicted, everything


@settings(max_examples=200, deadline=None)
@given(policies=st.lists(POLICIES, min_size=1, max_size=4))
def test_nothing_that_is_proved_of_many_policies_is_contradicted(
    tmp_path_factory: pytest.TempPathFactory, policies: list[str]
) -> None:
    """Always is allowed and never is denied, for any call; and what is left decides the others as Cedar does."""
    assert_never_contradicted(everything(tmp_path_factory.getbasetemp() / "records"), policies)
