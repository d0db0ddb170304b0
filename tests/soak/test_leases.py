"""Leases under fire: many threads, runs that end at any moment, and processes that end with leases held."""

import json
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import anyio
import pytest

from agentguard.errors import Refusal
from agentguard.lifecycle.store import Kind
from agentguard.model import Reason
from tests.credentials.lending import Lending, lending, until

ROOT = Path(__file__).parents[2]
ISSUER = "https://issuer.example"
RUNS, THREADS, CALLS = 60, 8, 40


@pytest.fixture(scope="module", autouse=True)
def before() -> set[threading.Thread]:
    """Return the threads that were there before any of these tests."""
    return set(threading.enumerate())


def fired(lent: Lending, seed: int) -> list[str]:
    """Ask for leases of random runs in an event loop of this thread, and end some; return what was wrong."""
    chance = random.Random(seed)  # noqa: S311  it decides what a test does
    wrong: list[str] = []

    async def call() -> None:
        run = lent.run(f"run-{chance.randrange(RUNS)}")
        over = lent.store.ended(run)
        with anyio.move_on_after(chance.choice((0.0, 0.002, 5.0))):
            try:
                credential = await lent.leases.lease(lent.request(invocation=run))
            except Refusal as refusal:
                if refusal.reason is not Reason.REVOKED:
                    wrong.append(f"{refusal.reason} {refusal.detail}")
            else:
                if over:
                    wrong.append(f"{credential!r} came after the end of its run")

    async def calls() -> None:
        for _ in range(CALLS):
            async with anyio.create_task_group() as tasks:
                for _ in range(5):
                    tasks.start_soon(call)
                if not chance.randrange(8):
                    lent.store.revoke(issuer=ISSUER, run_id=f"run-{chance.randrange(RUNS)}")

    anyio.run(calls)
    return wrong


@pytest.mark.usefixtures("eager_threads")
@pytest.mark.parametrize("seed", range(5))
async def test_each_lease_is_given_back_once_whatever_ends_when(seed: int) -> None:
    """And nobody has one of a run that was ended before it asked."""
    async with lending(broker_seconds=60, closing=60, slow=0.001) as lent:
        wrong: list[str] = []

        def fire(number: int) -> None:
            wrong.extend(fired(lent, 1_000 * seed + number))

        async with anyio.create_task_group() as tasks:
            for number in range(THREADS):
                tasks.start_soon(anyio.to_thread.run_sync, fire, number)
        lent.leases.close()

        assert wrong == []
        given = lent.office.count("issue")
        assert 20 < given <= RUNS
        assert sorted(lent.office.released) == sorted(lent.office.secret(number) for number in range(1, given + 1))
        assert lent.events().count("issued") == lent.events().count("released") == given


async def test_five_hundred_leases_are_given_back_at_the_same_time() -> None:
    """One after the other, they would take 25 seconds."""
    async with lending(broker_seconds=60) as lent:
        async with anyio.create_task_group() as tasks:
            for number in range(500):
                tasks.start_soon(lent.leases.lease, lent.request(invocation=lent.run(f"run-{number}")))
        lent.office.slow = 0.05
        began = time.monotonic()
        lent.store.revoke_all(issuer=ISSUER, kind=Kind.USER, name="alice")
        with anyio.fail_after(15):
            while lent.leases:  # noqa: ASYNC110  another thread gives them back
                await anyio.sleep(0.01)
        assert time.monotonic() - began < 12
        assert len(set(lent.office.released)) == len(lent.office.released) == 500
        assert lent.office.most_at_once == 16


async def test_what_cannot_be_given_back_is_tried_until_it_ends_by_itself() -> None:
    """After growing waits; then somebody is told."""
    async with lending(life=60) as lent:
        await lent.leases.lease(lent.request())
        lent.office.answers["release"] = [ConnectionError("with a passw0rd in it")] * 1_000
        lent.store.revoke(issuer=ISSUER, run_id="run-1")
        await until(lambda: lent.office.count("release") >= 3)
        assert lent.events() == ["issued"]
        lent.clock.pass_(60)
        tried = lent.office.count("release")
        await until(lambda: lent.events() == ["issued", "release_failed"])
        assert lent.office.count("release") <= tried + 1


HOLDING = """
import json, os, signal, sys, time
import anyio
from agentguard.credentials.broker import CredentialRequest, IssuedCredential
from agentguard.credentials.leases import Leases
from agentguard.lifecycle.store import MemoryStore
from agentguard.limits import Limits
from agentguard.testing import unsafe_invocation

class Broker:
    names = ("crm",)
    async def issue(self, request):
        return IssuedCredential(secret="s3cr3t-abcdefghijklmnop", expires_at=time.time() + 300, lease_id="lease")
    async def renew(self, issued, request):
        return await self.issue(request)
    async def release(self, issued, name):
        found = await anyio.getaddrinfo("localhost", 80)
        if sys.argv[1] == "hangs":
            await anyio.sleep(60)
        print(json.dumps(["released", name, bool(found)]), flush=True)

def keep(kind, attributes):
    print(json.dumps([kind, attributes["agentguard.credential.event"]]), flush=True)

store = MemoryStore(clock=time.time)
leases = Leases(Broker(), store=store, keep=keep, clock=time.time, limits=Limits())
run = unsafe_invocation("clerk")
request = CredentialRequest(
    name="crm", invocation=run, token="", server="records", tool="read", until=float(run.run_ends_at)
)
anyio.run(leases.lease, request)
if sys.argv[1] == "term":
    os.kill(os.getpid(), signal.SIGTERM)
    signal.pause()
"""


@pytest.mark.parametrize(("how", "status"), [("end", 0), ("term", -signal.SIGTERM), ("hangs", 0)])
def test_a_process_that_ends_gives_its_leases_back(how: str, status: int) -> None:
    """Although no thread can be had any more to look for the host; and it waits for no broker for long."""
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-c", HOLDING, how], cwd=ROOT, capture_output=True, text=True, check=False, timeout=60
    )
    took = time.monotonic() - began

    assert done.returncode == status
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if how == "hangs":
        assert lines == [["credential", "issued"], ["credential", "release_failed"]]
        assert took < 20
    else:
        assert lines == [["credential", "issued"], ["released", "crm", True], ["credential", "released"]]
        assert done.stderr == ""


def test_no_thread_is_left_behind(before: set[threading.Thread]) -> None:
    """Neither by leases that were used, nor by ones that were not."""
    left = set(threading.enumerate()) - before

    assert [thread.name for thread in left if "credentials" in thread.name] == []
