"""`agentguard wrap` as a host starts it, as a run; and the conversations of the examples in the other era."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from mcp import Client, StdioServerParameters

from agentguard import RunState, SQLiteStore
from tests.docs.pages import write_files
from tests.examples.test_tau2 import QUICK, converse
from tests.soak.test_try_it_page import TRY, WRAP, entry
from tests.world import ERAS, Era, meta, text


@pytest.mark.parametrize("era", ERAS)
async def test_host_starts_wrap_as_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, era: Era) -> None:
    """With the configuration as the page has it, from any folder; the run ends with the host's session."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    write_files(WRAP, tmp_path)
    started = entry(WRAP, {"/opt/records/.venv/bin": str(Path(sys.executable).parent), "/opt/records": str(tmp_path)})

    async with Client(
        StdioServerParameters(**started, env=dict(os.environ), cwd="/"), mode="legacy" if era == ERAS[0] else era
    ) as client:
        read = await client.call_tool("read_record", {"record_id": "7"})
        deleted = await client.call_tool("delete_record", {"record_id": "7"})

    assert (text(read), meta(deleted)["reason"]) == ("record 7", "denied")
    with closing(SQLiteStore(tmp_path / "state" / "agentguard" / "store.db")) as store:
        (run,) = store.runs()
    assert (run.agent, run.state) == ("billing-agent", RunState.COMPLETED)


@pytest.mark.parametrize(("domain", "quick"), QUICK)
def test_conversation_keeps_to_the_rules_in_the_other_era(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, domain: str, quick: Era
) -> None:
    """The rules are the same."""
    (other,) = set(ERAS) - {quick}

    converse(domain, other, tmp_path, monkeypatch)


@pytest.mark.parametrize("transport", ["http", "stdio"])
def test_dev_that_is_told_to_end_leaves_nothing(tmp_path: Path, transport: str) -> None:
    """Neither evidence nor a token, wherever a host stops it."""
    write_files(TRY, tmp_path)
    places = {"XDG_STATE_HOME": str(tmp_path / "state"), "TMPDIR": str(tmp_path / "temporary")}
    (tmp_path / "temporary").mkdir()
    command = [str(Path(sys.executable).with_name("agentguard")), "dev", "server.py"]
    command += ["--stdio"] if transport == "stdio" else ["--port", "0"]

    with subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, **places}, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        assert started.stderr is not None
        assert "agentguard: serving `records`" in next(line for line in started.stderr if "serving" in line)
        assert (tmp_path / "state" / "agentguard" / "dev" / "records").is_dir()
        started.send_signal(signal.SIGTERM)

    assert started.returncode == -signal.SIGTERM
    assert [path.name for path in (tmp_path / "state" / "agentguard" / "dev").iterdir()] == ["records.lock"]
    assert list((tmp_path / "temporary").iterdir()) == []
