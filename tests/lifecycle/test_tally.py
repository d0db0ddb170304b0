"""What a run has done, as a value: what changes it, and how it is kept as text."""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.errors import Refusal
from agentguard.lifecycle.tally import KEPT_AFTER, Change, Exchange, Tally
from agentguard.model import Reason

MOST = 2**63 - 1


def test_tally_of_a_new_run_says_that_nothing_was_done() -> None:
    """Version 0 stands for what no store keeps."""
    assert Tally() == Tally(
        version=0, started_at=None, calls=0, denied=0, tools={}, labels=frozenset(), spent={}, bound={}, shared=False
    )


def test_first_use_binds_a_run_and_a_second_from_there_changes_nothing() -> None:
    """At one server; each knows its own callers."""
    bound = Tally(version=3).used_from("records", "http:1:")

    assert bound == Tally(version=3, bound={"records": "http:1:"})
    assert bound.used_from("records", "http:1:") is bound
    assert bound.used_from("records", "") is bound
    assert bound.used_from("payments", "stdio::").bound == {"records": "http:1:", "payments": "stdio::"}
    assert not bound.used_from("payments", "stdio::").shared
    assert bound.used_from("records", "http:1:name") == Tally(version=3, bound={"records": "http:1:name"})
    assert Tally().used_from("records", "") == Tally()


def test_use_from_elsewhere_shares_a_run_for_good() -> None:
    """The first origin coming back does not take that away."""
    shared = Tally().used_from("records", "http:1:").used_from("records", "http:2:")

    assert shared.shared
    assert shared.bound == {"records": "http:1:"}
    assert shared.used_from("records", "http:1:").shared
    assert shared.used_from("records", "http:3:") is shared


def test_what_is_spent_is_added_to_its_total() -> None:
    """Other totals stay, and so does the version."""
    tally = Tally(version=3, spent={"payments": 5, "mails": 1})

    assert tally.spending({"payments": 7, "calls": 0}) == Tally(
        version=3, spent={"payments": 12, "mails": 1, "calls": 0}
    )
    assert tally.spending({}) is tally
    assert tally.spent == {"payments": 5, "mails": 1}


@pytest.mark.parametrize(("before", "more"), [(0, -1), (5, -1), (MOST, 1), (0, MOST + 1), (-1, MOST + 2)])
def test_amount_that_lowers_a_total_or_overflows_is_refused(before: int, more: int) -> None:
    """Else a budget could be won back, or made to begin anew."""
    with pytest.raises(Refusal) as refused:
        Tally(spent={"payments": before}).spending({"payments": more})

    assert refused.value.reason is Reason.INVALID_ARGUMENT
    assert Tally(spent={"payments": MOST - 1}).spending({"payments": 1}).spent == {"payments": MOST}


def test_change_counts_and_gets_the_next_version() -> None:
    """The first says when the run began, and no later one does."""
    first = Tally().after(
        Change(calls=1, tool="records/read", labels=frozenset({"untrusted"}), spent={"payments": 125_000}), 100.5
    )
    second = first.after(Change(denied=1), 200.0)
    third = second.after(Change(calls=1, tool="records/pay", labels=frozenset({"pii"}), spent={"payments": 1}), 300.0)

    assert first == Tally(
        version=1,
        started_at=100.5,
        calls=1,
        tools={"records/read": 1},
        labels=frozenset({"untrusted"}),
        spent={"payments": 125_000},
    )
    assert (second.version, second.calls, second.denied, second.tools) == (2, 1, 1, {"records/read": 1})
    assert third == Tally(
        version=3,
        started_at=100.5,
        calls=2,
        denied=1,
        tools={"records/read": 1, "records/pay": 1},
        labels=frozenset({"untrusted", "pii"}),
        spent={"payments": 125_001},
    )
    assert third.after(Change(calls=1, tool="records/pay"), 400.0).tools["records/pay"] == 2
    assert third.after(Change(labels=frozenset({"more"})), 400.0).calls == 2


def test_change_without_a_tool_counts_for_none() -> None:
    """What a tool adds while it runs is no call of it."""
    assert Tally().after(Change(calls=1), 1.0).tools == {}


def test_run_carries_sixty_four_labels_and_no_more() -> None:
    """A tool that labels without end is stopped, not the store filled."""
    full = Tally().after(Change(labels=frozenset(map(str, range(64)))), 1.0)

    assert len(full.after(Change(calls=1, labels=frozenset({"0"})), 2.0).labels) == 64
    with pytest.raises(Refusal) as refused:
        full.after(Change(labels=frozenset({"64"})), 2.0)
    assert refused.value.reason is Reason.INVALID_ARGUMENT


def test_change_that_spends_too_much_changes_nothing() -> None:
    """The refusal of the total is that of the change."""
    with pytest.raises(Refusal):
        Tally(spent={"payments": MOST}).after(Change(calls=1, spent={"payments": 1}), 1.0)


NAMES = st.text(st.characters(), max_size=20)
COUNTS = st.integers(0, MOST)
TALLIES = st.builds(
    Tally,
    version=st.integers(1, MOST),
    started_at=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    calls=COUNTS,
    denied=COUNTS,
    tools=st.dictionaries(NAMES, COUNTS),
    labels=st.frozensets(NAMES),
    spent=st.dictionaries(NAMES, COUNTS).map(MappingProxyType),
    bound=st.dictionaries(NAMES, NAMES),
    shared=st.booleans(),
)


@given(TALLIES)
def test_text_of_a_tally_gives_it_back(tally: Tally) -> None:
    """Whatever stands in its names; and the text is such that any store can keep it."""
    text = tally.as_text()

    assert text.isascii()
    assert Tally.of_text(tally.version, text) == tally


NO_COUNTS: tuple[Any, ...] = (-1, 1.0, "1", None, True, MOST + 1)
KEPT: list[Any] = [1.5, 2, 3, {"t": 2}, ["l"], {"s": 4}, {"server": "origin"}, False]


def changed(place: int, value: object) -> str:
    """Return what is kept of a tally, with another value at one place."""
    return json.dumps([*KEPT[:place], value, *KEPT[place + 1 :]])


def changes(place: int, *values: object) -> list[str]:
    """Return what is kept of a tally, with each of several values at one place."""
    return [changed(place, value) for value in values]


def test_text_that_a_store_keeps_is_read() -> None:
    """A moment may be whole, and a run need not have begun."""
    assert Tally.of_text(1, json.dumps(KEPT)).labels == {"l"}
    assert Tally.of_text(1, changed(0, 7)).started_at == 7
    assert Tally.of_text(1, changed(0, None)).started_at is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "7",
        "{}",
        "[]",
        "[" * 100_000,
        "9" * 5_000,
        json.dumps(KEPT[:-1]),
        json.dumps([*KEPT, 1]),
        *changes(0, "1", True, [], float("nan"), float("inf"), 10**400),
        *changes(1, *NO_COUNTS),
        *changes(2, *NO_COUNTS),
        *changes(3, [], None, 3, *({"t": value} for value in NO_COUNTS)),
        *changes(4, {}, "l", None, [1], [None], [["l"]], [["l"], 1]),
        *changes(5, [], None, 3, *({"t": value} for value in NO_COUNTS)),
        *changes(6, [], None, {"s": 1}, {"s": None}),
        *changes(7, 0, None, "false"),
    ],
)
def test_text_that_is_no_tally_is_not_read(text: str) -> None:
    """What somebody changed must neither count as nothing nor fail later, in the middle of a call."""
    with pytest.raises(ValueError, match="a tally cannot be read") as refused:
        Tally.of_text(1, text)

    assert str(refused.value) == "a tally cannot be read"
    assert refused.value.__suppress_context__ or refused.value.__context__ is None


@pytest.mark.parametrize("version", [0, -1, MOST + 1, 1.0, "1", None, True])
def test_version_that_no_store_gives_is_not_read(version: Any) -> None:
    """The version 0 says that nothing is kept."""
    with pytest.raises(ValueError, match="a tally cannot be read"):
        Tally.of_text(version, json.dumps(KEPT))


def test_exchange_is_kept_until_an_hour_after_the_end_of_its_run() -> None:
    """A clock that is set back a little finds it still."""
    assert Exchange(run=("i", "r"), before=0, after=Tally(version=1), until=300.0).kept_until == 300.0 + KEPT_AFTER


@pytest.mark.parametrize(
    ("before", "version", "until"),
    [(-1, 1, 300.0), (1, 1, 300.0), (2, 1, 300.0), (0, 0, 300.0), (0, 1, float("nan")), (0, 1, float("inf"))],
)
def test_exchange_for_nothing_newer_or_without_an_end_is_a_mistake(before: int, version: int, until: float) -> None:
    """With an equal version, whoever read the old one would not notice the new one."""
    with pytest.raises(ValueError, match="greater version"):
        Exchange(run=("i", "r"), before=before, after=Tally(version=version), until=until)
