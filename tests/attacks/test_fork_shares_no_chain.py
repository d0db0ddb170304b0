"""A fork takes the ledger along: parent and child must never write one chain."""

import os
import threading
from pathlib import Path

from agentguard.evidence.chainfile import chain_files, read_chain
from tests.evidence.chains import decision, ledger_in, verified


def in_child(work: object) -> None:
    """Do something in a fork's child, and see that it went well."""
    assert callable(work)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_child_has_a_chain_of_its_own(tmp_path: Path) -> None:
    """Both go on, each in its own file."""
    ledger = ledger_in(tmp_path)
    path = ledger.path
    ledger.append(decision(1))

    def child() -> None:
        ledger.append(decision(2))
        assert ledger.path != path
        ledger.close()

    in_child(child)
    ledger.append(decision(3))
    ledger.close()

    assert len(chain_files(tmp_path)) == 2
    assert verified(tmp_path) == []


def test_a_child_that_keeps_nothing_makes_no_chain(tmp_path: Path) -> None:
    """It closes nothing of the parent's either."""
    ledger = ledger_in(tmp_path)
    ledger.append(decision(1))

    in_child(ledger.close)
    ledger.append(decision(2))
    ledger.close()

    assert len(chain_files(tmp_path)) == 1
    assert verified(tmp_path) == []


def test_a_child_of_a_fork_in_the_middle_of_an_append_is_not_stuck(tmp_path: Path) -> None:
    """A lock that another thread held would never be let go of in the child."""
    ledger = ledger_in(tmp_path)
    held, forked = threading.Event(), threading.Event()

    def hold() -> None:
        with ledger._lock:
            held.set()
            forked.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    def child() -> None:
        ledger.append(decision(2))
        ledger.close()

    in_child(child)
    forked.set()
    thread.join()
    ledger.close()

    assert len(chain_files(tmp_path)) == 2
    assert verified(tmp_path) == []


def test_a_closed_ledger_stays_closed_in_a_child(tmp_path: Path) -> None:
    """There is nothing to let go of."""
    ledger = ledger_in(tmp_path)
    ledger.close()

    in_child(ledger.close)

    assert [entry.record["kind"] for entry in read_chain(chain_files(tmp_path)[0])] == ["head", "stop", "head"]
