"""Calls that are described in a few words."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from agentguard.analysis.scenarios.called import Called, call_of
from agentguard.analysis.workspace import Workspace, open_workspace
from agentguard.errors import ConfigurationError
from agentguard.model import Grade
from tests.analysis.folders import RECORDS
from tests.analysis.spending import spending

FOLDER: Workspace = open_workspace(RECORDS)
EXPORT = ["max_rows=501", "format=csv", "columns=[name, born]"]


def called(action: str = "export_records", **words: Any) -> Called:
    """Return a call in words."""
    words.setdefault("identity", {"agent": "billing-agent"})
    if action == "export_records":
        words = {"given": EXPORT, "facts": ["identifying_columns=2"], **words}
    return Called(action=action, **words)


def refused(action: str = "export_records", **words: Any) -> str:
    """Return why words describe no call."""
    with pytest.raises(ConfigurationError) as caught:
        call_of(called(action, **words), FOLDER)
    return str(caught.value)


def test_words_take_their_type_from_the_schema() -> None:
    """A number, a text, a set in one line; and what a scenario says of when and where."""
    identity = {"agent": "a", "user": "u", "purpose": "monthly close", "grade": "token", "scopes": ["x"]}
    call = call_of(
        called(
            identity=identity,
            setting={"now": "2026-11-24T10:00:00Z", "environment": "test", "approved": {"channel": "client"}},
        ),
        FOLDER,
    )

    assert call.action == "export_records"
    assert call.input == {"max_rows": 501, "format": "csv", "columns": ["name", "born"]}
    assert call.facts == {"identifying_columns": 2}
    assert (call.identity.user, call.identity.purpose, call.identity.grade) == ("u", "monthly close", Grade.TOKEN)
    assert (call.identity.scopes, call.environment) == (frozenset({"x"}), "test")
    assert call.approval is not None


def test_an_entity_is_described_as_a_file_of_scenarios_has_it() -> None:
    """Its id may have the sign in it that stands before its attributes."""
    entity = 'Record::"r=1"={sensitivity: normal, patient: Patient::p1}'
    call = call_of(called("read_record", given=["record_id=r=1"], entities=[entity]), FOLDER)

    assert call.input == {"record_id": "r=1"}
    assert call.entities[0]["uid"] == {"type": "Record", "id": "r=1"}


def test_run_has_done_what_is_said_of_it() -> None:
    """A number, a truth, a set and a record, each by its type."""
    done = ["calls=9", "shared=true", "labels=[untrusted, seen]"]
    call = call_of(called(done=done), FOLDER)

    assert (call.identity.run.calls, call.identity.run.shared) == (9, True)
    assert call.identity.run.labels == {"untrusted", "seen"}
    assert refused(done=["call=9"]).startswith("`run` has no key `call`: did you mean `calls`?")
    assert refused(done=["spent={payments: 1}"]).startswith("no tool adds to a total `payments`")


def test_what_was_spent_is_said_by_its_total(tmp_path: Path) -> None:
    """As one types it, or as a file has it; a number alone is of no total."""
    folder = spending(tmp_path, '@id("a") permit (principal, action, resource);')

    def spent(*done: str) -> Mapping[str, int]:
        words = Called(action="read_mail", identity={"agent": "a"}, given=["count=1"], done=done)
        return call_of(words, folder).identity.run.spent

    for form in ("spent.payments=45", "spent={payments: 45}"):
        assert spent(form) == {"payments": 450_000}
    for forms, told in (
        (["spent=3"], "--run says how much was spent of which total, got `spent=3`: write --run spent.payments=45"),
        (["spent={payments: 4}", "spent.payments=5"], "--run says `spent.payments` twice: leave one out"),
        (["spent.payment=5"], "no tool adds to a total `payment`: did you mean `payments`?"),
    ):
        with pytest.raises(ConfigurationError, match=re.escape(told)):
            spent(*forms)


def test_text_stays_text() -> None:
    """Whatever it looks like, and whatever is in it: a text is no YAML here."""
    for text in ("[x]", "{a: 1}", "null", "1.0", "\u202e", "\x1b[2J", "😀", 'a"b\\c\n'):
        call = call_of(called("read_record", given=[f"record_id={text}"]), FOLDER)
        assert call.input == {"record_id": text}


def test_what_does_not_fit_is_refused_with_the_option_that_mends_it() -> None:
    """As a command line has it."""
    assert (
        refused(given=["max_rows=501"])
        == "`export_records` always has argument `format`, of type String: add it with --with"
    )
    assert refused(facts=[]) == (
        "`export_records` always has fact `identifying_columns`, of type Long: add it with --fact"
    )
    assert refused(given=["max_rows=x", *EXPORT[1:]]).startswith("`max_rows` wants a whole number, got `x`")
    assert refused("read_recor") == "no tool is called `read_recor`: did you mean `read_record`?"
    assert "mapped claim" in refused(claims=["level=3"])
    assert refused(given=["columns"]) == "--with wants a name and a value, got `columns`: write --with max_rows=501"
    assert refused(done=["calls"]) == "--run wants a name and a value, got `calls`: write --run calls=10"
    assert refused(given=["=1"]).startswith("--with wants a name and a value")
    assert refused(given=[*EXPORT, "format=json"]) == "--with says `format` twice: leave one out"
    assert refused("read_record", entities=["Record::r1"]).startswith(
        "--entity wants a name and a value, got `Record::r1`"
    )
    assert refused("read_record", entities=["Record::r1={a"]).startswith("--entity `{a` cannot be read: ")
    assert refused(given=["max_rows=1", "format=csv", "columns=[a"]).startswith("--with `[a` cannot be read: ")
    assert refused("read_record", given=["record_id=\ud800"])


def test_claims_have_types_too() -> None:
    """Where the server maps some."""
    assert "`level`" in refused(claims=["level=x"])
