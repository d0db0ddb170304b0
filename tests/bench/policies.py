"""What the number of policies costs: 10 to 10,000, scoped in the three ways that people scope them."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.parts import function_call
from tests.bench.timing import Way, medians, table
from tests.world import make_world

ROUNDS = 9
CALLS = 200
COUNTS = (10, 100, 1_000, 10_000)
HEADS = {
    "action": 'principal in Agent::"agent-{n}", action == Action::"export", resource',
    "agent": 'principal in Agent::"agent-{n}", action, resource',
    "group of actions": 'principal in Agent::"agent-{n}", action in Action::"tools/call", resource',
}
OWN = '@id("own") permit (principal in Agent::"reader", action == Action::"export", resource);'


async def measure() -> None:
    """Print what one call costs under each number of policies, for each way of scoping them."""
    for scope, head in HEADS.items():
        with tempfile.TemporaryDirectory() as folder:
            ways: dict[str, Way] = {}
            for count in COUNTS:
                place = Path(folder) / str(count)
                others = "\n".join(
                    f'@id("p{n}") permit ({head.format(n=n)}) when {{ context.environment == "e{n}" }};'
                    for n in range(count - 1)
                )
                world = make_world(place, policies=others + OWN)
                world.exporter.shutdown()
                ways[f"{count:,} policies"] = function_call(world, "export", {"max_rows": 7, "fmt": "csv"})
            taken = await medians(ways, rounds=ROUNDS, calls=CALLS)
        first = taken[f"{COUNTS[0]:,} policies"]
        notes = {name: f"{value / first:.2f} x 10 policies" for name, value in taken.items()}
        table(f"policies scoped by {scope}", taken, notes)
