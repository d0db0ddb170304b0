"""Any secret in any surrounding and encoding is found: as in the quick test, and for longer."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.credentials.leaks import Secret
from tests.credentials.test_leaks import AROUND, OF_ALL, OF_TEXT, SECRETS, find


@settings(max_examples=10_000, deadline=None)
@given(SECRETS, AROUND, AROUND, st.sampled_from(sorted(OF_ALL)))
def test_any_secret_in_any_bytes_in_any_encoding_is_found(
    text: str, before: bytes, after: bytes, encoding: str
) -> None:
    """No text, no alignment and no neighbour hides it."""
    assert find(OF_ALL[encoding](before + text.encode() + after), [Secret("crm", text)]) == "crm"


@settings(max_examples=10_000, deadline=None)
@given(SECRETS, st.text(max_size=100), st.text(max_size=100), st.sampled_from(sorted(OF_TEXT)))
def test_any_secret_in_any_text_is_found(text: str, before: str, after: str, encoding: str) -> None:
    """Whatever signs are in it."""
    assert find(before + OF_TEXT[encoding](text) + after, [Secret("crm", text)]) == "crm"
