"""Resources, templates and prompts under the decorator, in both protocol eras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import pytest
from mcp import Client, MCPError
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.resolve import Resolve
from mcp.server.mcpserver.resources import TextResource
from mcp_types import Completion, PromptReference, ResourceTemplateReference
from pydantic import AfterValidator

from agentguard import AccessDenied, ConfigurationError
from agentguard.errors import PolicyError
from agentguard.testing import acting_as
from tests.world import ERAS, Era, World, connected, make_world

POLICIES = """
@id("notes") permit (principal in Agent::"reader", action == Action::"resources/read/note", resource);
@id("secret-notes") @advice("That note is secret.")
forbid (principal, action == Action::"resources/read/note", resource) when { context.input.note_id like "secret*" };
@id("motd")
permit (principal in Agent::"reader", action == Action::"resources/read/motd", resource == Resource::"motd");
@id("record") permit (principal in Agent::"reader", action == Action::"resources/read/record", resource);
@id("restricted") forbid (principal, action, resource is Record) when { resource.sensitivity == "restricted" };
@id("summary")
permit (principal in Agent::"reader", action == Action::"prompts/get/summary", resource == Prompt::"summary")
when { context.input.words <= 100 };
@id("plain") permit (principal, action == Action::"resources/read", resource == Server::"records")
when { context.input.uri like "plain:*" };
@id("read") permit (principal in Agent::"reader", action == Action::"read", resource);
"""
TYPES = 'entity Record in [Tool, Resource] = { sensitivity: String, "patient"?: User };'


def extend(world: World) -> None:
    """Add resources, templates and prompts, guarded and not."""
    server, guard = world.server, world.guard

    @server.resource("notes://{note_id}")
    @guard.resource
    async def note(note_id: str) -> str:
        world.ran.append(f"note {note_id}")
        return f"note {note_id}"

    @server.resource("data://motd")
    @guard.resource()
    def motd() -> str:
        world.ran.append("motd")
        return "hello"

    @server.resource("records://{record_id}")
    @guard.resource(resource="Record::{record_id}")
    async def record(record_id: str, ctx: Context) -> str:
        world.ran.append(f"record {record_id} {ctx.request_id is not None}")
        return record_id

    @server.resource("hidden://{name}")
    @guard.resource
    async def hidden(name: str) -> str:
        raise AssertionError(name)

    @server.resource("plain://{name}")
    async def plain(name: str) -> str:
        world.ran.append(f"plain {name}")
        return name

    server.add_resource(TextResource(uri="plain:text", name="text", text="some text"))

    @server.prompt()
    @guard.prompt
    def summary(topic: str, words: int = 50) -> str:
        world.ran.append(f"summary {topic} {words!r}")
        return f"Summarise {topic} in {words} words."

    @server.prompt()
    async def bare() -> str:
        raise AssertionError

    async def complete(ref: PromptReference | ResourceTemplateReference, *_: object) -> Completion:
        world.ran.append(f"complete {ref.name if isinstance(ref, PromptReference) else ref.uri}")
        return Completion(values=["a value"])

    server.completion()(complete)  # type: ignore[no-untyped-call]


def decision(error: pytest.ExceptionInfo[MCPError]) -> dict[str, str]:
    """Return what an error says of the decision."""
    told: dict[str, str] = error.value.data["agentguard/decision"]
    return told


def world_of(folder: Path, more: str = "", **options: Any) -> World:
    """Return the world of this module."""
    return make_world(folder, policies=POLICIES + more, types=TYPES, **{"extend": extend, **options})


@pytest.mark.parametrize("era", ERAS)
async def test_guarded_template_is_judged_by_its_parameters(era: Era, tmp_path: Path) -> None:
    """As a tool is by its arguments; the denial is an error that carries the decision."""
    world = world_of(tmp_path)

    async with connected(world, "memory", era) as client:
        allowed = await client.read_resource("notes://1")
        with pytest.raises(MCPError, match="That note is secret") as denied:
            await client.read_resource("notes://secret-1")

    assert "note 1" in str(allowed)
    assert world.ran == ["note 1"]
    assert decision(denied)["reason"] == "denied"
    assert denied.value.code == -32602
    first, second = world.records()
    assert first["agentguard.action.id"] == "resources/read/note"
    assert (first["agentguard.resource.type"], first["agentguard.resource.id"]) == ("Resource", "note")
    assert first["mcp.method.name"] == "resources/read"
    assert second["agentguard.decision.id"] == decision(denied)["id"]
    assert [one["agentguard.execution.outcome"] for one in world.records("outcome")] == ["completed"]


@pytest.mark.parametrize("era", ERAS)
async def test_guarded_static_resource_is_its_own_entity(era: Era, tmp_path: Path) -> None:
    """In the server; a plain function runs in a thread."""
    world = world_of(tmp_path)

    async with connected(world, "memory", era) as client:
        assert "hello" in str(await client.read_resource("data://motd"))

    assert world.ran == ["motd"]
    assert world.records()[0]["agentguard.policy.id"] == "motd"


@pytest.mark.parametrize("era", ERAS)
async def test_resource_may_act_on_an_entity(era: Era, tmp_path: Path) -> None:
    """The one that a parameter names, with what its loader knows; a tool may act on the same."""
    world = world_of(tmp_path)

    async with connected(world, "memory", era) as client:
        await client.read_resource("records://r1")
        with pytest.raises(MCPError, match="Denied by policy") as denied:
            await client.read_resource("records://r9")
        await client.call_tool("read", {"record_id": "r1"})

    assert decision(denied)["reason"] == "denied"
    assert world.ran == ["record r1 True", "read r1"]
    assert world.records()[1]["agentguard.resource.id"] == "r9"


@pytest.mark.parametrize("era", ERAS)
async def test_guarded_prompt_is_judged_by_the_values_that_it_gets(era: Era, tmp_path: Path) -> None:
    """A prompt's arguments arrive as text; what is judged is what the function gets."""
    world = world_of(tmp_path)

    async with connected(world, "memory", era) as client:
        shown = await client.get_prompt("summary", {"topic": "x", "words": "9_9"})
        await client.get_prompt("summary", {"topic": "y"})
        with pytest.raises(MCPError, match="Denied by policy") as denied:
            await client.get_prompt("summary", {"topic": "x", "words": "101"})

    assert "in 99 words" in str(shown)
    assert world.ran == ["summary x 99", "summary y 50"]
    assert decision(denied)["effect"] == "deny"
    assert world.records()[0]["agentguard.action.id"] == "prompts/get/summary"


@pytest.mark.parametrize(
    ("arguments", "detail"),
    [
        ({}, "the arguments do not fit the schema"),
        ({"topic": "x", "words": "many"}, "`words` wants a whole number, got a string"),
        ({"topic": "x", "stray": "y"}, "there is an argument that is not declared"),
        ({"topic": "x", "__extn": "y"}, "a key is no string, or is one that Cedar reserves"),
    ],
)
@pytest.mark.parametrize("era", ERAS)
async def test_prompt_argument_that_does_not_fit_is_worded_constantly(
    era: Era, arguments: dict[str, str], detail: str, tmp_path: Path
) -> None:
    """Validation tells nobody what the function takes; and it is on record."""
    world = world_of(tmp_path)

    async with connected(world, "memory", era) as client:
        with pytest.raises(MCPError, match="cannot be judged safely") as denied:
            await client.get_prompt("summary", arguments)

    assert decision(denied)["reason"] == "invalid_argument"
    assert "many" not in denied.value.message + str(denied.value.data)
    assert world.records()[0]["agentguard.decision.reason"] == "invalid_argument"
    assert world.records()[0]["agentguard.decision.detail"] == detail
    assert world.ran == []


async def test_validator_of_a_parameter_tells_nothing(tmp_path: Path) -> None:
    """What it raises stays inside, whoever may read the resource otherwise."""

    def fail(_: str) -> str:
        message = "a secret"
        raise ValueError(message)

    def more(world: World) -> None:
        extend(world)

        async def checked(name: str) -> str:
            return name

        checked.__annotations__["name"] = Annotated[str, AfterValidator(fail)]
        world.server.resource("checked://{name}")(world.guard.resource(checked))

    world = world_of(
        tmp_path, '@id("c") permit (principal, action in Action::"resources/read", resource);', extend=more
    )

    async with Client(world.server) as client:
        with pytest.raises(MCPError) as denied:
            await client.read_resource("checked://x")

    assert decision(denied)["reason"] == "invalid_argument"
    assert "secret" not in str(denied.value)


@pytest.mark.parametrize("era", ERAS)
async def test_what_nobody_guards_is_judged_by_the_method(era: Era, tmp_path: Path) -> None:
    """By its URI, or its name, on the server; a resource that is no function too."""
    world = world_of(tmp_path)

    async with connected(world, "memory", era) as client:
        await client.read_resource("plain://x")
        assert "some text" in str(await client.read_resource("plain:text"))
        with pytest.raises(MCPError, match="Denied by policy"):
            await client.get_prompt("bare")

    assert world.ran == ["plain x"]
    assert [one["agentguard.action.id"] for one in world.records()] == ["resources/read"] * 2 + ["prompts/get"]


async def test_permit_of_the_method_alone_does_not_reach_what_is_guarded(tmp_path: Path) -> None:
    """`==` means what has no decorator; `in` means all of them."""
    equal = make_world(
        tmp_path / "a",
        types=TYPES,
        extend=extend,
        policies='@id("a") permit (principal, action == Action::"resources/read", resource);',
    )
    within = make_world(
        tmp_path / "b",
        types=TYPES,
        extend=extend,
        policies='@id("a") permit (principal, action in Action::"resources/read", resource);',
    )

    async with Client(equal.server) as client:
        await client.read_resource("plain://x")
        with pytest.raises(MCPError):
            await client.read_resource("notes://1")
    async with Client(within.server) as client:
        await client.read_resource("plain://x")
        await client.read_resource("notes://1")

    assert equal.ran == ["plain x"]
    assert within.ran == ["plain x", "note 1"]


async def test_test_may_call_a_guarded_resource_itself(tmp_path: Path) -> None:
    """As it may a tool; and what the server reads for it is judged as well."""
    world = world_of(tmp_path)

    with acting_as("reader"):
        assert "note 1" in str(await world.server.read_resource("notes://1"))
        await world.server.read_resource("plain://x")
        with pytest.raises(AccessDenied):
            await world.server.read_resource("notes://secret")
        with pytest.raises(AccessDenied):
            await world.server.get_prompt("bare")

    assert world.ran == ["note 1", "plain x"]


async def test_error_of_a_resource_is_its_own(tmp_path: Path) -> None:
    """A function that fails fails as it would unguarded, and its outcome is on record."""

    def more(world: World) -> None:
        @world.server.resource("fails://{name}")
        @world.guard.resource
        async def fails(name: str) -> str:
            raise MCPError(code=-32000, message=f"mine {name}")

        @world.server.prompt()
        @world.guard.prompt
        async def broken() -> str:
            message = "mine"
            raise RuntimeError(message)

    world = make_world(tmp_path, policies='@id("a") permit (principal, action, resource);', extend=more)

    async with Client(world.server) as client:
        with pytest.raises(MCPError, match="mine x"):
            await client.read_resource("fails://x")
        with pytest.raises(MCPError, match="Internal server error"):
            await client.get_prompt("broken")

    assert [one["agentguard.execution.outcome"] for one in world.records("outcome")] == ["failed", "failed"]


async def test_denial_inside_a_guarded_resource_answers_the_request(tmp_path: Path) -> None:
    """The caller is told of the denial inside, and not of a crash."""

    def more(world: World) -> None:
        @world.server.resource("calls://{record_id}")
        @world.guard.resource
        async def calls(record_id: str) -> str:
            return str(await world.server.call_tool("read", {"record_id": record_id}))

    world = make_world(
        tmp_path,
        policies='@id("a") permit (principal, action, resource);'
        '@id("r") @advice("Not that one.") forbid (principal, action == Action::"read", resource == Record::"r2");',
        extend=more,
    )

    async with Client(world.server) as client:
        await client.read_resource("calls://r1")
        with pytest.raises(MCPError, match="Not that one"):
            await client.read_resource("calls://r2")

    assert world.ran == ["read r1"]


async def test_resource_and_prompt_that_come_later_are_learned(tmp_path: Path) -> None:
    """As tools are that are added at run time."""
    world = make_world(
        tmp_path,
        policies='@id("a") permit (principal, action in Action::"tools/call", resource);'
        '@id("b") permit (principal, action, resource) when { resource in Server::"records" };',
    )

    async with Client(world.server) as client:

        @world.server.resource("late://{name}")
        @world.guard.resource
        async def late(name: str) -> str:
            return name

        @world.server.prompt()
        @world.guard.prompt
        async def later() -> str:
            return "later"

        await client.read_resource("late://x")
        await client.get_prompt("later")

    assert [one["agentguard.action.id"] for one in world.records()] == ["resources/read/late", "prompts/get/later"]


def register(world: World, kind: str, wrong: str) -> None:
    """Put the decorators of the guard where *wrong* says."""
    server, guard = world.server, world.guard

    async def thing() -> str:
        return "x"

    theirs = {"resource": server.resource("x://y"), "prompt": server.prompt(), "tool": server.tool()}[kind]
    ours: dict[str, Any] = {"resource": guard.resource, "prompt": guard.prompt, "tool": guard.tool}
    if wrong == "above":
        ours[kind](theirs(thing))
    else:
        theirs(ours[wrong](thing))


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        ("resource", "above", r"resource `thing` is not guarded: put @guard.resource below @server.resource\(…\)"),
        ("prompt", "above", r"prompt `thing` is not guarded: put @guard.prompt below @server.prompt\(\)"),
        ("resource", "tool", "resource `thing` has @guard.tool on it: write @guard.resource"),
        ("tool", "prompt", "tool `thing` has @guard.prompt on it: write @guard.tool"),
    ],
)
def test_decorator_in_the_wrong_place_is_refused(kind: str, wrong: str, message: str, tmp_path: Path) -> None:
    """At start-up, with the fix."""
    with pytest.raises(ConfigurationError, match=message):
        make_world(tmp_path, extend=lambda world: register(world, kind, wrong))


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    """Policies could not tell them apart."""

    def twice(world: World) -> None:
        async def note(a: str) -> str:
            return a

        async def other(a: str) -> str:
            return a

        world.server.resource("a://{a}", name="note")(world.guard.resource(note))
        world.server.resource("b://{a}", name="note")(world.guard.resource(other))

    with pytest.raises(ConfigurationError, match="resource `note` is guarded twice: rename one"):
        make_world(tmp_path, extend=twice)


def test_tool_of_the_name_of_such_an_action_is_refused(tmp_path: Path) -> None:
    """Else the one would be judged by the rules of the other."""

    def both(world: World) -> None:
        world.server.tool(name="resources/read/note")(world.guard.tool(lambda_named("a_tool")))
        world.server.resource("a://{a}", name="note")(world.guard.resource(lambda_named("note")))

    with pytest.raises(ConfigurationError, match="`note` is guarded as action `resources/read/note`, as a tool is"):
        make_world(tmp_path, extend=both)


def lambda_named(name: str) -> Any:
    """Return a function of one parameter."""

    async def function(a: str) -> str:
        return a

    function.__name__ = name
    return function


@pytest.mark.parametrize(
    ("types", "message"),
    [
        ("entity Resource;", "`Resource` is a type that the guard makes here: rename this one"),
        (
            "entity Record in [Tool] = { sensitivity: String };",
            r"`Record` is what a tool and a resource act on: declare it `in \[Tool, Resource\]`",
        ),
    ],
)
def test_types_that_do_not_fit_are_refused(types: str, message: str, tmp_path: Path) -> None:
    """With the fix."""
    with pytest.raises(PolicyError, match=message):
        make_world(tmp_path, policies=POLICIES, types=types, extend=extend)


def test_resolvers_of_a_resource_are_refused(tmp_path: Path) -> None:
    """The SDK has none there: the caller could give such a value."""

    def prompt(world: World) -> None:
        async def who(name: str) -> str:
            return name

        who.__annotations__["name"] = Annotated[str, Resolve(lambda: "x")]
        world.guard.prompt(who)

    with pytest.raises(ConfigurationError, match="prompt `who` has Resolve parameters, which only tools have"):
        make_world(tmp_path, extend=prompt)


def test_class_is_no_resource(tmp_path: Path) -> None:
    """The message names the decorator that was used."""
    with pytest.raises(ConfigurationError, match=r"@guard\.resource wants a function, got `type`"):
        make_world(tmp_path, extend=lambda world: world.guard.resource(World))  # type: ignore[arg-type]


@pytest.mark.parametrize("era", ERAS)
async def test_completion_is_for_what_the_caller_could_ever_use(era: Era, tmp_path: Path) -> None:
    """The rest reads as what does not exist, and no handler is asked."""
    world = world_of(tmp_path)
    told = []

    async with connected(world, "memory", era) as client:
        for ref in (
            PromptReference(name="summary"),
            ResourceTemplateReference(uri="notes://{note_id}"),
            ResourceTemplateReference(uri="plain://{name}"),
            ResourceTemplateReference(uri="notes://7"),
        ):
            await client.complete(ref, {"name": "a", "value": "secret"})
        for hidden in (
            PromptReference(name="bare"),
            PromptReference(name="absent"),
            ResourceTemplateReference(uri="hidden://{name}"),
            ResourceTemplateReference(uri="absent://{name}"),
        ):
            with pytest.raises(MCPError) as denied:
                await client.complete(hidden, {"name": "a", "value": "b"})
            told.append((denied.value.code, denied.value.message.replace(decision(denied)["id"], "…")))

    assert world.ran == [
        "complete summary",
        "complete notes://{note_id}",
        "complete plain://{name}",
        "complete notes://7",
    ]
    assert len(set(told)) == 1
    assert [one["agentguard.decision.reason"] for one in world.records()] == [
        "no_permit", "unguarded", "no_permit", "unguarded",
    ]  # fmt: skip


async def test_completion_is_withheld_from_a_run_that_ended_meanwhile(tmp_path: Path) -> None:
    """Like whatever else a server answers."""
    world = world_of(tmp_path)

    with acting_as("reader", run_id="run-1") as invocation:

        async def complete(ref: Any, argument: Any, context: Any) -> Completion:
            world.state.store.revoke(issuer=invocation.issuer, run_id="run-1", reason="test")
            return Completion(values=["secret"])

        world.server.completion()(complete)  # type: ignore[no-untyped-call]

        async with Client(world.server) as client:
            with pytest.raises(MCPError, match="This run was ended"):
                await client.complete(PromptReference(name="summary"), {"name": "topic", "value": ""})

    assert world.records()[-1]["agentguard.decision.reason"] == "revoked"
