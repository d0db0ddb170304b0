"""The property of `tests/policy/files/test_written.py`, on many servers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.policy.files.written import WrittenSchema
from tests.policy.files.test_written import assert_same_again, written_schemas


@settings(max_examples=400, deadline=None)
@given(written=written_schemas(), grouped=st.booleans())
def test_any_of_many_servers_is_compiled_to_the_same_version(written: WrittenSchema, grouped: bool) -> None:
    """Whatever its tools are called and take: what is read from the file decides exactly as the guard does."""
    assert_same_again(written, grouped=grouped)
