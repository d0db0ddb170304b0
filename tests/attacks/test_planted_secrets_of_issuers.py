"""An issuer and the commands see keys, tokens and passwords: none of it may come out again.

What may appear by design is what `test_planted_secrets` lists, and the client that asked.
`agentguard token` is for printing a token; its own output is not searched for that token.
"""

from __future__ import annotations

import json
import time
import traceback
from pathlib import Path
from typing import Any

import httpx2
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentguard.errors import ConfigurationError
from agentguard.evidence.ledger import MemoryLedger
from agentguard.identity.assertion import ASSERTION_TYPE
from agentguard.lifecycle.asked import ACCESS_TOKEN, EXCHANGE
from agentguard.lifecycle.valkey import ValkeyStore
from tests.attacks.test_planted_secrets import listening, texts
from tests.canaries import Canaries, joined
from tests.cli.commands import Ran, agentguard
from tests.cli.supervised import supervisor
from tests.evidence.chains import stopped_chain
from tests.evidence.receiver import receiving
from tests.lifecycle.service import CORP, PLANNER_KEY, Service, make_assertion, make_subject
from tests.ports import free_port
from tests.tokens import ABSENT, AUDIENCE, ISSUER, KEY, NOW, make_jwks

TOKEN = ("token", "--agent", "a", "--tool", "b", "--server", "c")

# A process that serves is forked; this one may have threads, and its fork goes on to another program.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the local issuer a folder of its own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def forward(folder: Path, to: str, *more: str) -> Ran:
    """Ship what is there."""
    return agentguard("evidence", "forward", str(folder), "--to", to, "--once", *more)


def requests(canaries: Canaries, issuer: str, now: int) -> dict[str, dict[str, Any]]:
    """Return forms for an issuer, each full of secrets: one that is answered, and others that are not."""

    def assertion(place: str, **changes: Any) -> str:
        claims = {"aud": issuer, "iat": now, "exp": now + 60, "email": canaries.plant(f"{place}, its claim"), **changes}
        return canaries.take_token(place, make_assertion(**claims))

    def subject(place: str, **changes: Any) -> str:
        claims = {"aud": issuer, "iat": now, "exp": now + 60, "email": canaries.plant(f"{place}, its claim"), **changes}
        return canaries.take_token(place, make_subject(**claims))

    grant = f"// {canaries.plant('grant asked for')}\npermit (principal, action, resource);"
    usual = {
        "client_assertion_type": ASSERTION_TYPE,
        "grant_type": EXCHANGE,
        "subject_token_type": ACCESS_TOKEN,
        "authorization_details": json.dumps([{"type": "agentguard_grant", "cedar": grant}]),
        "unknown": canaries.plant("unknown parameter"),
    }
    broken = json.dumps([{"type": "agentguard_grant", "cedar": canaries.plant("grant that is none")}])
    forms: dict[str, dict[str, Any]] = {
        "good": {},
        "late assertion": {"client_assertion": assertion("late assertion", exp=now - 60, iat=now - 120)},
        "assertion by another key": {"client_assertion": assertion("assertion by another key", key=KEY)},
        "assertion that is none": {"client_assertion": canaries.word("assertion that is none")},
        "password": {"client_assertion": ABSENT, "client_id": "planner", "client_secret": canaries.word("password")},
        "late subject": {"subject_token": subject("late subject", exp=now - 60, iat=now - 120)},
        "strange subject": {"subject_token": subject("strange subject", iss="https://nobody.example")},
        "subject that is none": {"subject_token": canaries.word("subject that is none")},
        "broken grant": {"authorization_details": broken},
        "broken details": {"authorization_details": canaries.plant("details that are no JSON")},
        "other type": {"grant_type": canaries.word("type of grant")},
        "actor": {"actor_token": canaries.word("actor that is none"), "actor_token_type": ACCESS_TOKEN},
    }
    made = {}
    for place, changes in forms.items():
        whole = {**usual, **changes}
        whole.setdefault("client_assertion", None)
        if whole["client_assertion"] is None:
            whole["client_assertion"] = assertion(f"assertion beside {place}")
        whole.setdefault("subject_token", None)
        if whole["subject_token"] is None:
            whole["subject_token"] = subject(f"subject beside {place}")
        made[place] = {name: value for name, value in whole.items() if value is not ABSENT}
    return made


async def test_nothing_that_an_issuer_emits_holds_a_secret() -> None:
    """Its log, its evidence, its store, and what it answers to whoever it refuses."""
    canaries, refused, given = Canaries(), list[object](), ""
    ledger = MemoryLedger()
    service = Service(ledger=ledger)
    headers = {"X-Api-Key": canaries.word("header"), "Cookie": f"session={canaries.word('cookie')}"}
    with listening() as log:
        for place, form in requests(canaries, ISSUER, NOW).items():
            answer = await service.send("POST", "/token", data=form, headers=headers)
            assert (answer.status_code == 200) == (place == "good"), (place, answer.text)
            if place != "good":
                refused.append(answer.text)
                continue
            given = canaries.take_token("token that it gave", answer.json()["access_token"])
        stranger = canaries.word("token that is none")
        basic = {"Authorization": f"Basic {canaries.word('basic authentication')}"}
        refused.append((await service.send("POST", "/token", data={}, headers=basic)).text)
        refused.append((await service.send("POST", f"/token?key={canaries.word('query')}", data={})).text)
        refused.append((await service.post("/introspect", client="records", token=stranger)).text)
        # Whoever may introspect is told the grant (RFC 9396 section 9.2): no refusal, and not searched.
        assert (await service.post("/introspect", client="records", token=given)).json()["active"]
        refused.append((await service.post("/revoke", token=given)).text)

    emitted = {
        "log": joined(log),
        "evidence": joined(entry.text for entry in ledger),
        "store": joined(service.records()),
        "answers": joined(refused),
    }
    assert canaries.found(emitted) == []
    assert b"began: agent `planner` for user `alice`" in emitted["log"]
    assert b"InvalidSignatureError" in emitted["log"]
    assert b'"agentguard.run.state":"revoked"' in emitted["evidence"] or b"revoked" in emitted["log"] + emitted["store"]


def test_nothing_that_a_served_issuer_writes_holds_a_secret(tmp_path: Path) -> None:
    """Standard output, standard error and the store's file, which none of its keys gets into either."""
    canaries = Canaries()
    pem = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    for number, line in enumerate(pem.splitlines()[1:-1]):
        canaries.take(f"line {number} of the key", line)
    written_to = {"issuer.pem": pem, "planner.json": json.dumps(make_jwks(PLANNER_KEY, "planner"))}
    written_to["corp.json"] = json.dumps(make_jwks(KEY))
    written_to["clients.toml"] = (
        f'# {canaries.word("comment on a client")}\n[[client]]\nclient_id = "planner"\njwks = "planner.json"\n'
        f'[[trusted]]\nissuer = "{CORP}"\njwks = "corp.json"\n'
    )
    for name, text in written_to.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(text)
    (tmp_path / "runs").mkdir(0o700)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    files = {"--issuer-key": "issuer.pem", "--clients": "clients.toml", "--store": "runs/store.db"}
    named = [part for name, value in files.items() for part in (name, str(tmp_path / value))]
    arguments = ("issuer", "--issuer", url, *named, "--audience", AUDIENCE, "--port", str(port))
    (tmp_path / "pipes").mkdir()
    statuses = []
    with supervisor(*arguments, folder=tmp_path / "pipes") as started:
        assert "serving" in started.stderr.readline()
        with httpx2.Client(trust_env=False, timeout=30) as http:
            for place, form in requests(canaries, url, int(time.time())).items():
                answer = http.post(f"{url}/token", data=form, params={"key": "x"} if place == "actor" else {})
                statuses.append(answer.status_code)
                if place == "good":
                    canaries.take_token("token that it gave", answer.json()["access_token"])
        started.send(15)
        written = {"stderr": started.stderr.read().encode(), "stdout": started.stdout.read().encode()}
        started.wait()

    assert statuses[0] == 200
    assert statuses.count(200) == 1
    assert canaries.found({**written, "store": texts(tmp_path / "runs")}) == []
    assert written["stderr"].count(b"\n") == len(statuses)
    assert b"planner" in texts(tmp_path / "runs")


def test_nothing_that_a_command_with_a_run_writes_holds_a_secret(tmp_path: Path, home: Path) -> None:
    """`agentguard run` keeps its token in the one file that its command reads, and its grant nowhere."""
    canaries = Canaries()
    grant = tmp_path / "grant.cedar"
    grant.write_text(f"// {canaries.plant('grant')}\npermit (principal, action, resource);")
    copy = tmp_path / "token"
    script = f'cat "$AGENTGUARD_TOKEN_FILE" > {copy}; exit 3'
    least = ("run", "--agent", "reader", "--grant", str(grant), "--server", "records", "--", "sh", "-c", script)
    (tmp_path / "pipes").mkdir()
    argument, variable = canaries.word("argument of the command"), canaries.word("variable of the environment")
    with supervisor(*least, argument, folder=tmp_path / "pipes", API_KEY=variable) as started:
        written = {"stdout": started.stdout.read().encode(), "stderr": started.stderr.read().encode()}
        assert started.wait() == 3
    canaries.take_token("token", copy.read_text())
    shown = agentguard("runs", "--all", "--json")
    for number, line in enumerate((home / "agentguard" / "issuer.pem").read_text().splitlines()[1:-1]):
        canaries.take(f"line {number} of the key", line)
    (home / "agentguard" / "issuer.pem").rename(tmp_path / "issuer.pem")

    emitted = {**written, "files": texts(home), "runs": shown.stdout.encode(), "runs' stderr": shown.stderr.encode()}
    assert canaries.found(emitted) == []
    assert b"exit status 3" in emitted["runs"]
    assert b"reader" in emitted["files"]


def test_store_whose_password_is_wrong_or_whose_host_is_away_is_told_without_its_password(tmp_path: Path) -> None:
    """By every command, however the URL is spelt; where it cannot be read, it is not quoted at all."""
    canaries = Canaries()
    secret = canaries.word
    urls = [
        f"valkey://:{secret('password')}@127.0.0.1:1",
        f"valkey://user:{secret('password before a slash')}/more@127.0.0.1:1",
        f"valkey://:{secret('password before a hash')}#more@127.0.0.1:1",
        f"valkey://:{secret('password beside a wrong port')}@127.0.0.1:{secret('port')}",
        f"valkey://127.0.0.1:1/0?password={secret('password in the query')}",
        f"mysql://:{secret('password of another scheme')}@127.0.0.1:1",
    ]
    commands = (("runs", "--json"), ("revoke", "--agent", "a", "--yes"), TOKEN)
    emitted: dict[str, bytes] = {}
    with listening() as log:
        for url in urls:
            for command in commands:
                ran = agentguard(*command, "--store", url)
                assert ran.status in {1, 2}
                emitted[f"{command[0]} {len(emitted)}"] = joined([ran.stdout, ran.stderr])
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("AGENTGUARD_STORE", url)
                hidden = agentguard("runs")
            emitted[f"runs {len(emitted)}"] = joined([hidden.stdout, hidden.stderr])

    assert canaries.found({**emitted, "log": joined(log)}) == []
    assert all(emitted.values())


def test_store_url_that_cannot_be_read_is_no_part_of_the_traceback() -> None:
    """A server that is started with it prints one, causes included."""
    canaries = Canaries()
    url = f"valkey://user:{canaries.word('password')}/more@127.0.0.1:1"
    with pytest.raises(ConfigurationError) as caught:
        ValkeyStore(url)

    # The frames quote lines of code, which are no secret: the exceptions' own texts are what is printed.
    printed = "".join(traceback.format_exception(caught.value))
    assert "cannot be read" in printed
    assert canaries.found({"traceback": printed.encode()}) == []


def test_files_of_keys_and_headers_that_are_wrong_are_not_quoted(tmp_path: Path) -> None:
    """Whoever mistypes a line must not find it in the log of the service."""
    canaries = Canaries()
    wrong = {
        "text": canaries.plant("text in place of a key"),
        "half": f"-----BEGIN PRIVATE KEY-----\n{canaries.word('half of a key')}\n-----END PRIVATE KEY-----\n",
        "jwk": json.dumps({"kty": "EC", "crv": "P-256", "x": "x", "y": "y", "d": canaries.word("private part")}),
        "secret": json.dumps({"kty": "oct", "k": canaries.word("shared secret")}),
    }
    emitted = {}
    for name, text in wrong.items():
        path = tmp_path / name
        path.touch(0o600)
        path.write_text(text)
        store = str(tmp_path / "store.db")
        ran = agentguard(*TOKEN, "--issuer", ISSUER, "--issuer-key", str(path), "--store", store)
        assert ran.status == 2
        emitted[f"key {name}"] = joined([ran.stdout, ran.stderr])
    (tmp_path / "evidence").mkdir(0o700)
    lines = {"no equals": canaries.plant("line of headers"), "no name": f"={canaries.word('value of no name')}"}
    lines["no header"] = f"a b={canaries.word('value of a wrong name')}"
    for name, line in lines.items():
        (tmp_path / "headers").write_text(f"{line}\n")
        ran = forward(tmp_path, "http://127.0.0.1:1/v1/traces", "--headers", str(tmp_path / "headers"))
        assert ran.status == 2
        emitted[name] = joined([ran.stdout, ran.stderr])
    for to in (
        f"http://user:{canaries.word('password of a collector')}@127.0.0.1:1/v1/traces",
        f"http://127.0.0.1:1/v1/traces?key={canaries.word('key of a collector')}",
        f"http://127.0.0.1:1/v1/traces#{canaries.word('fragment for a collector')}",
    ):
        ran = forward(tmp_path, to)
        assert ran.status == 2
        emitted[f"endpoint {len(emitted)}"] = joined([ran.stdout, ran.stderr])

    assert canaries.found(emitted) == []
    assert all(emitted.values())


def test_collector_that_refuses_does_not_get_its_headers_into_the_log(tmp_path: Path) -> None:
    """Nor the text of its answer, in which it may quote them."""
    canaries = Canaries()
    (tmp_path / "headers").write_text(f"authorization=Bearer {canaries.word('token for the collector')}\n")
    stopped_chain(tmp_path / "state" / "evidence")
    with listening() as log, receiving() as receiver, pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_HEADERS", f"x-api-key={canaries.word('header of the environment')}")
        receiver.answers = [(401, "text/plain", canaries.word("answer of the collector").encode())]
        ran = forward(tmp_path / "state", receiver.url, "--headers", str(tmp_path / "headers"))

    canaries.saw(receiver.headers)
    assert ran.status == 1
    written = {"command": joined([ran.stdout, ran.stderr]), "files": texts(tmp_path / "state")}
    assert canaries.found({"log": joined(log), **written}) == []
    assert canaries.reached == {"token for the collector", "header of the environment"}
