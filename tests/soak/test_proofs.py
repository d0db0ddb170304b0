"""What lints prove of policies, held against Cedar for minutes and not for moments."""

from pathlib import Path

from tests.analysis.chances import HEAD, left_out, many_calls, unmatched
from tests.analysis.folders import opened


def test_nothing_that_is_proved_is_refuted_by_any_of_many_calls(tmp_path: Path) -> None:
    """Thousands of policies by chance, each against calls that come close to what it asks for."""
    workspace = opened(tmp_path, f'@id("a") {HEAD};')
    calls = many_calls(workspace)
    matchless = proved = out = 0
    for seed in range(1_000, 1_100):
        more = unmatched(seed, workspace, calls)
        matchless, proved = matchless + more[0], proved + more[1]
        out += left_out(seed, workspace, calls)

    assert proved * 2 > matchless
    assert out > 100
