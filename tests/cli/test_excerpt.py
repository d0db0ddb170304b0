import pytest
from rich.cells import cell_len

from agentguard.cli.excerpt import excerpt


@pytest.mark.parametrize(
    ("line", "column", "length", "shown"),
    [
        ("when { a > 5 };", 8, 1, ("when { a > 5 };", "       ^")),
        ("when { abc > 5 };", 8, 3, ("when { abc > 5 };", "       ^^^")),
        ("\twhen { a };", 2, 4, ("    when { a };", "    ^^^^")),
        ("漢字 when", 4, 4, ("漢字 when", "     ^^^^")),
        ("a漢字b", 2, 2, ("a漢字b", " ^^^^")),
        ("e\u0301a when", 5, 4, ("e\u0301a when", "   ^^^^")),
        ("a\x1b[31mb", 2, 1, ("a\ufffd[31mb", " ^")),
        ("abc", 4, 1, ("abc", "   ^")),
        ("abc", 3, 99, ("abc", "  ^")),
        ("abc", 0, 1, ("abc", "")),
        ("", 1, 1, ("", "^")),
    ],
)
def test_mark_stands_under_what_is_at_fault(line: str, column: int, length: int, shown: tuple[str, str]) -> None:
    """In cells of a terminal, whatever the characters are, and nothing steers it."""
    assert excerpt(line, column=column, length=length, room=60) == shown


@pytest.mark.parametrize("column", [1, 20, 99, 150, 199, 200, 201])
@pytest.mark.parametrize("sign", ["x", "漢", "\t"])
@pytest.mark.parametrize("room", [0, 30, 57])
def test_long_line_is_cut_around_the_mark(column: int, sign: str, room: int) -> None:
    """It fits where it has to, and the mark is under the character that is meant."""
    line = sign * (column - 1) + "!" + sign * (200 - column)

    shown, mark = excerpt(line, column=column, length=1, room=room)

    assert cell_len(shown) <= max(room, 20)
    assert mark.endswith("^")
    assert mark.count("^") == 1
    assert cell_len(shown.partition("!")[0]) == len(mark) - 1


def test_line_that_just_fits_is_not_cut() -> None:
    """A cut hides something, so it is made where it must be alone."""
    line = "x" * 60

    assert excerpt(line, column=60, length=1, room=60).line == line
    assert excerpt(f"{line}x", column=1, length=1, room=60).line == "x" * 58 + "…"


def test_line_of_a_megabyte_takes_no_time() -> None:
    """What nobody can see is not looked at."""
    shown, mark = excerpt("x" * 1_000_000 + "!" + "x" * 1_000_000, column=1_000_001, length=1, room=60)

    assert shown[len(mark) - 1] == "!"
    assert shown.startswith("…")
    assert shown.endswith("…")
