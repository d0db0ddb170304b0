"""The types that a schema's text declares, beside what Cedar says of the same text."""

from typing import Any, Final

import cedarpy
import pytest

from agentguard.errors import ConfigurationError
from agentguard.limits import Limits
from agentguard.policy.schemas.types import CedarType, Member, SchemaTypes, read_types, value_of
from agentguard.policy.text.lexer import LexError, check_schema_bounds, tokens

SCHEMA: Final = """
// The team's own.
@owner("security")
entity Group;
entity User in [Group] = { name: String, "e mail"?: String };
entity Colour enum ["red", "green"];
namespace Clinic {
  type Address = { street: String, zip: Long };
  entity Ward in Ward;
  entity Record in [Ward, User] {
    @one_of("normal | restricted") sensitivity: String,
    where?: Address,
    owners: Set<User>,
  } tags Set<String>;
}
type Money = __cedar::decimal;
@server("records")
action "tools/call", reads;
type readInput = {
  @one_of("a \\\\| b | c") kind: String,
  @one_of("1|2") sizes: Set<Set<Long>>,
  if_paid?: Money,
  in: { @note("of") @one_of("true") really: Bool },
};
@resource("Clinic::Record::{record_id}")
@unannotated
action "read" in [Action::"tools/call", "reads"] appliesTo {
  principal: User,
  resource: [Clinic::Record, Colour],
  context: { input: readInput, now: datetime, for: duration, from: ipaddr }
};
action whole in reads appliesTo { resource: Group, principal: [User], context: readInput, };
action none appliesTo { principal: [User, Colour], resource: Group };
""".replace("  in: {", '  "in": {')

STRING, LONG = CedarType(name="String"), CedarType(name="Long")


def record(**members: CedarType | Member) -> CedarType:
    """Return a record; a type alone is that of a member that is always there."""
    held = {name: member if isinstance(member, Member) else Member(type=member) for name, member in members.items()}
    return CedarType(name="Record", members=held)


def optional(type_: CedarType) -> Member:
    """Return a member that may be missing."""
    return Member(type=type_, required=False)


def types() -> SchemaTypes:
    """Return the types of the schema of these tests, which Cedar takes too."""
    cedarpy.Schema.from_str(SCHEMA)
    check_schema_bounds(SCHEMA, tokens(SCHEMA), Limits())
    return read_types(SCHEMA)


def test_entity_types_are_read_with_all_that_they_have() -> None:
    """Names are full, wherever they stand; enumerated types have ids, others attributes and tags."""
    entities = types().entities

    assert list(entities) == ["Group", "User", "Colour", "Clinic::Ward", "Clinic::Record"]
    assert (entities["Group"].parents, entities["Group"].attributes, entities["Group"].line) == ((), record(), 4)
    assert entities["User"].parents == ("Group",)
    assert entities["User"].attributes == record(name=STRING, **{"e mail": optional(STRING)})
    assert entities["Colour"].ids == ("red", "green")
    assert entities["Clinic::Ward"].parents == ("Clinic::Ward",)
    kept = entities["Clinic::Record"]
    assert (kept.parents, kept.line) == (("Clinic::Ward", "User"), 10)
    assert kept.tags == CedarType(name="Set", element=STRING)
    assert kept.attributes == record(
        sensitivity=CedarType(name="String", one_of=("normal", "restricted")),
        where=optional(record(street=STRING, zip=LONG)),
        owners=CedarType(name="Set", element=CedarType(name="User", is_entity=True)),
    )


def test_actions_are_read_with_their_context_and_annotations() -> None:
    """A common type is written out, and an action that applies to nothing is a group."""
    actions = types().actions

    assert list(actions) == ["tools/call", "reads", "read", "whole", "none"]
    assert (actions["reads"].context, actions["reads"].annotations) == (None, {"server": "records"})
    read = actions["read"]
    assert (read.groups, read.principals) == (("tools/call", "reads"), ("User",))
    assert read.resources == ("Clinic::Record", "Colour")
    assert read.annotations == {"resource": "Clinic::Record::{record_id}", "unannotated": ""}
    given = record(
        kind=CedarType(name="String", one_of=("a | b", "c")),
        sizes=CedarType(name="Set", element=CedarType(name="Set", element=CedarType(name="Long", one_of=("1", "2")))),
        if_paid=optional(CedarType(name="decimal")),
        **{"in": record(really=CedarType(name="Bool", one_of=("true",)))},
    )
    assert read.context == CedarType(
        name="Record",
        members={
            "input": Member(type=given),
            "now": Member(type=CedarType(name="datetime")),
            "for": Member(type=CedarType(name="duration")),
            "from": Member(type=CedarType(name="ipaddr")),
        },
    )
    assert (actions["whole"].context, actions["whole"].groups) == (given, ("reads",))
    assert (actions["none"].principals, actions["none"].context) == (("User", "Colour"), record())


def test_name_means_the_nearest_that_is_declared() -> None:
    """As in Cedar: in the namespace before outside of it, a common type before an entity type, ours before Cedar's."""
    text = """
      type decimal = String;
      entity Outer;
      namespace A { type Inner = Long; entity Own = { o: Outer, i: Inner, d: decimal, c: __cedar::decimal }; }
      entity User = { i: A::Inner, o: A::Own };
    """
    cedarpy.Schema.from_str(text)

    entities = read_types(text).entities

    assert entities["A::Own"].attributes == record(
        o=CedarType(name="Outer", is_entity=True), i=LONG, d=STRING, c=CedarType(name="decimal")
    )
    assert entities["User"].attributes == record(i=LONG, o=CedarType(name="A::Own", is_entity=True))


REFUSED: Final = {
    "permit (principal, action, resource);": "wants `entity`, `type`, `action` or `namespace`, got `permit`: mend it",
    "namespace A { namespace B {} }": "wants `entity`, `type`, `action` or `namespace`, got `namespace`: mend it",
    "entity A; entity A;": "`A` is declared twice: remove one",
    "type A = Long; type A = Long;": "`A` is declared twice: remove one",
    'action "a"; action "a";': "action `a` is declared twice: remove one",
    "namespace N { action a; }": "an action has no namespace here: move it out",
    "entity A = { a: Long, a: Long };": "`a` is declared twice in one record: remove one",
    "entity A = { a: What };": "there is no type `What`: declare it",
    "entity A = { a: N::What };": "there is no type `N::What`: declare it",
    "entity A in [B];": "there is no entity type `B`: declare it",
    "type B = Long; entity A in [B];": "there is no entity type `B`: declare it",
    'action a in ["b"];': "action `a` is in `b`, which is no action",
    "entity A": "wants `;`, got the end of the file: mend it",
    "entity": "wants a name, got the end of the file: mend it",
    'entity "A";': 'wants a name, got `"A"`: mend it',
    "entity A = {": "wants a name, got the end of the file: mend it",
    "entity A = { a Long };": "wants `:`, got `Long`: mend it",
    "entity A = { a: Set<Long; };": "wants `>`, got `;`: mend it",
    "entity A enum [Red];": "wants a string, got `Red`: mend it",
    'entity A enum ["a" "b"];': 'wants `,`, got `"b"`: mend it',
    'entity A = { "\\q": Long };': "`\\q` is not an escape that Cedar knows",
    "entity A; action a appliesTo { principal: A resource: A };": "wants `,`, got `resource`: mend it",
    "entity A; action a appliesTo { who: A };": "wants `principal`, `resource` or `context`, got `who`: mend it",
    "entity A; action a appliesTo { principal: A, resource: A, context: A };": "a context is a record, got A: mend it",
    '@a @a("x") entity A;': "@a stands here twice: remove one",
    "type A = { a: A }; entity B = { a: A };": "`A` contains itself: take a type that does not",
    'entity A = { @one_of("a") a: decimal };': (
        "@one_of lists values of String, Long or Bool, and `a` is decimal: remove it"
    ),
    'entity A = { @one_of("a") a: Set<{ b: Long }> };': (
        "@one_of lists values of String, Long or Bool, and `a` is a record: remove it"
    ),
    "entity A = { a: §": "`§` is not part of Cedar: remove it",
}


@pytest.mark.parametrize("text", REFUSED)
def test_text_that_is_no_schema_is_refused_where_it_is_wrong(text: str) -> None:
    """Nothing that was not checked before can bring the reader down."""
    with pytest.raises(LexError) as refused:
        read_types(f"\n{text}")

    assert refused.value.what == REFUSED[text]
    assert refused.value.line == 2


def doubling(names: int) -> str:
    """Return types that are each made of the next one twice."""
    pairs = (f"type T{at} = {{ a: T{at + 1}, b: T{at + 1} }};" for at in range(names))
    return f"{' '.join(pairs)} type T{names} = Long; entity A = {{ a: T0 }};"


@pytest.mark.parametrize(
    "text",
    [
        doubling(20),
        " ".join(f"type T{at} = {{ a: T{at + 1} }};" for at in range(500)) + "type T500 = Long; entity A = { a: T0 };",
        # What is known already still counts where it is used.
        "type T60 = "
        + "Set<" * 60
        + "Long"
        + ">" * 60
        + "; entity A = { a: T60, b: "
        + "Set<" * 60
        + "T60"
        + ">" * 60
        + "};",
    ],
    ids=["wide", "long", "deep"],
)
def test_types_that_name_each_other_are_bounded(text: str) -> None:
    """Cedar writes them out, and so would whoever reads them."""
    check_schema_bounds(text, tokens(text), Limits())

    with pytest.raises(LexError, match="this type is too large when all that it names is written out"):
        read_types(text)


def test_all_types_together_are_bounded() -> None:
    """A million parts are more than any server has."""
    text = doubling(16) + " ".join(f"entity A{at} = {{ a: T0 }};" for at in range(20))

    with pytest.raises(LexError, match="all types together are written out to at most 1000000 parts"):
        read_types(text)


TYPED: Final = (
    read_types("""
  entity User; namespace N { entity User; }
  entity E = {
    text: String, whole: Long, truth: Bool, money: decimal, at: datetime, span: duration, from: ipaddr,
    who: User, other: N::User, list: Set<Long>, record: { a: Long, b?: String },
    @one_of("csv | json") format: String, @one_of("1 | 2") few: Long,
  };
""")
    .entities["E"]
    .attributes.members
)


WHOLE: Final = ": write digits alone, at most 64 bits of them"
MONEY: Final = ": write digits, and at most four after the point: `12.50`"
MOMENT: Final = ": write it with its zone, `2026-11-24T10:00:00Z`, or a day, `2026-11-24`"
SPAN: Final = ": write `1h30m`, of d, h, m, s and ms in this order"
USER: Final = ': write `User::id`, or `User::"its id"`'


def call(function: str, argument: str) -> dict[str, Any]:
    """Return a call in Cedar JSON."""
    return {"__extn": {"fn": function, "arg": argument}}


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("text", "1000.00", "1000.00"),
        ("text", "", ""),
        ("whole", "-9223372036854775808", -(2**63)),
        ("truth", "true", True),
        ("truth", "false", False),
        ("money", "1000.00", call("decimal", "1000.0000")),
        ("money", "-0.5", call("decimal", "-0.5000")),
        ("at", "2026-11-24T10:00:00Z", call("datetime", "2026-11-24T10:00:00.000Z")),
        ("at", "2026-11-24 10:00+0100", call("datetime", "2026-11-24T09:00:00.000Z")),
        ("at", "2026-11-24T10:00:00.5-01:30", call("datetime", "2026-11-24T11:30:00.500Z")),
        ("at", "2026-11-24", call("datetime", "2026-11-24T00:00:00.000Z")),
        ("span", "1h30m", call("duration", "5400000ms")),
        ("span", "-1d2h3m4s5ms", call("duration", "-93784005ms")),
        ("from", "10.0.0.1", call("ip", "10.0.0.1")),
        ("from", "10.0.0.0/8", call("ip", "10.0.0.0/8")),
        ("from", "::1", call("ip", "0000:0000:0000:0000:0000:0000:0000:0001")),
        ("who", "User::alice@example.com", {"__entity": {"type": "User", "id": "alice@example.com"}}),
        ("who", 'User::"a \\"b\\" c"', {"__entity": {"type": "User", "id": 'a "b" c'}}),
        ("other", "N::User::a::b", {"__entity": {"type": "N::User", "id": "a::b"}}),
        ("list", ["1", "2"], [1, 2]),
        ("record", {"a": "1"}, {"a": 1}),
        ("record", {"a": "1", "b": "x"}, {"a": 1, "b": "x"}),
        ("format", "csv", "csv"),
        ("few", "2", 2),
    ],
)
def test_text_becomes_the_value_that_its_type_says(name: str, value: Any, expected: object) -> None:
    """In the very form that the guard gives a value of a call."""
    assert value_of(value, TYPED[name].type, name) == expected


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("text", ["a"], "`text` wants text, got a list: put it into quotes"),
        (
            "text",
            "\ud800",
            "`text` wants text without lone surrogates, and this `str` is not: mend `\N{REPLACEMENT CHARACTER}`",
        ),
        ("whole", "1.0", f"`whole` wants a whole number, got `1.0`{WHOLE}"),
        (
            "whole",
            "9223372036854775808",
            f"`whole` wants a whole number, got `9223372036854775808`{WHOLE}",
        ),
        ("truth", "yes", "`truth` wants a truth value, got `yes`: write `true` or `false`"),
        (
            "money",
            "1.00001",
            f"`money` wants a decimal, got `1.00001`{MONEY}",
        ),
        ("money", "1e3", f"`money` wants a decimal, got `1e3`{MONEY}"),
        (
            "money",
            "999999999999999",
            (
                "`money` wants a number that is exact in four decimal places, and this `Decimal` is not: "
                "mend `999999999999999`"
            ),
        ),
        (
            "at",
            "2026-11-24T10:00:00",
            f"`at` wants a moment, got `2026-11-24T10:00:00`{MOMENT}",
        ),
        (
            "at",
            "2026-02-30",
            f"`at` wants a moment, got `2026-02-30`{MOMENT}",
        ),
        (
            "at",
            "0001-01-01T00:00:00+01:00",
            (
                "`at` wants a datetime in the years 1 to 9999, in UTC, and this `datetime` is not: "
                "mend `0001-01-01T00:00:00+01:00`"
            ),
        ),
        ("span", "", f"`span` wants a duration, got ``{SPAN}"),
        ("span", "-", f"`span` wants a duration, got `-`{SPAN}"),
        ("span", "1m1h", f"`span` wants a duration, got `1m1h`{SPAN}"),
        (
            "span",
            "9223372036854775807d",
            f"`span` wants a duration, got `9223372036854775807d`{SPAN}",
        ),
        (
            "from",
            "10.0.0.300",
            "`from` wants an IP address, got `10.0.0.300`: write `10.0.0.1`, or a range, `10.0.0.0/8`",
        ),
        (
            "from",
            "::ffff:10.0.0.1",
            (
                "`from` wants an IP address without a scope, and not IPv4 inside IPv6, and this `IPv6Address` is not: "
                "mend `::ffff:10.0.0.1`"
            ),
        ),
        ("who", "alice", f"`who` wants a `User`, got `alice`{USER}"),
        ("who", "User::", f"`who` wants a `User`, got `User::`{USER}"),
        ("who", 'User::"a', f'`who` wants a `User`, got `User::"a`{USER}'),
        ("who", 'User::"a" "b"', f'`who` wants a `User`, got `User::"a" "b"`{USER}'),
        ("who", "Group::a", f"`who` wants a `User`, got `Group::a`{USER}"),
        ("who", {}, f"`who` wants a `User`, got a record{USER}"),
        ("list", "1", "`list` wants a list, got `1`: put it into brackets, `[…]`"),
        ("list", ["1", "x"], f"`list[1]` wants a whole number, got `x`{WHOLE}"),
        ("record", [], "`record` wants a record, got a list: give it members, such as `a`, `b`"),
        ("record", {}, "`record.a` is missing, and is always there: give it a Long"),
        ("record", {"a": "1", "c": "1"}, "`record` has no member `c`: there is `a`, `b`"),
        ("record", {"a": "x"}, "`record.a` wants a whole number, got `x`: write digits alone, at most 64 bits of them"),
        ("format", "cvs", "`format` wants one of its values, got `cvs`: did you mean `csv`?"),
        ("text", {"x" * 70: "\x1b"}, "`text` wants text, got a record: put it into quotes"),
        (
            "whole",
            "\x1b[31m" + "x" * 70,
            f"`whole` wants a whole number, got `\N{REPLACEMENT CHARACTER}[31m{'x' * 59}…`{WHOLE}",
        ),
    ],
)
def test_text_that_is_not_exactly_of_its_type_is_refused(name: str, value: Any, message: str) -> None:
    """Nothing is rounded or guessed, and what was wanted is said with an example."""
    with pytest.raises(ConfigurationError) as refused:
        value_of(value, TYPED[name].type, name)

    assert str(refused.value) == message


def test_record_without_members_says_so() -> None:
    """There is nothing to give it as an example."""
    with pytest.raises(ConfigurationError, match="`x` wants a record, got `1`: give it members, such as none"):
        value_of("1", record(), "x")


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (
            " ".join(f"type T{at} = {{ a: T{at + 1}, b: T{at + 1} }};" for at in range(60)) + " type T60 = Long;",
            "this type is too large when all that it names is written out: split it",
        ),
        (
            "entity B0; " + " ".join(f"entity B{at + 1} in [B{at}];" for at in range(1000)),
            "what is declared here is in other things more than 250000 times: nest it less",
        ),
        (
            "action a0; " + " ".join(f"action a{at + 1} in [a{at}];" for at in range(1000)),
            "what is declared here is in other things more than 250000 times: nest it less",
        ),
    ],
)
def test_what_cedar_would_take_minutes_for_never_reaches_it(text: str, what: str) -> None:
    """Types that nothing names, and long chains of types or actions."""
    with pytest.raises(LexError) as refused:
        read_types(text)

    assert refused.value.what == what
