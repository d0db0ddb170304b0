"""What other people's repositories run: the hooks of pre-commit, and the action of GitHub."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.commands import agentguard

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "records" / "policies"
HOOKS: list[dict[str, Any]] = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text("utf-8"))
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text("utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
BROKEN = "permit (principal action, resource);\n"


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return somebody's repository, with policies in it."""
    folder = tmp_path / "repository"
    shutil.copytree(EXAMPLE, folder / "policies")
    (folder / ".git").mkdir()
    return folder


def ran(script: str, where: Path, **variables: str) -> tuple[int, str]:
    """Return the status of a script, and what it wrote."""
    done = subprocess.run(
        ["bash", "-e", "-c", script],
        cwd=where,
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"], "HOME": str(where), **variables},
    )
    return done.returncode, done.stdout + done.stderr


def files_of(hook: dict[str, Any], repository: Path) -> list[str]:
    """Return the files of a repository that pre-commit would run a hook for."""
    every = (path.relative_to(repository).as_posix() for path in repository.rglob("*") if path.is_file())
    return sorted(name for name in every if re.search(hook["files"], name))


def test_hooks_have_what_pre_commit_asks_for() -> None:
    """Their fields are those of its documentation, and each command is one of ours."""
    assert [hook["id"] for hook in HOOKS] == [
        "agentguard-check",
        "agentguard-fmt",
        "agentguard-test",
        "agentguard-lock-check",
    ]
    for hook in HOOKS:
        assert hook.keys() <= {"id", "name", "description", "entry", "language", "files", "pass_filenames"}
        assert hook["language"] == "python"
        assert hook["entry"] == hook["name"] == hook["id"].replace("-", " ", 1).replace("-", " --")


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_hook_is_run_for_the_files_that_it_is_about(hook: dict[str, Any], repository: Path) -> None:
    """A change of anything else costs nobody time."""
    (repository / "cedarentities.json.bak").touch()
    (repository / "README.md").touch()
    assert agentguard("lock", str(repository / "policies")).status == 0

    names = {Path(name).suffix for name in files_of(hook, repository)}

    assert (
        names
        == {
            "agentguard-check": {".cedar", ".cedarschema", ".json"},
            "agentguard-fmt": {".cedar"},
            "agentguard-test": {".cedar", ".cedarschema", ".json", ".yaml"},
            "agentguard-lock-check": {".cedar", ".cedarschema", ".json", ".lock"},
        }[hook["id"]]
    )


@pytest.mark.parametrize("hook", HOOKS, ids=[hook["id"] for hook in HOOKS])
def test_hook_tells_a_good_change_from_a_bad_one(
    hook: dict[str, Any], repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as pre-commit does: with the names of the files, or without any."""
    monkeypatch.chdir(repository)
    assert agentguard("fmt", "policies").status == 0
    assert agentguard("lock", "policies").status == 0
    command = shlex.split(hook["entry"])[1:]
    passes = hook.get("pass_filenames", True)
    assert agentguard(*command, *(files_of(hook, repository) if passes else [])).status == 0

    (repository / "policies" / "99.cedar").write_text(BROKEN)
    bad = agentguard(*command, *(files_of(hook, repository) if passes else []))

    assert bad.status in {1, 2}
    said = bad.stdout + bad.stderr
    # A manifest tells of each file that it does not list, whatever is in it.
    assert ("policies/99.cedar:1:19 error[syntax]" in said) is not hook["id"].endswith("lock-check")


def test_action_has_what_github_asks_for() -> None:
    """It is composite, each script says its shell, and what it uses is pinned to a commit."""
    assert {"name", "description", "branding", "inputs", "runs"} == ACTION.keys()
    assert ACTION["runs"]["using"] == "composite"
    for given in ACTION["inputs"].values():
        assert given.keys() == {"description", "required", "default"}
        assert isinstance(given["default"], str)
    for step in STEPS:
        assert ("uses" in step) is not ("run" in step)
        if "uses" in step:
            assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", step["uses"])
        else:
            assert step["shell"] == "bash"


def test_action_uses_what_it_is_given_and_nothing_else() -> None:
    """An input that nothing reads would be believed to do something."""
    text = (ROOT / "action.yml").read_text("utf-8")

    assert set(re.findall(r"inputs\.([\w-]+)", text)) == set(ACTION["inputs"])


def test_no_script_of_the_action_has_a_text_of_others_in_it() -> None:
    """A name such as `a$(curl …)` would be run; in a variable it is a name."""
    assert [step["run"] for step in STEPS if "run" in step and "${{" in step["run"]] == []


@pytest.mark.parametrize(
    ("named", "mutate"), [("policies", "--mutate"), ("", ""), ("my $(touch owned) policies", ""), ("--help", "")]
)
def test_action_names_the_folder_that_it_was_given(named: str, mutate: str, tmp_path: Path) -> None:
    """As one argument, whatever it is called; without a name it leaves the choice to the project."""
    program = tmp_path / "agentguard" / "bin" / "agentguard"
    program.parent.mkdir(parents=True)
    program.write_text('#!/usr/bin/env bash\nprintf "[%s]" "$@"\n')
    program.chmod(0o755)

    told = [ran(step["run"], tmp_path, RUNNER_TEMP=str(tmp_path), POLICIES=named, MUTATE=mutate) for step in STEPS[2:]]

    rest = f"[--][{named}]" if named else ""
    assert told == [
        (0, f"[check][--format][github]{rest}"),
        (0, f"[test][--format][github]{'[--mutate]' if mutate else ''}{rest}"),
        (0, f"[fmt][--check]{rest}"),
        (0, f"[lock][--check]{rest}"),
    ]
    assert not (tmp_path / "owned").exists()


def test_action_says_what_is_wrong_beside_its_line(repository: Path) -> None:
    """Its script runs as it stands, with agentguard where the step before has put it."""
    temporary = repository.parent / "temporary"
    (temporary / "agentguard").mkdir(parents=True)
    (temporary / "agentguard" / "bin").symlink_to(Path(sys.executable).parent)
    (repository / "policies" / "99.cedar").write_text(BROKEN)

    status, said = ran(
        STEPS[2]["run"], repository, RUNNER_TEMP=str(temporary), POLICIES="policies", GITHUB_WORKSPACE=str(repository)
    )

    assert status == 1
    assert "::error file=policies/99.cedar,line=1,col=19,endColumn=25,title=syntax::" in said


def test_action_installs_what_it_stands_beside() -> None:
    """With the versions that are tested, and in an environment of its own."""
    install = STEPS[1]

    assert install["env"]["SOURCE"] == "${{ github.action_path }}"
    assert '--constraint "$SOURCE/constraints.txt" "$SOURCE"' in install["run"]
    assert (ROOT / "constraints.txt").is_file()
