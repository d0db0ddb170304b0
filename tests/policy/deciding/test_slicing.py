import json

import cedarpy
import pytest

from agentguard.model import EntityUid
from agentguard.policy.deciding.slicing import PolicyIndex, Scope, scope_of

AGENT = EntityUid("Agent", "a")
OTHER = EntityUid("Agent", "b")


def scope(head: str) -> Scope:
    """Return the scope of a policy with this head."""
    parsed = json.loads(cedarpy.policies_to_json_str(f"permit ({head}, resource);"))
    return scope_of(parsed["staticPolicies"]["policy0"])


@pytest.mark.parametrize(
    ("head", "principal", "actions"),
    [
        ("principal, action", None, None),
        ('principal == Agent::"a", action == Action::"x"', AGENT, {"x"}),
        ('principal in Agent::"a", action in Action::"g"', AGENT, {"g"}),
        ("principal is Invocation, action", None, None),
        ('principal is Invocation in Agent::"a", action', AGENT, None),
        ('principal, action in [Action::"x", Action::"y"]', None, {"x", "y"}),
        ("principal, action in []", None, set()),
        ('principal, action == Other::Action::"x"', None, None),
        ('principal, action in [Action::"x", Other::Action::"y"]', None, None),
    ],
)
def test_a_head_is_read_as_what_it_demands(head: str, principal: EntityUid | None, actions: set[str] | None) -> None:
    """What is not recognised demands nothing, so the policy is always chosen."""
    assert scope(head) == Scope(principal, None if actions is None else frozenset(actions))


def test_policies_are_chosen_by_action_group_and_principal_in_order() -> None:
    """Those that name another action or another principal are left out."""
    index = PolicyIndex(
        {
            "other-agent": Scope(OTHER),
            "group": Scope(None, frozenset({"read-only", "destructive"})),
            "all": Scope(),
            "other-action": Scope(None, frozenset({"write"})),
            "agent-and-action": Scope(AGENT, frozenset({"read"})),
            "nothing": Scope(None, frozenset()),
        }
    )

    assert index.principals == {AGENT, OTHER}
    assert index.select("read", ["read-only"], frozenset({AGENT, EntityUid("Invocation", "r")})) == (
        "group",
        "all",
        "agent-and-action",
    )
    assert index.select("read", ["idempotent"], frozenset()) == ("all",)
