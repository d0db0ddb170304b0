"""The trap: of two members with one name pyjwt takes the last, others the first."""

from __future__ import annotations

import json

import pytest

from agentguard.model import Reason
from tests.tokens import ABSENT, KEY_ID, make_claims, refusal_of, sign, verified

OTHERS = json.dumps(make_claims(sub=ABSENT))[1:-1]


def test_members_that_occur_once_are_accepted() -> None:
    """The tokens below are refused for their repeated members alone."""
    assert verified(sign(f'{{{OTHERS}, "sub": "alice"}}'.encode())).user == "alice"


@pytest.mark.parametrize(
    "members",
    [
        '"sub": "alice", "sub": "alice"',
        '"sub": "mallory", "sub": "alice"',
        '"\\u0073ub": "mallory", "sub": "alice"',
        '"sub": "alice", "extra": {"a": 1, "a": 1}',
        '"sub": "alice", "extra": [[{"deep": {"a": 1, "a": 2}}]]',
        '"sub": "alice", "act": {"sub": "helper", "sub": "planner"}',
    ],
)
def test_repeated_member_of_the_claims_is_refused(members: str) -> None:
    """What the issuer's other readers saw must be what we see, at any depth."""
    assert refusal_of(sign(f"{{{OTHERS}, {members}}}".encode())) is Reason.INVALID_TOKEN


@pytest.mark.parametrize("repeated", ['"kid": "other"', '"alg": "none"', '"typ": "JWT"'])
def test_repeated_member_of_the_header_is_refused(repeated: str) -> None:
    """The header chooses key and algorithm."""
    header = f'{{{repeated}, "alg": "ES256", "kid": "{KEY_ID}", "typ": "at+jwt"}}'

    assert refusal_of(sign(make_claims(), header=header.encode())) is Reason.INVALID_TOKEN
