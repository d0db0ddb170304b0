from __future__ import annotations

import json

import pytest

from agentguard.errors import Refusal
from agentguard.identity.form import Peeked, peek, read_object
from agentguard.limits import Limits
from agentguard.model import Reason
from tests.tokens import ISSUER, KEY_ID, NOW, base64url, make_claims, make_token, sign

TOKEN = make_token()
HEADER, PAYLOAD, SIGNATURE = TOKEN.split(".")


def test_token_tells_whose_it_claims_to_be() -> None:
    """The header and two claims are read; the signature is not looked at."""
    expected = Peeked(issuer=ISSUER, key_id=KEY_ID, algorithm="ES256", type="at+jwt", expires_at=NOW + 300)

    assert peek(f"{HEADER}.{PAYLOAD}.AAAA", Limits()) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        "..",
        "a.b",
        "a.b.c",
        f"{TOKEN}.x",
        f"{TOKEN}\n",
        f" {TOKEN}",
        f"{HEADER}..{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}.",
        f"{HEADER}.{PAYLOAD}é.{SIGNATURE}",
        f"{HEADER}.{PAYLOAD}+.{SIGNATURE}",
        f"{HEADER}.AAAAA.{SIGNATURE}",
        f"{HEADER}.{base64url(b'[]')}.{SIGNATURE}",
        f"{HEADER}.{base64url(b'7')}.{SIGNATURE}",
        f"{HEADER}.{base64url(bytes([0xFF]))}.{SIGNATURE}",
        f"{HEADER}.{base64url(b'{')}.{SIGNATURE}",
        "a" * (16 * 1024 + 1),
    ],
)
def test_text_that_has_not_a_token_s_form_is_refused(text: str) -> None:
    """Nothing is parsed that does not look like a token from end to end."""
    with pytest.raises(Refusal) as caught:
        peek(text, Limits())

    assert caught.value.reason is Reason.INVALID_TOKEN


@pytest.mark.parametrize("value", [None, 7, b"a.b.c"])
def test_value_that_is_no_string_is_refused(value: object) -> None:
    """A caller outside the type checker's reach gets a refusal too."""
    with pytest.raises(Refusal):
        peek(value, Limits())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"iss": NaN}',
        b'{"exp": Infinity}',
        b'{"deep": ' + b"[" * 33 + b"]" * 33 + b"}",
        b'{"deep": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"number": ' + b"9" * 5000 + b"}",
        b'\xef\xbb\xbf{"iss": "a"}',
    ],
)
def test_json_that_readers_disagree_about_is_refused(payload: bytes) -> None:
    """Constants that JSON does not have, bottomless nesting, endless numbers, a mark of byte order."""
    with pytest.raises(Refusal) as caught:
        peek(sign(payload), Limits())

    assert caught.value.reason is Reason.INVALID_TOKEN


def test_nesting_within_the_bound_is_read() -> None:
    """The bound leaves room for what real tokens hold."""
    deep: object = "x"
    for _ in range(30):
        deep = [deep]

    assert peek(sign(make_claims(deep=deep)), Limits()).issuer == ISSUER


def test_object_without_repeated_members_is_read() -> None:
    """The strict reader gives what JSON says."""
    value = {"a": [1, {"b": None}], "c": "ü"}

    assert read_object(json.dumps(value).encode()) == value
