"""An issuer on the loopback interface, so that the example has real tokens.

It publishes what a server looks for, its metadata and its keys; the tokens stay with
whoever runs it. (A real issuer hands them to agents that it has authenticated.) Run
alone, it prints what to try the server with::

    .venv/bin/python -m examples.records.issuer --port 8900 --server-port 8000
"""

import socket
from typing import Annotated, Final

import anyio
import typer
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from agentguard import Issuer, grant_text
from agentguard.identity.sources import stdio_audience

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"

BILLING_TOOLS: Final = ("read_record", "search_records", "update_record", "export_records")
SUPPORT_TOOLS: Final = ("read_record", "search_records", "update_record", "delete_record")


def issuer_app(issuer: Issuer) -> Starlette:
    """Return the two documents that a server asks for, RFC 8414's and RFC 7517's, as an application."""

    async def metadata(_: Request) -> JSONResponse:
        return JSONResponse(
            {
                "issuer": issuer.issuer,
                "jwks_uri": f"{issuer.issuer}/jwks",
                "response_types_supported": ["code"],
            }
        )

    async def keys(_: Request) -> JSONResponse:
        return JSONResponse(issuer.jwks())

    return Starlette(routes=[Route(METADATA_PATH, metadata), Route("/jwks", keys)])


def billing_token(issuer: Issuer, audience: str) -> str:
    """Return a token for one run of the billing agent, which acts for nobody."""
    return issuer.mint(
        agent="billing-agent",
        task="invoice-42",
        purpose="monthly close",
        grant=grant_text(tools=BILLING_TOOLS),
        audience=audience,
    )


def support_token(issuer: Issuer, audience: str) -> str:
    """Return a token for one run of the support agent, which acts for a user."""
    return issuer.mint(
        agent="support-agent",
        user="alice",
        task="ticket-7",
        grant=grant_text(tools=SUPPORT_TOOLS),
        audience=audience,
    )


def main(
    port: Annotated[int, typer.Option(help="Loopback port of the issuer; 0 picks one.")] = 8900,
    server_port: Annotated[int, typer.Option(help="Loopback port that the server will have.")] = 8000,
) -> None:
    """Publish the issuer's keys until stopped, and print tokens that last five minutes."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        issuer = Issuer(issuer=f"http://127.0.0.1:{listening.getsockname()[1]}")
        audience = f"http://127.0.0.1:{server_port}/mcp"
        print("# the server, over HTTP; then an agent's call carries `Authorization: Bearer $BILLING`")
        print(f".venv/bin/python -m examples.records.server --http {server_port} --issuer {issuer.issuer}")
        print(f"BILLING={billing_token(issuer, audience)}")
        print(f"SUPPORT={support_token(issuer, audience)}")
        print("# the server, over stdio, where the process has one run's token")
        print(f".venv/bin/python -m examples.records.server --stdio --issuer {issuer.issuer}")
        print(f"AGENTGUARD_TOKEN={billing_token(issuer, stdio_audience('records'))}", flush=True)
        config = uvicorn.Config(issuer_app(issuer), log_level="warning")
        anyio.run(uvicorn.Server(config).serve, [listening])


if __name__ == "__main__":
    typer.run(main)
