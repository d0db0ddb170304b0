"""From where a run is used, as text, and when two texts may be of one client."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentguard.lifecycle.origin import normal_address, origin_of, together
from agentguard.lifecycle.tally import Tally

HERE = "203.0.113.7"
NAMED = ("inbox", "1.2")

names = st.none() | st.tuples(st.text(), st.text())
origins = st.builds(
    lambda client, **parts: origin_of(**parts) + client,
    transport=st.sampled_from(["http", "stdio"]),
    address=st.sampled_from(["", HERE, "::1"]),
    named=names,
    client=st.sampled_from(["", " a", " https://a:8/x y"]),
)


def over_http(address: str = HERE, named: tuple[str, str] | None = NAMED, client: str = "agent") -> str:
    """Return the text for a use over HTTP, as it is kept."""
    return f"{origin_of('http', address=address, named=named)} {client}"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("203.0.113.7", "::ffff:203.0.113.7"),
        ("203.0.113.7", "::FFFF:CB00:7107"),
        ("127.0.0.1", "::1"),
        ("::ffff:127.0.0.1", "0:0:0:0:0:0:0:1"),
        ("2001:db8::1", "2001:0DB8:0:0::0001"),
        ("fe80::1%eth0", "fe80::1%eth1"),
        ("fe80::1%eth0", "fe80::1"),
    ],
)
def test_two_forms_of_one_address_are_one_place(one: str, other: str) -> None:
    """A client that comes by another family of sockets, or is written otherwise, is where it was."""
    assert normal_address(one) == normal_address(other)
    assert over_http(one) == over_http(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("127.0.0.1", "127.0.0.2"),
        ("203.0.113.7", "203.0.113.8"),
        ("203.0.113.7", "2001:db8::7"),
        ("::", "::1"),
        ("", "127.0.0.1"),
        ("proxy-a", "proxy-b"),
    ],
)
def test_two_addresses_are_two_places(one: str, other: str) -> None:
    """What is another host's, or no address at all, is elsewhere."""
    assert together(over_http(one), over_http(other)) is None


@pytest.mark.parametrize(
    "elsewhere",
    [
        f"{origin_of('stdio', address=HERE, named=NAMED)} agent",
        over_http(client="another"),
        over_http(named=("inbox", "1.3")),
        over_http(named=("calendar", "1.2")),
        over_http(named=("inbox1", ".2")),
        over_http(named=("", "")),
        over_http(named=("inbox" * 1_000, "1.2")),
        over_http(named=None, client="another"),
        over_http("198.51.100.1", named=None),
    ],
)
def test_another_client_or_transport_is_elsewhere(elsewhere: str) -> None:
    """Each part counts; saying nothing where one could is a name as well, and no part runs into the next."""
    assert together(over_http(), elsewhere) is None
    assert together(elsewhere, over_http()) is None


def test_client_that_had_no_way_to_say_its_name_may_be_any_at_that_place() -> None:
    """The name is learnt as soon as it is said, and from then on it counts."""
    unsaid = over_http(named=None)

    learnt = together(unsaid, over_http())

    assert learnt == over_http()
    assert together(learnt, unsaid) == learnt
    assert together(learnt, over_http(named=("calendar", "1.2"))) is None


def test_no_place_is_never_elsewhere() -> None:
    """A function that a test calls directly neither binds its run nor shares it."""
    assert together("", over_http()) == over_http()
    assert together(over_http(), "") == over_http()
    assert together("", "") == ""


def test_text_holds_no_address_and_no_name() -> None:
    """What the store keeps tells neither where somebody is nor what they use."""
    kept = origin_of("http", address="2001:db8::1", named=("inbox", "1.2"))

    assert re.fullmatch("http(:[0-9a-f]{16}){2}", kept)


@given(known=origins, origin=origins)
def test_two_uses_are_of_one_client_whichever_came_first(known: str, origin: str) -> None:
    """Nothing hangs on the order, and what is known of a client stays true of both uses."""
    both = together(known, origin)

    assert both == together(origin, known)
    if both is not None:
        assert together(both, known) == together(both, origin) == both
    assert together(known, known) == known


def test_first_use_binds_a_run_and_another_client_shares_it() -> None:
    """It is so for good, also for whom it was bound to."""
    bound = Tally().used_from("records", over_http())
    shared = bound.used_from("records", over_http("127.0.0.2"))

    assert not bound.shared
    assert bound.used_from("records", over_http()) is bound
    assert shared.shared
    assert shared.bound == {"records": over_http()}
    assert shared.used_from("records", over_http()) is shared
    assert shared.used_from("records", over_http("127.0.0.2")) is shared


def test_each_server_is_bound_for_itself() -> None:
    """Two servers see one client under two addresses."""
    used: Any = Tally().used_from("records", over_http()).used_from("mail", over_http("10.0.0.1"))

    assert not used.shared
    assert used.bound == {"records": over_http(), "mail": over_http("10.0.0.1")}


def test_name_that_is_learnt_later_is_bound_then() -> None:
    """Stateless HTTP in the older protocol has no name, so the first use that has one says it."""
    learnt = Tally().used_from("records", over_http(named=None)).used_from("records", over_http())

    assert not learnt.shared
    assert learnt.bound == {"records": over_http()}
    assert learnt.used_from("records", over_http(named=("calendar", "1"))).shared
