import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from agentguard.analysis.health.clock import seconds_apart
from agentguard.errors import ConfigurationError
from tests.world import free_socket


@contextmanager
def issuer(date: str | None) -> Iterator[tuple[str, list[str]]]:
    """Serve an issuer that tells *date*; give its URL, and what was asked for."""
    asked: list[str] = []

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response_only(404)
            if date is not None:
                self.send_header("Date", date)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as it is called there
            """Say nothing."""

    server = HTTPServer(("127.0.0.1", 0), Answer)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/tenant", asked
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


async def test_clocks_are_compared_by_the_date_of_an_answer() -> None:
    """Whatever the answer is: the issuer's metadata need not be there."""
    with issuer(formatdate(1_800_000_000, usegmt=True)) as (url, asked):
        ahead = await seconds_apart(url, clock=lambda: 1_800_000_040.5)
        behind = await seconds_apart(url, clock=lambda: 1_799_999_990.5)

    assert (ahead, behind) == (40.0, -10.0)
    assert asked == ["/.well-known/oauth-authorization-server/tenant"] * 2


async def test_clock_of_this_host_is_its_own() -> None:
    """Compared with itself it is right, but for the second that HTTP leaves open."""
    began = time.time()
    with issuer(formatdate(began, usegmt=True)) as (url, _):
        apart = await seconds_apart(url)

    assert apart is not None
    assert -1 <= apart <= time.time() - began + 1


@pytest.mark.parametrize("date", [None, "soon", "Thu, 01 Jan 1970 00:00:00", "Thu, 99 Foo 0000 99:99:99 GMT"])
async def test_issuer_that_tells_no_time_leaves_it_open(date: str | None) -> None:
    """It may stand behind something that takes the header away."""
    with issuer(date) as (url, _):
        assert await seconds_apart(url) is None


@pytest.mark.parametrize(
    "url", ["http://issuer.example", "issuer.example", "file:///etc/passwd", "https://a@b.example"]
)
async def test_nothing_but_an_issuer_is_asked(url: str) -> None:
    """Over https, or on this host."""
    with pytest.raises(ConfigurationError, match="--issuer wants an https URL, or http on loopback"):
        await seconds_apart(url)


async def test_issuer_that_does_not_answer_is_told() -> None:
    """The address is right, and nobody is there."""
    # Held, so that nobody else comes to listen there.
    with free_socket() as held:
        url = f"http://127.0.0.1:{held.getsockname()[1]}"
        with pytest.raises(ConfigurationError, match="does not answer, ConnectError: start it"):
            await seconds_apart(url)
