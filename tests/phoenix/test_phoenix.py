"""The evidence in a real Phoenix: sent twice, stored once, and found again."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
import pytest

from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.delivery.forward import Forwarder
from agentguard.evidence.delivery.sender import open_sender, read_endpoint
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.record import SpanOf, record
from agentguard.evidence.vocabulary import AttributeValue, RecordKind

ROOT = Path(__file__).parents[2]
PHOENIX = ROOT / ".venv-phoenix" / "bin" / "phoenix"
DECISIONS = 300
VERSIONS = ("sha256:9c1e", "sha256:77aa")
SECONDS = 120


@dataclass(frozen=True)
class Phoenix:
    """A Phoenix that runs.

    Attributes:
        http: Where it takes OTLP over HTTP, and answers.
        grpc: Where it takes OTLP over gRPC.
    """

    http: str
    grpc: str

    def spans(self, **asked: Any) -> list[dict[str, Any]]:
        """Return the spans that its API finds."""
        found: list[dict[str, Any]] = []
        cursor: dict[str, str] = {}
        while True:
            answer = httpx2.get(
                f"{self.http}/v1/projects/default/spans", params={"limit": 500, **asked, **cursor}, timeout=30
            )
            # There is no project before the first span.
            if answer.status_code == 404:
                return found
            answer.raise_for_status()
            found += answer.json()["data"]
            if answer.json()["next_cursor"] is None:
                return found
            cursor = {"cursor": answer.json()["next_cursor"]}

    def filtered(self, condition: str) -> int:
        """Return how many spans the filter of its pages finds."""
        query = "query($c: String) { projects { edges { node { recordCount(filterCondition: $c) } } } }"
        answer = httpx2.post(f"{self.http}/graphql", json={"query": query, "variables": {"c": condition}}, timeout=30)
        answer.raise_for_status()
        return sum(edge["node"]["recordCount"] for edge in answer.json()["data"]["projects"]["edges"])


def free_port() -> int:
    """Return a port that is free now."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        port: int = bound.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def phoenix(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Phoenix]:
    """Start one on loopback, in a folder of its own, that tells nobody."""
    folder = tmp_path_factory.mktemp("phoenix")
    http, grpc = free_port(), free_port()
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PHOENIX_WORKING_DIR": str(folder),
        "PHOENIX_HOST": "127.0.0.1",
        "PHOENIX_PORT": str(http),
        "PHOENIX_GRPC_PORT": str(grpc),
        "PHOENIX_TELEMETRY_ENABLED": "false",
    }
    running = Phoenix(f"http://127.0.0.1:{http}", f"grpc://127.0.0.1:{grpc}")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([str(PHOENIX), "serve"], cwd=folder, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + SECONDS
            while not is_up(running):
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.5)
            yield running
        finally:
            process.terminate()
            process.wait(30)


def is_up(phoenix: Phoenix) -> bool:
    """Return whether it answers."""
    with suppress(httpx2.HTTPError):
        return httpx2.get(f"{phoenix.http}/healthz").is_success
    return False


def write(folder: Path) -> None:
    """Keep 300 decisions: each third a denial, each second under another version of the policies."""
    ledger = SQLiteLedger(folder)
    for n in range(DECISIONS):
        attributes: dict[str, AttributeValue] = {
            "agentguard.decision.id": f"D{n}",
            "agentguard.decision.effect": "allow" if n % 3 else "deny",
            "agentguard.policy.version": VERSIONS[n % 2],
            "agentguard.policy.ids": ("exports", "row-limit"),
        }
        shows = SpanOf(secrets.token_hex(16), secrets.token_hex(8), "", "agentguard.authorize export")
        ledger.append(record(RecordKind.DECISION, attributes, at=time.time(), trace=shows))
    ledger.close()


def ship(folder: Path, url: str) -> int:
    """Ship all of it, as if nothing had been shipped, and return how many records that were."""
    endpoint = read_endpoint(url, environ={})
    forwarder = Forwarder(folder, endpoint, open_sender(endpoint, service="records"))
    while not forwarder.step():
        pass
    assert forwarder.failing == ""
    forwarder.close()
    forwarder.cursor.unlink()
    return forwarder.delivered


def test_what_is_sent_twice_is_stored_once_and_found_again(phoenix: Phoenix, tmp_path: Path) -> None:
    """Over HTTP, then over gRPC; by effect, by policy version, by both, and by its own filter."""
    write(tmp_path)
    kept = [entry for path in chain_files(tmp_path) for entry in read_chain(path)]

    url = f"{phoenix.http}/v1/traces"
    assert [ship(tmp_path, to) for to in (url, url, phoenix.grpc)] == [len(kept)] * 3
    # One more record, behind all that was sent twice: when it is there, they were looked at.
    last = SQLiteLedger(tmp_path)
    last.append(record(RecordKind.POLICY, {"agentguard.policy.version": VERSIONS[0]}, at=time.time()))
    last.close()
    ship(tmp_path, url)
    deadline = time.monotonic() + SECONDS
    while not phoenix.spans(name="agentguard.evidence policy"):
        assert time.monotonic() < deadline
        time.sleep(0.2)

    everything = [entry for path in chain_files(tmp_path) for entry in read_chain(path)]
    stored = phoenix.spans()
    assert sorted(span["attributes"]["agentguard.evidence.hash"] for span in stored) == sorted(
        entry.hash for entry in everything
    )
    decisions = phoenix.spans(name="agentguard.authorize export")
    assert len(decisions) == DECISIONS
    assert {span["span_kind"] for span in decisions} == {"GUARDRAIL"}
    assert {span["status_code"] for span in decisions} == {"UNSET"}
    denied, version = "agentguard.decision.effect:deny", f"agentguard.policy.version:{VERSIONS[1]}"
    assert len(phoenix.spans(attribute=denied)) == DECISIONS // 3
    assert len(phoenix.spans(attribute=version)) == DECISIONS // 2
    assert len(phoenix.spans(attribute=[denied, version])) == DECISIONS // 6
    assert phoenix.filtered("attributes['agentguard']['decision']['effect'] == 'deny'") == DECISIONS // 3
