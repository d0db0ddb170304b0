"""An id that tries to leave its quotes.

A run's id, an agent's or a resource's comes from outside. Structured names cannot be
escaped out of; partial evaluation takes names as text alone, so there ids are escaped.
"""

import cedarpy
import pytest

from agentguard.model import EntityUid
from agentguard.policy.deciding.engine import decide, may_ever
from agentguard.testing import unsafe_invocation
from tests.policy.records import policy_set, reads, record, uid

ONLY_ADMIN = (
    '@id("admin") permit (principal in Agent::"admin", action, resource);',
    '@id("root") permit (principal == Invocation::"root", action, resource);',
)
IDS = [
    'root"',
    '"root',
    'x" == Invocation::"root',
    'root\\"',
    "root\\u{0}",
    "root\n",
    "root\x00",
    "root\x7f",
    "rööt 😀",
    "root\u202e",
    "${root}",
    "",
]


def test_cedar_alone_reads_text_as_another_name() -> None:
    """The trap: pasted between quotes, a backslash and an n become the end of a line."""
    policy = 'permit (principal == Invocation::"a\\n", action, resource);'
    request = {"action": 'Action::"a"', "resource": 'A::"a"'}

    pasted = cedarpy.is_authorized({**request, "principal": 'Invocation::"{}"'.format("a\\n")}, policy, "[]")
    structured = cedarpy.is_authorized({**request, "principal": uid("Invocation", "a\\n")}, policy, "[]")

    assert pasted.allowed
    assert not structured.allowed


@pytest.mark.parametrize("id_", IDS)
def test_an_id_is_only_ever_itself(id_: str) -> None:
    """Before the arguments are known and after, as a run, an agent and a resource."""
    policies = policy_set(*ONLY_ADMIN)
    run, agent = unsafe_invocation("a", run_id=id_), unsafe_invocation(id_.replace("root", "admin"))

    for invocation in (run, agent):
        assert not decide(reads(invocation, record(id_), id_=id_), policies).allowed
        assert not may_ever(invocation, "read", policies)


@pytest.mark.parametrize("id_", IDS)
def test_an_id_that_is_named_is_found(id_: str) -> None:
    """Escaped, it is the same name."""
    run, resource = EntityUid("Invocation", id_), EntityUid("Record", id_)
    policies = policy_set(f'@id("a") permit (principal == {run}, action, resource == {resource});')
    invocation = unsafe_invocation("a", run_id=id_)

    assert decide(reads(invocation, record(id_), id_=id_), policies).allowed
    assert may_ever(invocation, "read", policies)
