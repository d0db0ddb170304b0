import json
from pathlib import Path

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from agentguard.errors import ConfigurationError
from agentguard.evidence import heads
from agentguard.evidence.heads import BadSignature, Head, HeadKey, Occasion, PublicHeadKey, Stub, signed_head
from agentguard.evidence.ledger import Entry
from agentguard.model import canonical_json

HEAD = Head(chain_id="c", seq=7, hash="a" * 64, time_unix_nano=1, every=1000, occasion=Occasion.RUNNING)
STUB = Stub(chain_id="c", seq=7, hash="a" * 64, time_unix_nano=1, older_than=0)


def signed_by_hand(key: HeadKey, payload: object, **header: object) -> str:
    """Return something that the key signed, as a head or not."""
    top = {"alg": "EdDSA", "kid": key.public.id, "typ": "agentguard-head", **header}
    text = f"{heads._b64(canonical_json(top).encode())}.{heads._b64(json.dumps(payload).encode())}"
    return f"{text}.{heads._b64(key._key.sign(text.encode()))}"


def test_the_key_is_made_once_for_its_owner_alone(tmp_path: Path) -> None:
    """And its public half lies beside it."""
    one, again = HeadKey.of(tmp_path), HeadKey.of(tmp_path)

    assert one.public.id == again.public.id == PublicHeadKey.read(tmp_path / "head.jwk").id
    assert (tmp_path / "head.key").stat().st_mode & 0o777 == 0o600
    assert "d" not in json.loads((tmp_path / "head.jwk").read_text())


def test_the_public_half_is_put_back(tmp_path: Path) -> None:
    """Whatever lies there is not what the server signs with."""
    key = HeadKey.of(tmp_path)
    (tmp_path / "head.jwk").write_text("{}")

    HeadKey.of(tmp_path)

    assert PublicHeadKey.read(tmp_path / "head.jwk").id == key.public.id


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """They may have signed with it already."""
    HeadKey.of(tmp_path)
    (tmp_path / "head.key").chmod(0o640)

    with pytest.raises(ConfigurationError, match=r"head.key` wants a file that nobody else can open, got mode 640"):
        HeadKey.of(tmp_path)


def pem(key: object) -> bytes:
    """Return a key as text."""
    text: bytes = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())  # type: ignore[attr-defined]
    return text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"nothing", "wants an Ed25519 key as PEM, got none"),
        (pem(generate_private_key(SECP256R1())), "wants an Ed25519 key, got `_?E.*PrivateKey`"),
    ],
)
def test_another_key_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    """It cannot sign heads."""
    (tmp_path / "head.key").write_bytes(content)
    (tmp_path / "head.key").chmod(0o600)

    with pytest.raises(ConfigurationError, match=message):
        HeadKey.of(tmp_path)


def test_a_public_half_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """Nobody could check what is signed."""
    (tmp_path / "head.jwk").mkdir()

    with pytest.raises(ConfigurationError, match=r"head.jwk` cannot be written: Is a directory"):
        HeadKey.of(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"kty":"EC","crv":"P-256"}',
        '{"kty":"OKP","crv":"Ed25519","x":"AA"}',
        '{"kty":"OKP","crv":"Ed25519","x":7}',
        '{"kty":"OKP","crv":"Ed25519","x":"A*"}',
    ],
)
def test_what_is_not_a_public_key_is_refused(text: str, tmp_path: Path) -> None:
    """By its path."""
    path = tmp_path / "key.jwk"
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="wants an Ed25519 key as a JWK, got"):
        PublicHeadKey.read(path)


def test_a_head_and_a_stub_say_what_was_signed(tmp_path: Path) -> None:
    """Signed and read back."""
    key = HeadKey.of(tmp_path)

    assert key.public.head(key.sign(HEAD)) == HEAD
    assert key.public.stub(key.sign(STUB)) == STUB


def test_any_library_checks_a_head(tmp_path: Path) -> None:
    """It is a JWS: an auditor needs nothing of ours."""
    key = HeadKey.of(tmp_path)
    public = jwt.PyJWK.from_json((tmp_path / "head.jwk").read_text())

    opened = jwt.api_jws.decode(key.sign(HEAD), public.key, algorithms=["EdDSA"])

    assert json.loads(opened)["hash"] == HEAD.hash


def test_a_stub_is_no_head(tmp_path: Path) -> None:
    """Each says in what is signed which it is."""
    key = HeadKey.of(tmp_path)

    with pytest.raises(BadSignature, match="not in the form"):
        key.public.head(key.sign(STUB))
    with pytest.raises(BadSignature, match="not in the form"):
        key.public.stub(key.sign(HEAD))


def test_a_head_of_another_key_does_not_hold(tmp_path: Path) -> None:
    """It is told by its name, and by its signature if it borrowed the name."""
    key, other = HeadKey.of(tmp_path), HeadKey(Ed25519PrivateKey.generate())

    with pytest.raises(BadSignature, match=f"signed by another key, `{other.public.id}`"):
        key.public.head(other.sign(HEAD))
    with pytest.raises(BadSignature, match="its signature does not hold"):
        key.public.head(signed_by_hand(other, {}, kid=key.public.id))


@pytest.mark.parametrize("payload", [[], {}, {"chain_id": "c"}, {"occasion": "never"}, 7])
def test_what_was_signed_and_is_no_head_does_not_hold(payload: object, tmp_path: Path) -> None:
    """A key signs what it is given."""
    key = HeadKey.of(tmp_path)

    with pytest.raises(BadSignature, match="not in the form"):
        key.public.head(signed_by_hand(key, payload))
    with pytest.raises(BadSignature, match="not in the form"):
        key.public.stub(signed_by_hand(key, payload, typ="agentguard-stub"))


@pytest.mark.parametrize("text", ["", "a.b.c", "....", "W10.e30.AA", "e30.e30.AA", "é.e30.AA", "x" * 5000])
def test_what_is_not_signed_does_not_hold(text: str, tmp_path: Path) -> None:
    """Whatever it is."""
    with pytest.raises(BadSignature):
        HeadKey.of(tmp_path).public.head(text)


@pytest.mark.parametrize("header", [{"alg": "none"}, {"crit": ["x"]}, {"kid": 7}])
def test_a_header_is_ours_or_nothing(header: dict[str, object], tmp_path: Path) -> None:
    """No algorithm but one, and nothing that would have to be understood."""
    key = HeadKey.of(tmp_path)

    with pytest.raises(BadSignature):
        key.public.head(signed_by_hand(key, {}, **header))


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        '{"agentguard.evidence.head":',
        '{"kind":"decision","attributes":{"agentguard.evidence.head":"x"}}',
        '{"kind":"head","attributes":{"agentguard.evidence.head":7}}',
        '{"kind":"head","agentguard.evidence.head":7}',
    ],
)
def test_only_a_record_of_that_kind_has_a_head(text: str) -> None:
    """What a caller can put into another record is none."""
    assert signed_head(Entry("c", 1, "", "", text)) is None
