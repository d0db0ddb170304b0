"""`agentguard runs`: the table of live runs, and what it says to programs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from agentguard import RunRecord, RunState, SQLiteStore
from agentguard.cli import runs as command
from agentguard.cli.output import duration
from agentguard.cli.runs import repaint, table
from agentguard.lifecycle.local import ISSUER
from tests.cli.commands import Stream, agentguard
from tests.lifecycle.stores import invocation

NOW = 1_800_000_000


def run(run_id: str, **facts: Any) -> RunRecord:
    """Return a run that began 200 s ago and has 100 s left."""
    return RunRecord(
        **{
            "issuer": ISSUER,
            "run_id": run_id,
            "agent": "reader",
            "issued_at": NOW - 200,
            "ends_at": NOW + 100.0,
            **facts,
        }
    )


def drawn(*records: RunRecord, width: int = 80) -> list[str]:
    """Return the lines of the table."""
    stream = Stream()
    Console(file=stream, width=width).print(table(records, now=NOW, width=width))
    return [line.rstrip() for line in stream.getvalue().splitlines()]


def test_table_fits_80_columns() -> None:
    """Every column is there, and the id is long enough to end the run by."""
    lines = drawn(
        run(
            "7f3a9c0b11d24e6f8a90b1c2d3e4f506",
            agent="billing-agent",
            user="alice",
            task="invoice-42",
            state=RunState.ACTIVE,
            calls=12,
        )
    )

    assert lines == [
        "agent          user   task           age    left  calls  state   run",
        "billing-agent  alice  invoice-42  3m 20s  1m 40s     12  active  7f3a9c0b11d2",
    ]


def test_long_names_are_cut_and_the_rest_stays() -> None:
    """Nothing wraps: a table that breaks its lines cannot be read."""
    lines = drawn(
        run("7f3a9c0b11d24e6f8a90b1c2d3e4f506", agent="a" * 60, user="u" * 60, task="t" * 60, reason="r" * 60)
    )

    assert len(lines) == 2
    assert max(len(line) for line in lines) <= 80
    assert "aaa…" in lines[1]
    assert lines[1].endswith("7f3a9c0b11d2")


def test_narrow_terminal_gets_a_narrow_table() -> None:
    """Cut and not wrapped."""
    lines = drawn(run("7f3a9c0b11d24e6f8a90b1c2d3e4f506", agent="a" * 60, user="u" * 60, task="t" * 60), width=40)

    assert len(lines) == 2
    assert max(len(line) for line in lines) <= 40
    assert lines[1].startswith("a")


def test_wide_terminal_shows_the_whole_id() -> None:
    """Where there is room."""
    assert drawn(run("7f3a9c0b11d24e6f8a90b1c2d3e4f506"), width=120)[1].endswith("7f3a9c0b11d24e6f8a90b1c2d3e4f506")


def test_wide_terminal_shows_the_server_that_a_run_is_for() -> None:
    """By its URL, or by the name that `--server` takes."""
    lines = drawn(
        run("a", audience="http://127.0.0.1:8000/mcp"), run("b", audience="urn:agentguard:stdio:records"), width=120
    )

    assert lines[0].split() == ["agent", "user", "task", "server", "age", "left", "calls", "state", "run"]
    assert [line.split()[1] for line in lines[1:]] == ["http://127.0.0.1:8000/mcp", "records"]


def test_children_stand_below_the_run_that_they_stem_from() -> None:
    """Whatever the order in which they began; one whose parent is not listed stands alone."""
    lines = drawn(
        run("root-1"),
        run("root-2", agent="writer"),
        run("child-1", agent="helper", ancestors=("root-1",)),
        run("child-2", agent="second", ancestors=("root-1",)),
        run("grandchild", agent="deep", ancestors=("root-1", "child-1")),
        run("orphan", agent="orphan", ancestors=("gone",)),
        run("other", agent="other", issuer="https://other.example", ancestors=("root-1",)),
    )

    assert [line[:20].split("  ")[0].rstrip() or line[:12].rstrip() for line in lines[1:]] == [
        "reader", "└ helper", "  └ deep", "└ second", "writer", "orphan", "other",
    ]  # fmt: skip


def test_ended_runs_say_how() -> None:
    """In their issuer's words, or whose ever ended them."""
    over = {"ended_at": NOW - 10.0}
    lines = drawn(
        run("a", state=RunState.COMPLETED, reason="completed", **over),
        run("b", state=RunState.COMPLETED, reason="completed: ValueError", **over),
        run("c", state=RunState.REVOKED, reason="leaked a key", **over),
        run("d", state=RunState.REVOKED, **over),
        run("e", state=RunState.EXPIRED, ends_at=NOW - 1.0),
        run("f", state=RunState.COMPLETED, **over),
    )

    for line, state in zip(
        lines[1:],
        ["completed", "completed: ValueError", "revoked: leaked a key", "revoked", "expired", "completed"],
        strict=True,
    ):
        assert f"0  {state}  " in line
        assert "1m 40s" not in line


def test_names_do_not_steer_the_terminal() -> None:
    """An agent is called what somebody called it: no colours, no new lines, no reversed text, no markup."""
    hostile = "a\x1b[2J\x1b]0;x\x07\n\u202e[red]b"
    lines = drawn(run("r\x1b[2J", agent=hostile, user=hostile, task=hostile, reason=hostile), width=200)

    assert len(lines) == 2
    assert all(line.isprintable() for line in lines)
    assert "[red]b" in lines[1]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "0s"),
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (200, "3m 20s"),
        (3600, "1h"),
        (3661, "1h 1m"),
        (90_000, "1d 1h"),
    ],
)
def test_duration_has_its_two_largest_units(seconds: float, text: str) -> None:
    """Short enough for a column."""
    assert duration(seconds) == text


def fill(folder: Path) -> None:
    """Record a run that was used, one below it, and one that was revoked."""
    now = int(time.time())
    with closing(SQLiteStore(folder / "store.db")) as store:
        for run_id, above in (("parent", ()), ("child", ("parent",)), ("gone", ())):
            store.record_run(run(run_id, user="alice", issued_at=now - 60, ends_at=now + 240.0, ancestors=above))
        store.used(invocation("parent", issuer=ISSUER, run_ends_at=now + 240))
        store.revoke(issuer=ISSUER, run_id="gone", reason="by hand")


def test_json_lists_live_runs_with_every_field(folder: Path) -> None:
    """The names stay; a program relies on them."""
    fill(folder)

    parent, child = agentguard("runs", "--json").json

    assert list(parent) == [
        "run_id", "issuer", "agent", "user", "task", "purpose", "audience", "ancestors", "state", "reason", "issued_at",
        "ends_at", "used_at", "ended_at", "calls",
    ]  # fmt: skip
    assert (parent["run_id"], parent["state"], parent["calls"], parent["user"]) == ("parent", "active", 1, "alice")
    assert parent["ends_at"] - parent["issued_at"] == 300
    assert (child["state"], child["ancestors"], child["used_at"]) == ("issued", ["parent"], None)


def test_all_lists_ended_runs_too(folder: Path) -> None:
    """With how they ended."""
    fill(folder)

    listed = {record["run_id"]: record for record in agentguard("runs", "--all", "--json").json}

    assert set(listed) == {"parent", "child", "gone"}
    assert (listed["gone"]["state"], listed["gone"]["reason"]) == ("revoked", "by hand")
    assert listed["gone"]["ended_at"] is not None
    assert "revoked: by hand" in agentguard("runs", "--all").stdout


def test_table_is_coloured_on_a_terminal_alone(folder: Path) -> None:
    """What goes into a file or a pipe is plain, and not cut at 80 columns."""
    fill(folder)

    plain, coloured = agentguard("runs"), agentguard("runs", terminal=True)

    assert "\x1b" not in plain.stdout
    assert "\x1b" in coloured.stdout
    assert [line.split()[0] for line in plain.stdout.splitlines()] == ["agent", "reader", "└"]


def test_width_is_the_environments_where_it_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Piped into a pager, the table fits what is seen."""
    fill(folder)
    monkeypatch.setenv("COLUMNS", "60")

    assert max(len(line) for line in agentguard("runs").stdout.splitlines()) <= 60


def test_no_runs_are_nothing_for_a_program_and_a_word_for_a_person() -> None:
    """An empty list is no failure."""
    assert agentguard("runs", "--json").json == []
    quiet = agentguard("runs")
    assert (quiet.status, quiet.stdout, quiet.stderr) == (0, "", "")
    assert agentguard("runs", terminal=True).stderr == "no live run is on record here\n"
    assert agentguard("runs", "--all", terminal=True).stderr == "no run is on record here\n"


def test_watching_wants_a_terminal() -> None:
    """And JSON is not repainted."""
    for ran in (agentguard("runs", "--watch"), agentguard("runs", "--watch", "--json", terminal=True)):
        assert ran.status == 2
        assert "--watch repaints a terminal" in ran.stderr


def test_watching_wants_a_terminal_that_can_be_repainted() -> None:
    """A dumb one would show nothing until the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.cli.commands.TERM", "dumb")
        ran = agentguard("runs", "--watch", terminal=True)

    assert ran.status == 2
    assert "--watch repaints a terminal" in ran.stderr


def interrupting_after(count: int) -> Callable[[float], None]:
    """Return a pause that a person ends after some looks."""
    left = [count]

    def pause(_: float) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1

    return pause


def test_table_is_painted_again_until_somebody_stops_it() -> None:
    """Each time with what is on record by then."""
    painted: list[str] = []
    stream = Stream(terminal=True)

    def paint() -> Any:
        painted.append("again")
        return table([run(f"run-{len(painted)}")], now=NOW, width=80)

    repaint(Console(file=stream, width=80, force_terminal=True), paint, pause=interrupting_after(2))

    assert len(painted) == 3
    assert "run-3" in stream.getvalue()


def test_watch_paints_the_runs_of_the_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same table, and a clean end with Ctrl-C."""
    fill(folder)
    monkeypatch.setattr(command, "repaint", lambda console, paint: repaint(console, paint, pause=interrupting_after(1)))

    ran = agentguard("runs", "--watch", terminal=True)

    assert ran.status == 0
    assert "reader" in ran.stdout


def test_store_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """A mistyped name must not look like a place where nothing runs."""
    ran = agentguard("runs", "--store", str(tmp_path / "typo.db"))

    assert ran.status == 2
    assert "--store wants a file that is there" in ran.stderr
    assert not (tmp_path / "typo.db").exists()


def test_store_is_opened_by_its_file(tmp_path: Path) -> None:
    """As the server's own state has it."""
    fill(tmp_path / "state")

    assert len(agentguard("runs", "--store", str(tmp_path / "state" / "store.db"), "--json").json) == 2


def test_store_is_named_by_a_variable_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command line is shown to everybody on the host, and a store's URL may have a password in it."""
    monkeypatch.setenv("AGENTGUARD_STORE", str(tmp_path / "absent.db"))

    ran = agentguard("runs")

    assert ran.status == 2
    assert f"--store wants a file that is there, got `{tmp_path / 'absent.db'}`" in ran.stderr
