"""Ways to a credential that nobody allowed: another's name, token or place, or time that was over."""

import asyncio
import os
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import anyio
import httpx2
import pytest
from fastmcp import FastMCP
from fastmcp.server.middleware import Middleware
from mcp import Client
from pydantic import BaseModel, ConfigDict

from agentguard import ConfigurationError, Credential, Issuer, UnsafeMemoryState
from agentguard.credentials.held import holder_of
from agentguard.errors import AccessDenied, CredentialError, Refusal
from agentguard.identity.sources import stdio_audience
from agentguard.policy.schemas.schema import CREDENTIALS
from agentguard.testing import acting_as, unsafe_invocation
from tests.credentials.lending import Office, lending, until
from tests.publishing import move
from tests.test_credentials import CALLS, ISSUE, LENT, called, leases_of, make
from tests.world import (
    AUDIENCE,
    ERAS,
    EVERYTHING,
    ISSUER,
    SERVER,
    TYPES,
    World,
    connected,
    http_client,
    make_guard,
    make_world,
    meta,
    served,
    text,
    write_policies,
)

ALL: Final = '@id("all") permit (principal, action, resource);'


@pytest.mark.parametrize("broker", [True, False])
def test_a_tool_with_the_name_of_the_guards_own_action_is_refused(tmp_path: Path, *, broker: bool) -> None:
    """It would be counted for nothing, and its results looked through for no secret."""

    def extend(world: World) -> None:
        @world.server.tool(name=CREDENTIALS)
        @world.guard.tool
        async def own() -> None: ...

    options: dict[str, Any] = {"broker": Office(time.time)} if broker else {}
    with pytest.raises(ConfigurationError, match=r"has the name of the action|guarded as action"):
        make_world(tmp_path, policies=CALLS, extend=extend, **options)


@pytest.mark.parametrize("broker", [True, False])
async def test_a_tool_of_that_name_that_nobody_can_rename_is_denied_and_the_others_are_not(
    tmp_path: Path, *, broker: bool
) -> None:
    """A program behind the guard chooses its own names."""
    options: dict[str, Any] = {"broker": Office(time.time)} if broker else {}
    world = make_world(tmp_path, policies=CALLS, attach=False, **options)

    @world.server.tool(name=CREDENTIALS)
    async def own() -> None: ...

    @world.server.tool()
    async def other() -> str:
        return "done"

    os.environ["AGENTGUARD_TOKEN"] = world.token(audience=stdio_audience(SERVER))
    world.guard.attach(world.server, unguarded="guard")

    assert meta(await called(world, CREDENTIALS))["reason"] == "denied"
    assert text(await called(world, "other")) == "done"


async def test_what_one_token_of_a_run_was_given_is_for_no_other_that_may_do_less() -> None:
    """An issuer may name several tokens by one task: each is exchanged for what it is good for itself."""
    async with lending() as lent:
        wide = lent.run(scopes=frozenset({"read", "write"}))
        narrow: list[dict[str, Any]] = [
            {"scopes": frozenset({"read"})},
            {"scopes": wide.scopes, "task": "t-2"},
            {"scopes": wide.scopes, "purpose": "audit"},
            {"scopes": wide.scopes, "client_id": "other"},
            {"scopes": wide.scopes, "claims": {"tenant": "b"}},
            {"scopes": wide.scopes, "grant": "permit (principal, action, resource);"},
        ]
        got = [(await lent.leases.lease(lent.request(invocation=wide))).reveal()]
        got += [(await lent.leases.lease(lent.request(invocation=lent.run(**facts)))).reveal() for facts in narrow]
        assert len(set(got)) == len(got) == 7

        lent.store.revoke(issuer=wide.issuer, run_id=wide.run_id)
        await until(lambda: sorted(lent.office.released) == sorted(got))


def _cancels(lent: Any, what: str, *, waits: bool) -> None:
    """Have the broker cancel the task that it runs in."""
    does = getattr(lent.office, what)

    async def cancelling(*arguments: Any) -> Any:
        setattr(lent.office, what, does)
        given = await does(*arguments)
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        if waits:
            await asyncio.sleep(0)
        return given

    setattr(lent.office, what, cancelling)


@pytest.mark.parametrize("waits", [True, False])
async def test_a_broker_that_cancels_its_own_task_ends_nothing_else(*, waits: bool) -> None:
    """Neither the thread in which all brokers are asked, nor that what it gave is given back."""
    async with lending() as lent:
        _cancels(lent, "issue", waits=waits)
        if waits:
            with pytest.raises(Refusal) as caught:
                await lent.leases.lease(lent.request())
            assert caught.value.detail == "credential `crm`: the broker was cancelled"
        # What it gave before anybody noticed is one credential among others.
        credential = await lent.leases.lease(lent.request())
        assert credential.reveal() == lent.office.secret(2 if waits else 1)

        _cancels(lent, "release", waits=waits)
        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.events() == ["issued", "released"])


async def test_a_credential_is_given_back_although_the_clock_was_set_forward_meanwhile() -> None:
    """It did not end: nobody has to give back what did, and that is told by two clocks."""
    async with lending() as lent:
        secret = (await lent.leases.lease(lent.request())).reveal()
        lent.clock.now += 400
        await anyio.sleep(0.05)
        assert lent.leases.secrets_of(lent.run()) == (secret,)
        lent.clock.now -= 400

        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: lent.events() == ["issued", "released"])
        assert lent.office.released == [secret]


class Held(BaseModel):
    """What a tool may return one in."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    crm: Credential


@dataclass
class Kept:
    """The same."""

    crm: Credential


@pytest.mark.parametrize("within", [lambda crm: crm, lambda crm: {"crm": [crm]}, lambda crm: Held(crm=crm), Kept])
async def test_a_tool_that_returns_its_credential_gives_it_to_nobody(
    tmp_path: Path, within: Callable[[Credential], object]
) -> None:
    """Not to another tool either, which policies may not give it to."""
    office, functions = Office(time.time), dict[str, Any]()
    lends = f'@id("lends") permit (principal, action == {ISSUE}, resource) when {{ context.input.tool == "gets" }};'

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def gets(crm: Annotated[Credential, world.guard.credential("crm")]) -> Any:
            return within(crm)

        functions["gets"] = gets

        @world.server.tool()
        @world.guard.tool
        async def wants() -> str:
            world.ran.append("wants")
            world.ran.append(str(await functions["gets"]()))
            return "done"

    world = make_world(tmp_path, policies=f"{CALLS} {lends}", extend=extend, broker=office)
    for tool in ("wants", "gets"):
        assert meta(await called(world, tool))["reason"] == "denied"
    assert world.ran == ["wants"]
    assert [one["agentguard.credential.name"] for one in world.records("credential_leak")] == ["crm", "crm"]
    leases_of(world).close()


async def test_what_outlives_its_tool_gets_no_credential(tmp_path: Path) -> None:
    """Although the request that brought the identity is still being answered."""
    write_policies(tmp_path, ALL, types=None)
    issuer, state, office = Issuer(issuer=ISSUER, audience=AUDIENCE), UnsafeMemoryState(), Office(time.time)
    guard, _ = make_guard(tmp_path, issuer, state=state, broker=office)
    over, caught = asyncio.Event(), asyncio.Event()
    denied: list[AccessDenied] = []

    class Slow(Middleware):
        async def on_call_tool(self, context: Any, call_next: Any) -> Any:
            result = await call_next(context)
            over.set()
            await caught.wait()
            return result

    server = FastMCP[Any](SERVER, auth=guard.auth(), middleware=[Slow()])
    tasks = []

    @server.tool
    @guard.tool
    async def leaves() -> str:
        async def later() -> None:
            await over.wait()
            try:
                await guard.credential("crm")
            except AccessDenied as error:
                denied.append(error)
            finally:
                caught.set()

        tasks.append(asyncio.create_task(later()))
        return "done"

    os.environ["AGENTGUARD_TOKEN"] = issuer.mint(agent="reader", audience=stdio_audience(SERVER), grant=EVERYTHING)
    guard.attach(server)
    async with Client(server._mcp_server, mode=ERAS[-1]) as client:
        assert text(await client.call_tool("leaves", {})) == "done"

    assert [error.decision.reason for error in denied] == ["unauthenticated"]
    assert office.asked == []
    kinds = [entry.record["attributes"].get("agentguard.action.id") for entry in state.ledger]  # type: ignore[attr-defined]
    assert kinds.count(CREDENTIALS) == 1


async def test_a_caller_who_names_the_parameter_gives_nothing(tmp_path: Path) -> None:
    """What it is filled with is the guard's alone."""
    world, office = make(tmp_path)
    async with connected(world, "memory", ERAS[-1]) as client:
        await client.call_tool("injected", {"name": "ann", "crm": "mine"})
    assert world.ran == [f"injected ann {office.secret(1)}"]
    leases_of(world).close()


async def test_arguments_by_their_place_are_those_that_were_judged(tmp_path: Path) -> None:
    """A credential among them takes none of their places."""
    functions: dict[str, Any] = {}

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def mixed(
            first: str, /, crm: Annotated[Credential, world.guard.credential("crm")], second: str, third: str = "c"
        ) -> str:
            return f"{first} {crm!r} {second} {third}"

        functions["mixed"] = mixed

    world = make_world(tmp_path, policies=LENT, extend=extend, broker=Office(time.time))
    with acting_as("reader"):
        assert await functions["mixed"]("a", "b") == "a <credential `crm`> b c"
        assert await functions["mixed"]("a", second="b", third="d") == "a <credential `crm`> b d"
        with pytest.raises(TypeError):
            await functions["mixed"]("a", "b", "c", "mine")
    leases_of(world).close()


@pytest.mark.parametrize("renewed", ["not", "in its place", "beside it"])
async def test_a_credential_that_a_tool_kept_tells_nothing_once_it_was_given_back(renewed: str) -> None:
    """Also where the other system takes nothing back, so that it would be good for longer than its run."""
    async with lending(lease_id="lease" if renewed == "in its place" else None) as lent:
        kept = await lent.leases.lease(lent.request())
        assert kept.reveal() == lent.office.secret(1)
        if renewed != "not":
            lent.clock.pass_(280)
            await lent.leases.lease(lent.request())
            assert kept.reveal() == lent.office.secret(1)
        lent.office.answers["release"] = [CredentialError("nothing is taken back")] * 2

        lent.store.revoke(issuer="https://issuer.example", run_id="run-1")
        await until(lambda: not lent.leases)
        for use in (kept.reveal, kept.authorization, lambda: kept(httpx2.Request("GET", "https://crm.example"))):
            with pytest.raises(CredentialError) as caught:
                use()
            assert caught.value.detail == "credential `crm` is over: ask for it in each call"
        assert repr(kept) == "<credential `crm`>"


async def test_a_credential_that_a_tool_kept_is_for_no_other_run(tmp_path: Path) -> None:
    """What one user's agent was given, another's would act by: nobody would have decided on that."""
    kept: list[Credential] = []

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def find(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            kept.append(crm)
            world.ran.append(kept[0].reveal())
            return "done"

        @world.server.tool()
        @world.guard.tool
        def in_a_thread() -> str:
            world.ran.append(kept[0].reveal())
            return "done"

    office = Office(time.time)
    world = make_world(tmp_path, policies=LENT, extend=extend, broker=office, agent=None)
    async with served(world) as url:
        for user in ("alice", "bob"):
            async with http_client(url, world.token(user=user)) as client:
                answers = [(await client.call_tool(name, {})).is_error for name in ("find", "find", "in_a_thread")]
                assert answers == [user == "bob"] * 3
    assert world.ran == [office.secret(1)] * 3
    assert kept[0].reveal() == office.secret(1)
    leases_of(world).close()


async def test_a_credential_that_a_tool_kept_is_for_no_other_user_of_the_same_run(tmp_path: Path) -> None:
    """An issuer may tell runs apart by what two users share."""
    kept: list[Credential] = []
    functions: dict[str, Any] = {}

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def find(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            kept.append(crm)
            return kept[0].reveal()[:6]

        functions["find"] = find

    world = make_world(tmp_path, policies=LENT, extend=extend, broker=Office(time.time))
    for user in ("alice", "bob"):
        refused = pytest.raises(CredentialError) if user == "bob" else nullcontext()
        with acting_as("reader", run_id="mission", user=user, grant=EVERYTHING), refused:
            await functions["find"]()
    leases_of(world).close()


def test_a_credential_goes_by_the_issuers_names() -> None:
    """Two guards in one process may put different aliases before them, and mean one run."""
    here = unsafe_invocation("corp|clerk", run_id="corp|run-1", user="corp|alice", prefix="corp|", subject="s")
    there = unsafe_invocation("clerk", run_id="run-1", user="alice", subject="s")
    assert holder_of(here) == holder_of(there)
    assert holder_of(there) != holder_of(unsafe_invocation("clerk", run_id="run-1", user="bob", subject="s"))


async def test_a_call_that_is_let_run_under_a_limit_gets_its_credential(tmp_path: Path) -> None:
    """It was counted before it asks; of calls at once, each would be the one too many."""
    limit = '@id("three") forbid (principal, action, resource) when { context.run.calls >= 3 };'
    world, _ = make(tmp_path, f"{LENT} {limit}")
    reasons: list[str] = []

    async with connected(world, "memory", ERAS[-1]) as client:

        async def call() -> None:
            answer = await client.call_tool("injected", {"name": "ann"})
            reasons.append(meta(answer)["reason"] if answer.is_error else "ran")

        async with anyio.create_task_group() as tasks:
            for _ in range(6):
                tasks.start_soon(call)

    assert sorted(reasons) == ["denied"] * 3 + ["ran"] * 3
    assert len(world.ran) == 3
    leases_of(world).close()


async def test_a_lease_is_judged_by_the_policies_and_the_labels_of_each_use(tmp_path: Path) -> None:
    """That the run has it already is no reason to let a tool have it."""
    untrusted = 'when { context.run.labels.contains("untrusted") }'
    labelled = f'{LENT} @id("untrusted") forbid (principal, action == {ISSUE}, resource) {untrusted};'
    office = Office(time.time)

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def uses(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            return f"{crm!r}"

        @world.server.tool()
        @world.guard.tool
        def reads() -> str:
            world.guard.label("untrusted")
            return "mail"

    folder = tmp_path / "policies"
    world = make_world(folder, policies=labelled, extend=extend, broker=office)
    async with connected(world, "memory", ERAS[-1]) as client:
        assert not (await client.call_tool("uses", {})).is_error
        forbidden = f'{LENT} @id("none") forbid (principal, action == {ISSUE}, resource);'
        move(folder, {"policies.cedar": forbidden, "types/records.cedarschema": TYPES})
        assert (await world.guard.reload()).loaded
        assert meta(await client.call_tool("uses", {}))["reason"] == "denied"
        move(folder, {"policies.cedar": labelled, "types/records.cedarschema": TYPES})
        assert (await world.guard.reload()).loaded
        assert not (await client.call_tool("uses", {})).is_error
        assert text(await client.call_tool("reads", {})) == "mail"
        assert meta(await client.call_tool("uses", {}))["reason"] == "denied"
    assert office.count("issue") == 1
    leases_of(world).close()


async def test_a_credential_of_another_guard_is_given_to_no_tool(tmp_path: Path) -> None:
    """Its policies know nothing of the call."""
    office = Office(time.time)
    other = make_world(tmp_path / "other", policies=ALL, broker=office)

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def wants(crm: Annotated[Credential, other.guard.credential("crm")]) -> None:
            world.ran.append(crm.reveal())

    world = make_world(tmp_path / "own", policies=ALL, extend=extend, broker=office)
    assert meta(await called(world, "wants"))["reason"] == "unauthenticated"
    assert (world.ran, office.asked) == ([], [])
