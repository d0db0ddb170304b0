"""A limit on one tool in a loop that an honest run reaches, since its tools get credentials for themselves."""

import time
from pathlib import Path
from typing import Annotated

from agentguard import Credential
from agentguard.policy.baselines import chosen
from tests.credentials.lending import Office
from tests.test_credentials import leases_of
from tests.world import ERAS, World, connected, make_world, text

CALLS = 26


async def test_credentials_of_many_tools_are_no_tool_in_a_loop(tmp_path: Path) -> None:
    """Each of three tools wants two at every call, and is called nine times: no tool is called fifty times."""
    ran: list[str] = []

    def extend(world: World) -> None:
        guard = world.guard
        for name in ("one", "two", "three"):

            @world.server.tool(name=name)
            @guard.tool
            async def look(
                crm: Annotated[Credential, guard.credential("crm")],
                bank: Annotated[Credential, guard.credential("crm")],
            ) -> str:
                ran.append("look")
                return "done"

    caps = '@id("all") permit (principal, action, resource);\n' + chosen(["lifetime-caps"])[0].policies
    world = make_world(tmp_path, policies=caps, extend=extend, broker=Office(time.time))
    async with connected(world, "memory", ERAS[-1]) as client:
        for place in range(CALLS):
            answer = await client.call_tool(("one", "two", "three")[place % 3], {})
            assert not answer.is_error, text(answer)

    assert len(ran) == CALLS
    assert world.records()[-1]["agentguard.run_state.calls_of_this_tool"] > CALLS
    leases_of(world).close()
