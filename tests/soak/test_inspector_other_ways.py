"""The Inspector's view of the guarded example, in the ways that the quick tests leave out."""

from pathlib import Path

import pytest

from tests.clients.inspector import install
from tests.soak import test_inspector as quick
from tests.soak.test_inspector import Era, Transport

other_ways = pytest.mark.parametrize(("transport", "era"), [("stdio", "modern"), ("http", "legacy")])


@pytest.fixture(scope="module")
def program() -> Path:
    """Return the Inspector's program."""
    return install()


@other_ways
async def test_list(program: Path, tmp_path: Path, transport: Transport, era: Era) -> None:
    """It lists the tools that its agent could use."""
    await quick.test_inspector_lists_the_tools_that_its_agent_could_use(program, tmp_path, transport, era)


@other_ways
async def test_allow(program: Path, tmp_path: Path, transport: Transport, era: Era) -> None:
    """An allow is an ordinary result."""
    await quick.test_allowed_call_exits_0_with_its_result(program, tmp_path, transport, era)


@other_ways
async def test_denial(program: Path, tmp_path: Path, transport: Transport, era: Era) -> None:
    """A denial is a tool's error with its decision."""
    await quick.test_denied_call_shows_the_error_and_the_decision(program, tmp_path, transport, era)
