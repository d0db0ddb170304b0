"""Setting up a guard: the short way works, and each mistake is refused with its fix."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, TypedDict

import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from pydantic import BaseModel, Field

from agentguard import (
    AccessDenied,
    ConfigurationError,
    Entity,
    EntityUid,
    Guard,
    InvocationVerifier,
    Issuer,
    PolicyError,
    Reason,
    Refusal,
    State,
    TrustedIssuer,
    UnmappableTypeError,
    UnsafeMemoryState,
    current_invocation,
)
from agentguard.adapters.mcp import Adapter
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.testing import acting_as
from tests.world import AUDIENCE, ISSUER, World, make_guard, make_world, text, write_policies

ALL = '@id("all") permit (principal, action, resource);'


class FullLedger(MemoryLedger):
    """A ledger on a full disk."""

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep nothing."""
        raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "no space left")


def options(folder: Path, **changes: Any) -> dict[str, Any]:
    """Return the short form's options."""
    write_policies(folder, ALL, types=None)
    return {
        "policies": folder, "issuer": ISSUER, "audience": AUDIENCE, "state": UnsafeMemoryState(), **changes
    }  # fmt: skip


def make(folder: Path, **changes: Any) -> Guard:
    """Return a guard."""
    given = options(folder, **changes)
    return Guard(given.pop("policies"), **given)


def test_short_form_is_enough(tmp_path: Path) -> None:
    """An issuer, an audience, a folder and state make a guard that a server takes."""
    guard = make(tmp_path)

    server = MCPServer("records", **guard.http_auth())
    guard.attach(server)

    assert server.settings.auth is not None
    assert str(server.settings.auth.issuer_url) == ISSUER
    assert server.settings.auth.validate_token_resource is True


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"state": None}, "a guard wants state .*: pass state=FOLDER"),
        ({"state": 7}, "got `7`: pass state=FOLDER"),
        ({"issuer": None}, "one way to verify identities: pass issuer= and audience=, or verifier="),
        ({"issuer": None, "verifier": object(), "audience": None}, "verifier= wants an InvocationVerifier"),
        ({"time_zone": "Mars/Olympus"}, "time zone `Mars/Olympus` is not known: use an IANA name"),
        ({"time_zone": "../x"}, "is not known"),
    ],
)
def test_mistake_is_refused_with_its_fix(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    """A guard without an identity to verify, or without state, is not built."""
    with pytest.raises(ConfigurationError, match=message):
        make(tmp_path, **changes)


def test_folder_that_is_not_there_is_named_in_full(tmp_path: Path) -> None:
    """Hosts choose the working folder, so the message has the whole path."""
    with pytest.raises(PolicyError) as refused:
        Guard(tmp_path / "nowhere", issuer=ISSUER, audience=AUDIENCE, state=UnsafeMemoryState())

    assert str(tmp_path / "nowhere") in str(refused.value)
    with pytest.raises(PolicyError) as refused:
        Guard(write_policies(tmp_path, ALL.replace("all", "a b")), issuer=ISSUER, state=UnsafeMemoryState())
    assert str(refused.value).startswith(f"{tmp_path}/policies.cedar:1: @id holds")


def test_two_ways_to_verify_are_refused(tmp_path: Path) -> None:
    """The audience belongs to the verifier, once."""
    verifier = InvocationVerifier(TrustedIssuer(issuer=ISSUER))
    with pytest.raises(ConfigurationError, match="one way to verify"):
        make(tmp_path, verifier=verifier)
    with pytest.raises(ConfigurationError, match="which has the audience: leave out audience="):
        make(tmp_path, verifier=verifier, issuer=None)


def test_guard_without_an_audience_has_no_http_auth(tmp_path: Path) -> None:
    """A server over stdio needs none; over HTTP, its absence is named."""
    with pytest.raises(ConfigurationError, match=r"pass Guard\(audience=…\)"):
        make(tmp_path, audience=None).http_auth()


def test_audience_that_is_no_url_needs_the_servers_address(tmp_path: Path) -> None:
    """The SDK takes URLs alone, so the message says where to put one."""
    guard = make(tmp_path, audience="api://records")

    with pytest.raises(ConfigurationError, match=r"pass http_auth\(resource_url=…\)"):
        guard.http_auth()
    given = guard.http_auth(resource_url="https://records.example/mcp")

    assert str(given["auth"].resource_server_url) == "https://records.example/mcp"


def test_guard_serves_one_server(tmp_path: Path) -> None:
    """A second server wants a guard of its own, and only servers can be attached."""
    guard = make(tmp_path)
    with pytest.raises(ConfigurationError, match="a low-level Server or a FastMCP, got `str`"):
        guard.attach("server")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="identity= wants `environment` or `meta`, got `header`"):
        guard.attach(MCPServer("a"), identity="header")  # type: ignore[arg-type]
    guard.attach(MCPServer("a"))
    with pytest.raises(ConfigurationError, match="attached already"):
        guard.attach(MCPServer("b"))


class Sum(TypedDict):
    """What facts add."""

    total: Decimal


def refused_at_attach(folder: Path, function: Any, message: str, **tool: Any) -> None:
    """Check that attaching a server with this tool is refused."""

    def extend(world: World) -> None:
        world.server.add_tool(world.guard.tool(**tool)(function))

    with pytest.raises(ConfigurationError, match=message):
        make_world(folder, policies=ALL, extend=extend)


def test_tool_that_cannot_be_judged_is_refused(tmp_path: Path) -> None:  # noqa: C901  many small functions
    """Arguments without a name, a type or a counterpart are mistakes at start-up."""

    async def star(*names: str) -> None: ...
    async def stars(**names: str) -> None: ...
    async def untyped(name) -> None: ...  # type: ignore[no-untyped-def]  # noqa: ANN001
    async def anything(name: Any) -> None: ...
    async def fine(name: str) -> None: ...
    def facts_of_other(other: str) -> Sum:
        return Sum(total=Decimal(len(other)))

    def facts_untyped(name: str): ...  # type: ignore[no-untyped-def]  # noqa: ANN202
    def facts_scalar(name: str) -> int:
        return len(name)

    refused_at_attach(tmp_path, star, r"tool `star` takes `\*names: str`: name its arguments")
    refused_at_attach(tmp_path, stars, r"tool `stars` takes `\*\*names: str`")
    refused_at_attach(tmp_path, untyped, "`untyped.name`")
    refused_at_attach(tmp_path, anything, "leave it out with exclude=")
    refused_at_attach(tmp_path, fine, "tool `fine` has no argument `nome`: mend exclude=", exclude=["nome"])
    refused_at_attach(tmp_path, fine, r"write exclude=\(`name`,\)", exclude="name")
    refused_at_attach(tmp_path, fine, "needs argument `nome`", resource="Record::{nome}")
    refused_at_attach(tmp_path, fine, "no argument `other`, which its facts take", facts=facts_of_other)
    refused_at_attach(tmp_path, fine, "its facts want a record, got `None`", facts=facts_untyped)
    refused_at_attach(tmp_path, fine, "its facts want a record, got `<class 'int'>`", facts=facts_scalar)
    refused_at_attach(tmp_path, "fine", "wants a function, got `str`")

    async def reserved(agentguard_context: str) -> None: ...
    async def aliased(name: str) -> None: ...
    async def defaulted(name: str = Field("x", alias="nom")) -> None: ...

    aliased.__annotations__["name"] = Annotated[str, Field(alias="nom")]
    refused_at_attach(tmp_path, reserved, "the guard's own name: rename it")
    refused_at_attach(tmp_path, aliased, "argument `name` has an alias: name it as the caller does")
    refused_at_attach(tmp_path, defaulted, "argument `name` has an alias")
    refused_at_attach(tmp_path, functools.partial(fine, name="x"), "wants a function, got `partial`")


def test_annotation_that_cannot_be_resolved_is_refused(tmp_path: Path) -> None:
    """A type that exists only for the type checker cannot be judged."""
    guard, _ = make_guard(write_policies(tmp_path, ALL), Issuer(issuer=ISSUER, audience=AUDIENCE))

    async def later(value: Unknown) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(ConfigurationError, match=r"tool `later`: .*`?Unknown`?.*: define the types at module level"):
        guard.tool(later)


def test_unmappable_type_has_an_error_of_its_own(tmp_path: Path) -> None:
    """Whoever catches it can tell it from other mistakes."""

    class Loose(BaseModel, extra="allow"):
        name: str

    def extend(world: World) -> None:
        async def loose(value: Loose) -> None: ...

        loose.__annotations__["value"] = Loose
        world.server.add_tool(world.guard.tool(loose))

    with pytest.raises(UnmappableTypeError):
        make_world(tmp_path, policies=ALL, extend=extend)


@dataclass
class Line:
    """One line of an invoice."""

    amount: Decimal


async def test_facts_are_judged_and_cannot_change_the_arguments(tmp_path: Path) -> None:
    """A sum that Cedar cannot form comes from a pure function, which works on copies."""

    def total(lines: list[Line]) -> Sum:
        result = Sum(total=sum((line.amount for line in lines), Decimal(0)))
        for line in lines:
            line.amount = Decimal(1_000_000)
        lines.clear()
        return result

    def extend(world: World) -> None:
        async def pay(lines: list[Line], memo: str = "") -> str:
            return f"{len(lines)} lines, {sum(line.amount for line in lines)}"

        pay.__annotations__["lines"] = list[Line]
        world.server.add_tool(world.guard.tool(facts=total, exclude=["memo"])(pay))

    world = make_world(
        tmp_path,
        policies=ALL
        + '@id("cap") forbid (principal, action == Action::"pay", resource)'
        + 'when { context.facts.total.greaterThan(decimal("100.00")) };',
        extend=extend,
    )

    async with Client(world.server) as client:
        small = await client.call_tool("pay", {"lines": [{"amount": "60"}, {"amount": "40"}]})
        large = await client.call_tool("pay", {"lines": [{"amount": "60"}, {"amount": "40.01"}]})

    assert text(small) == "2 lines, 100"
    assert large.is_error


async def test_facts_that_raise_deny(tmp_path: Path) -> None:
    """A function that fails on these arguments cannot judge them."""

    def ratio(a: int, b: int) -> Sum:
        return Sum(total=Decimal(a // b))

    def extend(world: World) -> None:
        async def divide(a: int, b: int) -> str:
            world.ran.append("divide")
            return ""

        world.server.add_tool(world.guard.tool(facts=ratio)(divide))

    world = make_world(tmp_path, policies=ALL, extend=extend)

    async with Client(world.server) as client:
        assert (await client.call_tool("divide", {"a": 1, "b": 0})).is_error

    assert world.ran == []
    assert world.records()[-1]["agentguard.decision.reason"] == "invalid_argument"


async def test_current_invocation_is_that_of_the_running_tool(tmp_path: Path) -> None:
    """Inside a tool its verified identity is known, and nowhere else."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        def whoami() -> str:
            return current_invocation().agent

    world = make_world(tmp_path, policies=ALL, extend=extend)

    async with Client(world.server) as client:
        assert text(await client.call_tool("whoami", {})) == "reader"
    with pytest.raises(LookupError, match="no guarded tool is running here"):
        current_invocation()


async def test_each_of_several_resources_must_be_allowed(tmp_path: Path) -> None:
    """One denied record denies the call, and no record is none allowed."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{record_ids[*]}")
        async def read_all(record_ids: list[str]) -> str:
            world.ran.append("read_all")
            return "ok"

    world = make_world(
        tmp_path,
        policies=ALL
        + '@id("r") forbid (principal, action, resource is Record) when { resource.sensitivity != "normal" };',
        extend=extend,
    )

    async with Client(world.server) as client:
        good = await client.call_tool("read_all", {"record_ids": ["r1", "r2"]})
        bad = await client.call_tool("read_all", {"record_ids": ["r1", "r9"]})
        none = await client.call_tool("read_all", {"record_ids": []})

    assert text(good) == "ok"
    assert bad.is_error
    assert none.is_error
    assert world.ran == ["read_all"]
    assert [(r["agentguard.decision.effect"], r.get("agentguard.resource.id")) for r in world.records()] == [
        ("allow", "r1"),
        ("allow", "r2"),
        ("deny", "r9"),
        ("deny", None),
    ]


async def test_loader_of_users_is_asked_at_each_call(tmp_path: Path) -> None:
    """A user who is suspended between two calls is denied at the second one."""
    groups = [EntityUid("Group", "staff")]

    def extend(world: World) -> None:
        @world.guard.entity("User", private=True)
        async def user(user_id: str) -> Entity:
            return Entity({}, groups)

    write_policies(
        tmp_path,
        entities=[
            {"uid": {"type": "Group", "id": name}, "attrs": {}, "parents": []} for name in ("staff", "suspended")
        ],
    )
    world = make_world(
        tmp_path,
        policies='@id("staff") permit (principal, action, resource)'
        'when { principal has user && principal.user in Group::"staff" };',
        extend=extend,
    )
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader", user="alice"):
        assert await export() == "10 rows"
        groups[0] = EntityUid("Group", "suspended")
        with pytest.raises(AccessDenied):
            await export()


async def test_positional_call_of_a_guarded_function_is_judged(tmp_path: Path) -> None:
    """A direct call in a test may leave out names and defaults; what does not fit raises as ever."""
    world = make_world(tmp_path)
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader"):
        assert await export(7) == "7 rows"
        assert await export() == "10 rows"
        with pytest.raises(AccessDenied):
            await export(501)
        with pytest.raises(TypeError):
            await export(1, "csv", "more")


async def test_guarded_function_that_is_no_tool_is_denied(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A function that its server never got has no action to be judged by."""
    functions: list[Any] = []

    def extend(world: World) -> None:
        @world.guard.tool
        async def orphan() -> None: ...

        functions.append(orphan)

    make_world(tmp_path, extend=extend)

    with acting_as("reader"), pytest.raises(AccessDenied):
        await functions[0]()
    assert "register it before guard.attach(server)" in caplog.text


async def test_id_of_a_private_type_is_kept_as_a_digest_alone(tmp_path: Path) -> None:
    """`private=True` reaches the evidence: no record and no span names the patient."""

    def extend(world: World) -> None:
        @world.guard.entity("Patient", private=True)
        async def patient(_: str) -> Entity:
            return Entity()

        @world.server.tool()
        @world.guard.tool(resource="Patient::{name}")
        async def chart(name: str) -> str:
            return "chart"

    world = make_world(tmp_path, policies=ALL, extend=extend)

    async with Client(world.server) as client:
        assert text(await client.call_tool("chart", {"name": "mallory-smith"})) == "chart"

    (decision,) = world.records()
    assert decision["agentguard.resource.type"] == "Patient"
    assert "mallory-smith" not in str(world.records()) + str(world.records("outcome"))
    assert "mallory-smith" not in "".join(span.to_json() for span in world.exporter.get_finished_spans())


def test_guard_that_cannot_record_its_start_judges_nothing(tmp_path: Path) -> None:
    """Where the first record fails, there is no guard in force and no call that passes it."""
    state = State(store=MemoryStore(clock=lambda: 0.0), ledger=FullLedger(), key=bytes(32))
    given = options(tmp_path, state=state)
    guard = Guard(given.pop("policies"), **given)
    server = MCPServer("records")

    with pytest.raises(Refusal):
        guard.attach(server)

    assert guard._enforcer is None
    assert not [one for one in server.middleware if isinstance(one, Adapter)]


def test_run_is_ended_by_its_name(tmp_path: Path) -> None:
    """With one trusted issuer its run needs no more; an issuer that is not trusted is a mistake."""
    guard = make(tmp_path)

    guard.revoke("run-1", reason="test")
    with pytest.raises(ConfigurationError, match=r"got `run-1` of `https://other\.example`"):
        guard.revoke("run-1", issuer="https://other.example")

    store = guard.state.store
    assert isinstance(store, MemoryStore)
    assert store.revocation(issuer=ISSUER, name="run-1") is not None


def test_run_of_one_of_several_issuers_is_ended_by_its_name_in_evidence(tmp_path: Path) -> None:
    """Two issuers may name their runs alike, so their aliases are part of the names."""
    issuers = [TrustedIssuer(issuer=f"https://{name}.example", alias=name) for name in ("a", "b")]
    guard = make(tmp_path, issuer=None, audience=None, verifier=InvocationVerifier(*issuers, audience=AUDIENCE))

    for issuer in (None, "https://b.example"):
        with pytest.raises(
            ConfigurationError, match=r"wants a run as evidence names it, `a\|…` of `https://a.example`"
        ):
            guard.revoke("run-1", issuer=issuer)
    guard.revoke("b|run-1")
    assert guard.state.store.revocation(issuer="https://b.example", name="run-1") is not None


def test_loader_that_comes_after_attach_is_refused(tmp_path: Path) -> None:
    """The policies were checked without it."""
    world = make_world(tmp_path)

    with pytest.raises(ConfigurationError, match="the loader of `File` comes too late"):
        world.guard.entity("File")(lambda _: Entity())


def test_audience_of_a_local_process_is_none_for_http(tmp_path: Path) -> None:
    """The message does not send whoever mixed them up in the wrong direction."""
    with pytest.raises(ConfigurationError, match="that of a local process: pass the server's URL"):
        make(tmp_path, audience="urn:agentguard:stdio:records").http_auth()
