"""A signed grant that Cedar's parser does not survive.

Seen with cedarpy 4.12.2: brackets nested 700 deep, or a long chain of `else if`, end
the process with a segmentation fault. So each grant is read in a process of its own here.
"""

import subprocess
import sys

import pytest

SCRIPT = """
import sys
from agentguard.errors import ConfigurationError
from agentguard.limits import Limits
from agentguard.policy.grants import check_grant
try:
    check_grant(sys.stdin.read(), Limits())
except ConfigurationError:
    sys.exit(7)
"""
HEAD = "permit (principal, action, resource) when {{ {} }};"


@pytest.mark.parametrize(
    "condition",
    [
        pytest.param("(" * 1_800 + "true" + ")" * 1_800, id="brackets"),
        pytest.param("[" * 1_800 + "]" * 1_800 + " == []", id="lists"),
        pytest.param("if true then true else " * 150 + "true", id="else if"),
        pytest.param("if true then true else " * 3_000 + "true", id="a long else if"),
        pytest.param("!" * 3_500 + "true", id="negations"),
        pytest.param("context" + ".a" * 1_900 + " == 1", id="attributes"),
        pytest.param("true" + "||true" * 600, id="terms"),
    ],
)
def test_a_grant_past_the_bounds_is_refused_and_the_process_lives(condition: str) -> None:
    """Bounds come before the parser."""
    done = subprocess.run([sys.executable, "-c", SCRIPT], input=HEAD.format(condition), text=True, check=False)

    assert done.returncode == 7
