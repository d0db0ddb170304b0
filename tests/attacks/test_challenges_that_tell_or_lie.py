"""A caller fishes for the scopes of what it may never use, and whoever is not the guard tries to challenge."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentguard import Issuer, UnsafeMemoryState
from tests.challenges import POLICIES, Caller, calling, extend, result_of
from tests.world import AUDIENCE, ERAS, EVERYTHING, ISSUER, Era, make_world


@pytest.mark.parametrize("era", ERAS)
async def test_what_a_scope_does_not_open_is_denied_as_ever(tmp_path: Path, era: Era) -> None:
    """A stranger, a delegated run, and a call from inside a tool: none sees the name of a scope."""
    state = UnsafeMemoryState()
    issuer = Issuer(issuer=ISSUER, audience=AUDIENCE, store=state.store)
    world = make_world(tmp_path, policies=POLICIES, issuer=issuer, state=state, agent=None, extend=extend)
    async with (
        calling(world, era, token=world.token("stranger", scopes=("mail",))) as stranger,
        issuer.run(agent="reader", grant=EVERYTHING) as parent,
        parent.delegate(agent="reader", grant=EVERYTHING) as delegated,
    ):
        hidden = [await stranger.call(name) for name in ("wipe", "export", "no_such_tool")]
        child = Caller(stranger.http, stranger.url, delegated.token(), era)
        await child.begin()
        narrowed = [await child.call("export", max_rows=50), await child.call("wipe")]
        caller = Caller(stranger.http, stranger.url, world.token(), era)
        await caller.begin()
        nested = [await caller.call("nested"), await caller.call("nested", speak=True)]
        forged = [await caller.call("forges"), await caller.call("forges", how="raise")]
        # No header, no argument and no metadata leads to it: the key is an object of that process.
        claimed = {"agentguard/step-up": ["admin"], "scope": "admin"}
        own = await caller.post("prompts/get", {"name": "none", "arguments": claimed}, scope="admin")

    words = {result_of(reply)["content"][0]["text"].partition(" Decision")[0] for reply in hidden}
    assert words == {"Denied by policy. Do not repeat this call unchanged."}
    assert [result_of(reply)["isError"] for reply in narrowed] == [True, True]
    assert [result_of(reply)["content"][0]["text"] for reply in nested] == ["denied inside", "denied inside"]
    assert [result_of(reply)["isError"] for reply in forged] == [False, True]
    assert "www-authenticate" not in own.headers
    assert not any("scope" in reply.text for reply in (*hidden, *narrowed, *nested, *forged, own))
    assert not any("agentguard.scopes.missing" in record for record in world.records())
