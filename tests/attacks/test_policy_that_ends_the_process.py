"""A policy file that Cedar's parser does not survive.

Brackets nested 700 deep, or a long chain of `else if`, end the process with a
segmentation fault. So each file is read in a process of its own here.
"""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import sys
from pathlib import Path
from agentguard.errors import PolicyError
from agentguard.limits import Limits
from agentguard.policy.files.source import read_folder
try:
    read_folder(Path(sys.argv[1]), Limits())
except PolicyError as error:
    sys.stdout.write(str(error))
    sys.exit(7)
"""
CEDAR = "import cedarpy, sys; cedarpy.PolicySet.from_str(sys.stdin.read())"
HEAD = '@id("a") permit (principal, action, resource) when {{ {} }};'
CONDITIONS = [
    pytest.param("(" * 20_000 + "true" + ")" * 20_000, id="brackets"),
    pytest.param("[" * 20_000 + "1" + "]" * 20_000, id="lists"),
    pytest.param("if true then true else " * 20_000 + "true", id="else if"),
]


@pytest.mark.parametrize("condition", CONDITIONS)
def test_cedar_alone_ends_the_process(condition: str) -> None:
    """The trap: by a signal, that no code can catch."""
    done = subprocess.run([sys.executable, "-c", CEDAR], input=HEAD.format(condition), text=True, check=False)

    assert done.returncode < 0


@pytest.mark.parametrize(
    "condition",
    [
        *CONDITIONS,
        pytest.param("(" * 700 + "true" + ")" * 700, id="brackets in few bytes"),
        pytest.param("if true then true else " * 400 + "true", id="else if in few bytes"),
        pytest.param("true" + " || true" * 1_500, id="terms"),
        pytest.param("context" + ".a" * 1_500 + " == 1", id="attributes"),
        pytest.param("!" * 3_000 + "true", id="negations"),
    ],
)
def test_a_policy_past_the_bounds_is_refused_and_the_process_lives(condition: str, tmp_path: Path) -> None:
    """Bounds come before the parser, with the line and the fix."""
    (tmp_path / "a.cedar").write_text(f"// a\n{HEAD.format(condition)}")

    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)

    assert done.returncode == 7
    assert done.stdout.startswith("a.cedar:2: ")
