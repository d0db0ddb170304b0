"""An IPv4 address in IPv6 clothes reaches the same host and is in no IPv4 range.

For Cedar, ``::ffff:127.0.0.1`` written in hexadecimal is neither loopback nor in
127.0.0.0/8; for the operating system it is both.
"""

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

import pydantic
import pytest

from agentguard.model import Reason
from tests.policy.asking import cedar_says
from tests.policy.judging import outcome

LOOPBACK = "context.input.a.isLoopback()"


def test_cedar_does_not_see_through_the_clothes() -> None:
    """The trap itself, without a defence."""
    mapped = {"__extn": {"fn": "ip", "arg": "0000:0000:0000:0000:0000:ffff:7f00:0001"}}

    assert not cedar_says("context.v0.isLoopback()", mapped, types="ipaddr")  # type: ignore[arg-type]


@pytest.mark.parametrize("annotation", [IPv6Address, pydantic.IPvAnyAddress])
def test_an_ipv4_address_inside_ipv6_is_refused(tmp_path: Path, annotation: object) -> None:
    """The caller can write it as what it is."""
    value = IPv6Address("::ffff:127.0.0.1")

    assert outcome(tmp_path, value, annotation, forbid=LOOPBACK) is Reason.INVALID_ARGUMENT


@pytest.mark.parametrize("value", [IPv4Address("127.0.0.1"), IPv6Address("::1")])
def test_a_plain_address_is_judged(tmp_path: Path, value: object) -> None:
    """Of either version."""
    assert outcome(tmp_path, value, pydantic.IPvAnyAddress, forbid=LOOPBACK) is Reason.POLICY
