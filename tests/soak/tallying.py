"""What other processes count in a store, for the long tests of tallies."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from multiprocessing.connection import Connection

from agentguard.lifecycle.store import Store
from agentguard.lifecycle.tally import Change, Exchange, Run
from tests.soak.others import Place
from tests.world import ISSUER

RUNS: tuple[Run, Run] = ((ISSUER, "parent"), (ISSUER, "child"))
UNTIL = 4e9
AMOUNT = int(Decimal("12.50") * 10_000)
CALL = Change(calls=1, tool="records/pay", labels=frozenset({"untrusted"}), spent={"payments": AMOUNT})


def count(store: Store, change: Change = CALL) -> int:
    """Count a call of both runs together, and return in vain how often that was tried."""
    vain = 0
    while True:
        read = store.tallies(*RUNS)
        if store.exchange(
            *(
                Exchange(run=run, before=tally.version, after=tally.after(change, 1.0), until=UNTIL)
                for run, tally in zip(RUNS, read, strict=True)
            )
        ):
            return vain
        vain += 1


def count_when_told(says: Connection, orders: Connection, place: Place, times: int) -> None:
    """Count as often as that, beginning when told, and say how often it was in vain."""
    store = place.open()
    says.send("ready")
    orders.recv()
    says.send(sum(count(store) for _ in range(times)))
    store.close()


def count_for_ever(says: Connection, place: Place, name: str) -> None:
    """Count, and say each one that is done."""
    store = place.open()
    for number in numbers():
        count(store, Change(calls=1, tool=name, spent={name: AMOUNT}))
        says.send(number)


def numbers() -> Iterator[int]:
    """Yield 1, 2, 3 and so on."""
    number = 0
    while True:
        number += 1
        yield number
