"""Somebody who can write to the evidence folder changes what is on record."""

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from agentguard.evidence.chainfile import read_chain
from agentguard.evidence.elsewhere import read_export
from agentguard.evidence.heads import HeadKey
from agentguard.evidence.verify import verify_folder
from tests.evidence.chains import (
    cut_behind,
    decision,
    exported,
    first_head,
    found,
    ledger_in,
    stopped_chain,
    tamper,
    verified,
    write_anew,
)


def problems_against(folder: Path, export: Path) -> list[str]:
    """Return what is wrong with a folder beside a collector's export."""
    told: list[str] = []
    report = verify_folder(folder, delivered=read_export(export, told.append), against=str(export))
    assert told == []
    return found(report)


def test_untouched_evidence_holds(tmp_path: Path) -> None:
    """The others below find something only because something was done."""
    stopped_chain(tmp_path / "evidence")
    export = exported(tmp_path / "evidence", tmp_path / "export.jsonl")

    assert verified(tmp_path / "evidence") == []
    assert problems_against(tmp_path / "evidence", export) == []


def test_an_edited_record_is_found(tmp_path: Path) -> None:
    """A denial that reads as an allow is not what was hashed."""
    path = stopped_chain(tmp_path)
    tamper(path, """UPDATE entries SET text = replace(text, '"reader"', '"writer"') WHERE seq = 4""")

    assert verified(tmp_path) == [
        f"chain {path.stem}, seq 4: the record is not what was hashed: it was changed, or is another's"
    ]


def test_a_deleted_record_is_found(tmp_path: Path) -> None:
    """It leaves a gap, and the one after it follows nothing."""
    path = stopped_chain(tmp_path)
    tamper(path, "DELETE FROM entries WHERE seq = 4")

    assert f"chain {path.stem}, seq 5: seq 4 is missing before it" in verified(tmp_path)


def test_a_deleted_record_whose_followers_moved_up_is_found(tmp_path: Path) -> None:
    """Without the gap, the hashes tell."""
    path = stopped_chain(tmp_path)
    tamper(path, "DELETE FROM entries WHERE seq = 4", "UPDATE entries SET seq = seq - 1 WHERE seq > 4")

    assert verified(tmp_path)[0] == f"chain {path.stem}, seq 4: it does not follow the record before it"


def test_an_inserted_record_is_found(tmp_path: Path) -> None:
    """One that was hashed well, too: the next one does not follow it."""
    path = stopped_chain(tmp_path)
    tamper(
        path,
        "UPDATE entries SET seq = -seq - 1 WHERE seq > 3",
        "UPDATE entries SET seq = -seq WHERE seq < 0",
        "INSERT INTO entries SELECT 4, hash, prev_hash, text FROM entries WHERE seq = 3",
    )

    assert f"chain {path.stem}, seq 4: it does not follow the record before it" in verified(tmp_path)


def test_reordered_records_are_found(tmp_path: Path) -> None:
    """Each is whole, and in the wrong place."""
    path = stopped_chain(tmp_path)
    tamper(
        path,
        "UPDATE entries SET seq = -1 WHERE seq = 3",
        "UPDATE entries SET seq = 3 WHERE seq = 4",
        "UPDATE entries SET seq = 4 WHERE seq = -1",
    )

    assert f"chain {path.stem}, seq 3: it does not follow the record before it" in verified(tmp_path)


def test_a_cut_tail_is_found(tmp_path: Path) -> None:
    """The head beside the chain says how far it went."""
    path = stopped_chain(tmp_path)
    *_, last = read_chain(path)
    cut_behind(path, last.seq - 3)

    assert verified(tmp_path) == [
        (
            f"chain {path.stem}, seq {last.seq - 3}: the chain ends here, and a head of seq {last.seq - 1} was signed: "
            "its tail was cut"
        )
    ]


def test_a_cut_tail_whose_head_was_put_back_too_is_found_elsewhere(tmp_path: Path) -> None:
    """Everything here says that it ends there; what was delivered does not."""
    folder = tmp_path / "evidence"
    path = stopped_chain(folder)
    export = exported(folder, tmp_path / "export.jsonl")
    cut_behind(path, 6)
    heads = [entry for entry in read_chain(path) if entry.record["kind"] == "head"]
    path.with_suffix(".head").write_text(heads[-1].record["attributes"]["agentguard.evidence.head"])

    report = verify_folder(folder)

    assert found(report) == []
    assert any("it ends without a stop" in str(note) for note in report.notes)
    assert problems_against(folder, export) == [
        (
            f"chain {path.stem}, seq 7: 3 records were delivered up to seq 12, and not here: "
            "the chain was cut, or an old copy was put in its place"
        )
    ]


def test_a_tail_written_anew_without_the_key_is_found(tmp_path: Path) -> None:
    """Hashes alone can be made by anybody, heads cannot."""
    path = stopped_chain(tmp_path)
    texts = [entry.text for entry in read_chain(path)]
    path.unlink()
    write_anew(path, [text.replace('"reader"', '"writer"') for text in texts])

    problems = verified(tmp_path)

    assert any("the head names another record than the one before it" in problem for problem in problems)


def test_a_chain_written_anew_with_the_key_is_found_elsewhere(tmp_path: Path) -> None:
    """Whoever has the server's key can lie here, and cannot take back what was delivered."""
    folder = tmp_path / "evidence"
    path = stopped_chain(folder, calls=1)
    export = exported(folder, tmp_path / "export.jsonl")
    key = HeadKey.of(folder)
    texts = [first_head(path, key), *(entry.text.replace("reader", "writer") for entry in list(read_chain(path))[1:3])]
    path.unlink()
    write_anew(path, texts, key=key)

    assert verified(folder) == []
    assert problems_against(folder, export) == [
        f"chain {path.stem}, seq 2: another record was delivered from this place: history was rewritten"
    ]


def test_two_swapped_chains_are_found(tmp_path: Path) -> None:
    """Each hash has its chain's name in it, and so has each file."""
    one, two = ledger_in(tmp_path), ledger_in(tmp_path)
    paths = one.path, two.path
    for ledger in (one, two):
        ledger.append(decision(1 if ledger is one else 2))
        ledger.close()
    first, second = paths
    assert first is not None
    assert second is not None
    shutil.move(first, tmp_path / "kept")
    shutil.move(second, first)
    shutil.move(tmp_path / "kept", second)

    problems = verified(tmp_path)

    assert f"chain {first.stem}: the file holds chain `{second.stem}`: files were swapped or renamed" in problems
    assert f"chain {second.stem}: the file holds chain `{first.stem}`: files were swapped or renamed" in problems


def test_an_old_copy_of_a_chain_is_found(tmp_path: Path) -> None:
    """The head beside it is younger."""
    path = stopped_chain(tmp_path)
    shutil.copy(path, tmp_path / "copy")
    ledger = ledger_in(tmp_path)
    ledger.append(decision(9))
    ledger.close()
    shutil.move(tmp_path / "copy", path)

    assert any("its tail was cut" in problem for problem in verified(tmp_path))


def test_an_old_copy_of_the_whole_folder_is_found_elsewhere(tmp_path: Path) -> None:
    """Nothing here knows better any more."""
    folder = tmp_path / "evidence"
    path = stopped_chain(folder)
    shutil.copytree(folder, tmp_path / "copy")
    ledger = ledger_in(folder)
    entry = ledger.append(decision(9))
    ledger.close()
    export = exported(folder, tmp_path / "export.jsonl")
    shutil.rmtree(folder)
    shutil.move(tmp_path / "copy", folder)

    assert verified(folder) == []
    assert problems_against(folder, export) == [
        (
            f"chain {path.stem}, seq {entry.seq}: 1 record was delivered up to seq {entry.seq}, and not here: "
            "the chain was cut, or an old copy was put in its place"
        )
    ]


def test_a_deleted_chain_is_found(tmp_path: Path) -> None:
    """Its head lies there without it."""
    path = stopped_chain(tmp_path)
    path.unlink()

    assert verified(tmp_path) == [
        f"chain {path.stem}: the whole chain is gone: `{path.stem}.head` lies there without it"
    ]


def test_a_deleted_chain_of_which_nothing_is_left_is_found_elsewhere(tmp_path: Path) -> None:
    """Whoever removes its head too cannot remove what was delivered."""
    folder = tmp_path / "evidence"
    one, two = ledger_in(folder), ledger_in(folder)
    gone = two.path
    assert gone is not None
    for ledger in (one, two):
        ledger.append(decision(1 if ledger is one else 2))
        ledger.close()
    export = exported(folder, tmp_path / "export.jsonl")
    gone.unlink()
    gone.with_suffix(".head").unlink()

    assert verified(folder) == []
    assert problems_against(folder, export) == [
        f"chain {gone.stem}: the whole chain is gone: 1 record was delivered, up to seq 2"
    ]


def test_a_chain_put_in_from_elsewhere_is_found(tmp_path: Path) -> None:
    """Nobody without the key can begin one."""
    stopped_chain(tmp_path / "evidence")
    foreign = stopped_chain(tmp_path / "elsewhere")
    for file in (foreign, foreign.with_suffix(".head")):
        shutil.copy(file, tmp_path / "evidence")

    assert any("it is signed by another key" in problem for problem in verified(tmp_path / "evidence"))


def test_a_comparison_with_nothing_is_not_a_pass(tmp_path: Path) -> None:
    """An export of other servers proves nothing of this one."""
    stopped_chain(tmp_path / "evidence")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n")

    assert problems_against(tmp_path / "evidence", empty) == [
        "nothing of these chains was delivered: the comparison proves nothing"
    ]


@pytest.mark.parametrize(
    "statement", ["UPDATE entries SET text = 'x' WHERE seq = 2", "DELETE FROM entries WHERE seq = 2"]
)
def test_a_slip_of_the_hand_is_refused_by_the_file(statement: str, tmp_path: Path) -> None:
    """Whoever means it can drop the triggers, and is found."""
    path = stopped_chain(tmp_path)

    with (
        closing(sqlite3.connect(path, isolation_level=None)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="evidence is never"),
    ):
        connection.execute(statement)
