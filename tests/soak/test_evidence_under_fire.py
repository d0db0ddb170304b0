"""A server that is killed again and again, and a receiver that is down, slow and failing in turn."""

from __future__ import annotations

import random
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Lock, Thread

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.verify import verify_folder
from tests.evidence.receiver import attributes_of

ROOT = Path(__file__).parents[2]
AGENTGUARD = Path(sysconfig.get_path("scripts")) / "agentguard"
CALLS = 20_000
KILLS = 20
MOODS = ("up", "down", "slow", "failing", "forgetful", "lost")


class Server(ThreadingHTTPServer):
    """Takes its port again at once."""

    allow_reuse_address = True
    daemon_threads = True


class Fickle:
    """A receiver over HTTP that changes its mood.

    Attributes:
        port: Where it listens, when it does.
        spans: Of each span, by its id: the record that it shows, and its attributes.
        places: How often a span was received, by its id.
        contradictions: Spans that came twice, and said something else.
    """

    def __init__(self, chance: random.Random) -> None:
        self.spans: dict[bytes, dict[str, object]] = {}
        self.places: dict[bytes, int] = {}
        self.contradictions = 0
        self.moods: set[str] = set()
        self._chance = chance
        self._mood = "up"
        self._lock = Lock()
        self._over = Event()
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            self.port = bound.getsockname()[1]

    def take(self, body: bytes) -> None:
        """Store what was received, as a backend does that goes by span ids."""
        request = ExportTraceServiceRequest.FromString(body)
        with self._lock:
            for span in (s for rs in request.resource_spans for ss in rs.scope_spans for s in ss.spans):
                shown = {"name": span.name, **attributes_of(span)}
                self.contradictions += self.spans.setdefault(span.span_id, shown) != shown
                self.places[span.span_id] = self.places.get(span.span_id, 0) + 1

    def run(self) -> None:
        """Change the mood until it is over."""
        while not self._over.is_set():
            self._mood = self._chance.choice(MOODS)
            self.moods.add(self._mood)
            if self._mood == "down":
                self._over.wait(self._chance.uniform(0.1, 1))
                continue
            with self.listening():
                self._over.wait(self._chance.uniform(0.2, 1.5))

    @contextmanager
    def listening(self, mood: str | None = None) -> Iterator[None]:
        """Listen, in a mood."""
        receiver, mood = self, mood or self._mood

        class Answering(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                status = 200
                if mood == "failing":
                    status = receiver._chance.choice((302, 400, 429, 500, 503))
                elif mood == "slow":
                    receiver._over.wait(0.5)
                if mood == "lost":
                    # Stored, and nobody is told.
                    receiver.take(body)
                if mood in {"lost", "forgetful"}:
                    self.close_connection = True
                    return
                if status == 200:
                    receiver.take(body)
                self.send_response(status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        server = Server(("127.0.0.1", self.port), Answering)
        thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def end(self) -> None:
        """Let it rest."""
        self._over.set()


def lines_of(log: Path) -> list[str]:
    """Return the keys of the calls that ran, each with the mark at its end, unless a kill cut it off."""
    return log.read_text().split() if log.exists() else []


def test_every_call_that_ran_is_at_the_receiver_once(tmp_path: Path) -> None:
    """Counted from a log that the tool itself writes, first thing when it runs."""
    chance = random.Random(4)  # noqa: S311  moments, not secrets
    fickle = Fickle(random.Random(5))  # noqa: S311  the same
    url = f"http://127.0.0.1:{fickle.port}/v1/traces"
    log = tmp_path / "ran.log"
    command = [sys.executable, "-m", "tests.soak.under_fire", str(tmp_path), url, str(log), str(CALLS)]
    moods = Thread(target=fickle.run)
    moods.start()
    try:
        for kill in range(KILLS):
            process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
            wanted = (kill + 1) * CALLS // (KILLS + 2)
            deadline = time.monotonic() + 60
            while len(lines_of(log)) < wanted:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.01)
            time.sleep(chance.random() / 10)
            process.send_signal(signal.SIGKILL)
            process.wait()
        subprocess.run(command, cwd=ROOT, stderr=subprocess.DEVNULL, check=True, timeout=120)
    finally:
        fickle.end()
        moods.join()
    with fickle.listening("up"), suppress(ValueError):
        subprocess.run(
            [str(AGENTGUARD), "evidence", "forward", str(tmp_path / "state"), "--to", url, "--once"],
            check=True,
            timeout=60,
        )
    ran = [line.removesuffix(";") for line in lines_of(log) if line.endswith(";")]
    torn = [line for line in lines_of(log) if not line.endswith(";")]
    entries = [entry for path in chain_files(tmp_path / "state" / "evidence") for entry in read_chain(path)]
    received = {str(span["agentguard.evidence.hash"]) for span in fickle.spans.values()}
    allowed = {
        span["agentguard.resource.id"]
        for span in fickle.spans.values()
        if span.get("agentguard.decision.effect") == "allow"
    }
    kept = {
        entry.record["attributes"]["agentguard.resource.id"] for entry in entries if entry.record["kind"] == "decision"
    }

    assert len(ran) >= CALLS
    assert len(torn) <= KILLS
    assert [part for part in torn if not any(str(key).startswith(part) for key in allowed)] == []
    assert len(set(ran)) == len(ran)
    assert fickle.moods == set(MOODS)
    assert [key for key in ran if key not in kept] == []
    assert [key for key in ran if key not in allowed] == []
    assert [entry for entry in entries if entry.hash not in received] == []
    assert len(fickle.spans) == len(received) == len(entries)
    assert fickle.contradictions == 0
    # That something was sent twice is what makes the line above worth something.
    assert sum(fickle.places.values()) > len(fickle.spans)
    assert verify_folder(tmp_path / "state" / "evidence").problems == ()
