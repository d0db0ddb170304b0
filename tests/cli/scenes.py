"""What a security team types, and what it sees: the commands for policies, on the records example.

`golden/` holds what each scene showed when it was last looked at, on terminals of two widths
and piped. What differs without meaning anything is put in fixed form by `settled`. When an
output is meant to change, this writes them again, and somebody reads the difference::

    .venv/bin/python -m tests.cli.scenes
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest

from agentguard.cli import doctor
from agentguard.evidence.reading import read_sources
from tests.cli import workbench
from tests.cli.commands import Ran
from tests.cli.terminals import ESCAPES, run_on

GOLDEN: Final = Path(__file__).parent / "golden"
WIDTHS: Final = {"80": 80, "120": 120, "piped": None}
"""The ways to look at a scene, by the folder of `golden` that holds what is seen."""

_PLACE: Final = "/srv/security/agentguard"
_PROGRESS: Final = re.compile(r"\x1b\[\?25l.*?\x1b\[\?25h\r?\n?(?:\x1b\[1A\x1b\[2K)*", re.DOTALL)
_SETTLED: Final = (
    # Of a decision's id, the time is the guard's clock's; the rest is random.
    (re.compile(r"\b(01[0-9A-HJKMNP-TV-Z]{8})[0-9A-HJKMNP-TV-Z]{16}\b"), lambda found: found[1] + "0" * 16),
    # A version holds the engine's too.
    (re.compile(r"sha256:[0-9a-f]+"), lambda found: "sha256:" + "0" * (len(found[0]) - len("sha256:"))),
    (re.compile(r"\b([0-9]{8}T[0-9]{6})-[0-9a-f]{16}\b"), lambda found: f"{found[1]}-{'0' * 16}"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """Some commands that belong together.

    Attributes:
        name: What they are about.
        commands: What is typed after `agentguard`; ``{deny}`` is the id of a decision on record.
        before: Changes the working folder first.
        piped: Whether quick tests look at it piped too: it has something there that others have not.
    """

    name: str
    commands: tuple[str, ...]
    before: Callable[[Path], None] | None = None
    piped: bool = True


COMMANDS: Final = (
    "init",
    "schema",
    "check",
    "fmt",
    "lock",
    "test",
    "explain",
    "access",
    "impact",
    "unused",
    "doctor",
)
_CALL: Final = "explain --now 2026-11-24T10:00:00Z --call export_records --agent billing-agent"
_EXPORT: Final = "--with format=csv --with 'columns=[name, born]' --fact identifying_columns=2"

_SMALL: Final = "--with max_rows=500 --with format=csv --with 'columns=[balance]' --fact identifying_columns=0"

SCENES: Final = (
    Scene(name="help", piped=False, commands=("--help", *(f"{command} --help" for command in COMMANDS))),
    Scene(
        name="init",
        commands=("init clinic", "check clinic", "test clinic --mutate", "init clinic", "init more --json"),
    ),
    Scene(name="init-observe", piped=False, commands=("init live --server server.py --observe",)),
    Scene(
        name="init-baselines",
        piped=False,
        commands=(
            "init --list-baselines",
            "init clinic --baseline shared-principal --baseline budget",
            "init clinic --baseline all",
            "test clinic --mutate",
            "init clinic --baseline office-hours",
            "init policies --baseline all",
            "init policies --baseline shared-principal --json",
            "init policies --baseline ofice-hours",
        ),
    ),
    Scene(
        name="schema",
        commands=("schema server.py", "schema server.py --diff", "schema server.py --write policies", "schema"),
    ),
    Scene(
        name="schema-stale",
        piped=False,
        before=workbench.with_stale_schema,
        commands=(
            "schema server.py --diff",
            "check --server server.py",
            "access --tool delete_record",
            "schema server.py --write policies",
        ),
    ),
    Scene(name="check", commands=("check policies", "check nowhere", "check --fromat json")),
    Scene(
        name="check-findings",
        before=workbench.with_mistakes,
        commands=("check policies", "check policies --format github", "check policies --json"),
    ),
    Scene(
        name="mistakes",
        before=workbench.with_unreadable,
        commands=(
            "check policies",
            "test policies",
            "access --tool read_record",
            "lock policies",
            "lock --check policies",
        ),
    ),
    Scene(
        name="fmt",
        before=workbench.laid_out_badly,
        commands=("fmt --check", "fmt policies --diff", "fmt policies", "fmt policies"),
    ),
    Scene(name="test", commands=("test policies", "test policies --filter mailer", "test --filter nobody-knows")),
    Scene(name="test-failing", piped=False, before=workbench.with_failing_cases, commands=("test policies --mutate",)),
    Scene(
        name="test-untested",
        before=workbench.with_few_cases,
        commands=("test policies --mutate", "test policies --format github"),
    ),
    Scene(name="test-none", before=workbench.without_scenarios, commands=("test policies",)),
    Scene(
        name="explain",
        piped=False,
        commands=(
            f"{_CALL} --purpose 'monthly close' --with max_rows=501 {_EXPORT}",
            f"{_CALL} --purpose 'month close' {_SMALL}",
            "explain --scenario scenarios/records.test.yaml:34",
            "explain --call read_recrod --agent billing-agent",
            "explain",
        ),
    ),
    Scene(
        name="explain-decision",
        commands=(
            "explain {deny} --evidence state",
            "explain {allow} --evidence state",
            "explain 01ZZZ --evidence state",
        ),
    ),
    Scene(
        name="access",
        commands=(
            "access --agent billing-agent",
            "access --tool export_records",
            "access --agent support-agent --user alice --tool delete_record",
            "access --agent biling-agent --tool read_record",
            "access",
        ),
    ),
    Scene(
        name="impact",
        before=workbench.with_next,
        commands=("impact policies next --evidence state", "impact policies policies --evidence state", "impact"),
    ),
    Scene(
        name="unused",
        commands=(
            "unused policies --evidence state --since 30d --write next",
            "unused policies --evidence state --since 2027-01-01",
            "unused",
        ),
    ),
    Scene(name="lock", commands=("lock --check", "lock", "lock --check", "lock nowhere")),
    Scene(
        name="doctor", commands=("doctor policies --evidence state --user 40001", "doctor policies --evidence nowhere")
    ),
)


@contextmanager
def working_folder(prepared: Path, scene: Scene) -> Iterator[Path]:
    """Give a copy of what was prepared, as the scene begins, and work in it."""
    # Each has a name of the same length, so that lines break where they always do.
    folder = Path(tempfile.mkdtemp(prefix="agentguard-", dir="/tmp"))
    try:
        shutil.copytree(prepared, folder, dirs_exist_ok=True)
        if scene.before is not None:
            scene.before(folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.setattr(time, "time", lambda: workbench.NOW)
            patch.setattr(doctor, "MOUNTS", folder / ".git" / "mounts")
            (folder / ".git" / "mounts").write_text("1 0 8:1 / / rw - ext4 /dev/sda rw\n")
            for name in [name for name in os.environ if name.startswith(("OTEL_", "AGENTGUARD_"))]:
                patch.delenv(name)
            yield folder
    finally:
        shutil.rmtree(folder)


def play(
    scene: Scene, folder: Path, columns: int | None, environ: Mapping[str, str] | None = None
) -> Iterator[tuple[str, Ran]]:
    """Yield each command of a scene, and what it left behind."""
    for command in scene.commands:
        yield command, run_on(columns, *shlex.split(_with_ids(command, folder)), environ=environ)


def _with_ids(command: str, folder: Path) -> str:
    """Return a command with the ids of decisions on record: the newest exports of each kind."""
    if "{" in command:
        for record in read_sources([folder / "state"], print):
            if record.text("agentguard.action.id") == "export_records":
                named = f"{{{record.text('agentguard.decision.effect')}}}"
                command = command.replace(named, record.text("agentguard.decision.id"))
    return command


def transcript(folder: Path, played: Iterable[tuple[str, Ran]]) -> str:
    """Return what somebody sees of a scene, in fixed form; what came to standard error is marked."""
    return "\n".join(_seen(folder, command, ran) for command, ran in played)


def _seen(folder: Path, command: str, ran: Ran) -> str:
    stdout, stderr = settled(ran.stdout, folder), settled(ran.stderr, folder)
    # Panels are filled up with blanks.
    shown = [line.rstrip() for line in stdout.splitlines()]
    told = [f"2> {line}".rstrip() for line in stderr.splitlines()]
    return "\n".join((f"$ agentguard {command}", *shown, *told, f"exit {ran.status}\n"))


def settled(text: str, folder: Path) -> str:
    """Return what is seen of an output, without what differs each time and as long as it was."""
    assert len(str(folder)) == len(_PLACE)
    # A progress bar that was taken away is not seen.
    text = ESCAPES.sub("", _PROGRESS.sub("", text)).replace(str(folder), _PLACE)
    for pattern, form in _SETTLED:
        text = pattern.sub(form, text)
    return text


def main() -> None:
    """Write what every scene shows now."""
    # No scene that is gone stays behind.
    shutil.rmtree(GOLDEN, ignore_errors=True)
    with tempfile.TemporaryDirectory() as place:
        workbench.prepare(Path(place))
        for scene in SCENES:
            for name, columns in WIDTHS.items():
                with working_folder(Path(place), scene) as folder:
                    seen = transcript(folder, play(scene, folder, columns))
                (GOLDEN / name).mkdir(parents=True, exist_ok=True)
                (GOLDEN / name / f"{scene.name}.txt").write_text(seen, "utf-8")


if __name__ == "__main__":
    main()
