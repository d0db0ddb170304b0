"""A run's token, exchanged for a child that may do more than the run.

Whoever is handed a part of a task would have all of it, or more, for longer, elsewhere.
"""

from typing import Any

import pytest

from tests.lifecycle.service import Service, make_client, refusal
from tests.tokens import AUDIENCE, NOW

PARENT = {"type": "agentguard_grant", "tools": ["read", "search"], "arguments": {"read": {"id": ["r1", "r2"]}}}


def grant(*tools: str, **arguments: Any) -> list[dict[str, Any]]:
    """Return the details that ask for a grant."""
    return [{"type": "agentguard_grant", "tools": list(tools), "arguments": arguments}]


@pytest.mark.parametrize(
    ("asked", "code", "difference"),
    [
        ({"ends_in": 301}, "invalid_request", "ends_in= up to `300`, when its parent ends, got `301`"),
        ({"scope": "write"}, "invalid_scope", "got also `write`"),
        ({"scope": "read write"}, "invalid_scope", "got also `write`"),
        ({"scope": "admin"}, "invalid_scope", "got also `admin`"),
        ({"audience": "https://other.example/mcp"}, "invalid_target", "a run stays with its server"),
        ({"audience": AUDIENCE, "resource": "https://other.example/mcp"}, "invalid_target", "a run stays"),
        ({"task": "t2"}, "invalid_request", "task is another one"),
        ({"purpose": "other"}, "invalid_request", "purpose is another one"),
        (
            {"authorization_details": grant("search", "delete")},
            "invalid_request",
            "tools among `read`, `search`, got also `delete`",
        ),
        ({"authorization_details": grant("read")}, "invalid_request", "`id` of `read` among `r1`, `r2`, got any"),
        (
            {"authorization_details": grant("read", read={"id": ["r1", "r9"]})},
            "invalid_request",
            "`id` of `read` among `r1`, `r2`, got also `r9`",
        ),
    ],
)
async def test_child_that_asks_for_more_is_told_what_is_too_much(
    asked: dict[str, Any], code: str, difference: str
) -> None:
    """And gets nothing; its parent lives on."""
    service = Service(
        clients=(make_client("planner", scopes=["read"]), make_client("reader", scopes=["read", "write"]))
    )
    parent = await service.token(authorization_details=[PARENT], scope="read", task="t1", purpose="close")
    usual = {"authorization_details": grant("read", read={"id": ["r1"]})}

    response = await service.exchange(client="reader", subject_token=parent, **{**usual, **asked})

    assert refusal(response) == (400, code)
    assert difference in response.json()["error_description"]
    assert len(service.records()) == 1
    fitting = await service.token(client="reader", subject_token=parent, scope="read", ends_in=300, **usual)
    assert service.read(fitting).run_ends_at == NOW + 300


async def test_child_of_a_child_is_bounded_by_both() -> None:
    """The middle may have less than the root."""
    service = Service()
    root = await service.token(ends_in=600, scope="read write")
    middle = await service.token(client="reader", subject_token=root, ends_in=100)

    for asked in ({"ends_in": 101}, {"scope": "read"}):
        assert refusal(await service.exchange(subject_token=middle, **asked))[0] == 400


async def test_grant_in_cedar_is_judged_by_the_server_at_every_link() -> None:
    """What text permits, only the engine can tell, so it is passed on with the grant above it."""
    service = Service()
    wide = [{"type": "agentguard_grant", "cedar": "permit (principal, action, resource);"}]
    parent = await service.token()

    child = service.read(await service.token(client="reader", subject_token=parent, authorization_details=wide))

    assert [link.grant for link in child.chain] == [
        service.read(parent).grant,
        "permit (principal, action, resource);",
    ]
