"""One tool call as Cedar sees it."""

import enum
import json
import uuid
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, NewType
from zoneinfo import ZoneInfo

import cedarpy
import pytest
import typing_extensions

from agentguard.errors import ConfigurationError, Refusal
from agentguard.limits import Limits
from agentguard.model import VERIFIED, Claim, EntityUid, Grade, Invocation, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.schemas.schema import GuardedTool, schema_texts
from agentguard.request import (
    ResourceTemplate,
    agent_uid,
    base_context,
    principal_entities,
    principal_uid,
    task_uid,
    user_uid,
)

NOW = datetime(2024, 10, 15, 22, 30, tzinfo=UTC).timestamp()
BEGIN = 1_728_900_000


class Region(enum.Enum):
    """Ids that are strings."""

    EU = "eu"


class Level(enum.IntEnum):
    """Members that are numbers and no ids."""

    LOW = 1


class Nothing(enum.Enum):
    """An enum without members."""


RecordId = NewType("RecordId", str)
RecordIds = typing_extensions.TypeAliasType("RecordIds", list[RecordId])


def invocation(**facts: Any) -> Invocation:
    """Return an invocation with nothing but what every one has, and *facts*."""
    given: dict[str, Any] = {
        "run_id": "corp|run-1",
        "issuer": "https://issuer.example",
        "agent": "billing",
        "grade": Grade.RUN,
        "issued_at": BEGIN,
        "ends_at": BEGIN + 330.5,
        "run_ends_at": BEGIN + 3_600,
        **facts,
    }
    return Invocation(**given, seal=VERIFIED)


def complete(**claims: Claim) -> Invocation:
    """Return an invocation with everything."""
    return invocation(
        user="alice",
        task="t-1",
        purpose="close",
        scopes=frozenset({"b", "a"}),
        claims=claims,
        ancestors=(invocation(),),
    )


def test_the_principal_is_the_run_in_its_agent_and_task() -> None:
    """And not in its user."""
    (entity,) = principal_entities(complete(dept="d", roles=frozenset({"y", "x"})))

    assert entity == {
        "uid": {"type": "Invocation", "id": "corp|run-1"},
        "attrs": {
            "agent": {"__entity": {"type": "Agent", "id": "billing"}},
            "user": {"__entity": {"type": "User", "id": "alice"}},
            "task": {"__entity": {"type": "Task", "id": "t-1"}},
            "purpose": "close",
            "issuer": "https://issuer.example",
            "scopes": ["a", "b"],
            "grade": "run",
            "issued_at": {"__extn": {"fn": "datetime", "arg": "2024-10-14T10:00:00.000Z"}},
            "ends_at": {"__extn": {"fn": "datetime", "arg": "2024-10-14T11:00:00.000Z"}},
            "lifetime": {"__extn": {"fn": "duration", "arg": "3600000ms"}},
            "delegation_depth": 1,
            "dept": "d",
            "roles": ["x", "y"],
        },
        "parents": [{"type": "Agent", "id": "billing"}, {"type": "Task", "id": "t-1"}],
    }


def test_what_an_invocation_lacks_is_absent() -> None:
    """Neither null nor empty."""
    bare = invocation()
    (entity,) = principal_entities(bare)

    assert isinstance(entity["attrs"], dict)
    assert entity["attrs"].keys().isdisjoint({"user", "task", "purpose"})
    assert entity["parents"] == [{"type": "Agent", "id": "billing"}]
    assert (user_uid(bare), task_uid(bare)) == (None, None)


def test_the_ids_are_those_that_the_issuer_gave() -> None:
    """One entity for each part of who acts."""
    full = complete()

    assert principal_uid(full) == EntityUid("Invocation", "corp|run-1")
    assert agent_uid(full) == EntityUid("Agent", "billing")
    assert user_uid(full) == EntityUid("User", "alice")
    assert task_uid(full) == EntityUid("Task", "t-1")


@pytest.mark.parametrize("who", [invocation(), complete(dept="d", level=-1, staff=True, roles=frozenset())])
def test_the_principal_fits_the_generated_schema(who: Invocation) -> None:
    """The real Cedar checks it, attribute by attribute, and the context with it."""
    tool = GuardedTool(name="read", server="s", input=record_of({"id": Field(str)}, where="read"))
    claims = {"dept": str, "level": int, "staff": bool, "roles": frozenset}
    schema = cedarpy.Schema.from_str(schema_texts([tool], [], grouped=frozenset(), claims=claims).full)
    tools = [
        {"uid": {"type": "Tool", "id": "read"}, "attrs": {}, "parents": [{"type": "Server", "id": "s"}]},
        {"uid": {"type": "Server", "id": "s"}, "attrs": {}, "parents": []},
    ]
    entities = cedarpy.Entities.from_json_str(json.dumps([*principal_entities(who), *tools]), schema)
    context = {**base_context(NOW, ZoneInfo("Europe/Zurich"), "production", "http"), "input": {"id": "r"}}
    answer = cedarpy.is_authorized(
        {
            "principal": principal_uid(who).as_json(),
            "action": {"type": "Action", "id": "read"},
            "resource": {"type": "Tool", "id": "read"},
            "context": json.dumps(context),
        },
        'permit (principal in Agent::"billing", action, resource in Server::"s") when { context.local.weekday == 3 };',
        entities,
        schema,
    )

    assert answer.diagnostics.errors == []
    assert answer.allowed


def test_a_claim_cannot_pass_for_an_attribute_of_ours() -> None:
    """Whatever an issuer's configuration let through."""
    (entity,) = principal_entities(invocation(claims={"agent": "root", "grade": "run", "delegation_depth": 9}))

    assert isinstance(entity["attrs"], dict)
    assert entity["attrs"]["agent"] == {"__entity": {"type": "Agent", "id": "billing"}}
    assert entity["attrs"]["delegation_depth"] == 0


@pytest.mark.parametrize(
    "facts",
    [
        {"claims": {"n": 2**63}},
        {"claims": {"s": "\ud800"}},
        {"claims": {"s": 1.5}},
        {"claims": {"s": {"__extn": {"fn": "unknown", "arg": "x"}}}},
        {"claims": {"s": frozenset({"\ud800"})}},
        {"scopes": frozenset({"\ud800"})},
        {"issued_at": -(10**20)},
        {"run_ends_at": 10**30},
    ],
)
def test_a_fact_without_a_counterpart_in_cedar_is_an_invalid_token(facts: dict[str, Any]) -> None:
    """The token said it, so the token is at fault."""
    with pytest.raises(Refusal) as caught:
        principal_entities(invocation(**facts))

    assert caught.value.reason is Reason.INVALID_TOKEN


def test_the_context_has_the_local_time_of_the_zone() -> None:
    """Weekdays count from Monday, minutes from midnight."""
    context = base_context(NOW, ZoneInfo("Europe/Zurich"), "production", "http")
    assert context.pop("run") == {
        "calls": 0,
        "calls_of_this_tool": 0,
        "denied": 0,
        "labels": [],
        "spent": {},
        "shared": False,
        "started_at": context["now"],
    }
    assert context == {
        "now": {"__extn": {"fn": "datetime", "arg": "2024-10-15T22:30:00.000Z"}},
        "local": {"weekday": 3, "minute": 30},
        "environment": "production",
        "transport": "http",
    }


@pytest.mark.parametrize(
    ("text", "template"),
    [
        ("Record::{record_id}", ResourceTemplate("Record", "record_id")),
        ("Acme::_Files::File2::{id}", ResourceTemplate("Acme::_Files::File2", "id")),
        ("Record::{ids[*]}", ResourceTemplate("Record", "ids", each=True)),
    ],
)
def test_a_template_is_read_and_written(text: str, template: ResourceTemplate) -> None:
    """A type, and the argument that holds the id."""
    assert ResourceTemplate.parse(text) == template
    assert str(template) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Record",
        "Record::record_id",
        "Record::{}",
        "Record::{a.b}",
        "Record::{a}b",
        'Record::"{a}"',
        "Record::{a[0]}",
        "2Record::{a}",
        "Rëcord::{a}",
        "Record::{a}\n",
        "Tool::{a}",
        "Server::{a}",
        "Invocation::{a}",
        "Action::{a}",
    ],
)
def test_what_is_no_template_is_refused(text: str) -> None:
    """The guard's own types are not for a caller to name."""
    with pytest.raises(ConfigurationError, match="resource `"):
        ResourceTemplate.parse(text)


@pytest.mark.parametrize(
    ("template", "annotation"),
    [
        ("R::{a}", str),
        ("R::{a}", int),
        ("R::{a}", uuid.UUID),
        ("R::{a}", Region),
        ("R::{a}", RecordId),
        ("R::{a}", Annotated[str, "the record"]),
        ("R::{a}", Literal["x", "y"]),
        ("R::{a}", Literal[1, 2]),
        ("R::{a[*]}", list[str]),
        ("R::{a[*]}", set[uuid.UUID]),
        ("R::{a[*]}", tuple[int, ...]),
        ("R::{a[*]}", RecordIds),
    ],
)
def test_a_template_that_its_arguments_can_fill_passes(template: str, annotation: object) -> None:
    """Strings, whole numbers, UUIDs and enums of strings are ids."""
    ResourceTemplate.parse(template).check({"a": annotation}, where="tool `read`")


@pytest.mark.parametrize(
    ("template", "annotation"),
    [
        ("R::{a}", str | None),
        ("R::{a}", bool),
        ("R::{a}", float),
        ("R::{a}", Level),
        ("R::{a}", Nothing),
        ("R::{a}", Literal["x", 1]),
        ("R::{a}", list[str]),
        ("R::{a[*]}", str),
        ("R::{a[*]}", list),
        ("R::{a[*]}", list[float]),
        ("R::{a[*]}", dict[str, str]),
    ],
)
def test_a_template_that_its_arguments_cannot_fill_is_refused(template: str, annotation: object) -> None:
    """At start-up, and not at every call."""
    with pytest.raises(
        ConfigurationError, match=r"tool `read`: `R::\{a.*always given: change the type of argument `a`"
    ):
        ResourceTemplate.parse(template).check({"a": annotation}, where="tool `read`")


@pytest.mark.parametrize(("annotations", "names"), [({"b": str, "c": str}, "`b`, `c`"), ({}, "none")])
def test_a_template_with_an_unknown_argument_is_refused(annotations: dict[str, object], names: str) -> None:
    """The message lists the arguments that there are."""
    with pytest.raises(ConfigurationError, match=f"needs argument `a`, and the arguments are {names}"):
        ResourceTemplate.parse("R::{a}").check(annotations, where="tool `read`")


@pytest.mark.parametrize(
    ("value", "id_"),
    [("r1", "r1"), (7, "7"), (uuid.UUID(int=1), str(uuid.UUID(int=1))), (Region.EU, "eu"), ('"; permit', '"; permit')],
)
def test_an_argument_names_one_entity(value: object, id_: str) -> None:
    """Its id is the argument, exactly."""
    assert ResourceTemplate.parse("R::{a}").uids({"a": value}) == (EntityUid("R", id_),)


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        1.0,
        2**63,
        pytest.param(10**5_000, id="5,000 digits"),
        "\ud800",
        b"a",
        ["a"],
        Level.LOW,
        "a" * 70_000,
    ],
)
def test_a_value_that_is_no_id_is_refused(value: object) -> None:
    """By its exact type, and within the limits of a string."""
    for template, arguments in (("R::{a}", {"a": value}), ("R::{a[*]}", {"a": [value]})):
        with pytest.raises(Refusal) as caught:
            ResourceTemplate.parse(template).uids(arguments)
        assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_each_of_several_ids_is_an_entity_once() -> None:
    """In the order given; a set has none, so it is sorted."""
    template = ResourceTemplate.parse("R::{a[*]}")

    assert template.uids({"a": ["y", "x", "y"]}) == (EntityUid("R", "y"), EntityUid("R", "x"))
    assert template.uids({"a": {"y", "x"}}) == (EntityUid("R", "x"), EntityUid("R", "y"))


@pytest.mark.parametrize("value", [[], (), set(), None, "ab", {"a": "b"}, ["a"] * 4])
def test_no_entities_or_too_many_are_refused(value: object) -> None:
    """An empty list would be allowed by nobody's decision."""
    with pytest.raises(Refusal) as caught:
        ResourceTemplate.parse("R::{a[*]}").uids({"a": value}, Limits(entities_per_request=3))

    assert caught.value.reason is Reason.INVALID_ARGUMENT


def test_an_argument_that_is_not_there_is_refused() -> None:
    """For one as for several."""
    for template in ("R::{a}", "R::{a[*]}"):
        with pytest.raises(Refusal):
            ResourceTemplate.parse(template).uids({})
