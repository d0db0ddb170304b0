"""Chains in files for tests, and what somebody does to them who should not."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from agentguard.evidence.chainfile import chain_files, create, follow, read_chain
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.heads import Head, HeadKey, Occasion, head_file
from agentguard.evidence.ledger import FIRST_PREV_HASH, Entry
from agentguard.evidence.record import record
from agentguard.evidence.verify import Report, verify_folder
from agentguard.evidence.vocabulary import AttributeValue, RecordKind
from agentguard.model import canonical_json

NOW = 1_800_000_000.0
TRIGGERS = ("entries_are_never_changed", "entries_go_as_a_prefix")


def decision(n: int, *, effect: str = "allow", at: float = NOW) -> dict[str, object]:
    """Return the record of one decision."""
    attributes: dict[str, AttributeValue] = {
        "agentguard.decision.id": f"D{n}",
        "agentguard.decision.effect": effect,
        "agentguard.agent.id": "reader",
    }
    return record(RecordKind.DECISION, attributes, at=at, trace=(f"{n + 1:032x}", f"{n + 1:016x}"))


def outcome(n: int, *, at: float = NOW) -> dict[str, object]:
    """Return the record of what became of one."""
    return record(
        RecordKind.OUTCOME, {"agentguard.decision.id": f"D{n}", "agentguard.execution.outcome": "completed"}, at=at
    )


def ledger_in(folder: Path, **options: Any) -> SQLiteLedger:
    """Return a ledger whose clock stands."""
    options.setdefault("clock", lambda: NOW)
    return SQLiteLedger(folder, **options)


def stopped_chain(folder: Path, *, calls: int = 5, **options: Any) -> Path:
    """Return the file of a chain of some calls, cleanly stopped: two records a call, and a head each four."""
    options.setdefault("heads_every", 4)
    ledger = ledger_in(folder, **options)
    path = ledger.path
    assert path is not None
    for n in range(calls):
        ledger.append(decision(n))
        ledger.append(outcome(n))
    ledger.close()
    return path


def killed(ledger: SQLiteLedger) -> None:
    """Let go of a chain as the system does for a process that is killed."""
    ledger._over.set()
    with ledger._lock:
        ledger._let_go()
        assert ledger._claim is not None
        ledger._claim.release()
        ledger._closed = True


def tamper(path: Path, *statements: str) -> None:
    """Change a chain's file behind the back of whoever keeps it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for trigger in TRIGGERS:
            connection.execute(f"DROP TRIGGER IF EXISTS {trigger}")
        for statement in statements:
            connection.execute(statement)


def cut_behind(path: Path, seq: int) -> None:
    """Remove the end of a chain."""
    tamper(path, "DELETE FROM entries WHERE seq > " + str(seq))  # noqa: S608  a number


def write_anew(path: Path, texts: Iterable[str], *, key: HeadKey | None = None) -> None:
    """Put another history in a chain's place, hashed like a real one, and signed if there is a key."""
    entries: list[Entry] = []
    folder = path.parent / "anew"
    folder.mkdir()
    new = folder / path.name
    first, *rest = texts
    create(new, first)
    with closing(sqlite3.connect(new, isolation_level=None)) as connection:
        for text in rest:
            entries = list(read_chain(new))
            follower = next_entry(entries[-1], text)
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?)",
                (follower.seq, follower.hash, follower.prev_hash, follower.text),
            )
    if key is not None:
        tail = list(read_chain(new))[-1]
        head = Head(
            chain_id=path.stem,
            seq=tail.seq,
            hash=tail.hash,
            time_unix_nano=int(NOW * 1e9),
            every=4,
            occasion=Occasion.STOP,
        )
        signed = key.sign(head)
        follower = next_entry(tail, head_text(signed))
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            connection.execute(
                "INSERT INTO entries VALUES (?, ?, ?, ?)",
                (follower.seq, follower.hash, follower.prev_hash, follower.text),
            )
        head_file(path).write_text(signed)
    shutil.move(new, path)


def next_entry(tail: Entry, text: str) -> Entry:
    """Return what a text is after an entry."""
    return follow(tail, tail.chain_id, text)


def head_text(signed: str) -> str:
    """Return the record of a signed head."""
    return canonical_json(record(RecordKind.HEAD, {"agentguard.evidence.head": signed}, at=NOW))


def first_head(path: Path, key: HeadKey) -> str:
    """Return the record that a chain begins with."""
    head = Head(
        chain_id=path.stem,
        seq=0,
        hash=FIRST_PREV_HASH,
        time_unix_nano=int(NOW * 1e9),
        every=4,
        occasion=Occasion.BEGIN,
    )
    return head_text(key.sign(head))


def exported(folder: Path, file: Path) -> Path:
    """Write what a collector would have of a folder's decisions."""
    with file.open("w") as lines:
        for path in chain_files(folder):
            for entry in read_chain(path):
                if entry.record["kind"] != "decision":
                    continue
                attributes = [
                    {"key": "agentguard.evidence.chain_id", "value": {"stringValue": entry.chain_id}},
                    {"key": "agentguard.evidence.seq", "value": {"intValue": str(entry.seq)}},
                    {"key": "agentguard.evidence.hash", "value": {"stringValue": entry.hash}},
                ]
                span = {
                    "name": "agentguard.authorize read",
                    "traceId": entry.record["trace_id"],
                    "spanId": entry.record["span_id"],
                    "startTimeUnixNano": str(entry.record["time_unix_nano"]),
                    "endTimeUnixNano": str(entry.record["time_unix_nano"]),
                    "attributes": attributes,
                }
                lines.write(json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [span]}]}]}) + "\n")
    return file


def found(report: Report) -> list[str]:
    """Return what a report says is wrong."""
    return [str(problem) for problem in report.problems]


def verified(folder: Path) -> list[str]:
    """Return what is wrong with a folder."""
    return found(verify_folder(folder))
