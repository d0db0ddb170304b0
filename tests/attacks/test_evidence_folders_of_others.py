"""What somebody with access to a folder of evidence puts there, so that it is verified wrongly, or never."""

import errno
import fcntl
import json
import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from unittest.mock import Mock

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.evidence.chainfile import NotAChain, read_chain
from agentguard.evidence.kept import Kept
from agentguard.evidence.otlp import _value
from agentguard.evidence.prune import prune
from agentguard.evidence.reading import read_sources
from agentguard.evidence.record import record
from agentguard.evidence.showing import Selection, part_of
from agentguard.evidence.trail import decision_id
from agentguard.evidence.verify import prove, verify_folder
from agentguard.evidence.vocabulary import RecordKind
from agentguard.host.private import private_folder
from agentguard.model import Reason
from tests.evidence.chains import NOW, cut_behind, decision, ledger_in, outcome, stopped_chain, tamper, verified


def old_and_new(folder: Path, *, effect: str = "allow", outcome_too: bool = True) -> Path:
    """Return a chain whose first call is old, and the others are not."""
    now = NOW - 1000
    ledger = ledger_in(folder, clock=lambda: now)
    ledger.append(decision(1, effect=effect, at=now))
    if outcome_too:
        ledger.append(outcome(1, at=now))
    now = NOW
    ledger.append(decision(2))
    path = ledger.path
    assert path is not None
    ledger.close()
    return path


@pytest.mark.parametrize("name", ["state", "state/evidence"])
def test_a_clean_copy_inside_the_folder_is_not_what_is_verified(tmp_path: Path, name: str) -> None:
    """It would hold, whatever was done to what the server wrote."""
    path = stopped_chain(tmp_path / "state" / "evidence")
    shutil.copytree(path.parent, tmp_path / "copy")
    shutil.move(tmp_path / "copy", path.parent / "evidence")
    cut_behind(path, 5)

    if name == "state":
        proof = prove([tmp_path / name], print)
        assert proof is not None
        assert not proof.holds
    else:
        with pytest.raises(ConfigurationError, match="holds evidence, and a folder `evidence` too"):
            verify_folder(tmp_path / name)


def test_records_put_where_others_were_pruned_are_found(tmp_path: Path) -> None:
    """They would be shown, and stand before everything that is verified."""
    path = old_and_new(tmp_path)
    prune(tmp_path, older_than=NOW - 1, pause=0)
    forged = decision(7, effect="deny", at=NOW - 1000)

    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("INSERT INTO entries VALUES (2, 'a', 'b', ?)", (json.dumps(forged),))

    assert {problem.partition(", ")[2] for problem in verified(tmp_path)} == {
        "seq 2: the record is not what was hashed: it was changed, or is another's",
        "seq 4: seq 3 is missing before it",
    }


@pytest.mark.parametrize("gone", [0, 1, 2])
def test_pruning_that_was_broken_off_leaves_what_holds(tmp_path: Path, gone: int) -> None:
    """What is left of the old records leads on to the one that the stub names, and is pruned the next time."""
    path = old_and_new(tmp_path)
    shutil.copytree(tmp_path, tmp_path / "before")
    prune(tmp_path, older_than=NOW - 1, pause=0)
    left = [entry for entry in read_chain(tmp_path / "before" / path.name) if gone < entry.seq <= 3]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for entry in left:
            row = (entry.seq, entry.hash, entry.prev_hash, entry.text)
            connection.execute("INSERT INTO entries VALUES (?, ?, ?, ?)", row)

    assert verified(tmp_path) == []
    (pruned,) = prune(tmp_path, older_than=NOW - 1, pause=0)

    assert pruned.removed == len(left)
    assert verified(tmp_path) == []


def test_a_call_that_ran_though_denied_is_not_pruned_away(tmp_path: Path) -> None:
    """Its chain is whole, and still it is what an auditor looks for."""
    path = old_and_new(tmp_path, effect="deny")

    (refused,) = prune(tmp_path, older_than=NOW - 1, pause=0)

    assert "denied the call, and it has an outcome" in refused.refused
    assert next(read_chain(path)).seq == 1


@pytest.mark.parametrize("first", [True, False])
def test_a_denial_is_not_pruned_away_from_a_call_that_ran_in_another_chain(tmp_path: Path, *, first: bool) -> None:
    """Without it the call would look as if its decision had been let go of in good order."""
    one = old_and_new(tmp_path, effect="deny", outcome_too=False)
    # Chains are read in the order of their names, which begin with the time.
    began = NOW - 500 if first else NOW - 2000
    with Path(one.with_suffix(".lock")).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        other = ledger_in(tmp_path, clock=lambda: began)
    other.append(outcome(1))
    other.close()

    done = {pruned.chain_id: pruned.refused for pruned in prune(tmp_path, older_than=NOW - 1, pause=0)}

    assert "it denied a call that another chain says ran" in done.pop(one.stem)
    assert "denied the call, and it has an outcome" in done.popitem()[1]
    assert next(read_chain(one)).seq == 1


def test_what_is_wrong_in_one_chain_keeps_no_other_one(tmp_path: Path) -> None:
    """What has to go for good reasons goes, and the chain that tells of something else stays."""
    good = old_and_new(tmp_path)
    with Path(good.with_suffix(".lock")).open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        other = ledger_in(tmp_path)
    other.append(outcome(9))
    other.close()

    done = {pruned.chain_id: pruned for pruned in prune(tmp_path, older_than=NOW - 1, pause=0)}

    assert other.path is None
    assert len(done) == 2
    assert done.pop(good.stem).refused == ""
    assert "is not on record before it" in done.popitem()[1].refused
    assert next(read_chain(good)).seq == 4


def test_a_copy_without_its_key_is_verified_with_one_that_was_kept(tmp_path: Path) -> None:
    """There is nothing to take turns by, and nobody who prunes."""
    stopped_chain(tmp_path / "state")
    shutil.move(tmp_path / "state" / "head.jwk", tmp_path / "kept.jwk")

    assert verify_folder(tmp_path / "state", key=tmp_path / "kept.jwk").holds


def test_pruning_waits_for_whoever_verifies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that go while they are read would look as if somebody had removed them."""
    old_and_new(tmp_path)
    locks: list[int] = []
    monkeypatch.setattr("agentguard.evidence.claim.fcntl.flock", lambda _file, how: locks.append(how))

    verify_folder(tmp_path)
    prune(tmp_path, older_than=NOW - 1, pause=0)

    assert [how for how in locks if not how & fcntl.LOCK_NB] == [fcntl.LOCK_SH, fcntl.LOCK_EX]


VIEW = """CREATE VIEW entries AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)
    SELECT x AS seq, 'h' AS hash, 'p' AS prev_hash, 't' AS text FROM c"""


@pytest.mark.parametrize(
    "statements",
    [
        ("ALTER TABLE entries RENAME TO others", VIEW),
        ("DROP TABLE entries", "CREATE TABLE entries (seq, hash, prev_hash, text)"),
    ],
)
def test_a_file_with_other_tables_is_no_chain(tmp_path: Path, statements: tuple[str, ...]) -> None:
    """A view without an end is never read, and what is no number is no place."""
    path = stopped_chain(tmp_path)
    tamper(path, *statements)

    assert verified(tmp_path)[0].partition(": ")[2] == (
        "it cannot be read to its end: the file has other tables or triggers than a chain"
    )


def test_a_record_of_a_gigabyte_is_not_read(tmp_path: Path) -> None:
    """No call has one."""
    path = stopped_chain(tmp_path)
    tamper(path, "UPDATE entries SET text = printf('%.*c', 70000000, 'x') WHERE seq = 3")

    with pytest.raises(NotAChain, match="string or blob too big"):
        list(read_chain(path))


def test_a_trigger_that_takes_no_records_is_noticed(tmp_path: Path) -> None:
    """The call is denied, and another chain begins."""
    ledger = ledger_in(tmp_path)
    path = ledger.path
    assert path is not None
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TRIGGER none BEFORE INSERT ON entries BEGIN SELECT RAISE(IGNORE); END")

    with pytest.raises(Refusal) as caught:
        ledger.append(decision(1))
    assert caught.value.reason is Reason.EVIDENCE_UNAVAILABLE
    ledger.append(decision(2))

    assert ledger.path != path
    ledger.close()
    assert [entry.record["kind"] for entry in read_chain(path)] == [RecordKind.HEAD]


def test_a_chain_with_a_trigger_of_others_is_not_continued(tmp_path: Path) -> None:
    """It might take away what is put in."""
    path = stopped_chain(tmp_path)
    tamper(path, "CREATE TRIGGER gone AFTER INSERT ON entries BEGIN DELETE FROM entries; END")

    ledger = ledger_in(tmp_path)

    assert ledger.path != path
    ledger.close()


@pytest.mark.parametrize("suffix", [".head", ".lock", ".db"])
def test_a_pipe_in_a_files_place_holds_nobody_up(tmp_path: Path, suffix: str) -> None:
    """Neither whoever verifies nor a server that starts."""
    path = stopped_chain(tmp_path).with_suffix(suffix)
    path.unlink()
    os.mkfifo(path)

    holds = verify_folder(tmp_path).holds
    ledger_in(tmp_path).close()

    assert holds is (suffix == ".lock")


def test_a_key_without_an_end_is_none(tmp_path: Path) -> None:
    """A link to a device is read no further than a key goes."""
    stopped_chain(tmp_path)
    (tmp_path / "endless").write_bytes(b" " * 5000)

    for key in (Path("/dev/zero"), tmp_path / "endless"):
        with pytest.raises(ConfigurationError, match="wants an Ed25519 key as a JWK, got OSError"):
            verify_folder(tmp_path, key=key)


def test_a_name_that_is_no_text_is_read_like_any_other(tmp_path: Path) -> None:
    """A file system takes any bytes."""
    path = stopped_chain(tmp_path)
    shutil.copy(path, tmp_path / os.fsdecode(b"\xff\x9b.db"))
    told: list[str] = []

    assert any("files were swapped or renamed" in problem for problem in verified(tmp_path))
    assert len(list(read_sources([tmp_path], told.append))) == 2 * len(list(read_chain(path)))
    assert told == []


def test_an_outcome_of_no_decision_is_seen_in_a_story() -> None:
    """Whoever makes a page of an export alone has nothing else that tells of it."""
    lost = Kept(kind="outcome", time_unix_nano=5, attributes={"agentguard.decision.id": "D1"})

    assert part_of([lost], Selection()) == [lost]
    assert part_of([lost], Selection(since=1.0)) == []


def test_a_chain_with_a_call_that_ran_undecided_is_not_shown_as_whole(tmp_path: Path) -> None:
    """What is found at the end counts as what is found on the way."""
    ledger = ledger_in(tmp_path)
    ledger.append(outcome(1))
    ledger.close()

    assert [chain.whole for chain in verify_folder(tmp_path).chains] == [False]


def test_a_call_whose_decision_was_pruned_in_another_chain_is_in_order(tmp_path: Path) -> None:
    """Its process had to begin another chain meanwhile, which is not pruned."""
    old = decision_id(NOW - 1001, b"0" * 10)
    now = NOW - 1001
    first = ledger_in(tmp_path, clock=lambda: now)
    first.append(
        record(RecordKind.DECISION, {"agentguard.decision.id": old, "agentguard.decision.effect": "allow"}, at=now)
    )
    now = NOW
    second = ledger_in(tmp_path)
    second.append(record(RecordKind.OUTCOME, {"agentguard.decision.id": old}, at=now))
    first.append(decision(2))
    first.close()
    second.close()

    prune(tmp_path, older_than=NOW - 1, pause=0)

    assert verified(tmp_path) == []


def test_values_nested_without_end_are_no_attribute() -> None:
    """However deep a reader of JSON goes."""
    nested: object = {"stringValue": "x"}
    for _ in range(50_000):
        nested = {"arrayValue": {"values": [nested]}}

    assert _value(nested) == (None,)


def test_folders_above_are_not_everybodys(tmp_path: Path) -> None:
    """Whoever can write there can put another folder in the state's place."""
    before = os.umask(0)
    try:
        private_folder(tmp_path / "a" / "b")
    finally:
        os.umask(before)

    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o755


def test_a_chain_does_not_begin_without_its_head_beside_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Were its process killed then, it would look as if somebody had cut it."""
    ledger = ledger_in(tmp_path / "full")
    monkeypatch.setattr("agentguard.evidence.heads.replace", Mock(side_effect=OSError(errno.ENOSPC, "")))
    ledger._spoil()

    for _ in range(2):
        with pytest.raises(Refusal):
            ledger.append(decision(1))

    assert len(list((tmp_path / "full").glob("*.db"))) == 1
    monkeypatch.undo()
    ledger.append(decision(1))
    ledger.close()
    assert verified(tmp_path / "full") == []
