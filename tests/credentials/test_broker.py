import base64
import math
import pickle
from collections.abc import Collection
from typing import Any

import pytest

from agentguard.credentials.broker import CredentialBroker, CredentialRequest, IssuedCredential, names_of
from agentguard.errors import ConfigurationError, CredentialError, raised
from tests import leaks
from tests.credentials.token_server import SUBJECT_TOKEN, wanting

SECRET = "s3cr3t-of-the-crm"


class Broker:
    """A broker as a developer writes it."""

    def __init__(self, names: Any = ("crm", "erp")) -> None:
        self.names: Collection[str] = names

    async def issue(self, request: CredentialRequest, /) -> IssuedCredential:
        """Give the same to everybody."""
        return make_issued()

    async def renew(self, issued: IssuedCredential, request: CredentialRequest, /) -> IssuedCredential:
        """Give it again."""
        return issued

    async def release(self, issued: IssuedCredential, name: str, /) -> None:
        """Do nothing."""


class NoRelease:
    """What forgot one method, and does another one without waiting."""

    names = ("crm",)

    async def issue(self, request: object) -> None:
        """Give nothing."""

    def renew(self, issued: object, request: object) -> None:
        """Give nothing."""


def make_issued(**changes: Any) -> IssuedCredential:
    """Return what a broker may give, with changes."""
    return IssuedCredential(
        **{"secret": leaks.register(SECRET), "expires_at": 1_800_000_300, "lease_id": "l-1", **changes}
    )


def test_broker_of_a_developer_fits_the_protocol() -> None:
    """Its names are what policies may name."""
    broker: CredentialBroker = Broker()

    assert names_of(broker) == {"crm", "erp"}


def test_values_do_not_show_what_they_hold() -> None:
    """Neither the run's token nor the secret nor what renews it."""
    issued = make_issued(renewal=leaks.register("the refresh token"))

    assert repr(issued) == "IssuedCredential(expires_at=1800000300, lease_id='l-1', token_type='Bearer')"
    assert SUBJECT_TOKEN not in repr(wanting())


def test_all_that_is_secret_is_told_apart() -> None:
    """A user's name beside a password is none."""
    whole = leaks.register('{"user": "u-1", "password": "the-password-of-it"}')

    issued = make_issued(secret=whole, parts=("the-password-of-it",), renewal="the refresh token")

    assert issued.secrets == (whole, "the-password-of-it", "the refresh token")
    assert make_issued().secrets == (SECRET,)


def test_values_are_compared_by_identity() -> None:
    """A hash or a comparison of contents would be one of secrets."""
    assert make_issued() != make_issued()
    assert wanting() != wanting()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"secret": b"s3cr3t-of-the-crm"}, "a secret that is no string of 16 to 16384 characters"),
        ({"secret": "fifteen letters"}, "a secret that is no string of 16 to 16384 characters"),
        ({"secret": "s" * 16_385}, "a secret that is no string of 16 to 16384 characters"),
        ({"renewal": ""}, "a secret that is no string of 16 to 16384 characters"),
        ({"expires_at": math.nan}, "no end of the credential, in unix seconds"),
        ({"expires_at": math.inf}, "no end of the credential, in unix seconds"),
        ({"expires_at": 0}, "no end of the credential, in unix seconds"),
        # No record can hold these, and the last is no float.
        ({"expires_at": 253_402_300_800}, "no end of the credential, in unix seconds"),
        ({"expires_at": 1e300}, "no end of the credential, in unix seconds"),
        ({"expires_at": 10**400}, "no end of the credential, in unix seconds"),
        ({"expires_at": True}, "no end of the credential, in unix seconds"),
        ({"expires_at": None}, "no end of the credential, in unix seconds"),
        ({"lease_id": ""}, "a lease id that is no printable text of 1 to 256 characters"),
        ({"lease_id": "l\n1"}, "a lease id that is no printable text of 1 to 256 characters"),
        ({"lease_id": "l" * 257}, "a lease id that is no printable text of 1 to 256 characters"),
        ({"lease_id": f"lease/{SECRET}"}, "a lease id that holds the secret"),
        ({"lease_id": base64.b64encode(b"crm:" + SECRET.encode()).decode()}, "a lease id that holds the secret"),
        ({"lease_id": SECRET.encode().hex()}, "a lease id that holds the secret"),
        ({"secret": "a" * 20, "lease_id": f"lease-{'a' * 20}"}, "a lease id that holds the secret"),
        ({"parts": ("short",)}, "a secret that is no string of 16 to 16384 characters"),
        (
            {"lease_id": "for-database/the-password-of-it", "parts": ("the-password-of-it",)},
            "a lease id that holds the secret",
        ),
        ({"lease_id": "the refresh token", "renewal": "the refresh token"}, "a lease id that holds the secret"),
        ({"token_type": ""}, "no type of the credential"),
    ],
)
def test_what_no_broker_may_give_is_refused(changes: dict[str, Any], problem: str) -> None:
    """A credential without an end, with a secret that anybody could guess, or a lease id that tells it."""
    with pytest.raises(CredentialError) as caught:
        make_issued(**changes)

    assert (caught.value.detail, caught.value.retry) == (f"the broker gave {problem}", False)


@pytest.mark.parametrize(
    ("broker", "problem"),
    [
        (NoRelease(), "`broker` wants a CredentialBroker, got `NoRelease`: write `async def renew`"),
        (Broker(names="crm"), "`broker` wants `names`, the credentials that it gives, got `'crm'`: list them"),
        (Broker(names=()), "`broker` wants `names`, the credentials that it gives, got `()`: list them"),
        (Broker(names=None), "`broker` wants `names`, the credentials that it gives, got `None`: list them"),
        (
            Broker(names=["crm", "e\nrp"]),
            "`broker` wants names of 1 to 256 printable characters, got `'e\\nrp'`: change it",
        ),
    ],
)
def test_what_is_no_broker_is_refused_with_the_fix(broker: Any, problem: str) -> None:
    """When the server is set up, and not at its first call."""
    with pytest.raises(ConfigurationError) as caught:
        names_of(broker)

    assert str(caught.value) == problem


def test_error_says_nothing_to_a_caller() -> None:
    """Its text is constant; why stands on it, for the log."""
    error = CredentialError("the authorization server answered 400, `invalid_grant`")

    assert (str(error), error.retry) == ("no credential", False)
    assert raised(error) == "no credential: the authorization server answered 400, `invalid_grant`"


def test_error_survives_another_process() -> None:
    """Whatever carries exceptions between processes."""
    assert pickle.loads(pickle.dumps(CredentialError("away", retry=True))).args == ("no credential",)  # noqa: S301  made here
