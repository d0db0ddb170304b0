"""Acting as an invocation in tests: it ends with its block, and it says what it is."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from agentguard import AccessDenied
from agentguard.call import ACTING
from agentguard.testing import _warn_once, acting_as, unsafe_invocation
from tests.world import make_world


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
