"""What a command says fits a terminal, and is left whole anywhere else."""

from __future__ import annotations

import sys

import pytest
from rich.table import Table
from rich.text import Text

from agentguard.cli.output import draw, fold, mistyped, say
from tests.cli.commands import TERM, Stream

LONG = "agentguard: `policies` is stale: write it again, with `agentguard schema SERVER --write policies`"


def folded(line: str, width: int) -> list[str]:
    """Return the pieces of a line."""
    return [piece.plain for piece in fold(Text(line), width)]


def written(patch: pytest.MonkeyPatch, *, terminal: bool) -> tuple[Stream, Stream]:
    """Return what stands for both outputs of this process from now on; a terminal has 40 columns."""
    out, err = Stream(terminal=terminal), Stream(terminal=terminal)
    patch.setattr(sys, "stdout", out)
    patch.setattr(sys, "stderr", err)
    patch.setenv("TERM", TERM)
    if terminal:
        patch.setenv("COLUMNS", "40")
    return out, err


@pytest.mark.parametrize(
    ("line", "pieces"),
    [
        ("", [""]),
        ("short", ["short"]),
        ("one two three four", ["one two", "  three", "  four"]),
        ("  one two three", ["  one two", "    three"]),
        ("see `a b c` then", ["see", "  `a b c`", "  then"]),
        ("a `b c d e f` g", ["a `b c d", "  e f` g"]),
        ("/a/very/long/path is", ["/a/very/long/path", "  is"]),
        ("to /a/very/long/path", ["to", "  /a/very/long/path"]),
        ("a ` b c d e", ["a ` b c d", "  e"]),
        ("医院 医院 医院", ["医院 医院", "  医院"]),
    ],
)
def test_line_is_folded_at_whole_words(line: str, pieces: list[str]) -> None:
    """What is in backticks stays together if it fits, and a word is never cut."""
    assert folded(line, 9) == pieces


def test_pieces_are_set_in_as_far_as_is_asked() -> None:
    """Below a word that they belong to."""
    assert [piece.plain for piece in fold(Text("got  one two three"), 13, set_in=5)] == ["got  one two", "     three"]


def test_pieces_keep_their_style() -> None:
    """Of a line that is bold in part."""
    line = Text.assemble(("one two three", "bold"), " four")

    assert [[(span.start, span.end) for span in piece.spans] for piece in fold(line, 9)] == [[(0, 7)], [(2, 7)], []]


def test_message_is_folded_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """But for a line that is there to be copied."""
    _, err = written(monkeypatch, terminal=True)

    say(f"{LONG}\n  {LONG}")

    assert err.getvalue().splitlines() == [
        "agentguard: `policies` is stale: write",
        "  it again, with `agentguard schema",
        "  SERVER --write policies`",
        f"  {LONG}",
    ]


def test_message_for_a_program_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard error is no terminal."""
    _, err = written(monkeypatch, terminal=False)

    say(LONG)

    assert err.getvalue() == f"{LONG}\n"


def _draw() -> None:
    drawn = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1, 0, 0))
    drawn.add_row(Text("a", style="bold"), Text("b", style="bold"))
    drawn.add_row("longer", "longer")
    draw(LONG, Text(LONG, style="bold"), drawn)


def test_result_is_folded_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With its colours, and without blanks at the end of a line."""
    out, _ = written(monkeypatch, terminal=True)

    _draw()

    assert out.getvalue().splitlines() == [
        "agentguard: `policies` is stale: write",
        "  it again, with `agentguard schema",
        "  SERVER --write policies`",
        "\x1b[1magentguard: `policies` is stale: write\x1b[0m",
        "  \x1b[1mit again, with `agentguard schema\x1b[0m",
        "  \x1b[1mSERVER --write policies`\x1b[0m",
        "\x1b[1ma     \x1b[0m \x1b[1mb\x1b[0m",
        "longer longer",
    ]


def test_result_for_a_program_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where standard output is no terminal."""
    out, _ = written(monkeypatch, terminal=False)

    _draw()

    assert out.getvalue().splitlines() == [LONG, LONG, "a      b", "longer longer"]


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("Missing option '--agent'.", "missing option `--agent`"),
        ("No such option: --fromat (Possible options: --format)", "no such option: --fromat: did you mean --format?"),
        ("Invalid value for 'X': Value error, 'a' is not one of 'b'.", "invalid value for `X`: `a` is not one of `b`"),
    ],
)
def test_mistake_on_the_command_line_is_worded_as_all_others(said: str, told: str) -> None:
    """Lower case, no full stop, input in backticks."""
    assert mistyped(said) == told
