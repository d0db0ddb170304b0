"""The least that news from one process to another can take: a commit and a look, a message and its reader."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis

PAUSE_SECONDS = 0.01
STREAM = "floor"


def _database(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("CREATE TABLE IF NOT EXISTS news (number INTEGER PRIMARY KEY)")
    return connection


def _server(url: str) -> Any:
    return redis.Redis.from_url(url, protocol=2, decode_responses=True)


def commit_when_told(says: Connection, orders: Connection, path: Path) -> None:
    """Commit one row for each order, and say when that began."""
    with closing(_database(path)) as connection:
        says.send("ready")
        while True:
            number = orders.recv()
            called = time.perf_counter_ns()
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("INSERT INTO news VALUES (?)", (number,))
            connection.execute("COMMIT")
            says.send(called)


def add_when_told(says: Connection, orders: Connection, url: str) -> None:
    """Add one entry to a stream for each order, and say when that began."""
    client = _server(url)
    client.xadd(STREAM, {"number": -1})
    says.send("ready")
    while True:
        number = orders.recv()
        called = time.perf_counter_ns()
        client.xadd(STREAM, {"number": number})
        says.send(called)


@contextmanager
def looking(path: Path, seen: Callable[[int], None]) -> Iterator[None]:
    """Look at a database every ten milliseconds, as a store does, and tell of each row."""
    stop = threading.Event()

    def look() -> None:
        version, last = None, -1
        with closing(_database(path)) as connection:
            while not stop.wait(PAUSE_SECONDS):
                (now,) = connection.execute("PRAGMA data_version").fetchone()
                if now != version:
                    version = now
                    for (number,) in connection.execute("SELECT number FROM news WHERE number > ?", (last,)):
                        last = number
                        seen(number)

    with _thread(look, stop):
        yield


@contextmanager
def reading(url: str, seen: Callable[[int], None]) -> Iterator[None]:
    """Wait for the entries of a stream, and tell of each."""
    stop = threading.Event()

    def read() -> None:
        client, last = _server(url), "$"
        while not stop.is_set():
            for _, entries in client.xread({STREAM: last}, block=200):
                for place, entry in entries:
                    last = place
                    seen(int(entry["number"]))

    with _thread(read, stop):
        yield


@contextmanager
def _thread(work: Callable[[], None], stop: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
