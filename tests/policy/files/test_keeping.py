from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files import folder as reading
from agentguard.policy.files.keeping import FixedFolder, Look, PolicyFolder, Refused
from agentguard.policy.files.source import read_folder
from tests.policy.records import LIMITS
from tests.publishing import EVERYBODY, config_map, lock, move, put, swap

ONE = {"a.cedar": EVERYBODY}
TWO = {"a.cedar": EVERYBODY, "b.cedar": '@id("b") forbid (principal, action, resource);'}
SEVERAL = {f"servers/records/{name}": text for name, text in ONE.items()}
COMMON = {**SEVERAL, "common/b.cedar": '@id("b") forbid (principal, action, resource);'}


def began(folder: Path, server: str | None = None) -> PolicyFolder:
    """Return a folder as a guard starts with it."""
    there = PolicyFolder(folder, LIMITS)
    there.source_for(server)
    return there


def ids(look: Look) -> list[str]:
    """Return the policies that may be taken."""
    assert look.source is not None
    return [policy.id for policy in look.source.policies]


def test_guard_starts_with_what_is_there(tmp_path: Path) -> None:
    """Nobody knows whether it arrived, and there is nothing else."""
    folder = put(tmp_path / "policies", ONE)

    look = began(folder).look()

    assert (ids(look), look.is_new, look.refused) == (["all"], False, None)


def test_what_is_changed_in_place_is_not_taken(tmp_path: Path) -> None:
    """Not even when nothing more is to come: nobody can tell."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)

    put(folder, TWO)
    look = there.look()

    assert (look.refused, look.source) == (Refused.INCOMPLETE, None)
    assert "was changed where it stands" in look.problems[0]
    assert f"run `agentguard lock {folder}` when all of it is there" in look.problems[0]


def test_what_is_changed_in_place_and_back_is_what_is_in_force(tmp_path: Path) -> None:
    """It is confirmed as such."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    put(folder, {"a.cedar": "// gone"})
    assert there.look().refused is Refused.INCOMPLETE

    put(folder, ONE)

    assert (there.look().refused, there.look().is_new) == (None, False)


def test_manifest_that_fits_makes_a_change_whole(tmp_path: Path) -> None:
    """Written last, whatever came before it."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    put(folder, TWO)
    lock(folder)

    look = there.look()
    assert (ids(look), look.is_new) == (["all", "b"], True)
    there.took(look)

    assert not there.look().is_new
    put(folder, {"b.cedar": "// changed"})
    assert there.look().refused is Refused.INCOMPLETE
    (folder / "agentguard.lock").unlink()
    assert there.look().refused is Refused.INCOMPLETE


def test_manifest_that_does_not_fit_stops_a_start_and_says_the_fix(tmp_path: Path) -> None:
    """What a person locked is not what is there."""
    folder = put(tmp_path / "policies", ONE)
    lock(folder)
    put(folder, TWO)

    with pytest.raises(PolicyError) as caught:
        PolicyFolder(folder, LIMITS)

    assert str(caught.value) == (
        f"{folder}/agentguard.lock does not match: `b.cedar` is not in it: "
        f"run `agentguard lock {folder}` when all of it is there"
    )


def test_replaced_folder_is_taken_without_a_manifest(tmp_path: Path) -> None:
    """Another folder in its place, another link, another version of a ConfigMap."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    move(folder, TWO)
    assert ids(there.look()) == ["all", "b"]

    swap(tmp_path / "current", ONE, name="1")
    there = began(tmp_path / "current")
    swap(tmp_path / "current", TWO, name="2")
    assert ids(there.look()) == ["all", "b"]

    config_map(tmp_path / "mounted", ONE, name="1")
    there = began(tmp_path / "mounted")
    config_map(tmp_path / "mounted", TWO, name="2")
    assert ids(there.look()) == ["all", "b"]


def test_folder_that_is_written_anew_where_the_old_one_was_is_not_taken(tmp_path: Path) -> None:
    """It is another folder, and may be half of one."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    folder.rename(tmp_path / "old")
    put(folder, TWO)

    look = there.look()

    assert look.refused is Refused.INCOMPLETE
    assert "was written where it stands" in look.problems[0]


@pytest.mark.parametrize("first", [{}, ONE, TWO], ids=["nothing", "a part", "all"])
def test_folder_that_is_written_anew_does_not_look_moved_by_other_times(first: dict[str, str], tmp_path: Path) -> None:
    """It was seen before that, and something is still to come."""
    folder = put(tmp_path / "policies", {"a.cedar": f"// old\n{EVERYBODY}"})
    there = began(folder)
    folder.rename(tmp_path / "away")
    folder.mkdir()
    put(folder, first)
    assert there.look().refused is not None

    put(folder, TWO if first == TWO else ONE)
    os.utime(folder, (1, 1))
    (tmp_path / "log").touch()

    assert there.look().refused is Refused.INCOMPLETE


def test_replaced_folder_that_could_not_be_read_at_first_is_taken_as_soon_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kubernetes gives the files away when they are in their place."""
    config_map(tmp_path / "policies", ONE, name="1")
    there = began(tmp_path / "policies")
    config_map(tmp_path / "policies", TWO, name="2")
    content = reading._content

    def closed(root: Path, name: str) -> tuple[str, os.stat_result]:
        if name == "b.cedar":
            raise PermissionError
        return content(root, name)

    monkeypatch.setattr(reading, "_content", closed)
    assert there.look().refused is Refused.UNREADABLE
    monkeypatch.undo()

    assert ids(there.look()) == ["all", "b"]


def test_replaced_folder_that_is_changed_afterwards_is_not_taken(tmp_path: Path) -> None:
    """What was seen there first is what arrived, whatever the times say."""
    swap(tmp_path / "current", ONE, name="1")
    there = began(tmp_path / "current")
    swap(tmp_path / "current", {"a.cedar": "permit"}, name="2")
    assert there.look().refused is Refused.INVALID

    put(tmp_path / "releases" / "2", TWO)
    swap_back = tmp_path / "back"
    swap_back.symlink_to("releases/2")
    swap_back.replace(tmp_path / "current")

    assert there.look().refused is Refused.INCOMPLETE


def test_the_same_content_in_another_place_is_in_force_there(tmp_path: Path) -> None:
    """And what is then changed in that place is changed in place."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    move(folder, ONE)
    look = there.look()
    assert not look.is_new
    there.took(look)

    put(folder, TWO)

    assert there.look().refused is Refused.INCOMPLETE


def test_replaced_folder_whose_manifest_does_not_fit_is_not_taken(tmp_path: Path) -> None:
    """Whoever writes one means it."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    lock(put(tmp_path / "policies.new", ONE))

    move(folder, TWO)

    assert there.look().refused is Refused.INCOMPLETE


@pytest.mark.parametrize("what", ["gone", "a file", "not text", "nothing"])
def test_what_cannot_be_read_is_not_taken(what: str, tmp_path: Path) -> None:
    """Whatever stands in its place."""
    folder = put(tmp_path / "policies", ONE)
    there = began(folder)
    folder.rename(tmp_path / "old")
    if what == "a file":
        folder.write_text("")
    elif what != "gone":
        folder.mkdir()
    if what == "not text":
        (folder / "a.cedar").write_bytes(b"\xff")

    look = there.look()

    assert (look.refused, look.source) == (Refused.UNREADABLE, None)
    there.took(look)
    (tmp_path / "old").rename(tmp_path / "again")


def test_folder_that_is_replaced_all_the_time_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of what was read would be of one, half of another."""
    swap(tmp_path / "current", ONE, name="0")
    there = began(tmp_path / "current")
    reads = iter(range(1, 100))

    def meanwhile(root: Path) -> Iterator[str]:
        swap(tmp_path / "current", TWO, name=str(next(reads)))
        return names(root)

    names = reading._names
    monkeypatch.setattr(reading, "_names", meanwhile)

    assert there.look().problems == (
        f"policy folder `{tmp_path / 'current'}` was replaced 3 times while it was read: let it rest",
    )


def test_folder_for_several_servers_is_kept_for_one(tmp_path: Path) -> None:
    """What changes for another one is no news, and the manifest is for all."""
    folder = put(tmp_path / "policies", SEVERAL)
    there = began(folder, "records")
    put(folder, {"servers/files/a.cedar": EVERYBODY})
    assert (there.look().refused, there.look().is_new) == (None, False)

    put(folder, {"common/a.cedar": '@id("c") forbid (principal, action, resource);'})
    assert there.look().refused is Refused.INCOMPLETE
    lock(folder)

    assert ids(there.look()) == ["c", "all"]


@pytest.mark.parametrize("locked", [True, False])
def test_part_whose_common_policies_are_taken_away_is_not_taken_alone(tmp_path: Path, *, locked: bool) -> None:
    """Alone it would look like a folder for one server that came whole, and lack every common forbid."""
    swap(tmp_path / "current", COMMON, name="1")
    if locked:
        lock(tmp_path / "current")
    there = began(tmp_path / "current" / "servers" / "records", "records")

    (tmp_path / "releases" / "1" / "common").rename(tmp_path / "away")

    assert (there.look().refused, there.look().is_new) == (Refused.INCOMPLETE, False)
    if locked:
        with pytest.raises(PolicyError, match=r"`common/b\.cedar` is not there"):
            began(tmp_path / "current" / "servers" / "records", "records")


@pytest.mark.parametrize("part", ["", "servers/records"])
@pytest.mark.parametrize("files", [SEVERAL, ONE], ids=["servers", "one server"])
def test_folder_that_comes_whole_without_what_was_common_is_not_taken(
    files: dict[str, str], part: str, tmp_path: Path
) -> None:
    """Whoever copied the one half of it swaps that in too; who means it starts the server again."""
    swap(tmp_path / "current", COMMON, name="1")
    there = began(tmp_path / "current" / part, "records")

    swap(tmp_path / "current", files, name="2")
    swapped = there.look()
    lock(tmp_path / "current")
    locked = there.look()

    assert {swapped.refused, locked.refused} <= {Refused.INCOMPLETE, Refused.UNREADABLE}
    swap(tmp_path / "current", {**COMMON, "common/b.cedar": "// none"}, name="3")
    assert ids(there.look()) == ["all"]


def test_policies_at_the_top_are_not_those_of_a_part(tmp_path: Path) -> None:
    """Whoever was given a part is not judged by what nobody gave it."""
    swap(tmp_path / "current", SEVERAL, name="1")
    lock(tmp_path / "current")
    there = began(tmp_path / "current" / "servers" / "records", "records")

    swap(tmp_path / "current", TWO, name="2")

    assert there.look().refused is Refused.UNREADABLE
    assert "has no servers/records for server `records`" in there.look().problems[0]


def test_what_is_common_is_checked_before_the_server_is_known(tmp_path: Path) -> None:
    """A slip in it stops the start, and what another server has does not."""
    folder = put(tmp_path / "policies", {**SEVERAL, "servers/files/broken.cedar": "permit"})
    assert began(folder, "records").look().refused is None
    put(folder, {"common/a.cedar": "permit"})

    with pytest.raises(PolicyError, match=r"common/a\.cedar:1: "):
        PolicyFolder(folder, LIMITS)


def test_folder_of_a_guard_that_judges_nothing_stays_what_it_was(tmp_path: Path) -> None:
    """It was read for its types."""
    source = read_folder(put(tmp_path, ONE), LIMITS)
    fixed = FixedFolder(tmp_path, source)

    fixed.took(fixed.look())

    assert fixed.source_for("records") is source
    assert fixed.look() == Look(source=source)
