import errno
import os
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError
from agentguard.host import private
from agentguard.host.private import private_bytes, private_folder, replace


def test_a_folder_is_made_for_us_alone(tmp_path: Path) -> None:
    """With those above it that are missing, and nothing is left in it."""
    folder = tmp_path / "a" / "b"

    private_folder(folder)
    private_folder(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert list(folder.iterdir()) == []


def test_a_folder_that_others_can_write_to_is_refused(tmp_path: Path) -> None:
    """They could put another history in its place."""
    tmp_path.chmod(0o770)

    with pytest.raises(ConfigurationError) as caught:
        private_folder(tmp_path)

    assert str(caught.value) == (
        f"`{tmp_path}` wants a folder that nobody else can write to, got mode 770: chmod 700, or name a folder below it"
    )


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who owns it can always get in."""
    tmp_path.chmod(0o700)
    os.chown(tmp_path, 4711, -1) if os.geteuid() == 0 else monkeypatch.setattr(os, "geteuid", lambda: 4711)

    with pytest.raises(ConfigurationError, match="wants a folder that is ours, got one of user"):
        private_folder(tmp_path)


def test_a_file_in_a_folders_place_is_refused(tmp_path: Path) -> None:
    """With the fix."""
    (tmp_path / "state").write_text("")

    with pytest.raises(ConfigurationError, match="state` cannot be written to: File exists: name a folder, not a file"):
        private_folder(tmp_path / "state")
    with pytest.raises(ConfigurationError, match="Not a directory: name a folder, not a file"):
        private_folder(tmp_path / "state" / "below")


@pytest.mark.parametrize(
    ("number", "fix"),
    [
        (errno.EROFS, "Read-only file system: mount a volume that can be written, and name a folder on it"),
        (errno.ENOSPC, "No space left on device: make room, or name a folder on another disk"),
        (errno.EACCES, "Permission denied: name a folder that this process may write to"),
    ],
)
def test_a_folder_that_cannot_be_written_to_is_refused_with_the_fix(
    number: int, fix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by trying: modes say nothing of a mount or a disk."""

    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(ConfigurationError) as caught:
        private_folder(tmp_path)
    monkeypatch.undo()

    assert str(caught.value) == f"`{tmp_path}` cannot be written to: {fix}"


def test_a_disk_that_fills_up_in_the_try_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither an open file nor one in the folder."""
    tmp_path.chmod(0o700)

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(ConfigurationError, match="make room"):
        private_folder(tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_secret_is_made_once(tmp_path: Path) -> None:
    """Whoever comes second reads what the first made."""
    path = tmp_path / "key"

    def make() -> bytes:
        # Another process is faster.
        assert private_bytes(path, lambda: b"first") == b"first"
        return b"second"

    assert private_bytes(path, make) == b"first"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_a_secret_that_is_not_ours_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither by its owner, nor its mode, nor through a link."""
    path = tmp_path / "key"
    private_bytes(path, lambda: b"x")
    (tmp_path / "link").symlink_to(path)
    with pytest.raises(ConfigurationError, match="link` cannot be read or made: Too many levels of symbolic links"):
        private_bytes(tmp_path / "link", lambda: b"x")
    path.chmod(0o644)
    with pytest.raises(ConfigurationError, match="nobody else can open, got mode 644"):
        private_bytes(path, lambda: b"x")
    ours = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: ours + 1)
    with pytest.raises(ConfigurationError, match="wants a file that is ours, got one of user"):
        private_bytes(path, lambda: b"x")


def test_a_replaced_file_is_the_old_or_the_new_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that fills up leaves the old one."""
    path = tmp_path / "head"
    replace(path, b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "no room")

    monkeypatch.setattr(private, "write_whole", full)
    with pytest.raises(OSError, match="no room"):
        replace(path, b"new")

    assert path.read_bytes() == b"old"
