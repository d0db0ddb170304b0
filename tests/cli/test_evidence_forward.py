"""`agentguard evidence forward`: a process of its own that ships a ledger."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from agentguard.cli import evidence_forward
from agentguard.evidence.claim import Claim
from agentguard.evidence.delivery.forward import Forwarder
from agentguard.evidence.delivery.sender import open_sender, read_endpoint
from tests.cli.commands import agentguard
from tests.evidence.chains import ledger_in, outcome, stopped_chain
from tests.evidence.receiver import Receiver, receiving


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """Give a real receiver."""
    with receiving() as found:
        yield found


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state folder with fourteen records."""
    stopped_chain(tmp_path / "state" / "evidence")
    return tmp_path / "state"


def test_once_ships_what_is_there(state: Path, receiver: Receiver) -> None:
    """And a second time there is nothing left; a state folder and its evidence are the same."""
    first = agentguard("evidence", "forward", str(state), "--to", receiver.url, "--once")
    again = agentguard("evidence", "forward", str(state / "evidence"), "--to", receiver.url, "--once", "--json")

    count = len(receiver.spans)
    assert (first.status, first.stdout) == (0, "")
    assert first.stderr == f"{count} records delivered to {receiver.url}, 0 waiting\n"
    assert again.json == {"delivered": 0, "waiting": 0, "failing": None}


def test_once_says_when_it_was_not_taken(state: Path, receiver: Receiver) -> None:
    """Whoever starts it at set times tries again then."""
    receiver.answers = [(401, "text/plain", b"")]

    ran = agentguard("evidence", "forward", str(state), "--to", receiver.url, "--once", "--json")

    assert ran.status == 1
    assert ran.json["delivered"] == 0
    assert ran.json["waiting"] > 0
    assert ran.json["failing"] == "HTTP status 401"
    assert ran.stderr.splitlines()[-1] == "agentguard: the evidence was not delivered: HTTP status 401"


def test_once_says_when_another_process_ships(state: Path, receiver: Receiver) -> None:
    """It has shipped nothing then, and does not claim to."""
    name = read_endpoint(receiver.url).name
    claim = Claim.take(state / "evidence" / f"{name}.json")
    assert claim is not None

    ran = agentguard("evidence", "forward", str(state), "--to", receiver.url, "--once")

    claim.release()
    assert ran.status == 1
    assert "is forwarded by another process already" in ran.stderr
    assert receiver.spans == []


def test_a_folder_that_cannot_be_written_is_told(
    state: Path, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How far it was delivered is kept beside the chains."""

    def take(_: Path) -> Claim:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Claim, "take", take)
    ran = agentguard("evidence", "forward", str(state), "--to", receiver.url, "--once")

    assert ran.status == 1
    assert "evidence` cannot be used: Read-only file system" in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ships_until_it_is_stopped(
    state: Path, receiver: Receiver, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written meanwhile too; it tells how far it is, and ends well."""
    monkeypatch.setattr(evidence_forward, "_EVERY", 0.01)
    # As long as it takes: how long it may is another matter.
    monkeypatch.setattr(evidence_forward, "_LAST_SECONDS", 60.0)
    before = signal.getsignal(number)

    def go_on() -> None:
        receiver.wait_for(lambda: len(receiver.spans) > 5)
        ledger = ledger_in(state / "evidence")
        ledger.append(outcome(1))
        ledger.close()
        os.kill(os.getpid(), number)

    meanwhile = Thread(target=go_on)
    meanwhile.start()
    ran = agentguard("evidence", "forward", str(state), "--to", receiver.url, "--json")
    meanwhile.join()

    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.status == 0
    assert [line["delivered"] for line in lines] == sorted(line["delivered"] for line in lines)
    assert lines[-1] == {"delivered": len(receiver.spans), "waiting": 0, "failing": None}
    assert ran.stderr.startswith(f"forwarding `{state}` to {receiver.url}, 15 waiting\n")
    assert receiver.spans[-1].name == "agentguard.evidence head"
    assert signal.getsignal(number) is before


def test_it_tells_what_is_new(state: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A process that has nothing to do fills no log."""
    url = "http://127.0.0.1:1/v1/traces"
    endpoint = read_endpoint(url, environ={})
    forwarder = Forwarder(state / "evidence", endpoint, open_sender(endpoint, service="records"))

    class Ticks(Event):
        """Three looks, the last of which is the end."""

        looks = iter((False, False, True))

        def wait(self, timeout: float | None = None) -> bool:
            """Look."""
            return next(self.looks)

    evidence_forward.follow(forwarder, Ticks(), as_json=False)
    forwarder.close()

    assert len(capsys.readouterr().err.splitlines()) == 2


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    """Else it would wait for ever for a name that was mistyped."""
    ran = agentguard("evidence", "forward", str(tmp_path / "none"), "--to", "http://collector:4318/v1/traces")

    assert ran.status == 2
    assert ran.stderr.endswith("none` wants a folder that is there: name the one that was given as `state=`\n")


def test_headers_come_from_a_file(state: Path, receiver: Receiver, tmp_path: Path) -> None:
    """On a command line everybody on the host could read them."""
    headers = tmp_path / "headers"
    headers.write_text("Authorization = Bearer a=b\n\nx-tenant=billing\n")

    agentguard("evidence", "forward", str(state), "--to", receiver.url, "--once", "--headers", str(headers))

    assert receiver.headers[0]["authorization"] == "Bearer a=b"
    assert receiver.headers[0]["x-tenant"] == "billing"


@pytest.mark.parametrize("line", [b"secret", b"=secret", b"x y=secret", b"x\xc3\xa4=secret"])
def test_what_is_no_header_is_refused_without_repeating_it(line: bytes, state: Path, tmp_path: Path) -> None:
    """The line may be the secret itself."""
    headers = tmp_path / "headers"
    headers.write_bytes(b"a=b\n" + line)

    ran = agentguard("evidence", "forward", str(state), "--to", "http://c:4318/v1/traces", "--headers", str(headers))

    assert ran.status == 2
    assert "want NAME=VALUE, got something else in line 2: mend that line" in ran.stderr
    assert "secret" not in ran.stderr


@pytest.mark.parametrize("content", [None, b"\xff"])
def test_a_file_of_headers_that_cannot_be_read_is_refused(content: bytes | None, state: Path, tmp_path: Path) -> None:
    """With why."""
    headers = tmp_path / "headers"
    if content is not None:
        headers.write_bytes(content)

    ran = agentguard("evidence", "forward", str(state), "--to", "http://c:4318/v1/traces", "--headers", str(headers))

    assert ran.status == 2
    assert "headers` cannot be read" in ran.stderr
