import re
import threading
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError
from agentguard.evidence.chainfile import read_chain
from agentguard.evidence.cursor import Cursor
from agentguard.evidence.cursor import Delivered as Sent
from agentguard.evidence.elsewhere import Delivered
from agentguard.evidence.heads import HeadKey, Stub
from agentguard.evidence.prune import prune
from agentguard.evidence.record import record
from agentguard.evidence.trail import decision_id
from agentguard.evidence.verify import verify_folder
from agentguard.evidence.vocabulary import RecordKind
from tests.evidence.chains import NOW, decision, ledger_in, outcome, stopped_chain, tamper, verified


def aged_chain(folder: Path, days: int = 10, calls: int = 30) -> Path:
    """Return a chain with some calls a day, the last of them now."""
    now = NOW - days * 86400
    ledger = ledger_in(folder, clock=lambda: now, heads_every=10)
    path = ledger.path
    assert path is not None
    for day in range(days):
        now = NOW - (days - 1 - day) * 86400
        for n in range(calls):
            ledger.append(decision(day * calls + n, at=now))
            ledger.append(outcome(day * calls + n, at=now))
    ledger.close()
    return path


def test_what_is_old_goes_and_the_rest_verifies(tmp_path: Path) -> None:
    """The stub says after which record the chain begins."""
    path = aged_chain(tmp_path)
    before = list(read_chain(path))

    (pruned,) = prune(tmp_path, older_than=NOW - 5 * 86400 - 1, pause=0)

    after = list(read_chain(path))
    assert pruned.chain_id == path.stem
    assert pruned.removed == pruned.begins_after == before[-1].seq - len(after)
    assert after == before[pruned.removed :]
    assert after[0].record["time_unix_nano"] >= (NOW - 5 * 86400 - 1) * 1e9
    report = verify_folder(tmp_path)
    assert report.problems == ()
    assert [note.what for note in report.notes] == ["records up to here were pruned"]


def test_pruning_again_takes_no_more_than_there_is(tmp_path: Path) -> None:
    """And further on, another stub takes the first one's place."""
    aged_chain(tmp_path)
    prune(tmp_path, older_than=NOW - 5 * 86400 - 1, pause=0)

    assert prune(tmp_path, older_than=NOW - 5 * 86400 - 1, pause=0) == ()
    assert len(prune(tmp_path, older_than=NOW - 2 * 86400 - 1, pause=0)) == 1
    assert verified(tmp_path) == []


def test_a_chain_is_never_emptied(tmp_path: Path) -> None:
    """Its last head stays, so that its loss would be seen; and a server continues it."""
    path = aged_chain(tmp_path)

    prune(tmp_path, older_than=NOW + 86400, pause=0)

    assert [entry.record["kind"] for entry in read_chain(path)] == ["stop", "head"]
    assert verified(tmp_path) == []
    ledger = ledger_in(tmp_path)
    assert ledger.path == path
    ledger.append(decision(1000))
    ledger.close()
    assert verified(tmp_path) == []


def test_pruning_that_was_interrupted_verifies(tmp_path: Path) -> None:
    """The stub comes first: what it names may be gone or not."""
    path = aged_chain(tmp_path)
    key_seq = 50
    entry = list(read_chain(path))[key_seq - 1]
    stub = Stub(chain_id=path.stem, seq=key_seq, hash=entry.hash, time_unix_nano=0, older_than=0)
    tamper(path, f"INSERT INTO stub VALUES ({key_seq}, '{HeadKey.of(tmp_path).sign(stub)}')")  # noqa: S608
    assert verified(tmp_path) == []
    tamper(path, "DELETE FROM entries WHERE seq < 20")

    assert verified(tmp_path) == []


def test_more_than_the_stub_names_is_missed(tmp_path: Path) -> None:
    """Nobody signed for it."""
    path = aged_chain(tmp_path)
    (pruned,) = prune(tmp_path, older_than=NOW - 5 * 86400 - 1, pause=0)
    tamper(path, f"DELETE FROM entries WHERE seq <= {pruned.begins_after + 2}")  # noqa: S608

    first = pruned.begins_after + 1
    assert f"chain {path.stem}, seq {first + 2}: seq {first} to {first + 1} are missing before it" in verified(tmp_path)


def test_what_was_pruned_is_not_missed_beside_an_export(tmp_path: Path) -> None:
    """It is there alone now, as it was signed for."""
    path = aged_chain(tmp_path)
    delivered = [Delivered(chain_id=path.stem, seq=entry.seq, hash=entry.hash) for entry in read_chain(path)]
    prune(tmp_path, older_than=NOW - 5 * 86400 - 1, pause=0)

    assert verify_folder(tmp_path, delivered=delivered).holds


def test_an_outcome_whose_decision_was_pruned_is_in_order(tmp_path: Path) -> None:
    """Its decision's id says when it was made; one that claims to be younger is found."""
    old = decision_id(NOW - 86401, b"0" * 10)
    young = decision_id(NOW + 1, b"0" * 10)
    now = NOW - 86401.0
    ledger = ledger_in(tmp_path, clock=lambda: now)
    allowed = {"agentguard.decision.id": old, "agentguard.decision.effect": "allow"}
    ledger.append(record(RecordKind.DECISION, allowed, at=now))
    now = NOW
    ledger.append(record(RecordKind.OUTCOME, {"agentguard.decision.id": old}, at=now))
    ledger.close()

    prune(tmp_path, older_than=NOW - 1, pause=0)
    assert verified(tmp_path) == []

    ledger = ledger_in(tmp_path)
    ledger.append(record(RecordKind.OUTCOME, {"agentguard.decision.id": young}, at=now))
    ledger.close()
    assert [problem.rpartition("its decision ")[2] for problem in verified(tmp_path)] == [
        f"{young} is not on record before it"
    ]


def test_the_end_of_a_run_does_not_keep_what_is_old(tmp_path: Path) -> None:
    """It bears the time at which the run was over."""
    ledger = ledger_in(tmp_path, clock=lambda: NOW - 1000)
    ledger.append(record(RecordKind.RUN, {}, at=NOW + 1000))
    ledger.append(decision(1, at=NOW - 1000))
    ledger.append(decision(2, at=NOW))
    path = ledger.path
    assert path is not None
    ledger.close()

    prune(tmp_path, older_than=NOW - 1, pause=0)

    assert [entry.record["kind"] for entry in read_chain(path)] == ["decision", "stop", "head"]


def test_a_server_goes_on_writing_beside_it(tmp_path: Path) -> None:
    """Nothing is refused, and nothing lost."""
    aged_chain(tmp_path, calls=60)
    ledger = ledger_in(tmp_path, heads_every=20)
    over = threading.Event()
    kept = []

    def write() -> None:
        n = 10_000
        while not over.is_set():
            kept.append(ledger.append(decision(n)))
            n += 1

    thread = threading.Thread(target=write)
    thread.start()
    prune(tmp_path, older_than=NOW - 2 * 86400 - 1)
    over.set()
    thread.join()
    path = ledger.path
    assert path is not None
    ledger.close()

    assert kept
    assert set(kept) <= set(read_chain(path))
    assert verified(tmp_path) == []


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.with_suffix(".head").unlink(),
        lambda path: path.with_suffix(".head").write_text("x"),
        lambda path: path.write_text("x"),
        lambda path: tamper(path, "DROP TABLE stub"),
        lambda path: tamper(path, "UPDATE entries SET text = '{}' WHERE seq = 2"),
    ],
)
def test_nothing_is_signed_for_a_chain_that_is_not_whole(spoil: object, tmp_path: Path) -> None:
    """Pruning must not be the way to make a change hold."""
    path = stopped_chain(tmp_path)
    assert callable(spoil)
    spoil(path)

    (refused,) = prune(tmp_path, older_than=NOW + 1, pause=0)

    assert refused.removed == 0
    assert re.search(r"cannot be pruned: .*see what `agentguard evidence verify` says", refused.refused)


def test_what_goes_and_was_delivered_nowhere_is_counted(tmp_path: Path) -> None:
    """Where the chains are forwarded: then nobody has it any more."""
    path = aged_chain(tmp_path)
    cursor = Cursor(tmp_path, "forward-x", "http://collector:4318/v1/traces")
    cursor.advance(path.stem, Sent(100, "0" * 64), [path.stem])

    (pruned,) = prune(tmp_path, older_than=NOW - 5 * 86400 - 1, pause=0)

    assert pruned.undelivered == pruned.begins_after - 100 > 0


def test_a_folder_without_evidence_is_not_pruned(tmp_path: Path) -> None:
    """Nor does it get a key."""
    with pytest.raises(ConfigurationError, match="holds no chain: name the folder"):
        prune(tmp_path, older_than=NOW)

    assert list(tmp_path.iterdir()) == []
