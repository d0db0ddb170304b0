"""What Cedar's functions are made of is read as Cedar reads it."""

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.policy.conversion.extensions import units_in

TEXTS = st.one_of(
    st.from_regex(r"-?[0-9]{1,16}\.[0-9]{1,5}", fullmatch=True).map(lambda text: ("decimal", text)),
    st.from_regex(r"-?([0-9]{1,12}d)?([0-9]{1,3}h)?([0-9]{1,3}m)?([0-9]{1,3}s)?([0-9]{1,20}ms)?", fullmatch=True).map(
        lambda text: ("duration", text)
    ),
    st.from_regex(
        r"(19|20)[0-9]{2}-[01][0-9]-[0-3][0-9](T[0-2][0-9]:[0-6][0-9]:[0-6][0-9](\.[0-9]{3})?(Z|[+-][0-2][0-9][0-5][0-9]))?",
        fullmatch=True,
    ).map(lambda text: ("datetime", text)),
)


def takes(kind: str, text: str) -> bool:
    """Return whether Cedar takes it."""
    policy = f'permit (principal, action, resource) when {{ {kind}("{text}") == {kind}("{text}") }};'
    request = {"principal": 'A::"a"', "action": 'Action::"b"', "resource": 'C::"c"', "context": {}}
    return not cedarpy.is_authorized(request, policy, []).diagnostics.errors


@pytest.mark.parametrize(
    ("kind", "text", "units"),
    [
        ("decimal", "-1.5", -15_000),
        ("decimal", "922337203685477.5807", 2**63 - 1),
        ("datetime", "1969-12-31T23:00:00-0100", 0),
        ("datetime", "2024-10-15", 1_728_950_400_000),
        ("duration", "-1d2h3m4s5ms", -93_784_005),
        ("duration", "9223372036854775807ms", 2**63 - 1),
    ],
)
def test_what_cedar_takes_is_a_whole_number(kind: str, text: str, units: int) -> None:
    """In the smallest unit that Cedar has."""
    assert units_in(kind, text) == units


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("decimal", "1"),
        ("decimal", "922337203685477.5808"),
        ("datetime", "2026-02-30"),
        ("datetime", "2026-11-24 10:00"),
        ("duration", "15 minutes"),
        ("duration", "-"),
        ("duration", "9223372036854775808ms"),
        ("ip", "10.0.0.1"),
    ],
)
def test_what_cedar_does_not_take_is_none(kind: str, text: str) -> None:
    """Nor what has no order."""
    assert units_in(kind, text) is None


@settings(max_examples=150, deadline=None)
@given(TEXTS)
def test_cedar_takes_what_is_read(found: tuple[str, str]) -> None:
    """Of times, only those that a calendar has."""
    assert (units_in(*found) is not None) is takes(*found)
