"""Policies that go live without a restart: what is taken, what is not, and what the evidence says of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest
from mcp import Client
from mcp.server.mcpserver import MCPServer
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from agentguard import ConfigurationError, Issuer, Limits, PolicyError, Reload, UnsafeMemoryState
from agentguard.errors import Refusal
from agentguard.evidence.ledger import MemoryLedger
from agentguard.identity.sources import stdio_audience
from agentguard.live import reloading
from agentguard.live.compiling import Compiling
from agentguard.live.prompting import Asked
from agentguard.live.reloading import open_reloading
from agentguard.model import Reason
from agentguard.policy.deciding.entities import Loaders
from agentguard.policy.files.keeping import PolicyFolder
from agentguard.policy.files.source import PolicySource
from agentguard.testing import acting_as
from tests.publishing import lock, move, put
from tests.tokens import Clock
from tests.world import AUDIENCE, ISSUER, POLICIES, SERVER, TYPES, World, connected, make_guard, make_world, meta, text

ROWS = POLICIES.replace("500", "700")
ALL = '@id("all") permit (principal, action, resource);'
BROKEN = "permit"
MISFIT = POLICIES.replace("max_rows", "most_rows")
FILES = {"policies.cedar": POLICIES, "types/records.cedarschema": TYPES}


def files(policies: str) -> dict[str, str]:
    """Return a policy folder's files."""
    return {**FILES, "policies.cedar": policies}


async def rows(client: Client, number: int = 600) -> bool:
    """Return whether so many rows may be exported."""
    return not (await client.call_tool("export", {"max_rows": number})).is_error


async def test_folder_that_was_replaced_judges_the_next_call(tmp_path: Path) -> None:
    """And the record has both versions, as does each decision."""
    world = make_world(tmp_path / "policies")
    async with connected(world, "memory", "2026-07-28") as client:
        before = await rows(client)
        move(world.folder, files(ROWS))
        done = await world.guard.reload()
        after = await rows(client)

    assert (before, after) == (False, True)
    assert (done.loaded, done.refused, done.problems, done.shadow) == (True, "", (), None)
    (change,) = world.records("policy")
    assert change["agentguard.policy.version"] == done.version
    assert [one["agentguard.policy.version"] for one in world.records()] == [
        change["agentguard.policy.previous"],
        done.version,
    ]


async def test_who_cannot_be_told_of_policies_does_not_keep_them_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Else they would be in force, and be gone again with the next tool that is learned."""
    world = make_world(tmp_path / "policies")
    live = world.guard._reloading._live
    assert live is not None

    def fails() -> None:
        raise KeyError

    live.in_force.tell(fails)
    move(world.folder, files(ROWS))

    done = await world.guard.reload()

    assert (done.loaded, done.refused) == (True, "")
    assert dict(live.compiling.terms.source.files)["policies.cedar"] == ROWS
    assert "could not be told of them: KeyError was raised" in caplog.text


async def test_folder_that_holds_what_is_in_force_is_no_change(tmp_path: Path) -> None:
    """Nothing is recorded of it."""
    world = make_world(tmp_path / "policies")

    done = await world.guard.reload()

    assert (done.loaded, done.refused) == (False, "")
    assert world.records("policy") == []


@pytest.mark.parametrize(
    ("change", "why", "told"),
    [
        (lambda folder: put(folder, files(ROWS)), "incomplete", "was changed where it stands"),
        (lambda folder: move(folder, files(BROKEN)), "invalid", "policies.cedar:1: the last policy has no end"),
        (lambda folder: move(folder, files(MISFIT)), "invalid", "most_rows"),
        (lambda folder: move(folder, {**FILES, "types/records.cedarschema": TYPES + "entity Other = { other: Other };"
                                      + "entity User = { name: String };"}), "invalid", "`User`"),
        (lambda folder: move(folder, {**FILES, "types/records.cedarschema": ""}), "invalid", "`Record`"),
        (lambda folder: folder.rename(folder.with_name("gone")), "unreadable", "does not exist"),
    ],
    ids=["in place", "broken", "another argument", "a type that nobody knows", "no type of a loader", "gone"],
)  # fmt: skip
async def test_what_is_not_whole_or_not_valid_leaves_the_last_good_version(
    change: Callable[[Path], object], why: str, told: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The log says where and how to mend it; the evidence says why, in a word of a closed list."""
    world = make_world(tmp_path / "policies")
    async with connected(world, "memory", "2026-07-28") as client:
        assert not await rows(client)
        change(world.folder)
        done = await world.guard.reload()
        assert not await rows(client)

    version = world.records()[0]["agentguard.policy.version"]
    assert (done.loaded, done.refused, done.version) == (False, why, version)
    assert any(told in problem for problem in done.problems), done.problems
    assert told in caplog.text
    assert world.records("policy") == [{"agentguard.policy.refused": why, "agentguard.policy.version": version}]
    assert {one["agentguard.policy.version"] for one in world.records()} == {version}


async def test_same_mistake_is_recorded_once_and_told_to_whoever_asks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Somebody looks every few seconds; another mistake is another record."""
    world = make_world(tmp_path / "policies")
    put(world.folder, files(BROKEN))
    for _ in range(3):
        await world.guard.reload()
    assert len(world.records("policy")) == 1
    world.guard._reloading.check(Asked.BY_NEWS)
    assert caplog.text.count("are not taken, and those before stay: incomplete") == 3

    move(world.folder, files(BROKEN))
    await world.guard.reload()
    move(world.folder, files(POLICIES))
    await world.guard.reload()
    move(world.folder, files(BROKEN))
    await world.guard.reload()

    assert [one["agentguard.policy.refused"] for one in world.records("policy")] == ["incomplete", "invalid", "invalid"]


def test_folder_that_is_broken_and_mended_all_the_time_floods_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how it stays is told all the same, as soon as that may be."""
    monkeypatch.setattr(reloading, "_AT_ONCE", 3)
    clock = Clock()
    world = make_world(tmp_path / "policies", clock=clock)

    def flap() -> None:
        for text_ in (BROKEN, POLICIES):
            put(world.folder, files(text_))
            lock(world.folder)
            world.guard._reloading.check(Asked.BY_NEWS)

    for _ in range(6):
        flap()
    assert len(world.records("policy")) == caplog.text.count("are not taken") == 3

    put(world.folder, files(BROKEN))
    lock(world.folder)
    world.guard._reloading.check(Asked.BY_NEWS)
    assert len(world.records("policy")) == 3
    clock.now += 61
    world.guard._reloading.check(Asked.BY_NEWS)
    world.guard._reloading.check(Asked.BY_NEWS)
    assert len(world.records("policy")) == caplog.text.count("are not taken") == 4


async def test_change_that_cannot_be_recorded_is_not_taken(tmp_path: Path) -> None:
    """No evidence, no action; it is taken as soon as it can be."""
    ledger = Full()
    state = UnsafeMemoryState()
    object.__setattr__(state, "ledger", ledger)
    reader = InMemoryMetricReader()
    world = make_world(tmp_path / "policies", state=state, meter_provider=MeterProvider([reader]))
    move(world.folder, files(ROWS))
    ledger.full = True
    first = await world.guard.reload()
    move(world.folder, files(BROKEN))
    second = await world.guard.reload()
    move(world.folder, files(ROWS))
    ledger.full = False
    third = await world.guard.reload()

    assert (first.refused, first.loaded) == ("unrecorded", False)
    assert (second.refused, second.version) == ("invalid", first.version)
    assert (third.refused, third.loaded) == ("", True)
    assert [one["agentguard.policy.version"] for one in world.records("policy")] == [third.version]
    assert outcomes(reader) == {"unrecorded": 1, "invalid": 1, "loaded": 1}


class Full(MemoryLedger):
    """A ledger that is full at times."""

    full = False

    def append(self, record: Any) -> Any:
        """Keep a record, if there is room."""
        if self.full:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "full")
        return super().append(record)


def outcomes(reader: InMemoryMetricReader) -> dict[str, int]:
    """Return how many changes came to what."""
    data: Any = reader.get_metrics_data()
    metrics = [metric for one in data.resource_metrics for scope in one.scope_metrics for metric in scope.metrics]
    points = [
        point for metric in metrics if metric.name == "agentguard.policy.reloads" for point in metric.data.data_points
    ]
    return {point.attributes["agentguard.policy.outcome"]: point.value for point in points}


async def test_tool_that_came_at_run_time_is_judged_by_the_new_policies_too(tmp_path: Path) -> None:
    """They are compiled for what the server offers by then, and go on being so."""
    world = make_world(tmp_path / "policies", policies=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        late(world, "first")
        assert text(await client.call_tool("first", {"count": 1})) == "ran"
        move(world.folder, files('@id("few") permit (principal, action == Action::"first", resource);'))
        assert (await world.guard.reload()).loaded
        late(world, "second")
        results = [await client.call_tool(name, {"count": 1}) for name in ("first", "second")]

    assert [result.is_error for result in results] == [False, True]
    assert meta(results[1])["reason"] == "denied"


async def test_tool_that_did_not_fit_is_judged_by_policies_that_it_fits(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without another tool that has to come first, and it is told once that it did not."""
    forbid = '@id("n") forbid (principal, action, resource) when { context.input has count && %s };'
    world = make_world(tmp_path / "policies", policies=ALL + forbid % 'context.input.count like "*"')
    async with connected(world, "memory", "2026-07-28") as client:
        late(world, "late")
        for _ in range(2):
            assert (await client.call_tool("late", {"count": 1})).is_error
        move(world.folder, files(ALL + forbid % "context.input.count > 1"))
        assert (await world.guard.reload()).loaded
        results = [await client.call_tool("late", {"count": count}) for count in (1, 2)]

    assert [result.is_error for result in results] == [False, True]
    assert caplog.text.count("`late` stays without a rule") == 1


def compiling_of(world: World) -> Compiling:
    """Return what compiles for a world: a thread of another one may do so meanwhile."""
    live = world.guard._reloading._live
    assert live is not None
    return live.compiling


def late(world: World, name: str) -> None:
    """Add a tool to a server that is guarded already."""

    async def tool(count: int) -> str:
        world.ran.append(f"{name} {count}")
        return "ran"

    world.server.add_tool(world.guard.tool(tool), name=name)


async def test_tool_that_is_learned_while_policies_are_compiled_is_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then they are compiled once more, and so is what was learned while they were taken."""
    world = make_world(tmp_path / "policies", policies=ALL)
    compiled, bare = [], Compiling._compiled
    go_on, waits = anyio.Event(), anyio.Event()

    ours = compiling_of(world)

    def slow(self: Compiling, source: Any, tools: Any, label: Any) -> Any:
        policies = bare(self, source, tools, label)
        if self is not ours:
            return policies
        compiled.append(label)
        if len(compiled) == 1:
            anyio.from_thread.run_sync(waits.set)
            anyio.from_thread.run(go_on.wait)
        return policies

    monkeypatch.setattr(Compiling, "_compiled", slow)
    move(world.folder, files('@id("more") permit (principal, action, resource);'))
    async with connected(world, "memory", "2026-07-28") as client, anyio.create_task_group() as tasks:
        tasks.start_soon(world.guard.reload)
        await waits.wait()
        late(world, "first")
        assert text(await client.call_tool("first", {"count": 1})) == "ran"
        go_on.set()
    async with connected(world, "memory", "2026-07-28") as client:
        assert text(await client.call_tool("first", {"count": 2})) == "ran"

    assert len(compiled) == 3
    assert "more" in world.records()[-1]["agentguard.policy.ids"]


async def test_policies_that_come_while_a_tool_is_learned_are_not_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tool is learned once more, with them."""
    world = make_world(tmp_path / "policies", policies=ALL)
    bare = Compiling._compiled
    turns: list[str] = []
    ours = compiling_of(world)

    def interrupted(self: Compiling, source: Any, tools: Any, label: Any) -> Any:
        policies = bare(self, source, tools, label)
        if self is not ours:
            return policies
        turns.append("compiled")
        if len(turns) == 1:
            monkeypatch.setattr(Compiling, "_compiled", bare)
            move(world.folder, files('@id("more") permit (principal, action, resource);'))
            assert world.guard._reloading.check().loaded
        return policies

    monkeypatch.setattr(Compiling, "_compiled", interrupted)
    late(world, "first")
    async with connected(world, "memory", "2026-07-28") as client:
        assert text(await client.call_tool("first", {"count": 1})) == "ran"

    assert "more" in world.records()[-1]["agentguard.policy.ids"]


async def test_label_is_that_of_the_policies_which_it_was_given_with(tmp_path: Path) -> None:
    """Others have none; when these are back, so is it."""
    world = make_world(tmp_path / "policies", label="quarter 4")
    async with connected(world, "memory", "2026-07-28") as client:
        for policies in (POLICIES, ROWS, POLICIES):
            move(world.folder, files(policies))
            await world.guard.reload()
            await rows(client)

    assert [one.get("agentguard.policy.label") for one in world.records()] == ["quarter 4", None, "quarter 4"]
    assert [one.get("agentguard.policy.label") for one in world.records("policy")] == [None, "quarter 4"]


async def test_policies_that_are_not_confirmed_in_time_deny_every_call_until_they_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is listed either; the record says why, in constant words."""
    clock = Clock()
    world = make_world(tmp_path / "policies", clock=clock, max_policy_age=60)
    with acting_as("reader", at=clock.now):
        async with Client(world.server, mode="2026-07-28") as client:
            clock.now += 60
            assert await rows(client, 1)
            clock.now += 1
            assert not await rows(client, 1)
            assert (await client.list_tools(cache_mode="bypass")).tools == []
            put(world.folder, files(ROWS))
            assert (await world.guard.reload()).refused == "incomplete"
            assert not await rows(client, 1)
            lock(world.folder)
            assert (await world.guard.reload()).loaded
            assert await rows(client, 600)

    late = [one for one in world.records() if one["agentguard.decision.reason"] == "policy_error"]
    assert len(late) == 2
    assert {one["agentguard.decision.detail"] for one in late} == {"the policies in force were not confirmed in time"}
    assert {one["agentguard.agent.id"] for one in late} == {"reader"}
    assert caplog.text.count("every call is denied: the policies of") == 1


async def test_clock_that_is_set_back_does_not_keep_policies_young(tmp_path: Path) -> None:
    """They are confirmed again, or judge nothing."""
    clock = Clock()
    world = make_world(tmp_path / "policies", clock=clock, max_policy_age=60.5)
    assert world.guard._reloading.is_confirmed()

    clock.now -= 61

    assert not world.guard._reloading.is_confirmed()
    await world.guard.reload()
    assert world.guard._reloading.is_confirmed()


@pytest.mark.parametrize("age", [0, -1, float("nan"), float("inf"), True, "60"])
def test_age_that_is_no_time_is_refused(age: Any, tmp_path: Path) -> None:
    """With what it wants."""
    with pytest.raises(ConfigurationError, match="max_policy_age= wants seconds, got"):
        make_world(tmp_path / "policies", max_policy_age=age)


async def test_age_is_measured_where_somebody_takes_care_of_it(tmp_path: Path) -> None:
    """So that whoever watches a fleet sees a server that has lost its folder."""
    clock, reader = Clock(), InMemoryMetricReader()
    world = make_world(tmp_path / "policies", clock=clock, meter_provider=MeterProvider([reader]), max_policy_age=60)
    clock.now += 7

    data: Any = reader.get_metrics_data()
    metrics = {m.name: m for one in data.resource_metrics for scope in one.scope_metrics for m in scope.metrics}

    (point,) = metrics["agentguard.policy.age"].data.data_points
    assert point.value == 7
    assert world.guard._reloading.age() == 7


async def test_guard_that_is_not_attached_has_nothing_to_reload(tmp_path: Path) -> None:
    """There is no server yet that the policies have to fit."""
    world = make_world(tmp_path / "policies", attach=False)

    with pytest.raises(ConfigurationError, match=r"call guard\.attach\(server\) first"):
        await world.guard.reload()


@pytest.mark.parametrize(
    ("where", "what", "why"), [(Compiling, "renew", "invalid"), (PolicyFolder, "look", "unreadable")]
)
async def test_unexpected_trouble_leaves_the_last_good_version(
    where: type,
    what: str,
    why: str,
    tmp_path: Path,
    *,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A policy engine that fails is no reason to judge by half of it."""
    world = make_world(tmp_path / "policies")
    move(world.folder, files(ROWS))

    def fails(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(where, what, fails)
    done = await world.guard.reload()

    assert (done.refused, done.loaded) == (why, False)
    assert [one["agentguard.policy.refused"] for one in world.records("policy")] == [why]
    assert "RuntimeError was raised at" in caplog.text


async def test_trouble_with_what_the_guard_was_given_is_told(tmp_path: Path) -> None:
    """A loader of a type that the new policies do not have any more."""

    def extend(world: World) -> None:
        world.guard.entity("Team")(lambda _: None)

    world = make_world(tmp_path / "policies", types=f"{TYPES} entity Team;", extend=extend)
    move(world.folder, FILES)

    done = await world.guard.reload()

    assert done.refused == "invalid"
    assert "`Team`, which has a loader" in done.problems[0]


SEVERAL = {
    "common/guests.cedar": '@id("guests") forbid (principal in Agent::"guest", action, resource);',
    "servers/records/policies.cedar": POLICIES,
    "servers/records/types/records.cedarschema": TYPES,
    "servers/files/policies.cedar": POLICIES.replace("export", "upload"),
}


async def test_folder_for_several_servers_is_reloaded_for_each(tmp_path: Path) -> None:
    """By the name that the server has when the guard is attached."""
    folder = put(tmp_path / "policies", SEVERAL)
    world = several(folder)
    async with Client(world.server, mode="2026-07-28") as client:
        assert not await rows(client)
        put(folder, {"servers/records/policies.cedar": ROWS})
        lock(folder)
        assert (await world.guard.reload()).loaded
        assert await rows(client)

    assert "servers/records/policies.cedar" in dict(world.guard._reloading._policies._in_force.files)  # type: ignore[union-attr]


def several(folder: Path) -> World:
    """Return the usual world on a folder that is there."""
    os.environ.pop("AGENTGUARD_TOKEN", None)
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE)
    guard, exporter = make_guard(folder, issuer)
    server = MCPServer(SERVER)
    world = World(guard, server, guard.state, exporter, issuer, folder)

    @guard.entity("Record")
    async def record(_: str) -> None: ...

    @server.tool()
    @guard.tool
    def export(max_rows: int = 10) -> str:
        return f"{max_rows} rows"

    @server.tool()
    @guard.tool(resource="Record::{record_id}")
    def read(record_id: str) -> str:
        return record_id

    os.environ["AGENTGUARD_TOKEN"] = world.token("reader", audience=stdio_audience(SERVER))
    guard.attach(server)
    return world


def test_server_that_a_folder_for_several_does_not_have_is_refused_when_it_is_attached(tmp_path: Path) -> None:
    """Before that nobody knows its name."""
    folder = put(tmp_path / "policies", {name.replace("records/", "other/"): text for name, text in SEVERAL.items()})

    with pytest.raises(PolicyError, match="has no servers/records for server `records`"):
        several(folder)


def test_reload_is_a_value_that_says_what_happened(tmp_path: Path) -> None:
    """And nothing else: it can be compared and cannot be changed."""
    assert Reload(version="sha256:1") == Reload(version="sha256:1", loaded=False, refused="", problems=())
    with pytest.raises(AttributeError):
        Reload(version="sha256:1").version = "sha256:2"  # type: ignore[misc]


def test_guard_that_judges_nothing_reads_what_it_is_told_to(tmp_path: Path) -> None:
    """Whatever the policies are, and nothing is watched."""
    folder = put(tmp_path / "policies", files(BROKEN))
    source = PolicySource(folder=str(folder), files=(), policies=(), fragments=(), entities=())
    reloading = open_reloading(
        folder,
        tmp_path / "absent",
        watch=True,
        max_age=None,
        label=None,
        clock=Clock(),
        limits=Limits(),
        read=lambda *_: source,
    )

    terms = reloading.terms_for("records", loaders=Loaders(Limits()), claims={})

    assert (terms.source, terms.shadow) == (source, None)
    assert reloading._prompting._watches is False


async def test_what_does_not_fit_is_not_compiled_again_until_it_or_the_server_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody looks every few seconds, and compiling takes that long where there is much."""
    world = make_world(tmp_path / "policies", policies=ALL)
    compiled: list[object] = []
    bare = Compiling._compiled
    ours = compiling_of(world)

    def counting(self: Compiling, source: Any, tools: Any, label: Any) -> Any:
        if self is ours:
            compiled.append(source)
        return bare(self, source, tools, label)

    monkeypatch.setattr(Compiling, "_compiled", counting)
    move(world.folder, files('@id("a") permit (principal, action == Action::"late", resource);'))
    for _ in range(3):
        assert world.guard._reloading.check(Asked.BY_NEWS).refused == "invalid"
    assert len(compiled) == 1
    assert world.guard._reloading.check().refused == "invalid"
    assert len(compiled) == 2

    async with connected(world, "memory", "2026-07-28") as client:
        late(world, "late")
        await client.list_tools()
    assert world.guard._reloading.check(Asked.BY_NEWS).loaded


def test_policies_that_have_to_be_confirmed_soon_are_looked_at_sooner(tmp_path: Path) -> None:
    """Else they would be too old between two looks."""
    soon = make_world(tmp_path / "a", max_policy_age=1)
    later = make_world(tmp_path / "b", max_policy_age=600)

    assert soon.guard._reloading._prompting._pause == 0.25
    assert later.guard._reloading._prompting._pause == 2


def test_part_of_one_server_is_watched_from_the_top(tmp_path: Path) -> None:
    """What it shares with the others lies beside it, and so does the manifest."""
    folder = put(tmp_path / "policies", SEVERAL)
    world = several(folder / "servers" / "records")

    assert world.guard._reloading._prompting._folders == [folder]
    put(folder, {"common/guests.cedar": SEVERAL["common/guests.cedar"] + "\n"})
    lock(folder)
    assert world.guard._reloading.check().loaded
