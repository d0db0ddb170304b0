"""A policy folder that is a Kubernetes ConfigMap.

Each file is there twice: as a link, and in the folder that the link leads to, whose name
begins with a dot. Read twice, every `@id` would be taken.
"""

from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files.folder import read_files
from agentguard.policy.files.source import read_folder
from tests.policy.records import LIMITS

POLICY = '@id("a") permit (principal, action, resource);'


def config_map(root: Path) -> Path:
    """Return a folder as Kubernetes mounts it."""
    data = root / "..2026_11_24_10_00_00.1"
    (data / "types").mkdir(parents=True)
    (data / "a.cedar").write_text(POLICY)
    (data / "types" / "a.cedarschema").write_text("entity Extra;")
    (root / "..data").symlink_to(data.name)
    (root / "a.cedar").symlink_to("..data/a.cedar")
    (root / "types").symlink_to("..data/types")
    return root


def test_the_folder_holds_each_file_twice(tmp_path: Path) -> None:
    """The trap: a walk that follows links and names finds two, or three."""
    root = config_map(tmp_path)

    assert len([path for path in root.rglob("a.cedar") if path.is_file()]) > 1


def test_each_file_is_read_once(tmp_path: Path) -> None:
    """Links that stay inside are followed, names that begin with a dot are not listed."""
    root = config_map(tmp_path)

    assert read_files(root) == {"a.cedar": POLICY, "types/a.cedarschema": "entity Extra;"}
    assert [policy.id for policy in read_folder(root, LIMITS).policies] == ["a"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    """That is how one replaces it in one piece."""
    (tmp_path / "real").mkdir()
    config_map(tmp_path / "real")
    (tmp_path / "current").symlink_to("real")

    assert set(read_files(tmp_path / "current")) == {"a.cedar", "types/a.cedarschema"}


def test_file_beside_the_data_folder_is_refused(tmp_path: Path) -> None:
    """Nothing replaces it together with the others, so it would be new policies in old company."""
    root = config_map(tmp_path / "mounted")
    (root / "b.cedar").write_text(POLICY.replace('"a"', '"b"'))

    with pytest.raises(PolicyError, match=r"b\.cedar: stands beside `\.\.data`, which alone is read"):
        read_files(root)


def test_links_that_are_not_there_yet_or_still_there_make_no_difference(tmp_path: Path) -> None:
    """The system swaps `..data` first; the links that people see follow, and go, a moment later."""
    root = config_map(tmp_path / "mounted")
    data = root / "..2026_11_24_10_05_00.2"
    data.mkdir()
    (data / "b.cedar").write_text(POLICY)
    (root / "..data_tmp").symlink_to(data.name)
    (root / "..data_tmp").replace(root / "..data")

    assert read_files(root) == {"b.cedar": POLICY}
