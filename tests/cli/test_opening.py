"""A policy folder that a command asks: its mistakes are told as `agentguard check` tells them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest
import typer

from agentguard.cli.opening import opened, tell
from agentguard.errors import ConfigurationError, PolicyError
from tests.analysis.folders import records_folder

POLICIES: Final = '@id("a") permit (principal, action == Action::"read_record", resource);'
BROKEN: Final = f"{POLICIES}\npermit (principal, action, resource) when {{ 1 + }};\n"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with policies in it."""
    monkeypatch.chdir(tmp_path)
    records_folder(tmp_path / "policies", POLICIES)
    return tmp_path


def test_folder_is_opened_in_silence(capsys: pytest.CaptureFixture[str]) -> None:
    """What is right needs no word."""
    assert opened(Path("policies")).folder.name == "policies"
    assert capsys.readouterr() == ("", "")


def test_mistakes_are_told_as_check_tells_them(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with its place and its name, and how to see more of it."""
    (here / "policies" / "policies.cedar").write_text(BROKEN)

    with pytest.raises(typer.Exit) as ended:
        opened(Path("policies"))

    assert ended.value.exit_code == 2
    assert capsys.readouterr().err == (
        "policies/policies.cedar:2:49 error[syntax]: `}` cannot stand here: "
        "look for a missing comma, bracket or operator before it\n"
        "agentguard: 1 mistake to mend first: see `agentguard check policies`\n"
    )


def test_mistake_in_one_servers_part_is_told_from_the_top(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Where the file stands, which may be common to several servers."""
    top = here / "all"
    records_folder(top / "servers" / "records", POLICIES)
    (top / "common").mkdir()
    (top / "common" / "a.cedar").write_text("permit (")

    with pytest.raises(typer.Exit):
        opened(Path("all/servers/records"))

    assert capsys.readouterr().err.startswith("all/common/a.cedar:1:8 error[syntax]: ")


def test_folder_that_is_none_is_a_mistake_of_its_own() -> None:
    """There is no file to tell of."""
    with pytest.raises(PolicyError, match=r"policy folder `.*nowhere` does not exist"):
        opened(Path("nowhere"))


def test_folder_without_a_schema_is_a_mistake_of_its_own(here: Path) -> None:
    """It says which command writes one."""
    (here / "policies" / "agentguard.cedarschema").unlink()

    with pytest.raises(ConfigurationError, match="agentguard schema"):
        opened(Path("policies"))


def test_mistake_that_is_about_no_place_is_told_whole(capsys: pytest.CaptureFixture[str]) -> None:
    """As it is worded."""
    tell(PolicyError(["a name cannot stand in it"]), Path("policies"))

    assert capsys.readouterr().err == "agentguard: a name cannot stand in it\n"


def test_schema_that_is_stale_is_told_with_the_fix(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And the folder is opened all the same."""
    types = here / "policies" / "types" / "records.cedarschema"
    types.write_text(f"{types.read_text()}entity Extra;\n")

    assert opened(Path("policies")).stale
    assert capsys.readouterr().err == (
        "agentguard: entity type `Extra` is not in agentguard.cedarschema: "
        "run `agentguard schema examples.records.server:described --write policies`\n"
    )
