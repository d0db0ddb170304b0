"""YAML without types: what people write is taken as it stands, and whatever could mislead is refused with its place."""

from __future__ import annotations

import pytest

from agentguard.analysis.scenarios.yamltext import Listed, MistakeError, Place, Record, Text, plain, read_yaml, shown


def test_scalars_stay_the_text_that_stands_there() -> None:
    """No float, no bool, no date: the Cedar schema has the types."""
    text = (
        "a: 1000.00\nb: no\nc: 2026-11-24T10:00:00Z\nd: '~'\ne: 0x10\n"
        'f: "q"\ng: [1e3, "null"]\nh: { i: User::p1 }\nj: ""\n'
    )

    assert plain(read_yaml(text)) == {
        "a": "1000.00",
        "b": "no",
        "c": "2026-11-24T10:00:00Z",
        "d": "~",
        "e": "0x10",
        "f": "q",
        "g": ["1e3", "null"],
        "h": {"i": "User::p1"},
        "j": "",
    }


def test_nodes_know_their_place() -> None:
    """Line and column from 1, the length of what is on one line, and the place of each key."""
    root = read_yaml("a:\n  - { bb: ccc }\nd: |\n  long\n  text\n")

    assert isinstance(root, Record)
    listed, block = root.members["a"], root.members["d"]
    assert isinstance(listed, Listed)
    (record,) = listed.items
    assert isinstance(record, Record)
    assert record.keys["bb"] == Place(2, 7, 2)
    assert record.members["bb"] == Text("ccc", Place(2, 11, 3))
    assert block == Text("long\ntext\n", Place(3, 4, 1))
    assert plain(read_yaml("just a text")) == "just a text"


@pytest.mark.parametrize(
    ("text", "line", "column", "what"),
    [
        ("", 1, 1, "the file is empty: write `scenarios:`"),
        ("# nothing\n", 1, 1, "the file is empty: write `scenarios:`"),
        ("a: &x 1\nb: 2", 1, 4, "an anchor, `&x`, is not taken: remove it"),
        ("a: *x", 1, 4, "an alias, `*x`, is not taken: write it out"),
        ("a: !!float 1", 1, 4, "a tag, `!…`, is not taken: values have the types of the Cedar schema, so remove it"),
        ("a: !!python/object:os.system []", 1, 4, "a tag, `!…`, is not taken"),
        ("a: 1\nb: 2\na: 3", 3, 1, "`a` stands here twice, first in line 1: keep one"),
        ("a: { b: 1, b: 2 }", 1, 12, "`b` stands here twice, first in line 1: keep one"),
        ("a:\n  <<: { b: 1 }", 2, 3, "`<<` merges nothing here: write the keys out"),
        ("? [a]\n: b", 1, 3, "a key is a text, and this is none: write `key: value`"),
        ("a:", 1, 3, 'nothing stands here: write `""` for an empty text'),
        ("a: { user: ~ }", 1, 12, "`~` stands for nothing in YAML: leave it out, or put it into quotes"),
        ("a: null", 1, 4, "`null` stands for nothing in YAML"),
        ("a: 1\n---\nb: 2", 2, 1, "a second document begins here: put it into a file of its own"),
        ("a: [1", 1, 6, "this is not YAML, while parsing a flow sequence, expected ',' or ']', but got"),
        ("a: 1\n b: 2", 2, 3, "this is not YAML, mapping values are not allowed here: mend it"),
        ("a: 1\n\x07", 2, 1, "this is not YAML, a character cannot be in it: remove it"),
        ('a: "\\ud800"', 1, 4, "half of a character stands here: write it whole"),
        ('a: "\\UFFFFFFFF"', 1, 1, "this is not YAML, an escape in it stands for no character: mend it"),
        ("[" * 50 + "]" * 50, 1, 41, "this is nested deeper than 40: flatten it"),
    ],
)
def test_what_could_mislead_is_refused_where_it_stands(text: str, line: int, column: int, what: str) -> None:
    """A bomb of aliases, a value that brings its type along, a key of which readers believe another one."""
    with pytest.raises(MistakeError) as refused:
        read_yaml(text)

    assert (refused.value.place.line, refused.value.place.column) == (line, column)
    assert refused.value.what.startswith(what)


def test_bomb_of_aliases_costs_nothing() -> None:
    """It is refused at its first anchor, so there is nothing to expand."""
    lines = ["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30))]

    with pytest.raises(MistakeError, match="an anchor"):
        read_yaml("\n".join(lines))


def test_nodes_are_counted() -> None:
    """A file that holds more than anybody writes is not read to its end."""
    with pytest.raises(MistakeError) as refused:
        read_yaml("- a\n" * 100, most=50)

    assert refused.value.what == "a file holds at most 50 nodes: split it"
    assert refused.value.place == Place(49, 3)


def test_what_is_quoted_stays_on_a_line() -> None:
    """A text of a file can steer no terminal, and a long one is cut."""
    assert shown("a\x1b[2Jb") == "`a\N{REPLACEMENT CHARACTER}[2Jb`"
    assert shown("x" * 100) == f"`{'x' * 60}…`"
    with pytest.raises(MistakeError) as refused:
        read_yaml(f"a: !{'x' * 200}!b c")
    assert len(refused.value.what) < 200


def test_lines_are_those_of_an_editor() -> None:
    """YAML also breaks them at signs that no editor shows as a break."""
    root = read_yaml('a: "b\u2028c\x85d"\ne: "f"\n')

    assert isinstance(root, Record)
    assert root.keys["e"] == Place(2, 1, 1)
    assert root.members["a"].place == Place(1, 4, 7)
    with pytest.raises(MistakeError) as refused:
        read_yaml('a: "b\u2028c"\nb: [')
    assert refused.value.place.line == 2
