"""Calls in flight, found by any link of their chain."""

from __future__ import annotations

import threading

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from agentguard.lifecycle.calls import LiveCalls
from agentguard.lifecycle.store import Kind, MemoryStore
from agentguard.testing import unsafe_invocation

BACKENDS = ["asyncio", "trio"]


@pytest.fixture(params=["asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> str:
    """Run on the loop that MCP servers run on."""
    backend: str = request.param
    return backend


def make() -> tuple[LiveCalls, MemoryStore]:
    """Return the calls of a store."""
    store = MemoryStore(clock=lambda: 0.0)
    return LiveCalls(store), store


async def test_ending_a_run_cancels_its_calls_and_no_others() -> None:
    """Only the named run's scope is cancelled."""
    calls, store = make()
    mine, other = anyio.CancelScope(), anyio.CancelScope()
    calls.add(unsafe_invocation("a", run_id="1"), mine)
    calls.add(unsafe_invocation("a", run_id="2"), other)

    store.revoke(issuer="urn:agentguard:testing", run_id="1")

    assert mine.cancel_called
    assert not other.cancel_called


async def test_ending_an_agent_cancels_the_calls_of_all_its_runs_and_no_others() -> None:
    """Those that stem from one of them too; a cutoff spares what began later."""
    calls, store = make()
    parent = unsafe_invocation("billing", issued_at=10, run_id="1")
    runs = {
        "its own": parent,
        "its child's": unsafe_invocation("reader", run_id="2", ancestors=(parent,)),
        "a later one's": unsafe_invocation("billing", run_id="3", issued_at=1030),
        "another's": unsafe_invocation("reader", run_id="4", issued_at=10),
    }
    scopes = {name: anyio.CancelScope() for name in runs}
    for name, invocation in runs.items():
        calls.add(invocation, scopes[name])

    store.revoke_all(issuer=parent.issuer, kind=Kind.AGENT, name="billing", issued_before=1000)

    assert {name for name, scope in scopes.items() if scope.cancel_called} == {"its own", "its child's"}


async def test_a_call_is_found_under_the_name_that_its_issuer_gave_the_run() -> None:
    """A server that trusts several issuers puts an alias before it."""
    calls, store = make()
    scope = anyio.CancelScope()
    invocation = unsafe_invocation("corp|a", run_id="corp|1", prefix="corp|")
    calls.add(invocation, scope)

    store.revoke(issuer=invocation.issuer, run_id="1")

    assert scope.cancel_called
    calls.remove(invocation, scope)
    assert calls._calls == {}
    assert calls._invocations == {}


async def test_call_that_is_over_is_forgotten() -> None:
    """Nothing is left of a call that was removed, and removing it again does no harm."""
    calls, store = make()
    parent = unsafe_invocation("a", run_id="1")
    child = unsafe_invocation("b", run_id="2", ancestors=(parent,))
    one, two = anyio.CancelScope(), anyio.CancelScope()
    calls.add(child, one)
    calls.add(parent, two)

    calls.remove(child, one)
    calls.remove(child, one)
    calls.remove(None, one)
    store.revoke(issuer=parent.issuer, run_id="1")
    calls.remove(parent, two)

    assert not one.cancel_called
    assert two.cancel_called
    assert calls._calls == {}


async def test_run_that_is_ended_in_another_thread_cancels_without_waiting() -> None:
    """Whoever ends a run does not wait for the loop on which its calls run."""
    calls, store = make()
    invocation = unsafe_invocation("a", run_id="1")
    returned = threading.Event()

    def revoke() -> None:
        store.revoke(issuer=invocation.issuer, run_id="1")
        returned.set()

    with anyio.fail_after(5), anyio.CancelScope() as scope:
        calls.add(invocation, scope)
        thread = threading.Thread(target=revoke)
        thread.start()
        # This loop does nothing until the other thread is through.
        assert returned.wait(5)
        thread.join()
        await anyio.sleep_forever()

    assert scope.cancelled_caught


async def test_every_call_of_a_run_is_cancelled() -> None:
    """A run may have many calls in flight at once, and those of the runs below it."""
    calls, store = make()
    parent = unsafe_invocation("a", run_id="1")
    child = unsafe_invocation("b", run_id="2", ancestors=(parent,))
    scopes = [anyio.CancelScope() for _ in range(4)]
    for scope, invocation in zip(scopes, (parent, child, parent, child), strict=True):
        calls.add(invocation, scope)

    store.revoke(issuer=parent.issuer, run_id="1")

    assert all(scope.cancel_called for scope in scopes)


async def test_loop_that_is_gone_does_not_keep_the_others_from_stopping() -> None:
    """Each call is told; what could not be told is raised afterwards."""
    calls, store = make()
    invocation = unsafe_invocation("a", run_id="1")

    def elsewhere() -> None:
        async def register() -> None:
            calls.add(invocation, anyio.CancelScope())

        anyio.run(register)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    here = anyio.CancelScope()
    calls.add(invocation, here)

    with pytest.raises(ExceptionGroup, match="failed"):
        store.revoke(issuer=invocation.issuer, run_id="1")

    assert here.cancel_called
