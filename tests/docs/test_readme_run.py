"""What the README says of runs and credentials, by its own server and policies."""

import time
from pathlib import Path
from runpy import run_path
from typing import Any

from mcp import Client

from agentguard import CredentialRequest, IssuedCredential
from agentguard.testing import acting_as
from tests.docs.pages import write_files

README = "README.md"


class _Broker:
    """Gives what the README's server needs."""

    names = ("bank",)

    def __init__(self) -> None:
        self.asked: list[str] = []

    async def issue(self, request: CredentialRequest) -> IssuedCredential:
        """Give a credential."""
        self.asked.append(request.tool)
        return IssuedCredential(secret="k3y-of-the-bank-for-a-test", expires_at=time.time() + 300, lease_id="L1")

    async def renew(self, issued: IssuedCredential, request: CredentialRequest) -> IssuedCredential:
        """Give another."""
        return await self.issue(request)

    async def release(self, issued: IssuedCredential, name: str) -> None:
        """Take it back."""


async def test_run_that_read_a_mail_cannot_pay_and_no_run_pays_too_much(tmp_path: Path, monkeypatch: Any) -> None:
    """The credential is in no schema, and is asked for where a payment may run."""
    monkeypatch.chdir(tmp_path)
    write_files(README, tmp_path)
    # Alone: whoever copies the one file has no other.
    names = run_path(str(tmp_path / "inbox.py"))
    broker = _Broker()
    server = names["inbox"](tmp_path / "inbox", tmp_path / "other-state", broker)

    async def text(client: Client, tool: str, **arguments: Any) -> str:
        (content,) = (await client.call_tool(tool, arguments)).content
        assert content.type == "text"
        return content.text

    async with Client(server) as client:
        with acting_as("agent"):
            tools = {tool.name: tool for tool in (await client.list_tools()).tools}
            assert set(tools["pay"].input_schema["properties"]) == {"account", "amount"}
            assert await text(client, "pay", account="CH1", amount="499.99") == "paid 499.99 to CH1"
            assert "A run pays 500.00 at most." in await text(client, "pay", account="CH1", amount="0.02")
        with acting_as("agent"):
            await client.call_tool("read_mail", {"mail_id": "m1"})
            assert "This run has read untrusted content" in await text(client, "pay", account="CH93", amount="12.50")
    assert broker.asked == ["pay"]
