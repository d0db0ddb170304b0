"""A time without a zone means another moment on another machine.

`astimezone` takes it for local time, so a rule about a deadline would be early or late
by the server's own offset.
"""

from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

from agentguard.model import Reason
from tests.policy.judging import outcome

AFTER_NOON = 'context.input.a > datetime("2024-10-15T12:00:00Z")'


def test_a_time_without_a_zone_is_refused(tmp_path: Path) -> None:
    """Whatever the server's own zone is."""
    naive = datetime(2024, 10, 15, 12)  # noqa: DTZ001  naive on purpose

    assert outcome(tmp_path, naive, datetime, forbid=AFTER_NOON) is Reason.INVALID_ARGUMENT


def test_a_time_with_a_zone_is_judged_as_its_moment(tmp_path: Path) -> None:
    """13:00 in a zone two hours ahead is before noon."""
    ahead, behind = timezone(timedelta(hours=2)), timezone(-timedelta(hours=2))

    assert outcome(tmp_path, datetime(2024, 10, 15, 13, tzinfo=ahead), datetime, forbid=AFTER_NOON) is Reason.PERMIT
    assert outcome(tmp_path, datetime(2024, 10, 15, 11, tzinfo=behind), datetime, forbid=AFTER_NOON) is Reason.POLICY


def test_a_time_between_two_milliseconds_is_refused(tmp_path: Path) -> None:
    """Cut to the millisecond, a moment after the deadline would be on it."""
    late = datetime(2024, 10, 15, 12, microsecond=1, tzinfo=UTC)

    assert outcome(tmp_path, late, datetime, forbid=AFTER_NOON) is Reason.INVALID_ARGUMENT
