"""What the long tests share: stores of each kind that another process can open too."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lifecycle.stores import served
from tests.soak.others import Place


@pytest.fixture(params=["sqlite", "valkey"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Give where a store is that several processes share."""
    if request.param == "sqlite":
        yield Place("sqlite", str(tmp_path / "state" / "store.db"))
        return
    with served(tmp_path) as server:
        yield Place("valkey", server.connection_url)


@pytest.fixture
def eager_threads() -> Iterator[None]:
    """Have threads take turns every ten microseconds, so that they meet inside of a call."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)
