import signal
import subprocess
import sys
from pathlib import Path

import pytest

from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.evidence.verify import verify_folder
from agentguard.host import atend

ROOT = Path(__file__).parent.parent.parent
# A disk that is busy with other tests has the time that it takes.
BEGIN = (
    "import os, signal, sys; from agentguard.host import atend; atend._SECONDS = 60;"
    "from agentguard.state import open_state; state = open_state(sys.argv[1]);"
)
UVICORN = """
import uvicorn
async def app(scope, receive, send):
    message = await receive()
    if message['type'] == 'lifespan.startup':
        await send({'type': 'lifespan.startup.complete'})
        os.kill(os.getpid(), signal.SIGTERM)
        message = await receive()
        print('shut down', flush=True)
        await send({'type': 'lifespan.shutdown.complete'})
uvicorn.run(app, port=0, log_level='error')
"""


def run(script: str, folder: Path) -> tuple[int, str]:
    """Run a process with a state folder, and return its status and what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + script, str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return done.returncode, done.stdout


def kinds(folder: Path) -> list[str]:
    """Return the kinds of the records of the one chain of a state folder."""
    (path,) = chain_files(folder / "evidence")
    assert verify_folder(folder / "evidence").holds
    return [entry.record["kind"] for entry in read_chain(path)]


@pytest.mark.parametrize(
    ("script", "status"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("os.kill(os.getpid(), signal.SIGTERM); signal.pause()", -signal.SIGTERM),
        (UVICORN, -signal.SIGTERM),
        ("signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); os.kill(os.getpid(), signal.SIGTERM)", 7),
    ],
)
def test_a_process_that_ends_leaves_a_clean_stop(script: str, status: int, tmp_path: Path) -> None:
    """By itself or by SIGTERM, with the status that it would have had without us."""
    folder = tmp_path / "state"

    assert run(script, folder) == (status, "shut down\n" if script == UVICORN else "")
    assert kinds(folder) == ["head", "stop", "head"]


def test_a_handler_that_was_there_is_left_alone(tmp_path: Path) -> None:
    """Whoever has one knows how its process ends."""
    script = (
        "print(signal.getsignal(signal.SIGTERM) is atend._ended_by);"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); open_state(sys.argv[1] + '2');"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_IGN)"
    )

    assert run(script, tmp_path / "state") == (0, "True\nTrue\n")


def test_off_the_main_thread_no_handler_is_set(tmp_path: Path) -> None:
    """It is not possible there; the end of the process is seen all the same."""
    script = (
        "signal.signal(signal.SIGTERM, signal.SIG_DFL); import threading;"
        "from agentguard.host.atend import call_at_end;"
        "t = threading.Thread(target=lambda: call_at_end(lambda: print('ended'))); t.start(); t.join();"
        "print(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL, flush=True)"
    )

    assert run(script, tmp_path / "state") == (0, "True\nended\n")


def test_a_lock_that_the_signal_interrupted_keeps_no_process_alive(tmp_path: Path) -> None:
    """What has to be closed may be in use by the very code that is interrupted."""
    script = (
        "atend._SECONDS = 0.2; atend.call_at_end(lambda: state.store._writer._lock.acquire());"
        "state.store._writer._lock.acquire(); os.kill(os.getpid(), signal.SIGTERM); signal.pause()"
    )

    assert run(script, tmp_path / "state") == (-signal.SIGTERM, "")


def test_each_is_called_once_the_last_first(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """One that fails keeps no other from its end."""
    called: list[int] = []
    registered: list[object] = []
    monkeypatch.setattr(atend, "_CALLS", [])
    monkeypatch.setattr("atexit.register", registered.append)
    before = iter((signal.SIG_DFL, signal.SIG_IGN, signal.SIG_IGN))
    monkeypatch.setattr(signal, "getsignal", lambda _: next(before))
    handlers: list[object] = []
    monkeypatch.setattr(signal, "signal", lambda *arguments: handlers.append(arguments))
    monkeypatch.setattr("os.kill", lambda *arguments: handlers.append(arguments))

    def fail() -> None:
        raise ValueError

    for call in (lambda: called.append(1), fail, lambda: called.append(2)):
        atend.call_at_end(call)
    atend._ended_by(signal.SIGTERM, None)
    atend._end()

    assert called == [2, 1]
    assert registered == [atend._end]
    assert "ValueError was raised when this process ended" in caplog.text
    assert handlers[-2] == (signal.SIGTERM, signal.SIG_DFL)
