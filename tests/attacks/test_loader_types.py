"""A loader gives ``"true"`` for ``true``.

Cedar finds a string that equals no bool, and the forbid does not fire. The schema of the
entity types says what an attribute is, and what a loader gives is checked against it.
"""

from pathlib import Path
from zoneinfo import ZoneInfo

import pytest

from agentguard.limits import Limits
from agentguard.model import AccessRequest, Effect, EntityUid, Reason
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.deciding.engine import decide
from agentguard.policy.files.source import compile_policies, read_folder
from agentguard.policy.schemas.schema import GuardedTool
from agentguard.request import base_context
from agentguard.testing import unsafe_invocation

LIMITS = Limits()
READ = GuardedTool(name="read", server="s", input=record_of({"id": Field(str)}, where="read"), resource_type="Record")
POLICIES = """
@id("all") permit (principal, action, resource);
@id("sealed") forbid (principal, action, resource is Record) when { resource.sealed == true };
"""


def judged(folder: Path, attributes: dict[str, object]) -> Reason:
    """Return why reading a record with *attributes* comes out as it does."""
    (folder / "a.cedar").write_text(POLICIES, "utf-8")
    (folder / "types").mkdir()
    (folder / "types" / "a.cedarschema").write_text(
        "entity Record in [Tool] = { sealed: Bool, level?: Long };", "utf-8"
    )
    policies = compile_policies(
        read_folder(folder, LIMITS), [READ], loaders=frozenset({"Record"}), claims={}, limits=LIMITS
    )
    record = EntityUid("Record", "r1")
    loaded = {"uid": record.as_json(), "attrs": attributes, "parents": [{"type": "Tool", "id": "read"}]}
    decision = decide(
        AccessRequest(
            invocation=unsafe_invocation("agent"),
            action="read",
            resource=record,
            context={**base_context(0, ZoneInfo("UTC"), "production", "stdio"), "input": {"id": "r1"}},
            entities=(loaded,),
        ),
        policies,
    )
    assert (decision.effect is Effect.ALLOW) is (decision.reason is Reason.PERMIT)
    return decision.reason


@pytest.mark.parametrize(
    ("attributes", "allowed", "by_policy"),
    [
        ({"sealed": False}, True, False),
        ({"sealed": True}, False, True),
        ({"sealed": "true"}, False, False),
        ({"sealed": 1}, False, False),
        ({"sealed": False, "level": "1"}, False, False),
        ({"sealed": False, "more": 1}, False, False),
        ({"sealed": {"__extn": {"fn": "unknown", "arg": "x"}}}, False, False),
        ({}, False, False),
    ],
)
def test_an_attribute_of_another_type_than_declared_denies(
    tmp_path: Path, attributes: dict[str, object], allowed: bool, by_policy: bool
) -> None:
    """Nothing is decided with it; a missing or an undeclared attribute is no better."""
    reason = judged(tmp_path, attributes)

    assert (reason is Reason.PERMIT) is allowed
    assert (reason is Reason.POLICY) is by_policy
