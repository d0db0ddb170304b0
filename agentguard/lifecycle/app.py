"""The issuer over HTTP: metadata, keys, and the endpoints for tokens.

This reads requests and words answers; what is asked for is judged by `lifecycle.clients`,
`lifecycle.exchange` and `lifecycle.inquiry`. Starlette is imported here alone.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from agentguard.errors import ConfigurationError, OAuthError, Refusal, raised
from agentguard.identity.jwk import ASYMMETRIC
from agentguard.identity.keys import acceptable
from agentguard.identity.token import GRANT_TYPE
from agentguard.lifecycle.asked import EXCHANGE, reject
from agentguard.lifecycle.clients import Clients
from agentguard.lifecycle.exchange import OUTAGES, Exchange
from agentguard.lifecycle.inquiry import introspect, revoke
from agentguard.model import Reason, printable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from starlette.requests import Request

    from agentguard.identity.verifier import InvocationVerifier
    from agentguard.lifecycle.clients import Client
    from agentguard.lifecycle.issuer import Issuer
    from agentguard.lifecycle.store import Store

_PATHS: Final = {"token": "token", "revocation": "revoke", "introspection": "introspect"}

BODY_BYTES: Final = 64 * 1024
"""The largest body of a request: three tokens of 16 KiB, and the rest."""

FIELDS: Final = 32
"""The most parameters of a request."""

_LOG: Final = logging.getLogger("agentguard")
_FORM: Final = "application/x-www-form-urlencoded"
_METHOD: Final = "private_key_jwt"
_RETRY_SECONDS: Final = 5
_DESCRIPTION_CHARACTERS: Final = 500
_SEVERAL: Final = frozenset({"audience", "resource"})
_NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_NOT_IN_DESCRIPTION: Final = re.compile(r'[^\x20-\x7e]|["\\]')  # RFC 6749 appendix A.8

Form = tuple[dict[str, str], list[str]]
"""The parameters that come once, and the values of ``audience`` and ``resource``."""


def create_app(
    issuer: Issuer,
    *,
    store: Store,
    clients: Iterable[Client],
    trusted: InvocationVerifier | None,
    clock: Callable[[], float],
) -> Starlette:
    """Return the issuer's application, as `Issuer.app` describes it."""
    base, path = _base(issuer.issuer)
    known = Clients(
        clients,
        issuer=issuer.issuer,
        endpoint=f"{base}/token",
        audience=issuer.audience,
        store=store,
        clock=clock,
    )
    service = _Service(issuer, known, Exchange(issuer, known, trusted, clock=clock), base, clock)
    app = Starlette(
        routes=[
            # RFC 8414 section 3.1: the well-known part comes before an issuer's path.
            Route(f"/.well-known/oauth-authorization-server{path}", service.metadata, methods=["GET"]),
            Route(f"{path}/.well-known/jwks.json", service.jwks, methods=["GET"]),
            Route(f"{path}/token", service.token, methods=["POST"]),
            Route(f"{path}/revoke", service.revoke, methods=["POST"]),
            Route(f"{path}/introspect", service.introspect, methods=["POST"]),
        ]
    )
    # A client must not be sent elsewhere with what it signed.
    app.router.redirect_slashes = False
    return app


class _Service:
    """What answers at each path."""

    def __init__(
        self, issuer: Issuer, clients: Clients, exchange: Exchange, base: str, clock: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._clients = clients
        self._exchange = exchange
        self._base = base
        self._clock = clock

    async def metadata(self, request: Request) -> Response:  # noqa: ARG002  there is nothing to ask
        """Answer as RFC 8414 section 2."""
        base, algorithms = self._base, sorted(ASYMMETRIC)
        endpoints: dict[str, object] = {}
        for name in ("token", "revocation", "introspection"):
            endpoints[f"{name}_endpoint"] = f"{base}/{_PATHS[name]}"
            endpoints[f"{name}_endpoint_auth_methods_supported"] = [_METHOD]
            endpoints[f"{name}_endpoint_auth_signing_alg_values_supported"] = algorithms
        return JSONResponse(
            {
                "issuer": self._issuer.issuer,
                "jwks_uri": f"{base}/.well-known/jwks.json",
                "grant_types_supported": [EXCHANGE],
                # There is no authorization endpoint, yet the member is required.
                "response_types_supported": [],
                "authorization_details_types_supported": [GRANT_TYPE],
                **endpoints,
            },
            headers={"Cache-Control": "no-cache"},
        )

    async def jwks(self, request: Request) -> Response:  # noqa: ARG002  there is nothing to ask
        """Answer with the public keys; a cache would hide one that is to sign soon."""
        return JSONResponse(self._issuer.jwks(), headers={"Cache-Control": "no-cache"})

    async def token(self, request: Request) -> Response:
        """Answer as RFC 8693 section 2.2.1, with the grant as RFC 9396 section 7."""

        async def answer(client: Client, form: Form) -> dict[str, object]:
            exchanged = await self._exchange.exchange(client, *form)
            issued, facts = exchanged.issued, exchanged.facts
            return {
                "access_token": issued.token,
                "issued_token_type": exchanged.kind,
                "token_type": "Bearer",
                "expires_in": max(issued.expires_at - int(self._clock()), 0),
                "scope": " ".join(sorted(facts.scopes)),
                "authorization_details": [{"type": GRANT_TYPE, "cedar": facts.grant}],
                "run": facts.run_id,
                "run_exp": facts.ends_at,
            }

        return await self._answered(request, answer)

    async def revoke(self, request: Request) -> Response:
        """Answer as RFC 7009 section 2.2: with nothing, since nothing is left to say."""

        async def answer(client: Client, form: Form) -> None:
            await anyio.to_thread.run_sync(revoke, self._issuer, client, _token_of(form))

        return await self._answered(request, answer)

    async def introspect(self, request: Request) -> Response:
        """Answer as RFC 7662 section 2.2."""

        async def answer(client: Client, form: Form) -> dict[str, object]:
            return await anyio.to_thread.run_sync(introspect, self._issuer, client, _token_of(form))

        return await self._answered(request, answer)

    async def _answered(
        self, request: Request, answer: Callable[[Client, Form], Awaitable[Mapping[str, object] | None]]
    ) -> Response:
        """Authenticate the client and answer it; whatever goes wrong is an error of the RFC's."""
        client: Client | None = None
        try:
            form = await _form(request)
            client = await self._clients.authenticate(form[0])
            content = await answer(client, form)
        except ClientDisconnect:
            # Nobody reads it; and whoever hangs up must not fill the log.
            return Response(status_code=400)
        except OAuthError as error:
            _log_refused(request, client, error)
            return _error(request, error.error, error.description)
        except Refusal as refusal:
            if refusal.reason in OUTAGES | {Reason.UNAUTHENTICATED}:
                _LOG.warning("a request could not be answered: %s: %s", refusal.reason, refusal.detail)
                return _unavailable()
            return self._failed(request, refusal)
        # Nothing is given out by what went wrong in a way that nobody thought of.
        except Exception as error:  # noqa: BLE001
            return self._failed(request, error)
        return Response(headers=_NO_STORE) if content is None else JSONResponse(dict(content), headers=_NO_STORE)

    @staticmethod
    def _failed(request: Request, error: Exception) -> Response:
        _LOG.error("%s stopped, because %s", request.url.path, raised(error))
        return JSONResponse({"error": "server_error"}, status_code=500, headers=_NO_STORE)


def _log_refused(request: Request, client: Client | None, error: OAuthError) -> None:
    """Log why a request was refused, which the answer does not say where a token or a client is not accepted."""
    cause = error.__cause__
    why = f": {cause.reason}: {cause.detail}" if isinstance(cause, Refusal) else ""
    whose = "" if client is None else f" of client `{client.client_id}`"
    line = f"refused a request{whose} at {request.url.path}, {error.error}: {error.description}{why}"
    _LOG.info("%s", printable(line))


def _base(issuer: str) -> tuple[str, str]:
    """Return the issuer's URL without a slash at its end, and its path likewise."""
    if not acceptable(issuer, loopback=True) or not {"?", "#"}.isdisjoint(issuer):
        message = f"an issuer that is served wants an https URL, or http on loopback, got `{issuer}`: give its URL"
        raise ConfigurationError(message)
    return issuer.rstrip("/"), urlsplit(issuer).path.rstrip("/")


async def _form(request: Request) -> Form:
    """Read a form in which each parameter comes once, but for those that may come again (RFC 8693 section 2.1)."""
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    if scheme:
        reject("invalid_client", "clients authenticate with private_key_jwt alone")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM or request.url.query:
        reject("invalid_request", f"a request wants its parameters in a body of type {_FORM}")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > BODY_BYTES:
            reject("invalid_request", f"a request has at most {BODY_BYTES} bytes")
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=True, errors="strict", max_num_fields=FIELDS
        )
    except ValueError:
        reject("invalid_request", f"a request wants a form of at most {FIELDS} parameters")
    # RFC 6749 section 3.1: one without a value is as good as left out. It counts as a repetition all the same.
    once = [name for name, _ in pairs if name not in _SEVERAL]
    if len(set(once)) < len(once):
        reject("invalid_request", "a parameter occurs twice")
    given = [(name, value) for name, value in pairs if value]
    return (
        {name: value for name, value in given if name not in _SEVERAL},
        [value for name, value in given if name in _SEVERAL],
    )


def _token_of(form: Form) -> str:
    token = form[0].get("token")
    if token is None:
        reject("invalid_request", "token is missing")
    return token


def _error(request: Request, error: str, description: str) -> Response:
    """Answer as RFC 6749 section 5.2."""
    headers = dict(_NO_STORE)
    status = 400
    if error == "invalid_client":
        status = 401
        # With the scheme that the client tried, though none will do.
        scheme = request.headers.get("authorization", "").partition(" ")[0]
        if re.fullmatch(r"[A-Za-z0-9-]{1,20}", scheme):
            headers["WWW-Authenticate"] = scheme
    described = _NOT_IN_DESCRIPTION.sub("?", description)[:_DESCRIPTION_CHARACTERS]
    return JSONResponse({"error": error, "error_description": described}, status_code=status, headers=headers)


def _unavailable() -> Response:
    headers = {**_NO_STORE, "Retry-After": str(_RETRY_SECONDS)}
    description = "the issuer cannot answer now: try again later"
    return JSONResponse(
        {"error": "temporarily_unavailable", "error_description": description}, status_code=503, headers=headers
    )
