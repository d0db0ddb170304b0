"""The page on observing, followed word for word with a real receiver."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
import yaml

from agentguard.evidence.delivery import sender
from agentguard.evidence.delivery.forwarding import read_forwarding
from agentguard.evidence.record import SpanOf, record
from agentguard.evidence.vocabulary import ATTRIBUTES, METRICS, RecordKind
from tests.cli.commands import agentguard
from tests.docs.pages import ROOT, blocks, run_python
from tests.evidence.chains import NOW
from tests.evidence.receiver import export_line, receiving

PAGE: Final = "docs/pages/how-to/observe.md"
TEXT: Final = (ROOT / PAGE).read_text("utf-8")
URL: Final = "http://127.0.0.1:4318/v1/traces"
SPAN: Final = SpanOf("1" * 32, "2" * 16, "", "agentguard.authorize read_record", 0)


def test_the_commands_of_the_page_say_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, on the state of the page's own guard; the port is a free one, and the collector's file is ours."""
    guard = run_python(PAGE, tmp_path)["guard"]
    guard.state.ledger.append(record(RecordKind.START, {}, at=NOW))
    denied = {
        "agentguard.decision.id": "D1",
        "agentguard.decision.effect": "deny",
        "agentguard.agent.id": "billing-agent",
    }
    guard.state.ledger.append(record(RecordKind.DECISION, denied, at=NOW, trace=SPAN))
    guard.state.close()
    monkeypatch.chdir(tmp_path)
    commands = [block.text.splitlines() for block in blocks(PAGE, "text")]
    said = [""]
    with receiving() as receiver:
        for command, *shown in commands:
            ran = agentguard(*shlex.split(command.replace(URL, receiver.url))[2:])
            (tmp_path / "agentguard.jsonl").write_text(export_line(receiver.spans))

            assert ran.status == 0, ran
            said = (ran.stdout + ran.stderr).replace(receiver.url, URL).splitlines()
            assert said == shown or not shown

    assert [command.split()[3] for command, *_ in commands] == ["forward", "verify", "show"]
    assert any("billing-agent" in line for line in said)


def test_every_form_of_endpoint_that_the_page_shows_is_taken() -> None:
    """Over HTTP and over gRPC."""
    shown = re.findall(r'forward="([^"]+)"', TEXT)

    assert {url.partition(":")[0] for url in shown} == {"http", "grpc"}
    for url in shown:
        assert read_forwarding(url) is not None


def test_the_page_names_what_there_is() -> None:
    """Attributes, metrics, rules, files, variables."""
    rules = yaml.safe_load((ROOT / "examples/observability/alerts.yaml").read_text())["groups"][0]["rules"]
    named = set(re.findall(r"\b(?:span\.)?(agentguard(?:\.[a-z_]+){2,})\b", TEXT))
    queried = set(re.findall(r"span\.([a-z_.]+)", TEXT))

    assert queried <= {row.name for row in ATTRIBUTES}
    assert named - {row.name for row in ATTRIBUTES} <= {metric.name for metric in METRICS}
    for rule in rules:
        if rule.get("record") != "agentguard:denied:ratio_rate5m":
            assert f"`{rule.get('alert') or rule.get('record')}`" in TEXT
    for file in re.findall(r"`(examples/observability/[\w.]+)`", TEXT):
        assert (ROOT / file).is_file()
    for name in re.findall(r"`(OTEL_EXPORTER[A-Z_]+)`", TEXT):
        assert name in (*sender._HEADERS, *sender._CERTIFICATE)
