"""A policy folder that changes while calls are made: whole, half-written and broken, a third each."""

from __future__ import annotations

import os
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
from mcp import Client

from agentguard import MemoryLedger, MemoryStore, State
from agentguard.identity.sources import stdio_audience
from tests.publishing import lock, put, swap
from tests.world import SERVER, connected, make_world

PERMIT = '@id("v{n}") permit (principal, action == Action::"export", resource);'
FORBID = (
    '@id("rule-{n}") forbid (principal, action == Action::"export", resource) when {{ context.input.fmt == "json" }};'
)
READ = '@id("read") permit (principal, action == Action::"read", resource);'
TYPES = "entity Record in [Tool] = { sensitivity: String };"


def version(number: int) -> dict[str, str]:
    """Return the files of one version; a mixture of two is valid, and permits what neither says."""
    return {
        "policies.cedar": f"{PERMIT.format(n=number)}\n{READ}",
        "rules.cedar": FORBID.format(n=number),
        "types/records.cedarschema": TYPES,
    }


@dataclass
class Publisher:
    """Changes one folder, which is a link.

    Attributes:
        link: The link.
        dice: Chooses how.
        whole: The numbers of the versions that were whole and valid at some moment.
        ways: How often it was done how.
    """

    link: Path
    dice: random.Random
    whole: set[int] = field(default_factory=set)
    ways: Counter[str] = field(default_factory=Counter)
    _number: int = 0
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Publish the first version."""
        swap(self.link, version(0), name="0")
        self.whole.add(0)

    def change(self) -> None:
        """Make the next change: every third whole, half-written or broken."""
        with self._turn:
            self._number = number = self._number + 1
            kind = ("whole", "half", "broken")[number % 3]
            way = self.dice.choice(("in place", "unlocked") if kind == "half" else ("swap", "lock"))
            self.ways[f"{kind}, {way}"] += 1
            files = version(number)
            if kind == "whole":
                self.whole.add(number)
            if kind == "broken":
                files["rules.cedar"] = self.dice.choice(["forbid", files["rules.cedar"].replace("fmt", "format")])
            if kind == "half":
                # The permit of one version beside the rule of another; and perhaps a manifest of something else.
                if way == "unlocked":
                    (self.link / "agentguard.lock").unlink(missing_ok=True)
                name = self.dice.choice(["policies.cedar", "rules.cedar"])
                put(self.link, {name: files[name]})
            elif way == "swap":
                swap(self.link, files, name=str(number))
            else:
                put(self.link, files)
                lock(self.link)


@dataclass
class Told:
    """What calls came to.

    Attributes:
        failed: The calls that came to something else than they would have without a change.
        publisher: What changed.
        decisions: The evidence.
    """

    failed: list[object]
    publisher: Publisher
    decisions: list[dict[str, object]]

    @property
    def deciding(self) -> list[int]:
        """The numbers of the versions that decided, in the order of the decisions."""
        found = []
        for one in self.decisions:
            ids = one["agentguard.policy.ids"]
            assert isinstance(ids, list)
            (number,) = {int(id_.removeprefix("v").removeprefix("rule-")) for id_ in ids if id_ != "grant:0"}
            found.append(number)
        return found


async def under_load(folder: Path, *, calls: int, changes: int, seed: int = 1) -> Told:
    """Make calls through a guard that watches, while its folder changes."""
    publisher = Publisher(folder / "policies", random.Random(seed))  # noqa: S311  a moment, not a secret
    publisher.begin()
    # It writes the very same once more.
    policies = version(0)["policies.cedar"]
    state = State(store=MemoryStore(clock=time.time), ledger=MemoryLedger(keep=10 * calls), key=bytes(32))
    world = make_world(publisher.link, policies=policies, types=TYPES, watch=True, state=state, attach=False)
    # A slow machine takes longer than a run lasts as a rule.
    token = world.token(audience=stdio_audience(SERVER), ends_in=900, token_lifetime=900)
    os.environ["AGENTGUARD_TOKEN"] = token
    world.guard.attach(world.server)
    failed: list[object] = []
    try:
        async with connected(world, "memory", "2026-07-28") as client, anyio.create_task_group() as tasks:
            for number in range(calls):
                if number % (calls // changes) == 0:
                    tasks.start_soon(anyio.to_thread.run_sync, publisher.change)
                await one_call(client, number, failed)
    finally:
        world.guard.stop_watching()
    return Told(failed, publisher, world.records())


async def one_call(client: Client, number: int, failed: list[object]) -> None:
    """Make a call that every version permits, or one that every version forbids."""
    forbidden = number % 5 == 0
    result = await client.call_tool("export", {"max_rows": number, "fmt": "json" if forbidden else "csv"})
    if result.is_error is not forbidden:
        failed.append(result)
