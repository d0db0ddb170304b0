"""A policy folder that is a Kubernetes ConfigMap.

Each file is there twice: as a link, and in the folder that the link leads to, whose name
begins with a dot. Read twice, every `@id` would be taken.
"""

from pathlib import Path

from agentguard.policy.folder import read_files
from agentguard.policy.source import read_folder
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
