"""What a store in memory does beyond what every store does."""

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.lifecycle.store import MemoryStore
from agentguard.model import Reason
from tests.lifecycle.stores import ISSUER, Clock, record


def test_a_full_store_refuses_rather_than_forgets() -> None:
    """A use that cannot be kept is no use; room comes with time."""
    clock = Clock()
    store = MemoryStore(clock=clock, spent_entries=1)
    assert store.spend("approval-1", 200)

    with pytest.raises(Refusal) as refused:
        store.spend("approval-2", 300)

    assert refused.value.reason is Reason.STORE_UNAVAILABLE
    clock.now = 200.0
    assert store.spend("approval-2", 300)


def test_a_store_without_room_is_refused() -> None:
    """A bound that admits nothing is a mistake."""
    with pytest.raises(ConfigurationError, match="`spent_entries` wants at least 1"):
        MemoryStore(clock=Clock(), spent_entries=0)


def test_nothing_is_left_of_what_was_forgotten() -> None:
    """Memory is bounded by what is still valid."""
    clock = Clock()
    store = MemoryStore(clock=clock)
    for number in range(100):
        store.record_run(record(str(number)))
        store.revoke(issuer=ISSUER, run_id=str(number), until=300)

    clock.now = 10_000.0
    store.revoke(issuer=ISSUER, run_id="last", until=20_000)

    assert len(store._revocations) == 1
    assert len(store._mirror._runs[ISSUER]) == 1
    assert store.runs() == ()
