"""Measure what a guarded call and the end of a run cost, side by side with what they cannot cost less than.

Prints medians and ratios; judges nothing. ``python -m tests.bench ending`` runs one section.
"""

from __future__ import annotations

import logging
import sys

import anyio

from tests.bench import ending, evidence, leaks, listing, parts, policies, reloading, transports


async def call() -> None:
    """Measure two tools, function to function."""
    await parts.measure("quick", {"max_rows": 7, "fmt": "csv"})
    await parts.measure("read", {"record_id": "r1"})


SECTIONS = {
    "parts": call,
    "policies": policies.measure,
    "listing": listing.measure,
    "transports": transports.measure,
    "ending": ending.measure,
    "evidence": evidence.measure,
    "reloading": reloading.measure,
    "leaks": leaks.measure,
}


async def main(*names: str) -> None:
    """Run the sections that are named, or all, in one process and one go."""
    logging.disable(logging.CRITICAL)
    for name in names or SECTIONS:
        await SECTIONS[name]()


if __name__ == "__main__":
    if unknown := set(sys.argv[1:]) - SECTIONS.keys():
        sys.exit(f"the sections are {', '.join(SECTIONS)}, got {', '.join(sorted(unknown))}")
    anyio.run(main, *sys.argv[1:])
