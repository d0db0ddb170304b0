"""Whoever has an issuer's private key can be any agent, so a file that others can read is no place for one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from agentguard.cli.options import require_private
from agentguard.errors import ConfigurationError
from tests.cli.commands import Ran, agentguard
from tests.tokens import KEY

PEM = KEY.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
WE = 1000


def signed_with(folder: Path, content: bytes = PEM, *, mode: int = 0o600) -> Ran:
    """Ask for a token of another issuer, with this in the file of its key."""
    (folder / "k.pem").write_bytes(content)
    (folder / "k.pem").chmod(mode)
    return agentguard(
        "token", "--agent", "reader", "--tool", "read", "--audience", "https://records.example/mcp",
        "--issuer", "https://issuer.example", "--issuer-key", str(folder / "k.pem"), "--store", str(folder / "runs.db"),
    )  # fmt: skip


def found(mode: int, owner: int) -> os.stat_result:
    """Return what is known of a regular file."""
    return os.stat_result((stat.S_IFREG | mode, 0, 0, 1, owner, 0, 0, 0, 0, 0))


def test_key_that_everybody_can_read_signs_nothing(tmp_path: Path) -> None:
    """The command says what to do; with the mode mended, it signs."""
    ran = signed_with(tmp_path, mode=0o644)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"agentguard: --issuer-key `{tmp_path}/k.pem` wants a key that is ours alone, got mode 644: "
        "chmod 600, or make a new key if others could read it\n"
    )
    assert not (tmp_path / "runs.db").exists()
    assert signed_with(tmp_path).status == 0


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o602, 0o610])
def test_our_own_file_is_ours_alone(mode: int) -> None:
    """No bit for the group, none for others."""
    require_private(found(0o600, WE), "the key", ours=WE)
    require_private(found(0o400, WE), "the key", ours=WE)

    with pytest.raises(ConfigurationError, match=f"the key wants a key that is ours alone, got mode {mode:o}: chmod"):
        require_private(found(mode, WE), "the key", ours=WE)


@pytest.mark.parametrize("ours", [0, WE])
def test_credential_that_root_hands_to_a_group_is_taken(ours: int) -> None:
    """As systemd does with an access list, and Kubernetes with `fsGroup`; others still may not read it."""
    require_private(found(0o440, 0), "the key", ours=ours)
    require_private(found(0o640, 0), "the key", ours=ours)

    for mode in (0o444, 0o644, 0o660, 0o450):
        with pytest.raises(ConfigurationError, match=f"got mode {mode:o}"):
            require_private(found(mode, 0), "the key", ours=ours)


def test_another_users_file_is_refused() -> None:
    """Its owner has the key, and may exchange it."""
    with pytest.raises(ConfigurationError, match="got one of user 1001: name another file"):
        require_private(found(0o600, 1001), "the key", ours=WE)


@pytest.mark.parametrize(
    "content",
    [
        KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        generate_private_key(SECP384R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        b"what is this",
    ],
)
def test_file_without_a_private_key_is_named_and_not_quoted(content: bytes, tmp_path: Path) -> None:
    """A public key, a curve that signs nothing here, or anything else."""
    ran = signed_with(tmp_path, content)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == (
        f"agentguard: --issuer-key `{tmp_path}/k.pem` holds no private key on P-256 or Ed25519: "
        "name a PEM or JWK file that does\n"
    )
