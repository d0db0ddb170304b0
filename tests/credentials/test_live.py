"""Which secrets of a process are looked for, and until when."""

from __future__ import annotations

import gc
import secrets
import threading
from typing import Final

import pytest

from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live, Place
from tests.tokens import make_token

RUN: Final = ("https://issuer.example", "r1")


def made(name: str = "crm") -> tuple[Secret, str]:
    """Return a new secret, and its text."""
    text = secrets.token_urlsafe(32)
    return Secret(name, text), text


def test_secret_is_looked_for_as_long_as_somebody_holds_it() -> None:
    """Whoever has a lease drops it at its end, and need not say so."""
    live = Live()
    assert not live
    secret, text = made()
    live.add(secret, run=RUN)

    assert live
    found = live.find(f"x {text} y")
    assert found is not None
    assert found[0] is secret
    assert live.find_of(RUN, text) is secret
    assert live.find("nothing of it") is None
    # So much of it that it has to be compared.
    assert live.find(text[:30]) is None

    del secret, found
    gc.collect()
    assert live.find(text) is None
    assert live.find_of(RUN, text) is None
    other, _ = made()
    live.add(other)
    assert not live.has(RUN)


def test_secrets_of_a_run_are_its_own() -> None:
    """And of no run, where none is named."""
    live = Live()
    (first, one), (second, two), (third, three) = made(), made(), made()
    live.add(first, run=RUN)
    live.add(second, run=("https://other.example", "r1"))
    live.add(third)

    assert [live.find_of(RUN, text) for text in (one, two, three)] == [first, None, None]
    assert live.find_of("another", one) is None
    assert not live.has(None)


def test_secrets_of_a_run_are_looked_for_together() -> None:
    """Short and long ones, in a long text."""
    live, texts = Live(), [make_token(), *(secrets.token_urlsafe(length) for length in (12, 16, 24, 32, 100))]
    held = [Secret(str(number), text) for number, text in enumerate(texts)]
    for secret in held:
        live.add(secret, run=RUN)

    for secret, text in zip(held, texts, strict=True):
        for place in range(40):
            assert live.find_of(RUN, "." * (5_000 + place) + text + "." * 5_000) is secret
    assert live.find_of(RUN, "." * 10_000) is None


def test_secret_that_is_added_again_is_one() -> None:
    """A token comes with each call of its run."""
    live = Live(most=2)
    (first, text), (second, _), (third, _) = made(), made(), made()
    for secret in (first, first, second, first, second):
        live.add(secret, run=RUN)
    for _ in range(3):
        live.add(third)

    assert live.find(text) is None
    assert live.find_of(RUN, text) is first


def test_of_too_many_those_that_came_first_are_dropped() -> None:
    """But not from what their own run is searched for."""
    live = Live(most=2)
    kept = [made(str(number)) for number in range(3)]
    for secret, _ in kept:
        live.add(secret, run=RUN)

    assert [live.find(text) is not None for _, text in kept] == [False, True, True]
    assert [live.find_of(RUN, text) for _, text in kept] == [secret for secret, _ in kept]


def test_of_too_many_a_runs_own_are_still_looked_for_in_its_calls() -> None:
    """In what it logs."""
    live = Live(most=1)
    (first, text), (second, _) = made(), made()
    live.add(first, run=RUN)
    assert live.find("x", RUN) is None
    live.add(second, run="another")

    assert live.find(text) is None
    assert live.find(text, "nobody") is None
    found = live.find(text, RUN)
    assert found is not None
    assert found[0] is first


def test_secrets_that_went_are_forgotten_one_by_one() -> None:
    """Those of a run, of none, and those that were dropped before."""
    live = Live(most=2)
    (first, one), (second, two), (third, three) = made(), made(), made()
    live.add(first, run=RUN)
    live.add(second, run=RUN)
    live.add(third)
    del first
    gc.collect()
    assert live.find_of(RUN, one) is None
    (fourth, four), (fifth, _) = made(), made()
    live.add(fourth, run=RUN)
    assert live.find_of(RUN, two) is second
    assert live.find_of(RUN, four) is fourth
    del third
    gc.collect()
    live.add(fifth)

    assert live.find(three) is None


def test_secret_is_found_among_many_pieces_of_it() -> None:
    """Somebody lists the starts of all tokens, and the token."""
    live = Live()
    secret, text = made()
    live.add(secret, run=RUN)
    for many in (1, 10, 200):
        pieces = (text[:20] + "." * 20) * many

        assert live.find_of(RUN, pieces) is None
        assert live.find_of(RUN, f"{pieces} {text} {pieces}") is secret


def test_what_is_gone_takes_no_room() -> None:
    """Thousands of tokens come and go."""
    live = Live()
    last, text = made()
    for _ in range(200):
        last, text = made()
        live.add(last, run=RUN)

    for group in (live._all, live._runs[RUN]):
        assert len(group._blocks) < 60 * len(last.blocks)
        assert len(group.kept) < 20
    assert live.find_of(RUN, text) is last
    assert live.find(text) is not None


def test_secrets_come_and_go_while_others_look() -> None:
    """A log line may come from any thread."""
    live = Live()
    held, text = made()
    live.add(held, run=RUN)
    stop, wrong = threading.Event(), []

    def look() -> None:
        while not stop.is_set():
            if live.find(text) is None or live.find_of(RUN, text) is not held:
                wrong.append(text)

    threads = [threading.Thread(target=look) for _ in range(2)]
    for thread in threads:
        thread.start()
    for _ in range(60):
        live.add(made()[0], run="another")
    stop.set()
    for thread in threads:
        thread.join()

    assert wrong == []


def test_pieces_of_one_secret_make_no_work_with_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller knows its own token, and could hold up all others by its pieces."""
    live, compared = Live(), set()
    known = [Secret(str(number), secrets.token_urlsafe(48)) for number in range(20)]
    own = secrets.token_urlsafe(48)
    known.append(Secret("own", own))
    for secret in known:
        live.add(secret, run="r1")
    is_in = Secret.is_in

    def comparing(secret: Secret, flat: bytes) -> bool:
        compared.add(secret.name)
        return is_in(secret, flat)

    monkeypatch.setattr(Secret, "is_in", comparing)

    for find in (live.find, lambda text: live.find_of("r1", text)):
        assert find("".join(f"{own[8:16]}{number:08d}" for number in range(1_000))) is None
    assert compared == {"own"}


def test_places_are_those_that_are_recorded() -> None:
    """The list is closed."""
    assert [str(place) for place in Place] == ["result", "exception", "message", "log", "span", "record"]
