"""What a fragment declares is found, and what it may not declare is refused with its line."""

import cedarpy
import pytest

from agentguard.errors import PolicyError
from agentguard.limits import Limits
from agentguard.policy.schemas.fragments import EntityType, Fragment, read_fragment

LIMITS = Limits()

EVERYTHING = """\
// entity Commented;
@doc("a { string; }") @plain
entity Group;
entity User, Person in Group = { dept: String, "in"?: Set<{ a: Long }>, };
entity Bare in [] {};
namespace Acme::Records {
  type Level = { n: Long };
  @doc("x")
  entity Record in [Tool, Base] { level: Level } tags Set<String>;
  entity Base;
  entity Kind enum ["a", "b"];
  entity type;
}
entity Tagged tags { a: Long };"""


def read(text: str) -> Fragment:
    """Read a fragment of the file ``types/a.cedarschema``."""
    return read_fragment("types/a.cedarschema", text, LIMITS)


def test_every_form_of_declaration_is_read() -> None:
    """The real Cedar takes the same text."""
    cedarpy.Schema.from_str(EVERYTHING + "\nentity Tool;")

    fragment = read(EVERYTHING)

    assert fragment.entities == (
        EntityType("Group", line=3),
        EntityType("User", ("Group",), attributes=True, line=4),
        EntityType("Person", ("Group",), attributes=True, line=4),
        EntityType("Bare", line=5),
        EntityType("Acme::Records::Record", ("Tool", "Base"), attributes=True, tags=True, line=9),
        EntityType("Acme::Records::Base", line=10),
        EntityType("Acme::Records::Kind", line=11),
        EntityType("Acme::Records::type", line=12),
        EntityType("Tagged", tags=True, line=14),
    )
    assert fragment.namespaces == (("Acme::Records", 6),)
    assert [entity.name for entity in fragment.entities if not entity.bare] == [
        "User",
        "Person",
        "Acme::Records::Record",
        "Tagged",
    ]


def test_an_empty_fragment_declares_nothing() -> None:
    """A file of comments is no mistake."""
    assert read("// nothing yet\n").entities == ()


@pytest.mark.parametrize(
    ("text", "line", "what"),
    [
        ("\nentity Invocation;", 2, "`Invocation` is a type that the guard makes"),
        ("entity A, Tool;", 1, "`Tool` is a type that the guard makes"),
        ("type Server = Long;", 1, "`Server` is a type that the guard makes"),
        ("namespace A { entity Tool; }", 1, "`Tool` is a type that the guard makes"),
        ("entity decimal;", 1, "`decimal` is a type that Cedar has"),
        ("type String = Long;", 1, "`String` is a type that Cedar has"),
        ("type User = { a: Long };", 1, "`User` is an entity type"),
        ("namespace A {\n  entity User;\n}", 2, "declare it outside of `A`"),
        ("entity A;\naction read;", 2, "actions are made from the guarded tools"),
        ("namespace A { action read; }", 1, "actions are made from the guarded tools"),
        ("namespace A { namespace B { } }", 1, "wants `entity`, `type` or `namespace`, got `namespace`"),
        ("permit (principal, action, resource);", 1, "wants `entity`, `type` or `namespace`, got `permit`"),
        ("entity A", 1, "wants `;`, got `the end of the file`"),
        ("entity A in [B C];", 1, "wants `,`, got `C`"),
        ("entity A in [B", 1, "wants `,`, got `the end of the file`"),
        ("entity A in;", 1, "wants a name, got `;`"),
        ("entity A = B;", 1, "wants `{`, got `B`"),
        ("entity A = {\n a: Long;", 2, "wants `}`, and the file ends"),
        ("entity A tags String", 1, "wants `;`, got `the end of the file`"),
        ('entity "A";', 1, 'wants a name, got `"A"`'),
        ("namespace A { entity B;\n", 2, "got `the end of the file`"),
        ("namespace A::", 1, "wants a name, got `the end of the file`"),
        ("@doc(", 1, "wants a string, got `the end of the file`"),
        ("@doc(a) entity A;", 1, "wants a string, got `a`"),
        ('@doc("a" entity A;', 1, "wants `)`, got `entity`"),
        ("entity A;\n#", 2, "`#` is not part of Cedar"),
        ('entity A { "a', 1, "this string never ends"),
        (f"entity A {{ a: {'Set<' * 200}Long{'>' * 200} }};", 1, "nested at most 100 deep"),
    ],
)
def test_a_fragment_that_cannot_stay_as_it_is_is_refused(text: str, line: int, what: str) -> None:
    """One line, with file, line and the fix."""
    with pytest.raises(PolicyError) as caught:
        read(text)

    (problem,) = caught.value.problems
    assert problem.startswith(f"types/a.cedarschema:{line}: ")
    assert what in problem
