"""A list of tools in which one name is that of a group of actions.

Whoever fills the list, a planner perhaps, would get every tool of the server for it: with a
second name in the list, Cedar's `in` reads the group as all that is in it.
"""

import pytest

from agentguard.errors import ConfigurationError
from agentguard.policy.grants import GROUPS, grant_text, listed_in
from tests.lifecycle.service import Service, refusal


@pytest.mark.parametrize("group", sorted(GROUPS))
def test_list_of_tools_does_not_hold_a_group(group: str) -> None:
    """No tool has such a name: a server refuses it at start-up."""
    for tools in ([group], [group, "read"], ["read", "search", group]):
        with pytest.raises(ConfigurationError, match=f"got the group `{group}`"):
            grant_text(tools=tools)


def test_grant_that_lists_a_group_lists_no_tools() -> None:
    """A token of an earlier issuer may carry one: its server judges it."""
    assert listed_in('permit(principal, action in [Action::"tools/call", Action::"read"], resource);') is None


async def test_client_is_told_that_it_asked_for_a_group() -> None:
    """And gets nothing."""
    service = Service()
    details = [{"type": "agentguard_grant", "tools": ["read", "tools/call"]}]

    response = await service.exchange(authorization_details=details)

    assert refusal(response) == (400, "invalid_authorization_details")
    assert service.records() == ()
