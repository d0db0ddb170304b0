import threading
import time
from pathlib import Path
from typing import Any

import pytest

from agentguard.errors import ConfigurationError
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.ledger import MemoryLedger
from agentguard.host.unkept import UNKEPT
from agentguard.lifecycle.store import MemoryStore
from agentguard.state import State, UnsafeMemoryState, open_state

STORE = MemoryStore(clock=lambda: 0.0)


class Forgetful(MemoryStore):
    """A store without one of its methods."""

    ended = None  # type: ignore[assignment]


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"store": None}, "`store` wants a Store, got `NoneType` without `close`: pass one, or open_state(FOLDER)"),
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


def folders(path: Path) -> set[str]:
    """Return what a state folder holds."""
    return {str(file.relative_to(path)) for file in path.rglob("*") if file.suffix in {".db", ".key"}}


def test_a_folder_keeps_the_state(tmp_path: Path) -> None:
    """The store, the evidence and the digests' key, through a restart."""
    first = open_state(tmp_path / "state")
    first.ledger.append({"n": 1})
    first.store.revoke(issuer="i", run_id="r")
    first.close()

    second = open_state(str(tmp_path / "state"))

    assert second.key == first.key
    assert second.store.revocation(issuer="i", name="r") is not None
    assert isinstance(second.ledger, SQLiteLedger)
    assert len(list(second.ledger)) == 5
    assert (tmp_path / "state").stat().st_mode & 0o777 == 0o700
    chain = second.ledger.path
    assert chain is not None
    assert (tmp_path / "state" / ".gitignore").read_text() == "*\n"
    assert folders(tmp_path / "state") == {
        "store.db", "digest.key", "evidence/head.key", f"evidence/{chain.name}"
    }  # fmt: skip
    second.close()


def test_a_folder_can_be_asked_to_survive_a_loss_of_power(tmp_path: Path) -> None:
    """Evidence as the store's ends do."""
    state = open_state(tmp_path, durability="host")

    assert isinstance(state.ledger, SQLiteLedger)
    assert state.ledger.durability == "host"
    state.close()


def test_a_folder_that_cannot_be_used_is_refused_and_nothing_left_open(tmp_path: Path) -> None:
    """The whole path is in the message: hosts choose the working folder."""
    (tmp_path / "evidence").write_text("")

    with pytest.raises(ConfigurationError, match=f"`{tmp_path}/evidence` cannot be written to: File exists: name"):
        open_state(tmp_path)

    assert not [thread for thread in threading.enumerate() if str(tmp_path) in thread.name]


def test_state_in_memory_is_closed_too() -> None:
    """A ledger without an end has nothing to do."""
    state = UnsafeMemoryState()

    state.close()

    assert isinstance(state.ledger, MemoryLedger)


def test_a_store_that_was_given_stays_open_where_the_folder_cannot_be_used(tmp_path: Path) -> None:
    """It is somebody else's to close."""
    (tmp_path / "evidence").write_text("")
    closed: list[bool] = []

    class Given(MemoryStore):
        def close(self) -> None:
            closed.append(True)

    with pytest.raises(ConfigurationError, match="cannot be written to"):
        open_state(tmp_path, store=Given(clock=lambda: 0.0))

    assert closed == []


def test_state_of_a_server_that_is_only_looked_at_is_in_memory(tmp_path: Path) -> None:
    """Its folder is not made, and a store that it has stays its own."""
    store = MemoryStore(clock=time.time)
    unkept = UNKEPT.set(True)
    try:
        states = [open_state(tmp_path / "state"), open_state(tmp_path / "state", store=store)]
    finally:
        UNKEPT.reset(unkept)

    assert all(isinstance(state.store, MemoryStore) and isinstance(state.ledger, MemoryLedger) for state in states)
    assert states[1].store is store
    assert not (tmp_path / "state").exists()
