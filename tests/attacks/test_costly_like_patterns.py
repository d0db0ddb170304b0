"""A grant of `like` patterns that look at a long string for a long time.

The interpreter is held meanwhile: 9 KB of them on 256 KiB held it for 1.2 s. Cost is the
product of the two lengths, so both are bounded, the grant's to less than half of that and
the string's to a quarter.
"""

import pytest

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.values import shape_of, to_cedar
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.policy.records import ALL, policy_set, searches

LIMITS = Limits()


def grant(size: int) -> str:
    """Return a grant of about *size* bytes that tries each place of a string for each of its letters."""
    pattern = f"*{'a' * 40}b"
    terms = " || ".join([f'context.input.text like "{pattern * 3}"'] * (size // 170))
    return f'permit (principal, action == Action::"search", resource) when {{ {terms} }};'


def test_a_grant_that_is_too_long_denies() -> None:
    """It is never evaluated."""
    policies = policy_set(ALL)
    text = "a" * LIMITS.string_bytes

    long = decide(searches(unsafe_invocation("a", grant=grant(9_000)), text=text), policies)
    assert long.reason is Reason.GRANT
    assert long.errors[0].startswith("the grant is not valid: a grant holds at most 4096 bytes")
    short = decide(searches(unsafe_invocation("a", grant=grant(2_000)), text=f"{text[:-1]}c"), policies)
    assert short.reason is Reason.GRANT
    assert short.errors == ()


def test_a_string_that_is_too_long_is_no_argument() -> None:
    """It never reaches a policy."""
    shape = shape_of(str, where="search.text")

    with pytest.raises(Refusal) as caught:
        to_cedar("a" * (LIMITS.string_bytes + 1), shape, LIMITS)

    assert caught.value.reason is Reason.INVALID_ARGUMENT
    assert LIMITS.grants_bytes * LIMITS.string_bytes * 8 <= 9_000 * 256 * 1024
