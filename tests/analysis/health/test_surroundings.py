import os
from pathlib import Path

import pytest

from agentguard.analysis.health import surroundings as module
from agentguard.analysis.health.surroundings import MOUNTS, mount_of, writable

TABLE = r"""21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
22 21 0:5 / /run/memory rw,nosuid - tmpfs tmpfs rw
23 21 0:44 / /run/container rw - overlay overlay rw,lowerdir=/a
24 21 8:1 /var/lib/kubelet/pods/7/volumes/kubernetes.io~empty-dir/state /srv/state rw - ext4 /dev/sda1 rw
25 21 8:2 / /srv/my\040state rw master:1 propagate_from:2 - xfs /dev/sdb rw
26 25 0:50 / /srv/my\040state rw - ramfs none rw
27 21 8:3 / /srv/lasting rw - ext4 /dev/sdc rw
not a line of the table
28 21 8:3 / /x rw but it has no separator at all here
"""


@pytest.mark.parametrize(
    ("path", "type_", "passing"),
    [
        ("/var/lib/state", "ext4", ""),
        ("/srv/lasting/state", "ext4", ""),
        ("/srv/lasting-not", "ext4", ""),
        ("/run/memory/state", "tmpfs", "tmpfs, which is memory"),
        ("/run/container/state", "overlay", "overlay, the container's own layer"),
        ("/srv/state/evidence", "ext4", "an emptyDir, which is deleted with the pod"),
        ("/srv/my state", "ramfs", "ramfs, which is memory"),
    ],
)
def test_what_a_folder_lies_on_is_read_from_the_table(path: str, type_: str, passing: str) -> None:
    """The nearest mount above it, the later one of two, and names with blanks in them."""
    mount = mount_of(Path(path), TABLE)

    assert mount is not None
    assert mount.type == type_
    assert mount.passing.startswith(passing)
    assert bool(mount.passing) is bool(passing)


def test_table_that_tells_nothing_is_no_answer() -> None:
    """There is none on another system."""
    assert mount_of(Path("/srv"), "") is None


@pytest.mark.skipif(not MOUNTS.exists(), reason="only Linux tells what is mounted")
def test_this_host_tells_what_it_has_mounted() -> None:
    """The table is read as it is, and not only as it is made up here."""
    mount = mount_of(Path("/proc/self"), MOUNTS.read_text())

    assert mount is not None
    assert mount.type == "proc"


USER, GROUP, OTHER = 40_001, 40_002, 40_003


@pytest.fixture
def policies(tmp_path: Path) -> Path:
    """Return a policy folder that only root can write to."""
    folder = tmp_path / "policies"
    (folder / "types").mkdir(parents=True)
    (folder / "a.cedar").write_text("")
    (folder / "types" / "a.cedarschema").write_text("")
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.chown(path, 0, 0)
    return folder


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def found(folder: Path, user: int = USER, *groups: int) -> list[Path]:
    """Return what a user can change of a folder."""
    return list(writable(folder, user=user, groups=groups))


@needs_root
def test_folder_that_belongs_to_another_is_safe(policies: Path) -> None:
    """Read, and nothing more."""
    assert found(policies) == []


@needs_root
def test_root_can_write_everywhere(policies: Path) -> None:
    """Whatever the mode says."""
    assert found(policies, 0)[0] == policies


@needs_root
def test_owner_can_give_themselves_the_right(policies: Path) -> None:
    """A file that is read-only for its owner is so until they change that."""
    file = policies / "a.cedar"
    file.chmod(0o444)
    os.chown(file, USER, 0)

    assert found(policies) == [file]


@needs_root
def test_group_and_others_count_as_the_mode_says(policies: Path) -> None:
    """Who is in the group is not one of the others."""
    file = policies / "types" / "a.cedarschema"
    os.chown(file, 0, GROUP)
    file.chmod(0o664)
    assert found(policies) == []
    assert found(policies, USER, GROUP) == [file]

    file.chmod(0o646)
    assert found(policies) == [file]
    assert found(policies, USER, GROUP) == []


@needs_root
def test_folder_in_which_files_can_be_exchanged_is_writable(policies: Path) -> None:
    """Also one far above: who can rename a folder can put another in its place."""
    policies.parent.chmod(0o777)

    assert found(policies) == [policies.parent]


@needs_root
def test_sticky_folder_above_is_safe(policies: Path) -> None:
    """In a folder such as /tmp only the owner of an entry can exchange it."""
    policies.parent.chmod(0o1777)
    assert found(policies) == []

    os.chown(policies, USER, 0)
    assert found(policies) == [policies, policies.parent]


@needs_root
def test_link_is_judged_by_the_folder_that_it_is_in(policies: Path, tmp_path: Path) -> None:
    """What it leads to is found where it lies, if that is within."""
    other = tmp_path / "other.cedar"
    other.write_text("")
    other.chmod(0o666)
    (policies / "b.cedar").symlink_to(other)

    assert found(policies) == []


@needs_root
def test_folder_that_a_link_leads_to_is_exchanged_with_the_link(policies: Path, tmp_path: Path) -> None:
    """Whoever can replace a link on the way leads the server elsewhere, however safe the policies are themselves."""
    theirs, ours = tmp_path / "theirs", tmp_path / "ours"
    theirs.mkdir()
    ours.mkdir()
    (theirs / "current").symlink_to(policies)
    (ours / "live").symlink_to(Path("..") / "theirs" / "current")
    assert found(ours / "live") == []

    os.chown(theirs, USER, 0)
    assert found(ours / "live") == [theirs]
    assert found(policies) == []

    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert set(module._links(loop)) == {loop}


@needs_root
def test_file_system_that_is_read_only_is_safe(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a ConfigMap is mounted; and a file that is gone meanwhile is no way in."""
    policies.chmod(0o777)
    assert found(policies) == [policies]

    class ReadOnly:
        f_flag = os.ST_RDONLY

    monkeypatch.setattr(os, "statvfs", lambda _: ReadOnly)
    assert found(policies) == []

    def gone(path: Path) -> None:
        raise FileNotFoundError(path)

    monkeypatch.setattr(os, "statvfs", gone)
    assert found(policies) == []
