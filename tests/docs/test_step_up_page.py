"""The page on step-up: what it says to type does what it says, and its table of answers is true."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import httpx2
import pytest

from tests.challenges import Caller
from tests.cli.commands import agentguard
from tests.docs.pages import blocks, run_python, without_ids
from tests.world import serving

PAGE: Final = "docs/pages/how-to/step-up.md"
AUDIENCE: Final = "http://127.0.0.1:8000/mcp"


def started(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Any]:
    """Run the page's server, with a local issuer of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(folder / "of-the-issuer"))
    return run_python(PAGE, folder)


def token(*options: str) -> str:
    """Return a token of the local issuer."""
    made = agentguard("token", *options)
    assert made.status == 0, made.stderr
    return made.stdout.strip()


def minted(*tools: str, scope: str | None = None) -> str:
    """Return a token for *tools*."""
    given = [part for tool in tools for part in ("--tool", tool)]
    return token("--agent", "a", "--audience", AUDIENCE, *given, *(() if scope is None else ("--scope", scope)))


async def test_the_page_shows_what_the_client_sees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the last character, but for the decision's id; and the table's lines, one after the other."""
    server = started(tmp_path, monkeypatch)["server"]
    tools = ("read_record", "update_record")
    async with serving(server, stateless=True) as url, httpx2.AsyncClient() as http:
        few = Caller(http, url, minted(*tools), "2026-07-28", number=0)
        challenged = await few.call("update_record", record_id="r1", text="x")
        writer = Caller(http, url, minted(*tools, scope="records:write"), "2026-07-28")
        written = await writer.call("update_record", record_id="r1", text="x")
        sealed = await writer.call("update_record", record_id="r9", text="x")
        narrow = Caller(http, url, minted("read_record"), "2026-07-28")
        outside = await narrow.call("update_record", record_id="r1", text="x")
        listed = await few.post("tools/list", {})

    (shown,) = blocks(PAGE, "http")
    head = [f"{name}: {challenged.headers[name]}" for name in ("content-type", "www-authenticate")]
    answer = "\n".join([f"HTTP/1.1 {challenged.status_code} Forbidden", *head, "", challenged.text])
    assert without_ids(answer) == without_ids(shown.text.rstrip())
    assert "record r1 is now x" in written.text
    assert [(reply.status_code, json.loads(reply.text)["result"]["isError"]) for reply in (sealed, outside)] == [
        (200, True),
        (200, True),
    ]
    assert {tool["name"] for tool in listed.json()["result"]["tools"]} == set(tools)


async def test_what_the_page_says_to_type_is_answered_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its two tokens, and its call with each of them."""
    server = started(tmp_path, monkeypatch)["server"]
    (typed,) = blocks(PAGE, "bash")
    tokens = [token(*shlex.split(made)) for made in re.findall(r"=\$\(agentguard token (.*)\)", typed.text)]
    curl = shlex.split(typed.text.partition("curl ")[2].rpartition("}")[0].replace("\\\n", " "))
    headers = dict(value.split(": ", 1) for option, value in pairwise(curl) if option == "-H")
    async with serving(server, stateless=True) as url, httpx2.AsyncClient() as http:
        assert curl[1] == AUDIENCE
        few, more = [
            await http.post(
                url, content=curl[curl.index("-d") + 1], headers=headers | {"Authorization": f"Bearer {made}"}
            )
            for made in tokens
        ]

    (shown,) = blocks(PAGE, "http")
    assert (few.status_code, more.status_code) == (403, 200)
    assert without_ids(few.headers["www-authenticate"]) in without_ids(shown.text)
    assert "record r1 is now x" in more.text
