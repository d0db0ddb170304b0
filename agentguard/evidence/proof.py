"""Whether the evidence holds, as a page shows it: what was verified, and what was found."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenChain:
    """One chain, as it was verified.

    Attributes:
        chain_id: The chain.
        records: How many records of it there are.
        first_seq: The place of the first of them; 0 if there is none.
        last_seq: The place of the last.
        first_hash: The hash of the first, hex.
        last_hash: The hash of the last, hex.
        heads: How many signed heads it has.
        key: What the key that signed them is called; empty for none.
        whole: Whether nothing is wrong with it.
    """

    chain_id: str
    records: int
    first_seq: int = 0
    last_seq: int = 0
    first_hash: str = ""
    last_hash: str = ""
    heads: int = 0
    key: str = ""
    whole: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """What a verification found.

    Attributes:
        holds: Whether all of it holds.
        chains: The chains that were verified.
        problems: What is wrong, one line each.
        notes: What proves nothing and is worth a look, one line each.
        unproved: What was read beside the chains, and not verified.
        against: The export that the chains were compared with; empty for none.
    """

    holds: bool
    chains: tuple[ProvenChain, ...] = ()
    problems: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    unproved: tuple[str, ...] = ()
    against: str = ""
