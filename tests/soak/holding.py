"""Two programs whose memory is searched: a server that lends a credential to its tools, and an agent.

Each is told what it needs over its standard input, says a line when it has done its work,
and then stays until its standard input ends.
"""

import asyncio
import base64
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import httpx2

from agentguard import Credential, CredentialRequest, IssuedCredential
from tests.adapters.origins import ALL, INBOX, over_http
from tests.stdio_world import RemoteIssuer
from tests.world import AUDIENCE, ERAS, ISSUER, World, make_world, served, text


@dataclass
class Broker:
    """Gives one secret, to whoever asks."""

    secret: str
    names: tuple[str, ...] = ("crm",)
    released: list[str] = field(default_factory=list)

    async def issue(self, request: CredentialRequest, /) -> IssuedCredential:
        """Give it for a minute."""
        return IssuedCredential(secret=self.secret, expires_at=time.time() + 60, lease_id=f"of {request.server}")

    async def renew(self, issued: IssuedCredential, request: CredentialRequest, /) -> IssuedCredential:
        """Give it again."""
        return await self.issue(request)

    async def release(self, issued: IssuedCredential, name: str, /) -> None:
        """Note that it came back."""
        self.released.append(name)


async def serve(told: dict[str, Any]) -> None:
    """Serve tools that reach another system with a credential, and some that hand it out."""

    def extend(world: World) -> None:
        @world.server.tool()
        @world.guard.tool
        async def customers(crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            async with httpx2.AsyncClient(trust_env=False, auth=crm) as http:
                return (await http.get(told["crm"])).text

        @world.server.tool()
        @world.guard.tool
        async def tells(how: str, crm: Annotated[Credential, world.guard.credential("crm")]) -> str:
            """Hand it out, as a tool does that was talked into it."""
            secret = crm.reveal()
            if how == "raised":
                message = f"the other system refused {secret}"
                raise RuntimeError(message)
            said = {
                "plain": secret,
                "header": f"Authorization: Bearer {secret}",
                "base64": base64.b64encode(secret.encode()).decode(),
                "hex": secret.encode().hex(),
                "backwards": secret[::-1],
            }
            return f"here it is: {said[how]}"

    issuer = RemoteIssuer(issuer=ISSUER, audience=AUDIENCE)
    broker = Broker(told["secret"])
    world = make_world(
        Path(told["folder"]), policies=ALL, types=None, issuer=issuer, agent=None, extend=extend, broker=broker
    )
    async with served(world) as url:
        say(url)
        await over()


async def act(told: dict[str, Any]) -> None:
    """Be an agent: list the tools, call them, and remember everything that came."""
    kept: list[object] = []
    answers: set[str] = set()
    stopped: set[bool] = set()
    for era in ERAS:
        async with over_http(told["url"], told["token"], era, named=INBOX) as client:
            answer = await client.call_tool("customers", {})
            handed = [await client.call_tool("tells", {"how": how}) for how in told["asks"]]
            kept += [await client.list_tools(), answer, *handed]
            answers.add(text(answer))
            stopped |= {one.is_error for one in handed}
    say(json.dumps({"answers": sorted(answers), "stopped": sorted(stopped)}))
    await over()
    # All of it was in memory when it was searched.
    assert kept


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


async def over() -> None:
    """Wait until the test has seen enough."""
    await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    told = json.loads(sys.stdin.readline())
    asyncio.run({"serve": serve, "act": act}[sys.argv[1]](told))
