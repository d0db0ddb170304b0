"""The schema that guarded tools amount to, checked by the real Cedar."""

from collections.abc import Mapping, Sequence

import cedarpy
import pytest

from agentguard.errors import ConfigurationError, PolicyError
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.schemas.fragments import EntityType
from agentguard.policy.schemas.schema import (
    GROUPS,
    METHODS,
    GuardedTool,
    OwnType,
    SchemaTexts,
    action_of,
    method_tool,
    read_fragment,
    schema_texts,
)

LIMITS = Limits()
INPUT = record_of({"record_id": Field(str), "note": Field(str | None)}, where="read")
FACTS = record_of({"total": Field(int)}, where="read facts")


def tool(name: str = "read", *, resource_type: str | None = None, facts: bool = False) -> GuardedTool:
    """Return a guarded tool."""
    return GuardedTool(
        name=name,
        server="records",
        input=INPUT,
        facts=FACTS if facts else None,
        resource_type=resource_type,
        groups=frozenset({"tools/call", "read-only"}),
    )


def other(kind: OwnType, name: str = "notes", *, resource_type: str | None = None) -> GuardedTool:
    """Return a guarded resource or prompt."""
    method = action_of(kind, "").rstrip("/")
    return GuardedTool(
        name=action_of(kind, name),
        server="records",
        input=INPUT,
        resource_type=resource_type,
        groups=frozenset({method}),
        kind=kind,
    )


RESOURCE, PROMPT = other(OwnType.RESOURCE), other(OwnType.PROMPT, "summary")


def texts(
    *tools: GuardedTool,
    fragments: Sequence[str] = (),
    grouped: frozenset[str] = frozenset(),
    claims: Mapping[str, type] | None = None,
) -> SchemaTexts:
    """Return the schema of a server, each part of which Cedar has taken."""
    read = [read_fragment(f"types/{place}.cedarschema", text, LIMITS) for place, text in enumerate(fragments)]
    made = schema_texts(tools, read, grouped=grouped, claims=claims or {})
    cedarpy.Schema.from_str(made.types)
    cedarpy.Schema.from_str(made.full)
    for action in made.actions:
        cedarpy.Schema.from_str(made.alone(action))
    return made


def valid(schema: SchemaTexts, condition: str, action: str = "read") -> bool:
    """Return whether a policy with *condition* fits the schema."""
    policy = f'permit (principal, action == Action::"{action}", resource) when {{ {condition} }};'
    return cedarpy.validate_policies(policy, cedarpy.Schema.from_str(schema.full)).validation_passed


@pytest.mark.parametrize(
    "condition",
    [
        'principal.agent == Agent::"a" && principal in Agent::"a" && principal in Task::"t"',
        'principal has user && principal.user == User::"u"',
        'principal has task && principal.task == Task::"t"',
        'principal has purpose && principal.purpose == "p"',
        'principal.issuer == "i" && principal.scopes.contains("s") && principal.grade == "run"',
        'principal.ends_at > principal.issued_at && principal.lifetime < duration("1h")',
        "principal.delegation_depth == 0",
        'resource == Tool::"read" && resource in Server::"records"',
        'context.input.record_id == "r" && context.input has note && context.input.note like "*"',
        'context.now > datetime("2024-10-15") && context.local.weekday < 6 && context.local.minute < 1080',
        'context.environment == "production" && context.transport == "http"',
        'context has approval && context.approval.channel == "c" && context.approval.at < context.now',
        'context has approval && context.approval has approver && context.approval.approver == User::"u"',
        *(f'action in Action::"{group}"' for group in sorted(GROUPS)),
    ],
)
def test_a_policy_can_speak_of_what_every_call_has(condition: str) -> None:
    """The whole vocabulary is in the schema."""
    assert valid(texts(tool()), condition)


@pytest.mark.parametrize(
    "condition",
    [
        "context.input.nothing",
        "context.input.note == context.input.note",
        "context.approval.channel == context.approval.channel",
        'principal.user == User::"u"',
        "context.facts.total == 1",
    ],
)
def test_a_policy_cannot_speak_of_what_may_not_be_there(condition: str) -> None:
    """A slip is found when the policy is loaded."""
    assert not valid(texts(tool()), condition)


def test_facts_are_always_there_where_a_tool_declares_them() -> None:
    """They need no `has`."""
    assert valid(texts(tool(facts=True)), "context.facts.total > 1")


@pytest.mark.parametrize("name", ["delete-file", 'a"b\\c', "x::y", "é\n", "if", "principal", "a b", "🦊"])
def test_a_tool_may_have_any_name(name: str) -> None:
    """An action's name is a string, and nothing is named after a tool but its action."""
    assert name in texts(tool(name), tool("other")).actions


def test_the_types_do_not_grow_with_the_tools() -> None:
    """So a call's cost does not either."""
    one = texts(tool("a"))
    many = texts(*(tool(f"t{number}") for number in range(50)))

    assert one.types == many.types
    assert len(many.actions) == 50


def test_a_resource_type_that_nobody_declares_is_generated_in_the_tool() -> None:
    """With its namespace, and once for all tools that name it."""
    schema = texts(
        tool(resource_type="Record"), tool("b", resource_type="Acme::File"), tool("c", resource_type="Acme::File")
    )

    assert schema.entities["Record"] == EntityType("Record", ("Tool",))
    assert schema.entities["Acme::File"] == EntityType("Acme::File", ("Tool",))
    assert valid(schema, 'resource == Record::"r" && resource in Tool::"read" && resource in Server::"s"')
    assert valid(schema, 'resource == Acme::File::"f"', "c")


def test_a_declared_resource_type_is_not_generated() -> None:
    """Its attributes are then known."""
    schema = texts(
        tool(resource_type="Acme::Record"),
        fragments=["namespace Acme { entity Record in Tool = { sensitivity: String }; } // end"],
    )

    assert valid(schema, 'resource.sensitivity == "restricted" && resource in Tool::"read"')
    assert not schema.entities["Acme::Record"].bare


def test_a_method_acts_on_the_server() -> None:
    """Which is generated anyway."""
    schema = texts(method_tool("resources/read", "records"))

    assert valid(schema, 'resource == Server::"records" && context.input.uri like "x*"', "resources/read")


def test_resources_and_prompts_have_types_of_their_own_where_they_are_guarded() -> None:
    """And nowhere else: a team may have those names to itself."""
    schema = texts(tool(), RESOURCE, PROMPT)
    own = texts(tool(resource_type="Resource"), fragments=["entity Prompt;"])

    assert valid(schema, 'resource == Resource::"notes" && resource in Server::"records"', "resources/read/notes")
    assert valid(schema, 'resource == Prompt::"summary" && context.input.record_id == "r"', "prompts/get/summary")
    assert schema.ours == {"Invocation", "Server", "Tool", "Resource", "Prompt"}
    assert own.entities["Resource"].parents == ("Tool",)
    assert own.ours == {"Invocation", "Server", "Tool"}


@pytest.mark.parametrize("methods", [(), tuple(METHODS)])
def test_a_method_is_the_group_of_what_is_guarded(methods: Sequence[str]) -> None:
    """`in` covers all of it, `==` the rest alone; and one action's schema has the group without its context."""
    schema = texts(tool(), RESOURCE, PROMPT, *(method_tool(method, "records") for method in methods))

    assert valid(schema, 'action in Action::"resources/read"', "resources/read/notes")
    assert valid(schema, 'action in Action::"prompts/get"', "prompts/get/summary")
    assert "context.input.uri" not in schema.alone("resources/read/notes")
    assert 'action "resources/read";' in schema.alone("resources/read/notes")
    assert 'action "prompts/get"' not in schema.alone("resources/read/notes")


def test_a_type_may_be_acted_on_in_several_ways() -> None:
    """A generated one is then in each of them."""
    schema = texts(tool(resource_type="Record"), other(OwnType.RESOURCE, resource_type="Record"))

    assert schema.entities["Record"].parents == ("Tool", "Resource")
    assert valid(schema, 'resource in Resource::"notes" && resource in Server::"records"', "resources/read/notes")


def test_a_tool_may_act_on_a_user() -> None:
    """The type then is in the tool as well as in its groups."""
    schema = texts(tool(resource_type="User"), grouped=frozenset({"User"}))

    assert schema.entities["User"].parents == ("Group", "Tool")


def test_who_is_grouped_can_be_asked_about_groups() -> None:
    """And nobody else: an agent that is in no group cannot be missing from one."""
    ungrouped, grouped = texts(tool()), texts(tool(), grouped=frozenset({"Agent", "User", "Task"}))

    assert "Group" not in ungrouped.entities
    assert {name for name in ("Agent", "User", "Task", "Group") if grouped.entities[name].bare} == {"Group"}
    assert valid(grouped, 'principal.agent in Group::"g" || principal has user && principal.user in Group::"g"')
    assert not valid(ungrouped, 'principal.agent in Group::"g"')


def test_the_types_of_a_fragment_take_the_place_of_the_generated_ones() -> None:
    """A group that a fragment refers to and does not declare is generated."""
    schema = texts(tool(), fragments=["entity User in [Group] = { dept: String };", "entity Team;"])

    assert valid(schema, 'principal has user && principal.user.dept == "billing" && principal.user in Group::"g"')
    assert schema.entities["User"].line == 1
    assert schema.entities["Team"].bare


def test_claims_are_optional_attributes_with_their_types() -> None:
    """A token may lack one, under any name."""
    schema = texts(tool(), claims={"dept-id": str, "level": int, "staff": bool, "roles": frozenset})

    assert valid(
        schema,
        'principal has "dept-id" && principal["dept-id"] == "d" && principal has level && principal.level > 1 '
        '&& principal has staff && principal.staff && principal has roles && principal.roles.contains("r")',
    )
    assert not valid(schema, "principal.level > 1")


@pytest.mark.parametrize(
    ("tools", "claims", "what"),
    [
        ([tool("read-only")], {}, "`read-only` has the name of a group of actions"),
        ([tool("tools/call")], {}, "`tools/call` has the name of a group of actions"),
        ([tool(), tool()], {}, "`read` is guarded twice"),
        ([tool("resources/read")], {}, "`resources/read` has the name of a group of actions"),
        ([RESOURCE, RESOURCE], {}, "resource `notes` is guarded twice: rename one"),
        (
            [RESOURCE, tool("resources/read/notes")],
            {},
            "tool `resources/read/notes` is guarded as action `resources/read/notes`, as a resource is: rename one",
        ),
        ([PROMPT, tool(resource_type="Prompt")], {}, "tool `read` acts on `Prompt`, which the guard makes"),
        ([tool(resource_type="Invocation")], {}, "acts on `Invocation`, which the guard makes"),
        ([tool(resource_type="Server")], {}, "acts on `Server`, which the guard makes"),
        ([tool()], {"grade": str}, "claim `grade` has the name of an attribute"),
        ([tool()], {"user": str}, "claim `user` has the name of an attribute"),
        ([tool()], {"dept": list}, "claim `dept` wants type str, int, bool or frozenset"),
    ],
)
def test_a_set_up_that_cannot_be_is_refused(tools: list[GuardedTool], claims: Mapping[str, type], what: str) -> None:
    """One line, with the fix."""
    with pytest.raises(ConfigurationError, match=what):
        texts(*tools, claims=claims)


def test_all_problems_of_the_fragments_are_told_at_once() -> None:
    """Each with its file and line."""
    with pytest.raises(PolicyError) as caught:
        texts(
            tool(resource_type="Record"),
            fragments=[
                "entity Record;\nnamespace A { entity B; }",
                "entity Record in Tool;\n\nnamespace A { entity C; }",
            ],
        )

    assert caught.value.problems == (
        "types/0.cedarschema:1: `Record` is what a tool acts on: declare it `in [Tool]`",
        "types/1.cedarschema:3: namespace `A` is in types/0.cedarschema too: put it in one place",
        "types/1.cedarschema:1: `Record` is declared twice: remove one",
    )


@pytest.mark.parametrize(
    ("fragment", "problem"),
    [
        ("entity Resource;", "1: `Resource` is a type that the guard makes here: rename this one"),
        ("namespace A { entity Prompt; }", "1: `A::Prompt` is a type that the guard makes here: rename this one"),
        (
            "entity Record in [Tool];",
            "1: `Record` is what a tool and a resource act on: declare it `in [Tool, Resource]`",
        ),
        (
            "entity Record in Resource;",
            "1: `Record` is what a tool and a resource act on: declare it `in [Tool, Resource]`",
        ),
    ],
)
def test_fragments_that_do_not_fit_resources_are_refused(fragment: str, problem: str) -> None:
    """With file, line and fix."""
    tools = (tool(resource_type="Record"), other(OwnType.RESOURCE, resource_type="Record"), PROMPT)

    with pytest.raises(PolicyError) as caught:
        texts(*tools, fragments=[fragment])

    assert f"types/0.cedarschema:{problem}" in caught.value.problems


def test_a_resource_type_missing_from_its_namespace_is_refused() -> None:
    """A namespace can be opened once, so the type belongs where it is opened."""
    with pytest.raises(PolicyError, match=r"types/0\.cedarschema: a tool acts on `A::Record`, which is not declared"):
        texts(tool(resource_type="A::Record"), fragments=["namespace A { entity B; }"])
