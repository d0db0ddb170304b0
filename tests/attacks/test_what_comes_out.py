"""Each place where a secret of a run could come out, over HTTP: plain and encoded, the token and a credential.

A tool is talked into it, or has a bug: it returns the secret, raises it, logs it or traces
it. The agent, the log and the exporter must not have it, and the record says where it was.
"""

import base64
import io
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import pytest
from mcp_types import CallToolResult, ImageContent, TextContent
from opentelemetry import trace

from agentguard import Credential
from agentguard.credentials.containment import TOKEN
from tests.credentials.lending import Office
from tests.test_credentials import LENT, leases_of
from tests.world import World, http_client, make_world, meta, served

FORMS: Final[dict[str, Callable[[str], str]]] = {
    "plain": str,
    "base64": lambda text: base64.b64encode(f"Bearer {text}".encode()).decode(),
    "hex": lambda text: f"Bearer {text}".encode().hex(),
    "URL": lambda text: quote(f"https://crm.example/?token={text}", safe=""),
}


def wrapped(secret: str) -> Exception:
    """Return an exception whose cause has the secret."""
    error = RuntimeError("the CRM is down")
    error.__cause__ = ValueError(secret)
    return error


RESULTS: Final[dict[str, Callable[[str], Any]]] = {
    "text": str,
    "structured": lambda secret: {"contact": {"name": "ann", "debug": [secret]}},
    "content": lambda secret: CallToolResult(content=[TextContent(type="text", text=secret)]),
    "picture": lambda secret: [
        ImageContent(type="image", mime_type="image/png", data=base64.b64encode(secret.encode()).decode())
    ],
}
ERRORS: Final[dict[str, Callable[[str], Exception]]] = {"raised": ValueError, "cause": wrapped}


def log(secret: str) -> None:
    """Log it, in several ways."""
    to = logging.getLogger("app")
    to.warning("headers: %s", {"Authorization": secret})
    to.warning("called", extra={"headers": secret})
    try:
        raise ValueError(secret)
    except ValueError:
        to.exception("it failed")


def trace_it(secret: str) -> None:
    """Trace it, on the guard's own span and on another."""
    trace.get_current_span().set_attribute("app.header", secret)
    trace.get_current_span().record_exception(ValueError(secret))


ASIDE: Final[dict[str, Callable[[str], None]]] = {"log": log, "span": trace_it}


@pytest.fixture
def logged() -> Iterator[io.StringIO]:
    """Return what the process logs."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logging.getLogger("app").addHandler(handler)
    yield stream
    logging.getLogger("app").removeHandler(handler)


def make(folder: Path, secrets: dict[str, str]) -> World:
    """Return a server whose tool lets out what it is told to."""

    def extend(world: World) -> None:
        @world.server.tool(structured_output=False)
        @world.guard.tool
        async def spill(
            way: str, what: str, form: str, crm: Annotated[Credential, world.guard.credential("crm")]
        ) -> Any:
            """Let a secret out."""
            secret = FORMS[form](crm.reveal() if what == "crm" else secrets[TOKEN])
            if way in ERRORS:
                raise ERRORS[way](secret)
            if way in ASIDE:
                ASIDE[way](secret)
                return "done"
            return RESULTS[way](secret)

    return make_world(folder, policies=LENT, extend=extend, broker=Office(time.time), agent=None)


@pytest.mark.parametrize("way", [*RESULTS, *ERRORS, *ASIDE])
async def test_no_secret_comes_out(tmp_path: Path, way: str, logged: io.StringIO) -> None:
    """In any form; and a record says which one it was, and where."""
    secrets: dict[str, str] = {}
    world = make(tmp_path, secrets)
    # A picture is sent in base64 by itself, and what is encoded twice is not found.
    forms = ["plain"] if way == "picture" else [*FORMS]
    place = way if way in ASIDE else "exception" if way in ERRORS else "result"
    secrets[TOKEN] = world.token()
    async with served(world) as url, http_client(url, secrets[TOKEN]) as client:
        answers = [
            await client.call_tool("spill", {"way": way, "what": what, "form": form})
            for what in (TOKEN, "crm")
            for form in forms
        ]
    office: Any = leases_of(world)._broker
    leases_of(world).close()
    shown = [answer.model_dump_json() for answer in answers]
    shown += [logged.getvalue(), *(span.to_json() for span in world.exporter.get_finished_spans())]

    for secret in (secrets[TOKEN].rpartition(".")[2], office.secret(1)):
        for text in shown:
            assert secret not in text
            assert base64.b64encode(secret.encode()).decode().rstrip("=")[:-2] not in text
            assert secret.encode().hex() not in text
    leaks = world.records("credential_leak")
    assert [leak["agentguard.credential.place"] for leak in leaks] == [place] * (2 * len(forms))
    assert [leak["agentguard.credential.name"] for leak in leaks] == [name for name in (TOKEN, "crm") for _ in forms]
    for answer in answers:
        if way in ASIDE:
            assert not answer.is_error
        else:
            assert (meta(answer)["reason"], meta(answer)["retry"]) == ("denied", "never")
    if way == "log":
        assert logged.getvalue().count("a log line of `app` held a credential, and was stopped\n") == 24
    if way == "span":
        spans = [span for span in world.exporter.get_finished_spans() if span.name == "agentguard.execute spill"]
        assert [(span.attributes or {})["app.header"] for span in spans] == ["[credential]"] * 8
