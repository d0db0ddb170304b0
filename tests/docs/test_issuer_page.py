"""The page on serving an issuer prints and refuses what it says."""

from __future__ import annotations

import re
import shlex
from contextlib import redirect_stdout
from dataclasses import fields
from io import StringIO
from pathlib import Path
from typing import Final

import pytest

from agentguard.lifecycle.clients import Client
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python

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
    (shown,) = blocks(PAGE, "text")

    assert ran[1] == shown.text


def test_command_of_the_page_prints_what_it_shows(ran: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the files of the page."""
    (shown,) = blocks(PAGE, "console")
    command, _, output = shown.text.partition("\n")
    monkeypatch.chdir(ran[0])

    done = agentguard(*shlex.split(command.removeprefix("$ agentguard ")))

    assert (done.status, done.stdout, done.stderr) == (0, output, "")


def test_table_of_clients_lists_what_a_registration_has() -> None:
    """Each field has its row; keys are given by a file or a URL."""
    text = (ROOT / PAGE).read_text("utf-8").partition("| `[[client]]` | Says |")[2].partition("\n\n")[0]
    shown = {name for row in re.findall(r"^\| (`[^|]*) \|", text, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}

    assert shown == {field.name for field in fields(Client)} - {"keys"} | {"jwks", "jwks_uri"}
