"""What scenarios, replays and impacts say, beside a guard in use: thousands of calls."""

from pathlib import Path

import pytest

from tests.analysis.alongside import Alongside


@pytest.mark.parametrize("seed", range(20))
async def test_scenario_says_of_each_call_what_the_guard_decides(tmp_path: Path, seed: int) -> None:
    """By other policies each time."""
    seen = await Alongside(tmp_path, seed=seed).compared(60)

    assert seen.get("allow", 0) + seen.get("deny", 0) == 60
