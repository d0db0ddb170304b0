"""`agentguard revoke`: what it ends, what it asks first, and what it says then."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from agentguard import Kind, RunRecord, SQLiteStore
from agentguard.cli.main import main
from agentguard.lifecycle.local import ISSUER
from tests.cli.commands import agentguard
from tests.lifecycle.stores import invocation

NOW = 0
OTHER = "https://other.example"


@pytest.fixture(autouse=True)
def present(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the time when the test begins: the commands have no other clock."""
    monkeypatch.setattr(sys.modules[__name__], "NOW", int(time.time()))


def record(run_id: str, **facts: Any) -> RunRecord:
    """Return a run that began a minute ago."""
    given = {"issuer": ISSUER, "agent": "reader", "issued_at": NOW - 60, "ends_at": NOW + 600.0, **facts}
    return RunRecord(run_id=run_id, **given)


@pytest.fixture
def store(folder: Path) -> Iterator[SQLiteStore]:
    """Give the local store, with some runs."""
    with closing(SQLiteStore(folder / "store.db")) as store:
        for run in (
            record("aaaaaaaa-1", user="alice", task="t1"),
            record("aaaaaaaa-2", user="bob", task="t1", issued_at=NOW - 600),
            record("bbbbbbbb-1", agent="writer", user="alice", task="t2"),
            record("child", agent="helper", ancestors=("aaaaaaaa-1",)),
            record("foreign", issuer=OTHER),
        ):
            store.record_run(run)
        yield store


def live(store: SQLiteStore) -> set[str]:
    """Return which runs live."""
    return {run.run_id for run in store.runs() if run.state.live}


ALL = {"aaaaaaaa-1", "aaaaaaaa-2", "bbbbbbbb-1", "child", "foreign"}


def test_run_is_ended_with_what_stems_from_it(store: SQLiteStore) -> None:
    """For good, with the reason on record until its last token is over."""
    ran = agentguard("revoke", "aaaaaaaa-1", "--reason", "leaked a key")

    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout == "ended run aaaaaaaa-1 of reader, and 1 live run below it\n"
    assert live(store) == ALL - {"aaaaaaaa-1", "child"}
    kept = store.revocation(issuer=ISSUER, name="aaaaaaaa-1")
    assert kept is not None
    assert (kept.reason, kept.until) == ("leaked a key", NOW + 630)
    store.sync()
    assert store.ended(invocation("aaaaaaaa-1", issuer=ISSUER))


def test_beginning_of_an_id_is_enough_where_it_names_one_run(store: SQLiteStore) -> None:
    """What the table shows can be copied."""
    assert agentguard("revoke", "bbbbbbbb").stdout == "ended run bbbbbbbb-1 of writer\n"
    assert live(store) == ALL - {"bbbbbbbb-1"}


def test_beginning_of_an_id_that_names_several_ends_none(store: SQLiteStore) -> None:
    """Nobody guesses which was meant."""
    ran = agentguard("revoke", "aaaaaaaa")

    assert ran.status == 2
    assert "`aaaaaaaa` wants to name one run, got 2: give the whole id, and --issuer" in ran.stderr
    assert live(store) == ALL


def test_few_characters_of_an_id_are_too_short(store: SQLiteStore) -> None:
    """A slip of the keyboard ends nothing that lives, and nothing of it is kept."""
    ran = agentguard("revoke", "bbbbbbb")

    assert ran.status == 2
    assert ran.stderr == "agentguard: a short id wants 8 characters or more, got `bbbbbbb`: give more of it\n"
    assert live(store) == ALL
    assert store.revocation(issuer=ISSUER, name="bbbbbbb") is None


def test_short_id_that_is_whole_is_no_short_form_of_another(store: SQLiteStore) -> None:
    """An issuer may call its runs what it likes."""
    store.record_run(record("child-2"))

    assert agentguard("revoke", "child").stdout == "ended run child of helper\n"
    assert live(store) == {*ALL, "child-2"} - {"child"}


def test_run_of_an_issuer_that_records_none_here_is_revoked(store: SQLiteStore) -> None:
    """No typing error is likely where nothing was to be on record; a script goes on."""
    ran = agentguard("revoke", "a-jti", "--issuer", "https://elsewhere.example")

    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout == (
        "run a-jti of https://elsewhere.example is not on record here: its tokens are refused from now on\n"
    )
    store.sync()
    assert store.ended(invocation("a-jti", issuer="https://elsewhere.example"))

    told = agentguard("revoke", "another", "--issuer", "https://elsewhere.example", "--json")
    assert (told.status, told.json["known"], told.json["ended"]) == (0, False, [])


def test_run_that_is_not_on_record_is_revoked_all_the_same(store: SQLiteStore) -> None:
    """Its issuer may have recorded it elsewhere, or not at all; the command says that it saw nothing end."""
    ran = agentguard("revoke", "unknown-run", "--issuer", OTHER)

    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr.startswith(
        f"agentguard: no run `unknown-run` of `{OTHER}` is on record here; it is revoked all the same"
    )
    store.sync()
    assert store.ended(invocation("unknown-run", issuer=OTHER))
    assert not store.ended(invocation("unknown-run", issuer=ISSUER))
    kept = store.revocation(issuer=OTHER, name="unknown-run")
    assert kept is not None
    assert kept.until is None


def test_run_that_is_over_is_said_to_be(store: SQLiteStore) -> None:
    """Ending it again changes nothing, and is no failure."""
    agentguard("revoke", "aaaaaaaa-2")
    again = agentguard("revoke", "aaaaaaaa-2")

    assert (again.status, again.stdout) == (0, "run aaaaaaaa-2 was over already: revoked\n")
    assert agentguard("revoke", "aaaaaaaa-2", "--json").json["ended"] == []


def test_run_of_another_issuer_is_found_by_its_id(store: SQLiteStore) -> None:
    """The record says whose it is."""
    told = agentguard("revoke", "foreign", "--json").json

    assert told == {
        "issuer": OTHER, "kind": "run", "name": "foreign", "issued_before": None, "known": True, "ended": ["foreign"],
    }  # fmt: skip
    assert live(store) == ALL - {"foreign"}


def test_json_of_an_unknown_run_says_so(store: SQLiteStore) -> None:
    """And the status is 1, as without."""
    ran = agentguard("revoke", "unknown-run", "--json")

    assert ran.status == 1
    assert (ran.json["known"], ran.json["ended"]) == (False, [])


@pytest.mark.parametrize(
    ("arguments", "what", "gone"),
    [
        (("--agent", "reader"), "agent `reader`", {"aaaaaaaa-1", "aaaaaaaa-2", "child"}),
        (("--user", "alice"), "user `alice`", {"aaaaaaaa-1", "bbbbbbbb-1", "child"}),
        (("--task", "t2"), "task `t2`", {"bbbbbbbb-1"}),
        (("--all",), f"issuer `{ISSUER}`", ALL - {"foreign"}),
        (("--all", "--issuer", OTHER), f"issuer `{OTHER}`", {"foreign"}),
    ],
)
def test_many_runs_are_ended_by_what_they_share(
    arguments: tuple[str, ...], what: str, gone: set[str], store: SQLiteStore
) -> None:
    """Of one issuer alone, with what stems from them."""
    ran = agentguard("revoke", *arguments, "--yes")

    count = "1 live run" if len(gone) == 1 else f"{len(gone)} live runs"
    assert (ran.status, ran.stdout) == (0, f"ended {count} of {what}\n")
    assert ran.stderr == (
        "runs that begin in the next 30 s are ended too; later ones are not: --later-too ends those as well\n"
    )
    assert live(store) == ALL - gone


def test_nothing_on_record_is_not_told_as_nothing_done(store: SQLiteStore) -> None:
    """Another issuer's runs are not on record: what it has issued is refused all the same."""
    ended = agentguard("revoke", "--user", "6e7c", "--issuer", "https://elsewhere.example", "--before", "5m", "--yes")
    for_good = agentguard("revoke", "--user", "6e7c", "--later-too", "--yes")

    assert (ended.status, for_good.status) == (0, 0)
    assert re.fullmatch(
        r"no live run of user `6e7c` of `https://elsewhere.example` is on record here: what was issued before "
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC "
        r"is refused\n",
        ended.stdout,
    )
    assert for_good.stdout == "no live run of user `6e7c` is on record here: what is issued is refused, for good\n"
    store.sync()
    assert store.ended(invocation("a", issuer="https://elsewhere.example", user="6e7c", issued_at=NOW - 400))
    assert not store.ended(invocation("a", issuer="https://elsewhere.example", user="6e7c", issued_at=NOW))


def test_runs_that_began_later_go_on(store: SQLiteStore) -> None:
    """The cutoff is a time, or how long ago; clocks may differ, so 30 seconds count in."""
    for before in ("5m", "5m ago", datetime.fromtimestamp(NOW - 300, UTC).isoformat()):
        told = agentguard("revoke", "--agent", "reader", "--before", before, "--yes", "--json").json
        assert abs(told["issued_before"] - (NOW - 300)) < 60
        assert live(store) == ALL - {"aaaaaaaa-2"}


def test_agent_may_begin_again_unless_it_is_said_otherwise(store: SQLiteStore) -> None:
    """Ending what runs does not ban a name for ever; asking for that does."""
    agentguard("revoke", "--agent", "reader", "--yes")
    store.sync()
    later = invocation("later", issuer=ISSUER, agent="reader", issued_at=NOW + 120, run_ends_at=NOW + 600)
    assert not store.ended(later)

    told = agentguard("revoke", "--agent", "reader", "--later-too", "--yes", "--json").json
    assert told["issued_before"] is None
    store.sync()
    assert store.ended(later)
    refused = agentguard("token", "--agent", "reader", "--tool", "read", "--server", "records")
    assert refused.status == 1
    assert refused.stderr == "agentguard: the run cannot begin: every run of agent `reader` is ended, for good\n"


def test_agent_that_begins_again_at_once_is_told_when_it_may(store: SQLiteStore) -> None:
    """Within the leeway a new run cannot be told from one that was to be ended."""
    agentguard("revoke", "--agent", "reader", "--yes")

    refused = agentguard("token", "--agent", "reader", "--tool", "read", "--server", "records")

    assert refused.status == 1
    assert refused.stderr.startswith("agentguard: the run cannot begin: runs of agent `reader` that begin before ")
    assert refused.stderr.endswith(" UTC are ended: begin one after that\n")


def test_person_is_asked_before_many_runs_are_ended(store: SQLiteStore) -> None:
    """With how many there are; anything but yes ends none."""
    for typed in ("n\n", "\n", ""):
        ran = agentguard("revoke", "--agent", "reader", typed=typed)
        assert (ran.status, ran.stdout) == (1, "")
        assert "End 3 live runs of agent `reader`? [y/N]" in ran.stderr
        assert ran.stderr.endswith("agentguard: given up: nothing was ended\n")
    assert live(store) == ALL

    ran = agentguard("revoke", "--agent", "reader", "--later-too", typed="y\n")
    assert ran.status == 0
    assert "End 3 live runs of agent `reader`, and every later one, for good? [y/N]" in ran.stderr
    assert live(store) == ALL - {"aaaaaaaa-1", "aaaaaaaa-2", "child"}


def test_person_is_told_whose_runs_are_meant_where_it_is_another_issuer(store: SQLiteStore) -> None:
    """Two issuers may have an agent of one name."""
    ran = agentguard("revoke", "--agent", "reader", "--issuer", OTHER, typed="n\n")

    assert f"End 1 live run of agent `reader` of `{OTHER}`? [y/N]" in ran.stderr
    assert live(store) == ALL


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "revoke wants one of RUN_ID, --agent, --user, --task and --all, got 0"),
        (("x", "--all"), "revoke wants one of RUN_ID, --agent, --user, --task and --all, got 2"),
        (("--agent", "a", "--user", "b"), "got 2: name what to end"),
        (("x", "--before", "5m"), "got them beside a run's id: leave them out"),
        (("x", "--later-too"), "got them beside a run's id: leave them out"),
        (("--all", "--before", "5m", "--later-too"), "wants --before or --later-too, got both"),
        (("--all", "--before", "2026-11-24T10:00"), "--before wants a time with its zone, got `2026-11-24T10:00`"),
        (("--all", "--before", "2999-11-24T10:00Z"), "--before wants a time that has passed, got `2999-11-24T10:00Z`"),
        (("--all", "--before", "yesterday"), "a duration wants a number and s, m, h or d, got `yesterday`"),
        (("--all",), f"this ends 4 live runs of issuer `{ISSUER}`: confirm with --yes, there is no terminal to ask on"),
        (("--agent", "reader"), "this ends 3 live runs of agent `reader`: confirm with --yes, there is no terminal"),
        (
            ("--agent", "reader", "--later-too"),
            "this ends 3 live runs of agent `reader`, and every later one, for good",
        ),
        (("--agent", "", "--yes"), "ending the runs of an issuer's agent wants a `name`"),
        (("aaaaaaaa-1", "--reason", "completed: by hand"), "which a run says of itself: use other words"),
        (("--all", "--yes", "--store", "nowhere.db"), "--store wants a file that is there"),
    ],
)
def test_what_is_not_clear_ends_nothing(arguments: tuple[str, ...], message: str, store: SQLiteStore) -> None:
    """One line, status 2."""
    ran = agentguard("revoke", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1
    assert live(store) == ALL


def test_issuer_of_another_store_is_named_or_the_only_one(tmp_path: Path) -> None:
    """Guessing between two would end the wrong runs, or none."""
    path = tmp_path / "state" / "store.db"
    with closing(SQLiteStore(path)) as store:
        for arguments in (("--all", "--yes"), ("unknown-run",)):
            unclear = agentguard("revoke", *arguments, "--store", str(path))
            assert unclear.status == 2
            assert "the store has runs of none: add --issuer URL" in unclear.stderr
        store.record_run(record("a", issuer=OTHER))
        assert agentguard("revoke", "--all", "--yes", "--store", str(path), "--json").json["issuer"] == OTHER
        store.record_run(record("b"))
        unclear = agentguard("revoke", "--all", "--yes", "--store", str(path))

    assert unclear.status == 2
    assert f"the store has runs of `{OTHER}`, `{ISSUER}`: add --issuer URL" in unclear.stderr


def test_run_that_is_revoked_meanwhile_by_somebody_else_counts_once(store: SQLiteStore) -> None:
    """Nothing is taken back, and nothing ends twice."""
    store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="reader")

    assert (
        "no live run of agent `reader` is on record here" in agentguard("revoke", "--agent", "reader", "--yes").stdout
    )


def test_closed_standard_input_is_no_terminal_to_ask_on(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has no stream for it then."""
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(SystemExit) as left:
        main(["revoke", "--all"])

    assert left.value.code == 2
    assert live(store) == ALL


def test_name_that_steers_a_terminal_is_told_without_it(store: SQLiteStore) -> None:
    """A script may have it from an agent."""
    ran = agentguard("revoke", "--task", "\x1b[31mred", "--before", "999999999d ago", "--yes")

    assert ran.status == 0
    assert "task `\ufffd[31mred`" in ran.stdout
    assert live(store) == ALL
