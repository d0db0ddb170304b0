import json
import sqlite3
from array import array
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError
from agentguard.evidence.chainfile import create, read_chain
from agentguard.evidence.elsewhere import Delivered, read_export, said_by
from agentguard.evidence.heads import Head, HeadKey, Occasion, Stub
from agentguard.evidence.kept import kept_of
from agentguard.evidence.proof import Finding, Found
from agentguard.evidence.verify import verify_folder
from tests.evidence.chains import (
    NOW,
    cut_behind,
    decision,
    first_head,
    found,
    head_text,
    killed,
    ledger_in,
    next_entry,
    outcome,
    stopped_chain,
    tamper,
    verified,
    write_anew,
)


def test_a_running_servers_evidence_holds(tmp_path: Path) -> None:
    """It is verified beside the writer; that it has not stopped is nothing to note."""
    ledger = ledger_in(tmp_path)
    ledger.append(decision(1))

    report = verify_folder(tmp_path)

    assert report.holds
    assert report.notes == ()
    (chain,) = report.chains
    assert (chain.records, chain.first_seq, chain.last_seq, chain.heads, chain.whole) == (2, 1, 2, 1, True)
    assert chain.key == HeadKey.of(tmp_path).public.id
    ledger.close()


def test_a_report_is_told_as_a_page_shows_it(tmp_path: Path) -> None:
    """In lines, with the chain and the place in front."""
    path = stopped_chain(tmp_path)
    tamper(path, "UPDATE entries SET hash = 'x' WHERE seq = 15")

    proof = verify_folder(tmp_path, against="").proof()

    assert not proof.holds
    assert proof.chains[0].whole is False
    assert proof.problems == (
        f"chain {path.stem}, seq 15: the record is not what was hashed: it was changed, or is another's",
    )


@pytest.mark.parametrize("make", [HeadKey.of, str])
def test_nothing_is_not_a_pass(make: object, tmp_path: Path) -> None:
    """A folder without evidence, or without a key, proves nothing."""
    assert callable(make)
    make(tmp_path)

    with pytest.raises(
        ConfigurationError, match=r"holds no chain, though `head.jwk` lies there|holds no evidence: name"
    ):
        verify_folder(tmp_path)


def test_a_key_that_was_kept_elsewhere_counts(tmp_path: Path) -> None:
    """Whoever can write to the folder can exchange the one that lies there."""
    stopped_chain(tmp_path / "evidence")
    kept = tmp_path / "kept.jwk"
    kept.write_text((tmp_path / "evidence" / "head.jwk").read_text())
    other = HeadKey.of(tmp_path)
    (tmp_path / "evidence" / "head.jwk").write_text(other.public.text())

    assert verify_folder(tmp_path / "evidence", key=kept).holds
    assert not verify_folder(tmp_path / "evidence").holds


def test_records_that_were_signed_only_after_a_restart_are_named(tmp_path: Path) -> None:
    """Until then nothing but the file vouched for them."""
    ledger = ledger_in(tmp_path)
    ledger.append(decision(1))
    ledger.append(decision(2))
    killed(ledger)
    ledger_in(tmp_path).close()

    (note,) = verify_folder(tmp_path).notes

    assert note.what.endswith(
        "seq 2 to 3 were signed only afterwards, and records between seq 3 and seq 4 may be missing"
    )


def test_a_killed_servers_evidence_holds_with_a_note(tmp_path: Path) -> None:
    """Killed or cut behind the last head: that cannot be told here, and is said."""
    path = stopped_chain(tmp_path)
    cut_behind(path, 2)
    path.with_suffix(".head").write_text(next(read_chain(path)).record["attributes"]["agentguard.evidence.head"])

    report = verify_folder(tmp_path)

    assert report.holds
    assert [str(note) for note in report.notes] == [
        (
            f"chain {path.stem}, seq 2: it ends without a stop, as where its process was killed: "
            "up to 4 records behind the last head may be missing, and only a copy elsewhere would show it"
        )
    ]


def test_a_killed_and_continued_chain_with_nothing_unsigned_is_noted(tmp_path: Path) -> None:
    """Nothing was lost between the last head and the next."""
    path = stopped_chain(tmp_path)
    cut_behind(path, 1)
    path.with_suffix(".head").write_text(next(read_chain(path)).record["attributes"]["agentguard.evidence.head"])
    ledger_in(tmp_path).close()

    report = verify_folder(tmp_path)

    assert report.holds
    assert ["nothing was unsigned" in str(note) for note in report.notes] == [True]


def signed(path: Path, seq: int, digest: str, occasion: Occasion, chain_id: str | None = None) -> str:
    """Return the record of a head that the server's own key signed."""
    key = HeadKey.of(path.parent)
    head = Head(
        chain_id=chain_id or path.stem, seq=seq, hash=digest, time_unix_nano=int(NOW * 1e9), every=4, occasion=occasion
    )
    return head_text(key.sign(head))


def test_more_records_than_a_head_allows_are_found(tmp_path: Path) -> None:
    """Without the key, a chain can be made longer, not be signed."""
    path = tmp_path / "c.db"
    key = HeadKey.of(tmp_path)
    texts = [first_head(path, key), *("{}" for _ in range(6))]
    write_anew(path, texts)

    assert "chain c, seq 6: more than 4 records follow the head before it" in verified(tmp_path)


def test_a_chain_that_begins_without_a_head_is_found(tmp_path: Path) -> None:
    """Nobody who could sign began it."""
    HeadKey.of(tmp_path)
    create(tmp_path / "c.db", "{}")

    assert "chain c, seq 1: the chain does not begin with a signed head" in verified(tmp_path)


def test_a_chain_that_goes_on_after_a_stop_is_found(tmp_path: Path) -> None:
    """A server that starts again signs that it continues; this was added by somebody else."""
    path = stopped_chain(tmp_path)
    tail = list(read_chain(path))[-1]
    follower = signed(path, tail.seq, tail.hash, Occasion.RUNNING)
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        entry = next_entry(tail, follower)
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)", (entry.seq, entry.hash, entry.prev_hash, entry.text)
        )

    assert (
        f"chain {path.stem}, seq {entry.seq}: the chain goes on after a stop, and nobody signed that it is continued"
        in verified(tmp_path)
    )


def test_records_behind_a_stop_are_found(tmp_path: Path) -> None:
    """The same without a head: whoever has no key cannot sign one."""
    path = stopped_chain(tmp_path)
    tail = list(read_chain(path))[-1]
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        entry = next_entry(tail, '{"attributes":{},"kind":"policy","time_unix_nano":1}')
        connection.execute(
            "INSERT INTO entries VALUES (?, ?, ?, ?)", (entry.seq, entry.hash, entry.prev_hash, entry.text)
        )

    assert any("after a stop" in problem for problem in verified(tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{other}", "its last head is that of chain `other`"),
        ("none", "its last head, `{name}`, does not hold: it is not in the form of a signed one"),
        ("{wrong}", "it is not the record that the last head names"),
        (None, "its last head, `{name}`, is gone"),
    ],
)
def test_a_last_head_that_is_not_the_chains_is_found(content: str | None, message: str, tmp_path: Path) -> None:
    """It says how far the chain went, so it has to be right."""
    path = stopped_chain(tmp_path)
    beside = path.with_suffix(".head")
    key = HeadKey.of(tmp_path)
    head = key.public.head(beside.read_text().strip())
    if content is None:
        beside.unlink()
    else:
        beside.write_text(
            content.replace("{other}", key.sign(replace(head, chain_id="other"))).replace(
                "{wrong}", key.sign(replace(head, hash="0" * 64))
            )
        )

    assert any(message.replace("{name}", beside.name) in problem for problem in verified(tmp_path))


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("DELETE FROM entries", "it holds no records"),
        ("PRAGMA application_id = 1", "it cannot be read to its end: the file is not a chain of agentguard"),
        ("UPDATE entries SET text = 'é' WHERE seq = 3", "the record is not what was hashed"),
        ("DELETE FROM entries WHERE seq BETWEEN 4 AND 6", "seq 4 to 6 are missing before it"),
        ("INSERT INTO stub VALUES (3, 'x')", "the stub of what was pruned does not hold"),
    ],
)
def test_a_file_that_is_out_of_order_is_found(statement: str, message: str, tmp_path: Path) -> None:
    """Whatever it is, it is said in words."""
    path = stopped_chain(tmp_path)
    tamper(path, statement)

    assert any(message in problem for problem in verified(tmp_path))


@pytest.mark.parametrize(
    ("chain_id", "digest", "message"),
    [
        ("other", "0" * 64, "the stub of what was pruned is that of chain `other`"),
        ("", "0" * 64, "seq 3: it is not the record that the stub names"),
    ],
)
def test_a_stub_of_something_else_is_found(chain_id: str, digest: str, message: str, tmp_path: Path) -> None:
    """Signed, and not for this chain or not for this history."""
    path = stopped_chain(tmp_path)
    stub = Stub(chain_id=chain_id or path.stem, seq=3, hash=digest, time_unix_nano=0, older_than=0)
    tamper(path, f"INSERT INTO stub VALUES (3, '{HeadKey.of(tmp_path).sign(stub)}')")  # noqa: S608

    assert any(message in problem for problem in verified(tmp_path))


def test_a_flood_of_problems_is_cut(tmp_path: Path) -> None:
    """A chain that was changed all over fills no screen."""
    stopped_chain(tmp_path)
    told = Found()
    for n in range(200):
        told.problem("c", n, "x")

    assert len(told.problems) == 101
    assert str(told.problems[-1]) == "chain c: and more, which are not told"
    assert str(Finding(chain_id="", seq=0, what="x")) == "x"


def test_two_deliveries_that_differ_are_found(tmp_path: Path) -> None:
    """Something was written anew between the two."""
    path = stopped_chain(tmp_path)
    entry = list(read_chain(path))[1]
    delivered = [
        Delivered(chain_id=path.stem, seq=2, hash=entry.hash),
        Delivered(chain_id=path.stem, seq=2, hash="0" * 64),
    ]

    report = verify_folder(tmp_path, delivered=delivered)

    assert found(report) == [
        f"chain {path.stem}, seq 2: two records with this place were delivered: history was rewritten"
    ]


def test_a_chain_that_is_gone_here_and_was_delivered_is_told_once(tmp_path: Path) -> None:
    """Its head says it as well."""
    path = stopped_chain(tmp_path)
    path.unlink()

    report = verify_folder(tmp_path, delivered=[Delivered(chain_id=path.stem, seq=2, hash="0" * 64)])

    assert len(report.problems) == 1


def test_an_export_is_read_past_what_is_none(tmp_path: Path) -> None:
    """It is told, by file and line."""
    export = tmp_path / "export.jsonl"
    span = {"name": "agentguard.authorize", "traceId": "1" * 32, "spanId": "1" * 16, "startTimeUnixNano": "1"}
    span |= {"endTimeUnixNano": "1"}
    export.write_text("nothing\n\n" + json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}) + "\n")
    told: list[str] = []

    assert list(read_export(export, told.append)) == []
    assert told == [f"{export}:1: is not JSON"]
    with pytest.raises(ConfigurationError, match="cannot be read: No such file or directory: name a file"):
        list(read_export(tmp_path / "nowhere", told.append))


def test_deliveries_of_one_record_that_say_different_things_are_found(tmp_path: Path) -> None:
    """The hash alone would not tell: whoever changed the copy left that as it was."""
    path = stopped_chain(tmp_path)
    entry = list(read_chain(path))[1]
    said = said_by(kept_of(entry))
    other = said._replace(values=array("q", [*said.values[:-1], 1]))
    delivered = [
        Delivered(chain_id=path.stem, seq=2, hash=entry.hash, said=said),
        Delivered(chain_id=path.stem, seq=2, hash=entry.hash, said=other),
    ]

    assert found(verify_folder(tmp_path, delivered=delivered)) == [
        (
            f"chain {path.stem}, seq 2: it was delivered twice, with another `agentguard.decision.id`: "
            "the copy there was changed"
        )
    ]


def test_what_was_delivered_of_no_record_is_compared_by_its_hash(tmp_path: Path) -> None:
    """That it has not the form of a record is told all the same."""
    ledger = ledger_in(tmp_path)
    entry = ledger.append({"kind": 5})
    ledger.close()
    delivered = [Delivered(chain_id=entry.chain_id, seq=entry.seq, hash=entry.hash)]

    report = verify_folder(tmp_path, delivered=delivered)

    assert [problem.what for problem in report.problems] == ["it is not in the form of a record"]
    assert (report.chains[0].compared, report.chains[0].compared_up_to) == (1, 2)


def test_a_folder_whose_chains_are_all_gone_is_compared(tmp_path: Path) -> None:
    """With their heads; what was delivered tells of them."""
    path = stopped_chain(tmp_path)
    path.unlink()
    path.with_suffix(".head").unlink()

    report = verify_folder(tmp_path, delivered=[Delivered(chain_id=path.stem, seq=2, hash="0" * 64)])

    assert found(report) == [f"chain {path.stem}: the whole chain is gone: 1 record was delivered, up to seq 2"]


def test_a_key_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    """With what to do about it."""
    stopped_chain(tmp_path)
    (tmp_path / "head.jwk").unlink()

    with pytest.raises(ConfigurationError, match=r"head.jwk` is not there: put it back, or name a copy of it with"):
        verify_folder(tmp_path)


def test_another_key_is_told_once_for_each_chain(tmp_path: Path) -> None:
    """It may have signed every head, and where they are is not known then."""
    path = stopped_chain(tmp_path / "evidence")
    kept = tmp_path / "kept.jwk"
    wanted = HeadKey.of(tmp_path).public
    kept.write_text(wanted.text())

    report = verify_folder(tmp_path / "evidence", key=kept)

    own = HeadKey.of(tmp_path / "evidence").public.id
    assert found(report) == [
        (
            f"chain {path.stem}: its last head, `{path.stem}.head`, does not hold: "
            f"it is signed by another key, `{own}`, wanted `{wanted.id}`"
        )
    ]
    assert report.notes == ()


def ran(folder: Path, *records: dict[str, object]) -> list[str]:
    """Return what is wrong and what is noted of records in this order."""
    ledger = ledger_in(folder)
    for one in records:
        ledger.append(one)
    ledger.close()
    report = verify_folder(folder)
    return [finding.what for finding in (*report.problems, *report.notes)]


def test_calls_in_order_are_nothing_to_tell(tmp_path: Path) -> None:
    """A decision without an outcome may be of a process that was killed in between."""
    assert (
        ran(tmp_path, decision(1), decision(2), outcome(2), outcome(1), decision(3), decision(4, effect="deny")) == []
    )


def test_a_call_without_a_decision_before_it_is_found(tmp_path: Path) -> None:
    """It ran, and nothing allowed it: neither nothing at all nor what came later."""
    assert ran(tmp_path, outcome(1), outcome(2), decision(2)) == [
        "a call ran, and its decision D1 is not on record before it",
        "a call ran, and its decision D2 is not on record before it",
    ]


def test_a_call_that_was_denied_and_ran_is_found(tmp_path: Path) -> None:
    """The one thing that must never be."""
    assert ran(tmp_path, decision(1, effect="deny"), outcome(1)) == [
        "decision D1 denied the call, and it has an outcome"
    ]


def test_what_is_on_record_twice_is_found(tmp_path: Path) -> None:
    """An id is one call's."""
    assert ran(tmp_path, decision(1), outcome(1), outcome(1), decision(1)) == [
        "decision D1 has a second outcome",
        "decision D1 is on record twice",
    ]


@pytest.mark.parametrize("effect", ["allow", "deny"])
def test_an_outcome_may_stand_in_another_chain(effect: str, tmp_path: Path) -> None:
    """Where a process had to begin another one in between; an earlier file or a later one."""
    one, two = sorted((ledger_in(tmp_path), ledger_in(tmp_path)), key=lambda ledger: str(ledger.path))
    two.append(decision(1, effect=effect))
    one.append(outcome(1))
    one.append(decision(2, effect=effect))
    two.append(outcome(2))
    one.close()
    two.close()

    assert len(verified(tmp_path)) == (0 if effect == "allow" else 2)


def test_a_clock_that_was_set_back_is_noted_once(tmp_path: Path) -> None:
    """It proves nothing; a small step is nothing, and the end of a run bears its own time."""
    late = {**decision(4, at=NOW - 3600), "kind": "run"}

    assert ran(
        tmp_path, decision(1, at=NOW + 3), decision(2, at=NOW + 100), decision(3, at=NOW), decision(5), late
    ) == ["the clock is 100 s behind an earlier record: it was set back"]


@pytest.mark.parametrize(
    "text",
    [
        {"kind": "dream", "time_unix_nano": 1, "attributes": {}},
        {"kind": "policy", "time_unix_nano": "1", "attributes": {}},
        {"kind": "policy", "time_unix_nano": 1, "attributes": []},
        {},
    ],
)
def test_what_is_no_record_is_found(text: dict[str, object], tmp_path: Path) -> None:
    """It is in the chain, and nobody knows what it says."""
    assert ran(tmp_path, text) == ["it is not in the form of a record"]


@pytest.mark.parametrize("kind", ["decision", "outcome"])
def test_a_call_without_an_id_is_found(kind: str, tmp_path: Path) -> None:
    """It cannot be told which it belongs to."""
    assert ran(tmp_path, {"kind": kind, "time_unix_nano": int(NOW * 1e9), "attributes": {}}) == [
        f"the {kind} has no decision id"
    ]
