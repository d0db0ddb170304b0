"""What a person is shown, and what an approval is bound to."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from agentguard import ApprovalRequest, EntityUid
from agentguard.approval import Approved, binding_of, plain
from agentguard.model import AccessRequest
from agentguard.testing import unsafe_invocation

ALICE = unsafe_invocation("support", run_id="r1")


def request(**changes: Any) -> ApprovalRequest:
    """Return a question, with something else in it."""
    whole: dict[str, Any] = {
        "id": "Q1",
        "prompt": "Delete it for good?",
        "server": "records",
        "action": "delete_record",
        "resources": (EntityUid("Record", "r7"),),
        "arguments": {"record_id": "r7", "reason": "asked for"},
        "run": "r1",
        "issuer": "https://issuer.example",
        "agent": "support",
        "user": "alice",
        "policy_ids": ("ask",),
        "policy_version": "sha256:1",
        "expires_at": 300.0,
    }
    return ApprovalRequest(**(whole | changes))


def test_message_says_who_wants_to_do_what() -> None:
    """The policy's words first, then the call, one fact a line."""
    assert request(task="t1", purpose="erasure").message.split("\n") == [
        "Delete it for good?",
        "Agent support wants to call delete_record on server records for alice.",
        "task: t1",
        "purpose: erasure",
        "argument record_id: r7",
        "argument reason: asked for",
        'acts on: Record::"r7"',
    ]


def test_message_without_words_of_a_policy_is_the_call_alone() -> None:
    """Nobody has to write a prompt, and the tool itself is not said twice."""
    bare = request(prompt="", user=None, arguments={}, resources=(EntityUid("Tool", "delete_record"),))

    assert bare.message == "Agent support wants to call delete_record on server records."


@pytest.mark.parametrize(
    ("action", "uid", "shown"),
    [
        ("wipe", EntityUid("Tool", "wipe"), False),
        ("resources/read/notes", EntityUid("Resource", "notes"), False),
        ("prompts/get/greet", EntityUid("Prompt", "greet"), False),
        ("resources/read", EntityUid("Server", "records"), False),
        ("wipe", EntityUid("Resource", "r7"), True),
        ("wipe", EntityUid("Resource", "wipe"), True),
        ("wipe", EntityUid("Prompt", "r7"), True),
    ],
)
def test_entity_of_the_teams_own_is_shown_whatever_its_type_is_called(action: str, uid: EntityUid, shown: bool) -> None:
    """Only what stands for the call itself says nothing more; a team may have a type `Resource` too."""
    assert ("acts on" in request(action=action, resources=(uid,)).message) is shown


def test_message_names_arguments_that_it_does_not_show() -> None:
    """A person who does not see a text knows that there is one, before any line that may be cut."""
    many = {f"a{number}": number for number in range(40)}

    asks = request(unseen=("body", "attach\nment"), arguments=many, resources=())

    assert asks.message.split("\n")[2] == "Arguments that are not shown here: body, attach\ufffdment"
    assert asks.as_json()["unseen"] == ["body", "attach\nment"]


@pytest.mark.parametrize(
    "value", ["a\nargument approved: yes", "a\r\nb", "a\u2028b", "\x1b[2Ja", "\u202etxt", "\u0000", ["a\nb"]]
)
def test_argument_cannot_write_a_line_of_its_own(value: object) -> None:
    """What an agent puts into an argument stays in its line, and steers no terminal."""
    lines = request(prompt="", arguments={"reason": value}, resources=()).message.split("\n")

    assert len(lines) == 2
    assert lines[1].startswith("argument reason: ")
    assert all(line.isprintable() for line in lines)


@pytest.mark.parametrize("blank", [" ", "\u3164", "\u2800", "\u115f"])
def test_value_cannot_be_pushed_onto_a_line_of_its_own(blank: str) -> None:
    """A row of blanks wraps where a person reads, and what comes after would look like a fact of ours."""
    shown = request(arguments={"note": f"x{blank * 100}argument approved_by: carol"}).message

    assert " " * 2 not in shown
    assert "␣" * 99 in shown
    assert f"x{blank * 2}" not in shown


def test_names_cannot_write_a_line_of_their_own() -> None:
    """Nor can an agent's name, a task or an id."""
    hostile = request(
        prompt="", agent="a\nb", user="u\nv", task="t\nu", arguments={"x\ny": 1}, resources=(EntityUid("R", "i\nj"),)
    )

    assert len(hostile.message.split("\n")) == 4


def test_long_values_are_cut_and_say_so() -> None:
    """A person reads a line, and knows that there is more."""
    (_, line) = request(prompt="", arguments={"body": "x" * 1000}, resources=()).message.split("\n")

    assert line == f"argument body: {'x' * 300}… (700 characters more)"


def test_many_lines_are_cut_and_say_so() -> None:
    """A call on a thousand records is still one question."""
    resources = tuple(EntityUid("Record", f"r{number}") for number in range(1000))

    lines = request(prompt="", arguments={}, resources=resources).message.split("\n")

    assert len(lines) == 32
    assert lines[-1] == "(and 970 lines more)"


def test_other_values_are_shown_as_json() -> None:
    """Lists, records, numbers and bools as a program would write them."""
    arguments = {"ids": ["a", "b"], "limit": 5, "dry": False, "where": {"city": "Z\u00fcrich"}}

    lines = request(prompt="", arguments=arguments, resources=()).message.split("\n")[1:]

    assert lines == [
        'argument ids: ["a", "b"]',
        "argument limit: 5",
        "argument dry: false",
        'argument where: {"city": "Z\u00fcrich"}',
    ]


def test_question_as_json_has_all_of_it() -> None:
    """What is posted elsewhere is every field, and the message."""
    posted = json.loads(json.dumps(request().as_json()))

    assert posted.keys() == {field.name for field in dataclasses.fields(ApprovalRequest)} | {"message"}
    assert posted["resources"] == [{"type": "Record", "id": "r7"}]
    assert posted["message"] == request().message


def test_values_of_cedar_are_written_as_a_person_would() -> None:
    """A decimal is its digits, not a call of a function."""
    value = {
        "amount": {"__extn": {"fn": "decimal", "arg": "100.0000"}},
        "items": [{"price": {"__extn": {"fn": "decimal", "arg": "1.5000"}}}, 3],
        "note": "x",
    }

    assert plain(value) == {"amount": "100.0000", "items": [{"price": "1.5000"}, 3], "note": "x"}


def test_approval_is_in_the_context_with_who_gave_it() -> None:
    """As the schema has it; without a name there is none."""
    approved = Approved(id="Q", key="Q", binding="b", channel="url", at=60.5, expires_at=300, approver="carol")

    assert approved.as_context() == {
        "channel": "url",
        "at": {"__extn": {"fn": "datetime", "arg": "1970-01-01T00:01:00.500Z"}},
        "approver": {"__entity": {"type": "User", "id": "carol"}},
    }
    assert "approver" not in dataclasses.replace(approved, approver=None).as_context()


def asked(**changes: Any) -> AccessRequest:
    """Return what was judged, with something else in it."""
    whole: dict[str, Any] = {
        "invocation": ALICE,
        "action": "delete_record",
        "resource": EntityUid("Record", "r7"),
        "context": {"input": {"ids": ["a", "b"]}, "now": 1},
        "entities": ({"uid": {"type": "Record", "id": "r7"}, "attrs": {"tags": ["x", "y"]}, "parents": []},),
    }
    return AccessRequest(**(whole | changes))


def bound(*requests: AccessRequest, **changes: Any) -> str:
    """Return the binding of some requests."""
    given: dict[str, Any] = {"server": "records", "forbids": ("ask",), "policy_version": "sha256:1"}
    return binding_of(requests or (asked(),), **(given | changes))


def entities(**attributes: Any) -> tuple[dict[str, Any], ...]:
    """Return the loaded record, with other attributes."""
    return ({"uid": {"type": "Record", "id": "r7"}, "attrs": attributes, "parents": []},)


@pytest.mark.parametrize(
    "other",
    [
        bound(asked(invocation=unsafe_invocation("support", run_id="r2"))),
        bound(asked(invocation=unsafe_invocation("support", run_id="r1", issuer="https://other.example"))),
        bound(asked(invocation=unsafe_invocation("support", run_id="r1", ancestors=(ALICE,)))),
        bound(asked(invocation=unsafe_invocation("billing", run_id="r1"))),
        bound(asked(invocation=unsafe_invocation("support", run_id="r1", user="alice"))),
        bound(asked(invocation=unsafe_invocation("support", run_id="r1", task="t1"))),
        bound(asked(invocation=unsafe_invocation("support", run_id="r1", purpose="erasure"))),
        bound(asked(action="read_record")),
        bound(asked(resource=EntityUid("Record", "r8"))),
        bound(asked(resource=EntityUid("Letter", "r7"))),
        bound(asked(context={"input": {"ids": ["a"]}})),
        bound(asked(context={"input": {"ids": ["a", "b", "b"]}})),
        bound(asked(context={"input": {"ids": ["a", "b"]}, "facts": {"many": True}})),
        bound(asked(entities=entities(tags=["x"]))),
        bound(asked(entities=())),
        bound(asked(), asked()),
        bound(server="others"),
        bound(forbids=("ask", "ask-too")),
        bound(policy_version="sha256:2"),
    ],
)
def test_binding_changes_with_what_was_approved(other: str) -> None:
    """Run, agent, user, tool, arguments, facts, resources and their state, forbids and version."""
    assert other != bound()


@pytest.mark.parametrize(
    "same",
    [
        bound(asked(context={"input": {"ids": ["b", "a"]}, "now": 2, "approval": {}})),
        bound(asked(entities=entities(tags=["y", "x"]))),
        bound(asked(invocation=unsafe_invocation("support", run_id="r1", scopes=frozenset({"more"})))),
    ],
)
def test_binding_is_the_same_for_the_same_call_later(same: str) -> None:
    """Time goes on, tokens are renewed, and sets have no order."""
    assert same == bound()
