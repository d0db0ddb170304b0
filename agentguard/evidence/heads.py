"""Signed heads: how far a chain went, in words that nobody without the server's key can write.

A head is a record of its own. It names the record right before it, so whoever changes
anything earlier has to sign again. The last one lies beside the chain's file too: a chain
that ends before it was cut. Whoever has the key, or puts an older head back, can still
lie; against that helps only a head that was delivered elsewhere.

Heads and stubs are JWS (RFC 7515, compact; EdDSA as in RFC 8037), so any library checks them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Self

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from agentguard.errors import ConfigurationError
from agentguard.evidence.record import record
from agentguard.evidence.vocabulary import RecordKind
from agentguard.host.private import private_bytes, read_small, replace
from agentguard.model import canonical_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agentguard.evidence.ledger import Entry
    from agentguard.evidence.vocabulary import AttributeValue

_LOG: Final = logging.getLogger("agentguard")

KEY: Final = "head.key"
PUBLIC_KEY: Final = "head.jwk"
SUFFIX: Final = ".head"

_TYPE: Final = {"head": "agentguard-head", "stub": "agentguard-stub"}
_SIGNED_BYTES: Final = 4096


class Occasion(StrEnum):
    """Why a head was signed."""

    BEGIN = "begin"
    CONTINUE = "continue"
    RUNNING = "running"
    STOP = "stop"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """How far a chain went at a moment.

    Attributes:
        chain_id: The chain.
        seq: Its last record then; 0 before the first.
        hash: That record's hash.
        time_unix_nano: When.
        every: At most how many records come before the next head.
        occasion: Why it was signed.
    """

    chain_id: str
    seq: int
    hash: str
    time_unix_nano: int
    every: int
    occasion: Occasion


@dataclass(frozen=True, slots=True, kw_only=True)
class Stub:
    """Where a chain begins since its older records were pruned.

    Attributes:
        chain_id: The chain.
        seq: The last record that may be gone.
        hash: That record's hash.
        time_unix_nano: When it was pruned.
        older_than: Nothing that is gone was younger than this, unix nanoseconds.
    """

    chain_id: str
    seq: int
    hash: str
    time_unix_nano: int
    older_than: int


class BadSignature(ValueError):  # noqa: N818  what it is, not what went wrong
    """A head or a stub was not signed by the key that it should be signed by."""


class OtherKey(BadSignature):
    """It was signed by another key than the one that was asked.

    Attributes:
        key: What that key is called.
    """

    def __init__(self, key: object, wanted: str) -> None:
        super().__init__(f"it is signed by another key, `{key}`, wanted `{wanted}`")
        self.key = str(key)


class HeadKey:
    """The server's key for its heads, made once in its evidence folder."""

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicHeadKey(key.public_key())

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Read the key of an evidence folder, or make one.

        Raises:
            ConfigurationError: It is not ours alone, cannot be read, or is not such a key.
        """
        path = folder / KEY
        text = private_bytes(path, _new_key)
        try:
            key = load_pem_private_key(text, password=None)
        except (ValueError, TypeError) as error:
            message = f"`{path}` wants an Ed25519 key as PEM, got none: move it away for a new one"
            raise ConfigurationError(message) from error
        if not isinstance(key, Ed25519PrivateKey):
            message = f"`{path}` wants an Ed25519 key, got `{type(key).__name__}`: move it away for a new one"
            raise ConfigurationError(message)
        made = cls(key)
        public = folder / PUBLIC_KEY
        text = made.public.text().encode()
        try:
            if not public.is_file() or public.read_bytes() != text:
                replace(public, text)
        except OSError as error:
            message = f"`{public}` cannot be written: {error.strerror}: it is the public half of `{path}`"
            raise ConfigurationError(message) from error
        return made

    def sign(self, what: Head | Stub) -> str:
        """Return *what* as a signed text."""
        kind = "head" if isinstance(what, Head) else "stub"
        header = {"alg": "EdDSA", "kid": self.public.id, "typ": _TYPE[kind]}
        signed = f"{_b64(canonical_json(header).encode())}.{_b64(canonical_json(asdict(what)).encode())}"
        return f"{signed}.{_b64(self._key.sign(signed.encode()))}"


class PublicHeadKey:
    """The half that checks heads.

    Attributes:
        id: Its JWK thumbprint (RFC 7638).
    """

    def __init__(self, key: Ed25519PublicKey) -> None:
        self._key = key
        x = _b64(key.public_bytes(Encoding.Raw, PublicFormat.Raw))
        self._needed = {"crv": "Ed25519", "kty": "OKP", "x": x}
        self.id = _b64(hashlib.sha256(canonical_json(self._needed).encode()).digest())

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a JWK.

        Raises:
            ConfigurationError: It is not there, or not such a key.
        """
        try:
            jwk = json.loads(read_small(path))
            if (jwk["kty"], jwk["crv"]) != ("OKP", "Ed25519"):
                message = (
                    f"`{path}` wants an Ed25519 key as a JWK, got `{jwk['kty']}`, `{jwk['crv']}`: name `{PUBLIC_KEY}`"
                )
                raise ConfigurationError(message)
            return cls(Ed25519PublicKey.from_public_bytes(_unb64(jwk["x"])))
        except FileNotFoundError:
            message = f"`{path}` is not there: put it back, or name a copy of it with --key"
            raise ConfigurationError(message) from None
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            message = f"`{path}` wants an Ed25519 key as a JWK, got {type(error).__name__}: name `{PUBLIC_KEY}`"
            raise ConfigurationError(message) from error

    def text(self) -> str:
        """Return it as a JWK."""
        return canonical_json({**self._needed, "alg": "EdDSA", "kid": self.id, "use": "sig"}) + "\n"

    def head(self, text: str) -> Head:
        """Return what a signed head says.

        Raises:
            BadSignature: It is not one of this key.
        """
        said = self._open(text, _TYPE["head"])
        try:
            head = Head(**{**said, "occasion": Occasion(said["occasion"])})  # type: ignore[arg-type]
        except (TypeError, ValueError, KeyError) as error:
            raise BadSignature(_NOT_A_HEAD) from error
        return head

    def stub(self, text: str) -> Stub:
        """Return what a signed stub says.

        Raises:
            BadSignature: It is not one of this key.
        """
        said = self._open(text, _TYPE["stub"])
        try:
            return Stub(**said)  # type: ignore[arg-type]
        except TypeError as error:
            raise BadSignature(_NOT_A_HEAD) from error

    def _open(self, text: str, kind: str) -> dict[str, object]:
        if len(text) > _SIGNED_BYTES:
            raise BadSignature(_NOT_A_HEAD)
        try:
            signed, _, signature = text.rpartition(".")
            header_text, _, payload = signed.partition(".")
            header = json.loads(_unb64(header_text))
            if header != {"alg": "EdDSA", "kid": header["kid"], "typ": kind}:
                raise BadSignature(_NOT_A_HEAD)
            if header["kid"] != self.id:
                raise OtherKey(header["kid"], self.id)
            self._key.verify(_unb64(signature), signed.encode())
            said: dict[str, object] = json.loads(_unb64(payload))
        except InvalidSignature as error:
            message = "its signature does not hold"
            raise BadSignature(message) from error
        except BadSignature:
            raise
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise BadSignature(_NOT_A_HEAD) from error
        return said


_NOT_A_HEAD: Final = "it is not in the form of a signed one"


def signed_head(entry: Entry) -> str | None:
    """Return the signed head in a record of that kind; None for any other."""
    # Read only where it can be one: this is asked of every record of a chain.
    if '"agentguard.evidence.head":' not in entry.text:
        return None
    try:
        found = entry.record
        if found["kind"] == RecordKind.HEAD:
            signed = found["attributes"]["agentguard.evidence.head"]
            return signed if isinstance(signed, str) else None
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return None


def head_record(signed: str, at: float) -> str:
    """Return the text of the record that a signed head is."""
    attributes: dict[str, AttributeValue] = {"agentguard.evidence.head": signed}
    return canonical_json(record(RecordKind.HEAD, attributes, at=at))


def put_beside(path: Path, signed: str, *, first: bool = False) -> None:
    """Put the last head of the chain in *path* beside it; logged if that is not possible.

    Raises:
        OSError: It is the first one. Then the chain is gone too: with records and without a
            head it would look as if somebody had cut it.
    """
    try:
        replace(head_file(path), f"{signed}\n".encode())
    except OSError as error:
        if first:
            path.unlink()
            raise
        # The chain has it; the older one beside it still holds.
        _LOG.warning("`%s` could not be written: %s", head_file(path), error.strerror)


def read_beside(path: Path) -> str:
    """Return the last head of the chain in *path*, as it lies beside it.

    Raises:
        OSError: It is not there, or cannot be one.
    """
    return read_small(head_file(path)).decode("ascii", "replace").strip()


def head_file(path: Path) -> Path:
    """Return where the last head of the chain in *path* lies beside it."""
    return path.with_suffix(SUFFIX)


def head_files(folder: Path) -> Iterable[Path]:
    """Return the last heads of all chains that a folder had."""
    return sorted(path for path in folder.glob(f"*{SUFFIX}") if not path.name.startswith("."))


def _new_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def _b64(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def _unb64(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError from error
