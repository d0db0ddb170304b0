"""Noticing that a policy folder may have changed, whatever of the way to it is replaced."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agentguard.live import watching
from agentguard.live.watching import Watch, Watched, watched_for
from tests.publishing import EVERYBODY, config_map, put, swap

FILES = {"a.cedar": EVERYBODY, "types/a.cedarschema": "entity A;"}
# Longer than any of these tests takes: what is noticed was told by the system.
NEVER = 3_600.0


@contextmanager
def watching_over(*folders: Path, pause: float = NEVER) -> Iterator[threading.Semaphore]:
    """Give what is released each time that something may have changed; it was once, at the beginning."""
    told = threading.Semaphore(0)
    watch = Watch(folders, told.release, pause=pause)
    watch.start()
    try:
        assert told.acquire(timeout=10)
        yield told
    finally:
        watch.stop()


def settle(told: threading.Semaphore) -> None:
    """Wait until nothing more is told of what was done."""
    while told.acquire(timeout=0.15):
        pass


def test_files_links_and_folders_on_the_way_are_noticed(tmp_path: Path) -> None:
    """One after the other: what is put in the place of something is watched in turn, where a link leads too."""
    swap(tmp_path / "current", FILES, name="1")
    folder = tmp_path / "current"

    with watching_over(folder) as told:
        swap(folder, FILES, name="2")
        assert told.acquire(timeout=10)
        for name in ("b.cedar", "types/b.cedarschema"):
            settle(told)
            (folder / name).write_text("")
            assert told.acquire(timeout=10)


def test_folder_that_is_moved_away_and_back_is_noticed(tmp_path: Path) -> None:
    """As soon as there is one again."""
    folder = put(tmp_path / "policies", FILES)

    with watching_over(folder) as told:
        folder.rename(tmp_path / "away")
        assert told.acquire(timeout=10)
        (tmp_path / "away").rename(folder)
        assert told.acquire(timeout=10)


def test_config_map_is_noticed(tmp_path: Path) -> None:
    """Its own link has a name that begins with a dot."""
    folder = tmp_path / "policies"
    config_map(folder, FILES, name="1")

    with watching_over(folder) as told:
        config_map(folder, FILES, name="2")
        assert told.acquire(timeout=10)


def test_neighbours_are_nobodys_news(tmp_path: Path) -> None:
    """A busy folder above would have the policies read all the time."""
    folder = put(tmp_path / "policies", FILES)
    watched = watched_for([folder])

    assert watched.matters(folder)
    assert watched.matters(folder / "b.cedar")
    assert watched.matters(folder / "types" / "b.cedarschema")
    assert watched.matters(folder / "..data")
    assert not watched.matters(tmp_path / "log")
    assert not watched.matters(tmp_path.parent / "other")
    assert not watched.matters(tmp_path / "policies.new" / "a.cedar")
    with watching_over(folder) as told:
        (tmp_path / "log").write_text("busy")
        (folder / "b.cedar").write_text("")
        assert told.acquire(timeout=10)


def test_what_is_not_there_yet_is_watched_from_above(tmp_path: Path) -> None:
    """And folders with a dot are nobody's policies."""
    folder = tmp_path / "absent" / "policies"
    assert tmp_path in {place for place, _, _ in watched_for([folder]).holding}
    assert watched_for([folder]).inner == frozenset()
    (tmp_path / "file").write_text("")
    assert watched_for([tmp_path / "file" / "below"]).inner == frozenset()
    put(folder, {**FILES, ".git/a": ""})

    assert watched_for([folder]).inner == {folder, folder / "types"}


def test_folder_that_the_system_tells_nothing_of_is_looked_at_all_the_same(tmp_path: Path) -> None:
    """As most network file systems are."""
    with watching_over(put(tmp_path, FILES), pause=0.01) as told:
        for _ in range(3):
            assert told.acquire(timeout=10)


def test_pause_below_a_millisecond_is_no_pause_for_ever(tmp_path: Path) -> None:
    """To whom the wait is left, none at all means that there is no end of it."""
    looked = threading.Semaphore(0)
    watch = Watch([tmp_path], looked.release, pause=0.0005)
    watch.start()
    try:
        assert all(looked.acquire(timeout=5) for _ in range(3))
    finally:
        watch.stop()


@pytest.mark.parametrize("failing", [OSError, RuntimeError, BaseException])
def test_system_that_lets_nobody_watch_is_told_once_and_looked_at(
    failing: type[BaseException], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It may have no watches left."""

    def fails(_: Watched) -> None:
        message = "no space left on device"
        raise failing(message)

    monkeypatch.setattr(watching, "_notify", fails)
    with watching_over(put(tmp_path, FILES), pause=0.01) as told:
        for _ in range(3):
            assert told.acquire(timeout=10)

    assert caplog.text.count("changes of the policy folder are looked for every 0.01 s: no space left on device") == 1


def test_watch_that_was_not_started_is_not_waited_for(tmp_path: Path) -> None:
    """Nothing runs."""
    Watch([tmp_path], lambda: None, pause=NEVER).stop()


@pytest.mark.parametrize(("name", "pause", "rings"), [("log", NEVER, 0), ("policies", NEVER, 1), ("log", 0.0, 1)])
def test_news_of_a_neighbour_alone_has_nobody_look_before_it_is_time(
    name: str, pause: float, rings: int, tmp_path: Path
) -> None:
    """It stands in the same folder above. One that never rests leaves no moment without news, and is not waited for."""
    told: list[str] = []
    folder = put(tmp_path / "policies", FILES)
    watch = Watch([folder], lambda: told.append("changed"), pause=pause)
    notify: Any = SimpleNamespace(watch=lambda *_: {(1, str(tmp_path / name))})

    assert watch._again(notify, watched_for([folder]))
    assert len(told) == rings
