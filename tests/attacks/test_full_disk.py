"""A disk that fills up: no record, no call; and when there is room again, it goes on."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from agentguard.errors import Refusal
from agentguard.evidence.chainfile import chain_files, read_chain
from agentguard.lifecycle.store import MemoryStore
from agentguard.state import State
from tests.evidence.chains import decision, ledger_in, verified
from tests.world import connected, make_world


@contextmanager
def largest_file(size: int) -> Iterator[None]:
    """Let no file grow past a size, as if the disk ended there."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def log_of(path: Path) -> Path:
    """Return the file that grows while a chain is written."""
    return path.with_name(f"{path.name}-wal")


def test_a_full_disk_refuses_and_the_chain_goes_on_after_it(tmp_path: Path) -> None:
    """What was kept before and after it verifies as one chain, with nothing of what was refused lost."""
    ledger = ledger_in(tmp_path)
    path = ledger.path
    assert path is not None
    kept = [ledger.append(decision(n)) for n in range(10)]

    with largest_file(log_of(path).stat().st_size + 20_000):
        for n in range(10, 100):
            with suppress(Refusal):
                kept.append(ledger.append(decision(n)))
    with largest_file(1):
        for n in range(100, 105):
            with pytest.raises(Refusal):
                ledger.append(decision(n))
    after = ledger.append(decision(200))
    ledger.close()

    assert 10 < len(kept) < 100
    assert chain_files(tmp_path) == (path,)
    assert {entry.text for entry in (*kept, after)} <= {entry.text for entry in read_chain(path)}
    assert verified(tmp_path) == []


async def test_a_call_does_not_run_while_the_disk_is_full(tmp_path: Path) -> None:
    """Through a whole server: denied without a line of the tool, and allowed again after it."""
    ledger = ledger_in(tmp_path / "evidence")
    state = State(store=MemoryStore(clock=time.time), ledger=ledger, key=b"k" * 32)
    world = make_world(tmp_path / "world", state=state)
    async with connected(world, "memory", "2025-11-25") as client:
        assert not (await client.call_tool("read", {"record_id": "r1"})).is_error
        with largest_file(1):
            answers = [await client.call_tool("read", {"record_id": "r2"}) for _ in range(3)]
        assert all(answer.is_error for answer in answers)
        assert not (await client.call_tool("read", {"record_id": "r3"})).is_error

    assert world.ran == ["read r1", "read r3"]
    ledger.close()
    assert verified(tmp_path / "evidence") == []
