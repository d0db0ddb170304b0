"""A server that is another program: it runs below this process, and every message goes through here.

What comes out is a low-level `Server` with the program's own tools, resources and prompts.
Under a guard with ``unguarded="guard"`` each call is judged before anything is sent on. The
program gets the arguments that were judged and no more: neither the caller's token nor
anything else that came beside them.
"""

from __future__ import annotations

import logging
import math
import os
import shlex
from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Any, Final, TypeVar

import anyio
from mcp import Client, StdioServerParameters
from mcp.client import stdio
from mcp.server.lowlevel import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    CallToolRequest,
    CallToolRequestParams,
    CallToolResult,
    CompleteRequest,
    CompleteRequestParams,
    CompleteResult,
    GetPromptRequest,
    GetPromptRequestParams,
    GetPromptResult,
    ListPromptsRequest,
    ListPromptsResult,
    ListResourcesRequest,
    ListResourcesResult,
    ListResourceTemplatesRequest,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequest,
    ReadResourceRequestParams,
    ReadResourceResult,
    Request,
    Tool,
    ToolListChangedNotification,
)

from agentguard.adapters.lowlevel import LIVE
from agentguard.errors import ConfigurationError, raised
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence

    from mcp.server.context import ServerRequestContext
    from pydantic import BaseModel

    Context = ServerRequestContext[Any, Any]
    ResultT = TypeVar("ResultT", bound=BaseModel)

_LOG: Final = logging.getLogger("agentguard")
_SDK_LOG: Final = logging.getLogger(stdio.__name__)
_OURS: Final = "AGENTGUARD_"
_MOST_TOOLS: Final = 1_000
_MOST_PAGES: Final = 100
_START_SECONDS: Final = 120
_LIST_SECONDS: Final = 30
_LONGEST_NAME: Final = 256
_NO_ANSWER: Final = "The program behind this server gave no valid answer"


@asynccontextmanager
async def upstream(
    command: Sequence[str], *, environ: Mapping[str, str] | None = None, start_seconds: float = _START_SECONDS
) -> AsyncGenerator[Server[Any]]:
    """Run a program that speaks MCP over stdio, and give a server that stands for it.

    The program ends with the context. If it ends before, calls are answered by an error.

    Args:
        command: The program and its arguments.
        environ: Its environment, less what is ours; this process's if left out.
        start_seconds: How long it may take to answer, at the start.

    Raises:
        ConfigurationError: If it cannot be started, or does not speak MCP.
    """
    within = anyio.CancelScope(deadline=anyio.current_time() + start_seconds)
    started = False
    failure: Exception | None = None
    with within, _quiet():
        try:
            news = _News()
            async with _client(command, environ, news) as client:
                proxy = _Proxy(client, news, await _tools(client))
                within.deadline, started = math.inf, True
                server = proxy.server(name=_name(client, command))
                LIVE[server] = proxy
                try:
                    yield server
                except Exception as error:  # noqa: BLE001  raised again below, and not as one of a group
                    failure = error
        except Exception as error:  # noqa: BLE001  raised again below
            failure = failure or _refused(command, _first(error))
    if failure is not None:
        raise failure
    if not started:
        message = f"`{shlex.join(command)}` did not answer within {start_seconds:g} s: it has to speak MCP over stdio"
        raise ConfigurationError(message)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the program wrote out of the log: the SDK shows a line that is no message."""
    _SDK_LOG.addFilter(_without_traceback)
    try:
        yield
    finally:
        _SDK_LOG.removeFilter(_without_traceback)


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def _first(error: BaseException) -> BaseException:
    """Return what went wrong first: a task group makes a group of it."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def _refused(command: Sequence[str], error: BaseException) -> ConfigurationError:
    shown = shlex.join(command)
    if isinstance(error, ConfigurationError):
        return error
    if isinstance(error, FileNotFoundError):
        return ConfigurationError(f"`{shown}` cannot be started, `{error.filename}` is not there: mend the command")
    if isinstance(error, OSError):
        return ConfigurationError(f"`{shown}` cannot be started, {error.strerror}: mend the command")
    return ConfigurationError(f"`{shown}` did not answer as MCP wants it, got {type(error).__qualname__}: run it alone")


class _News:
    """What the program says of its own accord."""

    def __init__(self) -> None:
        self.watchers: list[Callable[[], None]] = []
        self.stale = False

    async def heard(self, message: object) -> None:
        """Take one notification."""
        if isinstance(message, ToolListChangedNotification):
            self.tools_changed()

    def tools_changed(self) -> None:
        """Let the tools be listed again."""
        self.stale = True
        for watcher in self.watchers:
            watcher()


def _client(command: Sequence[str], environ: Mapping[str, str] | None, news: _News) -> Client:
    own = dict(os.environ if environ is None else environ)
    # The SDK puts its defaults below what it is given: what is ours is not among them.
    environment = {name: value for name, value in own.items() if not name.startswith(_OURS)}
    parameters = StdioServerParameters(command=command[0], args=list(command[1:]), env=environment)
    # The handshake is what every program of today understands.
    return Client(parameters, mode="legacy", message_handler=news.heard)


def _name(client: Client, command: Sequence[str]) -> str:
    found = client.server_info
    # It is shown to people, and stands for the server in audiences and evidence.
    own = "" if found is None else printable(found.name[:_LONGEST_NAME])
    return own or os.path.basename(command[0])  # noqa: PTH119  a command's word


async def _tools(client: Client) -> list[Tool]:
    """Return the program's tools.

    Raises:
        ConfigurationError: If there is no end to them.
    """
    found: list[Tool] = []
    if client.server_capabilities.tools is None:
        return found
    cursor: str | None = None
    for _ in range(_MOST_PAGES):
        page = await client.session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        found += page.tools
        cursor = page.next_cursor
        if len(found) > _MOST_TOOLS:
            break
        if cursor is None:
            return found
    message = f"the program lists more than {_MOST_TOOLS} tools, or does so without end: serve a part of them"
    raise ConfigurationError(message)


class _Proxy:
    """Sends on what the guard let through."""

    def __init__(self, client: Client, news: _News, tools: list[Tool]) -> None:
        self._client = client
        self._news = news
        self._tools = tools
        # One list at a time: of two, the older could come last.
        self._listing = anyio.Lock()

    async def tools(self) -> list[Tool]:
        """Return the program's tools as they are now, or as they were last known."""
        async with self._listing:
            if self._news.stale:
                await self._list_again()
        return self._tools

    async def _list_again(self) -> None:
        # First, so that what changes while we wait is not overlooked.
        self._news.stale = False
        listed = False
        try:
            with anyio.fail_after(_LIST_SECONDS):
                self._tools = await _tools(self._client)
            listed = True
        except Exception as error:  # noqa: BLE001  another program's answer; what it is known to have is still judged
            _LOG.error("the program's tools cannot be listed again: %s", raised(error))
        finally:
            # What was not listed, for an error or because whoever asked left, is still to be.
            if not listed:
                self._news.tools_changed()

    def watch(self, changed: Callable[[], None]) -> None:
        """Call *changed* whenever the program says that its tools did."""
        self._news.watchers.append(changed)
        # What the guard was told of may have changed before it could listen.
        changed()

    def server(self, *, name: str) -> Server[Any]:
        """Return the server that stands for the program, with what the program says that it has."""
        has, info = self._client.server_capabilities, self._client.server_info
        handlers: dict[str, Any] = {"on_list_tools": self._list_tools, "on_call_tool": self._call_tool}
        if has.resources is not None:
            handlers |= {
                "on_list_resources": self._list_resources,
                "on_list_resource_templates": self._list_templates,
                "on_read_resource": self._read_resource,
            }
        if has.prompts is not None:
            handlers |= {"on_list_prompts": self._list_prompts, "on_get_prompt": self._get_prompt}
        if has.completions is not None:
            handlers["on_completion"] = self._complete
        return Server(
            name,
            version=info.version if info is not None else "",
            title=info.title if info is not None else None,
            instructions=self._client.instructions,
            **handlers,
        )

    async def _list_tools(self, _ctx: Context, _params: PaginatedRequestParams | None) -> ListToolsResult:
        return ListToolsResult(tools=await self.tools())

    async def _call_tool(self, ctx: Context, params: CallToolRequestParams) -> CallToolResult:
        async def progressed(progress: float, total: float | None, message: str | None) -> None:
            # To nobody, where the caller did not ask for it.
            await ctx.session.report_progress(progress, total, message)

        request = CallToolRequest(params=CallToolRequestParams(name=params.name, arguments=params.arguments))
        return await self._send(request, CallToolResult, progressed=progressed)

    async def _list_resources(self, _ctx: Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        return await self._send(ListResourcesRequest(params=_page(params)), ListResourcesResult)

    async def _list_templates(
        self, _ctx: Context, params: PaginatedRequestParams | None
    ) -> ListResourceTemplatesResult:
        return await self._send(ListResourceTemplatesRequest(params=_page(params)), ListResourceTemplatesResult)

    async def _read_resource(self, _ctx: Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        request = ReadResourceRequest(params=ReadResourceRequestParams(uri=params.uri))
        return await self._send(request, ReadResourceResult)

    async def _list_prompts(self, _ctx: Context, params: PaginatedRequestParams | None) -> ListPromptsResult:
        return await self._send(ListPromptsRequest(params=_page(params)), ListPromptsResult)

    async def _get_prompt(self, _ctx: Context, params: GetPromptRequestParams) -> GetPromptResult:
        request = GetPromptRequest(params=GetPromptRequestParams(name=params.name, arguments=params.arguments))
        return await self._send(request, GetPromptResult)

    async def _complete(self, _ctx: Context, params: CompleteRequestParams) -> CompleteResult:
        asked = CompleteRequestParams(ref=params.ref, argument=params.argument, context=params.context)
        return await self._send(CompleteRequest(params=asked), CompleteResult)

    async def _send(self, request: Request[Any, Any], kind: type[ResultT], *, progressed: Any = None) -> ResultT:
        """Ask the program. A call that is cancelled here is cancelled there.

        Raises:
            MCPError: The program's own error; or that it gave no valid answer.
        """
        try:
            return await self._client.session.send_request(request, kind, progress_callback=progressed)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001  another program's answer; whatever is wrong with it is its own
            _LOG.error("the program behind this server gave no valid answer: %s", type(error).__qualname__)
            raise MCPError(code=INTERNAL_ERROR, message=_NO_ANSWER) from None


def _page(params: PaginatedRequestParams | None) -> PaginatedRequestParams:
    return PaginatedRequestParams(cursor=None if params is None else params.cursor)
