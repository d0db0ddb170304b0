"""Which records are shown, and under which names; and the decisions as events for a SIEM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agentguard.evidence.kept import Kept
from agentguard.evidence.reporting.ocsf import ocsf_events
from agentguard.evidence.reporting.retell import story_of
from agentguard.evidence.showing import NAMES, Selection, acted, by, explained, is_quiet, part_of, row_of, verdict
from agentguard.evidence.vocabulary import ATTRIBUTES, Outcome, RecordKind
from agentguard.model import Reason
from agentguard.policy.schemas.schema import CREDENTIALS
from tests.evidence.history import ISSUER, NINE_THIRTY, QUARTER, History, an_hour, run_of

HOUR = an_hour().kept


def selected(**wanted: Any) -> list[Kept]:
    """Return the records that a selection takes of an hour."""
    return [record for record in HOUR if Selection(**wanted).takes(record)]


def decision(reason: Reason = Reason.PERMIT, *ids: str, **options: Any) -> list[Kept]:
    """Return the records of one call."""
    history = History()
    run = options.pop("run", run_of("a", 1, NINE_THIRTY, 600, user="alice", task="t"))
    history.call(run, NINE_THIRTY, "read_record", reason, *ids, **options)
    return history.kept


def event(records: list[Kept]) -> dict[str, Any]:
    """Return the one event that records give."""
    (made,) = ocsf_events(records, version="0.1.0")
    return made


def test_every_record_is_shown_under_the_same_names() -> None:
    """Null where it does not say something."""
    rows = [row_of(record) for record in HOUR]

    assert {tuple(row) for row in rows} == {tuple(rows[0])}
    assert set(NAMES) < set(rows[0])
    denied = next(row for row in rows if row["effect"] == "deny")
    assert (denied["time"], denied["kind"], denied["agent"]) == (
        "2026-11-24T09:36:00.000Z",
        "decision",
        "billing-agent",
    )
    assert (denied["policy_ids"], denied["issuer"], denied["user"]) == (("export-row-limit",), ISSUER, None)
    assert (denied["chain_id"], denied["seq"], denied["authority_remaining_s"]) == ("records-1", 21, 780)


def test_each_name_stands_for_an_attribute_of_the_table() -> None:
    """A name that no record could fill would always be null."""
    assert set(NAMES.values()) <= {attribute.name for attribute in ATTRIBUTES}


def test_a_record_of_an_export_is_shown_without_its_place() -> None:
    """Only decisions' spans name it."""
    row = row_of(Kept(kind="run", time_unix_nano=0))

    assert [row[name] for name in ("chain_id", "seq", "hash", "prev_hash", "trace_id", "span_id")] == [None] * 6


@pytest.mark.parametrize(
    ("attributes", "line"),
    [
        ({"agentguard.policy.ids": ("a", "b")}, "01: invalid_argument, by a, b"),
        ({"agentguard.decision.detail": "`n` is missing"}, "01: invalid_argument: `n` is missing"),
        (
            {
                "agentguard.run_state.started_at": "2026-11-24T09:00:00.000Z",
                "agentguard.run_state.calls": 3,
                "agentguard.decision.link": 0,
                "agentguard.delegation.depth": 2,
            },
            '01: invalid_argument; run: calls=3, started_at="2026-11-24T09:00:00.000Z"; denied for run 1 of 3',
        ),
    ],
)
def test_a_decision_is_explained_in_a_line(attributes: dict[str, Any], line: str) -> None:
    """By its policies, and by what did not fit."""
    decided = {"agentguard.decision.id": "01", "agentguard.decision.reason": "invalid_argument"}

    assert explained(Kept(kind="decision", time_unix_nano=0, attributes={**decided, **attributes})) == line


DONE: dict[str, Any] = {
    "agentguard.run_state.calls": 3,
    "agentguard.run_state.calls_of_this_tool": 1,
    "agentguard.run_state.denied": 0,
    "agentguard.run_state.labels": ("untrusted",),
    "agentguard.run_state.spent": ("payments=12.5000",),
    "agentguard.run_state.shared": False,
    "agentguard.run_state.started_at": "2026-11-24T09:00:00.000Z",
}
SAID: dict[str, Any] = {
    "calls": 3,
    "calls_of_this_tool": 1,
    "denied": 0,
    "labels": ["untrusted"],
    "spent": {"payments": "12.5000"},
    "shared": False,
    "started_at": "2026-11-24T09:00:00.000Z",
}


def test_what_runs_had_done_is_shown_as_policies_saw_it() -> None:
    """Of the run itself, and of those above it; a record of none says nothing of it."""
    above: dict[str, Any] = {"agentguard.run_state.above": json.dumps([SAID]), "agentguard.delegation.depth": 1}
    row = row_of(Kept(kind="decision", time_unix_nano=0, attributes={**DONE, **above, "agentguard.decision.link": 0}))

    assert (row["context_run"], row["context_run_above"], row["decision_link"]) == (SAID, [SAID], 0)
    bare = row_of(Kept(kind="run", time_unix_nano=0))
    assert (bare["context_run"], bare["context_run_above"], bare["decision_link"]) == (None, None, None)


def test_what_a_run_cannot_have_done_is_shown_as_nothing() -> None:
    """Evidence can be forged, and whoever counts it must find what the names say."""
    odd: dict[str, Any] = {"calls": True, "labels": "x", "spent": ("paper", "payments=1")}
    forged = {**DONE, **{f"agentguard.run_state.{name}": value for name, value in odd.items()}}
    above: dict[str, Any] = {"agentguard.run_state.above": '[{"calls": NaN}]', "agentguard.delegation.depth": 1}
    row = row_of(Kept(kind="decision", time_unix_nano=0, attributes={**forged, **above}))

    assert row["context_run"] == {**SAID, "calls": None, "labels": None, "spent": {"payments": "1"}}
    assert row["context_run_above"] == [dict.fromkeys(SAID)]


def test_credential_is_shown_by_its_name_and_its_lease() -> None:
    """And what was stopped on its way out by its name and its place."""
    named: dict[str, Any] = {
        "credential": "crm",
        "credential_event": "issued",
        "credential_place": "log",
        "credential_lease_id": "lease-1",
        "credential_expires_at": 1_800_000_000,
        "decision_id": "01",
    }
    row = row_of(Kept(kind="any", time_unix_nano=0, attributes={NAMES[name]: value for name, value in named.items()}))

    assert {name: row[name] for name in named} == named


@pytest.mark.parametrize(
    ("attributes", "shown"),
    [
        ({"gen_ai.tool.name": "look", "agentguard.action.id": "look"}, "look"),
        ({"agentguard.action.id": "resources/read/notes", "mcp.method.name": "resources/read"}, "resources/read/notes"),
        ({"mcp.method.name": "tools/list"}, "tools/list"),
        ({}, ""),
        (
            {"gen_ai.tool.name": "look", "agentguard.action.id": CREDENTIALS, "agentguard.resource.id": "crm"},
            "credentials/issue crm",
        ),
        ({"gen_ai.tool.name": "look", "agentguard.action.id": CREDENTIALS}, "credentials/issue"),
    ],
)
def test_what_was_done_is_named(attributes: dict[str, Any], shown: str) -> None:
    """That a tool wants a credential is no other call of that tool."""
    record = Kept(kind="decision", time_unix_nano=0, attributes=attributes)

    assert acted(record) == shown
    assert event([record])["api"]["operation"] == shown or not shown
    assert [call.tool for call in story_of([record]).strangers] == [shown]


@pytest.mark.parametrize(
    ("wanted", "number"),
    [
        ({}, len(HOUR)),
        ({"agents": frozenset({"mailer"})}, 7),
        ({"users": frozenset({"alice", "bob"})}, 19),
        ({"tasks": frozenset({"ticket-9"}), "kinds": frozenset({"decision"})}, 3),
        ({"tools": frozenset({"delete_record"})}, 1),
        ({"effect": "deny"}, 15),
        ({"reasons": frozenset({"no_permit"})}, 3),
        ({"reasons": frozenset({"revoked"})}, 3),
        ({"reasons": frozenset({"invalid_token"})}, 2),
        ({"policy_ids": frozenset({"large-write-off"})}, 1),
        ({"versions": ("sha256:41d7",), "effect": "deny"}, 6),
        ({"versions": ("41d7", "9c1e"), "effect": "deny"}, 15),
        ({"versions": ("1d7",)}, 0),
        ({"since": NINE_THIRTY + 3300.0}, 3),
        ({"until": float(NINE_THIRTY)}, 0),
        ({"since": NINE_THIRTY + 240.0, "until": NINE_THIRTY + 241.0}, 1),
    ],
)
def test_a_selection_takes_what_it_names(wanted: dict[str, Any], number: int) -> None:
    """Each name narrows; a time is from the first up to the second."""
    assert len(selected(**wanted)) == number


def test_a_policy_selects_what_it_would_have_determined_in_the_shadow() -> None:
    """A record of kind `shadow` names those policies, and none that decided."""
    shadow = Kept(kind="shadow", time_unix_nano=0, attributes={"agentguard.shadow.policy.ids": ("a", "b")})

    assert Selection(policy_ids=frozenset({"b"})).takes(shadow)
    assert not Selection(policy_ids=frozenset({"c"})).takes(shadow)


def test_a_part_has_what_became_of_its_calls_and_runs() -> None:
    """A call that was decided at its edge is not one without an outcome, nor the other way round."""
    at = NINE_THIRTY + 24.2 * 60
    part = part_of(HOUR, Selection(since=at, until=at + 1))

    story = story_of(part)
    (run,) = story.runs
    assert [(call.tool, call.outcome) for call in run.calls] == [("update_record", "withheld")]
    assert (run.end, run.issued_at) == ("revoked", NINE_THIRTY + 15 * 60)
    assert story.orphans == 0
    assert sorted(record.kind for record in part) == ["decision", "outcome", "run", "run"]
    assert story_of(part_of(HOUR, Selection(since=at + 1))).orphans == 0
    assert story_of(part_of(HOUR, Selection())) == story_of(HOUR)


def test_a_run_is_named_by_the_beginning_of_its_id() -> None:
    """A table shows no more of it."""
    run = HOUR[1].text("agentguard.run.id")

    assert {record.text("agentguard.run.id") for record in selected(runs=(run[:8],))} == {run}


@pytest.mark.parametrize(
    ("kind", "attributes", "said"),
    [
        ("decision", {"agentguard.decision.effect": "deny", "agentguard.decision.reason": "grant"}, ("deny", "grant")),
        (
            "decision",
            {
                "agentguard.decision.effect": "allow",
                "agentguard.decision.reason": "permit",
                "agentguard.policy.ids": ("reads", "grant:0"),
            },
            ("allow", "reads"),
        ),
        (
            "decision",
            {
                "agentguard.decision.effect": "deny",
                "agentguard.decision.reason": "policy_error",
                "agentguard.policy.ids": ("broken",),
            },
            ("deny", "policy_error"),
        ),
        (
            "outcome",
            {"agentguard.execution.outcome": "withheld", "agentguard.execution.reason": "revoked"},
            ("withheld", "revoked"),
        ),
        ("outcome", {"agentguard.execution.outcome": "failed", "error.type": "ValueError"}, ("failed", "ValueError")),
        ("run", {"agentguard.run.state": "revoked", "agentguard.run.reason": "why"}, ("revoked", "why")),
        (
            "refused_token",
            {"agentguard.decision.reason": "expired", "agentguard.tokens.refused": 1200},
            ("refused", "1,200 of expired"),
        ),
        ("refused_token", {"agentguard.decision.reason": "expired"}, ("refused", "1 of expired")),
        ("policy", {"agentguard.policy.refused": "a.cedar:9"}, ("refused", "a.cedar:9")),
        ("policy", {"agentguard.policy.label": "winter"}, ("policy", "winter")),
        ("start", {}, ("start", "")),
        (
            "credential",
            {"agentguard.credential.event": "renewed", "agentguard.credential.name": "crm"},
            ("renewed", "crm"),
        ),
        (
            "credential_leak",
            {"agentguard.credential.name": "crm", "agentguard.credential.place": "log"},
            ("stopped", "crm, log"),
        ),
        ("shared_run", {}, ("shared_run", "")),
    ],
)
def test_a_record_in_two_words(kind: str, attributes: dict[str, Any], said: tuple[str, str]) -> None:
    """What it says, and by what."""
    record = Kept(kind=kind, time_unix_nano=0, attributes=attributes)

    assert (verdict(record), by(record)) == said


@pytest.mark.parametrize(
    ("kind", "outcome", "quiet"),
    [("outcome", "completed", True), ("outcome", "withheld", False), ("head", "", True), ("from later", "", False)],
)
def test_a_table_leaves_out_what_says_that_all_goes_on(kind: str, outcome: str, quiet: bool) -> None:
    """And nothing else; a record of a later version is shown."""
    record = Kept(kind=kind, time_unix_nano=0, attributes={"agentguard.execution.outcome": outcome})

    assert is_quiet(record) is quiet


def test_each_decision_is_one_event_of_api_activity() -> None:
    """With what the class and the profile require, and nothing empty."""
    events = list(ocsf_events(HOUR, version="0.1.0"))

    assert len(events) == sum(record.kind == "decision" for record in HOUR)
    for made in events:
        assert (made["category_uid"], made["class_uid"], made["type_uid"]) == (6, 6003, 600399)
        assert made["type_uid"] == made["class_uid"] * 100 + made["activity_id"]
        assert made["metadata"]["version"] == "1.6.0"
        assert made["metadata"]["profiles"] == ["security_control"]
        assert {"actor", "api", "src_endpoint", "time", "severity_id", "status_id", "action_id"} <= set(made)
        assert '""' not in json.dumps(made)
        assert "null" not in json.dumps(made)


def test_an_allowed_call_as_an_event() -> None:
    """Who, what, under which policy, and our own ids."""
    made = event(decision(Reason.PERMIT, "reads", "grant:0"))

    assert (made["action"], made["disposition"], made["status"], made["severity"]) == (
        "Allowed",
        "Allowed",
        "Success",
        "Informational",
    )
    assert made["time"] == NINE_THIRTY * 1000
    assert made["message"] == "allowed read_record: reads"
    assert made["policy"] == {
        "type": "Cedar",
        "uid": "reads",
        "version": QUARTER,
        "desc": "2026-11-20 quarter end",
        "is_applied": True,
    }
    assert [one["policy"]["uid"] for one in made["authorizations"]] == ["reads", "grant:0"]
    assert made["actor"]["app_name"] == "a"
    assert made["actor"]["user"] == {"uid": "alice", "name": "alice"}
    assert made["actor"]["session"]["expiration_time"] == (NINE_THIRTY + 600) * 1000
    assert made["api"] == {
        "operation": "read_record",
        "group": {"name": "tools/call"},
        "service": {"name": "MCP"},
        "request": {"uid": "1"},
    }
    assert made["resources"] == [{"type": "Tool", "uid": "read_record"}]
    assert made["unmapped"]["agentguard.task.id"] == "t"
    assert made["unmapped"]["agentguard.execution.outcome"] == "completed"
    assert made["is_alert"] is False


@pytest.mark.parametrize(
    ("reason", "disposition", "severity", "alert"),
    [
        (Reason.POLICY, "Blocked", "Low", False),
        (Reason.NO_PERMIT, "Blocked", "Low", False),
        (Reason.REVOKED, "Access Revoked", "Low", False),
        (Reason.EXPIRED, "Access Revoked", "Low", False),
        (Reason.INVALID_TOKEN, "Unauthorized", "Medium", True),
        (Reason.UNAUTHENTICATED, "Unauthorized", "Medium", True),
        (Reason.STORE_UNAVAILABLE, "Error", "Medium", True),
        (Reason.POLICY_ERROR, "Error", "Medium", True),
    ],
)
def test_a_denied_call_as_an_event(reason: Reason, disposition: str, severity: str, alert: bool) -> None:
    """A guard that fails is told apart from a caller that may not."""
    made = event(decision(reason))

    assert (made["action_id"], made["status_id"], made["status_code"]) == (2, 2, reason.value)
    assert (made["disposition"], made["severity"], made["is_alert"]) == (disposition, severity, alert)


def test_a_withheld_result_is_grave() -> None:
    """The tool may have had its effect."""
    made = event(decision(outcome=Outcome.WITHHELD, stopped_by=Reason.REVOKED))

    assert (made["severity"], made["is_alert"]) == ("High", True)
    assert made["unmapped"]["agentguard.execution.reason"] == "revoked"


@pytest.mark.parametrize(
    ("stopped_by", "disposition", "severity", "said"),
    [
        (Reason.REVOKED, "Access Revoked", "Low", "stopped: the run was ended"),
        (Reason.EXPIRED, "Access Revoked", "Low", "stopped: the run or its token was over"),
        (Reason.STORE_UNAVAILABLE, "Allowed", "Informational", "stopped: the store could not be asked"),
    ],
)
def test_a_call_that_was_stopped_in_the_middle_is_told_as_such(
    stopped_by: Reason, disposition: str, severity: str, said: str
) -> None:
    """It was allowed, and its authority was taken from it."""
    made = event(decision(outcome=Outcome.CANCELLED, stopped_by=stopped_by))

    assert (made["action"], made["disposition"], made["severity"]) == ("Allowed", disposition, severity)
    assert made["message"].endswith(said)
    assert made["status_detail"] == said.removeprefix("stopped: ")


def test_a_grant_that_permits_too_little_is_named() -> None:
    """No policy of it decided. Where runs stand above, the record does not say whose grant it was."""
    alone = event(decision(Reason.GRANT))
    parent = run_of("p", 2, NINE_THIRTY, 600)
    below = event(decision(Reason.GRANT, run=run_of("a", 1, NINE_THIRTY, 600, parent=parent)))

    assert alone["policy"]["uid"] == alone["authorizations"][0]["policy"]["uid"] == "grant:0"
    assert below["policy"]["uid"] == "grant"


def test_a_call_by_nobody_as_an_event() -> None:
    """The class wants an actor, whoever it is."""
    made = event(decision(Reason.UNAUTHENTICATED, run=None))

    assert made["actor"] == {"app_name": "unidentified"}
    assert made["src_endpoint"] == {"svc_name": "unidentified"}


def test_an_event_of_a_record_that_says_nothing() -> None:
    """Still one of its class."""
    made = event([Kept(kind=RecordKind.DECISION, time_unix_nano=0)])

    assert made["api"] == {"operation": "unknown", "service": {"name": "MCP"}}
    assert (made["activity_name"], made["action_id"]) == ("call", 2)
    assert not {"policy", "resources", "authorizations", "unmapped"} & set(made)


def test_a_record_without_an_end_gives_a_session_without_one() -> None:
    """As an export may have it."""
    made = event([Kept(kind=RecordKind.DECISION, time_unix_nano=0, attributes={"agentguard.run.id": "r"})])

    assert made["actor"]["session"] == {"uid": "r"}
