from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.evidence.ledger import MemoryLedger
from agentguard.lifecycle.store import MemoryStore
from agentguard.state import State, UnsafeMemoryState

STORE = MemoryStore(clock=lambda: 0.0)


class Forgetful(MemoryStore):
    """A store without one of its methods."""

    ended = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"store": None}, "`store` wants a Store, got `NoneType` without `close`: pass one, or UnsafeMemoryState()"),
        ({"store": Forgetful(clock=lambda: 0.0)}, "`store` wants a Store, got `Forgetful` without `ended`"),
        ({"store": MemoryStore}, "`store` wants a Store, got the class `MemoryStore`: make one of it"),
        ({"ledger": {}}, "`ledger` wants a Ledger, got `dict` without `append`"),
        ({"ledger": MemoryLedger}, "`ledger` wants a Ledger, got the class `MemoryLedger`"),
        ({"key": b""}, "`key` wants at least 32 bytes, got 0 bytes: make it once with os.urandom(32), and keep it"),
        ({"key": b"k" * 31}, "`key` wants at least 32 bytes, got 31 bytes"),
        ({"key": "k" * 32}, "`key` wants at least 32 bytes, got `str`"),
        ({"key": bytearray(32)}, "`key` wants at least 32 bytes, got `bytearray`"),
    ],
)
def test_state_of_wrong_parts_is_refused_at_set_up(parts: dict[str, Any], message: str) -> None:
    """Else the first call would find out, or nobody: a short key gives arguments away."""
    usual: dict[str, Any] = {"store": STORE, "ledger": MemoryLedger(), "key": b"k" * 32}

    with pytest.raises(ConfigurationError) as caught:
        State(**{**usual, **parts})

    assert str(caught.value).startswith(message)


def test_state_in_memory_is_a_state_and_keeps_its_key_to_itself() -> None:
    """Each has a key of its own."""
    one, two = UnsafeMemoryState(), UnsafeMemoryState()

    assert one.key != two.key
    assert "key" not in repr(one)
