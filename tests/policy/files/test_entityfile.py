import pytest

from agentguard.model import EntityUid
from agentguard.policy.files.entityfile import read_entities

FILE = "cedarentities.json"
ALICE = '{ "uid": { "type": "User", "id": "alice" }, "attrs": {}, "parents": [] }'


def problem(text: str) -> str:
    """Return the one thing that is wrong with a file."""
    _, (found,) = read_entities(FILE, text)
    return str(found)


def test_entities_are_read_with_their_lines() -> None:
    """JSON itself does not tell lines."""
    entities, problems = read_entities(FILE, f" [\n\n {ALICE},\n\t{ALICE.replace('alice', 'bob')}\n]\n")

    assert problems == []
    assert [(entity.uid, entity.line) for entity in entities] == [
        (EntityUid("User", "alice"), 3),
        (EntityUid("User", "bob"), 4),
    ]


def test_an_empty_list_holds_no_entities() -> None:
    """And nothing is wrong with it."""
    assert read_entities(FILE, "[]") == ([], [])


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", "1: this is not JSON: expecting `[`"),
        ("{}", "1: this is not JSON: expecting `[`"),
        (f"[{ALICE}\n{ALICE}]", "2: this is not JSON: expecting `,`"),
        (f"[{ALICE},\n]", "2: this is not JSON: expecting value"),
        (f"[{ALICE}", "1: this is not JSON: expecting `,`"),
        (f"[{ALICE}]\n[]", "2: this is not JSON: expecting nothing after the list"),
        ("[\n{]", "2: this is not JSON: expecting property name"),
        ("[" * 100_000, "1: this is nested too deep: flatten it"),
        ('[{"uid": 1, "uid": 2}]', "1: this is not JSON: an object has a key twice: keep one"),
        (ALICE.join(("[", "]")).replace("{}", '{"a": 1.5}'), "1: this is not JSON: cedar has no number `1.5`: write"),
        (ALICE.join(("[", "]")).replace("{}", '{"a": NaN}'), "1: this is not JSON: cedar has no number `nan`"),
        ("[1]", '1: an entity is {"uid": …, "attrs": {…}, "parents": […]}: write exactly these'),
        ('[\n{"uid": 1}]', '2: an entity is {"uid": …'),
        (f"[{ALICE}]".replace('"attrs"', '"atrs"'), '1: an entity is {"uid": …'),
        (f"[{ALICE}]".replace("{}", "[]"), '1: wants an object for "attrs" and a list for "parents"'),
        (f"[{ALICE}]".replace("[] }", "{} }"), '1: wants an object for "attrs" and a list for "parents"'),
        (f"[{ALICE}]".replace('"id": "alice"', '"id": 7'), "1: an entity is named by its type and its id: write"),
        (f"[{ALICE}]".replace("[] }", '["Group"] }'), "1: an entity is named by its type and its id: write"),
        (f"[{ALICE}]".replace("User", "Tool"), '1: `Tool::"alice"` is made by the guard: remove it'),
        (f"[\n{ALICE},\n{ALICE}]", '3: `User::"alice"` is there twice, first in line 2: keep one'),
    ],
)
def test_what_is_no_entity_is_told_with_line_and_fix(text: str, wanted: str) -> None:
    """One line, as for policies."""
    assert problem(text).startswith(f"{FILE}:{wanted}")
