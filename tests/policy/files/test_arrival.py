from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from agentguard.policy.files import folder as reading
from agentguard.policy.files.arrival import _TICK, place_of, way_to
from agentguard.policy.files.folder import read_snapshot
from tests.publishing import EVERYBODY, config_map, move, put, swap

FILES = {"a.cedar": EVERYBODY, "types/a.cedarschema": "entity A;"}


def came_whole(folder: Path) -> bool:
    """Return whether a folder looks as if it had come in one step."""
    snapshot = read_snapshot(folder)
    return snapshot.place.came_whole(snapshot.written_at)


def test_folder_that_is_written_where_it_stands_did_not_come_whole(tmp_path: Path) -> None:
    """Whether somebody writes on, nobody knows."""
    assert not came_whole(put(tmp_path / "policies", FILES))


def test_folder_that_was_moved_into_place_came_whole(tmp_path: Path) -> None:
    """And is another one than before, at the same path."""
    folder = put(tmp_path / "policies", FILES)
    before = place_of(folder)

    move(folder, FILES)

    assert came_whole(folder)
    assert not place_of(folder).is_at(before)


CHANGES: dict[str, Callable[[Path], object]] = {
    "changed": lambda folder: (folder / "a.cedar").write_text("// changed"),
    "added": lambda folder: (folder / "b.cedar").write_text("// added"),
    "removed": lambda folder: (folder / "a.cedar").unlink(),
    "added below": lambda folder: (folder / "types" / "b.cedarschema").write_text("entity B;"),
    "renamed": lambda folder: (folder / "c").rename(folder / "b.cedar"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_folder_that_was_changed_after_it_was_moved_did_not(change: Callable[[Path], object], tmp_path: Path) -> None:
    """Whoever moves it and goes on writing is not done."""
    folder = put(tmp_path / "policies", {**FILES, "c": ""})
    move(folder, {**FILES, "c": ""})
    moved = folder.stat().st_ctime_ns
    # However coarse the system's clock is.
    while _now(tmp_path) <= moved:
        pass

    change(folder)

    assert not came_whole(folder)


def _now(folder: Path) -> int:
    (folder / "now").touch()
    return (folder / "now").stat().st_ctime_ns


def test_times_that_were_set_do_not_hide_when_something_was_written(tmp_path: Path) -> None:
    """In neither direction: an archive of a clock that is ahead came whole as well."""
    folder = put(tmp_path / "policies", FILES)
    put(tmp_path / "new", FILES)
    os.utime(tmp_path / "new" / "a.cedar", (4_000_000_000, 4_000_000_000))
    os.utime(tmp_path / "new", (1, 1))
    folder.rename(tmp_path / "old")
    (tmp_path / "new").rename(folder)

    assert came_whole(folder)

    _tick()
    (folder / "a.cedar").write_text("// half of what is copied here with its times")
    os.utime(folder / "a.cedar", (1, 1))
    assert not came_whole(folder)


def test_config_map_whose_files_are_given_away_in_their_place_came_whole(tmp_path: Path) -> None:
    """Kubernetes does so after the swap, and copies no times."""
    folder = tmp_path / "policies"
    config_map(folder, FILES, name="1")
    _tick()

    (folder / "..1" / "a.cedar").chmod(0o640)

    assert came_whole(folder)


@pytest.mark.parametrize("touch", [lambda folder: folder.chmod(0o750), lambda folder: os.utime(folder, (1, 1))])
def test_mode_or_times_of_a_folder_do_not_make_it_moved(touch: Callable[[Path], object], tmp_path: Path) -> None:
    """Both are set while it is filled: by `rsync -a` at once, by whoever sets its mode whenever they like."""
    folder = put(tmp_path / "policies", {"a.cedar": EVERYBODY})
    os.utime(folder / "a.cedar", (1, 1))
    _tick()

    touch(folder)

    assert not came_whole(folder)


def test_link_that_is_given_away_is_not_a_link_that_was_swapped(tmp_path: Path) -> None:
    """`chown -hR` may come in the middle of writing what it leads to."""
    (tmp_path / "current").symlink_to("1")
    _tick()
    folder = put(tmp_path / "1", FILES).parent / "current"
    os.utime(tmp_path / "1", (1, 1))
    os.utime(tmp_path, (1, 1))
    os.utime(folder, (1, 1), follow_symlinks=False)

    assert not came_whole(folder)


def test_folder_that_was_moved_away_and_back_while_it_was_read_was_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was read in between may be another one's."""
    folder = put(tmp_path / "policies", FILES)
    content = reading._content

    def content_of_another(root: Path, name: str) -> tuple[str, os.stat_result]:
        _tick()
        folder.rename(tmp_path / "away")
        try:
            return content(tmp_path / "away", name)
        finally:
            (tmp_path / "away").rename(folder)

    monkeypatch.setattr(reading, "_content", content_of_another)

    assert read_snapshot(folder).moved


def _tick() -> None:
    """Wait until a move is told from what was written before, however coarse the system's clock is."""
    until = time.monotonic_ns() + 2 * _TICK
    while time.monotonic_ns() <= until:
        pass


def test_link_that_was_swapped_brings_a_whole_folder(tmp_path: Path) -> None:
    """The link itself, or one on the way."""
    swap(tmp_path / "current", {f"policies/{name}": text for name, text in FILES.items()}, name="1")
    folder = tmp_path / "current" / "policies"
    first = place_of(folder)
    assert came_whole(folder)

    swap(tmp_path / "current", {f"policies/{name}": text for name, text in FILES.items()}, name="2")

    assert came_whole(folder)
    assert not place_of(folder).is_at(first)
    assert place_of(folder).root == tmp_path / "releases" / "2" / "policies"


def test_config_map_is_where_its_own_link_leads(tmp_path: Path) -> None:
    """That is what is swapped, and the folder around it stays."""
    folder = tmp_path / "policies"
    config_map(folder, FILES, name="1")
    first = place_of(folder)
    config_map(folder, FILES, name="2")

    assert came_whole(folder)
    assert place_of(folder).root == folder / "..2"
    assert place_of(folder).outer == folder
    assert not place_of(folder).is_at(first)


def test_way_to_a_folder_has_every_name_that_somebody_could_replace(tmp_path: Path) -> None:
    """Links, what they lead by, and the link that a ConfigMap may have."""
    put(tmp_path / "real" / "policies", FILES)
    (tmp_path / "there").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "up").symlink_to("../there/policies")

    way = way_to(tmp_path / "real" / ".." / "real" / "up")

    real = tmp_path / "real"
    assert {tmp_path, real, real / "up", tmp_path / "there", real / "policies", real / "policies" / "..data"} <= set(
        way
    )
    assert way_to(tmp_path / "absent" / "below")[-1] == tmp_path / "absent"


def test_links_without_end_lead_nowhere(tmp_path: Path) -> None:
    """As the system itself has it."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")

    with pytest.raises(OSError, match="Too many levels"):
        place_of(tmp_path / "a")


def test_file_is_no_place_of_a_folder(tmp_path: Path) -> None:
    """Nor is a link to one."""
    (tmp_path / "file").write_text("")
    with pytest.raises(NotADirectoryError):
        place_of(tmp_path / "file")
