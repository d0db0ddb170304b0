"""What is said of a run beside the guard is what the guard does with such a run."""

from pathlib import Path

from tests.analysis.alongside import Alongside


async def test_scenario_says_of_each_call_what_the_guard_decides(tmp_path: Path) -> None:
    """Of a run and of those above it, whatever they have done; and what is on record is replayed to the same."""
    seen = await Alongside(tmp_path, seed=7).compared(15)

    assert min(seen["allow"], seen["deny"], seen["told"]) > 3
