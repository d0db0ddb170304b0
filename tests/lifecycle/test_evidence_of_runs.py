"""An issuer with a ledger: of each run, that it was issued and how it ended, or there is no run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import Refusal
from agentguard.evidence.ledger import verify_chain
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.runs import Run
from agentguard.lifecycle.sqlite import SQLiteStore
from agentguard.lifecycle.store import Kind, MemoryStore, RunState
from agentguard.model import Invocation, Reason
from tests.evidence.following import Disk, still
from tests.tokens import AUDIENCE, GRANT, ISSUER, KEY, NOW, Clock


class World:
    """An issuer with evidence, its store, and the clock of both."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore(clock=self.clock)
        self.disk = Disk()
        self.issuer = self.another()

    def another(self) -> Issuer:
        """Return an issuer of the same name and key, as in a process that is started again."""
        return Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, store=self.store, ledger=self.disk, clock=self.clock)

    def run(self, **asked: Any) -> AbstractAsyncContextManager[Run]:
        """Return a run that may read."""
        return self.issuer.run(**{"agent": "reader", "tools": ["read"], **asked})

    def begin(self, **asked: Any) -> Run:
        """Begin a run that may read."""
        return self.issuer.begin(**{"agent": "reader", "tools": ["read"], **asked})

    def records(self) -> list[tuple[str, str, str]]:
        """Return agent, state and reason of each record."""
        found = [entry.record for entry in self.disk]
        assert {record["kind"] for record in found} <= {"run"}
        return [
            (
                record["attributes"]["agentguard.agent.id"],
                record["attributes"]["agentguard.run.state"],
                record["attributes"].get("agentguard.run.reason", ""),
            )
            for record in found
        ]

    def states(self) -> list[RunState]:
        """Return the state of each run that the store has on record."""
        return [record.state for record in self.store.runs()]


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return an issuer whose runs are followed by no thread."""
    with still(monkeypatch):
        yield World()


def refused(error: pytest.ExceptionInfo[Refusal]) -> Reason:
    """Return why."""
    return error.value.reason


async def test_run_leaves_that_it_was_issued_and_that_it_completed(world: World) -> None:
    """On record when the block is entered, and when it is left; with how long it lasted, and no grant."""
    async with world.run(user="alice", task="invoice-42", purpose="monthly close", ends_in=120) as run:
        assert world.records() == [("reader", "issued", "")]
        world.clock.now += 85

    issued, ended = (entry.record for entry in world.disk)
    assert issued["attributes"] == {
        "agentguard.run.id": run.id,
        "agentguard.run.state": "issued",
        "agentguard.run.ends_at": NOW + 120,
        "agentguard.agent.id": "reader",
        "agentguard.user.id": "alice",
        "agentguard.task.id": "invoice-42",
        "agentguard.purpose": "monthly close",
        "agentguard.authority.granted": 120.0,
        "agentguard.invocation.grade": "run",
        "agentguard.invocation.issuer": ISSUER,
        "agentguard.delegation.depth": 0,
    }
    assert ended["attributes"] == issued["attributes"] | {
        "agentguard.run.state": "completed",
        "agentguard.run.reason": "completed",
        "agentguard.authority.lasted": 85.0,
    }
    assert (issued["time_unix_nano"], ended["time_unix_nano"]) == (NOW * 10**9, (NOW + 85) * 10**9)
    assert verify_chain(world.disk) == ()
    kept = json.dumps([entry.record for entry in world.disk])
    assert "permit" not in kept
    assert run._issued.token not in kept


async def test_run_that_an_exception_leaves_has_its_class_as_the_reason(world: World) -> None:
    """Never its text."""
    with pytest.raises(ValueError, match="secret"):  # noqa: PT012  the block is what is tested
        async with world.run():
            message = "secret"
            raise ValueError(message)

    assert world.records()[1] == ("reader", "completed", "completed: ValueError")


async def test_run_that_somebody_ended_is_revoked_on_record(world: World) -> None:
    """As soon as the store has told; whoever holds it changes nothing by ending it too."""
    async with world.run() as run:
        world.store.revoke(issuer=ISSUER, run_id=run.id, reason="stolen laptop")

    assert world.records() == [("reader", "issued", ""), ("reader", "revoked", "stolen laptop")]


async def test_run_whose_time_passed_is_expired_on_record(world: World) -> None:
    """Also if it is ended afterwards."""
    async with world.run(ends_in=60):
        world.clock.now += 61

    assert world.records()[1] == ("reader", "expired", "")
    assert world.disk._kept[1].record["attributes"]["agentguard.authority.lasted"] == 60.0


async def test_children_leave_records_of_their_own(world: World) -> None:
    """One that completed did; one that its parent's end ended was revoked."""
    parent = world.begin(agent="parent")
    async with parent.delegate(agent="first", tools=["read"]):
        pass
    async with parent.delegate(agent="second", tools=["read"]):
        parent.end("completed: ValueError")

    assert world.records()[:4] == [
        ("parent", "issued", ""),
        ("first", "issued", ""),
        ("first", "completed", "completed"),
        ("second", "issued", ""),
    ]
    assert sorted(world.records()[4:]) == [
        ("parent", "completed", "completed: ValueError"),
        ("second", "revoked", "a run above it ended: completed: ValueError"),
    ]
    assert [entry.record["attributes"].get("agentguard.run.parent") for entry in world.disk][1] == parent.id


@pytest.mark.parametrize("error", [Refusal(Reason.EVIDENCE_UNAVAILABLE, "full"), OSError("disk")])
async def test_run_without_evidence_does_not_begin(error: Exception, world: World) -> None:
    """Nobody gets a token; the store has it as over, and so has its parent."""
    parent = world.begin(agent="parent")
    world.disk.full, world.disk.error = True, error

    with pytest.raises(Refusal) as refusal:
        async with world.run():
            pytest.fail("the block was entered")
    assert refused(refusal) is Reason.EVIDENCE_UNAVAILABLE
    with pytest.raises(Refusal) as refusal:
        async with parent.delegate(agent="child", tools=["read"]):
            pytest.fail("the block was entered")
    assert refused(refusal) is Reason.EVIDENCE_UNAVAILABLE
    with pytest.raises(Refusal) as refusal:
        world.issuer.mint(agent="reader", grant=GRANT)
    assert refused(refusal) is Reason.EVIDENCE_UNAVAILABLE

    assert world.states() == [RunState.ISSUED, RunState.COMPLETED, RunState.COMPLETED]
    assert parent._below == {}
    world.disk.full = False
    parent.end()
    assert world.records() == [("parent", "issued", ""), ("parent", "completed", "completed")]


def test_run_that_can_be_neither_recorded_nor_ended_gives_no_token(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Why it cannot begin is what whoever asked for it is told."""

    def down(**_: object) -> None:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(world.store, "revoke", down)
    world.disk.full = True
    with caplog.at_level(logging.ERROR), pytest.raises(Refusal) as refusal:
        world.begin()

    assert refused(refusal) is Reason.EVIDENCE_UNAVAILABLE
    assert "could not be ended in the store" in caplog.text


async def test_run_ends_though_its_evidence_fails(world: World) -> None:
    """Everywhere and at once; who leaves the block is told, and the record follows."""
    with pytest.raises(Refusal) as refusal:
        async with world.run() as run:
            world.disk.full = True
    assert refused(refusal) is Reason.EVIDENCE_UNAVAILABLE
    assert world.store.ended(run.invocation)
    assert world.states() == [RunState.COMPLETED]

    world.disk.full = False
    with pytest.raises(KeyError) as left:  # noqa: PT012  the same
        async with world.run(agent="other") as second:
            world.disk.full = True
            raise KeyError
    assert left.value.__notes__ == [f"the end of run `{second.id}` could not be kept: evidence_unavailable"]
    world.disk.full = False
    world.clock.now += 10
    run.end()

    assert sorted(world.records()[2:]) == [
        ("other", "completed", "completed: KeyError"),
        ("reader", "completed", "completed"),
    ]
    assert {entry.record["time_unix_nano"] for entry in world.disk} == {NOW * 10**9}


async def test_end_that_the_store_cannot_keep_is_on_record(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is over for its holder, and why is not lost."""

    def down(**_: object) -> None:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    with pytest.raises(Refusal) as refusal:
        async with world.run():
            monkeypatch.setattr(world.store, "revoke", down)

    assert refused(refusal) is Reason.STORE_UNAVAILABLE
    assert world.records()[1] == ("reader", "completed", "completed")


def test_store_that_does_not_know_lets_no_run_begin(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was on record as issued by then, so its end is on record as well."""

    def down(_: Invocation) -> bool:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(world.store, "ended", down)
    with pytest.raises(Refusal) as refusal:
        world.begin()

    assert refused(refusal) is Reason.STORE_UNAVAILABLE
    assert world.records() == [
        ("reader", "issued", ""),
        ("reader", "completed", "completed: given up before it began"),
    ]


def test_minted_token_leaves_that_it_was_issued_and_its_end(world: World) -> None:
    """Though nobody holds its run; with a store or without."""
    alone = Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, ledger=world.disk, clock=world.clock)
    for issuer, agent in ((world.issuer, "a"), (world.issuer, "b"), (alone, "c")):
        assert issuer.mint(agent=agent, grant=GRANT, run=agent, ends_in=60)
    world.store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="b")
    world.clock.now += 60
    for issuer in (world.issuer, alone):
        assert issuer._lives is not None
        issuer._lives.settle()

    assert world.records()[:3] == [(agent, "issued", "") for agent in "abc"]
    assert sorted(world.records()[3:]) == [
        ("a", "expired", ""),
        ("b", "revoked", "every run of its agent was ended"),
        ("c", "expired", ""),
    ]


def test_run_that_is_taken_up_again_leaves_its_end_once(world: World) -> None:
    """It was issued elsewhere; who takes up one that is over adds nothing."""
    run = world.begin()
    token = run.token()
    restarted = world.another()

    assert world.issuer.resume(token).id == run.id
    restarted.resume(token).end("the task was withdrawn")
    assert world.issuer._lives is not None
    world.issuer._lives.settle()
    restarted.resume(token, expired=True).end("again")

    # Two that follow it, as two processes would, keep its end each.
    assert world.records() == [("reader", "issued", ""), *[("reader", "revoked", "the task was withdrawn")] * 2]


async def test_run_is_followed_in_the_file_that_a_revocation_comes_from(tmp_path: Path) -> None:
    """Another process ends it; nobody asks for a token or leaves the block."""
    path = tmp_path / "store.db"
    disk = Disk()
    with closing(SQLiteStore(path)) as ours, closing(SQLiteStore(path)) as theirs:
        issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, key=KEY, store=ours, ledger=disk)
        async with issuer.run(agent="a", tools=["read"]) as run:
            theirs.revoke(issuer=ISSUER, run_id=run.id, reason="stolen laptop")
            ours.sync()
            assert issuer._lives is not None
            issuer._lives.settle()
            assert [entry.record["attributes"]["agentguard.run.state"] for entry in disk] == ["issued", "revoked"]

    assert len(disk) == 2
    assert disk._kept[1].record["attributes"]["agentguard.run.reason"] == "stolen laptop"
