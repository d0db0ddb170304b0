import logging
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import anyio
import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence import chainfile, durable, heads, tending
from agentguard.evidence.chainfile import NotAChain, chain_files, read_chain
from agentguard.evidence.disk import checkpoint
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.heads import HeadKey, PublicHeadKey, signed_head
from agentguard.evidence.ledger import Entry, verify_chain
from agentguard.evidence.verify import verify_folder
from agentguard.model import Reason
from tests.evidence.chains import NOW, cut_behind, decision, killed, ledger_in, stopped_chain, tamper, verified


@pytest.fixture(autouse=True)
def looking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look each time whether the file is in its place."""
    monkeypatch.setattr(chainfile, "_LOOK", 0.0)


def kinds(path: Path | None) -> list[str]:
    """Return the kinds of a chain's records."""
    assert path is not None
    return [entry.record["kind"] for entry in read_chain(path)]


def occasions(folder: Path, path: Path) -> list[str]:
    """Return why each head of a chain was signed."""
    public = HeadKey.of(folder).public
    return [public.head(signed).occasion for entry in read_chain(path) if (signed := signed_head(entry))]


def chain_of(ledger: SQLiteLedger) -> Path:
    """Return the file that a ledger writes."""
    assert ledger.path is not None
    return ledger.path


@contextmanager
def refused(detail: str) -> Iterator[None]:
    """Expect that a record is not kept."""
    with pytest.raises(Refusal) as caught:
        yield
    assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE
    assert detail in caught.value.detail


def test_what_was_appended_is_in_the_file_at_once(tmp_path: Path) -> None:
    """Another process sees it while the ledger goes on."""
    ledger = ledger_in(tmp_path)

    entry = ledger.append(decision(1))

    assert list(read_chain(chain_of(ledger)))[-1] == entry == list(ledger)[-1]
    assert entry.seq == 2
    ledger.close()
    assert list(ledger) == []


def test_a_chain_begins_with_a_head_and_ends_with_a_stop(tmp_path: Path) -> None:
    """So that neither a chain nor its end can be made up without the key."""
    ledger = ledger_in(tmp_path)
    ledger.append(decision(1))
    path = chain_of(ledger)

    ledger.close()

    assert kinds(path) == ["head", "decision", "stop", "head"]
    assert occasions(tmp_path, path) == ["begin", "stop"]
    assert verify_chain(read_chain(path)) == ()


def test_a_head_is_signed_after_so_many_records(tmp_path: Path) -> None:
    """Never are more of them unsigned."""
    path = stopped_chain(tmp_path, calls=3, heads_every=2)

    assert kinds(path)[:7] == ["head", "decision", "outcome", "head", "decision", "outcome", "head"]


def test_a_restart_continues_the_chain(tmp_path: Path) -> None:
    """One chain for one server, however often it starts."""
    path = stopped_chain(tmp_path)
    before = list(read_chain(path))

    ledger = ledger_in(tmp_path)
    entry = ledger.append(decision(9))
    ledger.close()

    assert chain_files(tmp_path) == (path,)
    assert entry.seq == before[-1].seq + 2
    assert occasions(tmp_path, path)[-2:] == ["continue", "stop"]
    assert verified(tmp_path) == []


def test_a_second_ledger_on_a_folder_takes_a_chain_of_its_own(tmp_path: Path) -> None:
    """Also in one process; and the third takes what the second left."""
    one, two = ledger_in(tmp_path), ledger_in(tmp_path)
    left = chain_of(two)
    two.close()

    three = ledger_in(tmp_path)

    assert chain_of(one) != left == chain_of(three)
    one.close()
    three.close()


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: cut_behind(path, 3),
        lambda path: tamper(path, "DELETE FROM entries"),
        lambda path: tamper(path, "UPDATE chain SET id = 'other'"),
        lambda path: tamper(path, "PRAGMA user_version = 7"),
        lambda path: tamper(path, "PRAGMA application_id = 7"),
        lambda path: path.write_bytes(b"nothing of the kind"),
        lambda path: path.with_suffix(".head").unlink(),
        lambda path: path.with_suffix(".head").write_text("no.such.head"),
        lambda path: path.with_suffix(".head").write_bytes(b"\xff"),
        lambda path: path.with_suffix(".lock").unlink() or path.with_suffix(".lock").symlink_to("elsewhere"),
    ],
)
def test_a_chain_that_was_touched_is_not_continued(
    spoil: object, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It stays as it is, for whoever looks into it; the server goes on with a new one."""
    path = stopped_chain(tmp_path, heads_every=100)
    assert callable(spoil)
    spoil(path)

    ledger = ledger_in(tmp_path)

    assert chain_of(ledger) != path
    assert f"the chain in `{path}` is not continued, a new one begins" in caplog.text
    ledger.close()


def test_a_tail_that_was_changed_behind_the_last_head_is_not_continued(tmp_path: Path) -> None:
    """A killed process leaves records that nothing signs; what is left has to follow at least."""
    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    for n in range(3):
        ledger.append(decision(n))
    killed(ledger)
    tamper(path, "UPDATE entries SET text = replace(text, 'reader', 'writer') WHERE seq = 3")

    after = ledger_in(tmp_path)

    assert chain_of(after) != path
    after.close()


@pytest.mark.parametrize(("change"), [{"hash": "0" * 64}, {"time_unix_nano": 7}])
def test_a_chain_whose_last_head_is_another_is_not_continued(change: dict[str, object], tmp_path: Path) -> None:
    """Signed or not, it has to be the one that stands in the chain."""
    path = stopped_chain(tmp_path)
    key = HeadKey.of(tmp_path)
    beside = path.with_suffix(".head")
    beside.write_text(key.sign(replace(key.public.head(beside.read_text().strip()), **change)))  # type: ignore[arg-type]

    ledger = ledger_in(tmp_path)

    assert chain_of(ledger) != path
    ledger.close()


def test_a_chain_whose_writer_was_killed_is_continued(tmp_path: Path) -> None:
    """And what was unsigned at that moment is told."""
    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    ledger.append(decision(1))
    killed(ledger)

    after = ledger_in(tmp_path)
    after.close()

    assert chain_files(tmp_path) == (path,)
    report = verify_folder(tmp_path)
    assert report.holds
    assert [str(note) for note in report.notes] == [
        (
            f"chain {path.stem}, seq 3: a process ended before it without a stop, as one does that is killed: "
            "seq 2 was signed only afterwards, and records between seq 2 and seq 3 may be missing"
        )
    ]


def test_a_chain_that_was_only_just_begun_is_continued(tmp_path: Path) -> None:
    """Its writer was killed before its head lay beside it."""
    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    killed(ledger)
    path.with_suffix(".head").unlink()
    assert verify_folder(tmp_path).holds

    after = ledger_in(tmp_path)

    assert chain_of(after) == path
    after.close()
    assert verified(tmp_path) == []


def test_a_new_chain_whose_id_is_taken_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Chance never makes two writers share one."""
    monkeypatch.setattr("secrets.token_hex", lambda _: "0" * 16)
    one = ledger_in(tmp_path)

    with pytest.raises(ConfigurationError, match="a new chain is another process's already: mend the folder"):
        ledger_in(tmp_path)

    one.close()


def test_a_chain_that_cannot_be_made_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a file nor a claim."""

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "create", full)

    with pytest.raises(ConfigurationError, match="cannot keep evidence: No space left on device: mend"):
        ledger_in(tmp_path)

    assert chain_files(tmp_path) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"durability": "maybe"}, "`durability` wants `process` or `host`, got `maybe`: choose one"),
        ({"heads_every": 0}, "`heads_every` wants at least 1 record, got `0`: leave it out for 1000"),
    ],
)
def test_a_wrong_option_is_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    """At start-up, with the fix."""
    with pytest.raises(ConfigurationError, match=message):
        ledger_in(tmp_path, **options)


def test_what_has_no_canonical_json_is_refused(tmp_path: Path) -> None:
    """And the chain goes on."""
    ledger = ledger_in(tmp_path)

    with refused("no canonical JSON: ValueError"):
        ledger.append({"n": float("nan")})

    assert ledger.append(decision(1)).seq == 2
    ledger.close()


def test_a_closed_ledger_refuses(tmp_path: Path) -> None:
    """Closing twice is once."""
    ledger = ledger_in(tmp_path)
    ledger.close()
    ledger.close()

    with refused("the ledger was closed"):
        ledger.append(decision(1))


def test_a_ledger_that_is_in_use_where_it_is_closed_gives_up(tmp_path: Path) -> None:
    """A signal may come while the very thread that it interrupts appends."""
    ledger = ledger_in(tmp_path, wait=0.001)
    with ledger._lock:
        ledger.close()
    assert kinds(ledger.path) == ["head"]
    ledger.close()


def test_an_end_that_cannot_be_kept_is_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The process ends all the same."""
    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    path.rename(tmp_path / "away")

    ledger.close()

    assert f"the end of the chain in `{path}` could not be kept" in caplog.text


def test_records_of_many_threads_stand_in_one_chain(tmp_path: Path) -> None:
    """Each has a place of its own."""
    ledger = ledger_in(tmp_path, heads_every=7)

    def write(first: int) -> None:
        for n in range(first, first + 25):
            ledger.append(decision(n))

    threads = [threading.Thread(target=write, args=(n * 100,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ledger.close()

    assert kinds(chain_files(tmp_path)[0]).count("decision") == 100
    assert verified(tmp_path) == []


def test_another_writer_is_waited_for_once(tmp_path: Path) -> None:
    """While somebody keeps the lock, each call after the first is refused at once."""
    waits: list[float] = []
    now = 0.0

    def monotonic() -> float:
        nonlocal now
        now += 0.02
        waits.append(now)
        return now

    ledger = ledger_in(tmp_path, monotonic=monotonic, wait=0.1)
    with closing(sqlite3.connect(chain_of(ledger), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        counts = []
        for _ in range(2):
            waits.clear()
            with refused("database is locked"):
                ledger.append(decision(1))
            counts.append(len(waits))
        other.execute("ROLLBACK")

    assert counts[0] > counts[1]
    assert ledger.append(decision(1)).seq == 2
    ledger.close()
    assert verified(tmp_path) == []


def test_a_lock_that_is_let_go_of_in_time_costs_no_call(tmp_path: Path) -> None:
    """An auditor's tool may hold it for a moment."""
    other: sqlite3.Connection | None = None
    asked = 0

    def monotonic() -> float:
        nonlocal asked
        if other is not None and other.in_transaction:
            # Asked once before it finds the lock held.
            asked += 1
            if asked > 1:
                other.execute("ROLLBACK")
        return 0.0

    ledger = ledger_in(tmp_path, monotonic=monotonic)
    other = sqlite3.connect(chain_of(ledger), isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")

    assert ledger.append(decision(1)).seq == 2

    other.close()
    ledger.close()


def test_what_cannot_be_written_is_logged_once_and_so_is_its_end(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A disk that is full for a night fills no log."""
    ledger = ledger_in(tmp_path)
    writer = ledger._writer
    assert writer is not None
    (pages,) = writer._connection.execute("PRAGMA page_count").fetchone()
    writer._connection.execute(f"PRAGMA max_page_count = {pages}")
    caplog.set_level(logging.WARNING)
    kept = 0
    with suppress(Refusal):
        while kept < 1000:
            ledger.append(decision(kept))
            kept += 1
    with refused("database or disk is full"):
        ledger.append(decision(kept))

    writer._connection.execute("PRAGMA max_page_count = 100000")
    entry = ledger.append(decision(kept))

    assert entry.seq == kept + 2
    assert caplog.text.count("evidence cannot be kept") == 1
    assert caplog.text.count("evidence is kept again") == 1
    path = chain_of(ledger)
    ledger._let_go()
    ledger.append(decision(kept + 1))
    assert chain_of(ledger) == path
    ledger.close()
    assert verified(tmp_path) == []


def test_a_write_of_which_nobody_knows_whether_it_was_done_is_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file tells when it is opened again: the record is there, so the next one follows it."""
    ledger = ledger_in(tmp_path)
    writer = ledger._writer
    assert writer is not None

    class Failing:
        """A connection that does what it is told, and says that it failed."""

        def __init__(self, inner: sqlite3.Connection) -> None:
            self.inner = inner
            self.close = inner.close

        def execute(self, *arguments: object) -> None:
            self.inner.execute(*arguments)  # type: ignore[arg-type]
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR
            raise error

    monkeypatch.setattr(writer, "_connection", Failing(writer._connection))
    with refused("disk I/O error"):
        ledger.append(decision(1))

    assert ledger.append(decision(2)).seq == 3
    ledger.close()
    assert verified(tmp_path) == []


def test_a_chain_that_somebody_else_wrote_to_is_left(tmp_path: Path) -> None:
    """What is opened again has to end as it was left; if not, another chain begins."""
    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    ledger.append(decision(1))
    ledger._let_go()
    cut_behind(path, 1)

    with refused("the file does not end with the record that was written last"):
        ledger.append(decision(2))
    ledger.append(decision(3))

    assert chain_of(ledger) != path
    ledger.close()


def test_a_lock_that_is_cleared_away_lets_no_two_write_one_chain(tmp_path: Path) -> None:
    """Somebody removes files that look left over: who comes second finds its place taken, and leaves."""
    one = ledger_in(tmp_path)
    path = chain_of(one)
    one.append(decision(1))
    path.with_suffix(".lock").unlink()
    two = ledger_in(tmp_path)
    assert chain_of(two) == path
    two.append(decision(2))

    with pytest.raises(Refusal):
        one.append(decision(3))
    with refused("the file does not end with the record that was written last"):
        one.append(decision(3))
    one.append(decision(3))

    assert chain_of(one) != path
    two.append(decision(4))
    one.close()
    two.close()
    assert verified(tmp_path) == []


@pytest.mark.parametrize("suffix", ["", "-wal"])
def test_a_file_that_is_removed_under_a_running_server_is_noticed(
    suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written to a file without a name is nowhere; another chain begins when it can."""

    def taken(*_: object) -> None:
        message = "it is another process's"
        raise NotAChain(message)

    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    Path(f"{path}{suffix}").unlink()

    with pytest.raises(Refusal):
        ledger.append(decision(1))
    with monkeypatch.context() as patch, refused("it is another process's"):
        patch.setattr(durable, "create", taken)
        ledger.append(decision(2))
    entry = ledger.append(decision(3))

    assert chain_of(ledger) != path
    assert list(read_chain(chain_of(ledger)))[-1] == entry
    ledger.close()


def test_a_head_that_cannot_lie_beside_its_chain_costs_no_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The chain itself has it."""
    ledger = ledger_in(tmp_path, heads_every=1)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(heads, "replace", full)
    ledger.append(decision(1))
    ledger.append(decision(2))
    monkeypatch.undo()
    ledger.close()

    assert ".head` could not be written: No space left on device" in caplog.text
    assert verified(tmp_path) == []


async def test_process_durability_waits_for_no_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It never asks for it."""
    ledger = ledger_in(tmp_path)
    monkeypatch.setattr(os, "fdatasync", None)

    await ledger.settled(ledger.append(decision(1)))

    assert ledger.durability == "process"
    ledger.close()


async def test_host_durability_waits_for_the_disk_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sixty-four calls in flight cost a few writes to the disk, and none returns before its own."""
    ledger = ledger_in(tmp_path, durability="host", pause=60)
    syncs: list[int] = []
    really = os.fdatasync

    def fdatasync(file: int) -> None:
        really(file)
        syncs.append(file)

    monkeypatch.setattr(os, "fdatasync", fdatasync)

    async def call(n: int) -> None:
        # The thread that waits for the disk may be done with this record before anything else is asked.
        before = len(syncs)
        entry = ledger.append(decision(n))
        await ledger.settled(entry)
        assert len(syncs) > before
        assert ledger._disk.has(entry.chain_id, entry.seq)

    async with anyio.create_task_group() as tasks:
        for n in range(64):
            tasks.start_soon(call, n)

    assert 1 <= len(syncs) <= 8
    ledger.close()
    await ledger.settled(Entry(chain_files(tmp_path)[0].stem, 1, "", "", ""))


async def test_a_disk_that_failed_once_is_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The system forgets what it could not write: the calls are refused, and another chain begins."""
    ledger = ledger_in(tmp_path, durability="host", pause=60)
    path = chain_of(ledger)
    entry = ledger.append(decision(1))

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as patch, refused("Input/output error"):
        patch.setattr(os, "fdatasync", fail)
        await ledger.settled(entry)
    with refused("the chain is not written any more"):
        await ledger.settled(entry)

    after = ledger.append(decision(2))
    await ledger.settled(after)
    assert after.chain_id != entry.chain_id
    assert chain_of(ledger) != path
    ledger.close()


async def test_no_descriptor_for_the_disk_is_a_refusal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that has none left keeps its chain for later."""
    ledger = ledger_in(tmp_path, durability="host", pause=60)
    entry = ledger.append(decision(1))

    def none(_: int) -> int:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch, refused("Too many open files"):
        patch.setattr(os, "dup", none)
        await ledger.settled(entry)

    await ledger.settled(entry)
    ledger.close()


def test_tending_brings_to_the_disk_what_nobody_waits_for(tmp_path: Path) -> None:
    """Outcomes and denials are not waited for."""
    ledger = ledger_in(tmp_path, durability="host", pause=60)
    entry = ledger.append(decision(1))

    ledger.tend()

    assert ledger._disk.has(entry.chain_id, entry.seq)
    ledger.tend()
    ledger.close()
    ledger.tend()


def test_tending_signs_what_waited_long_enough(tmp_path: Path) -> None:
    """A server with little to do has its heads too, and one with nothing to do has none."""
    now = 0.0
    ledger = ledger_in(tmp_path, monotonic=lambda: now, pause=60)
    path = chain_of(ledger)
    ledger.append(decision(1))
    ledger.tend()
    assert kinds(path) == ["head", "decision"]

    now = 60.0
    ledger.tend()
    now = 120.0
    ledger.tend()

    assert kinds(path) == ["head", "decision", "head"]
    ledger.close()


def test_tending_that_cannot_sign_lets_go_like_a_call(tmp_path: Path) -> None:
    """The next call is the one that is refused, or finds another chain."""
    now = 0.0
    ledger = ledger_in(tmp_path, monotonic=lambda: now, pause=60)
    path = chain_of(ledger)
    ledger.append(decision(1))
    path.unlink()
    now = 60.0

    ledger.tend()

    assert ledger.path is None
    ledger.append(decision(2))
    ledger.close()


def test_the_log_begins_anew_beside_somebody_who_writes_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would grow until the disk is full."""
    monkeypatch.setattr(durable, "_MOVE", 3)
    monkeypatch.setattr(durable, "_MOVE_NOW", 30)
    ledger = ledger_in(tmp_path, pause=60)
    path = chain_of(ledger)
    written = iter(range(1000))

    def beside(path: Path) -> bool:
        moved = checkpoint(path)
        if not ledger._lock.locked():
            ledger.append(decision(next(written)))
        return moved

    monkeypatch.setattr(durable, "checkpoint", beside)
    sizes = []
    for _ in range(4):
        for _ in range(35):
            ledger.append(decision(next(written)))
        ledger.tend()
        sizes.append(path.with_name(f"{path.name}-wal").stat().st_size)

    assert sizes[1] == sizes[3]
    ledger.close()
    assert verified(tmp_path) == []


def test_tending_moves_the_log_into_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Off the way of a call; and beside one who reads for long, it is tried again."""
    monkeypatch.setattr(durable, "_MOVE", 3)
    monkeypatch.setattr(durable, "_MOVE_NOW", 6)
    ledger = ledger_in(tmp_path, pause=60)
    path = chain_of(ledger)
    before = path.stat().st_size
    for n in range(40):
        ledger.append(decision(n))
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT count(*) FROM entries").fetchone()
        for n in range(4):
            ledger.append(decision(n + 40))
        ledger.tend()
        assert ledger._unmoved == 0
        for n in range(4):
            ledger.append(decision(n + 50))
        ledger.tend()
        assert ledger._unmoved == 4
        reader.execute("ROLLBACK")

    ledger.tend()

    assert ledger._unmoved == 0
    assert path.stat().st_size > before
    ledger.close()


def test_the_thread_tends_and_outlives_what_goes_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What goes wrong is logged once."""
    tended = threading.Semaphore(0)
    failures = 3

    def tend(_: SQLiteLedger) -> None:
        nonlocal failures
        tended.release()
        failures -= 1
        if failures >= 0:
            raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "the disk failed")

    monkeypatch.setattr(SQLiteLedger, "tend", tend)
    ledger = ledger_in(tmp_path, pause=0.001)
    for _ in range(5):
        assert tended.acquire(timeout=10)

    assert caplog.text.count("could not be tended: the disk failed") == 1
    ledger.close()


def test_the_thread_ends_with_a_ledger_that_nobody_has_any_more(tmp_path: Path) -> None:
    """Whoever waits does not keep alive what it waits for."""
    over = threading.Event()

    tending.tend(lambda: None, over, 0.001, "x")

    assert not over.is_set()


def test_a_signature_is_checked_by_the_public_half_alone(tmp_path: Path) -> None:
    """Whoever verifies needs no secret."""
    path = stopped_chain(tmp_path)
    public = PublicHeadKey.read(tmp_path / "head.jwk")

    heads = [public.head(signed) for entry in read_chain(path) if (signed := signed_head(entry))]

    assert heads[-1].time_unix_nano == int(NOW * 1e9)
    assert not issubclass(NotAChain, OSError)


def test_what_a_fork_took_along_is_left_alone(tmp_path: Path) -> None:
    """The child's first step, taken here: it closes no connection, and starts anew."""
    ledger = ledger_in(tmp_path)
    path = chain_of(ledger)
    ledger._over.set()

    durable._after_fork()

    assert ledger.path is None
    assert ledger.append(decision(1)).seq == 3
    assert chain_of(ledger) == path
    ledger.close()
    assert verified(tmp_path) == []


def test_a_fork_of_a_closed_ledger_has_nothing_to_leave(tmp_path: Path) -> None:
    """It stays closed."""
    ledger = ledger_in(tmp_path)
    ledger.close()

    durable._after_fork()

    with refused("the ledger was closed"):
        ledger.append(decision(1))


def test_whether_the_file_is_in_its_place_is_not_asked_for_each_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once in a moment: it costs as much as half of the rest."""
    monkeypatch.setattr(chainfile, "_LOOK", 0.01)
    now = 0.0
    ledger = ledger_in(tmp_path, monotonic=lambda: now)
    chain_of(ledger).unlink()
    ledger.append(decision(1))

    now = 0.01
    with refused("the file was removed"):
        ledger.append(decision(2))

    ledger.close()
