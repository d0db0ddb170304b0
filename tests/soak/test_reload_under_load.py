"""Ten thousand calls while the policies change two hundred times, a third half-written, a third broken."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.under_load import under_load

CALLS = 10_000
CHANGES = 200


@pytest.mark.parametrize("seed", [1, 2])
async def test_every_record_names_a_version_that_was_whole_and_valid(seed: int, tmp_path: Path) -> None:
    """No call fails for the reload, and the version that decides never goes backwards."""
    told = await under_load(tmp_path, calls=CALLS, changes=CHANGES, seed=seed)

    assert told.failed == []
    assert len(told.deciding) == CALLS
    assert told.publisher.ways.total() == CHANGES
    assert set(told.deciding) <= told.publisher.whole
    assert told.deciding == sorted(told.deciding)
    # Each version has one digest, so no mixture of two has that of either.
    digests = {
        (one["agentguard.policy.version"], number) for one, number in zip(told.decisions, told.deciding, strict=True)
    }
    assert len(digests) == len(set(told.deciding))
    # A race that nothing ran in was none.
    assert len(set(told.deciding)) > CHANGES // 12, sorted(set(told.deciding))
    assert min(told.publisher.ways.values()) > CHANGES // 12, told.publisher.ways
