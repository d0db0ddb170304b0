"""The trap: hostile input makes pyjwt and its keys raise what is no `PyJWTError`, past a caller that catches that."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import pytest

from agentguard.errors import Refusal
from agentguard.identity.jwk import KeySet, PublicKey
from agentguard.identity.token import verify
from agentguard.identity.verifier import InvocationVerifier
from agentguard.model import Reason
from tests.tokens import AUDIENCE, ISSUER, NOW, TRUSTED, Clock, make_claims, make_token, refusal_of, sign


class PickySet(Mapping[str, PublicKey]):
    """A key set that raises for a key id that it does not know, as pyjwt's does."""

    def __getitem__(self, key_id: str) -> PublicKey:
        raise LookupError(key_id)

    def get(self, key_id: str, default: object = None) -> PublicKey:
        """Raise, whatever default is given."""
        return self[key_id]

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class PickyKeys:
    """A source of keys that raises for a key id that it does not know."""

    async def get(self, key_id: str) -> KeySet:
        """Raise."""
        raise LookupError(key_id)


@pytest.mark.parametrize("name", ["sub", "jti", "run", "client_id", "purp", "extra"])
def test_lone_surrogate_in_a_claim_is_refused(name: str) -> None:
    """No text that is to be stored or sent on can hold one."""
    assert refusal_of(make_token(**{name: "a\ud800"})) is Reason.INVALID_TOKEN


def test_lone_surrogate_in_a_members_name_is_refused() -> None:
    """Names are text too."""
    assert refusal_of(make_token(extra={"a\udfff": 1})) is Reason.INVALID_TOKEN


@pytest.mark.parametrize("name", ["kid", "typ", "alg", "extra"])
def test_lone_surrogate_in_the_header_is_refused(name: str) -> None:
    """The header is read before anything is verified."""
    assert refusal_of(sign(make_claims(), header={name: "a\ud800"})) is Reason.INVALID_TOKEN


def test_key_set_that_raises_for_an_unknown_key_id_is_a_refusal() -> None:
    """A sender may name any key id."""
    with pytest.raises(Refusal) as caught:
        verify(make_token(), {ISSUER: TRUSTED}, {ISSUER: PickySet()}, AUDIENCE, NOW)

    assert caught.value.reason is Reason.INVALID_TOKEN


async def test_source_of_keys_that_raises_for_an_unknown_key_id_is_a_refusal() -> None:
    """The same, where keys are looked for."""
    verifier = InvocationVerifier(TRUSTED, audience=AUDIENCE, keys={ISSUER: PickyKeys()}, clock=Clock())

    with pytest.raises(Refusal) as caught:
        await verifier.verify(make_token())

    assert caught.value.reason is Reason.INVALID_TOKEN
