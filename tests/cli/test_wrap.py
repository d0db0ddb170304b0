"""`agentguard wrap`: a server whose code one does not touch, served with every tool guarded."""

from __future__ import annotations

import re
import socket
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from mcp import Client
from mcp_types import CallToolResult

from agentguard.cli.wrap import safe_name, state_folder
from agentguard.identity.sources import stdio_audience
from agentguard.lifecycle.local import local_issuer
from tests.cli.commands import Ran, agentguard
from tests.cli.serving import FAST, LOW, RECORDS, on_http, on_stdio
from tests.world import ERAS, Era, http_client, meta, text

POLICIES = """
@id("reads")
permit (principal in Agent::"reader", action == Action::"read_record", resource == Tool::"read_record");

@id("limit")
@advice("Record r9 is restricted.")
forbid (principal, action == Action::"read_record", resource)
when { context.input.record_id == "r9" };
"""
EVERYTHING = "permit (principal, action, resource);"

each_era = pytest.mark.parametrize("era", ERAS)
# What the eras differ in is the SDK's, so one framework shows both.
each_way = pytest.mark.parametrize(
    ("source", "era"),
    [(RECORDS, "2025-11-25"), (RECORDS, "2026-07-28"), (FAST, "2026-07-28"), (LOW, "2026-07-28")],
    ids=["MCPServer-2025-11-25", "MCPServer", "FastMCP", "low-level"],
)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that holds a server and policies, and forget what was loaded from it."""
    here = tmp_path / "here"
    (here / "policies").mkdir(parents=True)
    (here / "policies" / "own.cedar").write_text(POLICIES)
    (here / "server_of_wrap.py").write_text(RECORDS)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    monkeypatch.delenv("AGENTGUARD_TOKEN", raising=False)
    yield here
    sys.modules.pop("server_of_wrap", None)


def token(audience: str, agent: str = "reader") -> str:
    """Return a token of the local issuer."""
    return local_issuer(audience=audience).begin(agent=agent, grant=EVERYTHING).token()


async def three_calls(client: Client) -> list[CallToolResult]:
    """Make a call that is allowed, one that a forbid stops, and one that nobody permits."""
    return [
        await client.call_tool("read_record", {"record_id": "r1"}),
        await client.call_tool("read_record", {"record_id": "r9"}),
        await client.call_tool("delete_record", {"record_id": "r1"}),
    ]


def check(answers: list[CallToolResult]) -> None:
    """Check what the three calls were answered."""
    allowed, forbidden, unpermitted = answers
    assert text(allowed) == "record r1"
    assert text(forbidden).startswith("Denied by policy: Record r9 is restricted.")
    assert text(unpermitted).startswith("Denied by policy.")
    assert meta(unpermitted)["reason"] == "denied"


def wrap(*more: str, server: str = "server_of_wrap.py", policies: str = "policies") -> list[str]:
    """Return the arguments of the command."""
    return ["wrap", server, "--policies", policies, *more]


def on_the_wire(era: Era, *arguments: str) -> tuple[Ran, list[CallToolResult]]:
    """Run the command over stdio, and make the three calls."""
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        answers.extend(await three_calls(client))

    return on_stdio(session, era, *arguments), answers


@each_way
def test_wrapped_server_is_guarded_over_stdio(
    place: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, source: str, era: Era
) -> None:
    """For the run that the environment names, with the evidence in a folder by the server's name."""
    (place / "server_of_wrap.py").write_text(source)
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))

    ran, answers = on_the_wire(era, *wrap())

    check(answers)
    assert ran.status == 0
    state = folder / "servers" / "records"
    assert stat.S_IMODE(state.stat().st_mode) == 0o700
    rows = agentguard("evidence", "show", str(state), "--kind", "decision", "--json").json
    assert [row["policy_ids"] for row in rows] == [["reads", "grant:0"], ["limit"], None]


@each_way
def test_wrapped_server_demands_tokens_over_http(place: Path, folder: Path, source: str, era: Era) -> None:
    """Though its code says nothing of them: without one there is no answer but 401."""
    (place / "server_of_wrap.py").write_text(source)
    statuses: list[int] = []
    answers: list[CallToolResult] = []

    async def session(url: str) -> None:
        async with httpx2.AsyncClient(timeout=30) as http:
            answer = await http.post(url, json={})
            assert "resource_metadata=" in answer.headers["www-authenticate"]
            statuses.append(answer.status_code)
            foreign = {"Authorization": f"Bearer {token(url.replace('/mcp', '/other'))}"}
            statuses.append((await http.post(url, json={}, headers=foreign)).status_code)
        async with http_client(url, token(url), era) as client:
            answers.extend(await three_calls(client))

    with on_http(session):
        ran = agentguard(*wrap("--http", "0"))

    check(answers)
    assert (ran.status, ran.stdout, statuses) == (0, "", [401, 401])
    assert re.search(
        r"agentguard: serving `records` at http://127\.0\.0\.1:\d+/mcp, guarded by `.*/policies`", ran.stderr
    )
    assert re.search(r"a token: agentguard token --agent NAME --tool TOOL --audience http://127.*/mcp", ran.stderr)


def test_options_of_the_guard_reach_it(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them can be told from what is decided or kept."""
    (place / "policies" / "own.cedar").write_text(
        '@id("all") permit (principal, action, resource) when { context.environment == "staging" };'
        '@id("zone") forbid (principal, action, resource) unless { context.local.minute == context.local.minute };'
    )
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))
    more = ("--state", "kept", "--environment", "staging", "--time-zone", "Asia/Tokyo", "--label", "next")

    ran, answers = on_the_wire("2026-07-28", *wrap(*more))

    assert (ran.status, text(answers[1])) == (0, "record r9")
    rows = agentguard("evidence", "show", "kept", "--kind", "decision", "--json").json
    assert {row["policy_label"] for row in rows} == {"next"}
    for option, said in ((("--time-zone", "Nowhere"), "time zone `Nowhere`"), (("--forward", "x"), "`x`")):
        ran = agentguard(*wrap("--state", "kept", *option))
        assert (ran.status, said in ran.stderr) == (2, True)


def test_calls_without_an_identity_are_denied(folder: Path) -> None:
    """And whoever started the server is told how one gets there."""
    ran, answers = on_the_wire("2026-07-28", *wrap())

    assert {meta(answer)["reason"] for answer in answers} == {"unauthenticated"}
    assert "agentguard: no token in the environment, so every call is denied: agentguard run --agent NAME" in ran.stderr
    assert "--server records -- agentguard wrap" in ran.stderr


def test_token_is_not_shown_to_the_module(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It runs before there is a guard that takes the token away."""
    (place / "server_of_wrap.py").write_text(f"import os\nassert 'AGENTGUARD_TOKEN' not in os.environ\n{RECORDS}")
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))

    ran, answers = on_the_wire("2026-07-28", *wrap())

    check(answers)
    assert ran.status == 0


def test_store_is_not_shown_to_the_tools(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its address may hold a password, and a tool does what its caller asks for."""
    tells = RECORDS.replace("{record_id}", "{record_id}{os.environ.get('AGENTGUARD_STORE', '')}", 1)
    (place / "server_of_wrap.py").write_text(f"import os\n{tells}")
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))
    monkeypatch.setenv("AGENTGUARD_STORE", "valkey://:secret@store.example")

    _, answers = on_the_wire("2026-07-28", *wrap())

    check(answers)


def test_what_a_tool_prints_goes_to_standard_error(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Standard output is the protocol's until the end."""
    (place / "server_of_wrap.py").write_text(
        RECORDS.replace('    return f"record', "    print('printed')\n    return f\"record")
    )
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))

    ran, answers = on_the_wire("2026-07-28", *wrap())

    check(answers)
    assert "printed\n" in ran.stderr


PROGRAM = """
import json, os, sys

open(sys.argv[1], "w").write(json.dumps(sorted(name for name in os.environ if name.startswith("AGENTGUARD"))))
arguments = {"type": "object", "properties": {"record_id": {"type": "string"}}, "required": ["record_id"]}
tool = {"name": "read_record", "inputSchema": arguments}
for line in sys.stdin:
    asked = json.loads(line)
    method, answer = asked["method"], {}
    if method == "initialize":
        answer = {"protocolVersion": "2025-06-18", "capabilities": {"tools": {}}}
        answer["serverInfo"] = {"name": "records", "version": "1"}
    elif method == "tools/list":
        answer = {"tools": [tool, {**tool, "name": "delete_record"}]}
    elif method == "tools/call":
        answer = {"content": [{"type": "text", "text": "record " + asked["params"]["arguments"]["record_id"]}]}
    if "id" in asked:
        print(json.dumps({"jsonrpc": "2.0", "id": asked["id"], "result": answer}), flush=True)
"""


@each_era
def test_program_is_wrapped_by_its_command(place: Path, monkeypatch: pytest.MonkeyPatch, era: Era) -> None:
    """What follows the two dashes is its own, an option called like ours included; the token is not."""
    (place / "program.py").write_text(PROGRAM)
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))

    ran, answers = on_the_wire(
        era, "wrap", "--policies", "policies", "--", sys.executable, "program.py", "seen", "--policies", "its-own"
    )

    check(answers)
    assert (ran.status, (place / "seen").read_text()) == (0, "[]")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policies", "policies"], "`agentguard wrap` wants a server, or a command after `--`, got neither"),
        (["--policies", "policies", "--"], "wants a server, or a command after `--`, got neither"),
        (["x.py", "--policies", "policies", "--", "x"], "wants a server, or a command after `--`, got both"),
        (["x.py", "--policies", "policies", "--"], "wants a server, or a command after `--`, got both"),
        (["server_of_wrap.py"], "missing option `--policies`"),
        (wrap("--json")[1:], "--json is for HTTP, got stdio, where the protocol has its own: leave it out, or"),
        (wrap("--audience", "urn:x")[1:], "--audience is for HTTP, got stdio"),
        (wrap("--http", "80", "--path", "mcp")[1:], "--path wants a path, got `mcp`: begin it with /"),
        (wrap("--http", "x")[1:], "--http wants a port, or host and port, got `x`: write 8000 or 127.0.0.1:8000"),
        (wrap("--http", "127.0.0.1:70000")[1:], "--http wants a port, or host and port, got `127.0.0.1:70000`"),
        (wrap("--http", "192.0.2.1:0")[1:], "--http wants an address to listen on, got `192.0.2.1` and `0`"),
        (wrap("--http", "0.0.0.0:0")[1:], "the local issuer is for stdio servers and URLs on loopback, got `http://0"),
        (wrap("--http", "0", "--issuer", "nonsense")[1:], "`nonsense`"),
        (wrap(server="nowhere.py")[1:], "a server wants its file, got `"),
        (wrap(policies="nowhere")[1:], "/nowhere` does not exist: create it, or pass the path it has"),
        (["--policies", "policies", "--", "./no-such-program"], "`./no-such-program` cannot be started"),
    ],
)
def test_mistake_is_refused_in_one_line(arguments: list[str], said: str) -> None:
    """With the fix, and before anything is served."""
    ran = agentguard("wrap", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert said in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ('\n\n@id("x") permit (principal, action == Action::"red_record", resource);', "own.cedar:3: "),
        ('\n@id("x") permit (principal, action', "own.cedar:2: "),
    ],
)
def test_policies_that_do_not_hold_are_refused_with_file_and_line(place: Path, policy: str, said: str) -> None:
    """At the start, and by the file's whole path: hosts choose the working folder."""
    (place / "policies" / "own.cedar").write_text(policy)

    ran = agentguard(*wrap())

    assert (ran.status, ran.stdout) == (2, "")
    assert f"{place}/policies/{said}" in ran.stderr.splitlines()[-1]


def test_what_is_served_is_told_to_programs() -> None:
    """On standard output, which over HTTP is free."""
    urls: list[str] = []

    async def session(url: str) -> None:
        urls.append(url)

    with on_http(session):
        ran = agentguard(*wrap("--http", "[::1]:0" if socket.has_ipv6 else "0", "--path", "/records", "--json"))

    assert ran.json == {"server": "records", "url": urls[0], "audience": urls[0]}
    assert urls[0].startswith("http://[::1]:")


def test_issuer_of_ones_own_is_believed_and_no_other(folder: Path) -> None:
    """With an audience of its own, under which the local issuer's tokens are worth nothing."""
    statuses: list[int] = []

    async def session(url: str) -> None:
        async with httpx2.AsyncClient(timeout=30) as http:
            answer = await http.post(url, json={}, headers={"Authorization": f"Bearer {token(url)}"})
            statuses.append(answer.status_code)
            # RFC 9728: where a client finds who issues tokens for this server.
            where = re.search(r'resource_metadata="([^"]+)"', answer.headers["www-authenticate"])
            assert where is not None
            assert where[1].startswith("https://records.example/.well-known/")

    with on_http(session):
        ran = agentguard(
            *wrap("--http", "0", "--issuer", "https://issuer.example", "--audience", "https://records.example/mcp")
        )

    assert (ran.status, statuses) == (0, [401])
    assert "a token: " not in ran.stderr


@pytest.mark.parametrize("host", ["0.0.0.0", "[::]"])  # noqa: S104  it is refused
def test_local_issuer_is_not_believed_where_others_reach(host: str) -> None:
    """The attack: an audience on loopback, for a server that listens to everybody."""
    ran = agentguard(*wrap("--http", f"{host}:0", "--audience", "http://127.0.0.1:8000/mcp"))

    assert ran.status == 2
    assert f"the local issuer is for stdio servers and URLs on loopback, got `http://{host}:" in ran.stderr


def test_server_that_prints_what_it_lists_does_not_write_to_the_protocol(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own code runs before the streams are the protocol's."""
    # The first time alone: from the second on the SDK has the streams, where they are a process's own.
    once = "    LISTED or LISTED.append(print('listed'))\n    reads = "
    (place / "server_of_wrap.py").write_text("LISTED = []\n" + LOW.replace("    reads = ", once))
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))

    ran, answers = on_the_wire("2026-07-28", *wrap())

    check(answers)
    assert "listed\n" in ran.stderr


def test_server_with_an_authentication_of_its_own_is_refused_over_http_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over stdio there is none that could be mixed with the guard's."""
    (place / "server_of_wrap.py").write_text(
        RECORDS.replace(
            'MCPServer("records")',
            'MCPServer("records", token_verifier=object(), auth={"issuer_url": "https://a.example", '
            '"resource_server_url": "https://b.example", "validate_token_resource": True})',
        )
    )
    monkeypatch.setenv("AGENTGUARD_TOKEN", token(stdio_audience("records")))

    ran = agentguard(*wrap("--http", "0"))
    assert ran.status == 2
    assert ran.stderr.splitlines()[-1] == (
        "agentguard: server `records` has an authentication of its own, and one request cannot have two: "
        "take it out of its code, or put a guard into it"
    )

    sys.modules.pop("server_of_wrap")
    check(on_the_wire("2026-07-28", *wrap())[1])


def test_fastmcp_server_with_an_authentication_of_its_own_is_refused(place: Path) -> None:
    """FastMCP keeps it elsewhere than the SDK."""
    (place / "server_of_wrap.py").write_text(
        FAST.replace('MCPServer("records")', 'MCPServer("records")\nserver.auth = object()')
    )

    ran = agentguard(*wrap("--http", "0"))

    assert (ran.status, "has an authentication of its own" in ran.stderr) == (2, True)


@pytest.mark.parametrize("source", [RECORDS, FAST], ids=["MCPServer", "FastMCP"])
def test_route_that_everybody_can_reach_is_told_of(place: Path, source: str) -> None:
    """The frameworks serve it without a token, so no policy is asked."""
    (place / "server_of_wrap.py").write_text(
        source + "\n@server.custom_route('/health', methods=['GET'])\nasync def health(request):\n    ...\n"
    )

    async def session(url: str) -> None:
        """Nobody calls."""

    with on_http(session):
        ran = agentguard(*wrap("--http", "0"))

    assert "agentguard: `/health` is served to anybody: no policy is asked" in ran.stderr


def test_server_with_a_guard_of_its_own_is_refused(place: Path) -> None:
    """Two guards would ask for two tokens."""
    (place / "server_of_wrap.py").write_text(
        RECORDS.partition("if __name__")[0]
        + "from agentguard import Guard, UnsafeLocalIssuer\n"
        + "Guard('policies', issuer=UnsafeLocalIssuer(), state='own').attach(server, unguarded='guard')\n"
    )

    ran = agentguard(*wrap())

    assert ran.status == 2
    assert ran.stderr.splitlines()[-1].startswith("agentguard: the server has a guard of its own: start it as it is")


@pytest.mark.parametrize("name", ["", "..", ".", "a/b", "/etc", "~", "x\x00y", "n" * 300, "é" * 40, "\udc80"])
def test_name_of_a_server_stays_one_folder_below_ours(folder: Path, name: str) -> None:
    """The attack: a server calls itself what leads out of the folder, or what no folder can be called."""
    found = state_folder(name)

    assert found.parent == folder / "servers"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert re.fullmatch(r"[A-Za-z0-9_%~-]{1,100}", found.name)
    assert safe_name(name) != safe_name(f"{name}x")
