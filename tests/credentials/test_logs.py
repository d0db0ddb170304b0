"""No log line shows a secret, however it came into its record."""

from __future__ import annotations

import io
import json
import logging
import secrets
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from agentguard.credentials.containment import TOKEN, Containment
from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live, Place
from agentguard.credentials.logs import LOGS, LogContainment
from tests.tokens import make_token

SECRET: Final = secrets.token_urlsafe(32)
LINE: Final = "a log line of `app` held a credential, and was stopped"


class Everything(logging.Formatter):
    """Shows all that is in a record, as formatters for machines do."""

    def format(self, record: logging.LogRecord) -> str:
        """Return its text and its fields."""
        return f"{super().format(record)} {json.dumps(vars(record), default=str)}"


@dataclass
class World:
    """A process with a log that is looked through, and a secret to be kept from it."""

    live: Live = field(default_factory=Live)
    stream: io.StringIO = field(default_factory=io.StringIO)
    told: list[tuple[Place, str]] = field(default_factory=list)
    # One that nothing else listens to.
    log: logging.Logger = field(default_factory=lambda: logging.Logger("app"))  # noqa: LOG001
    secret: Secret | None = None
    containment: LogContainment = field(init=False)

    def __post_init__(self) -> None:
        """Look through its log."""
        self.containment = LogContainment(self.live)
        self.containment.install()

    def shown(self) -> str:
        """Return what was logged."""
        return self.stream.getvalue()


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """Return a world whose log is looked through, and put all back in the end."""
    factory = logging.getLogRecordFactory()
    monkeypatch.setattr(logging.Logger, "makeRecord", logging.Logger.makeRecord)
    world = World()
    handler = logging.StreamHandler(world.stream)
    handler.setFormatter(Everything())
    world.log.addHandler(handler)
    world.secret = Secret("crm", SECRET)
    world.live.add(world.secret, told=lambda place, name: world.told.append((place, name)))
    yield world
    logging.setLogRecordFactory(factory)


def failing(error: Exception) -> Callable[[logging.Logger], None]:
    """Return what logs an exception that was caught."""

    def log(to: logging.Logger) -> None:
        try:
            raise error
        except Exception:  # noqa: BLE001  any
            to.exception("it failed")

    return log


def because(text: str) -> Exception:
    """Return an exception whose cause has a text."""
    error = LookupError("x")
    error.__cause__ = ValueError(text)
    return error


class Shows:
    """Tells it when it is asked."""

    def __str__(self) -> str:
        """Tell it."""
        return SECRET


WAYS: Final[dict[str, Callable[[logging.Logger], object]]] = {
    "message": lambda log: log.error(f"token {SECRET}"),  # noqa: G004
    "argument": lambda log: log.error("token %s, %d", SECRET, 3),
    "arguments by name": lambda log: log.error("token %(a)s", {"a": SECRET}),
    "argument that the message leaves out": lambda log: log.error("token %(a)s", {"a": 1, "b": SECRET}),
    "argument cut short": lambda log: log.error("token %.5s", SECRET),
    "split between both": lambda log: log.error(SECRET[:20] + "%s", SECRET[20:]),  # noqa: G003
    "object": lambda log: log.error("token %s", Shows()),
    "dict": lambda log: log.error({"token": SECRET}),
    "hex": lambda log: log.error("token %s", SECRET.encode().hex()),
    "exception": failing(ValueError(SECRET)),
    "cause": failing(because(SECRET)),
    "exception as the message": lambda log: log.error(ValueError(SECRET)),
    "exception beside it": lambda log: log.error("x", exc_info=ValueError(SECRET)),
    "extra": lambda log: log.error("x", extra={"user": "alice", "token": {"is": SECRET}}),
    "name of an extra": lambda log: log.error("x", extra={SECRET: 1, "user": "alice"}),
    "message that cannot be made": lambda log: log.error("token %d %d", SECRET),  # noqa: PLE1206
    "adapter": lambda log: logging.LoggerAdapter(log, {"token": SECRET}).error("x"),
    "a record from elsewhere": lambda log: log.handle(
        logging.getLogRecordFactory()("app", logging.ERROR, "f", 1, f"token {SECRET}", (), None)
    ),
}


@pytest.mark.parametrize("way", WAYS)
def test_line_that_holds_a_secret_is_stopped_and_told_of(
    world: World, way: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line that says so is in its place, and nothing of it."""
    WAYS[way](world.log)

    assert SECRET not in world.shown()
    assert SECRET.encode().hex() not in world.shown()
    assert SECRET not in capsys.readouterr().err
    assert world.shown().startswith(LINE)
    assert world.told
    assert set(world.told) == {(Place.LOG, "crm")}


def test_stack_that_holds_a_secret_is_stopped(world: World) -> None:
    """It shows lines of the source."""
    record = logging.getLogRecordFactory()("app", logging.ERROR, "f", 1, "x", (), None, "g", f"at {SECRET}")
    world.log.handle(record)

    assert world.shown().startswith(LINE)
    assert SECRET not in world.shown()


def test_logger_and_thread_that_are_named_after_a_secret_lose_their_names(world: World) -> None:
    """Somebody makes one logger for each session."""
    record = logging.getLogRecordFactory()(f"app.{SECRET}", logging.ERROR, "f", 1, "x", (), None)

    assert record.name == "[credential]"
    assert record.getMessage() == LINE.replace("app", "[credential]")


@pytest.mark.parametrize(
    "line",
    [
        lambda log: log.error("all %s is %d", "well", 3),
        lambda log: log.error("all %(what)s", {"what": "well"}),
        lambda log: log.error("all", extra={"what": "well"}),
        lambda log: log.error({"all": "well"}),
        failing(ValueError("all is well")),
    ],
)
def test_other_lines_are_what_they_would_be(world: World, line: Callable[[logging.Logger], object]) -> None:
    """To the last field."""
    line(world.log)
    watched = world.shown()
    world.stream.truncate(0)
    world.stream.seek(0)
    world.containment.remove()
    line(world.log)

    def fields(text: str) -> dict[str, Any]:
        shown: dict[str, Any] = json.loads(text[text.index('{"name"') :])
        changing = {"created", "msecs", "relativeCreated", "lineno", "exc_info", "exc_text"}
        return {name: value for name, value in shown.items() if name not in changing}

    assert fields(watched) == fields(world.shown())
    assert world.told == []


def test_line_whose_arguments_do_not_fit_fails_as_it_would(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    """The handler says so."""
    world.log.error("all %d", "well")

    assert "Logging error" in capsys.readouterr().err
    assert world.told == []


def test_iterator_that_is_logged_is_left_alone(world: World) -> None:
    """Whoever logs it goes on to use it."""
    rows = iter([1, 2])
    world.log.error("rows %s", rows)

    assert list(rows) == [1, 2]


def test_line_of_a_call_is_told_to_that_call(world: World) -> None:
    """Its token is looked for as well."""
    token, told = make_token(), []
    with Containment(run="r1", token=token, told=lambda place, name: told.append((place, name)), live=world.live):
        world.log.error("token %s", token)
        world.log.error("token %s", token)

    assert told == [(Place.LOG, TOKEN)]
    assert token not in world.shown()


def test_hook_is_put_in_the_way_once_and_can_be_removed(world: World) -> None:
    """Several guards share it."""
    factory = logging.getLogRecordFactory()
    world.containment.install()
    assert logging.getLogRecordFactory() is factory

    world.containment.remove()
    world.log.error(SECRET, extra={"a": SECRET})
    assert world.shown().startswith(SECRET)
    world.containment.install()
    world.log.error(SECRET, extra={"a": SECRET})
    assert world.shown().splitlines()[-1].startswith(LINE)


def test_factory_that_somebody_sets_later_is_looked_over_too(world: World) -> None:
    """From the next time on that it is asked for, as each call of a tool does; and what it adds."""
    ours = logging.getLogRecordFactory()

    def made(*args: Any, **options: Any) -> logging.LogRecord:
        record = logging.LogRecord(*args, **options)
        record.user, record.headers = "alice", {"Authorization": SECRET}
        return record

    for _ in range(3):
        logging.setLogRecordFactory(made)
        world.containment.install()
        theirs = logging.getLogRecordFactory()
        world.log.error("x")
        logging.setLogRecordFactory(ours)
        world.containment.install()
        assert logging.getLogRecordFactory() is ours
        logging.setLogRecordFactory(theirs)
        world.containment.install()
        assert logging.getLogRecordFactory() is theirs

    assert SECRET not in world.shown()
    assert [line.startswith(LINE) for line in world.shown().splitlines()] == [True] * 3
    assert set(world.told) == {(Place.LOG, "crm")}


def test_one_is_enough_for_a_process() -> None:
    """All guards share it."""
    assert isinstance(LOGS, LogContainment)
