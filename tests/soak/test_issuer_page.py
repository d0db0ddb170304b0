"""The page on serving an issuer prints and refuses what it says."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Final

import httpx2
import pytest

from agentguard.lifecycle.clients import Client
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python
from tests.ports import free_port

PAGE: Final = "docs/pages/how-to/issuer-service.md"


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """Run the page's programs, and return where, and what they print."""
    folder = tmp_path_factory.mktemp("issuer")
    with redirect_stdout(StringIO()) as output:
        run_python(PAGE, folder)
    return folder, output.getvalue()


def test_programs_of_the_page_print_what_it_shows(ran: tuple[Path, str]) -> None:
    """Begun, renewed, handed on, refused and revoked over a real connection."""
    shown, _ = blocks(PAGE, "text")

    assert ran[1] == shown.text


def test_command_of_the_page_prints_what_it_shows(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the files of the page."""
    (shown,) = blocks(PAGE, "console")
    command, _, output = shown.text.partition("\n")
    monkeypatch.chdir(ran[0])

    done = agentguard(*shlex.split(command.removeprefix("$ agentguard ")))

    assert (done.status, done.stdout, done.stderr) == (0, output, "")


def test_first_token_is_had_by_the_commands_of_the_page(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Two scripts and curl against the served issuer; its log says what the page shows of it."""
    folder = ran[0]
    (shown,) = blocks(PAGE, "sh")
    (console,) = blocks(PAGE, "console")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = console.text.partition("\n")[0].removeprefix("$ agentguard ").removesuffix(" --check")
    changed = command.replace("https://issuer.example", f"{url} --port {port}")
    script = "from agentguard.cli.main import main; main()"

    def printed(*program: str) -> str:
        return subprocess.run(program, cwd=folder, capture_output=True, text=True, check=True).stdout.strip()

    with subprocess.Popen(
        [sys.executable, "-c", script, *shlex.split(changed)],
        cwd=folder, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        try:
            assert "serving" in process.stderr.readline()
            lines = shown.text.replace("http://127.0.0.1:8080", url).replace("$(python ", f"$({sys.executable} ")
            first = json.loads(printed("sh", "-c", lines))
            assertion = [sys.executable, "assertion.py", url, "billing-agent", "billing-1"]
            signed = {
                "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
                "client_assertion": printed(*assertion),
                "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
                "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
            }
            # Renewed, then the same assertion again, then a token for somebody else.
            again = httpx2.post(f"{url}/token", data={**signed, "subject_token": first["access_token"]})
            twice = httpx2.post(f"{url}/token", data={**signed, "subject_token": first["access_token"]})
            signed["client_assertion"] = printed(*assertion)
            other = printed(sys.executable, "login.py", "https://elsewhere.example")
            wrong = httpx2.post(f"{url}/token", data={**signed, "subject_token": other})
        finally:
            process.terminate()
        log = [line.partition(" INFO ")[2].replace(url, "https://issuer.example") for line in process.stderr]

    assert [response.status_code for response in (again, twice, wrong)] == [200, 401, 400]
    assert again.json()["run"] == first["run"]
    assert log[0].startswith(f"run `{first['run']}` began: agent `billing-agent` for user `alice`")
    assert log[1:] == blocks(PAGE, "text")[1].text.splitlines(keepends=True)
    monkeypatch.chdir(folder)
    (listed,) = (run for run in agentguard("runs", "--store", "runs.db", "--json").json if run["issuer"] == url)
    assert listed["run_id"] == first["run"]


def test_private_keys_of_the_page_are_for_their_owners_alone(ran: tuple[Path, str]) -> None:
    """What is made by it is accepted by the command."""
    keys = sorted(ran[0].glob("*.pem"))

    assert [key.name for key in keys] == ["billing-agent.pem", "issuer.pem", "login.pem"]
    assert all(key.stat().st_mode & 0o077 == 0 for key in keys)


def test_table_of_clients_lists_what_a_registration_has() -> None:
    """Each field has its row; keys are given by a file or a URL."""
    text = (ROOT / PAGE).read_text("utf-8").partition("| `[[client]]` | Says |")[2].partition("\n\n")[0]
    shown = {name for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}

    assert shown == {field.name for field in fields(Client)} - {"keys"} | {"jwks", "jwks_uri"}
