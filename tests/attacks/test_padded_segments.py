"""The trap: pyjwt accepts `=` padding, so that one token can be written in several ways."""

from __future__ import annotations

import base64
import json

from jwt.algorithms import get_default_algorithms

from agentguard.model import Reason
from tests.tokens import KEY, KEY_ID, make_claims, make_token, refusal_of, verified


def test_padded_signature_is_refused() -> None:
    """Nothing signs the signature's spelling: the same token would have a second text."""
    token = make_token()
    assert verified(token).run_id == "run-1"

    assert refusal_of(f"{token}==") is Reason.INVALID_TOKEN


def test_padded_header_and_payload_are_refused() -> None:
    """RFC 7515 has no padding, whoever signed it."""
    header = json.dumps({"alg": "ES256", "kid": KEY_ID, "typ": "at+jwt"})
    parts = [json.dumps(part).encode() for part in (json.loads(header), make_claims())]
    parts = [part + b" " * ((1 - len(part)) % 3) for part in parts]
    signed = ".".join(base64.urlsafe_b64encode(part).decode() for part in parts)
    signature = get_default_algorithms()["ES256"].sign(signed.encode(), KEY)
    assert signed.count("=") == 4

    token = f"{signed}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"

    assert refusal_of(token) is Reason.INVALID_TOKEN
