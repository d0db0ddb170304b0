"""What the service's log says, where its answers say the same to everybody."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from agentguard.lifecycle.asked import ACCESS_TOKEN
from tests.lifecycle.service import CORP, PLANNER_KEY, Service, make_assertion, make_subject
from tests.tokens import ABSENT, AUDIENCE, ISSUER, KEY, NOW


@pytest.fixture
def service() -> Service:
    """Return a service with its usual clients."""
    return Service()


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """Return the log, down to what only a developer wants to see."""
    caplog.set_level(logging.DEBUG, "agentguard")
    return caplog


def lines(log: pytest.LogCaptureFixture) -> list[str]:
    """Return what was said, and forget it."""
    said = [record.getMessage() for record in log.records if record.name == "agentguard"]
    log.clear()
    return said


@pytest.mark.parametrize(
    ("assertion", "why"),
    [
        ({"client_id": "planner", "key": KEY}, "as client `planner`: verification stopped with InvalidSignatureError"),
        ({"client_id": "stranger", "key": PLANNER_KEY}, "as client `stranger`: there is no such client"),
        ({"client_id": "a\nforged", "key": PLANNER_KEY}, "as client `a\N{REPLACEMENT CHARACTER}forged`: there is no"),
        ({"client_id": "planner", "aud": CORP}, "as client `planner`: `aud` "),
        ({"client_id": "planner", "exp": NOW - 60, "iat": NOW - 120}, "as client `planner`: "),
    ],
)
async def test_client_that_proves_nothing_is_told_apart_in_the_log_alone(
    service: Service, log: pytest.LogCaptureFixture, assertion: dict[str, Any], why: str
) -> None:
    """One answer for all, and one line with the name that it gave and the reason."""
    response = await service.exchange(client_assertion=make_assertion(**assertion))

    assert (response.status_code, response.json()) == (
        401,
        {"error": "invalid_client", "error_description": "client authentication failed"},
    )
    (line,) = lines(log)
    assert line.startswith("refused a request at /token, invalid_client: client authentication failed: ")
    assert why in line


async def test_client_id_that_contradicts_the_assertion_is_named(
    service: Service, log: pytest.LogCaptureFixture
) -> None:
    """Both are the caller's; one of them is mistyped."""
    assert (await service.exchange(client_id="reader")).status_code == 401

    (line,) = lines(log)
    assert line.endswith("unauthenticated: as client `planner`: client_id names another one than its assertion")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"aud": AUDIENCE}, f"invalid_token: `aud` does not name this server, which is `{ISSUER}`"),
        (
            {"iss": "https://nobody.example"},
            "invalid_token: the issuer is not trusted: got another, trusted is `https://login.example`",
        ),
        ({"iat": NOW - 900, "exp": NOW - 300}, "expired: the token or its run is over"),
    ],
)
@pytest.mark.parametrize("place", ["subject_token", "actor_token"])
async def test_token_that_is_not_accepted_is_told_apart_in_the_log_alone(
    service: Service, log: pytest.LogCaptureFixture, changes: dict[str, Any], why: str, place: str
) -> None:
    """The answer says which of the two it is; the log says what is wrong with it."""
    given: dict[str, Any] = {
        place: make_subject(**changes),
        "actor_token_type": ACCESS_TOKEN if place == "actor_token" else ABSENT,
    }

    response = await service.exchange(**given)

    constant = f"{place} not accepted: it is none of a trusted issuer for this one, or it is over"
    assert response.json() == {"error": "invalid_request", "error_description": constant}
    assert lines(log) == [f"refused a request of client `planner` at /token, invalid_request: {constant}: {why}"]


async def test_request_that_is_wrong_in_itself_is_logged_as_it_is_answered(
    service: Service, log: pytest.LogCaptureFixture
) -> None:
    """There is nothing to hide in it."""
    response = await service.exchange(authorization_details=ABSENT)

    (line,) = lines(log)
    assert line.endswith(f"of client `planner` at /token, invalid_request: {response.json()['error_description']}")


async def test_life_of_a_run_is_in_the_log(service: Service, log: pytest.LogCaptureFixture) -> None:
    """Begun, handed on, renewed (for developers) and ended: which run, by which client, for whom; no token."""
    token = await service.token()
    child = await service.token(subject_token=token, client="reader")
    await service.token(subject_token=token, authorization_details=ABSENT)
    nobody = await service.token(subject_token=make_subject(sub="planner", client_id="planner"))
    assert (await service.post("/revoke", token=token)).status_code == 200

    run, below, other = (service.read(one).run_id for one in (token, child, nobody))
    levels = [record.levelname for record in log.records if record.name == "agentguard"]
    said = lines(log)
    handed_on = f"run `{below}` was handed on from run `{run}`: agent `reader` for user `alice`, over in 300 s"
    handed_on += ", asked for by client `reader`"
    assert said == [
        f"run `{run}` began: agent `planner` for user `alice`, over in 300 s, asked for by client `planner`",
        handed_on,
        f"client `planner` renewed the token of run `{run}`",
        f"run `{other}` began: agent `planner` for nobody, over in 300 s, asked for by client `planner`",
        f"client `planner` ended run `{run}`",
    ]
    assert levels == ["INFO", "INFO", "DEBUG", "INFO", "INFO"]
