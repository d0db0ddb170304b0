from __future__ import annotations

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentguard.cli.registry import read_registry
from agentguard.identity.assertion import ASSERTION_TYPE
from agentguard.lifecycle.asked import ACCESS_TOKEN, EXCHANGE
from tests.cli.commands import Ran, agentguard
from tests.lifecycle.service import CORP, PLANNER_KEY, READS, make_assertion, make_subject
from tests.ports import free_port
from tests.tokens import AUDIENCE, ISSUER, KEY, make_jwks
from tests.world import free_socket

CLIENTS = f"""
[[client]]
client_id = "planner"
jwks = "planner.json"
audiences = ["{AUDIENCE}"]
scopes = ["read"]
longest = "2h"

[[client]]
client_id = "records"
jwks_uri = "https://records.example/jwks.json"
may_exchange = false
may_introspect = true

[[trusted]]
issuer = "{CORP}"
jwks = "corp.json"
max_lifetime = "10m"
claims = {{ groups = "strings", level = "integer" }}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with a key, and the keys of a client and of a trusted issuer."""
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "issuer.pem").touch(mode=0o600)
    (tmp_path / "issuer.pem").write_bytes(pem)
    (tmp_path / "planner.json").write_text(json.dumps(make_jwks(PLANNER_KEY, "planner")))
    (tmp_path / "corp.json").write_text(json.dumps(make_jwks(KEY)))
    (tmp_path / "clients.toml").write_text(CLIENTS)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arguments(*more: str, issuer: str = ISSUER, clients: str = "clients.toml") -> list[str]:
    """Return the arguments of the command."""
    usual = ["--issuer-key", "issuer.pem", "--store", "store.db", "--clients", clients, "--audience", AUDIENCE]
    return ["issuer", "--issuer", issuer, *usual, *more]


def checked(place: Path, clients: str) -> Ran:
    """Return what the command says of a file of clients."""
    (place / "clients.toml").write_text(clients)
    return agentguard(*arguments("--check"))


def test_check_prints_what_would_be_served(place: Path) -> None:
    """The command exits without serving."""
    ran = agentguard(*arguments("--check"))

    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.splitlines() == [
        f"{ISSUER} on 127.0.0.1:8080",
        f"client   planner: may exchange, for {AUDIENCE}, scopes read, runs up to 7200 s",
        f"client   records: may introspect, for {AUDIENCE}",
        f"trusted  {CORP}",
    ]


def test_check_leaves_nothing_behind(place: Path) -> None:
    """A store that is not there yet is not made; one that is there is looked at."""
    before = sorted(place.iterdir())

    assert agentguard(*arguments("--check")).status == 0
    assert sorted(place.iterdir()) == before

    (place / "store.db").write_text("no store at all")
    ran = agentguard(*arguments("--check"))
    assert (ran.status, ran.stdout) == (2, "")
    assert "store.db" in ran.stderr


def test_issuer_that_trusts_nobody_is_fine(place: Path) -> None:
    """Its runs are begun elsewhere."""
    ran = checked(place, '[[client]]\nclient_id = "planner"\njwks = "planner.json"')

    assert (ran.status, len(ran.stdout.splitlines())) == (0, 2)


@pytest.mark.parametrize(
    ("preset", "issuer"),
    [
        ('preset = "okta"\ndomain = "company.okta.com"', "https://company.okta.com/oauth2/default"),
        ('preset = "auth0"\ndomain = "company.eu.auth0.com"', "https://company.eu.auth0.com/"),
        ('preset = "keycloak"\nurl = "https://sso.example.com"\nrealm = "x"', "https://sso.example.com/realms/x"),
        (
            'preset = "entra"\ntenant = "00000000-0000-0000-0000-000000000000"',
            "https://login.microsoftonline.com/00000000-0000-0000-0000-000000000000/v2.0",
        ),
    ],
)
def test_makes_of_issuer_go_by_their_preset(place: Path, preset: str, issuer: str) -> None:
    """With the preset's own options."""
    (place / "clients.toml").write_text(f"{CLIENTS.partition('[[trusted]]')[0]}[[trusted]]\n{preset}\n")

    trusted = read_registry(place / "clients.toml", issuer=ISSUER).trusted

    assert trusted is not None
    assert list(trusted.issuers) == [issuer]


CLIENT = '[[client]]\nclient_id = "planner"\njwks = "planner.json"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "clients.toml: it wants at least one [[client]], got none"),
        ("[[clients]]", "clients.toml: there is no `clients`: did you mean `client`?"),
        ("[other]", "clients.toml: there is no `other`: it may have `client`, `trusted`"),
        ("nonsense", "clients.toml: it wants to be TOML in UTF-8"),
        ("[client]", "clients.toml: client wants to be written [[client]]"),
        ("client = [7]", "clients.toml: client wants to be written [[client]]"),
        ("[[client]]", "clients.toml: [[client]] 1: `client_id` is missing"),
        ('[[client]]\nclient_id = "a"', "[[client]] 1: it wants jwks or jwks_uri, got neither"),
        (CLIENT + 'jwks_uri = "https://a.example"', "[[client]] 1: it wants jwks or jwks_uri, got both"),
        (CLIENT + "scope = []", "[[client]] 1: there is no `scope`: did you mean `scopes`?"),
        (CLIENT + 'scopes = "read"', "[[client]] 1: `scopes` wants a list of texts, got `read`"),
        (CLIENT + "audiences = [7]", "[[client]] 1: `audiences` wants a list of texts, got `[7]`"),
        (CLIENT + "audiences = []", "client `planner`: `audiences` wants a list of servers"),
        (CLIENT + "longest = 0", "client `planner`: `longest` wants a positive whole number"),
        (CLIENT + 'longest = "soon"', "[[client]] 1: a duration wants a number"),
        (CLIENT + "may_exchange = false", "client `planner`: it may do nothing"),
        (CLIENT + CLIENT, "`clients` wants each client once"),
        ('[[client]]\nclient_id = "a"\njwks = 7', "[[client]] 1: `jwks` wants text, got `7`"),
        ('[[client]]\nclient_id = "a"\njwks = "no.json"', "no.json` cannot be read: No such file or directory"),
        ('[[client]]\nclient_id = "a"\njwks = "issuer.pem"', "issuer.pem` wants to be a JWK set in JSON"),
        (
            '[[client]]\nclient_id = "a"\njwks = "empty.json"',
            "empty.json`: `jwks` wants at least one usable public key",
        ),
        ('[[client]]\nclient_id = "a"\njwks_uri = "http://a.example"', "[[client]] 1: `JWKS` wants an https URL"),
        (CLIENT + "[[trusted]]", "[[trusted]] 1: `issuer` is missing: preset generic wants it"),
        (CLIENT + '[[trusted]]\npreset = "entra"', "[[trusted]] 1: `tenant` is missing: preset entra wants it"),
        (CLIENT + '[[trusted]]\npreset = "google"', "[[trusted]] 1: `preset` wants one of `generic`, `entra`"),
        (CLIENT + "[[trusted]]\npreset = []", "[[trusted]] 1: `preset` wants one of"),
        (CLIENT + '[[trusted]]\nisuer = "https://a.example"', "there is no `isuer`: did you mean `issuer`?"),
        (CLIENT + f'[[trusted]]\nissuer = "{CORP}"\nclaims = ["a"]', "`claims` wants `string`, `integer`"),
        (CLIENT + f'[[trusted]]\nissuer = "{CORP}"\nclaims = {{ a = "int" }}', "`claims` wants `string`, `integer`"),
        (CLIENT + f'[[trusted]]\nissuer = "{CORP}"\nclaims = {{ act = "string" }}', "`trusted` maps the claim `act`"),
        (CLIENT + f'[[trusted]]\nissuer = "{CORP}"\nmax_lifetime = "x"', "[[trusted]] 1: a duration wants a number"),
        (CLIENT + f'[[trusted]]\nissuer = "{ISSUER}"', "`trusted` wants other issuers"),
        (CLIENT + f'[[trusted]]\nissuer = "{CORP}"\n' * 2, "clients.toml: issuers want to be different"),
    ],
)
def test_mistake_in_the_file_is_told_with_its_place(place: Path, text: str, message: str) -> None:
    """In one line, before anything is served."""
    (place / "empty.json").write_text('{"keys": []}')

    ran = checked(place, text)

    assert (ran.status, ran.stdout) == (2, "")
    assert message in ran.stderr
    assert ran.stderr.count("\n") == 1


def test_file_that_cannot_be_read_is_told(place: Path) -> None:
    """Missing, or much too large for what it should be."""
    (place / "large.toml").write_bytes(b"#" * (1024 * 1024 + 1))

    assert "none.toml` cannot be read" in agentguard(*arguments("--check", clients="none.toml")).stderr
    assert "large.toml` has more than" in agentguard(*arguments("--check", clients="large.toml")).stderr


def test_issuer_that_is_no_url_is_told(place: Path) -> None:
    """Clients could not find it."""
    ran = agentguard(*arguments("--check", issuer="http://issuer.example"))

    assert ran.status == 2
    assert "wants an https URL" in ran.stderr


def test_port_that_is_taken_is_told(place: Path) -> None:
    """With the system's own words."""
    with free_socket() as taken:
        taken.listen()
        ran = agentguard(*arguments("--port", str(taken.getsockname()[1])))

    assert ran.status == 2
    assert "Address already in use: choose another" in ran.stderr


@pytest.mark.parametrize(("host", "family"), [("::1", socket.AF_INET6), ("127.0.0.1", socket.AF_INET)])
def test_address_may_be_of_either_version(place: Path, monkeypatch: pytest.MonkeyPatch, host: str, family: int) -> None:
    """A name that cannot be found is told as the system tells it."""
    asked_for: list[object] = []

    def create_server(address: object, **options: object) -> None:
        asked_for.append(options["family"])
        message = "no such name"
        raise OSError(message)

    monkeypatch.setattr(socket, "create_server", create_server)
    ran = agentguard(*arguments("--host", host))

    assert asked_for == [family]
    assert f"got `{host}` and `8080`: no such name: choose another" in ran.stderr


def asked(url: str) -> dict[str, Any]:
    """Return a request for a run, signed now."""
    now = int(time.time())
    return {
        "client_assertion_type": ASSERTION_TYPE,
        "client_assertion": make_assertion(aud=url, iat=now, exp=now + 60),
        "grant_type": EXCHANGE,
        "subject_token": make_subject(aud=url, iat=now, exp=now + 60),
        "subject_token_type": ACCESS_TOKEN,
        "authorization_details": json.dumps([READS]),
    }


def test_served_issuer_gives_tokens_until_it_is_told_to_stop(place: Path) -> None:
    """A process of its own, on a real port, with a store in a file."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    script = "from agentguard.cli.main import main; main()"
    command = [sys.executable, "-c", script, *arguments("--port", str(port), issuer=url)]
    root = Path(__file__).parents[2]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(root)}
    )
    with process:
        assert process.stderr is not None
        try:
            # Said once the socket listens, so what comes now waits for it.
            assert process.stderr.readline() == f"agentguard: serving {url} on 127.0.0.1:{port}, for 2 clients\n"
            answer = httpx2.post(f"{url}/token", data=asked(url), timeout=30, trust_env=False)
            wrong = {**asked(url), "subject_token": make_subject(aud="https://elsewhere.example")}
            refused = httpx2.post(f"{url}/token", data=wrong, timeout=30, trust_env=False)
        finally:
            process.send_signal(signal.SIGTERM)
        stdout, stderr = process.communicate(timeout=30)

    assert answer.status_code == 200, answer.text
    assert answer.json()["token_type"] == "Bearer"
    began, why = stderr.splitlines()
    assert f" INFO run `{answer.json()['run']}` began: agent `planner` for user `alice`, over in " in began
    assert "elsewhere" not in refused.text
    assert why.endswith(f"invalid_token: `aud` does not name this server, which is `{url}`")
    assert (stdout, process.returncode) == ("", -signal.SIGTERM)


def test_evidence_of_its_runs_is_kept_where_it_is_said(place: Path) -> None:
    """A run that it gives out is on record as issued, and a check makes no folder."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    more = ("--port", str(port), "--state", str(place / "state"))
    assert agentguard(*arguments(*more, "--check", issuer=url)).status == 0
    assert not (place / "state").exists()
    # A disk that is busy with other tests has the time that it takes.
    script = "from agentguard.host import atend; atend._SECONDS = 60; from agentguard.cli.main import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", script, *arguments(*more, issuer=url)],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    with process:
        assert process.stderr is not None
        try:
            process.stderr.readline()
            answer = httpx2.post(f"{url}/token", data=asked(url), timeout=30, trust_env=False)
        finally:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=30)

    kept = agentguard("evidence", "show", str(place / "state"), "--json").json
    shown = [(one["run_id"], one["run_state"]) for one in kept if one["kind"] == "run"]
    assert shown == [(answer.json()["run"], "issued")]
    assert "stop" in {one["kind"] for one in kept}


def test_evidence_ends_with_serving(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that returns leaves a chain that was ended."""
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)

    ran = agentguard(*arguments("--port", str(free_port()), "--state", str(place / "state")))

    assert ran.status == 0
    kinds = [one["kind"] for one in agentguard("evidence", "show", str(place / "state"), "--json").json]
    assert kinds[-1] in {"head", "stop"}
    assert "stop" in kinds


def test_single_client_is_no_plural(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line at the start is read by people; the log's own handler goes when serving ends."""
    (place / "clients.toml").write_text('[[client]]\nclient_id = "planner"\njwks = "planner.json"')
    monkeypatch.setattr("uvicorn.Server.run", lambda *_, **__: None)
    before = list(logging.getLogger("agentguard").handlers)

    ran = agentguard(*arguments("--port", str(free_port())))

    assert ran.stderr.endswith(", for 1 client\n")
    assert logging.getLogger("agentguard").handlers == before


def test_serving_ends_with_the_server_and_closes_the_store(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said goes to standard error."""
    served: list[tuple[Any, list[socket.socket]]] = []

    def run(self: Any, sockets: list[socket.socket]) -> None:
        served.append((self.config, sockets))

    monkeypatch.setattr("uvicorn.Server.run", run)
    ran = agentguard(*arguments("--port", str(free_port())))

    ((config, (listening,)),) = served
    assert (ran.status, ran.stdout) == (0, "")
    assert ran.stderr.startswith(f"agentguard: serving {ISSUER} on 127.0.0.1:")
    assert (config.proxy_headers, config.access_log) == (False, False)
    assert listening.fileno() == -1
