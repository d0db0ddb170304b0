"""Whoever has the local issuer's key can be any agent, so nobody else may read it or put one there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from agentguard import ConfigurationError, UnsafeLocalIssuer
from agentguard.lifecycle import local
from agentguard.lifecycle.local import local_issuer
from agentguard.lifecycle.store import MemoryStore
from tests.lifecycle.key_makers import make_keys
from tests.lifecycle.processes import other


def opened(folder: Path) -> dict[str, object]:
    """Open the local issuer, and return its public keys."""
    return local_issuer(folder, store=MemoryStore(clock=lambda: 0)).jwks()


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o602, 0o610])
def test_key_that_others_can_open_is_refused(mode: int, tmp_path: Path) -> None:
    """They may have copied it, so it is not taken even after a chmod by us."""
    folder = tmp_path / "local"
    opened(folder)
    (folder / "issuer.pem").chmod(mode)

    for open_it in (opened, UnsafeLocalIssuer):
        with pytest.raises(ConfigurationError) as refused:
            open_it(folder)
        assert str(refused.value) == (
            f"`{folder}/issuer.pem` wants a key that is ours alone, got mode {mode:o}: chmod 600, or remove it"
        )


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o701])
def test_folder_that_others_can_enter_is_refused(mode: int, tmp_path: Path) -> None:
    """They could put another key in the place of ours."""
    folder = tmp_path / "local"
    folder.mkdir()
    folder.chmod(mode)

    with pytest.raises(ConfigurationError, match=f"wants a folder that is ours alone, got mode {mode:o}: chmod 700"):
        opened(folder)
    assert not any(folder.iterdir())


def test_folder_and_key_of_another_user_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They keep the key that we would sign with, and may have made it."""
    folder = tmp_path / "local"
    opened(folder)
    we = os.geteuid()

    monkeypatch.setattr(os, "geteuid", lambda: we + 1)
    with pytest.raises(ConfigurationError, match=f"local` wants a folder that is ours alone, got one of user {we}:"):
        opened(folder)
    answers = iter([we, we + 1])
    monkeypatch.setattr(os, "geteuid", lambda: next(answers))
    with pytest.raises(ConfigurationError, match=f"issuer.pem` wants a key that is ours alone, got one of user {we}:"):
        opened(folder)


def test_key_behind_a_link_is_refused(tmp_path: Path) -> None:
    """A link leads to what somebody else chose, now or later."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "local"
    opened(elsewhere)
    folder.mkdir(mode=0o700)
    (folder / "issuer.pem").symlink_to(elsewhere / "issuer.pem")

    with pytest.raises(ConfigurationError, match=r"issuer\.pem` cannot be read or made: .*symbolic link"):
        opened(folder)


def test_folder_behind_a_link_is_refused(tmp_path: Path) -> None:
    """The same, one step earlier."""
    elsewhere, folder = tmp_path / "elsewhere", tmp_path / "local"
    opened(elsewhere)
    folder.symlink_to(elsewhere)

    with pytest.raises(ConfigurationError, match="cannot be read or made"):
        opened(folder)


def test_pipe_in_the_place_of_the_key_holds_nobody_up(tmp_path: Path) -> None:
    """It is no key, and it is not waited for."""
    folder = tmp_path / "local"
    folder.mkdir(mode=0o700)
    os.mkfifo(folder / "issuer.pem", 0o600)

    with pytest.raises(ConfigurationError, match="`key` wants a private key"):
        opened(folder)


def test_key_that_is_damaged_is_refused_and_kept(tmp_path: Path) -> None:
    """A new one in its place would end every run without a word."""
    folder = tmp_path / "local"
    opened(folder)
    (folder / "issuer.pem").write_text("-----BEGIN PRIVATE KEY-----")

    with pytest.raises(ConfigurationError, match="cannot be read as one"):
        opened(folder)
    assert (folder / "issuer.pem").read_text() == "-----BEGIN PRIVATE KEY-----"


def test_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file lies where the folder would be."""
    (tmp_path / "file").touch()

    with pytest.raises(ConfigurationError, match=r"file/local/issuer\.pem` cannot be read or made: Not a directory"):
        opened(tmp_path / "file" / "local")


def test_key_that_another_process_makes_in_between_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that came first stays, and whoever came second uses it."""
    folder = tmp_path / "local"
    generate = ec.generate_private_key
    first: list[dict[str, object]] = []

    def slowly(curve: object) -> object:
        monkeypatch.setattr(local, "generate_private_key", generate)
        first.append(opened(folder))
        return generate(curve)  # type: ignore[arg-type]

    monkeypatch.setattr(local, "generate_private_key", slowly)

    assert [opened(folder)] == first
    assert [path.name for path in folder.iterdir()] == ["issuer.pem"]


def test_processes_that_race_to_make_the_key_get_the_same(tmp_path: Path) -> None:
    """In each of 20 rounds."""
    rounds = 20
    with other(make_keys, tmp_path, "a", "b", rounds) as a, other(make_keys, tmp_path, "b", "a", rounds) as b:
        ours, theirs = a.hear(rounds), b.hear(rounds)

    assert ours == theirs
    assert len(set(ours)) == rounds
