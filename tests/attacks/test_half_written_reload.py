"""A change of several files that is read between two of its writes.

What the old and the new version both forbid is permitted by half of each: the permit is
already there, and the forbid is not yet, or not any more.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files import folder as reading
from agentguard.policy.files.folder import read_snapshot
from agentguard.policy.files.keeping import PolicyFolder, Refused
from agentguard.policy.files.manifest import MANIFEST, manifest_of
from agentguard.policy.files.source import read_folder
from tests.policy.records import LIMITS
from tests.publishing import lock, move, put, swap, unlisted

PERMIT = '@id("all") permit (principal, action, resource);'
OLD = {
    "10-permits.cedar": PERMIT,
    "20-old-rules.cedar": '@id("no-exports") forbid (principal, action == Action::"export", resource);',
}
NEW = {
    "10-permits.cedar": f"// rules are in 30-new-rules.cedar\n{PERMIT}",
    "30-new-rules.cedar": '@id("no-exports") forbid (principal, action == Action::"export", resource);',
}


def steps(folder: Path, *, forbid_last: bool) -> Iterator[Callable[[], object]]:
    """Yield the writes that make the new version of the old one."""
    yield lambda: (folder / "10-permits.cedar").write_text(NEW["10-permits.cedar"])
    rest: list[Callable[[], object]] = [
        (folder / "20-old-rules.cedar").unlink,
        lambda: (folder / "30-new-rules.cedar").write_text(NEW["30-new-rules.cedar"]),
    ]
    yield from rest if forbid_last else reversed(rest)


def ids(there: PolicyFolder) -> set[str]:
    """Return the policies that judge after a look."""
    look = there.look()
    there.took(look)
    return {line for _, text in there._in_force.files for line in text.split('"') if line in {"all", "no-exports"}}


def began(folder: Path) -> PolicyFolder:
    """Return a folder as a guard starts with it."""
    there = PolicyFolder(folder, LIMITS)
    there.source_for(None)
    return there


def test_half_of_a_change_is_valid_and_permits_what_both_versions_forbid(tmp_path: Path) -> None:
    """The trap: nothing in the folder says that something is still to come."""
    folder = put(tmp_path, OLD)
    first, second, _ = steps(folder, forbid_last=True)
    first()
    second()

    assert [policy.id for policy in read_folder(folder, LIMITS).policies] == ["all"]


@pytest.mark.parametrize("forbid_last", [True, False])
@pytest.mark.parametrize("locked", [True, False])
def test_no_half_of_a_change_in_place_is_taken(forbid_last: bool, locked: bool, tmp_path: Path) -> None:
    """With a manifest, the whole is; without one, not even that."""
    folder = put(tmp_path, OLD)
    if locked:
        lock(folder)
    there = began(folder)

    for step in steps(folder, forbid_last=forbid_last):
        step()
        assert ids(there) == {"all", "no-exports"}
        assert there.look().refused is Refused.INCOMPLETE
    lock(folder)

    look = there.look()
    assert look.is_new
    assert look.source is not None
    assert dict(look.source.files) == NEW


def test_manifest_that_is_written_first_waits_for_every_file_that_it_lists(tmp_path: Path) -> None:
    """Whoever does it in the wrong order is none the worse."""
    folder = put(tmp_path, OLD)
    there = began(folder)
    (folder / MANIFEST).write_text(manifest_of(NEW))

    for step in steps(folder, forbid_last=True):
        assert there.look().refused is Refused.INCOMPLETE
        step()

    assert there.look().is_new


def test_manifest_that_is_half_written_fits_nothing(tmp_path: Path) -> None:
    """At no length but its own."""
    folder = put(tmp_path, OLD)
    there = began(folder)
    put(folder, NEW)
    (folder / "20-old-rules.cedar").unlink()
    whole = manifest_of(NEW)

    for length in range(0, len(whole), 23):
        (folder / MANIFEST).write_text(whole[:length])
        assert there.look().refused is Refused.INCOMPLETE, length


@pytest.mark.parametrize("name", ["../outside.cedar", "/etc/passwd", "./10-permits.cedar", "types/../x.cedar", "x.txt"])
def test_manifest_that_names_what_is_not_read_fits_nothing(name: str, tmp_path: Path) -> None:
    """It is never opened: what is read comes from the folder, and is then compared."""
    folder = put(tmp_path / "policies", OLD)
    (tmp_path / "outside.cedar").write_text(PERMIT)
    there = began(folder)
    put(folder, {"10-permits.cedar": PERMIT + "\n"})
    files = read_snapshot(folder).files
    (folder / MANIFEST).write_text(manifest_of({**files, name: PERMIT}))

    assert there.look().refused is Refused.INCOMPLETE


def test_file_that_is_swapped_while_the_folder_is_read_is_not_taken_for_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is compared with the manifest is what was read, and not what lies there by then."""
    folder = put(tmp_path, OLD)
    there = began(folder)
    put(folder, NEW)
    (folder / "20-old-rules.cedar").unlink()
    lock(folder)
    content = reading._content

    def swapping(root: Path, name: str) -> tuple[str, os.stat_result]:
        if name == "30-new-rules.cedar":
            (folder / name).write_text("// nothing is forbidden")
        found = content(root, name)
        if name == "10-permits.cedar":
            (folder / name).write_text("// nor permitted")
        return found

    monkeypatch.setattr(reading, "_content", swapping)
    assert there.look().refused is Refused.INCOMPLETE
    monkeypatch.undo()
    put(folder, NEW)

    look = there.look()
    assert look.source is not None
    assert dict(look.source.files) == NEW


@pytest.mark.parametrize("seed", range(8))
def test_reader_that_looks_at_any_moment_sees_whole_versions_alone(seed: int, tmp_path: Path) -> None:
    """However changes are made: by a link, by moving a folder, by a manifest; done right or left half-way."""
    dice = random.Random(seed)  # noqa: S311  a moment, not a secret
    swap(tmp_path / "current", {"10.cedar": PERMIT, "20.cedar": rule(0)}, name="0")
    folder = tmp_path / "current"
    there = began(folder)
    whole = {0}
    for number in range(1, 25):
        files = {"10.cedar": f"// {number}\n{PERMIT}", "20.cedar": rule(number)}
        way = dice.choice(["swap", "lock", "half", "half", "broken"])
        if way == "swap":
            swap(folder, files, name=str(number))
            whole.add(number)
        elif way == "broken":
            swap(folder, {**files, "20.cedar": "forbid"}, name=str(number))
        else:
            halves = list(files.items())
            dice.shuffle(halves)
            for name, text in halves[: None if way == "lock" else 1]:
                put(folder, {name: text})
                assert versions(there) <= whole
            if way == "lock":
                lock(folder)
                whole.add(number)
        look = there.look()
        there.took(look)
        assert versions(there) <= whole
        assert len(versions(there)) == 1


def rule(number: int) -> str:
    """Return the rule of one version."""
    return f'// {number}\n@id("no-exports") forbid (principal, action == Action::"export", resource);'


def versions(there: PolicyFolder) -> set[int]:
    """Return of which versions the files are that judge."""
    return {int(text.split()[1]) if text.startswith("// ") else 0 for _, text in there._in_force.files}


def hostile(folder: Path, what: str) -> None:
    """Put something into the place of a file, or of the folder, that is no file."""
    file = folder / "20-old-rules.cedar"
    if what == "gone":
        folder.rename(folder.with_name("gone"))
        return
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    elif what == "large":
        with file.open("wb") as opened:
            opened.truncate(200 * 1024 * 1024)
    elif what == "link out":
        file.symlink_to("/etc/hostname")
    elif what == "link to itself":
        file.symlink_to(file.name)
    elif what == "folder":
        file.mkdir()
    elif what == "dangling":
        file.symlink_to("absent.cedar")


@pytest.mark.parametrize("what", ["gone", "pipe", "large", "link out", "link to itself", "folder", "dangling"])
@pytest.mark.parametrize("moved", [True, False])
def test_what_cannot_be_read_keeps_the_last_good_version(what: str, moved: bool, tmp_path: Path) -> None:
    """Nobody waits for the other end of a pipe, and the forbid of the file is not forgotten."""
    folder = put(tmp_path / "policies", OLD)
    there = began(folder)
    if moved:
        move(folder, OLD)
    hostile(folder, what)

    assert there.look().refused in {Refused.UNREADABLE, Refused.INCOMPLETE}
    assert ids(there) == {"all", "no-exports"}


@pytest.mark.parametrize("name", ["20-old-rules.cedar", "types", "."])
def test_what_cannot_be_read_is_not_taken_for_what_is_not_there(name: str) -> None:
    """The forbid may be in it."""
    with unlisted({**OLD, "types/a.cedarschema": "entity A;"}, name) as folder, pytest.raises(PolicyError) as refused:
        PolicyFolder(folder, LIMITS)

    assert "cannot be" in str(refused.value)


def test_guard_does_not_start_on_half_of_what_its_manifest_lists(tmp_path: Path) -> None:
    """It would start with the half."""
    folder = put(tmp_path, NEW)
    lock(folder)
    (folder / "30-new-rules.cedar").unlink()

    with pytest.raises(PolicyError, match=r"`30-new-rules\.cedar` is not there: run `agentguard lock"):
        PolicyFolder(folder, LIMITS)
