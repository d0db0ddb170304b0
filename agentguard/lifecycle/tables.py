"""What a `SQLiteStore` writes and reads: statements on a connection, each inside a transaction of its caller."""

from __future__ import annotations

import json
from dataclasses import astuple, fields
from typing import TYPE_CHECKING, Final

from agentguard.lifecycle.ended import Ended, Kind, Revocation
from agentguard.lifecycle.states import KEPT_SECONDS, RunRecord, RunState, ended_by
from agentguard.lifecycle.tally import Tally, forgotten

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator, Mapping, Sequence

    from agentguard.lifecycle.tally import Exchange, Run

# A tally is found by its run alone; what `until` says lies past the end of the run.
_TALLIES: Final = (
    """CREATE TABLE tallies (
        issuer TEXT NOT NULL, run_id TEXT NOT NULL, version INTEGER NOT NULL, tally TEXT NOT NULL, until REAL NOT NULL,
        PRIMARY KEY (issuer, run_id))""",
    "CREATE INDEX tallies_until ON tallies (until)",
)

# In `ended`, no cutoff and no end are NULL. A row that changes gets a new number, so that
# whoever follows reads it again; AUTOINCREMENT gives no number twice.
SCHEMA: Final = (
    "CREATE TABLE horizons (name TEXT PRIMARY KEY, value REAL NOT NULL) WITHOUT ROWID",
    """CREATE TABLE ended (
        seq INTEGER PRIMARY KEY AUTOINCREMENT, issuer TEXT NOT NULL, kind TEXT NOT NULL, name TEXT NOT NULL,
        cutoff REAL, until REAL, at REAL NOT NULL, reason TEXT NOT NULL, UNIQUE (issuer, kind, name))""",
    "CREATE INDEX ended_until ON ended (until) WHERE until IS NOT NULL",
    "CREATE TABLE spent (key TEXT PRIMARY KEY, until REAL NOT NULL) WITHOUT ROWID",
    "CREATE INDEX spent_until ON spent (until)",
    """CREATE TABLE runs (
        issuer TEXT NOT NULL, run_id TEXT NOT NULL, agent TEXT NOT NULL, user TEXT, task TEXT, purpose TEXT,
        issued_at INTEGER NOT NULL, ends_at REAL NOT NULL, ancestors TEXT NOT NULL, state TEXT NOT NULL,
        reason TEXT NOT NULL, ended_at REAL, used_at REAL, calls INTEGER NOT NULL, audience TEXT NOT NULL DEFAULT '',
        PRIMARY KEY (issuer, run_id))""",
    "CREATE INDEX runs_ends_at ON runs (ends_at)",
    *_TALLIES,
)

# What the first stores did not have: how one tells, and what adds it. It needs no other version of the schema,
# since each statement names its columns.
ADDED: Final = (
    (
        "SELECT count(*) FROM pragma_table_info('runs') WHERE name = 'audience'",
        ("ALTER TABLE runs ADD COLUMN audience TEXT NOT NULL DEFAULT ''",),
    ),
    ("SELECT count(*) FROM sqlite_schema WHERE name = 'tallies'", _TALLIES),
)

# How much longer the file keeps what may be forgotten: a process whose clock is behind
# must still find it when it starts.
_GRACE: Final = 300

_AT_ONCE: Final = 1_000

_NAMES: Final = tuple(field.name for field in fields(RunRecord))
_READ_RUNS: Final = f"SELECT {', '.join(_NAMES)} FROM runs"  # noqa: S608  the names of our own fields
_ADD_RUN: Final = f"INSERT OR IGNORE INTO runs ({', '.join(_NAMES)}) VALUES ({', '.join('?' * len(_NAMES))})"  # noqa: S608  the same

Entry = tuple[Ended, float | None]
Call = tuple[float, int]


def read_ended(connection: sqlite3.Connection, after: int) -> Iterator[tuple[int, list[Entry]]]:
    """Yield what was ended after a number, oldest first, some at a time, with the number of the last."""
    rows = connection.execute(
        "SELECT seq, issuer, kind, name, cutoff, until FROM ended WHERE seq > ? ORDER BY seq", (after,)
    )
    while some := rows.fetchmany(_AT_ONCE):
        yield (
            some[-1][0],
            [
                (Ended(issuer=issuer, kind=Kind(kind), name=name, cutoff=cutoff), until)
                for _, issuer, kind, name, cutoff, until in some
            ],
        )


def read_horizon(connection: sqlite3.Connection, name: str) -> float:
    """Return the latest end that was let go of in the table *name*."""
    (found,) = connection.execute("SELECT max(value) FROM horizons WHERE name = ?", (name,)).fetchone()
    return float("-inf") if found is None else found


def add_ended(connection: sqlite3.Connection, ended: Ended, revocation: Revocation) -> None:
    """Keep what was ended; what is known already can only grow, and keeps its reason."""
    where = (ended.issuer, ended.kind, ended.name)
    known = connection.execute(
        "SELECT cutoff, until, at, reason FROM ended WHERE issuer = ? AND kind = ? AND name = ?", where
    ).fetchone()
    row = (ended.cutoff, revocation.until, revocation.at, revocation.reason)
    if known is not None:
        row = (_later(known[0], row[0]), _later(known[1], row[1]), known[2], known[3])
        if row == known:
            return
    connection.execute(
        "INSERT OR REPLACE INTO ended (issuer, kind, name, cutoff, until, at, reason) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (*where, *row),
    )
    itself = (ended.name,) if ended.kind is Kind.RUN else ()
    for run in read_runs(connection, ended.issuer, *itself):
        after = ended_by(run, ended, reason=revocation.reason, now=revocation.at)
        if after is not run:
            connection.execute(
                "UPDATE runs SET state = ?, ended_at = ?, reason = ? WHERE issuer = ? AND run_id = ?",
                (after.state, after.ended_at, after.reason, run.issuer, run.run_id),
            )


def _later(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else max(one, other)


def read_revocation(connection: sqlite3.Connection, issuer: str, kind: Kind, name: str) -> Revocation | None:
    """Return how a run, or what *kind* says, was ended, if a revocation named it."""
    row = connection.execute(
        "SELECT reason, at, until FROM ended WHERE issuer = ? AND kind = ? AND name = ?", (issuer, kind, name)
    ).fetchone()
    return None if row is None else Revocation(reason=row[0], at=row[1], until=row[2])


def prune(connection: sqlite3.Connection, now: float) -> None:
    """Let go of what can match nothing, and note how far: the clock may be set back."""
    for name in ("ended", "spent", "tallies"):
        connection.execute(
            f"INSERT INTO horizons SELECT ?, max(until) FROM {name} WHERE until <= ? HAVING max(until) IS NOT NULL "  # noqa: S608  the names stand above
            "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            (name, now - _GRACE),
        )
        connection.execute(f"DELETE FROM {name} WHERE until <= ?", (now - _GRACE,))  # noqa: S608  the same
    connection.execute("DELETE FROM runs WHERE ends_at <= ?", (now - KEPT_SECONDS,))


def spend(connection: sqlite3.Connection, key: str, until: float) -> bool:
    """Keep *key* as used, and return whether it was not."""
    # What is let go of was used, for all that is known.
    if not read_horizon(connection, "spent") < until:
        return False
    return connection.execute("INSERT OR IGNORE INTO spent VALUES (?, ?)", (key, until)).rowcount == 1


def add_run(connection: sqlite3.Connection, run: RunRecord) -> bool:
    """Keep a run, and return whether its id is new."""
    values = [json.dumps(value) if isinstance(value, tuple) else value for value in astuple(run)]
    return connection.execute(_ADD_RUN, values).rowcount == 1


def add_calls(connection: sqlite3.Connection, calls: Mapping[tuple[str, str], Call]) -> None:
    """Count calls of runs that are on record."""
    connection.executemany(
        "UPDATE runs SET used_at = coalesce(used_at, ?), calls = calls + ? WHERE issuer = ? AND run_id = ?",
        [(*call, *run) for run, call in calls.items()],
    )


def read_runs(connection: sqlite3.Connection, *of: str) -> list[RunRecord]:
    """Return runs on record, oldest first: all, those of an issuer, or the one of an issuer and an id."""
    which = ("", " WHERE issuer = ?", " WHERE issuer = ? AND run_id = ?")[len(of)]
    rows = connection.execute(f"{_READ_RUNS}{which} ORDER BY issued_at, rowid", of)
    return [_run(row) for row in rows]


def _run(row: Sequence[object]) -> RunRecord:
    given: dict[str, object] = dict(zip(_NAMES, row, strict=True))
    given["ancestors"] = tuple(json.loads(str(given["ancestors"])))
    given["state"] = RunState(str(given["state"]))
    return RunRecord(**given)  # type: ignore[arg-type]


def read_tallies(connection: sqlite3.Connection, runs: Sequence[Run]) -> tuple[Tally, ...]:
    """Return what these runs have done so far."""
    rows = (
        connection.execute("SELECT version, tally FROM tallies WHERE issuer = ? AND run_id = ?", run).fetchone()
        for run in runs
    )
    return tuple(Tally() if row is None else Tally.of_text(*row) for row in rows)


def exchange_tallies(connection: sqlite3.Connection, exchanges: Sequence[Exchange], now: float) -> bool:
    """Keep tallies, and return whether each still had the version that was read; else keep none."""
    known: list[float | None] = []
    for each in exchanges:
        version, until = connection.execute(
            "SELECT version, until FROM tallies WHERE issuer = ? AND run_id = ?", each.run
        ).fetchone() or (0, None)
        if version != each.before:
            return False
        known.append(until)
    for each, until in zip(exchanges, known, strict=True):
        row = (each.after.version, each.after.as_text())
        if until is not None and each.kept_until <= until:
            # Without the index of `until`, since that stays.
            connection.execute(
                "UPDATE tallies SET version = ?, tally = ? WHERE issuer = ? AND run_id = ?", (*row, *each.run)
            )
            continue
        if until is None:
            # There are more of them now: the moment to let go of some.
            prune(connection, now)
            if not read_horizon(connection, "tallies") < each.kept_until:
                raise forgotten()
        connection.execute(
            "INSERT OR REPLACE INTO tallies (issuer, run_id, version, tally, until) VALUES (?, ?, ?, ?, ?)",
            (*each.run, *row, each.kept_until),
        )
    return True
