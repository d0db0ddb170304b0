"""What loaders know, as Cedar entities."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from agentguard import ConfigurationError, Entity, EntityUid, Limits, Reason, Refusal
from agentguard.policy.deciding import entities
from agentguard.policy.deciding.entities import Loaders

R1 = EntityUid("Record", "r1")
READ = EntityUid("Tool", "read")


class Level(Enum):
    """Enums of strings are written as their value."""

    HIGH = "high"


def loaders(limits: Limits | None = None, **by_type: Any) -> Loaders:
    """Return loaders that answer what was given."""
    found = Loaders(limits or Limits())
    for entity_type, answer in by_type.items():

        async def load(_: str, answer: Any = answer) -> Any:
            return answer

        found.register(entity_type, answer if callable(answer) else load)
    return found


async def load(found: Loaders, *wanted: EntityUid, **options: Any) -> tuple[dict[str, Any], ...]:
    """Load as the resource of `read`."""
    return await found.load(wanted or (R1,), **{"known": frozenset(), "tool": READ, **options})


def impatient() -> Limits:
    """Return limits by which loaders are given up soon."""
    limits = Limits()
    object.__setattr__(limits, "loader_seconds", 0.05)
    return limits


async def test_attributes_are_mapped_strictly() -> None:
    """Each Python value becomes the Cedar value of exactly its own type."""
    entity = Entity(
        {
            "text": "x",
            "flag": True,
            "count": 3,
            "money": Decimal("1.5"),
            "at": datetime(2026, 1, 2, tzinfo=UTC),
            "level": Level.HIGH,
            "owner": EntityUid("User", "alice"),
            "tags": {"a"},
            "inner": {"list": [1, 2], "none": None},
            "none": None,
        },
        parents=[EntityUid("Folder", "f")],
    )

    (loaded,) = await load(loaders(Record=entity))

    assert loaded["uid"] == {"type": "Record", "id": "r1"}
    assert loaded["attrs"] == {
        "text": "x",
        "flag": True,
        "count": 3,
        "money": {"__extn": {"fn": "decimal", "arg": "1.5000"}},
        "at": {"__extn": {"fn": "datetime", "arg": "2026-01-02T00:00:00.000Z"}},
        "level": "high",
        "owner": {"__entity": {"type": "User", "id": "alice"}},
        "tags": ["a"],
        "inner": {"list": [1, 2]},
    }
    assert loaded["parents"] == [{"type": "Folder", "id": "f"}, {"type": "Tool", "id": "read"}]


@pytest.mark.parametrize(
    "value",
    [
        object(),
        float("nan"),
        1.00001,
        datetime(2026, 1, 2),  # noqa: DTZ001
        2**63,
        "\ud800",
        {"__extn": {"fn": "unknown", "arg": "x"}},
        {"__entity": {"type": "User", "id": "admin"}},
        {1: "x"},
        b"bytes",
        iter([1]),
    ],
)
async def test_attribute_without_an_exact_counterpart_denies(value: object) -> None:
    """Nothing is rounded, guessed or read as Cedar's own escape."""
    with pytest.raises(Refusal):
        await load(loaders(Record=Entity({"value": value})))


async def test_value_that_holds_itself_denies() -> None:
    """A value without end ends at the limit."""
    value: list[object] = []
    value.append(value)

    with pytest.raises(Refusal) as refused:
        await load(loaders(Record=Entity({"value": value})))

    assert refused.value.reason is Reason.MISSING_ENTITY


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {"attrs": {}},
        "x",
        SimpleNamespace(attributes={}, parents=[]),
        Entity({}, parents=["Folder::f"]),  # type: ignore[list-item]
    ],
)
async def test_answer_that_is_no_entity_denies(answer: object) -> None:
    """A loader that knows nothing, or answers in another shape, denies the call."""
    with pytest.raises(Refusal) as refused:
        await load(loaders(Record=answer))

    assert refused.value.reason is Reason.MISSING_ENTITY


async def test_loader_that_raises_denies_without_its_text() -> None:
    """What a loader raises may hold anything, so only its class is kept."""

    def fail(_: str) -> Entity:
        message = "password"
        raise RuntimeError(message)

    with pytest.raises(Refusal) as refused:
        await load(loaders(Record=fail))

    assert refused.value.reason is Reason.MISSING_ENTITY
    assert refused.value.detail == "the loader of `Record` raised RuntimeError"
    # Nor does a traceback show it.
    assert refused.value.__suppress_context__


async def test_loader_that_hangs_denies_in_time() -> None:
    """An asynchronous loader is given up after its seconds."""

    async def hang(_: str) -> Entity:
        await anyio.sleep_forever()
        raise AssertionError

    with anyio.fail_after(20), pytest.raises(Refusal) as refused:
        await load(loaders(impatient(), Record=hang))

    assert "did not answer in time" in refused.value.detail


async def test_plain_loaders_that_hang_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that are given up are counted: past the bound nobody waits for another one."""
    monkeypatch.setattr(entities, "_HANGING", 1)
    gate = threading.Event()
    started = threading.Event()

    def hang(_: str) -> Entity:
        started.set()
        gate.wait()
        return Entity()

    found = loaders(Record=hang)
    async with anyio.create_task_group() as tasks:
        first: list[object] = []

        async def wait() -> None:
            first.append(await load(found))

        tasks.start_soon(wait)
        await anyio.to_thread.run_sync(started.wait)
        with pytest.raises(Refusal) as refused:
            await load(found)
        gate.set()

    assert refused.value.detail == "too many loaders hang"
    assert len(first) == 1
    assert len(await load(found)) == 1


async def test_what_is_reached_is_loaded_too() -> None:
    """Attributes and parents are followed, each entity once, as far as loaders know them."""
    asked: list[str] = []

    async def user(user_id: str) -> Entity:
        asked.append(user_id)
        return Entity({"friends": [EntityUid("User", "alice"), EntityUid("User", "bob")]}, [EntityUid("Group", "g")])

    record = Entity({"owner": EntityUid("User", "alice"), "known": EntityUid("User", "carol")})

    loaded = await load(loaders(Record=record, User=user), known={EntityUid("User", "carol")})

    assert [entity["uid"]["id"] for entity in loaded] == ["r1", "alice", "bob"]
    assert asked == ["alice", "bob"]
    assert loaded[1]["parents"] == [{"type": "Group", "id": "g"}]


async def test_chain_of_entities_without_end_denies() -> None:
    """A graph that goes on is cut by a denial, not by leaving the rest out."""

    async def record(record_id: str) -> Entity:
        return Entity({"next": EntityUid("Record", record_id + "x")})

    with pytest.raises(Refusal) as refused:
        await load(loaders(Limits(entities_per_request=10), Record=record))

    assert refused.value.reason is Reason.MISSING_ENTITY


async def test_resource_without_a_loader_is_in_its_tool() -> None:
    """A resource of a bare type needs nobody who knows it."""
    assert await load(loaders()) == ({"uid": R1.as_json(), "attrs": {}, "parents": [READ.as_json()]},)
    assert await load(loaders(), tool=None) == ()


@pytest.mark.parametrize("entity_type", ["Invocation", "Tool", "Server", "Action"])
def test_loader_of_a_type_that_the_guard_makes_is_refused(entity_type: str) -> None:
    """Nobody else says what an invocation is."""
    with pytest.raises(ConfigurationError, match="is made by the guard"):
        loaders(None, **{entity_type: Entity()})


def test_second_loader_of_a_type_is_refused() -> None:
    """Two loaders of one type would be two truths."""
    found = loaders(Record=Entity())

    with pytest.raises(ConfigurationError, match="has two loaders: keep one"):
        found.register("Record", lambda _: Entity())


async def test_plain_loader_that_hangs_denies_in_time() -> None:
    """Its thread is left behind: nobody waits until it is through."""
    gate = threading.Event()
    waited: list[bool] = []

    def hang(_: str) -> Entity:
        waited.append(gate.wait(20))
        return Entity()

    with pytest.raises(Refusal) as refused:
        await load(loaders(impatient(), Record=hang))
    assert waited == []
    gate.set()

    assert "did not answer in time" in refused.value.detail


async def test_parent_that_a_loader_knows_is_loaded() -> None:
    """A folder may be suspended as well as what is in it."""
    folder = Entity({"sealed": True}, [EntityUid("Group", "g")])

    loaded = await load(loaders(Record=Entity({}, [EntityUid("Folder", "f")]), Folder=folder))

    assert [entity["uid"]["type"] for entity in loaded] == ["Record", "Folder"]


@pytest.mark.parametrize("parents", [iter([EntityUid("Folder", "secret")]), {EntityUid("Folder", "secret")}])
async def test_parents_that_can_be_read_once_deny(parents: Any) -> None:
    """An iterator would be empty by the time that it counts, and a forbid on the parent would not fire."""
    with pytest.raises(Refusal) as refused:
        await load(loaders(Record=Entity({}, parents=parents)))

    assert refused.value.detail == "the loader of `Record` did not return an Entity"


async def test_call_that_ends_before_its_loader_began_gives_its_place_back() -> None:
    """Else whoever gives up early, often enough, would lock everybody out."""
    asked: list[str] = []
    limiter = anyio.to_thread.current_default_thread_limiter()
    tokens = limiter.total_tokens
    busy = threading.Event()

    def loader(record_id: str) -> Entity:
        asked.append(record_id)
        return Entity()

    found = loaders(Record=loader)
    limiter.total_tokens = 1
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(lambda: anyio.to_thread.run_sync(busy.wait))
            await anyio.lowlevel.checkpoint()
            for _ in range(3):
                with anyio.move_on_after(0.02):
                    await load(found)
            busy.set()
    finally:
        limiter.total_tokens = tokens

    assert found._running == 0
    assert asked == []
    assert len(await load(found)) == 1


async def test_loader_whose_thread_comes_too_late_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread that begins after its call was given up does nothing, and frees nothing twice."""
    late: list[Any] = []

    async def give_up(function: Any, *, abandon_on_cancel: bool) -> object:
        late.append(function)
        raise TimeoutError

    monkeypatch.setattr(anyio.to_thread, "run_sync", give_up)
    found = loaders(Record=lambda _: Entity())
    with pytest.raises(Refusal):
        await load(found)

    assert late[0]() is None
    assert found._running == 0
