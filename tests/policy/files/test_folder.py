import os
from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files.folder import read_files

POLICY = '@id("a") permit (principal, action, resource);'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with one policy."""
    made = tmp_path / "policies"
    made.mkdir()
    (made / "a.cedar").write_text(POLICY)
    return made


def refused(folder: Path) -> list[str]:
    """Return why a folder is refused."""
    with pytest.raises(PolicyError) as caught:
        read_files(folder)
    return list(caught.value.problems)


def test_the_files_that_decide_are_read_sorted_by_name(folder: Path) -> None:
    """What is written for people and editors, hidden, or not in force yet is left alone."""
    (folder / "types").mkdir()
    (folder / "types" / "records.cedarschema").write_text("entity Record;")
    (folder / "cedarentities.json").write_text("[]")
    (folder / "B.CEDAR").write_text("// b")
    for name in ("README.md", "agentguard.cedarschema", ".a.cedar.swp", ".hidden.cedar"):
        (folder / name).write_text("no")
    for name in ("next", "scenarios", ".git"):
        (folder / name).mkdir()
    (folder / "next" / "b.cedar").write_text("no")
    (folder / "scenarios" / "a.test.yaml").write_text("no")
    (folder / "scenarios" / ".old").mkdir()
    (folder / "scenarios" / ".old" / "b.cedar").write_text("no")
    (folder / ".git" / "b.cedar").write_text("no")

    assert read_files(folder) == {
        "B.CEDAR": "// b",
        "a.cedar": POLICY,
        "cedarentities.json": "[]",
        "types/records.cedarschema": "entity Record;",
    }


def test_a_folder_that_does_not_exist_is_refused_with_the_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hosts choose the working folder, so a relative path says nothing."""
    monkeypatch.chdir(tmp_path)

    assert refused(Path("policies")) == [
        f"policy folder `{tmp_path}/policies` does not exist: create it, or pass the path it has"
    ]


def test_a_file_in_place_of_the_folder_is_refused(folder: Path) -> None:
    """The message names the path that was tried."""
    assert refused(folder / "a.cedar") == [f"policy folder `{folder}/a.cedar` is a file: pass the folder that it is in"]


def test_a_folder_that_links_to_itself_is_refused(tmp_path: Path) -> None:
    """Nothing can be found at its end."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    (problem,) = refused(tmp_path / "loop")

    assert problem.startswith(f"policy folder `{tmp_path}/loop` cannot be read: ")


def test_an_empty_folder_is_refused(folder: Path) -> None:
    """An empty list of rules is not a rule."""
    (folder / "a.cedar").rename(folder / "a.txt")

    assert refused(folder) == [f"policy folder `{folder}` holds no .cedar file, so nothing could be allowed: add one"]


@pytest.mark.parametrize(
    ("name", "fix"),
    [
        ("records.cedarschema", "move it to `types/`"),
        ("types/b.cedar", "move it to the top, or into `next/` if it is not in force yet"),
        ("teams/x/b.cedar", "move it to the top, or into `next/` if it is not in force yet"),
        ("types/deep/b.cedarschema", "move it to `types/`"),
        ("types/cedarentities.json", "move it to the top, or into `next/` if it is not in force yet"),
    ],
)
def test_a_file_that_looks_as_if_it_decided_is_refused(folder: Path, name: str, fix: str) -> None:
    """A forbid in a folder that nobody reads would be quietly without effect."""
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(POLICY)

    assert refused(folder) == [f"{name}: is not read from here: {fix}"]


def test_a_file_that_is_not_utf_8_is_refused_with_its_line(folder: Path) -> None:
    """No byte is guessed."""
    (folder / "a.cedar").write_bytes(b'// a\n@id("\xe9") permit(principal,action,resource);')

    assert refused(folder) == ["a.cedar:2: is not UTF-8, from byte 10 on: save it as UTF-8"]


def test_a_pipe_is_refused_and_not_waited_for(folder: Path) -> None:
    """Opening one would wait for its other end."""
    os.mkfifo(folder / "b.cedar")

    assert refused(folder) == ["b.cedar: is no regular file: put a file here"]


def test_a_link_to_a_folder_further_down_is_refused(folder: Path) -> None:
    """Nobody walks through it, so that what is behind it would be missed."""
    (folder / "next").mkdir()
    for name in ("servers", "scenarios"):
        (folder / name).mkdir()
        (folder / name / "records").symlink_to(folder / "next")

    assert refused(folder) == [f"servers/records: is a link to `{folder}/next`: put the folder itself here"]


def test_a_link_that_leads_nowhere_is_refused(folder: Path) -> None:
    """A policy that is gone is not the same as none."""
    (folder / "b.cedar").symlink_to(folder / "gone.cedar")

    assert refused(folder) == ["b.cedar: cannot be read: No such file or directory"]


def test_a_link_that_leads_back_to_itself_is_refused(folder: Path) -> None:
    """Every problem of the folder is told at once."""
    (folder / "b.cedar").symlink_to(folder / "b.cedar")
    (folder / "c.cedar").symlink_to(folder / "gone.cedar")

    problems = refused(folder)

    assert [problem.partition(":")[0] for problem in problems] == ["b.cedar", "c.cedar"]


def test_a_link_out_of_the_folder_is_refused(folder: Path) -> None:
    """What is outside can change without anybody looking at the folder."""
    (folder.parent / "b.cedar").write_text(POLICY)
    (folder / "b.cedar").symlink_to(folder.parent / "b.cedar")

    assert refused(folder) == [
        f"b.cedar: is a link out of the policy folder, to `{folder.parent}/b.cedar`: put the file itself here"
    ]


def test_more_files_than_anybody_writes_are_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They would be read again every few seconds."""
    monkeypatch.setattr("agentguard.policy.files.folder._MOST_FILES", 2)
    for name in ("b.cedar", "c.cedar"):
        (folder / name).write_text(POLICY)

    assert refused(folder) == [
        f"policy folder `{folder}` has more than 2 files that decide: put several policies into one file"
    ]


def test_larger_files_than_anybody_writes_are_refused(folder: Path) -> None:
    """Whatever is in them: they are not even read to their end."""
    with (folder / "b.cedar").open("wb") as file:
        file.truncate(200 * 1024 * 1024)

    assert refused(folder) == ["b.cedar: is larger than 32 MiB: split it, or take out what no policy needs"]


@pytest.mark.parametrize("what", ["pipe", "bytes", "folder", "link"])
def test_manifest_that_cannot_be_read_is_refused(folder: Path, what: str) -> None:
    """As if it were not there, anything would be whole."""
    manifest = folder / "agentguard.lock"
    if what == "pipe":
        os.mkfifo(manifest)
    elif what == "bytes":
        manifest.write_bytes(b"\xff")
    elif what == "folder":
        manifest.mkdir()
    else:
        (folder.parent / "outside").write_text("")
        manifest.symlink_to("../outside")

    (told,) = refused(folder)

    assert told.startswith("agentguard.lock")
