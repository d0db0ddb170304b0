"""What every test shares: the event loop that asynchronous tests run on, and a search for leaks."""

import os
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests import followers, leaks


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, which is what MCP servers run on."""
    return "asyncio"


def pytest_configure() -> None:
    """Listen to what our code emits, and begin without a terminal's size.

    pytest imports readline, which writes one into the environment behind the back of `os.environ`. Programs that
    tests start would have it until a test sets and takes out the name itself.
    """
    leaks.listen()
    followers.listen()
    # How long an example takes is up to what else this machine does.
    settings.register_profile("unhurried", settings(), deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("unhurried")
    for name in {"COLUMNS", "LINES"} - os.environ.keys():
        os.unsetenv(name)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call() -> Generator[None, Any, Any]:
    """Fail a test while which a token or another secret got out."""
    followers.begin()
    result = yield
    leaks.check()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Generator[None, Any, Any]:
    """The same for what came of it afterwards."""
    result = yield
    followers.stop()
    leaks.check()
    leaks.forget()
    return result
