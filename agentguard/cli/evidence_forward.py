"""`agentguard evidence forward`: ship a ledger from a process of its own."""

from __future__ import annotations

import json
import signal
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TYPE_CHECKING, Annotated, Final

import typer

from agentguard.cli.options import JsonOption
from agentguard.cli.output import fail, result, say
from agentguard.errors import ConfigurationError
from agentguard.evidence.cursor import backlog
from agentguard.evidence.reading import evidence_folder
from agentguard.evidence.words import count

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agentguard.evidence.delivery.forward import Forwarder

_EVERY: Final = 10.0
_LAST_SECONDS: Final = 5.0


def forward(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A state folder, or the evidence in it.")],
    *,
    to: Annotated[str, typer.Option("--to", metavar="URL", help="http://HOST:4318/v1/traces, or grpc://HOST:4317.")],
    headers: Annotated[
        Path | None,
        typer.Option("--headers", metavar="FILE", help="Headers to send along, a line each: NAME=VALUE."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Ship what is there, and end.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Ship the evidence to an OTLP endpoint as spans, until stopped.

    Whatever fails is tried again, and nothing is left out. Headers are also taken from
    OTEL_EXPORTER_OTLP_HEADERS.

    Example: `agentguard evidence forward state --to http://collector:4318/v1/traces`
    """
    from agentguard.evidence.delivery.forward import Forwarder  # noqa: PLC0415  the rest of `evidence` needs no OpenTelemetry
    from agentguard.evidence.delivery.sender import open_sender, read_endpoint  # noqa: PLC0415  the same

    chains = evidence_folder(folder)
    if not chains.is_dir():
        message = f"`{folder}` wants a folder that is there: name the one that was given as `state=`"
        raise ConfigurationError(message)
    endpoint = read_endpoint(to, headers=None if headers is None else read_headers(headers))
    forwarder = Forwarder(chains, endpoint, open_sender(endpoint, service="agentguard"))
    if once:
        _ship_once(forwarder, as_json=as_json)
        return
    with _until_stopped() as stopped:
        waiting = backlog(forwarder.folder, forwarder.cursor)
        say(f"forwarding `{folder}` to {endpoint.url}, {waiting:,} waiting")
        forwarder.start()
        follow(forwarder, stopped, as_json=as_json)


def follow(forwarder: Forwarder, stopped: Event, *, as_json: bool) -> None:
    """Tell how far a forwarder is whenever that changed, until it is stopped."""
    told = -1
    while not stopped.wait(_EVERY):
        if forwarder.delivered != told:
            told = forwarder.delivered
            _tell(forwarder, as_json=as_json)
    forwarder.stop(_LAST_SECONDS)
    _tell(forwarder, as_json=as_json)


def _ship_once(forwarder: Forwarder, *, as_json: bool) -> None:
    try:
        while not forwarder.step():
            pass
    except OSError as error:
        forwarder.close()
        fail(f"`{forwarder.folder}` cannot be used: {error.strerror}: what was delivered has to be kept there", 1)
    ships = forwarder.ships
    _tell(forwarder, as_json=as_json)
    forwarder.close()
    if not ships:
        fail(f"`{forwarder.folder}` is forwarded by another process already", 1)
    if forwarder.failing:
        fail(f"the evidence was not delivered: {forwarder.failing}", 1)


def _tell(forwarder: Forwarder, *, as_json: bool) -> None:
    waiting = backlog(forwarder.folder, forwarder.cursor)
    if as_json:
        told = {"delivered": forwarder.delivered, "waiting": waiting, "failing": forwarder.failing or None}
        result(json.dumps(told))
    else:
        say(f"{count(forwarder.delivered, 'record')} delivered to {forwarder.endpoint.url}, {waiting:,} waiting")


@contextmanager
def _until_stopped() -> Iterator[Event]:
    """Give what is set when somebody tells the process to end."""
    stopped = Event()
    before = {number: signal.signal(number, lambda *_: stopped.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_headers(path: Path) -> dict[str, str]:
    """Return the headers in a file, which no list of processes shows.

    Raises:
        ConfigurationError: It cannot be read, or a line is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or type(error).__name__
        message = f"headers `{path}` cannot be read: {why}: name a file of lines NAME=VALUE"
        raise ConfigurationError(message) from None
    found: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        name, equals, value = (part.strip() for part in line.partition("="))
        if not name and not equals:
            continue
        if not equals or not name.isascii() or not name.replace("-", "").replace("_", "").isalnum():
            # Its text may be the secret itself.
            message = f"headers `{path}` want NAME=VALUE, got something else in line {number}: mend that line"
            raise ConfigurationError(message)
        found[name.lower()] = value
    return found
