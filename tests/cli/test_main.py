"""`agentguard` itself: its help, its version, and how mistakes are told."""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import pytest
from typer.exceptions import TyperException

from agentguard import ConfigurationError, Reason, Refusal
from agentguard.cli import loading, runs
from agentguard.cli import main as command_line
from agentguard.cli.lazy import LazyCommand
from agentguard.cli.output import result_json, say
from tests.cli.commands import agentguard

EXAMPLE: Final = Path(__file__).parents[2] / "examples" / "records"
COMMANDS: Final[dict[str, Any]] = {str(lazy.name): lazy.loaded for lazy in command_line.COMMANDS}


def every(group: dict[str, Any], words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command with the words that name it, those of a group too."""
    for name, command in group.items():
        inner = getattr(command, "commands", None)
        yield from [((*words, name), command)] if inner is None else every(inner, (*words, name))


EVERY: Final = dict(every(COMMANDS))


def test_version_is_that_of_the_distribution() -> None:
    """On standard output, for scripts."""
    ran = agentguard("--version")

    assert (ran.status, ran.stdout, ran.stderr) == (0, f"agentguard {version('agentguard')}\n", "")


def test_help_lists_the_commands_by_what_they_are_for() -> None:
    """In 80 columns, without colour where nobody sees it."""
    ran = agentguard("--help")

    lines = ran.stdout.splitlines()
    assert ran.status == 0
    assert max(len(line) for line in lines) <= 80
    assert "\x1b" not in ran.stdout
    start, live, serve, evidence = (
        next(n for n, line in enumerate(lines) if line.startswith(f"╭─ {group} "))
        for group in ("Start", "Live", "Serve", "Evidence")
    )
    where = {name: next(n for n, line in enumerate(lines) if line.startswith(f"│ {name} ")) for name in COMMANDS}
    assert start < where["dev"] < where["run"] < where["token"] < where["wrap"] < live < where["runs"] < where["revoke"]
    assert where["revoke"] < serve < where["issuer"] < evidence < where["evidence"]


@pytest.mark.parametrize("lazy", command_line.COMMANDS, ids=lambda lazy: lazy.name)
def test_list_says_of_a_command_what_it_says_of_itself(lazy: LazyCommand) -> None:
    """It is written twice, since the list is shown before any command is imported."""
    said, _, _ = lazy.loaded.help.partition("\n\n")

    assert lazy.help == " ".join(said.split())
    assert lazy.name == lazy.loaded.name


# What takes long to import: what serves, what fetches, and what signs.
HEAVY: Final = frozenset({"mcp", "mcp_types", "uvicorn", "starlette", "httpx2", "jwt", "opentelemetry"})
READING: Final = (
    "check policies",
    "fmt --check policies",
    "lock --check policies",
    "test policies",
    "access --tool export_records policies",
    "explain --call read_record --agent billing-agent --with record_id=1 policies",
    "evidence show policies",
)


def test_commands_that_read_a_folder_import_no_server() -> None:
    """They run before each commit and in each pipeline; a list of commands imports none of them at all."""
    script = f"""
import sys
from contextlib import suppress
from agentguard.cli.main import main
for words in ("--help", *{READING!r}):
    with suppress(SystemExit):
        main(words.split())
    print("loaded:", *sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=EXAMPLE, capture_output=True, text=True, check=True, env={"PATH": "/bin"}
    )

    listed, *read = (set(line.split()) for line in done.stdout.splitlines() if line.startswith("loaded: "))
    ours = {name for name in listed if name.startswith("agentguard.cli.")}
    assert ours == {f"agentguard.cli.{name}" for name in ("dashes", "lazy", "loading", "main", "output")}
    assert not {"cedarpy", "pydantic"} & listed
    assert len(read) == len(READING)
    assert not any(HEAVY & loaded for loaded in read)
    assert {f"agentguard.cli.{words.partition(' ')[0]}" for words in READING} <= read[-1]


@pytest.mark.parametrize("words", sorted(EVERY), ids=" ".join)
def test_help_of_a_command_teaches_by_one_example_that_parses(words: tuple[str, ...]) -> None:
    """It can be copied, and its options exist."""
    ran = agentguard(*words, "--help")

    (example,) = re.findall(r"Example: `(agentguard .*)`", " ".join(EVERY[words].help.split()))
    assert max(len(line) for line in ran.stdout.splitlines()) <= 80
    assert ran.stdout.count("Example:") == 1
    _, *arguments = shlex.split(example)
    assert tuple(arguments[: len(words)]) == words
    assert EVERY[words].make_context(words[-1], arguments[len(words) :]) is not None


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("agentguard expl", ["explain"]),
        ("agentguard doctor --e", ["--evidence"]),
        ("agentguard check --format s", ["sarif"]),
    ],
)
def test_shell_completes_commands_options_and_values(
    typed: str, completed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it asks for it, by the environment."""
    monkeypatch.setenv("_AGENTGUARD_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))

    ran = agentguard()

    assert (ran.status, ran.stdout.split(), ran.stderr) == (0, completed, "")


@pytest.mark.parametrize("command", ["run", "token"])
def test_help_says_which_options_are_needed_though_none_is_by_itself(command: str) -> None:
    """One of two is: each of them says so."""
    says = {param.name: param.help for param in COMMANDS[command].params}

    for one, other in (("tool", "grant"), ("audience", "server")):
        assert says[one].endswith(f" This or --{other} is needed.")
        assert says[other].endswith(f" This or --{one} is needed.")


def test_command_without_arguments_shows_its_help() -> None:
    """And says by its status that nothing was done."""
    ran = agentguard()

    assert ran.status == 2
    assert "Usage: agentguard" in ran.stdout
    assert ran.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rvoke",), "agentguard: no such command `rvoke`. Did you mean `revoke`"),
        (("run-s",), "agentguard: no such command `run-s`"),
        (("token", "--agnt", "a"), "agentguard: no such option: --agnt"),
        (("token",), "agentguard: missing option `--agent` (see `agentguard token --help`)"),
        (("runs", "--store", "nowhere.db"), "agentguard: --store wants a file that is there, got `nowhere.db`"),
    ],
)
def test_mistake_is_one_line_and_no_traceback(arguments: tuple[str, ...], message: str) -> None:
    """On standard error, with status 2."""
    ran = agentguard(*arguments)

    assert ran.status == 2
    assert ran.stderr.startswith(message)
    assert ran.stderr.count("\n") == 1
    assert ran.stdout == ""


def test_mistake_without_a_command_is_told_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that typer raises by itself knows of no command."""
    monkeypatch.setattr(runs, "open_store", failing(TyperException("Something is wrong.")))

    assert agentguard("runs").stderr == "agentguard: something is wrong (see `agentguard --help`)\n"


def failing(error: Exception) -> Callable[..., Any]:
    """Return what raises *error* when it is called."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (ConfigurationError("`x` wants y: do z"), 2, "agentguard: `x` wants y: do z\n"),
        (ConfigurationError("a \x1b[31mred\x07 name"), 2, "agentguard: a \ufffd[31mred\ufffd name\n"),
        (
            Refusal(Reason.STORE_UNAVAILABLE, "no route"),
            1,
            "agentguard: the store cannot be used: no route\n",
        ),
        (Refusal(Reason.EXPIRED), 1, "agentguard: the run's time is over\n"),
        (Refusal(Reason.INVALID_TOKEN, "x"), 1, "agentguard: refused, invalid_token: x\n"),
    ],
)
def test_what_a_command_raises_is_told_in_words(
    error: Exception, status: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mistake of the set-up is 2, a refusal 1; nothing in it steers the terminal."""
    monkeypatch.setattr(runs, "open_store", failing(error))

    ran = agentguard("runs")

    assert (ran.status, ran.stdout, ran.stderr) == (status, "", message)


def test_interrupted_command_has_the_status_of_a_shell(monkeypatch: pytest.MonkeyPatch) -> None:
    """128 and the number of the signal."""
    monkeypatch.setattr(runs, "open_store", failing(KeyboardInterrupt()))  # type: ignore[arg-type]

    assert agentguard("runs").status == 130


def test_mistake_of_ours_is_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever finds it needs the traceback."""
    monkeypatch.setattr(runs, "open_store", failing(ZeroDivisionError()))

    with pytest.raises(ZeroDivisionError):
        command_line.main(["runs"])


class Full(io.StringIO):
    """A stream that takes nothing: a disk that is full, or a reader that has gone."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number

    def write(self, text: str) -> int:
        """Refuse."""
        raise OSError(self._number, os.strerror(self._number))


def test_result_that_cannot_be_written_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one line. Nothing is left that Python would write again at its end."""
    monkeypatch.setattr(sys, "stdout", Full(errno.ENOSPC))
    with pytest.raises(SystemExit) as left:
        command_line.main(["runs", "--json"])

    assert left.value.code == 2
    assert sys.stdout is None
    assert capsys.readouterr().err == "agentguard: No space left on device\n"


def test_message_that_nobody_reads_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what a command does nor its status."""
    monkeypatch.setattr(sys, "stderr", Full(errno.EPIPE))
    with pytest.raises(SystemExit) as left:
        command_line.main(["runs", "--wrong"])

    assert left.value.code == 2
    assert sys.stderr is None
    say("again")


def test_closed_standard_output_is_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Python has no stream for it then."""
    monkeypatch.setattr(sys, "stdout", None)
    with pytest.raises(SystemExit) as left:
        command_line.main(["runs"])

    assert left.value.code == 0


def test_json_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A name may hold what does, also beyond ASCII."""
    result_json({"user": "\x9b31m\u202e\x1b[0m"})

    assert capsys.readouterr().out == '{\n  "user": "\\u009b31m\\u202e\\u001b[0m"\n}\n'


def test_status_is_kept_where_a_server_that_was_looked_at_runs_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The process ends with it at once: Python would wait for the server's threads."""
    ends = threading.Event()
    thread = threading.Thread(target=ends.wait)
    left: list[int] = []
    monkeypatch.setattr(os, "_exit", left.append)
    loading.LEFT.add(thread)
    thread.start()
    try:
        with pytest.raises(SystemExit):
            command_line.main(["--version"])
    finally:
        ends.set()
        thread.join()
        loading.LEFT.discard(thread)

    assert left == [0]
    assert capsys.readouterr().out.startswith("agentguard ")
