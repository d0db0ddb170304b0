"""`agentguard run` around a stdio server, as a host starts it: renewed for long, and over at once when it is killed."""

from __future__ import annotations

import logging
import os
import random
import signal
import statistics
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import anyio
import pytest
from mcp import Client, StdioServerParameters

from agentguard import SQLiteStore
from agentguard.identity.form import peek
from agentguard.identity.sources import META_KEY
from agentguard.lifecycle.local import local_folder
from agentguard.lifecycle.store import RunRecord, RunState
from agentguard.limits import Limits
from tests.cli.supervised import supervisor
from tests.soak.stdio_records import ALL, NAME, build
from tests.world import meta, text

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).with_name("agentguard")
LIFETIME = 10
KILLS = 10
MOMENTS = 60


@dataclass
class Host:
    """What a host has of a server that it started, and what a thief could read.

    Attributes:
        client: The host's client.
        server: The id of the server's process.
        supervisor: The id of the process of `agentguard run`.
        token_file: The file of the token.
    """

    client: Client
    server: int
    supervisor: int
    token_file: Path

    def kill(self, victim: str) -> None:
        """Kill one of the two processes, or their whole group, with SIGKILL."""
        group = os.getpgid(self.supervisor)
        assert group == os.getpgid(self.server) != os.getpgrp()
        process = {"server": self.server, "supervisor": self.supervisor, "group": -group}[victim]
        os.kill(process, signal.SIGKILL)

    def copied_token(self) -> str:
        """Return the token as any program of this user can copy it."""
        return self.token_file.read_text()


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the local issuer a folder of its own, and return a folder of policies."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "policies"
    folder.mkdir()
    (folder / "all.cedar").write_text(ALL)
    return folder


def token_file_of(pid: int) -> Path:
    """Return the token's file of a server, as it found it in its environment."""
    environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    (file,) = (entry.partition(b"=")[2] for entry in environment if entry.startswith(b"AGENTGUARD_TOKEN_FILE="))
    return Path(file.decode())


@asynccontextmanager
async def hosted(policies: Path, *options: str) -> AsyncIterator[Host]:
    """Start the server as a host does, and talk to it with a real client."""
    command = ("run", "--agent", "reader", "--tool", "whoami", "--server", NAME, *options)
    parameters = StdioServerParameters(
        command=str(COMMAND),
        args=[*command, "--", sys.executable, "-m", "tests.soak.stdio_records", str(policies)],
        env=dict(os.environ),
        cwd=ROOT,
    )
    async with Client(parameters) as client:
        server, supervisor = map(int, text(await client.call_tool("whoami", {})).split())
        yield Host(client, server, supervisor, token_file_of(server))


@asynccontextmanager
async def second_guard(policies: Path) -> AsyncIterator[Client]:
    """Guard the same server in this process too, on the same store; a call brings its own token."""
    guard, server = build(policies)
    guard.attach(server, identity="meta")
    with closing(guard.state):
        async with Client(server) as client:
            yield client


async def refused(client: Client, token: str) -> str:
    """Call with a token, and return why it was refused; empty if it was not."""
    answer = await client.call_tool("whoami", {}, meta=cast("Any", {META_KEY: token}))
    return meta(answer)["reason"] if answer.is_error else ""


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Keep the warnings about the local issuer out of the figures."""
    logging.getLogger("agentguard").setLevel(logging.ERROR)
    yield
    logging.getLogger("agentguard").setLevel(logging.NOTSET)


def runs() -> tuple[RunRecord, ...]:
    """Return the runs on record."""
    with closing(SQLiteStore(local_folder() / "store.db")) as store:
        return store.runs()


async def test_server_serves_past_three_lifetimes_of_its_token(policies: Path) -> None:
    """Beyond the leeway too, when its first token is refused; it is one run all along."""
    async with hosted(policies, "--token-lifetime", f"{LIFETIME}s") as host, second_guard(policies) as other:
        first = host.copied_token()
        began = time.monotonic()
        assert await refused(other, first) == ""
        lasts = 3 * LIFETIME + Limits().leeway_seconds
        seen = {first}
        while time.monotonic() - began < lasts:
            assert not (await host.client.call_tool("whoami", {})).is_error
            seen.add(host.copied_token())
            await anyio.sleep(0.5)

        assert not (await host.client.call_tool("whoami", {})).is_error
        assert await refused(other, first) == "ended"
        assert await refused(other, host.copied_token()) == ""
        assert len({peek(token, Limits()).issuer for token in seen}) == 1
        (run,) = runs()
        calls = run.calls

    (run,) = runs()
    sys.stderr.write(f"\n{lasts} s, {len(seen)} tokens of {LIFETIME} s, {calls} calls, 1 run\n")
    assert len(seen) > lasts / LIFETIME
    assert run.state is RunState.COMPLETED
    assert not host.token_file.parent.exists()


@pytest.mark.parametrize("victim", ["server", "supervisor", "group"])
async def test_token_of_a_server_that_is_killed_is_refused_at_once(policies: Path, victim: str) -> None:
    """By another guard on the same store, whichever of the two processes gets SIGKILL, or both."""
    took: list[float] = []
    async with second_guard(policies) as other:
        for _ in range(KILLS):
            async with hosted(policies) as host:
                token = host.copied_token()
                assert await refused(other, token) == ""
                killed = time.perf_counter()
                host.kill(victim)
                while not (reason := await refused(other, token)):
                    assert time.perf_counter() - killed < 5
                took.append(time.perf_counter() - killed)
                assert reason == "ended"
                assert not host.token_file.parent.exists()

    figures = " ".join(f"{seconds * 1000:.0f}" for seconds in sorted(took))
    sys.stderr.write(
        f"\n{victim} killed, ms to the first refusal: {figures}, p50 {statistics.median(took) * 1000:.0f}\n"
    )
    assert len(took) == KILLS
    assert max(took) < 3
    assert {run.state for run in runs()} == {RunState.COMPLETED if victim == "server" else RunState.REVOKED}


def wait_for_end(reader: int) -> None:
    """Wait until nobody has the other end of a pipe open any more."""
    until = time.monotonic() + 10
    while time.monotonic() < until:
        try:
            assert os.read(reader, 1) == b""
        except BlockingIOError:
            os.sched_yield()
        else:
            os.close(reader)
            return
    pytest.fail("the command goes on")


def test_supervisor_that_is_killed_at_any_moment_leaves_nothing_behind(tmp_path: Path, policies: Path) -> None:
    """Neither a run that lives, nor a token's file, nor a command."""
    chance = random.Random(5)  # noqa: S311  a moment, not a secret
    started = 0
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = ("run", "--agent", "reader", "--tool", "whoami", "--server", NAME, "--", "sh", "-c")
    # So that some come before the command has begun and some after, on a busy machine too.
    usual = 0.0
    for name in ("first, which makes key and store", "second"):
        (tmp_path / name).mkdir()
        began = time.monotonic()
        with supervisor(*command, "echo $AGENTGUARD_TOKEN_FILE", folder=tmp_path / name, TMPDIR=str(temporary)) as one:
            assert one.stdout.readline().startswith(str(temporary))
            usual = time.monotonic() - began
    for number in range(MOMENTS):
        folder, alive = tmp_path / str(number), tmp_path / f"{number}.alive"
        folder.mkdir()
        os.mkfifo(alive)
        # Whoever reads it sees its end when nobody has it open any more: the command does, until it ends.
        reader = os.open(alive, os.O_RDONLY | os.O_NONBLOCK)
        script = f"exec 3>{alive}; echo $AGENTGUARD_TOKEN_FILE; while :; do sleep 0.01; done"
        with supervisor(*command, script, folder=folder, TMPDIR=str(temporary)) as running:
            time.sleep(chance.uniform(0, 1.5 * usual))
            running.send(signal.SIGKILL)
            started += running.stdout.read().startswith(str(temporary))
            # The guardian has it open until it has made its first try.
            running.stderr.read()
        wait_for_end(reader)
        assert [run for run in runs() if run.state.live] == []
        # Python itself tries out the folder with a file of its own, which a kill may leave there; nothing else stays.
        assert [one for one in temporary.iterdir() if one.is_dir() or one.read_bytes() not in {b"", b"blat"}] == []

    states = Counter(run.state.value for run in runs())
    sys.stderr.write(f"\n{MOMENTS} kills, {started} after the command had begun: {dict(states)}\n")
    assert 0 < started < MOMENTS
