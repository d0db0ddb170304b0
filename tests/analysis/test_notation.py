"""Cedar values as people read them."""

import pytest

from agentguard.analysis.notation import name_text, of_units, path_text, units_of, written


def call(function: str, argument: str) -> dict[str, object]:
    """Return the Cedar JSON of a function's call."""
    return {"__extn": {"fn": function, "arg": argument}}


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (False, "false"),
        (501, "501"),
        ("csv", '"csv"'),
        ('a "b" \\ \x1b[2J\n', '"a \\u{22}b\\u{22} \\u{5c} \\u{1b}[2J\\u{a}"'),
        ("Zürich", '"Zürich"'),
        ([1, "a"], '[1, "a"]'),
        ({"a": 1, "b c": True}, '{a: 1, "b c": true}'),
        ({"__entity": {"type": "User", "id": "p 1"}}, 'User::"p 1"'),
        (call("decimal", "1000.0000"), 'decimal("1000.0")'),
        (call("decimal", "0.1250"), 'decimal("0.125")'),
        (call("decimal", "odd"), 'decimal("odd")'),
        (call("datetime", "2026-11-24T10:00:00.000Z"), 'datetime("2026-11-24T10:00:00Z")'),
        (call("duration", "900000ms"), 'duration("15m")'),
        (call("duration", "-90061001ms"), 'duration("-1d1h1m1s1ms")'),
        (call("duration", "0ms"), 'duration("0s")'),
        (call("duration", "1h"), 'duration("1h")'),
        (call("ip", "10.0.0.1"), 'ip("10.0.0.1")'),
    ],
)
def test_a_value_is_written_as_cedar_writes_it(value: object, text: str) -> None:
    """With what steers a terminal escaped, and without digits that say nothing."""
    assert written(value) == text


def test_a_long_value_is_cut() -> None:
    """An argument may hold 64 KiB."""
    assert written("x" * 1000) == f'"{"x" * 158}…'
    assert written(list(range(1000)), 20) == "[0, 1, 2, 3, 4, 5, …"


def test_a_path_is_written_as_cedar_writes_it() -> None:
    """With brackets around what is no name."""
    assert path_text(("context", "input", "max_rows")) == "context.input.max_rows"
    assert path_text(("context", "input", "a b")) == 'context.input["a b"]'
    assert name_text("a-b") == '"a-b"'


@pytest.mark.parametrize(
    ("value", "kind", "units"),
    [
        (-7, "Long", -7),
        (call("decimal", "-1.5"), "decimal", -15_000),
        (call("datetime", "2024-10-15"), "datetime", 1_728_950_400_000),
        (call("datetime", "2024-10-15T11:35:00+0100"), "datetime", 1_728_988_500_000),
        (call("duration", "-1h1ms"), "duration", -3_600_001),
    ],
)
def test_what_has_an_order_is_counted_and_back(value: object, kind: str, units: int) -> None:
    """Equal values count the same, however they are written."""
    assert units_of(value) == (kind, units)
    back = of_units(kind, units)
    assert units_of(back) == (kind, units)


@pytest.mark.parametrize(
    "value", [True, "7", [7], {"a": 1}, call("ip", "10.0.0.1"), call("decimal", "x"), {"__extn": "odd"}]
)
def test_what_has_no_order_is_not_counted(value: object) -> None:
    """Truth, text, and what Cedar itself would not take."""
    assert units_of(value) is None


def test_past_the_end_of_a_type_there_is_no_value() -> None:
    """64 bits, and the years of a calendar."""
    assert of_units("Long", 2**63) is None
    assert of_units("Long", 2**63 - 1) == 2**63 - 1
    assert of_units("datetime", 2**62) is None
    assert of_units("datetime", -(2**62)) is None
    assert of_units("decimal", -1) == call("decimal", "-0.0001")
