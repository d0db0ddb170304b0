import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentguard.evidence import chainfile
from agentguard.evidence.chainfile import ChainReader, ChainWriter, NotAChain, chain_files, create, read_chain
from agentguard.evidence.claim import Claim, is_claimed
from agentguard.evidence.ledger import verify_chain
from tests.evidence.chains import stopped_chain, tamper


def writer_of(path: Path) -> ChainWriter:
    """Return a writer."""
    return ChainWriter(path, wait=0.1)


def test_a_chain_is_read_from_where_one_likes(tmp_path: Path) -> None:
    """In portions, so that a long one fits as well."""
    path = tmp_path / "c.db"
    create(path, "{}")
    with closing(writer_of(path)) as writer:
        for n in range(1200):
            writer.append(f'{{"n":{n}}}')

    assert [entry.seq for entry in read_chain(path, after=1198)] == [1199, 1200, 1201]
    assert verify_chain(read_chain(path)) == ()


def test_files_of_others_are_no_chains(tmp_path: Path) -> None:
    """Nor is one that is being made."""
    create(tmp_path / "c.db", "{}")
    for name in (".new.db", "c.head", "notes.txt"):
        (tmp_path / name).write_text("")

    assert chain_files(tmp_path) == (tmp_path / "c.db",)


def test_a_chain_never_takes_another_ones_place(tmp_path: Path) -> None:
    """What is there stays, and nothing else is left."""
    path = tmp_path / "c.db"
    create(path, "{}")
    before = path.read_bytes()

    with pytest.raises(FileExistsError):
        create(path, '{"other":1}')

    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_a_chain_is_for_its_owner_alone(tmp_path: Path) -> None:
    """Whatever the process's mask is, for the file and its log."""
    path = tmp_path / "c.db"
    before = os.umask(0)
    try:
        create(path, "{}")
        with closing(writer_of(path)) as writer:
            writer.append("{}")
            modes = {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()}
    finally:
        os.umask(before)

    assert modes == {0o600}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is not a chain of agentguard"),
        (b"no database at all, but long enough to be one" * 100, "the file is damaged or locked: DatabaseError"),
    ],
)
def test_something_else_is_not_a_chain(content: bytes, message: str, tmp_path: Path) -> None:
    """It is refused by what it is."""
    path = tmp_path / "c.db"
    path.write_bytes(content)

    with pytest.raises(NotAChain, match=message):
        list(read_chain(path))


def test_a_folder_is_not_a_chain(tmp_path: Path) -> None:
    """SQLite cannot open it either."""
    with pytest.raises(NotAChain, match="it is not a file"):
        ChainReader(tmp_path)


def test_a_file_that_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    """Not made, as SQLite would."""
    with pytest.raises(FileNotFoundError):
        list(read_chain(tmp_path / "c.db"))
    with pytest.raises(NotAChain, match="the file was removed"):
        writer_of(tmp_path / "c.db")
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_page_is_found_when_it_is_read(tmp_path: Path) -> None:
    """The rest cannot be told from it."""
    path = stopped_chain(tmp_path, calls=300, heads_every=1000)
    with path.open("r+b") as file:
        file.seek(5 * 8192)
        file.write(b"\xff" * 16384)

    with pytest.raises(NotAChain, match="the file is damaged"):
        list(read_chain(path))


def test_a_later_version_is_not_guessed_at(tmp_path: Path) -> None:
    """Neither read nor written."""
    path = stopped_chain(tmp_path)
    tamper(path, "PRAGMA user_version = 2")

    with pytest.raises(NotAChain, match="version 2 of the schema, wanted 1"):
        ChainReader(path)


def test_a_chain_on_a_read_only_mount_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no place for a log's index there."""
    path = stopped_chain(tmp_path)
    opened: list[str] = []
    really = chainfile.connect

    class Unreadable:
        """A connection that cannot make its index."""

        def execute(self, statement: str) -> None:
            error = "unable to open database file"
            raise sqlite3.OperationalError(error)

        def close(self) -> None:
            opened.append("closed")

    monkeypatch.setattr(
        chainfile,
        "connect",
        lambda path, options, *, seconds: (
            Unreadable() if options == "mode=ro" else really(path, options, seconds=seconds)
        ),
    )

    assert len(list(read_chain(path))) == 15
    shutil.copy(path, path.with_name(f"{path.name}-wal"))
    with pytest.raises(NotAChain, match="unable to open"):
        list(read_chain(path))
    assert opened == ["closed", "closed"]


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Readers beside the writer would not be possible."""
    path = tmp_path / "c.db"
    create(path, "{}")
    monkeypatch.setattr(chainfile, "_WAL", "PRAGMA journal_mode = MEMORY")

    with pytest.raises(sqlite3.OperationalError, match="no shared memory"):
        writer_of(path)


def test_a_claim_is_one_holders_alone(tmp_path: Path) -> None:
    """Until it is let go of, which may be done twice."""
    path = tmp_path / "c.db"
    assert not is_claimed(path)
    claim = Claim.take(path)
    assert claim is not None
    assert is_claimed(path)
    assert Claim.take(path) is None

    claim.release()
    claim.release()

    assert not is_claimed(path)


def test_a_lock_that_is_not_possible_is_no_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network's file system may have none: nobody writes without."""

    def none(*_: object) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)

    with pytest.raises(OSError, match="No locks"):
        Claim.take(tmp_path / "c.db")

    # Of this test's own files: what others left behind may be let go of at any moment.
    held = [descriptor.resolve() for descriptor in Path("/proc/self/fd").iterdir()]
    assert [path for path in held if path.is_relative_to(tmp_path)] == []
