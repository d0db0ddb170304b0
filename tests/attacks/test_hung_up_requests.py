"""Requests that nobody finishes.

Each left an error with its stack in the issuer's log, for whoever can reach its port: no key
is needed to fill a disk, or to hide what else is in there.
"""

import logging
import threading
from collections.abc import MutableMapping
from typing import Any

import pytest

from tests.lifecycle.service import Service


@pytest.mark.parametrize("path", ["/token", "/revoke", "/introspect"])
async def test_client_that_hangs_up_leaves_no_error(path: str, caplog: pytest.LogCaptureFixture) -> None:
    """It gets nothing either."""
    scope: dict[str, Any] = {
        "type": "http",
        "method": "POST",
        "path": path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/x-www-form-urlencoded")],
    }
    incoming: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"a=", "more_body": True},
        {"type": "http.disconnect"},
    ]
    outgoing: list[MutableMapping[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return incoming.pop(0)

    async def send(message: MutableMapping[str, Any]) -> None:
        outgoing.append(message)

    with caplog.at_level(logging.INFO, logger="agentguard"):
        await Service().app(scope, receive, send)

    assert outgoing[0]["status"] == 400
    # A thread that an earlier test left behind may have something to say.
    assert [record for record in caplog.records if record.thread == threading.get_ident()] == []
