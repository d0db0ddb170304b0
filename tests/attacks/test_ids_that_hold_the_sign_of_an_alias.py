"""Ids hold `|` of their own accord (`auth0|5f7c8ec7`): what stands behind it is nobody's name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio import CancelScope

from agentguard import FixedKeys, Guard, Invocation, InvocationVerifier, State, TrustedIssuer
from agentguard.errors import ConfigurationError
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.calls import LiveCalls
from agentguard.lifecycle.facts import as_ancestor, as_record
from agentguard.lifecycle.issuer import Issuer
from agentguard.lifecycle.store import Kind, MemoryStore, RunState, Store
from agentguard.testing import unsafe_invocation
from tests.lifecycle.stores import KINDS, Kept, kept
from tests.world import AUDIENCE, EVERYTHING, ISSUER, write_policies

OTHER = "https://other.example"
WIDE = {Kind.AGENT: "agent", Kind.USER: "user", Kind.TASK: "task"}


@pytest.fixture(params=KINDS)
def truth(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Kept]:
    """Give one truth of each kind."""
    with kept(request.param, tmp_path) as made:
        made.clock.now = 1_000.0
        yield made


@pytest.fixture
def store(truth: Kept) -> Store:
    """Give a store on it."""
    return truth.open()


def guard_on(store: Store, folder: Path, issuer: Issuer, *, aliases: bool) -> Guard:
    """Return a guard that trusts *issuer*, alone or beside another one."""
    trusted = [TrustedIssuer(issuer=ISSUER, alias="corp")]
    keys = {ISSUER: FixedKeys(issuer.jwks())}
    if aliases:
        trusted.append(TrustedIssuer(issuer=OTHER, alias="other"))
        keys[OTHER] = FixedKeys(Issuer(issuer=OTHER, audience=AUDIENCE).jwks())
    verifier = InvocationVerifier(*trusted, audience=AUDIENCE, keys=keys, clock=lambda: 1_000.0)
    state = State(store=store, ledger=MemoryLedger(), key=bytes(32))
    return Guard(write_policies(folder, f'@id("all") {EVERYTHING}', types=None), verifier=verifier, state=state)


async def seen_by(guard: Guard, issuer: Issuer, **facts: str) -> Invocation:
    """Return what *guard* makes of a token of *issuer*."""
    given = {"agent": "billing", "run": "run-1", "user": "alice", "task": "invoice-42", **facts}
    return await guard._verifier.verify(issuer.mint(audience=AUDIENCE, grant=EVERYTHING, **given))  # type: ignore[arg-type]


def issuer_of() -> Issuer:
    """Return an issuer whose clock is that of the tests."""
    return Issuer(issuer=ISSUER, audience=AUDIENCE, clock=lambda: 1_000.0)


@pytest.mark.parametrize("aliases", [False, True])
async def test_id_is_not_ended_under_its_last_part(aliases: bool, store: Store, tmp_path: Path) -> None:
    """Whoever is `x|alice` has nothing to do with alice, nor with `corp|x|alice`."""
    issuer = issuer_of()
    guard = guard_on(store, tmp_path / "policies", issuer, aliases=aliases)
    own = {"agent": "x|billing", "run": "x|run-1", "user": "x|alice", "task": "x|invoice-42"}
    invocation = await seen_by(guard, issuer, **own)
    calls, scope = LiveCalls(store), CancelScope()
    calls.add(invocation, scope)

    for name in ("billing", "run-1", "alice", "invoice-42"):
        for taken in (name, f"corp|{name}", f"corp|x|{name}"):
            for kind in (Kind.RUN, *WIDE):
                store.revoke_all(issuer=ISSUER, kind=kind, name=taken)

    assert not store.ended(invocation)
    assert not scope.cancel_called
    store.require_mintable(*(as_record(link) for link in invocation.chain))
    calls.remove(invocation, scope)


@pytest.mark.parametrize("aliases", [False, True])
async def test_id_is_ended_by_what_its_issuer_calls_it(aliases: bool, store: Store, tmp_path: Path) -> None:
    """In a guard that puts aliases before ids, and in one that does not, on one shared store."""
    issuer = issuer_of()
    guard = guard_on(store, tmp_path / "policies", issuer, aliases=aliases)
    for kind in (Kind.RUN, *WIDE):
        names = {one: f"{one}-{kind}" for one in ("run", *WIDE.values())}
        invocation = await seen_by(guard, issuer, **names)
        assert invocation.user == ("corp|" if aliases else "") + names["user"]
        calls, scope = LiveCalls(store), CancelScope()
        calls.add(invocation, scope)

        store.revoke_all(issuer=OTHER, kind=kind, name=names[kind])
        assert not store.ended(invocation)
        store.revoke_all(issuer=ISSUER, kind=kind, name=names[kind])

        assert store.ended(invocation)
        assert scope.cancel_called
        calls.remove(invocation, scope)
        assert (calls._calls, calls._invocations) == ({}, {})


async def test_run_with_the_alias_of_its_issuer_in_its_own_id_is_another(tmp_path: Path) -> None:
    """What evidence shows as `corp|corp|run-1` is the issuer's `corp|run-1`, and not its `run-1`."""
    store, issuer = MemoryStore(clock=lambda: 1_000.0), issuer_of()
    guard = guard_on(store, tmp_path / "policies", issuer, aliases=True)
    doubled, plain = await seen_by(guard, issuer, run="corp|run-1"), await seen_by(guard, issuer)
    assert doubled.run_id == "corp|corp|run-1"

    guard.revoke(doubled.run_id)

    assert store.ended(doubled)
    assert not store.ended(plain)
    guard.revoke(plain.run_id, issuer=ISSUER)
    assert store.ended(plain)


async def test_guard_without_aliases_takes_an_id_as_it_is(tmp_path: Path) -> None:
    """Nothing is cut off where nothing was put on."""
    store, issuer = MemoryStore(clock=lambda: 1_000.0), issuer_of()
    guard = guard_on(store, tmp_path / "policies", issuer, aliases=False)
    doubled, plain = await seen_by(guard, issuer, run="corp|run-1"), await seen_by(guard, issuer)

    guard.revoke("corp|run-1")

    assert store.ended(doubled)
    assert not store.ended(plain)


@pytest.mark.parametrize(("run_id", "issuer"), [("run-1", None), ("run-1", ISSUER), ("other|run-1", ISSUER)])
def test_id_without_the_alias_of_its_issuer_is_refused(run_id: str, issuer: str | None, tmp_path: Path) -> None:
    """A guess could end another's run, and leave the one that was meant."""
    guard = guard_on(MemoryStore(clock=lambda: 1_000.0), tmp_path / "policies", issuer_of(), aliases=True)

    with pytest.raises(ConfigurationError, match=r"wants a run as evidence names it.* `corp\|"):
        guard.revoke(run_id, issuer=issuer)


def test_child_is_ended_by_what_its_issuer_calls_the_run_above() -> None:
    """And what a token says of that run has the issuer's names, whoever reads it."""
    store = MemoryStore(clock=lambda: 1_000.0)
    above = unsafe_invocation("corp|planner", run_id="corp|1", user="corp|x|alice", task="corp|t", prefix="corp|")
    child = unsafe_invocation("corp|billing", run_id="corp|2", ancestors=(above,), prefix="corp|")
    told = as_ancestor(above)
    assert (told["run"], told["agent"], told["user"], told["task"]) == ("1", "planner", "x|alice", "t")
    assert as_record(child).ancestors == ("1",)

    store.revoke(issuer=above.issuer, run_id="corp|1")
    assert not store.ended(child)
    store.revoke(issuer=above.issuer, run_id="1")

    assert store.ended(child)


async def test_calls_count_for_the_run_on_record_and_for_no_other(truth: Kept, tmp_path: Path) -> None:
    """A run that is on record under the last part of another's id is not the one that was used."""
    store, issuer = truth.open(), issuer_of()
    guard = guard_on(store, tmp_path / "policies", issuer, aliases=True)
    used, mine = await seen_by(guard, issuer, run="x|run-1"), await seen_by(guard, issuer, run="run-2")
    bystander = await seen_by(guard, issuer)
    for invocation in (used, mine, bystander):
        store.record_run(as_record(invocation))

    store.used(used)
    store.used(mine)
    store.close()

    states = {run.run_id: run.state for run in truth.open().runs()}
    assert states == {"x|run-1": RunState.ACTIVE, "run-2": RunState.ACTIVE, "run-1": RunState.ISSUED}
