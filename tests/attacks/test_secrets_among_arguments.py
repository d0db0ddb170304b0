"""A caller gives its own token as an argument: evidence, which is kept for years, does not keep it."""

import json
from pathlib import Path

from agentguard.evidence.vocabulary import AttributeValue
from agentguard.evidence.withheld import WITHHELD, without_secrets
from tests.world import POLICIES, World, http_client, make_world, served, text

FETCHES = POLICIES + '@id("fetches") permit (principal, action == Action::"fetch", resource);'


async def test_token_that_is_given_as_an_argument_is_not_kept(tmp_path: Path) -> None:
    """Neither as the id of what is acted on, nor among the arguments that the developer keeps, nor in a span."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool(resource="Record::{record_id}", record_inputs={"note", "rows"})
        async def fetch(record_id: str, note: str, rows: int = 1) -> str:
            """Fetch it."""
            return "done"

    world = make_world(tmp_path, policies=FETCHES, extend=extend, agent=None)
    token = world.token()
    given = {"record_id": token, "note": f"Bearer {token}"}
    async with served(world) as url, http_client(url, token) as client:
        first = await client.call_tool("fetch", given)

    signature = token.rpartition(".")[2]
    assert text(first) == "done"
    kept = [entry.record for entry in world.state.ledger]  # type: ignore[attr-defined]
    assert not any(signature in json.dumps(record) for record in kept)
    assert not any(signature in span.to_json() for span in world.exporter.get_finished_spans())
    decision = world.records()[0]
    assert decision["agentguard.resource.id"] == WITHHELD
    assert decision["agentguard.resource.type"] == "Record"
    (inputs,) = [record["inputs"] for record in kept if "inputs" in record]
    assert inputs == {"note": WITHHELD, "rows": 1}
    leaks = world.records("credential_leak")
    assert [leak["agentguard.credential.place"] for leak in leaks] == ["record"]


def test_what_shows_no_secret_is_kept_as_it_is() -> None:
    """And of a list, all but the one that does."""
    attributes: dict[str, AttributeValue] = {"a": "x", "b": ("x", "secret"), "c": 1}

    assert without_secrets(attributes, None, None) == (attributes, None)
    assert without_secrets(attributes, {"d": "x"}, lambda _: False) == (attributes, {"d": "x"})
    kept = {"a": "x", "b": ("x", WITHHELD), "c": 1}
    assert without_secrets(attributes, None, lambda value: "secret" in str(value)) == (kept, None)
