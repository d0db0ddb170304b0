from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
import traceback
from collections.abc import Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.jwk import read_key_set
from agentguard.identity.sources import EnvironmentSource
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.lasting import lasting
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.store import MemoryStore, RunRecord, RunState
from agentguard.model import Invocation, Reason
from agentguard.policy.grants import grant_text
from tests.tokens import AUDIENCE, ISSUER, KEY, NOW, Clock, refusal_of, verified


class World:
    """An issuer, its store, and the clock of both."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, store=self.store, clock=self.clock)

    def begin(self, **asked: Any) -> Run:
        """Begin a run that may read."""
        return self.issuer.begin(**{"agent": "reader", "tools": ["read"], "ends_in": 1000, **asked})

    def read(self, token: str) -> Invocation:
        """Verify a token as a server does now."""
        keys, _ = read_key_set(self.issuer.jwks())
        return verified(token, keys=keys, now=self.clock.now)

    def record(self, run_id: str) -> RunRecord:
        """Return what the store has on record of a run."""
        (record,) = (one for one in self.store.runs() if one.run_id == run_id)
        return record


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return an issuer and its store; token files go where the test can look."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return World()


def refused(get: Callable[[], object]) -> Reason:
    """Return why something was refused."""
    with pytest.raises(Refusal) as refusal:
        get()
    return refusal.value.reason


async def test_run_is_what_was_asked_for_and_completed_at_the_end_of_its_block(world: World) -> None:
    """Its token says so while it lasts, and its record afterwards."""
    async with world.issuer.run(
        agent="billing-agent",
        user="alice",
        task="invoice-42",
        purpose="monthly close",
        scopes=["b", "a"],
        tools=["read"],
        ends_in=120,
    ) as run:
        invocation = world.read(run.token())
        assert world.record(run.id).state is RunState.ISSUED
        assert not world.store.ended(invocation)

    assert (invocation.run_id, invocation.agent, invocation.user) == (run.id, "billing-agent", "alice")
    assert (invocation.task, invocation.purpose) == ("invoice-42", "monthly close")
    assert invocation.scopes == {"a", "b"}
    assert (invocation.issued_at, invocation.run_ends_at) == (NOW, NOW + 120)
    assert invocation.grant == grant_text(tools=["read"])
    assert world.store.ended(invocation)
    assert refused(run.token) is Reason.REVOKED
    record = world.record(run.id)
    assert (record.state, record.reason) == (RunState.COMPLETED, "completed")
    assert record.audience == AUDIENCE
    assert (record.agent, record.user, record.task, record.purpose) == (
        "billing-agent",
        "alice",
        "invoice-42",
        "monthly close",
    )
    revocation = world.store.revocation(issuer=ISSUER, name=run.id)
    assert revocation is not None
    assert revocation.until == NOW + 150


async def test_run_that_an_exception_leaves_is_ended_with_its_class(world: World) -> None:
    """Never with its text, which may quote what the agent read."""
    with pytest.raises(ValueError, match="secret"):  # noqa: PT012  the block is what is tested
        async with world.issuer.run(agent="a", tools=["read"]) as run:
            message = "secret"
            raise ValueError(message)

    record = world.record(run.id)
    assert (record.state, record.reason) == (RunState.COMPLETED, "completed: ValueError")
    assert refused(run.token) is Reason.REVOKED


async def test_run_whose_block_is_cancelled_is_ended(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancelled is where ending matters most; and the event loop does not wait for the store."""
    runs, threads, revoke = [], [], world.store.revoke

    def watched(**asked: Any) -> None:
        threads.append(threading.current_thread())
        revoke(**asked)

    monkeypatch.setattr(world.store, "revoke", watched)
    with anyio.CancelScope() as scope:
        async with world.issuer.run(agent="a", tools=["read"]) as run:
            runs.append(run)
            scope.cancel()
            await anyio.sleep_forever()

    assert world.record(runs[0].id).reason == "completed: CancelledError"
    assert len(threads) == 1
    assert threading.main_thread() not in threads


async def test_run_is_ended_though_its_task_is_cancelled_again_and_again(world: World) -> None:
    """A second `Task.cancel` comes while the run is being ended, past every shield."""
    entered, runs = asyncio.Event(), []

    async def work() -> None:
        async with world.issuer.run(agent="a", tools=["read"]) as run:
            runs.append(run)
            entered.set()
            try:
                await asyncio.Event().wait()
            finally:
                task.cancel()

    task = asyncio.create_task(work())
    await entered.wait()
    task.cancel()

    with pytest.raises(asyncio.CancelledError):
        await task
    assert world.record(runs[0].id).state is RunState.COMPLETED


async def test_run_that_nobody_waits_for_any_more_is_ended(world: World) -> None:
    """Its task was cancelled while the store was still writing."""
    writing, go = threading.Event(), threading.Event()
    ended: list[str] = []
    done = threading.Event()

    def begin() -> Run:
        writing.set()
        go.wait(10)
        run = world.begin()
        end = run.end

        def told(reason: str = "") -> None:
            end(reason)
            ended.append(reason)
            done.set()

        return Proxy(run, told)  # type: ignore[return-value]

    async def work() -> None:
        async with lasting(begin):
            pytest.fail("the block was entered")

    task = asyncio.create_task(work())
    await anyio.to_thread.run_sync(writing.wait)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    go.set()

    assert await anyio.to_thread.run_sync(done.wait, 10)
    assert ended == ["completed: given up before it began"]
    assert [record.state for record in world.store.runs()] == [RunState.COMPLETED]


class Proxy:
    """A run whose end a test hears of."""

    def __init__(self, run: Run, end: Callable[[str], None]) -> None:
        self.id = run.id
        self.end = end


async def test_run_that_was_made_in_the_very_moment_of_the_cancellation_is_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread had come to its end, and the task did not hear of it."""
    run_sync = anyio.to_thread.run_sync

    async def cancelled_after(work: Callable[[], None]) -> None:
        await run_sync(work)
        raise asyncio.CancelledError

    monkeypatch.setattr(anyio.to_thread, "run_sync", cancelled_after)

    with pytest.raises(asyncio.CancelledError):
        async with world.issuer.run(agent="a", tools=["read"]):
            pytest.fail("the block was entered")

    assert [record.reason for record in world.store.runs()] == ["completed: given up before it began"]


@pytest.mark.parametrize("given", ["1h", 3.5, True])
def test_time_that_is_no_number_of_seconds_is_refused(world: World, given: Any) -> None:
    """Wherever it is given, in one sentence."""
    parent = world.begin()
    wanted = f"wants seconds, a whole number, got `{given}`: write 3600 for an hour"

    for asked in (world.begin, partial(parent.begin_child, agent="other", tools=["read"])):
        with pytest.raises(ConfigurationError, match=f"`ends_in` {wanted}"):
            asked(ends_in=given)
    with pytest.raises(ConfigurationError, match=f"`token_lifetime` {wanted}"):
        world.issuer.mint(agent="reader", grant=parent.facts.grant, token_lifetime=given)


def test_traceback_of_a_refusal_says_why_and_its_text_does_not(world: World) -> None:
    """Whoever runs the code reads the traceback; a framework may hand the text to a caller."""
    run = world.begin()
    run.end()

    with pytest.raises(Refusal) as refusal:
        run.token()

    assert str(refusal.value) == "refused"
    assert "revoked" in "".join(traceback.format_exception(refusal.value))


def test_token_is_renewed_before_it_expires_and_the_end_stays(world: World) -> None:
    """Same run, same end, another token."""
    run = world.begin()
    first = run.token()

    world.clock.now = NOW + 239.9
    assert run.token() == first
    world.clock.now = NOW + 240
    second = run.token()

    assert second != first
    assert run.token() == second
    before, after = verified(first, keys=read_key_set(world.issuer.jwks())[0]), world.read(second)
    assert before.token_id != after.token_id
    assert (after.run_id, after.issued_at, after.run_ends_at) == (run.id, NOW, NOW + 1000)
    assert after.ends_at == NOW + 240 + 330
    assert run.invocation.token_id == after.token_id


def test_token_of_a_short_lifetime_is_renewed_when_a_third_of_it_is_left(world: World) -> None:
    """With the margin of a long one it would be renewed with every look."""
    run = world.begin(token_lifetime=30, run="of-our-choice")
    first = run.token()

    world.clock.now = NOW + 19
    assert run.token() == first
    world.clock.now = NOW + 20
    second = run.token()
    world.clock.now = NOW + 49

    assert second != first
    assert (world.read(second).run_id, world.read(second).ends_at) == ("of-our-choice", NOW + 80)


def test_last_token_ends_with_the_run_and_is_not_renewed(world: World) -> None:
    """There is nothing that a new one could add."""
    run = world.begin(ends_in=320)
    world.clock.now = NOW + 250
    last = run.token()

    world.clock.now = NOW + 319.9
    assert run.token() == last
    assert world.read(last).ends_at == NOW + 320
    world.clock.now = NOW + 320
    assert refused(run.token) is Reason.EXPIRED
    assert refused(run.renew) is Reason.EXPIRED


def test_renewing_gives_another_token(world: World) -> None:
    """For whoever cannot ask again for a while."""
    run = world.begin()
    first = run.token()

    assert run.renew() != first
    assert world.read(run.token()).run_id == run.id


def test_clock_that_steps_back_neither_revives_a_run_nor_moves_its_beginning(world: World) -> None:
    """What was over stays over; what lives has tokens that are no older than it is."""
    over, alive = world.begin(ends_in=100), world.begin()
    world.clock.now = NOW + 100
    assert refused(over.token) is Reason.EXPIRED

    world.clock.now = NOW - 3600

    assert refused(over.token) is Reason.EXPIRED
    world.clock.now = NOW - 10
    assert world.read(alive.renew()).issued_at == NOW


def test_run_that_somebody_ended_gets_no_token(world: World) -> None:
    """Whoever holds it learns of it at the next request."""
    run = world.begin()

    world.store.revoke(issuer=ISSUER, run_id=run.id, reason="stolen laptop")

    assert refused(run.token) is Reason.REVOKED
    assert refused(run.renew) is Reason.REVOKED
    run.end()
    assert world.record(run.id).reason == "stolen laptop"


def test_run_of_an_agent_that_was_ended_gets_no_token_and_no_other_begins(world: World) -> None:
    """Ending an agent blocks minting for it."""
    run = world.begin()

    world.store.revoke_all(issuer=ISSUER, kind="agent", name="reader")  # type: ignore[arg-type]

    assert refused(run.token) is Reason.REVOKED
    assert refused(world.begin) is Reason.REVOKED
    assert len(world.store.runs()) == 1


def test_store_that_does_not_know_gives_no_token(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It recovers with the store."""
    run = world.begin()

    def unknown(invocation: Invocation) -> bool:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "ended", unknown)
        assert refused(run.token) is Reason.STORE_UNAVAILABLE

    assert world.read(run.token()).run_id == run.id


def test_run_that_cannot_be_recorded_does_not_begin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves nothing, with its parent neither."""
    parent = world.begin()

    def unavailable(record: RunRecord) -> None:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(world.store, "record_run", unavailable)

    assert refused(world.begin) is Reason.STORE_UNAVAILABLE
    with pytest.raises(Refusal):
        anyio.run(enter, parent)
    assert parent._below == {}
    assert [record.run_id for record in world.store.runs()] == [parent.id]


async def enter(parent: Run, **asked: Any) -> None:
    """Delegate, and nothing more."""
    async with parent.delegate(**{"agent": "b", "tools": ["read"], **asked}):
        pass


async def test_store_that_cannot_keep_the_end_is_heard_of(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As the block's error, or beside it; the run gets no token either way."""

    def unavailable(**_: object) -> None:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(world.store, "revoke", unavailable)
    with pytest.raises(Refusal):
        async with world.issuer.run(agent="a", tools=["read"]) as first:
            pass
    with caplog.at_level(logging.ERROR), pytest.raises(KeyError) as left:
        async with world.issuer.run(agent="a", tools=["read"]) as second:
            raise KeyError

    assert left.value.__notes__ == [f"the end of run `{second.id}` could not be kept: store_unavailable"]
    assert f"the end of run `{second.id}` could not be kept: store_unavailable" in caplog.text
    assert [refused(run.token) for run in (first, second)] == [Reason.REVOKED] * 2


async def test_child_has_the_complete_facts_of_those_above_it(world: World) -> None:
    """Root first, as each of them is judged itself."""
    claims = {"groups": frozenset({"x", "y"}), "level": 3}
    async with (
        world.issuer.run(
            agent="planner",
            user="alice",
            task="t",
            purpose="p",
            scopes=["a", "b"],
            tools=["read", "search"],
            claims=claims,  # type: ignore[arg-type]
            ends_in=500,
        ) as root,
        root.delegate(agent="reader", tools=["read", "search"], scopes=["a"], ends_in=400) as middle,
        middle.delegate(agent="helper", tools=["read"]) as leaf,
    ):
        chain = leaf.invocation.chain

        assert [link.agent for link in chain] == ["planner", "reader", "helper"]
        assert [link.run_id for link in chain] == [root.id, middle.id, leaf.id]
        assert [link.run_ends_at - NOW for link in chain] == [500, 400, 400]
        assert [link.scopes for link in chain] == [{"a", "b"}, {"a"}, frozenset()]
        assert all((link.user, link.task, link.purpose) == ("alice", "t", "p") for link in chain)
        assert [link.grant for link in chain] == [run.facts.grant for run in (root, middle, leaf)]
        assert world.record(leaf.id).ancestors == (root.id, middle.id)
        assert leaf.facts.ancestors[0]["claims"] == {"groups": ["x", "y"], "level": 3}
        assert world.read(leaf.token()).chain[0].run_id == root.id


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ends_in": 1001}, "ends_in= up to `1000`, when its parent ends, got `1001`"),
        ({"scopes": ["b"]}, "scopes among `a`, got also `b`"),
        ({"tools": ["drop"]}, "tools among `read`, got also `drop`"),
        (
            {"audience": "https://other.example"},
            f"wants audience `{AUDIENCE}`, got `https://other.example`: begin a run of its own for another server",
        ),
        ({"tools": None}, "a run wants tools= or grant=, got neither"),
        ({"ends_in": 0}, "no server would accept this token"),
        ({"agent": ""}, "no server would accept this token"),
    ],
)
async def test_child_that_asks_for_more_is_refused_and_leaves_nothing(
    asked: dict[str, Any], message: str, world: World
) -> None:
    """The message has the difference."""
    parent = world.begin(scopes=["a"])

    with pytest.raises(ConfigurationError) as refusal:
        await enter(parent, **asked)

    assert message in str(refusal.value)
    assert len(world.store.runs()) == 1
    assert parent._below == {}
    await enter(parent, audience=AUDIENCE, scopes=["a"], ends_in=1000)


async def test_chain_is_as_long_as_a_server_accepts(world: World) -> None:
    """Four ancestors, and no fifth."""
    run = world.begin()
    async with AsyncExitStack() as stack:
        for _ in range(4):
            run = await stack.enter_async_context(run.delegate(agent="a", tools=["read"]))

        with pytest.raises(ConfigurationError, match="`ancestors` wants a list of at most 4"):
            await enter(run)


async def test_child_of_a_run_that_is_over_does_not_begin(world: World) -> None:
    """Authority that has ended cannot be handed on."""
    parent = world.begin()
    parent.end()

    with pytest.raises(Refusal):
        await enter(parent)

    assert len(world.store.runs()) == 1


async def test_child_that_is_done_leaves_its_parent_alone(world: World) -> None:
    """And is forgotten there."""
    parent = world.begin()

    await enter(parent)

    assert parent._below == {}
    assert world.read(parent.token()).run_id == parent.id


async def test_ending_a_parent_ends_all_below_it(world: World, tmp_path: Path) -> None:
    """No token, no file, and no server that believes the old one."""
    parent = world.begin()
    async with (
        parent.delegate(agent="b", tools=["read"]) as child,
        child.delegate(agent="c", tools=["read"]) as grandchild,
    ):
        grandchild.environment()
        invocation = world.read(grandchild.token())

        parent.end("no longer needed")

        assert world.store.ended(invocation)
        assert [refused(run.token) for run in (child, grandchild)] == [Reason.REVOKED] * 2
        assert refused(grandchild.environment) is Reason.REVOKED
        assert os.listdir(tmp_path) == []  # noqa: PTH208  a look at a folder of the test's own


def test_environment_names_a_file_that_is_renewed_and_taken_away(world: World, tmp_path: Path) -> None:
    """A server of the child process reads the token of now from it."""
    run = world.begin()
    environment = run.environment()
    source = EnvironmentSource.take(dict(environment))
    assert world.read(source.token(world.clock.now)).run_id == run.id
    assert run.environment() == environment
    file = run._file
    assert file is not None

    first = file.path.read_text()
    world.clock.now = NOW + 600
    file.refresh()

    assert file.path.read_text() == run.token() != first
    assert world.read(source.token(world.clock.now)).run_id == run.id
    run.end()
    assert list(tmp_path.iterdir()) == []
    assert refused(lambda: source.token(world.clock.now)) is Reason.UNAUTHENTICATED


def test_transport_to_where_the_network_could_see_the_token_is_refused(world: World) -> None:
    """Before anything is sent."""
    with pytest.raises(ConfigurationError, match="give the server's https URL"):
        world.begin().http("http://records.example/mcp")


def test_token_of_a_rotated_key_is_believed_until_it_is_over(world: World) -> None:
    """Rotation costs no run anything."""
    run = world.begin()
    before = run.token()

    world.issuer.rotate()

    world.clock.now = NOW + 200
    assert world.read(before).run_id == run.id
    assert world.read(run.renew()).run_id == run.id
    world.clock.now = NOW + 930
    keys, _ = read_key_set(world.issuer.jwks())
    assert len(keys) == 1
    assert refusal_of(before, keys=keys, now=NOW + 200) is Reason.INVALID_TOKEN
