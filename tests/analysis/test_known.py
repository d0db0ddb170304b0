"""What a request says at each path."""

from dataclasses import replace

from agentguard.analysis.known import ABSENT, UNKNOWN, Holder, Known
from agentguard.model import AccessRequest
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, reads, record, reference, searches

POLICIES = policy_set(ALL)


def known(request: AccessRequest, *unknown: str, depth: int = 0) -> Known:
    """Return what a request says, without what is unknown."""
    return Known(request, POLICIES, depth, frozenset(unknown))


def test_a_path_leads_through_context_principal_and_resource() -> None:
    """And a variable alone is the entity that it stands for."""
    run = unsafe_invocation("a", run_id="r", user="alice", purpose="billing", scopes=frozenset({"x"}))
    found = known(reads(run, record("r1", owner=reference("User", "bob"))))

    assert found.value(("context", "input", "id")) == "r1"
    assert found.value(("principal",)) == reference("Invocation", "r")
    assert found.value(("principal", "user")) == reference("User", "alice")
    assert found.value(("principal", "scopes")) == ["x"]
    assert found.value(("resource",)) == reference("Record", "r1")
    assert found.value(("resource", "sensitivity")) == "normal"
    assert found.value(("action",)) == reference("Action", "read")
    assert found.holder(("context", "input", "id")) == Holder(None, ("input", "id"))
    assert found.holder(("principal", "user")) == Holder(("Invocation", "r"), ("user",))
    assert found.holder(("resource", "owner")) == Holder(("Record", "r1"), ("owner",))


def test_what_is_not_there_is_absent_and_can_be_put_there() -> None:
    """But not into what is not there itself, nor into what is no record."""
    found = known(searches())

    assert found.value(("principal", "purpose")) is ABSENT
    assert found.holder(("principal", "purpose")) == Holder(found.principal, ("purpose",))
    assert found.value(("context", "approval", "approver")) is ABSENT
    assert found.holder(("context", "approval", "approver")) is None
    assert found.value(("context", "now", "x")) is ABSENT
    assert found.holder(("context", "input", "rows", "x")) is None
    assert found.value(("resource", "sensitivity")) is ABSENT
    assert found.text(("principal", "purpose")) == "absent"


def test_an_entity_that_is_known_without_the_request_has_its_attributes() -> None:
    """From the file beside the policies; one that nobody knows has none."""
    entities = '[{"uid": {"type": "Record", "id": "r7"}, "attrs": {"sensitivity": "secret"}, "parents": []}]'
    policies = policy_set(ALL, entities=entities, loaders=())
    request = reads(id_="r7")
    found = Known(replace(request, entities=()), policies, 0)

    assert found.value(("resource", "sensitivity")) == "secret"
    assert not found.is_given(("Record", "r7"))
    assert known(reads()).is_given(("Record", "r1"))


def test_an_entity_is_told_with_what_it_is_in() -> None:
    """A run by its agent alone: its own name says nothing."""
    found = known(reads(unsafe_invocation("a", user="alice", task="t"), record("r1")))

    assert found.text(("principal", "user")) == 'User::"alice"'
    assert found.text(("principal", "user"), within=True) == 'User::"alice" in Group::"staff"'
    assert found.text(("principal",), within=True) == 'in Agent::"a", Task::"t"'
    assert found.text(("principal", "agent"), within=True) == 'Agent::"a" in nothing'
    assert found.text(("principal", "grade"), within=True) == '"run"'


def test_what_is_not_on_record_is_unknown() -> None:
    """With what leads to it and what lies below it; that a context has an approval is another matter."""
    run = unsafe_invocation("a", user="carol")
    request = reads(run, record("r1", owner=reference("User", "bob")))
    found = known(request, "context.input.rows", "principal.scopes", "Record.*", "User.*", "context.approval.at")

    assert found.value(("context", "input", "rows")) is UNKNOWN
    assert found.value(("context", "input", "rows", "x")) is UNKNOWN
    assert found.value(("context", "input")) is UNKNOWN
    assert found.value(("context", "input", "id")) == "r1"
    assert found.value(("principal", "scopes")) is UNKNOWN
    assert found.value(("principal",)) == reference("Invocation", run.run_id)
    assert found.value(("resource", "sensitivity")) is UNKNOWN
    assert found.holder(("resource", "sensitivity")) is None
    assert found.value(("resource",)) == reference("Record", "r1")
    assert found.text(("principal", "user"), within=True) == 'User::"carol" in what is unknown'
    assert found.text(("context", "input", "rows")) == "unknown"


def test_a_listed_entity_is_known_though_its_type_has_a_loader() -> None:
    """No loader is asked for it."""
    found = known(reads(unsafe_invocation("a", user="alice")), "User.*")

    assert found.is_whole(("User", "alice"))
    assert not found.is_whole(("User", "carol"))


def test_who_delegated_is_unknown_where_only_that_somebody_did_is_on_record() -> None:
    """The run itself is known."""
    child = unsafe_invocation("child", purpose="x", ancestors=(unsafe_invocation("?"),))
    request = searches(child)

    assert known(request, "ancestors").value(("principal", "purpose")) is UNKNOWN
    assert known(request, "ancestors", depth=1).value(("principal", "purpose")) == "x"
    assert known(request, "ancestors").value(("context", "environment")) == "production"
