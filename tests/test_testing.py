"""Acting as an invocation in tests: it ends with its block, and it says what it is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agentguard import AccessDenied, ConfigurationError, Reason
from agentguard.steps.call import ACTING
from agentguard.testing import _warn_once, acting_as, unsafe_invocation
from tests.world import ISSUER, make_world


async def test_acting_ends_with_its_block(tmp_path: Path) -> None:
    """After it, also after an error in it, the process acts as nobody."""
    world = make_world(tmp_path)
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader"):
        await export()
    with pytest.raises(ZeroDivisionError), acting_as("reader"):
        raise ZeroDivisionError

    assert ACTING.get() is None
    with pytest.raises(AccessDenied):
        await export()
    assert world.ran == ["export 10 csv"]


async def test_direct_call_is_over_when_it_returns(tmp_path: Path) -> None:
    """What stood for its request does not stay behind for the next call."""
    world = make_world(tmp_path)
    export = world.server._tool_manager.list_tools()[1].fn

    with acting_as("reader"):
        await export()

    assert world.guard._call.get() is None
    with acting_as("stranger"), pytest.raises(AccessDenied):
        await export()


async def test_direct_call_came_over_no_network(tmp_path: Path) -> None:
    """A policy for calls over HTTP does not hold for it."""
    world = make_world(
        tmp_path, policies='@id("http") permit (principal, action, resource) when { context.transport == "http" };'
    )

    with acting_as("reader"), pytest.raises(AccessDenied):
        await world.server._tool_manager.list_tools()[1].fn()


def test_process_that_acts_without_tokens_says_so(caplog: pytest.LogCaptureFixture) -> None:
    """Once, as a warning: it should not be found in the log of a real server."""
    _warn_once.cache_clear()

    with caplog.at_level(logging.WARNING, logger="agentguard"):
        for _ in range(2):
            with acting_as("reader"):
                pass

    assert caplog.text.count("acting as agents without tokens") == 1


def test_each_invocation_has_a_run_of_its_own() -> None:
    """Ending the run of one test does not end that of another."""
    assert unsafe_invocation("a").run_id != unsafe_invocation("a").run_id


async def test_run_that_a_test_acts_as_is_ended_by_its_name(tmp_path: Path) -> None:
    """Without naming an issuer; so is the run above it."""
    world = make_world(tmp_path)
    export = world.server._tool_manager.list_tools()[1].fn

    for above in (False, True):
        parent = unsafe_invocation("reader")
        with acting_as("reader", ancestors=(parent,)) as child:
            await export()
            world.guard.revoke(parent.run_id if above else child.run_id, issuer=child.issuer if above else None)
            with pytest.raises(AccessDenied) as denied:
                await export()
        assert denied.value.decision.reason is Reason.REVOKED


def test_acting_gives_no_way_to_end_runs_of_others(tmp_path: Path) -> None:
    """Neither another run's of the testing issuer, nor one's under another issuer's name, nor after the block."""
    guard = make_world(tmp_path).guard

    with acting_as("reader") as invocation:
        with pytest.raises(ConfigurationError, match=r"guard\.revoke wants a run as evidence names it"):
            guard.revoke("run-1", issuer=invocation.issuer)
        with pytest.raises(ConfigurationError):
            guard.revoke(invocation.run_id, issuer="https://other.example")
        guard.revoke(invocation.run_id, issuer=ISSUER)
    assert not guard.state.store.ended(invocation)
    guard.revoke(invocation.run_id)
    assert not guard.state.store.ended(invocation)
