"""What `tests/soak/test_reload_under_load.py` does ten thousand times, for as long as nobody has to wait for it."""

from __future__ import annotations

from pathlib import Path

from tests.under_load import under_load


async def test_calls_are_decided_by_whole_and_valid_versions_while_the_folder_changes(tmp_path: Path) -> None:
    """None fails, and what decided once is not succeeded by what it replaced."""
    told = await under_load(tmp_path, calls=120, changes=12)

    assert told.failed == []
    assert set(told.deciding) <= told.publisher.whole
    assert told.deciding == sorted(told.deciding)
    assert len(told.deciding) == 120
