"""Ten megabytes of arguments hold the interpreter while a policy compares them."""

from contextlib import AbstractContextManager
from contextlib import nullcontext as does_not_raise
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Any

import pytest

from agentguard.errors import Refusal
from agentguard.limits import Limits
from agentguard.model import Reason
from agentguard.policy.conversion.values import check_no_escapes, check_readings
from tests.policy.judging import outcome

MEGABYTES = 10 * 1024 * 1024
UNIX_TIME = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass
class Row:
    """A record of one empty text."""

    a: str = ""


@dataclass
class Nothing:
    """A record of nothing."""


class Wordy(StrEnum):
    """A choice that is short to name and long to read."""

    ONE = "a" * 1_000


@pytest.mark.parametrize(
    ("value", "annotation"),
    [
        pytest.param("a" * MEGABYTES, str, id="one string"),
        pytest.param("é" * (40 * 1024), str, id="one string, counted in bytes"),
        pytest.param(["a" * 1_024] * 10_240, list[str], id="many strings"),
        pytest.param([""] * 11_000, list[str], id="empty strings"),
        pytest.param([1] * MEGABYTES, list[int], id="numbers"),
        pytest.param([True] * 20_000, list[bool], id="bools"),
        pytest.param([[]] * 11_000, list[list[int]], id="empty lists"),
        pytest.param([{}] * 11_000, list[dict[str, str]], id="empty mappings"),
        pytest.param([Row()] * 4_000, list[Row], id="records"),
        pytest.param([Nothing()] * 11_000, list[Nothing], id="empty records"),
        pytest.param([PurePosixPath()] * 11_000, list[PurePosixPath], id="paths"),
        pytest.param([Decimal(1)] * 3_000, list[Decimal], id="decimals"),
        pytest.param([UNIX_TIME] * 3_000, list[datetime], id="moments"),
        pytest.param([UNIX_TIME.date()] * 3_000, list[date], id="days"),
        pytest.param([timedelta(1)] * 3_000, list[timedelta], id="spans"),
        pytest.param([IPv4Address(1)] * 3_000, list[IPv4Address], id="addresses"),
        pytest.param([Wordy.ONE] * 400, list[Wordy], id="long members of a choice"),
        pytest.param({str(n): True for n in range(2_200)}, dict[str, bool], id="pairs"),
    ],
)
def test_arguments_past_the_limit_are_refused(tmp_path: Path, value: Any, annotation: object) -> None:
    """Whatever they are made of."""
    assert outcome(tmp_path, value, annotation, forbid="false") is Reason.INVALID_ARGUMENT


def test_arguments_within_the_limit_are_judged(tmp_path: Path) -> None:
    """The limit is for what nobody needs."""
    value = ["a" * 1_024] * 200

    assert outcome(tmp_path, value, list[str], forbid="false") is Reason.PERMIT


@pytest.mark.parametrize(
    ("ids", "links", "refusal"),
    [
        (1, 5, does_not_raise()),
        (32, 1, does_not_raise()),
        (6, 5, does_not_raise()),
        (33, 1, pytest.raises(Refusal)),
        (7, 5, pytest.raises(Refusal)),
    ],
)
def test_large_arguments_beside_many_ids_are_refused(
    ids: int, links: int, refusal: AbstractContextManager[object]
) -> None:
    """Cedar reads the arguments anew for each id and each link, which took minutes."""
    rows = [{"": "", "a": True}] * 2_165

    with refusal:
        check_readings({"input": {"rows": rows}}, ids * links, Limits(arguments_bytes=256 * 1024))


def test_lists_that_share_one_another_have_too_many_parts() -> None:
    """A thousand references to one list of a thousand: small to hold, long to walk."""
    value = [["a"] * 1_000] * 1_000

    with pytest.raises(Refusal):
        check_no_escapes(value)
