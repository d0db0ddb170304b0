"""The schema that is written for people, and the guarded tools that are made of it again."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from ipaddress import IPv4Address
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NotRequired, TypedDict

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.errors import ConfigurationError, PolicyError, Refusal
from agentguard.limits import Limits
from agentguard.model import EntityUid
from agentguard.policy.conversion.values import Field, Shape, Spend, record_of, shape_of, to_cedar
from agentguard.policy.files.entityfile import StaticEntity
from agentguard.policy.files.reread import shape_from
from agentguard.policy.files.source import PolicySource, compile_policies, read_folder
from agentguard.policy.files.written import Offered, WrittenSchema, named_server, read_schema, type_of, write_schema
from agentguard.policy.schemas.layout import WIDTH
from agentguard.policy.schemas.schema import METHODS, GuardedTool, OwnType, credential_tool, method_tool, read_fragment
from agentguard.policy.schemas.types import read_types
from agentguard.policy.text.annotations import CHOICE, COMMA, joined, listed
from agentguard.request import ResourceTemplate
from tests.world import write_policies

LIMITS: Final = Limits()
EVERYTHING: Final = '@id("everything") permit (principal, action, resource);'
METHOD_OFFERS: Final = tuple(Offered(tool=method_tool(method, "records")) for method in METHODS)


class Filters(TypedDict):
    """A record with most kinds of members."""

    sensitivity: Literal["normal", "restricted"]
    since: NotRequired[datetime]
    sizes: list[Literal[1, 2]]
    rates: dict[Literal["a", "b"], Decimal]
    really: Literal[True]


class Facts(TypedDict):
    """What a declared function adds."""

    total: Annotated[int, Spend("rows")]


def source(*fragments: str, grouped: bool = False) -> PolicySource:
    """Return a policy folder with types of a team."""
    alice = EntityUid("User", "alice")
    entity = StaticEntity(alice, {"uid": alice.as_json(), "attrs": {}, "parents": []}, 1)
    return PolicySource(
        folder="/policies",
        files=(),
        policies=(),
        fragments=tuple(
            read_fragment(f"types/{place}.cedarschema", text, LIMITS) for place, text in enumerate(fragments)
        ),
        entities=(entity,) if grouped else (),
    )


def tool(name: str = "read", *, fields: Mapping[str, object] | None = None, **details: Any) -> GuardedTool:
    """Return a guarded tool with arguments of these types."""
    shape = record_of({key: Field(kind) for key, kind in (fields or {}).items()}, where=name)
    details.setdefault("groups", frozenset({"tools/call", "read-only"}))
    return GuardedTool(name=name, server="records", input=shape, **details)


READ: Final = Offered(
    tool=tool("read", fields={"record_id": str}, resource_type="Record"),
    resource=ResourceTemplate("Record", "record_id"),
)
EXPORT: Final = Offered(
    tool=tool(
        "export",
        fields={"filters": Filters | None, "limit": int, "price": Annotated[Decimal | None, Spend("payments")]},
        facts=shape_of(Facts, where="facts"),
        totals=("other", "payments", "rows"),
        labels=frozenset({"untrusted", "a, b"}),
        groups=frozenset({"tools/call", "open-world"}),
        unseen=("path", "a, b", "c\\d"),
    ),
    annotated=False,
)
NOTES: Final = Offered(
    tool=tool("resources/read/notes", fields={"day": str}, kind=OwnType.RESOURCE, groups=frozenset({"resources/read"}))
)
ASK: Final = Offered(
    tool=tool("prompts/get/ask", kind=OwnType.PROMPT, groups=frozenset({"prompts/get"}), resource_type="Clinic::Ward")
)
CREDENTIALS: Final = Offered(
    tool=credential_tool("records", ["bank", "crm"]), resource=ResourceTemplate("Credential", "credential")
)
WRITTEN: Final = WrittenSchema(
    server="records",
    offers=(READ, EXPORT, NOTES, ASK, *METHOD_OFFERS, CREDENTIALS),
    loaders=frozenset({"Record", "Clinic::Ward"}),
    claims={"tenant": str, "level": int, "staff": bool, "teams": frozenset},
)
TYPES: Final = """// Ours.
entity Local;
type exportInput = { unlike: String };
entity Record in [Tool] = { local: Local, kept: exportInput };   // the last line has no end"""


def parts_of(shape: Shape) -> list[object]:
    """Return all that is said of a shape, however deep."""
    inner = [] if shape.element is None else [parts_of(shape.element)]
    return [
        shape,
        shape.spends,
        inner,
        [(part.name, part.optional, parts_of(part.shape)) for part in shape.parts],
    ]


def deep(offered: Offered) -> list[object]:
    """Return all that is said of something offered."""
    facts = [] if offered.tool.facts is None else parts_of(offered.tool.facts)
    return [offered, parts_of(offered.tool.input), facts]


def again(written: WrittenSchema, folder: PolicySource) -> WrittenSchema:
    """Return what is read from what was written, which Cedar takes too."""
    text = write_schema(written, folder)
    assert write_schema(written, folder) == text
    cedarpy.Schema.from_str(text)
    read = read_schema(text, LIMITS)
    assert write_schema(read, folder) == text
    return read


def test_everything_survives_the_file() -> None:
    """Tools, resources, prompts and methods, with their templates, facts, loaders, claims and what nobody sees."""
    read = again(WRITTEN, source(TYPES, grouped=True))

    assert read == WRITTEN
    assert list(map(deep, read.offers)) == list(map(deep, WRITTEN.offers))
    assert read.tools == [offered.tool for offered in WRITTEN.offers]


@pytest.mark.parametrize("named", ["server.py", "path/to/server.py:name", "./a-b/server.py", "package.module:server"])
def test_file_says_how_its_server_is_named(named: str) -> None:
    """For whoever has to write it again. Nothing that decides is another for it."""
    text = write_schema(WRITTEN, source(), named=named)

    assert named_server(text) == named
    assert read_schema(text, LIMITS) == read_schema(write_schema(WRITTEN, source()), LIMITS)


@pytest.mark.parametrize("named", ["/srv/server.py", "--write", "a b", "a`; touch owned #", "a\n// b", "é.py", ""])
def test_file_names_no_server_that_others_should_not_type(named: str) -> None:
    """A place on one machine says nothing on others, and a file could steer the shell of its reader."""
    text = write_schema(WRITTEN, source(), named=named)

    assert named_server(text) == "SERVER"
    assert named_server(text.replace("SERVER", named, 1)) == "SERVER"


def test_file_reads_well() -> None:
    """It says who wrote it, what it is for, and each thing once."""
    text = write_schema(WRITTEN, source(TYPES, grouped=True))

    assert max(map(len, text.splitlines())) <= WIDTH
    head, rest = text.split("\n\n", 1)
    assert head == (
        '// What policies can say about server "records": 2 tools, 1 resource, 1 prompt.\n'
        "// Written by `agentguard schema SERVER --write FOLDER`: write it again when the tools change.\n"
        "// For editors, and for the commands that check policies without the server. The guard never\n"
        "// reads it: it makes its own from the tools."
    )
    assert f"// types/0.cedarschema\n{TYPES}\n" in rest
    assert "entity User in [Group];\n" in rest
    assert "namespace Clinic { entity Ward in [Prompt]; }\n" in rest
    assert "  spent: { other: decimal, payments: decimal, rows: decimal },\n" in rest
    # Names that the team's types have taken are left to them.
    assert "type Local2 = { weekday: Long, minute: Long };\n" in rest
    assert (
        "type exportInput2 = {\n"
        "  filters?: {\n"
        '    @one_of("normal | restricted") sensitivity: String,\n'
        "    since?: datetime,\n"
        '    @one_of("1 | 2") sizes: Set<Long>,\n'
        '    rates: Set<{ @one_of("a | b") key: String, value: decimal }>,\n'
        '    @one_of("true") really: Bool,\n'
        "  },\n"
        "  limit: Long,\n"
        '  @spends("payments") price?: decimal,\n'
        "};\n"
        'type exportFacts = { @spends("rows") total: Long };\n'
        '@unseen("path, a\\u{5c}, b, c\\u{5c}\\u{5c}d")\n'
        '@totals("other, payments, rows")\n'
        '@labels("a\\u{5c}, b, untrusted")\n'
        '@unannotated("")\n'
        'action "export" in [Action::"open-world", Action::"tools/call"] appliesTo {\n'
        "  principal: Invocation,\n"
        "  resource: Tool,\n"
        "  context: {\n"
        "    input: exportInput2,\n"
        "    now: datetime,\n"
        "    local: Local2,\n"
        "    environment: String,\n"
        "    transport: String,\n"
        "    run: Run,\n"
        "    approval?: Approval,\n"
        "    facts: exportFacts,\n"
        "  },\n"
        "};\n"
    ) in rest


def test_server_without_tools_is_written_too() -> None:
    """A policy folder may be there first."""
    written = WrittenSchema(server='a "b"\n', offers=METHOD_OFFERS)

    text = write_schema(written, source())

    assert text.startswith('// What policies can say about server "a \\u{22}b\\u{22}\\u{a}": it has no tool yet.\n')
    assert again(written, source()).server == written.server


LONG: Final = "value that is as long as a sentence"


def test_what_does_not_fit_on_a_line_is_broken() -> None:
    """A list of values stands above its member, and an empty record stays one."""

    class Empty(TypedDict):
        pass

    written = WrittenSchema(
        server="records",
        offers=(
            Offered(
                tool=tool(
                    fields={
                        "kind": Literal["one " + LONG, "another " + LONG, "third " + LONG],
                        "one" * 30: list[Filters],
                        "two" * 40: Empty,
                        "three" * 30: str,
                        "in": int,
                    }
                )
            ),
            *METHOD_OFFERS,
        ),
    )

    text = write_schema(written, source())

    assert f'  @one_of("one {LONG} | another {LONG} | third {LONG}")\n  kind: String,\n' in text
    assert f"  {'one' * 30}: Set<{{\n    @one_of(" in text
    assert "\n  }>,\n" in text
    assert f"  {'two' * 40}: {{}},\n" in text
    assert f"  {'three' * 30}: String,\n" in text
    assert '  "in": Long,\n' in text
    assert again(written, source()) == written


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
_CHOICES = st.one_of(
    st.lists(_TEXTS | st.just(" | "), min_size=1, max_size=4, unique=True).map(lambda values: Literal[tuple(values)]),
    st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3, unique=True).map(
        lambda values: Literal[tuple(values)]
    ),
    st.just(Literal[False, True]),
)
_TOTALS = st.sampled_from(["payments", "rows", "a1"])
_SPENT = st.tuples(st.sampled_from([int, float, Decimal]), _TOTALS).map(lambda one: Annotated[one[0], Spend(one[1])])
_SCALARS = st.sampled_from([str, int, bool, Decimal, datetime, timedelta, IPv4Address]) | _CHOICES


def _records(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    names = _TEXTS.filter(lambda name: not name.startswith("__"))
    return st.dictionaries(names, inner, max_size=4).map(
        lambda members: TypedDict("Made", members, total=len(members) % 2 == 0)  # type: ignore[operator]
    )


_ANNOTATIONS = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        inner.map(lambda one: list[one]),  # type: ignore[valid-type]
        inner.map(lambda one: dict[str, one]),  # type: ignore[valid-type]
        _records(inner),
    ),
    max_leaves=8,
)
_GROUPS = st.sets(st.sampled_from(["read-only", "destructive", "open-world", "idempotent"])).map(
    lambda groups: frozenset({"tools/call", *groups})
)


@st.composite
def _offered(draw: st.DrawFn, name: str) -> Offered:
    names = _TEXTS.filter(lambda one: not one.startswith("__"))
    fields = draw(st.dictionaries(names, _ANNOTATIONS | _SPENT, max_size=4))
    optional = draw(st.sets(st.sampled_from(sorted(fields)))) if fields else set()
    shape = record_of({key: Field(kind, key not in optional) for key, kind in fields.items()}, where="a")
    unseen = draw(st.lists(_TEXTS, max_size=2, unique=True))
    template = draw(
        st.sampled_from([None, ResourceTemplate("Record", "record_id"), ResourceTemplate("N::Doc", "x", each=True)])
    )
    if template is not None and template.argument not in fields:
        unseen.append(template.argument)
    made = GuardedTool(
        name=name,
        server="records",
        input=shape,
        facts=draw(st.none() | _records(_ANNOTATIONS | _SPENT).map(lambda kind: shape_of(kind, where="facts"))),
        resource_type=None if template is None else template.type,
        groups=draw(_GROUPS),
        unseen=tuple(unseen),
        labels=frozenset(draw(st.sets(_TEXTS, max_size=2))),
    )
    shapes = [made.input, *([] if made.facts is None else [made.facts])]
    spent = {part.shape.spends for one in shapes for part in one.parts} - {""}
    made = replace(made, totals=tuple(sorted({*spent, *draw(st.sets(_TOTALS, max_size=2))})))
    return Offered(tool=made, resource=template, annotated=draw(st.booleans()))


@st.composite
def written_schemas(draw: st.DrawFn) -> WrittenSchema:
    """Draw the schema of a server."""
    taken = {"read-only", "destructive", "open-world", "idempotent", "tools/call", *METHODS}
    names = draw(st.lists(_TEXTS.filter(lambda name: name not in taken), max_size=3, unique=True))
    claims = draw(st.dictionaries(_TEXTS, st.sampled_from([str, int, bool, frozenset]), max_size=2))
    offers = [draw(_offered(name)) for name in names]
    acted_on = {offered.tool.resource_type for offered in offers} - {None}
    return WrittenSchema(
        server="records",
        offers=(*offers, *METHOD_OFFERS),
        loaders=frozenset(acted_on),  # type: ignore[arg-type]
        claims={name: kind for name, kind in claims.items() if not name.startswith("__")},
    )


@settings(max_examples=15, deadline=None)
@given(written=written_schemas(), grouped=st.booleans())
def test_any_server_is_compiled_to_the_same_version(written: WrittenSchema, grouped: bool) -> None:
    """Whatever its tools are called and take: what is read from the file decides exactly as the guard does."""
    assert_same_again(written, grouped=grouped)


def assert_same_again(written: WrittenSchema, *, grouped: bool) -> None:
    """Fail unless what is read from the file is what was written, and compiled to the same version."""
    folder = source("entity Extra in [Group];", grouped=grouped)
    read = again(written, folder)

    assert list(map(deep, read.offers)) == list(map(deep, written.offers))
    assert version(read, folder) == version(written, folder)


def version(written: WrittenSchema, folder: PolicySource) -> str:
    """Return the version of policies that were compiled for a server."""
    return compile_policies(
        folder, written.tools, loaders=written.loaders, claims=written.claims, limits=LIMITS
    ).version


@settings(max_examples=50, deadline=None)
@given(
    texts=st.lists(st.text(st.sampled_from("ab|, \\")), min_size=1, max_size=4),
    separator=st.sampled_from([CHOICE, COMMA]),
)
def test_list_in_an_annotation_is_taken_apart_as_it_was_joined(texts: list[str], separator: str) -> None:
    """Whatever its texts are."""
    assert listed(joined(texts, separator), separator) == tuple(texts)


def test_list_that_a_person_wrote_is_read_too() -> None:
    """Blanks around the mark may be left out, and a last backslash is one."""
    assert listed("a|b", CHOICE) == ("a", "b")
    assert listed("a,b\\", COMMA) == ("a", "b\\")


def test_shape_from_a_file_converts_nothing() -> None:
    """Values come typed where there is no Python, so nobody calls it; if somebody did, it would refuse."""
    shape = shape_from(type_of(record_of({"a": Field(int)}, where="a")), where="a")

    with pytest.raises(Refusal) as refused:
        to_cedar({"a": 1}, shape, LIMITS)

    assert refused.value.detail == "`a value` wants a shape that was made from a type, and this `int` is not"


BASE: Final = write_schema(replace(WRITTEN, offers=(READ, EXPORT, *METHOD_OFFERS)), source())
FIX: Final = "write it again, with `agentguard schema SERVER --write FOLDER`"
EDITS: Final[Sequence[tuple[str, str, str]]] = [
    ("@server(", "@servers(", f'says of no server what it offers, as `@server("its name")` above its groups: {FIX}'),
    ("type readInput = {", "type readInput = ", "wants `;`, got `:`: mend it"),
    (
        "  principal: Invocation,\n  resource: Record,",
        "  principal: Invocation,\n  resource: Recordd,",
        "there is no entity type `Recordd`: declare it",
    ),
    ("resource: Record,", "resource: [Record, Tool],", "action `read` wants one type of resource, got 2: write"),
    (
        "resource: Record,",
        "resource: Tool,",
        "action `read` acts on `Tool`, and its @resource is `Record::{record_id}`: write",
    ),
    ("Record::{record_id}", "Record::record_id", "action `read`: resource `Record::record_id` is no template: write"),
    ("input: readInput,", "input?: readInput,", "`context.input` of action `read` wants a record, always there: write"),
    ("input: readInput,", "input: String,", "`context.input` of action `read` wants a record, always there: write"),
    ("    input: readInput,\n", "", "action `read` has no `input` in its context: write"),
    (
        "{ record_id: String }",
        "{ record_id: User }",
        "`context.input` of action `read`: `User` is an entity, which no argument is: write",
    ),
    (
        '@one_of("1 | 2")',
        '@one_of("1 | b")',
        "`context.input` of action `export`: @one_of wants whole numbers, got `b`: write",
    ),
    (
        '@one_of("true")',
        '@one_of("maybe")',
        "`context.input` of action `export`: @one_of wants `true` or `false`, got `maybe`: write",
    ),
    (
        '@totals("other, payments, rows")',
        '@totals("other, pay ments")',
        "action `export` has @totals, and `pay ments` is no name of one: write",
    ),
    (
        '@spends("payments") price?: decimal',
        '@spends("pay ments") price?: decimal',
        "@spends names a total, such as `payments`, for a Long or a decimal, got `pay ments` for `price`",
    ),
    (
        '@spends("payments") price?: decimal',
        '@spends("payments") price?: String',
        "got `payments` for `price`, which is String: remove it",
    ),
    (
        '@server("records")',
        'action "mine"; @server("records")',
        "action `mine` applies to nothing: remove it, or write",
    ),
    (
        'action "read" in [',
        'action "mine"; action "read" in [Action::"mine", ',
        "action `read` is in `mine`, which the guard has not: write",
    ),
    (
        "entity Invocation in [Agent, Task] = {",
        "entity Invocation in [Agent, Task] = { other?: Set<Long>,",
        "claim `other` of `Invocation` is Set<Long>, which no claim can be: write",
    ),
    ("entity Server;", "entity Server in [Serve];", "there is no entity type `Serve`: declare it"),
    ("entity Server;", "entity Server; type Extension = Long;", "Cedar cannot read it: "),
    (
        "entity Server;",
        "entity Server = { a: " + "Set<" * 101 + "Long" + ">" * 101 + "};",
        "brackets and `if` are nested at most 100 deep: flatten or split this",
    ),
    ("entity Server;", 'entity Server; entity "x\x1b";', 'wants a name, got `"x\N{REPLACEMENT CHARACTER}"`: mend it'),
]


@pytest.mark.parametrize(("old", "new", "problem"), EDITS)
def test_edited_file_is_refused_with_what_is_wrong(old: str, new: str, problem: str) -> None:
    """People edit what they should not, and what is said has a line and a fix."""
    assert old in BASE

    with pytest.raises(PolicyError) as refused:
        read_schema(BASE.replace(old, new, 1), LIMITS)

    assert any(problem in one for one in refused.value.problems), refused.value.problems
    assert all(one.startswith("agentguard.cedarschema:") for one in refused.value.problems)
    assert all(found.name == "invalid-schema" for found in refused.value.found)


def test_file_without_an_invocation_is_refused() -> None:
    """Every principal is one."""
    text = (
        '@server("records") action "tools/call";'
        "entity Tool; entity Run;"
        'action "a" appliesTo { principal: Run, resource: Tool, context: { input: {} } };'
    )

    with pytest.raises(PolicyError, match="declares no `Invocation`, which every principal is"):
        read_schema(text, LIMITS)


def test_file_that_is_too_large_is_not_read() -> None:
    """Sixteen million characters are more than any server has."""
    with pytest.raises(PolicyError, match="holds 16777217 characters, and may hold 16777216"):
        read_schema("/" * (2**24 + 1), LIMITS)


def test_arguments_that_are_nested_deeper_than_policies_may_be_are_told() -> None:
    """Nobody could read them again."""
    written = WrittenSchema(server="records", offers=(EXPORT, *METHOD_OFFERS))

    with pytest.raises(ConfigurationError, match="what the server offers cannot be written: this type is too large"):
        write_schema(written, source(), replace(LIMITS, policy_nesting=3))


def test_types_that_cedar_would_write_out_without_end_never_reach_it() -> None:
    """Thirty lines would be a billion parts."""
    pairs = " ".join(f"type T{at} = {{ a: T{at + 1}, b: T{at + 1} }};" for at in range(30))

    with pytest.raises(PolicyError, match="this type is too large"):
        read_schema(f"{pairs} type T30 = Long; entity A = {{ a: T0 }};", LIMITS)


def test_running_guard_has_the_version_of_the_file(tmp_path: Path) -> None:
    """The names and bytes of a folder's files count, and the file itself does not."""
    folder = write_policies(tmp_path / "policies", EVERYTHING, types=TYPES)
    written = replace(WRITTEN, loaders=WRITTEN.loaders | {"Local"})
    before = version(written, read_folder(folder, LIMITS))
    (folder / "agentguard.cedarschema").write_text(write_schema(written, read_folder(folder, LIMITS)))

    read = read_schema((folder / "agentguard.cedarschema").read_text(), LIMITS)

    assert version(read, read_folder(folder, LIMITS)) == before


def test_types_in_the_file_are_those_of_the_guard() -> None:
    """What an editor sees is what policies are checked against; only lists of values are more than Cedar knows."""
    read = read_types(BASE)

    assert list(read.entities) == ["User", "Agent", "Task", "Invocation", "Server", "Tool", "Record"]
    assert read.actions["read"].resources == ("Record",)
