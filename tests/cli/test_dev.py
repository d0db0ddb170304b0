"""`agentguard dev`: first contact with a server of one's own, guarded, on this machine alone."""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal

import httpx2
import pytest
from mcp import Client
from mcp_types import CallToolResult, ElicitRequestParams, ElicitResult

from agentguard import Issuer, Run
from agentguard.cli.dev import StandIn, _claimed, _state
from agentguard.cli.starter import write_starter
from tests.cli.commands import Ran, agentguard
from tests.cli.serving import FAST, LOW, RECORDS, on_http, on_stdio, written
from tests.world import ERAS, Era, free_socket, http_client, meta, text

each_era = pytest.mark.parametrize("era", ERAS)


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in a folder that holds a server, and forget what was loaded from it."""
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    (here / "server_of_dev.py").write_text(RECORDS)
    yield here
    sys.modules.pop("server_of_dev", None)


@each_era
def test_dev_over_stdio_guards_an_unmodified_server(place: Path, folder: Path, era: Era) -> None:
    """Reads are allowed, anything else is denied where nobody can be asked; each decision is a line."""
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        answers.append(await client.call_tool("read_record", {"record_id": "r1"}))
        answers.append(await client.call_tool("delete_record", {"record_id": "r1"}))
        assert (folder / "dev" / "records" / "evidence").is_dir()

    ran = on_stdio(session, era, "dev", "server_of_dev.py", "--stdio", "--agent", "claude-code")

    assert (ran.status, text(answers[0]), meta(answers[1])["retry"]) == (0, "record r1", "approval")
    assert text(answers[1]).startswith("This call may change something. A person has to approve it.")
    wrote, serving, allowed, denied, why = ran.stderr.splitlines()
    assert wrote.endswith("/policies/10-starter.cedar, to begin with: read it, and make it yours")
    assert serving == "agentguard: serving `records` on stdio to agent `claude-code`, guarded by policies"
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  allow  read_record +claude-code · run [0-9a-f]{8} +starter-read-only", allowed
    )
    assert re.fullmatch(
        r"\d\d:\d\d:\d\d  DENY   delete_record +claude-code · run [0-9a-f]{8} +"
        r"starter-ask-a-person: the client cannot show forms: .+",
        denied,
    )
    decision = meta(answers[1])["id"]
    assert why.strip().startswith("→ why: agentguard evidence show ")
    assert f"--decision {decision}   change it: policies/10-starter.cedar:" in why
    line = int(why.rpartition(":")[2])
    assert (place / "policies" / "10-starter.cedar").read_text().splitlines()[line - 1] == '@id("starter-ask-a-person")'
    assert not (folder / "dev" / "records").exists()


@pytest.mark.parametrize("source", [FAST, LOW], ids=["FastMCP", "low-level"])
def test_dev_serves_every_framework(place: Path, source: str) -> None:
    """What they have in common is the protocol."""
    (place / "server_of_dev.py").write_text(source)
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        answers.append(await client.call_tool("read_record", {"record_id": "r1"}))
        answers.append(await client.call_tool("delete_record", {"record_id": "r1"}))

    ran = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py:server", "--stdio")

    assert (ran.status, text(answers[0]), meta(answers[1])["retry"]) == (0, "record r1", "approval")


@each_era
def test_dev_over_http_takes_the_secret_that_it_tells(era: Era) -> None:
    """It stands for the tokens of a run; without it, or with another one, a request is nobody's."""
    answers: list[CallToolResult] = []
    shown: list[str] = []

    async def session(url: str) -> None:
        told = written()
        shown.append(told)
        (secret,) = set(re.findall(r"Authorization: Bearer (dev-[\w-]+)\"", told))
        async with http_client(url, secret, era) as client:
            answers.append(await client.call_tool("read_record", {"record_id": "r1"}))
            answers.append(await client.call_tool("delete_record", {"record_id": "r1"}))
        for wrong in (None, "dev-guessed", f"{secret}x", "é"):
            headers = {} if wrong is None else {b"Authorization": f"Bearer {wrong}".encode()}
            async with httpx2.AsyncClient(timeout=30) as http:
                assert (await http.post(url, json={}, headers=headers)).status_code == 401

    with on_http(session):
        ran = agentguard("dev", "server_of_dev.py", "--port", "0", "--agent", "inspector")

    assert (ran.status, ran.stdout, text(answers[0]), meta(answers[1])["retry"]) == (0, "", "record r1", "approval")
    assert re.search(
        r"serving `records` at http://127\.0\.0\.1:\d+/mcp to agent `inspector`, guarded by polic", shown[0]
    )
    # Without the `@2`, an older Node is given an Inspector that does not know these options.
    assert "\n  npx @modelcontextprotocol/inspector@2 --transport http --server-url http://127.0.0.1:" in shown[0]
    assert "\n  claude mcp add --transport http records http://127.0.0.1:" in shown[0]
    assert ran.stderr.count("inspector · run ") == 2
    assert re.search(r"DENY   a token was refused +(\d of )?invalid_token", ran.stderr)


def test_secret_is_worth_nothing_once_the_run_is_over() -> None:
    """It is not taken for a token."""
    statuses: list[int] = []

    async def session(url: str) -> None:
        (secret,) = set(re.findall(r"Bearer (dev-[\w-]+)\"", written()))
        async with httpx2.AsyncClient(headers={"Authorization": f"Bearer {secret}"}, timeout=30) as http:
            statuses.append((await http.post(url, json={})).status_code)
            runs[0].stop()
            statuses.append((await http.post(url, json={})).status_code)

    runs: list[Run] = []
    begin = Issuer.begin

    def begun(self: Issuer, **options: Any) -> Run:
        runs.append(begin(self, **options))
        return runs[0]

    with pytest.MonkeyPatch.context() as patch, on_http(session):
        patch.setattr(Issuer, "begin", begun)
        assert agentguard("dev", "server_of_dev.py", "--port", "0").status == 0

    assert statuses[0] != 401
    assert statuses[1] == 401


async def test_client_without_the_secret_of_this_start_is_told_what_to_copy(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Once, until one is let in; what it sent is not quoted, and other paths and tokens are no client's mistake."""

    async def app(*_: object) -> None:
        """Answer nothing."""

    stand_in = StandIn(app, secret="dev-now", token=lambda: "token")

    async def told(*sent: str, path: str = "/mcp", kind: str = "http") -> list[str]:
        headers = [(b"accept", b"dev-x"), *((b"authorization", value.encode()) for value in sent)]
        await stand_in({"type": kind, "path": path, "headers": headers}, None, None)
        return capsys.readouterr().err.splitlines()

    bare = ["agentguard: a request came without the secret: copy the line above as a whole"]
    stale = ["agentguard: a request came with the secret of another start: copy the line above again"]
    assert await told(path="/.well-known/oauth-protected-resource") == []
    assert await told(kind="lifespan") == []
    assert [await told(), await told()] == [bare, []]
    assert [await told("Bearer dev-then"), await told("bearer dev-then"), await told()] == [stale, [], []]
    assert await told("Bearer ey.a.token") == []
    assert await told("Bearer dev-now") == []
    assert [await told("bearer dev-then"), await told()] == [stale, bare]


@pytest.mark.parametrize("text", ["// And more.\n", "permit (", None], ids=["changed", "broken", "gone"])
def test_change_of_the_policies_is_told_once_at_the_next_call(place: Path, text: str | None) -> None:
    """Those of the start decide for as long as it runs."""

    async def session(client: Client) -> None:
        await client.call_tool("read_record", {"record_id": "r1"})
        assert "have changed" not in written()
        file = place / "policies" / "10-starter.cedar"
        if text is None:
            file.unlink()
        else:
            file.write_text(file.read_text() + text)
        await client.call_tool("read_record", {"record_id": "r1"})
        await client.call_tool("read_record", {"record_id": "r1"})

    ran = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")

    said = (
        "agentguard: the policies have changed, and those of the start still decide: "
        "start `agentguard dev` again, or with --watch"
    )
    assert ran.stderr.splitlines().count(said) == 1
    assert ran.stderr.count("allow  read_record") == 3


@pytest.mark.parametrize(
    ("arguments", "given"),
    [(("python", "server.py"), "python server.py"), (("--", "npx", "-y", "a b"), "npx -y 'a b'")],
)
def test_command_of_a_server_leads_to_wrap(arguments: tuple[str, ...], given: str) -> None:
    """It cannot be loaded, so it is none for `dev`."""
    ran = agentguard("dev", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"agentguard: `agentguard dev` wants one server, got `{given}`: name its module or file, "
        f"or serve a command with `agentguard wrap --policies FOLDER -- {given}`\n"
    )


@pytest.mark.parametrize(("name", "got"), [("polices", "no such folder"), ("policies/own.cedar", "a file")])
def test_folder_of_policies_that_is_named_has_to_be_there(place: Path, name: str, got: str) -> None:
    """A slip of the pen would be a folder of starter policies, while somebody's own decide nothing."""
    (place / "policies").mkdir()
    (place / "policies" / "own.cedar").write_text('@id("own") permit (principal, action, resource);')

    ran = agentguard("dev", "server_of_dev.py", "--stdio", "--policies", name)

    wanted = f"--policies wants a folder, got `{place}/{name}`, {got}: name one that is there, or leave it out"
    assert (ran.status, ran.stderr) == (2, f"agentguard: {wanted}\n")
    assert [file.name for file in place.iterdir() if file.is_dir() and file.name != "__pycache__"] == ["policies"]


def test_folder_beside_the_server_may_be_named_before_it_is_there(place: Path) -> None:
    """It is the one that is made anyway."""

    async def session(client: Client) -> None:
        await client.list_tools()

    assert on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio", "--policies", "policies").status == 0
    assert (place / "policies" / "10-starter.cedar").is_file()


def test_what_a_tool_prints_goes_to_standard_error(place: Path) -> None:
    """It would wait in the stream, and be written behind the last answer."""
    (place / "server_of_dev.py").write_text(
        RECORDS.replace('    return f"record', "    print('printed')\n    return f\"record")
    )

    async def session(client: Client) -> None:
        await client.call_tool("read_record", {"record_id": "r1"})

    ran = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")

    assert "printed\n" in ran.stderr


def test_decision_can_be_looked_up_while_dev_runs(folder: Path) -> None:
    """By the very command that its line gives, from another terminal."""
    looked: list[Ran] = []

    async def session(client: Client) -> None:
        await client.call_tool("read_record", {"record_id": "r1"})
        await client.call_tool("delete_record", {"record_id": "r1"})
        (command,) = re.findall(r"why: agentguard (.*?)   change", written())
        looked.append(agentguard(*shlex.split(command), "--json"))

    on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")

    (row,) = looked[0].json
    assert (looked[0].status, row["effect"], row["tool"]) == (0, "deny", "delete_record")
    assert row["policy_ids"] == ["starter-ask-a-person"]


def test_decision_is_explained_where_the_schema_is_written_down(folder: Path) -> None:
    """By the command of its line too: then there is what it takes to judge the call again."""
    looked: list[Ran] = []
    folder_of_policies = Path("policies")
    write_starter(folder_of_policies)
    assert agentguard("schema", "server_of_dev.py", "--write", str(folder_of_policies)).status == 0

    async def session(client: Client) -> None:
        await client.call_tool("delete_record", {"record_id": "r1"})
        (command,) = re.findall(r"why: agentguard (explain .*?)   change", written())
        looked.append(agentguard(*shlex.split(command)))

    on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")

    assert (looked[0].status, looked[0].stderr) == (0, "")
    assert "starter-ask-a-person" in looked[0].stdout


@each_era
def test_person_at_the_client_approves_one_call(era: Era) -> None:
    """With the starter policies and a client that asks: yes lets this call through, no does not."""
    answers: list[CallToolResult] = []
    says: list[Literal["accept", "decline"]] = ["accept", "decline"]

    async def ask(context: object, params: ElicitRequestParams) -> ElicitResult:
        action = says.pop(0)
        return ElicitResult(action=action, content={"approve": True} if action == "accept" else None)

    async def session(client: Client) -> None:
        answers.append(await client.call_tool("delete_record", {"record_id": "r1"}))
        answers.append(await client.call_tool("delete_record", {"record_id": "r2"}))

    ran = on_stdio(session, era, "dev", "server_of_dev.py", "--stdio", elicitation_callback=ask)

    assert says == []
    assert text(answers[0]) == "r1 is gone"
    assert answers[1].is_error
    # From then on, the question is an answer of its own.
    assert ("ASK    delete_record" in ran.stderr) is (era == "2026-07-28")
    assert re.search(r"allow  delete_record .* starter-approved", ran.stderr)


def test_policies_that_are_there_are_left_alone(place: Path) -> None:
    """And decide."""
    (place / "policies").mkdir()
    (place / "policies" / "own.CEDAR").write_text('@id("own") permit (principal, action, resource);')
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        answers.append(await client.call_tool("delete_record", {"record_id": "r1"}))

    ran = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")

    assert text(answers[0]) == "r1 is gone"
    assert "wrote" not in ran.stderr
    assert [file.name for file in (place / "policies").iterdir()] == ["own.CEDAR"]


def test_no_permit_leads_to_the_folder_of_policies(place: Path, tmp_path: Path) -> None:
    """There is no line to change, so it is the folder; and one outside of here is whole."""
    (tmp_path / "else where").mkdir()
    (tmp_path / "else where" / "own.cedar").write_text(
        '@id("own") permit (principal, action == Action::"read_record", resource)\n'
        'when { context.now < datetime("2000-01-01") };'
    )

    async def session(client: Client) -> None:
        await client.call_tool("read_record", {"record_id": "r1"})

    ran = on_stdio(
        session, "2026-07-28", "dev", "server_of_dev.py", "--stdio", "--policies", str(tmp_path / "else where")
    )

    assert re.search(r"DENY   read_record +developer · run \w+ +no_permit\n", ran.stderr)
    assert f"change it: '{tmp_path / 'else where'}'\n" in ran.stderr


def test_policy_that_does_not_hold_is_refused_with_its_line(place: Path) -> None:
    """At once, and nothing is served."""
    (place / "policies").mkdir()
    (place / "policies" / "own.cedar").write_text("\npermit (principal, action);")

    ran = agentguard("dev", "server_of_dev.py", "--stdio")

    assert (ran.status, ran.stdout) == (2, "")
    assert f"agentguard: {place}/policies/own.cedar:2: " in ran.stderr


def test_policy_that_does_not_fit_the_tools_is_refused_with_its_line(place: Path, folder: Path) -> None:
    """And the state that was opened for it is gone."""
    (place / "policies").mkdir()
    (place / "policies" / "own.cedar").write_text('@id("own") permit (principal, action == Action::"red", resource);')

    ran = agentguard("dev", "server_of_dev.py", "--stdio")

    assert (ran.status, ran.stdout) == (2, "")
    assert f"{place}/policies/own.cedar:1: " in ran.stderr
    assert not (folder / "dev" / "records").exists()


def test_port_that_is_taken_is_refused(place: Path) -> None:
    """In one line."""
    with free_socket() as taken:
        ran = agentguard("dev", "server_of_dev.py", "--port", str(taken.getsockname()[1]))

    assert ran.status == 2
    assert "--port wants an address to listen on, got `127.0.0.1`" in ran.stderr.splitlines()[-1]


@pytest.mark.parametrize("host", ["--host=0.0.0.0", "--http=8000", "--port=0.0.0.0:80"])
def test_dev_is_for_this_machine_alone(host: str) -> None:
    """There is no way to name another address."""
    assert agentguard("dev", "server_of_dev.py", host).status == 2


OWN_AUTH = RECORDS.replace(
    'MCPServer("records")',
    'MCPServer("records", token_verifier=object(), auth={"issuer_url": "https://a.example", '
    '"resource_server_url": "https://b.example", "validate_token_resource": True})',
)
OWN_GUARD = RECORDS.partition("if __name__")[0] + (
    "from agentguard import Guard, UnsafeLocalIssuer, UnsafeMemoryState\n"
    "local = UnsafeLocalIssuer()\n"
    "from agentguard import open_state\n"
    "guard = Guard('policies', issuer=local, state=open_state('own', store=local.store))\n"
    "guard.attach(server)\n"
)


def test_server_with_an_authentication_of_its_own_is_refused_over_http(place: Path) -> None:
    """One request cannot be two people's; over stdio there is none."""
    (place / "server_of_dev.py").write_text(OWN_AUTH)

    ran = agentguard("dev", "server_of_dev.py", "--port", "0")

    assert ran.status == 2
    assert "server `records` has an authentication of its own" in ran.stderr


def test_server_with_a_guard_of_its_own_is_refused(place: Path) -> None:
    """Two guards would ask for two tokens."""
    (place / "policies").mkdir()
    (place / "policies" / "own.cedar").write_text('@id("own") permit (principal, action, resource);')
    (place / "server_of_dev.py").write_text(OWN_GUARD)

    ran = agentguard("dev", "server_of_dev.py", "--stdio")

    assert ran.status == 2
    assert ran.stderr.splitlines()[-1].startswith("agentguard: the server has a guard of its own: start it as it is")


def test_route_that_everybody_can_reach_is_told_of(place: Path) -> None:
    """The SDK serves it without a token, so no policy is asked."""
    (place / "server_of_dev.py").write_text(
        RECORDS + "\n@server.custom_route('/health', methods=['GET'])\nasync def health(request):\n    ...\n"
    )

    async def session(url: str) -> None:
        """Nobody calls."""

    with on_http(session):
        ran = agentguard("dev", "server_of_dev.py", "--port", "0")

    assert "`/health` is served to anybody: no policy is asked" in ran.stderr


def test_second_dev_of_a_server_has_a_folder_of_its_own(folder: Path) -> None:
    """And what a killed one left behind is removed."""
    (folder / "dev" / "records").mkdir(parents=True)
    (folder / "dev" / "records" / "left").touch()
    claimed: list[str] = []

    async def session(client: Client) -> None:
        await client.list_tools()
        assert not (folder / "dev" / "records" / "left").exists()
        with ExitStack() as undo:
            claimed.append(_claimed(folder / "dev", "records", undo).name)

    assert on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio").status == 0
    assert claimed == ["records-2"]


def test_folder_is_never_removed_once_another_may_have_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done when the process ends comes after the name was given back."""
    at_end: list[Callable[[], object]] = []
    monkeypatch.setattr("agentguard.cli.dev.call_at_end", at_end.append)
    folder.mkdir(mode=0o700)
    with _state("records"):
        """Work."""

    with ExitStack() as undo:
        claimed = _claimed(folder / "dev", "records", undo)
        claimed.mkdir()
        for call in reversed(at_end):
            call()

        assert claimed.is_dir()


def test_process_that_is_told_to_end_removes_its_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the middle of its work."""
    at_end: list[Callable[[], object]] = []
    monkeypatch.setattr("agentguard.cli.dev.call_at_end", at_end.append)
    with _state("records") as (_, kept):
        assert kept.is_dir()
        at_end[-1]()
        assert not kept.exists()


def test_server_without_a_name_has_a_folder_of_its_own(place: Path, folder: Path) -> None:
    """The attack: its name is empty, and the folder of everybody else is taken for its own."""
    (place / "server_of_dev.py").write_text(LOW.replace('Server("records"', 'Server(""'))
    other = folder / "dev" / "other"
    other.mkdir(parents=True)
    os.chmod(folder / "dev", 0o700)  # noqa: PTH101

    ran = agentguard("dev", "server_of_dev.py", "--stdio")

    assert "a server wants a name, got an empty one" in ran.stderr
    assert other.is_dir()


def test_folder_that_cannot_be_locked_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some file systems have no locks: that is no other process, and no reason to try the next name."""

    def flock(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", flock)

    ran = agentguard("dev", "server_of_dev.py", "--stdio")

    assert (ran.status, ran.stderr.splitlines()[-1]) == (2, f"agentguard: {os.strerror(errno.ENOLCK)}")
    assert [file.name for file in (folder / "dev").iterdir()] == ["records.lock"]


def test_server_sees_no_token_and_writes_nothing_to_the_protocol_when_it_is_listed(place: Path) -> None:
    """The attack: what lists the tools runs before the guard has taken the token, and prints it."""
    once = "    LISTED or LISTED.append(print([name for name in os.environ if 'TOKEN' in name]))\n    reads = "
    (place / "server_of_dev.py").write_text("import os\nLISTED = []\n" + LOW.replace("    reads = ", once))
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        answers.append(await client.call_tool("read_record", {"record_id": "r1"}))

    ran = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")

    assert text(answers[0]) == "record r1"
    assert "[]\n" in ran.stderr


def test_lines_have_colours_on_a_terminal_alone() -> None:
    """What is piped into a file has none."""

    async def session(client: Client) -> None:
        await client.call_tool("delete_record", {"record_id": "r1"})

    plain = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio")
    sys.modules.pop("server_of_dev", None)
    coloured = on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio", terminal=True)

    assert "\x1b" not in plain.stderr
    assert "\x1b[31mDENY" in coloured.stderr


def test_identity_of_somebody_else_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is it handed to the module of the server."""
    monkeypatch.setenv("AGENTGUARD_TOKEN", "somebody's")
    monkeypatch.setenv("AGENTGUARD_TOKEN_FILE", "somebody's")
    monkeypatch.setenv("AGENTGUARD_STORE", "valkey://:secret@store.example")
    Path("server_of_dev.py").write_text(f"import os\nassert not [n for n in os.environ if 'GUARD' in n]\n{RECORDS}")
    answers: list[CallToolResult] = []

    async def session(client: Client) -> None:
        answers.append(await client.call_tool("read_record", {"record_id": "r1"}))

    assert on_stdio(session, "2026-07-28", "dev", "server_of_dev.py", "--stdio").status == 0
    assert text(answers[0]) == "record r1"
    assert "AGENTGUARD_TOKEN_FILE" not in os.environ
