"""Callers choose names, and people read them on a page and in a terminal.

A tool's, an agent's or a task's name that is markup would run in the browser of whoever
looks for what an attacker did; one that steers a terminal would hide it there.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Final

import pytest

from agentguard.evidence.kept import Kept
from agentguard.evidence.proof import Proof
from agentguard.model import EntityUid, Reason
from tests.evidence.history import NINE_THIRTY, History, an_hour, run_of
from tests.evidence.reporting.test_report import CHAIN, Page, in_a_browser, opened, page_of

HOSTILE: Final = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</style><style>*{display:none}",
    "</title></head><body onload=alert(1)>",
    "' onmouseover='alert(1)",
    "&lt;b&gt; &#x3c;script>",
    "javascript:alert(1)",
    "a\x00\x1b[2J\u202eb\ud800",
    "{{7*7}} ${7*7}",
    "x" * 5000,
)


def records_named(text: str) -> list[Kept]:
    """Return records in which everything that has a name is named so."""
    history = History(version=text, label=text)
    run = run_of(text, 1, NINE_THIRTY, 900, user=text, task=text, purpose=text)
    child = run_of(text, 2, NINE_THIRTY, 900, parent=run)
    for one in (run, child):
        history.call(one, NINE_THIRTY + 1, text, Reason.POLICY, text, resource=EntityUid(text, text))
        history.call(one, NINE_THIRTY + 2, text, Reason.PERMIT, text)
        history.state(one, NINE_THIRTY + 9, "revoked", text)
    history.keep(text, NINE_THIRTY, {"agentguard.policy.refused": text})
    history.keep("policy", NINE_THIRTY, {"agentguard.policy.refused": text})
    history.keep("refused_token", NINE_THIRTY, {"agentguard.decision.reason": text})
    return history.kept


def page_named(text: str) -> str:
    """Return the page of these records, with everything else named so too."""
    proof = Proof(
        holds=False,
        chains=(replace(CHAIN, chain_id=text, key=text, last_hash=text),),
        problems=(text,),
        notes=(text,),
        against=text,
    )
    return page_of(records_named(text), proof, sources=[text], unread=[text], version=text, owners={text: text})


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_in_a_record_becomes_more_than_text(text: str) -> None:
    """No element and no attribute that a page of plain names has not, and nothing that is not seen."""
    plain = Page(page_of(an_hour().kept))

    made = page_named(text)

    page = Page(made)
    assert set(page.tags) <= set(plain.tags)
    assert {name for _, name, _ in page.attributes} <= {name for _, name, _ in plain.attributes}
    assert page.tags["style"] == 1
    assert not {"\x00", "\x1b", "\u202e", "\ud800"} & set(made)
    css = files("agentguard.evidence.reporting").joinpath("report.css").read_text("utf-8")
    assert len(max(page.texts, key=len)) <= len(css)
    made.encode()


@in_a_browser
def test_a_browser_finds_nothing_to_run(tmp_path: Path) -> None:
    """All of them on one page: no error, no dialogue, nothing wider than the window."""
    said, console = opened(tmp_path, page_named(" ".join(HOSTILE)))

    assert console == []
    assert [measured["overflow"] for measured in said.values()] == [0, 0]
