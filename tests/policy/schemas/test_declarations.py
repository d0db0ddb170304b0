import cedarpy

from agentguard.policy.schemas.declarations import closure, plain_attributes, read_declarations

SCHEMA = """
entity Group;
entity Team in [Group];
entity A, B in [Group] = {
  name: String,
  "quoted name"?: Set<Long>,
  owner?: Shop::Customer,
  at: datetime,
  @doc("one, of: two")
  @plain
  noted: Nested,
  entity: Bool,
} tags Group;
type Nested = { deep: { deeper: Other } };
type Other = { price: decimal, number: __cedar::Long };
type Plain = { a: Set<{ b: String }> };
entity C in Group { plain: Plain, "type": String };
entity Colour enum ["red", "green"];
namespace Shop {
  type Address = { street: String };
  entity Customer = { address: Address, friend?: Customer };
}
action "x", "y" in [Action::"z"] appliesTo { principal: [A], resource: [B], context: { "in": String } };
action "z";
"""


def test_the_schema_of_these_tests_is_one() -> None:
    """The reader is for schemas that Cedar has found valid."""
    cedarpy.Schema.from_str(SCHEMA)


def test_every_declaration_is_found_with_what_it_is_made_of() -> None:
    """Names stand with the namespace that they are in, and without."""
    declared = read_declarations(SCHEMA)

    assert set(declared) == {
        *("Group", "Team", "A", "B", "Nested", "Other", "Plain", "C", "Colour", "Shop::Address", "Shop::Customer"),
    }
    assert (declared["Team"].parents, declared["Team"].attributes) == ({"Group"}, {})
    assert declared["A"] == declared["B"]
    assert declared["A"].parents == {"Group"}
    assert declared["A"].rest == {"tags", "Group"}
    assert declared["A"].attributes["owner"] == {"Shop::Customer"}
    assert declared["A"].attributes["noted"] == {"Nested"}
    assert set(declared["A"].attributes) == {"name", "quoted name", "owner", "at", "noted", "entity"}
    assert declared["C"].attributes == {"plain": {"Plain"}, "type": {"String"}}
    assert declared["C"].parents == {"Group"}
    assert declared["Shop::Customer"].attributes["address"] == {"Address", "Shop::Address"}
    assert declared["Other"].rest >= {"decimal", "Long"}


def test_what_a_type_is_made_of_is_followed_to_the_end() -> None:
    """A type that is made of itself ends it too."""
    declared = read_declarations(SCHEMA)

    assert closure({"Nested"}, declared) >= {"Nested", "Other", "decimal", "Long"}
    assert "Shop::Customer" in closure({"A"}, declared)


def test_attributes_that_can_refer_to_something_are_not_plain() -> None:
    """An entity or an extension type anywhere in an attribute's type makes it special."""
    declared = read_declarations(SCHEMA)

    plain = plain_attributes(declared, frozenset({"A", "C", "Group", "Colour", "Shop::Customer", "Missing"}))

    assert plain == {
        "A": {"name", "quoted name", "entity"},
        "C": {"plain", "type"},
        "Group": frozenset(),
        "Colour": frozenset(),
        "Shop::Customer": {"address"},
    }
