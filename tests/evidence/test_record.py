"""Values in, attributes and records out, and each of them in the table."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.evidence.record import (
    SpanOf,
    approval_attributes,
    arguments_digest,
    arrival_attributes,
    call_attributes,
    decision_attributes,
    error_type,
    execution_attributes,
    private_resource,
    record,
    run_attributes,
    wire_text,
)
from agentguard.evidence.runstate import link_attributes, run_state_attributes
from agentguard.evidence.vocabulary import ATTRIBUTES, AttributeValue, Outcome, Place, RecordKind
from agentguard.lifecycle.tally import Tally
from agentguard.model import Decision, Effect, EntityUid, Invocation, Reason, canonical_json
from agentguard.request import run_record
from tests.evidence.invocations import bare, complete

KEY = b"k" * 32
TABLE = {attribute.name: attribute for attribute in ATTRIBUTES}
TYPES = {"string": str, "int": int, "double": float, "bool": bool, "string[]": tuple}
DENIED = Decision(
    effect=Effect.DENY,
    reason=Reason.POLICY,
    policy_ids=("export-row-limit", "other-limit"),
    policy_version="sha256:9c1e",
    errors=("overflow while adding `4711` and `1`",),
    advice="Ask for fewer.",
    scopes=("records:read", "records:write"),
    id="D1",
)
RESOURCE = EntityUid("Record", "r1")
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


TALLY = Tally(started_at=1_000.0, labels=frozenset(("untrusted",)), spent={"payments": 125_000})

DONE: dict[str, Any] = run_record(TALLY, now=1_100.25, tool="records export", totals=("payments",))


def decided(
    invocation: Invocation | None, *, decision: Decision = DENIED, resource: EntityUid | None = RESOURCE
) -> dict[str, AttributeValue]:
    """Return the attributes of one decision with everything that it can have."""
    return decision_attributes(
        decision=decision,
        invocation=invocation,
        action="export_records",
        resource=resource,
        now=1_100.5,
        digest=arguments_digest(KEY, {"max_rows": 501}),
        policy_label="quarter end",
        policy_activated_at=900,
        call={
            **call_attributes(
                method="tools/call", tool="export_records", request_id=17, session_id="s-1", traceparent=TRACEPARENT
            ),
            **approval_attributes("Q1", "url", "carol"),
            **arrival_attributes("http", 1_100.25),
            **run_state_attributes(DONE, (DONE, DONE)),
            **link_attributes(decision, invocation),
        },
    )


def assert_in_table(attributes: dict[str, AttributeValue], *places: Place) -> None:
    """Check that each attribute has a row, with its type, for every one of *places*."""
    for name, value in attributes.items():
        assert type(value) is TYPES[TABLE[name].type], name
        assert set(places) <= TABLE[name].on, name


def test_every_name_stands_once_in_the_table() -> None:
    """Two rows of one name could disagree."""
    assert len(TABLE) == len(ATTRIBUTES)


def test_a_decision_shows_everything_that_the_design_asks_for() -> None:
    """Every row for the decision span is filled, but for what its makers add at its end."""
    misfit = replace(DENIED, reason=Reason.INVALID_ARGUMENT)
    shown = {**decided(complete(), decision=misfit), **decided(complete())}

    assert_in_table(shown, "decision", "record")
    later = ("agentguard.evidence.", "agentguard.shadow.")
    added_later = {name for name in TABLE if name.startswith(later)} | {"openinference.span.kind"}
    assert {name for name, row in TABLE.items() if "decision" in row.on} - added_later == set(shown)
    assert shown["agentguard.policy.ids"] == ("export-row-limit", "other-limit")
    assert shown["agentguard.policy.id"] == "export-row-limit"
    assert shown["agentguard.run.parent"] == "run-1"
    assert shown["agentguard.delegation.depth"] == 2
    assert shown["agentguard.authority.granted"] == 300.0
    assert shown["agentguard.authority.remaining"] == 199.5


def test_a_bare_decision_leaves_out_what_is_not_there() -> None:
    """An absent value has no attribute: an empty one would read as a value."""
    shown = decision_attributes(
        decision=Decision(effect=Effect.DENY, reason=Reason.INVALID_TOKEN, id="D2"),
        invocation=None,
        action="export_records",
        resource=None,
        now=1_100,
    )

    assert shown == {
        "agentguard.decision.id": "D2",
        "agentguard.decision.effect": "deny",
        "agentguard.decision.reason": "invalid_token",
        "agentguard.policy.version": "",
        "agentguard.action.id": "export_records",
    }


def test_a_bare_invocation_leaves_out_what_its_token_did_not_say() -> None:
    """No user, task, purpose, parent or token id: none of these attributes."""
    shown = decided(bare())

    absent = {"user.id", "task.id", "purpose", "run.parent", "invocation.id"}
    assert not {f"agentguard.{name}" for name in absent} & set(shown)
    assert shown["agentguard.delegation.depth"] == 0


def test_authority_after_the_end_is_nothing_not_less() -> None:
    """A late call had no time left; a negative number would skew every sum."""
    shown = decision_attributes(decision=DENIED, invocation=bare(), action="a", resource=RESOURCE, now=9_999)

    assert shown["agentguard.authority.remaining"] == 0.0


def test_what_must_not_be_kept_is_not_kept() -> None:
    """Arguments, evaluation errors, advice, grants, claims and scopes appear nowhere."""
    kept = canonical_json(record(RecordKind.DECISION, decided(complete()), at=1.0))

    for secret in ("501", "4711", "Ask for fewer", "permit (", "unmapped nowhere"):
        assert secret not in kept, secret


def test_what_did_not_fit_is_kept_of_no_other_reason() -> None:
    """Our own words for arguments, for loaders, and for why nobody said yes, name no value; an evaluation error may."""
    misfit = replace(DENIED, reason=Reason.INVALID_ARGUMENT, errors=("`n` is missing", "x" * 300))
    bare_one = replace(DENIED, reason=Reason.INVALID_ARGUMENT, errors=())

    detail = str(decided(complete(), decision=misfit)["agentguard.decision.detail"])

    assert detail.startswith("`n` is missing; xxx")
    assert len(detail) == 256
    nobody = replace(DENIED, reason=Reason.APPROVAL_UNAVAILABLE, errors=("nobody was asked",))
    assert decided(complete(), decision=nobody)["agentguard.decision.detail"] == "nobody was asked"
    unknown = replace(DENIED, reason=Reason.MISSING_ENTITY, errors=("the loader of `Record` knows no such entity",))
    assert decided(complete(), decision=unknown)["agentguard.decision.detail"] == unknown.errors[0]
    for one in (bare_one, DENIED):
        assert "agentguard.decision.detail" not in decided(complete(), decision=one)


def test_an_execution_shows_who_ran_what_and_how_it_came_out() -> None:
    """Every row for the execution span is filled, but for the constants of its kind."""
    shown = execution_attributes(
        decision_id="D1",
        invocation=complete(),
        outcome=Outcome.WITHHELD,
        seconds=0.25,
        reason=Reason.REVOKED,
        error=TimeoutError("a secret"),
        call=call_attributes(
            method="tools/call", tool="export_records", request_id="17", session_id="s-1", traceparent=TRACEPARENT
        ),
    )

    assert_in_table(shown, "execution", "record")
    constants = {"openinference.span.kind", "gen_ai.operation.name"}
    rows = {name for name, row in TABLE.items() if "execution" in row.on and ".evidence." not in name}
    assert rows - constants == set(shown)
    assert shown["error.type"] == "TimeoutError"
    assert shown["agentguard.execution.outcome"] == "withheld"
    assert shown["agentguard.execution.reason"] == "revoked"


def test_a_plain_execution_has_no_error_and_no_reason() -> None:
    """What completed says so and nothing more."""
    shown = execution_attributes(decision_id="D1", invocation=bare(), outcome=Outcome.COMPLETED, seconds=0.25)

    assert shown == {
        "agentguard.run.id": "run-1",
        "agentguard.agent.id": "billing-agent",
        "agentguard.decision.id": "D1",
        "agentguard.execution.outcome": "completed",
        "agentguard.execution.duration": 0.25,
    }


def test_an_execution_without_an_identity_shows_what_there_is() -> None:
    """Evidence of what cannot happen must still not fail."""
    shown = execution_attributes(decision_id="D1", invocation=None, outcome=Outcome.CANCELLED, seconds=0.0)

    assert set(shown) == {
        "agentguard.decision.id",
        "agentguard.execution.outcome",
        "agentguard.execution.duration",
    }


def test_a_run_shows_how_long_it_lasted_and_why_it_ended() -> None:
    """Beside what is known of it from its beginning; the reason is bounded, and can be exported."""
    shown = run_attributes(complete(), ended_at=1_085.25, reason="stolen \ud800" + "x" * 300)

    assert_in_table(shown, "run", "record")
    assert shown["agentguard.authority.granted"] == 300.0
    assert shown["agentguard.authority.lasted"] == 85.25
    assert shown["agentguard.run.reason"] == "stolen ?" + "x" * 248


def test_a_run_that_lives_shows_no_end() -> None:
    """Neither how long it lasted nor why; nor is anything less than nothing."""
    shown = run_attributes(bare())

    assert_in_table(shown, "run", "record")
    assert not {"agentguard.authority.lasted", "agentguard.run.reason"} & set(shown)
    assert run_attributes(bare(), ended_at=999.0)["agentguard.authority.lasted"] == 0.0


def test_an_error_of_a_library_is_named_with_its_module() -> None:
    """Two libraries' errors of one name stay two."""
    assert error_type(ConfigurationError("secret")) == "agentguard.errors.ConfigurationError"


def test_arguments_of_one_value_have_one_digest() -> None:
    """The order of members is not a difference."""
    assert arguments_digest(KEY, {"a": 1, "b": "é"}) == arguments_digest(KEY, {"b": "é", "a": 1})
    assert arguments_digest(KEY, {"a": 1}) != arguments_digest(KEY, {"a": 2})


def test_a_digest_needs_its_key_to_be_guessed() -> None:
    """Under another key the same value has another digest."""
    assert arguments_digest(KEY, {"a": 1}) != arguments_digest(b"x" * 32, {"a": 1})


@pytest.mark.parametrize("key", [b"", b"k" * 31])
def test_a_short_digest_key_is_refused(key: bytes) -> None:
    """A digest without a real key is a hash that anybody can search."""
    with pytest.raises(ConfigurationError, match="wants at least 32 bytes"):
        arguments_digest(key, {"a": 1})
    with pytest.raises(ConfigurationError, match="wants at least 32 bytes"):
        private_resource(key, RESOURCE)


def test_a_private_resource_keeps_its_type_and_hides_its_id() -> None:
    """Equal ids stay equal within a type, and differ between types."""
    hidden = private_resource(KEY, RESOURCE)

    assert hidden.type == "Record"
    assert hidden.id.startswith("hmac-sha256:")
    assert hidden == private_resource(KEY, RESOURCE)
    assert hidden.id != private_resource(KEY, EntityUid("Patient", "r1")).id


def test_a_resource_never_has_the_digest_of_some_arguments() -> None:
    """Else a caller could choose arguments that spell a private id's digest."""
    assert private_resource(KEY, RESOURCE).id != arguments_digest(KEY, ["Record", "r1"])


def test_a_call_without_an_id_or_a_session_shows_neither() -> None:
    """Over stdio there is no session, and a preflight may know no tool."""
    assert call_attributes(method="resources/read") == {"mcp.method.name": "resources/read"}


@pytest.mark.parametrize(
    ("traceparent", "sampled"),
    [
        (TRACEPARENT, True),
        (TRACEPARENT[:-2] + "00", False),
        (TRACEPARENT[:-2] + "ff", True),
        ("01" + TRACEPARENT[2:] + "-later", True),
        ("ff" + TRACEPARENT[2:], None),
        ("00-" + "0" * 32 + "-b7ad6b7169203331-01", None),
        (TRACEPARENT.upper(), None),
        (TRACEPARENT + "\n", None),
        ("", None),
        (None, None),
    ],
)
def test_a_caller_that_asks_for_no_spans_is_seen(traceparent: str | None, sampled: bool | None) -> None:
    """The sampled flag is kept where there is a valid one."""
    shown = call_attributes(method="tools/call", traceparent=traceparent)

    assert shown.get("agentguard.trace.caller_sampled") is sampled


def test_text_from_outside_is_bounded_and_valid() -> None:
    """A name without end or with half a character must not stop an exporter."""
    assert wire_text("read_record") == "read_record"
    assert wire_text("Zoë") == "Zoë"
    assert wire_text("\ud800x") == "?x"
    assert wire_text("x" * 100_000) == "x" * 256


def test_a_resource_id_is_kept_whole() -> None:
    """What was judged is what the record shows, whatever its length."""
    shown = decided(bare(), resource=EntityUid("Record", "é" * 1_000 + "\ud800"))

    assert shown["agentguard.resource.id"] == "é" * 1_000 + "?"


def test_a_record_holds_its_kind_time_trace_and_named_inputs() -> None:
    """The four that are not attributes stand beside them."""
    kept = record(
        RecordKind.DECISION, {"agentguard.decision.id": "D1"}, at=1.000_001, trace=("t" * 32, "s" * 16), inputs={"n": 1}
    )

    assert json.loads(canonical_json(kept)) == {
        "kind": "decision",
        "time_unix_nano": 1_000_001_000,
        "attributes": {"agentguard.decision.id": "D1"},
        "trace_id": "t" * 32,
        "span_id": "s" * 16,
        "inputs": {"n": 1},
    }


def test_a_record_keeps_what_its_span_can_be_built_from() -> None:
    """What is not known of the span is left out."""
    whole = SpanOf("t" * 32, "s" * 16, "p" * 16, "agentguard.run mailer", 7, ("x-y",))
    bare = SpanOf("t" * 32, "s" * 16, "", "agentguard.execute read")
    ids = {"trace_id": "t" * 32, "span_id": "s" * 16}

    assert record(RecordKind.RUN, {}, at=0.0, trace=whole) == {
        "kind": "run",
        "time_unix_nano": 0,
        "attributes": {},
        **ids,
        "span_name": "agentguard.run mailer",
        "parent_span_id": "p" * 16,
        "start_time_unix_nano": 7,
        "links": ("x-y",),
    }
    assert record(RecordKind.OUTCOME, {}, at=0.0, trace=bare) == {
        "kind": "outcome",
        "time_unix_nano": 0,
        "attributes": {},
        **ids,
        "span_name": "agentguard.execute read",
    }


def test_a_record_without_a_trace_or_inputs_has_neither() -> None:
    """Without a tracer there is no id to point to."""
    assert set(record(RecordKind.STOP, {}, at=1.0)) == {"kind", "time_unix_nano", "attributes"}
