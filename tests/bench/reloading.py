"""Policies that go live without a restart: from the change to its effect, and what a shadow costs each call.

The floor of the first is what notices a change and does nothing: a bare watch of the same
folders, in a thread, with the same pauses. Both take turns, on changes of the same kind.
What lies between is reading, compiling and one record.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
from watchfiles._rust_notify import RustNotify

from agentguard.live import watching
from tests.bench.parts import QUICK, function_call, quick
from tests.bench.timing import medians, spread, table
from tests.publishing import lock, put, swap
from tests.world import POLICIES, TYPES, World, make_world

TRIES = 60
CALLS = 300
ROUNDS = 15
FILES = {"policies.cedar": POLICIES, "types/records.cedarschema": TYPES}


def files(number: int, *, more: int = 0) -> dict[str, str]:
    """Return another version, of so many more policies."""
    rest = "\n".join(
        f'@id("m{place}") forbid (principal in Agent::"a{place}", action == Action::"export", resource);'
        for place in range(more)
    )
    return {**FILES, "policies.cedar": f"// {number}\n{POLICIES}\n{rest}"}


class Noticed:
    """When something was noticed last."""

    def __init__(self) -> None:
        self.came = threading.Event()
        self.at = 0

    def __call__(self) -> None:
        """Notice it."""
        self.at = time.perf_counter_ns()
        self.came.set()

    def wait(self, since: int) -> float:
        """Return after how many milliseconds it was noticed."""
        while self.at < since:
            assert self.came.wait(20)
            self.came.clear()
        return (self.at - since) / 1e6


@contextmanager
def bare(folder: Path, noticed: Callable[[], None]) -> Iterator[None]:
    """Watch a folder, and do nothing more."""
    over = threading.Event()
    watched = RustNotify([str(folder)], False, False, 0, False, True)

    def watch() -> None:
        with watched:
            while not over.is_set():
                found = watched.watch(watching._TOGETHER_MS, watching._STEP_MS, 100, over)
                if not isinstance(found, str):
                    noticed()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def effects(folder: Path, change: Callable[[Path, int], None], *, more: int = 0) -> list[float]:
    """Return after how many milliseconds each change judges."""
    link = folder / "policies"
    swap(link, files(0, more=more), name="0")
    world = make_world(link, policies=files(0, more=more)["policies.cedar"], types=TYPES, watch=True)
    effect = Noticed()
    assert world.guard._enforcer is not None
    world.guard._enforcer.in_force.tell(effect)
    taken = []
    try:
        for number in range(1, TRIES + 1):
            # So that what is measured is not in step with whoever looks.
            await anyio.sleep(0.15 + 0.0007 * number)
            change(link, number)
            taken.append(await anyio.to_thread.run_sync(effect.wait, _changed_at[0]))
    finally:
        world.guard.stop_watching()
    return taken


_changed_at = [0]


def swapped(more: int = 0) -> Callable[[Path, int], None]:
    """Return what swaps a link; the clock runs from the swap, when all of it is there."""

    def change(link: Path, number: int) -> None:
        put(link.parent / "releases" / f"{number}", files(number, more=more))
        new = link.with_name(".new")
        new.symlink_to(f"releases/{number}")
        _changed_at[0] = time.perf_counter_ns()
        new.replace(link)

    return change


def locked(link: Path, number: int) -> None:
    """Write in place, and lock; the clock runs from the manifest on."""
    put(link, files(number))
    _changed_at[0] = time.perf_counter_ns()
    lock(link)


async def floor(folder: Path) -> list[float]:
    """Return after how many milliseconds a bare watch notices a link that is swapped."""
    link = folder / "policies"
    swap(link, files(0), name="0")
    noticed, taken = Noticed(), []
    with bare(folder, noticed):
        for number in range(1, TRIES + 1):
            await anyio.sleep(0.15 + 0.0007 * number)
            swapped()(link, number)
            taken.append(await anyio.to_thread.run_sync(noticed.wait, _changed_at[0]))
    return taken


async def shadow(folder: Path) -> None:
    """Print what a shadow costs a call that it decides alike."""

    def world(name: str, *, shaded: bool) -> World:
        shadow = put(folder / f"{name}.shadow", {**FILES, "policies.cedar": POLICIES + QUICK}) if shaded else None
        made = make_world(folder / name, extend=quick, policies=POLICIES + QUICK, shadow=shadow)
        made.exporter.shutdown()
        return made

    plain = function_call(world("plain", shaded=False), "quick", {"max_rows": 7, "fmt": "csv"})
    shaded = function_call(world("shaded", shaded=True), "quick", {"max_rows": 7, "fmt": "csv"})
    taken = await medians({"guarded": plain, "guarded, with a shadow": shaded}, rounds=ROUNDS, calls=CALLS)
    ratio = taken["guarded, with a shadow"] / taken["guarded"]
    table("a shadow that decides alike", taken, {"guarded, with a shadow": f"{ratio:.2f} x without"})


async def measure() -> None:
    """Print how soon a change judges, and what a shadow costs."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        least = await floor(folder / "floor")
        small = await effects(folder / "small", swapped())
        large = await effects(folder / "large", swapped(1_000), more=1_000)
        in_place = await effects(folder / "locked", locked)
        spread(
            f"policies that go live by themselves: from the change to its effect, {TRIES} tries each",
            {
                "a link that is swapped, 4 policies": (small, least),
                "a link that is swapped, 1,004 policies": (large, least),
                "a manifest that is written last": (in_place, least),
                "  floor: a bare watch notices the link": (least, None),
            },
        )
        await shadow(folder)
