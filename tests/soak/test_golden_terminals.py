"""What the commands for policies show on wider terminals, in colour, and where somebody wants none."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.cli import workbench
from tests.cli.commands import TERM
from tests.cli.scenes import SCENES, Scene, play, settled, transcript, working_folder
from tests.cli.terminals import Received, open_terminal
from tests.cli.test_golden import check_piped, each_scene, golden, too_wide

_COLOUR: Final = re.compile(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8]|9[0-7]|10[0-7])(?:;[0-9;]*)?m")


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all that the commands work on."""
    folder = tmp_path_factory.mktemp("workbench")
    workbench.prepare(folder)
    return folder


@pytest.fixture(autouse=True)
def state_of_a_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the local issuer a folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))


@each_scene
def test_scene_on_a_terminal_of_120_columns(scene: Scene, prepared: Path) -> None:
    """No line is wider, and what is seen without the colours is what was seen before."""
    with working_folder(prepared, scene) as folder:
        played = list(play(scene, folder, 120))

        assert too_wide(played, 120, folder) == []
        assert transcript(folder, played) == golden("120", scene)


@pytest.mark.parametrize("scene", [scene for scene in SCENES if not scene.piped], ids=lambda scene: scene.name)
def test_scene_that_is_piped(scene: Scene, prepared: Path) -> None:
    """Those that quick tests leave out."""
    check_piped(scene, prepared)


@each_scene
def test_scene_without_colour(scene: Scene, prepared: Path) -> None:
    """Where NO_COLOR is set, the same is seen, and nothing is coloured; a table's head may be bold."""
    with working_folder(prepared, scene) as folder:
        played = list(play(scene, folder, 80, {"NO_COLOR": "1"}))

        assert not any(_COLOUR.search(ran.stdout + ran.stderr) for _, ran in played)
        assert transcript(folder, played) == golden("80", scene)


@each_scene
def test_scene_on_a_terminal_that_can_do_nothing(scene: Scene, prepared: Path) -> None:
    """Where TERM is dumb, no escape sequence comes at all."""
    with working_folder(prepared, scene) as folder:
        played = list(play(scene, folder, 80, {"TERM": "dumb"}))

        assert not any("\x1b" in ran.stdout + ran.stderr for _, ran in played)


def test_program_shows_the_same_as_the_command_in_this_process(prepared: Path) -> None:
    """Started by a shell, on a terminal that both outputs share."""
    scene = next(scene for scene in SCENES if scene.name == "check-findings")
    command = scene.commands[0]
    with working_folder(prepared, scene) as folder:
        ours, theirs = open_terminal(80)
        received = Received(ours, theirs)
        program = Path(sys.executable).with_name("agentguard")
        environ = {"PATH": os.environ["PATH"], "HOME": str(folder), "TERM": TERM}
        status = subprocess.run(
            [program, *command.split()], stdin=theirs, stdout=theirs, stderr=theirs, env=environ, check=False
        ).returncode
        seen = settled(received.text(), folder)

    assert f"$ agentguard {command}\n{seen}exit {status}\n" == golden("80", scene).partition("\n$ ")[0]
