"""A run outlives its tokens: one that was signed by an earlier key still names it to whoever ends it.

The key of an expired token is published no more. A revocation by such a token was answered
as if it had been done, and the run went on under its later tokens.
"""

from __future__ import annotations

import pytest

from agentguard import Issuer, MemoryStore, Refusal
from tests.tokens import NOW, Clock

LONG = 3_600


def rotated(clock: Clock) -> tuple[Issuer, str]:
    """Return an issuer whose first key is published no more, and a token that it signed."""
    issuer = Issuer(issuer="https://issuer.example", audience="https://a", store=MemoryStore(clock=clock), clock=clock)
    old = issuer.begin(agent="planner", tools=["plan"], ends_in=LONG).token()
    issuer.rotate()
    clock.now += 1_000
    assert len(issuer.jwks()["keys"]) == 1  # type: ignore[arg-type]
    return issuer, old


def test_run_is_ended_by_a_token_of_an_earlier_key() -> None:
    """It is found by the key that signed it, as long as the run may last."""
    issuer, old = rotated(Clock(NOW))

    issuer.resume(old, expired=True).end("stolen")

    assert issuer.store is not None
    assert [run.state.live for run in issuer.store.runs()] == [False]


def test_earlier_key_is_good_for_nothing_else() -> None:
    """No token comes of it, and after the run's end it is forgotten."""
    clock = Clock(NOW)
    issuer, old = rotated(clock)

    with pytest.raises(Refusal):
        issuer.resume(old)
    clock.now = NOW + LONG + 31
    issuer.begin(agent="planner", tools=["plan"])
    with pytest.raises(Refusal):
        issuer.resume(old, expired=True)
