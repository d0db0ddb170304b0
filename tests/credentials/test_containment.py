"""What a call must not let out is found, and told of once."""

from __future__ import annotations

import contextvars
import secrets
import threading
from collections.abc import Iterator
from typing import Final

import anyio
import anyio.to_thread
import pytest

from agentguard.credentials.containment import TOKEN, UNREADABLE, Containment, runs_for_another, stops, token_secret
from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live, Place
from tests.tokens import make_token

RUN: Final = ("https://issuer.example", "r1")

Told = list[tuple[Place, str]]


@pytest.fixture
def live() -> Live:
    """A process of its own."""
    return Live()


def contained(live: Live, token: str | None, told: Told, outside: Told | None = None) -> Containment:
    """Return the containment of a call."""
    return Containment(
        run=RUN,
        token=token,
        told=lambda place, name: told.append((place, name)),
        outside=None if outside is None else lambda place, name: outside.append((place, name)),
        live=live,
    )


def test_result_and_exception_that_hold_a_secret_of_the_run_are_told_of(live: Live) -> None:
    """The token's, and every credential's that the run got, before the call or in it."""
    token, told = make_token(), Told()
    early, late, other = (secrets.token_urlsafe(32) for _ in range(3))
    before = Secret("crm", early)
    live.add(before, run=RUN)
    of_another = Secret("crm", other)
    live.add(of_another, run=("https://issuer.example", "r2"))
    with contained(live, token, told) as call:
        during = Secret("mail", late)
        live.add(during, run=RUN)

    assert call.look({"rows": [1, 2]}, Place.RESULT) is None
    assert call.look([other], Place.RESULT) is None
    assert told == []
    assert call.look({"token": token}, Place.RESULT) == TOKEN
    assert call.look(early, Place.RESULT) == "crm"
    assert call.look(ValueError(late), Place.EXCEPTION) == "mail"
    assert call.look(ValueError(late), Place.EXCEPTION) == "mail"
    assert told == [(Place.RESULT, TOKEN), (Place.RESULT, "crm"), (Place.EXCEPTION, "mail")]


def test_result_that_cannot_be_looked_through_is_told_of(live: Live) -> None:
    """Unless there is nothing to look for."""
    told = Told()

    class Raises:
        def __str__(self) -> str:
            raise RuntimeError

    call = contained(live, make_token(), told)
    assert call.look(iter([1]), Place.RESULT) == UNREADABLE
    assert call.look(Raises(), Place.RESULT) == UNREADABLE
    assert told == [(Place.RESULT, UNREADABLE)]
    assert contained(Live(), None, told).look(iter([1]), Place.RESULT) is None


def test_token_that_is_too_short_is_refused(live: Live) -> None:
    """Before anything of the tool runs: what cannot be looked for must not be at risk."""
    with pytest.raises(ValueError, match="invocation token"):
        contained(live, "short", Told())


def test_token_is_made_ready_once() -> None:
    """It comes with each call of its run."""
    token = make_token()

    assert token_secret(token) is token_secret(token)


async def test_secret_that_a_call_logs_is_told_to_that_call(live: Live) -> None:
    """In its own tasks and worker threads, once for each place."""
    token, told, other = make_token(), Told(), Told()
    with contained(live, make_token(), other), contained(live, token, told):
        assert stops(f"token {token}", Place.LOG, live)
        assert await anyio.to_thread.run_sync(stops, token, Place.LOG, live)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(anyio.to_thread.run_sync, stops, [token], Place.SPAN, live)
        assert not stops("nothing", Place.LOG, live)

    assert told == [(Place.LOG, TOKEN), (Place.SPAN, TOKEN)]
    assert other == []


def test_secret_that_shows_up_outside_of_calls_is_told_to_whoever_had_it_issued(live: Live) -> None:
    """In a thread that knows of no call, and in a task that outlived its own."""
    token, told, outside, leased = make_token(), Told(), Told(), Told()
    text = secrets.token_urlsafe(32)
    secret, silent = Secret("crm", text), Secret("mail", text[::-1])
    live.add(secret, run=RUN, told=lambda place, name: leased.append((place, name)))
    live.add(silent, run=RUN)
    with contained(live, token, told, outside):
        thread = threading.Thread(target=stops, args=(text, Place.LOG, live))
        thread.start()
        thread.join()
        context = contextvars.copy_context()
    for _ in range(2):
        assert context.run(stops, token, Place.LOG, live)
    assert stops(token, Place.SPAN, live)
    assert stops(text[::-1], Place.LOG, live)

    assert told == []
    assert leased == [(Place.LOG, "crm")]
    assert outside == [(Place.LOG, TOKEN), (Place.SPAN, TOKEN)]


def test_call_for_another_is_known(live: Live) -> None:
    """While its block runs, and if it is known for whom."""
    call = Containment(run=RUN, holder="alice", token=None, told=lambda *_: None, live=live)
    assert not runs_for_another("bob")
    with call:
        assert runs_for_another("bob")
        assert not runs_for_another("alice")
    with contained(live, None, Told()):
        assert not runs_for_another("bob")
    assert not runs_for_another("bob")


def test_who_is_told_may_fail_and_log(live: Live) -> None:
    """It is stopped all the same, and does not come round again."""
    token, told = make_token(), Told()

    def fails(place: Place, name: str) -> None:
        told.append((place, name))
        assert stops(token, Place.SPAN, live)
        raise RuntimeError

    with Containment(run=RUN, token=token, told=fails, live=live):
        assert stops(token, Place.LOG, live)
    assert told == [(Place.LOG, TOKEN)]


def test_value_that_raises_is_stopped_where_secrets_are_live(live: Live) -> None:
    """Whoever logs must go on."""

    class Raises:
        def __str__(self) -> str:
            raise RuntimeError

    assert not stops([Raises()], Place.LOG, live)
    token, told = make_token(), Told()
    with contained(live, token, told):
        assert stops([Raises()], Place.LOG, live)
        assert not stops(iter([token]), Place.LOG, live)
    assert told == []


def test_call_is_contained_while_its_block_runs(live: Live) -> None:
    """Also when it ends in an exception."""
    call = contained(live, None, Told())
    assert not call.open

    def body() -> Iterator[bool]:
        with call:
            yield call.open
            raise LookupError

    with pytest.raises(LookupError):
        assert list(body()) == [True]
    assert not call.open
