"""A schema fragment that Cedar's parser does not survive.

Types nest like brackets do, and end the process in the same way.
"""

import subprocess
import sys
from pathlib import Path

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
CEDAR = "import cedarpy, sys; cedarpy.Schema.from_str(sys.stdin.read())"
DEEP = f"type Deep = {'Set<' * 100_000}Long{'>' * 100_000};"


def test_cedar_alone_ends_the_process() -> None:
    """The trap: by a signal, that no code can catch."""
    done = subprocess.run([sys.executable, "-c", CEDAR], input=DEEP, text=True, check=False)

    assert done.returncode < 0


def test_a_fragment_past_the_bound_is_refused_and_the_process_lives(tmp_path: Path) -> None:
    """The bound comes before the parser."""
    (tmp_path / "types").mkdir()
    (tmp_path / "types" / "a.cedarschema").write_text(DEEP)
    (tmp_path / "a.cedar").write_text('@id("a") permit (principal, action, resource);')

    done = subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path)], capture_output=True, text=True, check=False)

    assert done.returncode == 7
    assert done.stdout.startswith("types/a.cedarschema:1: ")
