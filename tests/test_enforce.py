"""The order of the steps, and that each of them closes when it fails."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client

from agentguard import AccessDenied, Entity, EntityUid, Invocation, Reason, Refusal, State
from agentguard.evidence.ledger import Entry, MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.testing import acting_as
from tests.tokens import Clock
from tests.world import World, make_world, meta, text, write_policies

ALL = '@id("all") permit (principal, action, resource);'


@dataclass
class Flag:
    """What facts could add."""

    known: bool


class Disk(MemoryLedger):
    """A ledger whose disk a test can fill."""

    full_from = 10**9

    def append(self, record: Mapping[str, object]) -> Entry:
        """Keep *record*, while there is room."""
        if len(self) >= self.full_from:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "no space left")
        return super().append(record)


class Store(MemoryStore):
    """A store that a test can take down."""

    error: Exception | None = None
    answers = 10**9

    def ended(self, invocation: Invocation) -> bool:
        """Answer, while it is up."""
        self.answers -= 1
        if self.answers < 0:
            assert self.error is not None
            raise self.error
        return super().ended(invocation)


def with_state(ledger: MemoryLedger | None = None, store: MemoryStore | None = None) -> State:
    """Return a state of these parts."""
    return State(
        store=MemoryStore(clock=lambda: 0.0) if store is None else store,
        ledger=MemoryLedger() if ledger is None else ledger,
        key=bytes(32),
    )


async def test_no_evidence_no_action(tmp_path: Path) -> None:
    """A decision that cannot be recorded is a denial, and the tool does not run."""
    disk = Disk()
    world = make_world(tmp_path, policies=ALL, state=with_state(disk))
    disk.full_from = len(disk)

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result) | {"id": ""} == {"id": "", "effect": "deny", "reason": "unavailable", "retry": "later"}
    assert world.ran == []


async def test_denial_that_cannot_be_recorded_is_still_a_denial(tmp_path: Path) -> None:
    """A full disk turns no denial into anything else."""
    disk = Disk()
    world = make_world(tmp_path, state=with_state(disk))
    disk.full_from = len(disk)

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r9"})

    assert meta(result)["reason"] == "unavailable"
    assert world.ran == []


async def test_second_of_two_records_that_fails_denies(tmp_path: Path) -> None:
    """Where a call needs several decisions, all of them are recorded or nothing runs."""
    disk = Disk()

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{record_ids[*]}")
        async def read_all(record_ids: list[str]) -> None:
            world.ran.append("read_all")

    world = make_world(tmp_path, policies=ALL, state=with_state(disk), extend=extend)
    disk.full_from = len(disk) + 1

    async with Client(world.server) as client:
        result = await client.call_tool("read_all", {"record_ids": ["r1", "r2"]})

    assert meta(result)["reason"] == "unavailable"
    assert world.ran == []


@pytest.mark.parametrize("error", [Refusal(Reason.STORE_UNAVAILABLE, "stale"), OSError("down")])
@pytest.mark.parametrize("answers", [0, 1, 2, 3])
async def test_store_that_is_down_denies(answers: int, error: Exception, tmp_path: Path) -> None:
    """Whether preflight, step 1, step 6 or whoever follows the run cannot ask, nothing runs."""
    store = Store(clock=lambda: 0.0)
    world = make_world(tmp_path, policies=ALL, state=with_state(store=store))
    store.error, store.answers = error, answers

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "unavailable"
    assert world.ran == []


@pytest.mark.parametrize("error", [Refusal(Reason.STORE_UNAVAILABLE, "stale"), OSError("down")])
async def test_store_that_goes_down_during_the_call_withholds(error: Exception, tmp_path: Path) -> None:
    """Who cannot know whether the run was ended does not hand out its result."""
    store = Store(clock=lambda: 0.0)
    world = make_world(tmp_path, policies=ALL, state=with_state(store=store))
    store.error, store.answers = error, 4

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "unavailable"
    assert "secret" not in str(result)
    assert world.ran == ["read r1"]
    assert world.records("outcome")[0]["agentguard.execution.outcome"] == "withheld"


async def test_run_that_is_ended_while_a_loader_works_is_denied(tmp_path: Path) -> None:
    """The call is cancelled in the middle of being judged; nothing was decided."""
    loading = anyio.Event()

    def extend(world: World) -> None:
        @world.guard.entity("File")
        async def file(_: str) -> Entity:
            loading.set()
            await anyio.sleep_forever()
            raise AssertionError

        @world.server.tool()
        @world.guard.tool(resource="File::{name}")
        async def open_file(name: str) -> None:
            world.ran.append("open_file")

    world = make_world(tmp_path, policies=ALL, extend=extend)
    told: list[Any] = []
    with acting_as("reader") as invocation, anyio.fail_after(20):
        async with Client(world.server) as client, anyio.create_task_group() as tasks:

            async def call() -> None:
                told.append(await client.call_tool("open_file", {"name": "x"}))

            tasks.start_soon(call)
            await loading.wait()
            world.state.store.revoke(issuer=invocation.issuer, run_id=invocation.run_id)

    assert meta(told[0])["reason"] == "ended"
    assert world.ran == []
    assert [record["agentguard.decision.reason"] for record in world.records()] == ["revoked"]


async def test_unexpected_error_denies_and_keeps_its_text_to_itself(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug in the guard's own steps closes; the log has its class and place, not its text."""
    world = make_world(tmp_path, policies=ALL)
    rule = world.guard._functions[0].rule
    assert rule is not None

    def broken(*_: object) -> tuple[EntityUid, ...]:
        message = "alice's record"
        raise ZeroDivisionError(message)

    object.__setattr__(rule, "resource", type("Broken", (), {"uids": staticmethod(broken)})())
    with caplog.at_level(logging.ERROR):
        async with Client(world.server) as client:
            result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "unavailable"
    assert world.records()[-1]["agentguard.decision.reason"] == "internal_error"
    assert f"ZeroDivisionError was raised at {__file__}:" in caplog.text
    assert "alice" not in caplog.text


async def test_time_of_the_call_is_judged_in_the_guards_zone(tmp_path: Path) -> None:
    """`context.local` is the wall clock of the configured zone, `context.now` the instant."""
    clock = Clock(1_785_607_200.0)  # 2026-08-01 18:00 UTC, a Saturday; 20:00 in Zurich
    world = make_world(
        tmp_path,
        policies="""
        @id("evening") permit (principal, action == Action::"export", resource)
        when { context.local.weekday == 6 && context.local.minute == 1200
               && context.now == datetime("2026-08-01T18:00:00Z") && context.environment == "staging" };
        """,
        clock=clock,
        time_zone="Europe/Zurich",
        environment="staging",
        agent=None,
    )
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader", at=clock.now):
        assert await export() == "10 rows"
        clock.now += 60
        with pytest.raises(AccessDenied):
            await export()


async def test_task_that_has_a_loader_is_loaded_for_each_link(tmp_path: Path) -> None:
    """Preflight and decision see the same loaded principal; a chain's links are loaded too."""
    asked: list[str] = []

    def extend(world: World) -> None:
        @world.guard.entity("Task")
        async def task(task_id: str) -> Entity:
            asked.append(task_id)
            return Entity({}, [EntityUid("Group", "open")])

    write_policies(tmp_path, entities=[{"uid": {"type": "Group", "id": "open"}, "attrs": {}, "parents": []}])
    world = make_world(
        tmp_path,
        policies='@id("open") permit (principal, action, resource) when { principal.task in Group::"open" };'.replace(
            "when {", "when { principal has task &&"
        ),
        extend=extend,
    )
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("parent", run_id="1", task="t1") as parent:
        assert await export() == "10 rows"
    with acting_as("child", run_id="2", task="t2", ancestors=(parent,)):
        async with Client(world.server) as client:
            assert not (await client.call_tool("export", {})).is_error

    assert set(asked) == {"t1", "t2"}


async def test_denial_before_the_arguments_is_recorded_with_its_policies(tmp_path: Path) -> None:
    """The caller hears what a stranger hears; the evidence says which policy decided."""
    world = make_world(
        tmp_path,
        policies=ALL
        + '@id("suspended") @advice("Ask Carol.") forbid (principal in Agent::"reader", action, resource);',
    )

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})
        absent = await client.call_tool("absent", {})

    assert text(result).replace(meta(result)["id"], "") == text(absent).replace(meta(absent)["id"], "")
    assert world.records()[0]["agentguard.decision.reason"] == "policy"
    assert world.records()[0]["agentguard.policy.ids"] == ["suspended"]


async def test_call_that_only_a_person_could_allow_says_so(tmp_path: Path) -> None:
    """Where every matching forbid asks for an approval, and nobody can be asked, that is the reason."""
    world = make_world(
        tmp_path,
        policies=ALL
        + '@id("ask") @obligation("approval") @advice("A person has to approve this call.")'
        + 'forbid (principal, action == Action::"export", resource) unless { context has approval };'
        + '@id("cap") forbid (principal, action == Action::"export", resource) when { context.input.max_rows > 500 };',
    )

    async with Client(world.server) as client:
        asked = await client.call_tool("export", {"max_rows": 1})
        both = await client.call_tool("export", {"max_rows": 501})

    assert meta(asked) | {"id": ""} == {"id": "", "effect": "deny", "reason": "approval", "retry": "approval"}
    assert text(asked).startswith("A person has to approve this call. Decision ")
    assert world.records()[0]["agentguard.decision.reason"] == "approval_unavailable"
    assert meta(both)["reason"] == "denied"
    assert world.records()[1]["agentguard.policy.ids"] == ["ask", "cap"]


async def test_span_of_a_call_that_was_refused_early_is_ended_and_holds_no_made_up_name(tmp_path: Path) -> None:
    """Span names come from the server's tools: a caller must not make them without end."""
    world = make_world(tmp_path, policies=ALL)

    async with Client(world.server) as client:
        await client.call_tool("made up", {})
        await client.call_tool("export", {"max_rows": "many"})

    spans = [span for span in world.exporter.get_finished_spans() if span.name.startswith("agentguard")]
    assert [span.name for span in spans] == ["agentguard.authorize", "agentguard.authorize export"]
    assert [(span.attributes or {})["agentguard.decision.effect"] for span in spans] == ["deny", "deny"]


@pytest.mark.parametrize("arguments", [{"max_rows": 1}, {"max_rows": "many"}])
async def test_refusal_is_recorded_with_the_policies_in_force(arguments: dict[str, Any], tmp_path: Path) -> None:
    """Also where no policy was asked, the evidence says by which version it would have been."""
    world = make_world(tmp_path, policies=ALL, label="spring", agent=None)

    async with Client(world.server) as client:
        await client.call_tool("export", arguments)
        with acting_as("reader"):
            await client.call_tool("export", {"max_rows": "many"})

    (start,) = world.records("start")
    for record in world.records():
        assert record["agentguard.policy.version"] == start["agentguard.policy.version"]
        assert record["agentguard.policy.label"] == "spring"
        assert isinstance(record["agentguard.policy.activated_at"], int)


async def test_arguments_are_recorded_as_a_digest(tmp_path: Path) -> None:
    """Equal arguments have equal digests, other ones have others, and their values stand nowhere."""
    world = make_world(tmp_path, policies=ALL)

    async with Client(world.server) as client:
        for rows in (424_242, 424_242, 10):
            await client.call_tool("export", {"max_rows": rows})

    first, second, third = (record["agentguard.arguments.digest"] for record in world.records())
    assert first == second != third
    assert "424242" not in str(world.records())


async def test_call_is_judged_by_one_version_from_start_to_end(tmp_path: Path) -> None:
    """A version that comes into force while a loader works is for the next call."""
    other = make_world(tmp_path / "other", policies=ALL)
    assert other.guard._enforcer is not None

    def extend(world: World) -> None:
        @world.guard.entity("File")
        async def file(_: str) -> Entity:
            assert world.guard._enforcer is not None
            assert other.guard._enforcer is not None
            world.guard._enforcer.in_force.policies = other.guard._enforcer.in_force.policies
            return Entity()

        @world.server.tool()
        @world.guard.tool(resource="File::{name}")
        async def read(name: str) -> None:
            world.ran.append("file")

    def only_files(world: World) -> None:
        world.server.remove_tool("read")
        extend(world)

    world = make_world(
        tmp_path / "own",
        policies=ALL
        + '@id("x") forbid (principal, action == Action::"read", resource) when { context.input.name == "x" };',
        extend=only_files,
    )

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"name": "x"})

    assert result.is_error
    assert world.ran == []
    assert world.records()[0]["agentguard.policy.ids"] == ["x"]


async def test_facts_that_raise_leave_none_of_their_text_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """What a developer's function says of the arguments is the arguments'."""

    def facts(max_rows: int) -> Flag:
        message = f"{max_rows} is alice's"
        raise ValueError(message)

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(facts=facts)
        async def count(max_rows: int) -> None:
            world.ran.append("count")

    world = make_world(tmp_path, policies=ALL, extend=extend)

    with caplog.at_level(logging.DEBUG, logger="agentguard"):
        async with Client(world.server) as client:
            result = await client.call_tool("count", {"max_rows": 424_242})

    assert meta(result)["reason"] == "invalid_argument"
    assert "the facts of `count` raised ValueError" in caplog.text
    logged = "".join(record.getMessage() for record in caplog.records if record.name == "agentguard")
    assert "alice" not in logged
    assert world.ran == []


async def test_early_denial_that_cannot_be_recorded_says_so(tmp_path: Path) -> None:
    """A caller is not told that policy denies, where nobody could look that up afterwards."""
    disk = Disk()
    world = make_world(tmp_path, state=with_state(disk))
    disk.full_from = len(disk)

    async with Client(world.server) as client:
        result = await client.call_tool("absent", {})

    assert meta(result)["reason"] == "unavailable"


async def test_resource_that_a_loader_knows_is_in_the_tool_that_acts_on_it(tmp_path: Path) -> None:
    """So a forbid on the tool's records fires, and the principal's own loaders are asked beside it."""
    asked: list[str] = []

    def extend(world: World) -> None:
        @world.guard.entity("User")
        async def user(user_id: str) -> Entity:
            asked.append(user_id)
            return Entity()

    world = make_world(
        tmp_path,
        policies=ALL + '@id("no") forbid (principal, action, resource in Tool::"read");',
        extend=extend,
    )

    with acting_as("reader", user="alice"):
        async with Client(world.server) as client:
            asked.clear()
            await client.call_tool("read", {"record_id": "r1"})

    assert world.ran == []
    assert world.records()[-1]["agentguard.policy.ids"] == ["no"]
    assert asked == ["alice", "alice"]


async def test_principal_that_the_entity_file_knows_is_not_loaded(tmp_path: Path) -> None:
    """Two truths about one user would be one too many: the engine would refuse them both."""
    asked: list[str] = []

    def extend(world: World) -> None:
        @world.guard.entity("User")
        async def user(user_id: str) -> Entity:
            asked.append(user_id)
            return Entity()

    write_policies(tmp_path, entities=[{"uid": {"type": "User", "id": "alice"}, "attrs": {}, "parents": []}])
    world = make_world(tmp_path, policies=ALL, extend=extend)

    for name in ("alice", "bob"):
        with acting_as("reader", user=name):
            async with Client(world.server) as client:
                assert not (await client.call_tool("export", {})).is_error
                assert not (await client.call_tool("read", {"record_id": "r1"})).is_error

    assert set(asked) == {"bob"}


async def test_store_that_is_too_old_denies(tmp_path: Path) -> None:
    """A store that does not know enough to answer is not asked."""

    class Stale(MemoryStore):
        def require_healthy(self) -> None:
            raise Refusal(Reason.STORE_UNAVAILABLE, "ten seconds old")

    world = make_world(tmp_path, policies=ALL, state=with_state(store=Stale(clock=lambda: 0.0)))

    async with Client(world.server) as client:
        result = await client.call_tool("read", {"record_id": "r1"})

    assert meta(result)["reason"] == "unavailable"
    assert world.ran == []


async def test_name_that_a_caller_made_up_does_not_reach_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A log line cannot be forged with line breaks, nor filled."""
    world = make_world(tmp_path, policies=ALL)

    with caplog.at_level(logging.INFO, logger="agentguard"):
        async with Client(world.server) as client:
            await client.call_tool("x\nERROR forged " + "y" * 1000, {})

    assert "forged" not in "".join(record.getMessage() for record in caplog.records if record.name == "agentguard")


async def test_nested_call_that_began_before_the_request_ended_does_not_run_after_it(tmp_path: Path) -> None:
    """Whoever detached it, the request is over by the time that it is decided."""
    loading, go_on, done = anyio.Event(), anyio.Event(), anyio.Event()
    outcome: list[object] = []

    async with anyio.create_task_group() as background:

        def extend(world: World) -> None:
            @world.guard.entity("File")
            async def file(_: str) -> Entity:
                loading.set()
                await go_on.wait()
                return Entity()

            @world.server.tool()
            @world.guard.tool(resource="File::{name}")
            async def open_file(name: str) -> None:
                world.ran.append("open_file")

            async def later() -> None:
                try:
                    await open_file("x")
                    outcome.append("ran")
                except AccessDenied as denied:
                    outcome.append(denied.decision.reason)
                done.set()

            @world.server.tool()
            @world.guard.tool
            async def detach() -> None:
                background.start_soon(later)
                await loading.wait()

        world = make_world(tmp_path, policies=ALL, extend=extend)
        with anyio.fail_after(20):
            async with Client(world.server) as client:
                await client.call_tool("detach", {})
            go_on.set()
            await done.wait()

    assert outcome == [Reason.UNAUTHENTICATED]
    assert world.ran == []


async def test_call_that_names_too_many_entities_for_its_size_is_denied(tmp_path: Path) -> None:
    """Each entity is a reading of all arguments: a thousand of them would hold up the server for seconds."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{record_ids[*]}")
        async def read_all(record_ids: list[str]) -> None:
            world.ran.append("read_all")

    world = make_world(tmp_path, policies=ALL, extend=extend)

    async with Client(world.server) as client:
        result = await client.call_tool("read_all", {"record_ids": [f"r-{n}" for n in range(1_000)]})

    assert meta(result)["reason"] == "invalid_argument"
    assert world.ran == []
