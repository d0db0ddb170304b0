"""`agentguard issuer`: serve an issuer's endpoints."""

from __future__ import annotations

import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from agentguard.cli.issuing import open_issuer, open_store
from agentguard.cli.output import result, say
from agentguard.cli.registry import Registry, read_registry
from agentguard.cli.serving import http_server, listening, logging_shown
from agentguard.evidence.chainfile import FOLDER
from agentguard.evidence.durable import SQLiteLedger
from agentguard.host.atend import call_at_end
from agentguard.lifecycle.store import MemoryStore, Store

if TYPE_CHECKING:
    from agentguard.lifecycle.clients import Client
    from agentguard.lifecycle.issuer import Issuer


def issuer(
    *,
    issuer: Annotated[str, typer.Option("--issuer", metavar="URL", help="The issuer's URL, as clients see it.")],
    issuer_key: Annotated[Path, typer.Option("--issuer-key", metavar="FILE", help="Its private key, PEM or JWK.")],
    store: Annotated[
        str, typer.Option("--store", metavar="FILE|URL", help="Where runs are on record: a file, or valkey://….")
    ],
    clients: Annotated[
        Path, typer.Option("--clients", metavar="FILE", help="The clients, and the issuers that are trusted, in TOML.")
    ],
    audience: Annotated[
        str | None, typer.Option("--audience", metavar="URI", help="The server of clients that list none.")
    ] = None,
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", metavar="NUMBER", help="The port.", min=1, max=65_535)] = 8080,
    state: Annotated[
        Path | None, typer.Option("--state", metavar="FOLDER", help="Where the evidence of its runs is kept.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Print what would be served, and exit.")] = False,
) -> None:
    """Serve an issuer: token exchange, revocation, introspection, keys and metadata.

    It speaks HTTP: TLS ends in front of it. A client authenticates with `private_key_jwt`.

    Example: `agentguard issuer --issuer https://issuer.example --issuer-key issuer.pem --store runs.db --clients FILE`
    """
    registry = read_registry(clients, issuer=issuer)
    opens = _store_as_it_is if check else open_store
    with ExitStack() as closing_all:
        ledger = None
        if state is not None and not check:
            ledger = closing_all.enter_context(closing(SQLiteLedger(state / FOLDER)))
            # The server ends the process by the signal that it was told to stop with.
            call_at_end(ledger.close)
        opened = open_issuer(
            issuer=issuer, issuer_key=issuer_key, store=store, audience=audience, opens=opens, ledger=ledger
        )
        used = closing_all.enter_context(closing(cast("Store", opened.store)))
        app = opened.app(clients=registry.clients, trusted=registry.trusted)
        used.require_healthy()
        if check:
            result("\n".join(_lines(opened, registry, f"{host}:{port}")))
            return
        with listening(host, port, option="--host and --port") as listens, logging_shown():
            number = len(registry.clients)
            say(f"agentguard: serving {issuer} on {host}:{port}, for {number} client{'s' * (number != 1)}")
            http_server(app).run(sockets=[listens])


def _store_as_it_is(text: str) -> Store:
    """Return the store; where it is a file that is not there yet, whoever only looks makes none."""
    if "://" in text or Path(text).exists():
        return open_store(text)
    return MemoryStore(clock=time.time)


def _lines(opened: Issuer, registry: Registry, address: str) -> list[str]:
    lines = [f"{opened.issuer} on {address}"]
    lines += [_client(client, opened.audience) for client in registry.clients]
    if registry.trusted is not None:
        lines += [f"trusted  {one}" for one in registry.trusted.issuers]
    return lines


def _client(client: Client, usual: str | None) -> str:
    may = " and ".join(
        word for word, allowed in (("exchange", client.may_exchange), ("introspect", client.may_introspect)) if allowed
    )
    audiences = ", ".join(sorted(client.audiences or [str(usual)]))
    line = f"client   {client.client_id}: may {may}, for {audiences}"
    if not client.may_exchange:
        return line
    return f"{line}, scopes {', '.join(sorted(client.scopes)) or 'none'}, runs up to {client.longest} s"
