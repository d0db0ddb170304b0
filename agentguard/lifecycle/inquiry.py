"""What becomes of tokens that were given out: revocation (RFC 7009), introspection (RFC 7662).

Both are about runs. Whoever revokes a token ends its run, and a token is active for as
long as its run lives in the store.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from agentguard.errors import Refusal
from agentguard.identity.form import unverified
from agentguard.lifecycle.asked import reject
from agentguard.lifecycle.exchange import OUTAGES
from agentguard.limits import Limits

if TYPE_CHECKING:
    from agentguard.lifecycle.clients import Client
    from agentguard.lifecycle.issuer import Issuer
    from agentguard.lifecycle.runs import Run

INACTIVE: Final[dict[str, object]] = {"active": False}
"""All that is said of a token that is not active, or that is none of the asker's business."""

_LOG: Final = logging.getLogger("agentguard")
_LIMITS: Final = Limits()


def revoke(issuer: Issuer, client: Client, token: str) -> None:
    """End the run of a token, and with it every run that stems from it.

    A token that says nothing to us is as good as revoked. One whose own end has passed
    still names its run, which may live on.

    Args:
        issuer: Whose token it should be.
        client: Who asks, authenticated: it was given the token, or is an agent that the
            run stems from.
        token: The token.

    Raises:
        OAuthError: ``invalid_grant``: it was given to another client.
        Refusal: The store or the evidence is not to be had now.
    """
    run = _run_of(issuer, token, expired=True)
    if run is None:
        return
    invocation = run.invocation
    above = {link.agent for link in invocation.ancestors}
    if client.client_id != invocation.client_id and client.client_id not in above:
        reject("invalid_grant", "token was issued to another client")
    run.end(f"revoked by client {client.client_id}")
    _LOG.info("client `%s` ended run `%s`", client.client_id, run.id)


def introspect(issuer: Issuer, client: Client, token: str) -> dict[str, object]:
    """Return what a token says, if it is active and this client may know.

    Args:
        issuer: Whose token it should be.
        client: Who asks, authenticated: it was given the token, or it is a server that
            the token is for and may ask.
        token: The token.

    Raises:
        Refusal: The store is not to be had now.
    """
    run = _run_of(issuer, token)
    if run is None or not _concerns(run, client) or not run.live:
        return INACTIVE
    # Ours last: a further claim must not speak for the answer.
    return {**unverified(token, _LIMITS)[1], "active": True, "token_type": "Bearer"}


def _concerns(run: Run, client: Client) -> bool:
    if run.invocation.client_id == client.client_id:
        return True
    return client.may_introspect and run.facts.audience in (client.audiences or ())


def _run_of(issuer: Issuer, token: str, *, expired: bool = False) -> Run | None:
    try:
        return issuer.resume(token, expired=expired)
    except Refusal as refusal:
        if refusal.reason in OUTAGES:
            raise
        _LOG.info("a token was not recognised: %s: %s", refusal.reason, refusal.detail)
        return None
