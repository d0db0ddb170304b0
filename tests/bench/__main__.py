"""Measure what a guarded call costs, side by side with what it cannot cost less than.

Prints medians and ratios; judges nothing.
"""

from __future__ import annotations

import logging

import anyio

from tests.bench import evidence, parts, policies, transports


async def main() -> None:
    """Run everything, in one process and one go."""
    logging.disable(logging.CRITICAL)
    await parts.measure("quick", {"max_rows": 7, "fmt": "csv"})
    await parts.measure("read", {"record_id": "r1"})
    await policies.measure()
    await evidence.measure()
    await transports.measure()


if __name__ == "__main__":
    anyio.run(main)
