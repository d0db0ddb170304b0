"""What it costs to look for a run's secrets in what a tool returns, logs and traces.

The floor of a look through a text is Python's own ``secret in text``, for each secret and
as it is, without any encoding. The texts are source code, and random bytes in base64, which
is the worst that can be asked for. A structured result has to become text first: its floor
is the JSON that the SDK makes of it, which it does at least once.
"""

from __future__ import annotations

import base64
import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import TracerProvider
from pydantic_core import to_json

from agentguard.credentials.containment import stops
from agentguard.credentials.leaks import Secret
from agentguard.credentials.live import Live, Place
from agentguard.credentials.logs import LogContainment
from agentguard.credentials.shown import text_of
from agentguard.evidence.contain import contain_spans
from tests.bench.timing import Way, medians, table
from tests.tokens import make_token

KIB: Final = 1024
SIZES: Final = {1: 1_000, 64: 50, 256: 20}
ROUNDS: Final = 7
MANY: Final = 50


def way(function: Callable[[], object]) -> Way:
    """Return a function as a way of doing something."""

    async def run() -> None:
        function()

    return run


def source() -> str:
    """Return 256 KiB of source code: the standard library's."""
    folder = Path(logging.__file__).parent.parent
    text = "".join(path.read_text("utf-8") for path in sorted(folder.glob("[a-d]*.py")))
    return text[: 256 * KIB]


async def measure() -> None:
    """Measure texts, values, log lines and spans."""
    token, credential = make_token(), secrets.token_urlsafe(32)
    own = Secret("invocation token", token)
    crm = Secret("crm", credential)
    many = [Secret(str(number), secrets.token_urlsafe(32)) for number in range(MANY)]
    live = Live()
    for run, of_run in {"one": (own,), "two": (own, crm), "many": (own, *many)}.items():
        for secret in of_run:
            live.add(secret, run=run)
    encoded = base64.b64encode(secrets.token_bytes(192 * KIB)).decode()
    for name, text in (("source code", source()), ("base64", encoded)):
        for size, calls in SIZES.items():
            part = text[: size * KIB]
            rows = await medians(
                {
                    "floor: `in`, for two secrets": way(lambda part=part: token in part or credential in part),  # type: ignore[misc]
                    "a token": way(partial(live.find_of, "one", part)),
                    "a token and a credential": way(partial(live.find_of, "two", part)),
                    f"a token and {MANY} credentials": way(partial(live.find_of, "many", part)),
                },
                rounds=ROUNDS,
                calls=calls,
            )
            floor = next(iter(rows.values()))
            table(f"{size} KiB of {name}", rows, {row: f"{took / floor:.1f} x" for row, took in rows.items()})
    await _value(live)
    await _secret(token)
    await _log((own, crm))
    await _span((own, crm))


async def _value(live: Live) -> None:
    result = {"rows": [{"id": n, "name": f"row {n}", "text": "x" * 80, "ok": True} for n in range(500)]}
    rows = await medians(
        {
            "floor: JSON, as the SDK makes it": way(partial(to_json, result, fallback=str, indent=2)),
            "as text": way(partial(text_of, result)),
            "as text, looked through": way(lambda: live.find_of("two", text_of(result))),
        },
        rounds=ROUNDS,
        calls=20,
    )
    table(f"500 rows, {len(to_json(result)) // KIB} KiB", rows)


async def _secret(token: str) -> None:
    rows = await medians(
        {
            "a token": way(partial(Secret, "invocation token", token)),
            "a credential": way(lambda: Secret("crm", secrets.token_urlsafe(32))),
        },
        rounds=ROUNDS,
        calls=20,
    )
    table("making a secret ready, once for each", rows)


async def _log(both: tuple[Secret, ...]) -> None:
    live, factory, make = Live(), logging.getLogRecordFactory(), logging.Logger.makeRecord
    record = ("app", logging.INFO, "app.py", 1, "record %s was read by %s", ("r1", "alice"), None)
    shown: dict[str, Any] = {"floor: a record": lambda: logging.LogRecord(*record)}
    containment = LogContainment(live)
    containment.install()
    contained = logging.getLogRecordFactory()
    none = await medians({"no secret is live": way(lambda: contained(*record))}, rounds=ROUNDS, calls=1_000)
    for secret in both:
        live.add(secret)
    rows = await medians(
        {name: way(log) for name, log in {**shown, "two secrets are live": lambda: contained(*record)}.items()},
        rounds=ROUNDS,
        calls=1_000,
    )
    logging.setLogRecordFactory(factory)
    logging.Logger.makeRecord = make  # type: ignore[method-assign]
    table("a log line", {**rows, **none})


async def _span(both: tuple[Secret, ...]) -> None:
    live = Live()
    for secret in both:
        live.add(secret)
    attributes = {f"app.attribute.{n}": f"value {n}" for n in range(10)}

    def traced(provider: TracerProvider) -> Way:
        tracer = provider.get_tracer("app")

        def span() -> None:
            span = tracer.start_span("work", attributes={"app.kind": "x"})
            span.set_attributes(attributes)
            span.add_event("called", {"app.result": "y"})
            span.end()

        return way(span)

    bare, watched = TracerProvider(), TracerProvider()
    contain_spans(watched, partial(stops, place=Place.SPAN, live=live))
    rows = await medians(
        {"floor: a span": traced(bare), "two secrets are live": traced(watched)}, rounds=ROUNDS, calls=200
    )
    table("a span of twelve attributes", rows)
