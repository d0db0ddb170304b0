"""The search that runs beside every test has to find what it is for."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agentguard import ConfigurationError, Refusal
from agentguard.errors import OAuthError, PolicyError
from agentguard.evidence.ledger import MemoryLedger
from agentguard.evidence.spans import OpenSpan, Spans
from agentguard.model import Reason
from tests import leaks
from tests.cli.commands import agentguard
from tests.evidence.chains import decision, ledger_in
from tests.tokens import make_issuer, make_token

LOG = logging.getLogger("agentguard")


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    """Forget what these tests let out on purpose."""
    yield
    leaks.leaked()


def span_of(text: str) -> OpenSpan:
    """Return an ended span that shows a text."""
    span = Spans().authorize("read")
    span.end({"agentguard.purpose": text})
    return span


WAYS: dict[str, Callable[[str], object]] = {
    "log": lambda text: LOG.warning("told: %s", text),
    "quiet log": lambda text: LOG.debug("told: %s", text),
    "record": lambda text: MemoryLedger().append({"kind": "start", "text": text}),
    "span": span_of,
    "refusal": lambda text: Refusal(Reason.INVALID_TOKEN, text),
    "mistake": ConfigurationError,
    "policy's error": lambda text: PolicyError([text]),
    "issuer's error": lambda text: OAuthError(error="invalid_request", description=text),
}


@pytest.mark.parametrize("way", WAYS)
def test_token_that_gets_out_is_found(way: str) -> None:
    """Its claims or its signature, whole or the start or the end of one."""
    for token in (make_token(), make_issuer().mint(agent="reader", grant="permit (principal, action, resource);")):
        _, claims, signature = token.split(".")
        for text in (token, claims, signature, f"x {signature[:40]}", f"{claims[-40:]} x", f'"{signature}"'):
            leaks.leaked()
            WAYS[way](text)
            assert len(leaks.leaked()) == 1, text


@pytest.mark.parametrize("way", WAYS)
def test_what_a_test_registers_is_found_and_nothing_else(way: str) -> None:
    """Digests and ids look like parts of tokens, and are none."""
    leaks.register("a secret of this test")
    for text, found in (("it is a secret of this test", 1), ("f" * 64, 0), ("-".join(["ab12"] * 16), 0)):
        leaks.leaked()
        WAYS[way](text)
        assert len(leaks.leaked()) == found, text
    leaks.forget()
    WAYS[way]("a secret of this test")
    assert leaks.leaked() == []


def test_leak_into_a_file_is_found(tmp_path: Path) -> None:
    """The ledger of a state folder is listened to as well."""
    ledger = ledger_in(tmp_path / "evidence")
    ledger.append({"kind": "start", "text": make_token()})
    ledger.close()

    assert [line.partition(":")[0] for line in leaks.leaked()] == ["record"]


def test_leak_into_a_report_is_found(tmp_path: Path) -> None:
    """The page is the last place where anything could be shown."""
    ledger = ledger_in(tmp_path / "evidence")
    ledger.append({**decision(1), "attributes": {"agentguard.agent.id": make_token(), "agentguard.run.id": "r"}})
    ledger.close()
    leaks.leaked()
    agentguard("evidence", "report", str(tmp_path / "report.html"), str(tmp_path))

    assert [line.partition(":")[0] for line in leaks.leaked()] == ["report"]


def test_leak_fails_the_test(request: pytest.FixtureRequest) -> None:
    """As pytest runs it: the call of a test is wrapped."""
    hooks = request.config.hook.pytest_runtest_call.get_hookimpls()
    (hook,) = (one for one in hooks if one.plugin_name.endswith("tests/conftest.py"))
    wrapped: Any = hook.function()
    next(wrapped)
    LOG.debug("%s", make_token())
    with pytest.raises(AssertionError, match="a secret got out"):
        wrapped.send(None)


def test_listening_lets_nothing_through_that_the_level_keeps_back(caplog: pytest.LogCaptureFixture) -> None:
    """What tests see of the log is what they would see without it."""
    LOG.debug("quiet")
    with caplog.at_level(logging.DEBUG, "agentguard"):
        LOG.debug("loud")
    logging.disable(logging.ERROR)
    LOG.error("disabled")
    logging.disable(logging.NOTSET)
    # A thread that an earlier test left behind may have something to say.
    assert [record.getMessage() for record in caplog.records if record.module == "test_leaks"] == ["loud"]


def test_program_that_a_test_starts_has_the_environment_that_the_test_sees() -> None:
    """A terminal's size, which readline writes past Python, would be there or not by which tests ran before."""
    seen = subprocess.run(["/usr/bin/env"], capture_output=True, text=True, check=True).stdout.splitlines()

    assert {line.partition("=")[0] for line in seen} & {"COLUMNS", "LINES"} == {"COLUMNS", "LINES"} & os.environ.keys()
