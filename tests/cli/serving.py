"""Call a server that a command serves in this process, in place of whoever would start it."""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

import anyio
import anyio.lowlevel
import pytest
import uvicorn
from mcp import Client
from mcp.server.stdio import stdio_server

from agentguard.cli.main import main
from tests.cli.commands import TERM, Ran, Stream
from tests.world import Era, _mode

Session = Callable[[Client], Awaitable[None]]

RECORDS: Final = """
from mcp.server import MCPServer
from mcp_types import ToolAnnotations

server = MCPServer("records")


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
def read_record(record_id: str) -> str:
    return f"record {record_id}"


@server.tool()
async def delete_record(record_id: str) -> str:
    return f"{record_id} is gone"


if __name__ == "__main__":
    server.run("stdio")
"""

FAST: Final = RECORDS.replace("from mcp.server import MCPServer", "from fastmcp import FastMCP as MCPServer")

LOW: Final = """
from mcp.server import Server
from mcp_types import CallToolResult, ListToolsResult, TextContent, Tool, ToolAnnotations

ARGUMENTS = {"type": "object", "properties": {"record_id": {"type": "string"}}, "required": ["record_id"]}


async def list_tools(ctx, params):
    reads = Tool(name="read_record", input_schema=ARGUMENTS, annotations=ToolAnnotations(read_only_hint=True))
    return ListToolsResult(tools=[reads, Tool(name="delete_record", input_schema=ARGUMENTS)])


async def call_tool(ctx, params):
    return CallToolResult(content=[TextContent(type="text", text=f"record {params.arguments['record_id']}")])


server = Server("records", on_list_tools=list_tools, on_call_tool=call_tool)
"""


def written() -> str:
    """Return what a command that runs has written to its streams so far."""
    return "".join(stream.getvalue() for stream in (sys.stderr, sys.stdout) if isinstance(stream, Stream))


def on_stdio(session: Session, era: Era, *arguments: str, terminal: bool = False, **options: Any) -> Ran:
    """Run `agentguard` with *arguments* in this thread, and *session* on its standard streams in another.

    Returns:
        What it left behind; what it wrote to standard output is what the client had.
    """
    (reads_in, writes_in), (reads_out, writes_out) = os.pipe(), os.pipe()
    failures: list[BaseException] = []

    async def talk() -> None:
        with os.fdopen(reads_out, encoding="utf-8") as answers, os.fdopen(writes_in, "w", encoding="utf-8") as requests:
            # The SDK's transport of a server is one of a client, with the streams the other way round.
            transport = stdio_server(anyio.wrap_file(answers), anyio.wrap_file(requests))
            async with Client(transport, mode=_mode(era), **options) as client:
                try:
                    await session(client)
                finally:
                    # The server is done when its input is, and the client when its output is.
                    requests.close()

    def work() -> None:
        try:
            anyio.run(talk)
        except BaseException as error:  # noqa: BLE001  raised again in the test's own thread
            failures.append(error)

    told = Stream(terminal=terminal)
    thread = threading.Thread(target=work)
    with pytest.MonkeyPatch.context() as patch, ExitStack() as closing:
        patch.setattr(sys, "stdin", closing.enter_context(os.fdopen(reads_in, encoding="utf-8")))
        patch.setattr(sys, "stdout", closing.enter_context(os.fdopen(writes_out, "w", encoding="utf-8")))
        patch.setattr(sys, "stderr", told)
        patch.setenv("TERM", TERM)
        thread.start()
        with pytest.raises(SystemExit) as left:
            main(arguments)
        sys.stdout.close()
        thread.join(30)
    if failures:
        raise failures[0]
    return Ran(int(left.value.code or 0), "", told.getvalue())


@contextmanager
def on_http(session: Callable[[str], Awaitable[None]]) -> Iterator[None]:
    """Let *session* have the URL of what is served over HTTP, and stop serving after it."""
    serve = uvicorn.Server.serve

    async def served(self: uvicorn.Server, sockets: Any = None) -> None:
        path = re.search(r"http://[^\s,\"]+(/\w+)", written())
        assert path is not None
        host, port = sockets[0].getsockname()[:2]
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(serve, self, sockets)
            while not self.started:
                await anyio.lowlevel.checkpoint()
            try:
                await session(f"http://{f'[{host}]' if ':' in host else host}:{port}{path[1]}")
            finally:
                self.should_exit = True

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(uvicorn.Server, "serve", served)
        yield
