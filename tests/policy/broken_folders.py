"""The folders under `broken/`: one for each lint and each error, with what `agentguard check` says of it.

A folder there holds what differs from the records example, the policies above all. An empty
file takes a file of the example away; `links.txt` lists links, which not every checkout can
hold. `expected.txt` is the command, and what it says; that is written again by::

    .venv/bin/python -m tests.policy.broken_folders
"""

import shlex
import shutil
import tempfile
from pathlib import Path
from typing import Final

import pytest

from tests.cli.commands import agentguard

BROKEN: Final = Path(__file__).parent / "broken"
EXPECTED: Final = "expected.txt"
BASE: Final = "base.cedar"
_EXAMPLE: Final = Path(__file__).parent.parent.parent / "examples" / "records" / "policies"
# Of a folder for several servers, the part that is the example's.
_ONE: Final = Path("servers", "records")
_LINKS: Final = "links.txt"
# Permits what no broken policy is about, so that nothing but the broken one is told.
_PERMITS: Final = """\
@id("base")
@owner("billing-team@example.com")
permit (principal in Agent::"billing-agent", action, resource) when { principal has task };
"""


def names() -> list[str]:
    """Return the names of all folders."""
    return sorted(path.name for path in BROKEN.iterdir() if path.is_dir())


def lay_out(name: str, folder: Path) -> None:
    """Write the whole of a broken folder; one that holds nothing of its own is left away."""
    own = [path for path in (BROKEN / name).rglob("*") if path.is_file() and path.name != EXPECTED]
    if not own:
        return
    base = folder / _ONE if (BROKEN / name / _ONE).is_dir() else folder
    shutil.copytree(_EXAMPLE / "types", base / "types")
    for file in ("agentguard.cedarschema", "cedarentities.json"):
        shutil.copy(_EXAMPLE / file, base / file)
    (base / BASE).write_text(_PERMITS, "utf-8")
    for path in own:
        target = folder / path.relative_to(BROKEN / name)
        content = path.read_bytes()
        if path.name == _LINKS:
            for line in content.decode().splitlines():
                link, _, to = line.partition(" -> ")
                (folder / link).symlink_to(to)
        elif content:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        else:
            target.unlink()


def said_of(name: str, folder: Path) -> str:
    """Return the command for a broken folder, which is `policies` in *folder*, and what it says."""
    command = (BROKEN / name / EXPECTED).read_text("utf-8").partition("\n")[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("COLUMNS", "80")
        ran = agentguard(*shlex.split(command)[2:])
    lines = [line for line in ran.stdout.splitlines() if not line.startswith("policy version ")]
    said = "\n".join((command, *lines, *ran.stderr.splitlines())).replace(str(folder), "/srv")
    return f"{said}\nexit {ran.status}\n"


def main() -> None:
    """Write what the command says of each folder now."""
    for name in names():
        with tempfile.TemporaryDirectory() as root:
            lay_out(name, Path(root).resolve() / "policies")
            (BROKEN / name / EXPECTED).write_text(said_of(name, Path(root).resolve()), "utf-8")


if __name__ == "__main__":
    main()
