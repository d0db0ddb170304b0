"""A verification's result in lines, as `agentguard evidence verify` says it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.evidence.proof import ProvenChain
    from agentguard.evidence.verify import Report


def lines(report: Report) -> Iterator[str]:
    """Yield one line for each chain, each problem and each note, and one that says whether it holds."""
    for chain in report.chains:
        yield _chain(chain)
    for problem in report.problems:
        yield f"problem  {problem}"
    for note in report.notes:
        yield f"note     {note}"
    beside = f", compared with {report.against}" if report.against else ""
    if report.holds:
        yield f"the evidence holds{beside}"
    else:
        number = len(report.problems)
        yield f"the evidence does not hold{beside}: {number} {'problem' if number == 1 else 'problems'}"


def _chain(chain: ProvenChain) -> str:
    place = f"seq {chain.first_seq} to {chain.last_seq}" if chain.records else "no records"
    heads = f"{chain.heads:,} signed {'head' if chain.heads == 1 else 'heads'}"
    return f"chain    {chain.chain_id}  {place}, {heads}  {'whole' if chain.whole else 'NOT WHOLE'}"
