"""A client's assertion that somebody saw on its way, in a log or at another endpoint.

It is genuine and in time. Accepted twice, it makes whoever has it the client.
"""

from contextlib import closing
from pathlib import Path

import anyio

from agentguard.lifecycle.sqlite import SQLiteStore
from tests.lifecycle.service import Service, make_assertion, make_client, refusal
from tests.tokens import NOW


async def test_assertion_is_good_for_one_request() -> None:
    """At whatever endpoint, and whatever was answered."""
    service = Service()
    assertion = make_assertion(exp=NOW + 300)

    assert (await service.exchange(client_assertion=assertion)).status_code == 200
    for path in ("/token", "/revoke", "/introspect"):
        response = await service.post(path, client_assertion=assertion, token="x")
        assert refusal(response) == (401, "invalid_client")


async def test_of_many_at_once_one_is_answered() -> None:
    """Between looking and noting there is no gap."""
    service, assertion = Service(), make_assertion()
    found: list[int] = []

    async def ask() -> None:
        found.append((await service.exchange(client_assertion=assertion)).status_code)

    async with anyio.create_task_group() as tasks:
        for _ in range(20):
            tasks.start_soon(ask)

    assert sorted(found) == [200] + [401] * 19
    assert len(service.records()) == 1


async def test_assertion_is_not_good_again_after_a_restart(tmp_path: Path) -> None:
    """Its use is kept where the runs are; a clock that is set back changes nothing."""
    assertion = make_assertion()
    for clock, status in ((NOW, 200), (NOW + 20, 401), (NOW - 20, 401), (NOW + 89, 401)):
        service = Service()
        service.clock.now = clock
        with closing(SQLiteStore(tmp_path / "store.db", clock=service.clock)) as store:
            service = Service(clock=service.clock, store=store)
            assert (await service.exchange(client_assertion=assertion)).status_code == status


async def test_another_clients_assertion_may_have_the_same_id() -> None:
    """Nobody can use up what others will say."""
    service = Service(clients=(make_client("planner"), make_client("reader")))

    for client in ("planner", "reader"):
        response = await service.exchange(client=client, client_assertion=make_assertion(client, jti="1"))
        assert response.status_code == 200
