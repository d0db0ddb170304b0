"""What the commands for policies show, on a terminal of 80 columns and piped.

The other scenes piped, and wider terminals, are in `tests/soak/test_golden_terminals.py`.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest
from rich.cells import cell_len

from tests.cli import workbench
from tests.cli.commands import Ran
from tests.cli.scenes import COMMANDS, GOLDEN, SCENES, WIDTHS, Scene, play, settled, transcript, working_folder
from tests.cli.terminals import run_on

# What a program reads, and text that stands in a file, has the lines that it has.
_AS_IT_IS: Final = re.compile(r"--json|--format|--diff")

# What stands at the top of each document.
JSON: Final = {
    "init new": "baselines files folder left_out observe server untested",
    "schema server.py": "claims loaders offers server",
    "schema server.py --diff": "changes current diff file",
    "schema server.py --write policies": "changes file written",
    "check": "counts findings folder policy_versions summary version",
    "test --filter mailer": "cases counts findings folder summary version",
    "explain --scenario scenarios/records.test.yaml:34": (
        "advice answers early effect errors facts_may_change meaning now policies policy_changes policy_version reason "
        "suggestions time_zone weekday"
    ),
    "access --agent mailer-agent": "access folder policy_version",
    "impact policies policies --evidence state": (
        "as_before cannot_tell changed changes decisions first last new not_judged old policy_versions record_inputs "
        "told_by_shadow untold"
    ),
    "unused --evidence state": (
        "agents allowed by_other_versions decisions evidence_begins first folder in_force_since last not_done permits "
        "policy_version runs tighter untold"
    ),
    "lock": "files manifest matches policy_versions",
    "lock --check": "manifest matches why",
    "doctor --evidence state --user 40001": "counts diagnoses version",
}

each_scene = pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that the commands work on."""
    folder = tmp_path_factory.mktemp("workbench")
    workbench.prepare(folder)
    return folder


def golden(name: str, scene: Scene) -> str:
    """Return what a scene showed when somebody last looked at it."""
    return (GOLDEN / name / f"{scene.name}.txt").read_text("utf-8")


def too_wide(played: Sequence[tuple[str, Ran]], columns: int, folder: Path) -> list[str]:
    """Return the lines that a terminal would cut."""
    return [
        line
        for command, ran in played
        if not _AS_IT_IS.search(command)
        for line in settled(ran.stdout + ran.stderr, folder).splitlines()
        if cell_len(line) > columns
    ]


@each_scene
def test_scene_on_a_terminal_of_80_columns(scene: Scene, prepared: Path) -> None:
    """No line is wider, and what is seen without the colours is what was seen before."""
    with working_folder(prepared, scene) as folder:
        played = list(play(scene, folder, 80))

        assert too_wide(played, 80, folder) == []
        assert transcript(folder, played) == golden("80", scene)


def test_terminal_sees_colours(prepared: Path) -> None:
    """What weighs is marked by them, on both outputs alike."""
    with working_folder(prepared, SCENES[0]):
        status = [run_on(80, *arguments).stdout for arguments in (["check", "policies"], ["test", "policies"])]

    assert "\x1b[32m14 policies, 5 tools: no errors\x1b[0m" in status[0]
    assert "\x1b[32m40 ok\x1b[0m" in status[1]


def check_piped(scene: Scene, prepared: Path) -> None:
    """Hold a scene to its golden output where nobody sees it."""
    with working_folder(prepared, scene) as folder:
        played = list(play(scene, folder, None))

        assert not any("\x1b" in ran.stdout + ran.stderr for _, ran in played)
        assert transcript(folder, played) == golden("piped", scene)


@pytest.mark.parametrize("scene", [scene for scene in SCENES if scene.piped], ids=lambda scene: scene.name)
def test_scene_that_is_piped(scene: Scene, prepared: Path) -> None:
    """Nothing that steers a terminal is in it, and no line was folded to fit one."""
    check_piped(scene, prepared)


def test_json_of_each_command_has_the_names_that_it_always_had(prepared: Path) -> None:
    """Whatever else is told meanwhile goes to standard error."""
    documents = {}
    with working_folder(prepared, SCENES[0]):
        for command in JSON:
            ran = run_on(None, *shlex.split(command), "--json")
            documents[command] = set(json.loads(ran.stdout))

    assert documents == {command: set(names.split()) for command, names in JSON.items()}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches(command: str) -> None:
    """What it is for, what it exits with, an example; and no name of a Python type."""
    said = golden("80", SCENES[0]).partition(f"$ agentguard {command} --help\n")[2].partition("\nexit ")[0]

    assert f"Usage: agentguard {command} " in said
    assert " Exits with " in said
    assert f" Example: agentguard {command} " in said
    assert "<" not in said
    assert "[[" not in said


def test_each_golden_output_belongs_to_a_scene() -> None:
    """None is left over from one that is gone."""
    assert sorted(path.name for path in GOLDEN.iterdir()) == sorted(WIDTHS)
    for name in WIDTHS:
        assert sorted(path.stem for path in (GOLDEN / name).iterdir()) == sorted(scene.name for scene in SCENES)
