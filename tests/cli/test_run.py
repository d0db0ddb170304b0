"""`agentguard run`: one identity for one command, which ends with it, however it ends."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard import Refusal, SQLiteStore
from agentguard.cli import run as module
from agentguard.cli.main import main
from agentguard.cli.run import _watch
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle import child
from agentguard.lifecycle.child import hold_signals, mark_of
from agentguard.lifecycle.local import ISSUER, local_issuer
from agentguard.lifecycle.states import RunRecord, RunState
from agentguard.lifecycle.store import Kind
from agentguard.model import Reason
from tests.cli.commands import agentguard
from tests.cli.supervised import supervisor
from tests.lifecycle.processes import other

# A supervisor has one thread when it forks; a test's process may have more, and its fork goes on to another program.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")

LEAST = ("run", "--agent", "reader", "--tool", "read", "--server", "records")
SHELL = (*LEAST, "--", "sh", "-c")


class Watching:
    """Stands for the guardian, which a test's own process does not fork."""

    def __init__(self) -> None:
        self.facts: dict[str, Any] = {}
        self.dismissed = self.left = False

    def start(self, open_store: object, *, held: object) -> Watching:
        """Begin."""
        return self

    def tell(self, **facts: object) -> None:
        """Keep what there is to end."""
        self.facts |= facts

    def dismiss(self) -> None:
        """Keep that there is nothing to end."""
        self.dismissed = True

    def leave(self) -> None:
        """Keep that there is something to end."""
        self.left = True


@pytest.fixture
def watching(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watching]:
    """Run the command in this process, with a guardian that only listens."""
    listening = Watching()
    monkeypatch.setattr(module, "Guardian", listening)
    monkeypatch.setattr(child, "_PAUSE", 0.05)
    before = hold_signals()
    yield listening
    while signal.sigpending() & child._HELD:
        signal.sigwait(child._HELD)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def the_run(folder: Path) -> RunRecord:
    """Return the one run on record."""
    with contextlib.closing(SQLiteStore(folder / "store.db")) as store:
        (run,) = store.runs()
    return run


@pytest.mark.parametrize(
    ("script", "status", "reason"),
    [
        ("exit 0", 0, "completed"),
        ("exit 3", 3, "completed: exit status 3"),
        ("kill -9 $$", 137, "completed: SIGKILL"),
    ],
)
def test_run_ends_as_its_command_does(watching: Watching, folder: Path, script: str, status: int, reason: str) -> None:
    """The status is the command's, the reason says how it ended, and nothing is said beside."""
    ran = agentguard(*SHELL, script)

    run = the_run(folder)
    assert (ran.status, ran.stdout, ran.stderr) == (status, "", "")
    assert (run.state, run.reason, run.agent) == (RunState.COMPLETED, reason, "reader")
    assert watching.dismissed
    assert not Path(watching.facts["folder"]).exists()


def test_run_says_all_that_was_asked_for(watching: Watching, folder: Path, tmp_path: Path) -> None:
    """Each option reaches the token that the command finds in its file; an outer token and the store's URL do not."""
    grant = tmp_path / "grant.cedar"
    grant.write_text('permit (principal, action == Action::"read", resource);')
    claims = (
        "import base64, json, os; t = open(os.environ['AGENTGUARD_TOKEN_FILE']).read().split('.')[1];"
        f"open({str(tmp_path / 'claims')!r}, 'wb').write(base64.urlsafe_b64decode(t + '=='));"
        "assert not {'AGENTGUARD_TOKEN', 'AGENTGUARD_STORE'} & os.environ.keys()"
    )
    options = ("--user", "alice", "--task", "t1", "--purpose", "close", "--scope", "a", "--scope", "b", "--ends-in")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AGENTGUARD_TOKEN", "of an outer run")
        patch.setenv("AGENTGUARD_STORE", str(folder / "store.db"))
        ran = agentguard(
            *("run", "--agent", "reader", "--grant", str(grant), "--audience", "http://127.0.0.1:8000/mcp", *options),
            *("2h", "--token-lifetime", "30s", "--", sys.executable, "-c", claims),
        )

    assert (ran.status, ran.stderr) == (0, "")
    found = json.loads((tmp_path / "claims").read_text())
    assert found["iss"] == ISSUER
    assert found["aud"] == "http://127.0.0.1:8000/mcp"
    assert (found["sub"], found["client_id"], found["task"], found["purp"]) == ("alice", "reader", "t1", "close")
    assert found["scope"] == "a b"
    assert (found["exp"] - found["iat"], found["run_exp"] - found["run_iat"]) == (30, 7200)
    assert found["authorization_details"][0]["cedar"] == grant.read_text()
    assert found["run"] == the_run(folder).run_id == watching.facts["run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "`agentguard run` wants a command after `--`, got none: agentguard run --agent … -- COMMAND"),
        (
            ("server.py",),
            (
                "`agentguard run` wants its command after `--`, got `server.py`: "
                "agentguard run --agent … -- python server.py"
            ),
        ),
        (
            ("--agent", "a", "--server=records", "node", "server.js", "--port", "1"),
            "`agentguard run` wants its command after `--`, got `node`: agentguard run --agent … -- node",
        ),
        (
            (*LEAST[1:], "--"),
            "`agentguard run` wants a command after `--`, got none: add the program and its arguments",
        ),
        (("--tool", "read", "--server", "s", "--", "true"), "missing option `--agent` (see `agentguard run --help`)"),
        ((*LEAST[1:], "--nothing", "--", "true"), "no such option: --nothing (see `agentguard run --help`)"),
        (
            ("--agent", "a", "--tool", "read", "--", "true"),
            "a run is for one server; wants --audience URL or --server NAME, got neither: give one of them",
        ),
        (
            ("--agent", "a", "--server", "s", "--", "true"),
            "a run wants --tool or --grant, got neither: say what it may call",
        ),
        (
            (*LEAST[1:], "--token-lifetime", "9", "--", "true"),
            "--token-lifetime wants 10s to 15m, got `9`: leave it out for 5m",
        ),
        (
            (*LEAST[1:], "--token-lifetime", "901", "--", "true"),
            "--token-lifetime wants 10s to 15m, got `901`: leave it out for 5m",
        ),
        (
            (*LEAST[1:], "--ends-in", "soon", "--", "true"),
            "a duration wants a number and s, m, h or d, got `soon`: write 10m for ten minutes",
        ),
    ],
)
def test_mistake_is_one_line_with_the_fix_and_a_status_of_our_own(
    arguments: tuple[str, ...], message: str, folder: Path
) -> None:
    """Nothing has begun by then, neither a run nor a guardian."""
    ran = agentguard("run", *arguments)

    assert (ran.status, ran.stdout, ran.stderr) == (125, "", f"agentguard: {message}\n")
    assert not folder.exists()


def test_empty_command_is_none() -> None:
    """The system would not start it."""
    ran = agentguard(*LEAST, "--", "")

    assert ran.status == 125
    assert ran.stderr.startswith("agentguard: `agentguard run` wants a command after `--`, got none: ")


def test_help_needs_no_command() -> None:
    """It says what the defaults are."""
    ran = agentguard("run", "--help")

    assert ran.status == 0
    assert "--token-lifetime" in ran.stdout
    assert "[default: 1d]" in ran.stdout


@pytest.mark.parametrize(
    ("command", "status", "message"),
    [
        ("no-such-command", 127, "No such file or directory: give its path, or one that may be executed"),
        ("/etc/passwd", 126, "Permission denied: give its path, or one that may be executed"),
        ("server.py", 127, "No such file or directory: agentguard run … -- python server.py"),
    ],
)
def test_command_that_cannot_be_started_leaves_no_live_run(
    watching: Watching, folder: Path, command: str, status: int, message: str
) -> None:
    """The statuses are a shell's."""
    ran = agentguard(*LEAST, "--", command)

    assert (ran.status, ran.stdout) == (status, "")
    assert ran.stderr == f"agentguard: `{command}` cannot be started: {message}\n"
    assert the_run(folder).reason == "completed: the command could not be started"
    assert watching.dismissed


def test_command_that_is_given_up_before_it_is_started_is_not_started(
    watching: Watching, folder: Path, tmp_path: Path
) -> None:
    """A signal that came while the run was begun counts."""
    signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    ran = agentguard(*SHELL, f"touch {tmp_path / 'started'}")

    assert ran.status == 143
    assert not (tmp_path / "started").exists()
    assert the_run(folder).reason == "completed: SIGTERM before the command was started"


def test_run_that_the_store_does_not_let_begin_starts_no_command(watching: Watching, folder: Path) -> None:
    """An agent that was ended begins nothing."""
    with contextlib.closing(local_issuer(folder).store) as store:  # type: ignore[type-var]
        store.revoke_all(issuer=ISSUER, kind=Kind.AGENT, name="reader")  # type: ignore[union-attr]

    ran = agentguard(*SHELL, "echo started")

    assert (ran.status, ran.stdout) == (125, "")
    assert ran.stderr.startswith("agentguard: the run cannot begin: every run of agent `reader` is ended, for good")
    assert watching.dismissed
    assert not [thread for thread in threading.enumerate() if str(folder) in thread.name]


def test_store_that_cannot_be_used_starts_no_command(watching: Watching, tmp_path: Path) -> None:
    """It is our own failure."""
    (tmp_path / "store").write_text("no store")
    (tmp_path / "store").chmod(0o600)

    ran = agentguard(*LEAST, "--store", str(tmp_path / "store"), "--", "true")

    assert ran.status == 125
    assert "wants a store's file" in ran.stderr
    assert watching.dismissed


def test_system_without_room_for_a_guardian_starts_no_command(
    watching: Watching, monkeypatch: pytest.MonkeyPatch, folder: Path
) -> None:
    """Without one, a run would outlive us."""

    def refuse(*arguments: object, **options: object) -> None:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(watching, "start", refuse)

    ran = agentguard(*SHELL, "echo started")

    assert (ran.status, ran.stdout) == (125, "")
    assert ran.stderr == "agentguard: the run cannot be set up: [Errno 11] Resource temporarily unavailable\n"
    assert not (folder / "store.db").exists()


def test_end_that_the_store_could_not_keep_is_left_to_the_guardian(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command's status is not held up."""

    def refuse(store: object, **ended: object) -> None:
        raise Refusal(Reason.STORE_UNAVAILABLE)

    monkeypatch.setattr(SQLiteStore, "revoke", refuse)

    ran = agentguard(*SHELL, "exit 3")

    assert ran.status == 3
    assert watching.left
    assert not watching.dismissed
    assert watching.facts["reason"] == "completed: exit status 3"


def test_failure_of_ours_leaves_command_and_run_to_the_guardian(
    watching: Watching, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows of both."""

    def fail(running: object, *, each_second: object) -> int:
        message = "out of luck"
        raise RuntimeError(message)

    monkeypatch.setattr(child.Child, "wait", fail)

    ran = agentguard(*SHELL, "exit 0")

    assert (ran.status, ran.stdout) == (125, "")
    assert ran.stderr == "agentguard: RuntimeError while the command was run: out of luck\n"
    assert watching.left
    assert watching.facts.keys() >= {"run", "issuer", "until", "folder", "pid", "mark"}
    assert watching.facts["reason"] == "supervising the command failed: RuntimeError"
    assert not Path(watching.facts["folder"]).exists()
    os.waitpid(watching.facts["pid"], 0)


@pytest.mark.parametrize(
    ("error", "said"),
    [(Reason.EXPIRED, "is over"), (Reason.REVOKED, "was ended"), (Reason.STORE_UNAVAILABLE, None)],
)
def test_run_that_is_over_while_its_command_goes_on_is_told_of_once(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, error: Reason, said: str | None
) -> None:
    """A store that is away is another matter, and passes."""
    issuer = local_issuer(folder, audience=stdio_audience("records"))
    run = issuer.begin(agent="reader", tools=["read"])
    look = _watch(run)
    look()
    assert capsys.readouterr().err == ""

    def refuse() -> bool:
        raise Refusal(error)

    monkeypatch.setattr(type(run), "token", lambda _: refuse())
    look()
    look()

    line = f"agentguard: run `{run.id}` {said}: its calls are denied, and the command goes on without it\n"
    assert capsys.readouterr().err == ("" if said is None else line)
    run.stop()
    assert issuer.store is not None
    issuer.store.close()


def wait_for(folder: Path, state: RunState) -> RunRecord:
    """Wait until the one run has come to a state, and return it."""
    until = time.monotonic() + 20
    with contextlib.closing(SQLiteStore(folder / "store.db")) as store:
        while time.monotonic() < until:
            (run,) = store.runs()
            if run.state is state:
                return run
            os.sched_yield()
    pytest.fail(f"the run does not become {state}")


def test_standard_output_is_the_commands_alone(folder: Path, tmp_path: Path) -> None:
    """And it ends with the command: nobody of ours keeps it open."""
    with supervisor(*SHELL, "echo out; echo err >&2; exit 4", folder=tmp_path) as started:
        assert started.stdout.read() == "out\n"
        assert started.stderr.read() == "err\n"
        assert started.wait() == 4
    assert the_run(folder).state is RunState.COMPLETED


def test_signals_are_handed_on_and_the_command_decides(tmp_path: Path, folder: Path) -> None:
    """Each reaches it once."""
    names = ("INT", "HUP", "QUIT", "USR1", "USR2", "WINCH", "CONT")
    traps = "".join(f"trap 'echo {name}' {name};" for name in names)
    script = f"{traps} trap 'echo TERM; exit 9' TERM; echo ready; while :; do sleep 0.01; done"
    with supervisor(*SHELL, script, folder=tmp_path) as started:
        assert started.stdout.readline() == "ready\n"
        for name in names:
            started.send(signal.Signals[f"SIG{name}"])
            assert started.stdout.readline() == f"{name}\n"
        started.send(signal.SIGTERM)
        assert started.stdout.read() == "TERM\n"
        assert started.wait() == 9
    assert the_run(folder).reason == "completed: exit status 9"


def test_supervisor_that_is_killed_takes_its_run_and_its_command_along(folder: Path, tmp_path: Path) -> None:
    """Nothing can be done in a process that gets SIGKILL, so another one does it."""
    with supervisor(*SHELL, "echo $$ $AGENTGUARD_TOKEN_FILE; exec sleep 60", folder=tmp_path) as started:
        pid, file = started.stdout.readline().split()
        assert Path(file).stat().st_mode & 0o077 == 0
        started.send(signal.SIGKILL)

        run = wait_for(folder, RunState.REVOKED)
        assert started.stdout.read() == ""
        assert "was killed: run `" in started.stderr.read()
        assert started.wait() == -signal.SIGKILL
    assert run.reason == "the process that supervised the command was killed"
    # Whoever did it tells nobody when it is done.
    deadline = time.monotonic() + 10
    while mark_of(int(pid)) is not None or Path(file).parent.exists():
        assert time.monotonic() < deadline, (mark_of(int(pid)), Path(file).parent)


def test_command_that_is_killed_takes_its_run_along(folder: Path, tmp_path: Path) -> None:
    """At once, and for whoever kept its token."""
    with supervisor(*SHELL, "echo $$; exec sleep 60", folder=tmp_path) as started:
        os.kill(int(started.stdout.readline()), signal.SIGKILL)

        assert wait_for(folder, RunState.COMPLETED).reason == "completed: SIGKILL"
        assert started.wait() == 137


def test_run_that_is_revoked_elsewhere_takes_its_token_away_and_not_its_command(folder: Path, tmp_path: Path) -> None:
    """The command may have something to tidy up; its calls are denied."""
    script = "echo $AGENTGUARD_TOKEN_FILE; trap 'exit 0' TERM; while :; do sleep 0.01; done"
    with supervisor(*SHELL, script, folder=tmp_path) as started:
        file = Path(started.stdout.readline().strip())
        run_id = the_run(folder).run_id
        with contextlib.closing(SQLiteStore(folder / "store.db")) as store:
            store.revoke(issuer=ISSUER, run_id=run_id, reason="by hand")

        assert started.stderr.readline() == (
            f"agentguard: run `{run_id}` was ended: its calls are denied, and the command goes on without it\n"
        )
        started.send(signal.SIGTERM)
        assert started.wait() == 0
        assert not file.exists()
    assert the_run(folder).reason == "by hand"


def leader_of(says: Any, terminal: str, folder: str) -> None:
    """Be what `ssh -t` starts: the leader of a session that a terminal belongs to, and no shell between."""
    os.setsid()
    opened = os.open(terminal, os.O_RDWR)
    for number in range(3):
        os.dup2(opened, number)
    os.close(opened)
    os.environ["XDG_STATE_HOME"] = folder
    try:
        main([*SHELL, "trap 'exit 6' HUP; echo ready; while :; do sleep 0.01; done"])
    except SystemExit as left:
        says.send(("ended", left.code))


def test_terminal_that_is_gone_ends_the_command_of_its_leader(tmp_path: Path) -> None:
    """The system tells the leader of the session alone, which is us."""
    ours, terminal = pty.openpty()
    with other(leader_of, os.ttyname(terminal), str(tmp_path)) as leader:
        seen = b""
        while b"ready" not in seen:
            seen += os.read(ours, 1024)
        os.close(terminal)
        os.close(ours)
        assert leader.hear() == [("ended", 6)]


def closed(says: Any, script: str, folder: str) -> None:
    """Be what a daemon starts that has closed its streams."""
    os.close(0)
    os.environ["XDG_STATE_HOME"] = folder
    main([*SHELL, script])


def test_closed_standard_input_does_not_cost_the_guardian(folder: Path, tmp_path: Path) -> None:
    """The lowest number is the next that a pipe gets."""
    started = tmp_path / "started"
    with other(closed, f"echo > {started}; kill -9 $PPID; while :; do sleep 0.01; done", str(tmp_path)):
        while not started.exists():
            os.sched_yield()
        assert wait_for(folder, RunState.REVOKED).reason == "the process that supervised the command was killed"


def job(says: Any, terminal: str, folder: str) -> None:
    """Be a shell with a terminal that has one job."""
    os.setsid()
    # The first terminal that a session's leader opens is its own.
    opened = os.open(terminal, os.O_RDWR)
    # It starts no programs: one that is stopped before it began would keep the shell from stopping.
    script = "trap 'echo once' INT; trap 'exit 6' TERM; echo ready; while :; do read line; done"
    ready, go = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        os.read(ready, 1)
        for number in range(3):
            os.dup2(opened, number)
        os.environ["XDG_STATE_HOME"] = folder
        main([*SHELL, script])
    os.setpgid(pid, pid)
    os.tcsetpgrp(opened, pid)
    os.write(go, b".")
    signal.signal(signal.SIGTTOU, signal.SIG_IGN)
    _, status = os.waitpid(pid, os.WUNTRACED)
    says.send(("stopped", os.WIFSTOPPED(status)))
    os.killpg(pid, signal.SIGCONT)
    os.kill(pid, signal.SIGTERM)
    _, status = os.waitpid(pid, 0)
    says.send(("ended", os.waitstatus_to_exitcode(status)))


def test_keys_of_a_terminal_reach_the_command_once(tmp_path: Path) -> None:
    """Ctrl-C once, and Ctrl-Z stops both, as the shell that waits for them expects."""
    ours, terminal = pty.openpty()
    with other(job, os.ttyname(terminal), str(tmp_path)) as shell, os.fdopen(ours, "r+b", buffering=0) as keys:
        seen = b""
        while b"ready" not in seen:
            seen += keys.read(1024)
        os.close(terminal)
        keys.write(b"\x03")
        while b"once" not in seen:
            seen += keys.read(1024)
        keys.write(b"\x1a")
        assert shell.hear() == [("stopped", True)]
        assert shell.hear() == [("ended", 6)]
        with contextlib.suppress(OSError):
            while more := keys.read(1024):
                seen += more
    assert seen.count(b"once") == 1
