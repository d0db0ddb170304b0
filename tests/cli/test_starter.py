"""The policies that `agentguard dev` begins with."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from agentguard import ConfigurationError
from agentguard.cli.starter import NAME, STARTER, write_new, write_starter
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.schemas.schema import METHODS, GuardedTool, method_tool

GROUPS = {
    "reads": ("read-only",),
    "reads_of_the_world": ("read-only", "open-world"),
    "adds": (),
    "adds_again": ("idempotent",),
    "deletes": ("destructive", "open-world"),
}


def tool(name: str) -> GuardedTool:
    """Return a tool of one of the kinds that annotations make."""
    shape = record_of({"record_id": Field(str)}, where=name)
    return GuardedTool(name=name, server="any", input=shape, groups=frozenset(("tools/call", *GROUPS[name])))


@pytest.mark.parametrize("names", [(), *((name,) for name in GROUPS), tuple(GROUPS)])
def test_starter_is_valid_for_any_server(tmp_path: Path, names: tuple[str, ...]) -> None:
    """One without tools, one with tools of a single kind, one with all of them."""
    write_starter(tmp_path / "policies")
    tools = [*map(tool, names), *(method_tool(method, "any") for method in METHODS)]

    source = read_folder(tmp_path / "policies", Limits())
    policies = compile_policies(source, tools, loaders=frozenset(), claims={}, limits=Limits())

    assert set(policies.policies) == {"starter-read-only", "starter-approved", "starter-ask-a-person"}
    assert policies.policies["starter-ask-a-person"].approval


def test_starter_says_what_to_change(tmp_path: Path) -> None:
    """What its comment proposes is valid where the server has such a tool."""
    assert 'add it to both lists: Action::"add_note", for example' in STARTER
    assert STARTER.count('Action::"prompts/get"]') == 2
    (tmp_path / NAME).write_text(STARTER.replace('Action::"prompts/get"]', 'Action::"prompts/get", Action::"adds"]'))
    tools = [tool("adds"), *(method_tool(method, "any") for method in METHODS)]

    source = read_folder(tmp_path, Limits())

    assert compile_policies(source, tools, loaders=frozenset(), claims={}, limits=Limits()).policies


def test_starter_is_written_once(tmp_path: Path) -> None:
    """A folder that has policies is left as it is, and so is what was written before."""
    folder = tmp_path / "a" / "policies"

    assert write_starter(folder) == folder / NAME
    (folder / NAME).write_text("mine")
    assert write_starter(folder) is None
    assert (folder / NAME).read_text() == "mine"


def test_starter_is_written_beside_what_is_no_policy(tmp_path: Path) -> None:
    """A folder of types alone has no policies yet."""
    (tmp_path / "types").mkdir()

    assert write_starter(tmp_path) == tmp_path / NAME


def test_half_of_it_is_not_left_on_a_full_disk(tmp_path: Path) -> None:
    """It would pass for policies of somebody's own, and never be written again."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(ConfigurationError, match="cannot be written to"):
            write_starter(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert list(tmp_path.iterdir()) == []


def test_folder_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    """In one line with the fix."""
    (tmp_path / "policies").write_text("a file")

    with pytest.raises(ConfigurationError, match=r"`.*/policies` cannot be written to: .*: name a folder, not a file"):
        write_starter(tmp_path / "policies")


def test_folders_that_were_made_on_the_way_are_not_left(tmp_path: Path) -> None:
    """Whoever begins again would be told that something is there; what was there before stays."""
    (tmp_path / "mine").write_text("mine")

    with pytest.raises(ConfigurationError, match="cannot be written to"):
        write_new(tmp_path, {"a/b/first": "1", "a/second": "2", "mine": "3"})
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]

    (tmp_path / "a").mkdir()
    with pytest.raises(ConfigurationError, match="cannot be written to"):
        write_new(tmp_path, {"a/b/first": "1", "mine": "3"})
    assert [path.name for path in (tmp_path / "a").rglob("*")] == []
    write_new(tmp_path, {"a/b/first": "1"})
    assert (tmp_path / "a/b/first").read_text() == "1"
