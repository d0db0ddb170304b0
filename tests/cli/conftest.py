"""What the tests of commands share: a user who has nothing yet."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import followers
from tests.analysis.ledgered import clinic


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the local issuer a folder of its own, and return it."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("COLUMNS", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    return tmp_path / "agentguard"


@pytest.fixture(scope="session")
def in_use(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a server's policies in `policies` and what its guard kept in `state`: twelve decisions."""
    made = clinic(tmp_path_factory.mktemp("in-use"))
    # Its store would be written to while a test copies it.
    followers.stop()
    return made
