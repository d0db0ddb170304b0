"""The trap: pyjwt's `require` is content with a claim that is there and empty."""

from __future__ import annotations

import pytest

from agentguard.model import Reason
from tests.tokens import FOREIGN, make_foreign_token, make_token, refusal_of


@pytest.mark.parametrize("name", ["sub", "jti", "client_id", "run"])
def test_empty_id_is_refused(name: str) -> None:
    """All tokens with an empty id would be one and the same identity."""
    assert refusal_of(make_token(**{name: ""})) is Reason.INVALID_TOKEN


@pytest.mark.parametrize("name", ["sub", "jti", "client_id"])
def test_empty_id_of_a_foreign_token_is_refused(name: str) -> None:
    """A foreign token's run is its token id, so an empty one names every run."""
    assert refusal_of(make_foreign_token(**{name: ""}), trusted=FOREIGN) is Reason.INVALID_TOKEN


def test_empty_actor_is_refused() -> None:
    """An actor without a name is not the client either."""
    assert refusal_of(make_token(act={"sub": ""})) is Reason.INVALID_TOKEN
