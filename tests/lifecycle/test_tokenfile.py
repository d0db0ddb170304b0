from __future__ import annotations

import errno
import logging
import os
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from agentguard.errors import Refusal
from agentguard.identity.sources import EnvironmentSource
from agentguard.lifecycle.tokenfile import TokenFile
from agentguard.model import Reason
from tests.tokens import NOW, make_token


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put token files where the test can look."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


class Tokens:
    """Gives a token, or refuses, as a test says; tells when it was asked again."""

    def __init__(self, answer: str | Exception = "first") -> None:
        self.answer = answer
        self.asked = threading.Semaphore(0)

    def __call__(self) -> str:
        """Answer."""
        self.asked.release()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def idle() -> Callable[[Tokens], TokenFile]:
    """Return what makes a file that looks for nothing by itself."""
    return lambda tokens: TokenFile(tokens, every=3600)


def test_the_file_is_private_and_a_server_reads_it(idle: Callable[[Tokens], TokenFile]) -> None:
    """Mode 0600 in a folder of mode 0700, which is what the environment's source asks for."""
    token = make_token()
    file = idle(Tokens(token))

    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(file.path.parent.stat().st_mode) == 0o700
    source = EnvironmentSource.take({"AGENTGUARD_TOKEN_FILE": str(file.path)})
    assert source.token(NOW) == token

    file.remove()


def test_a_wide_mask_does_not_open_the_file(idle: Callable[[Tokens], TokenFile]) -> None:
    """The mode is given where the file is made."""
    before = os.umask(0)
    try:
        file = idle(Tokens())
        assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    finally:
        os.umask(before)

    file.remove()


def test_renewed_token_replaces_the_file(idle: Callable[[Tokens], TokenFile]) -> None:
    """In place, by another file: whoever has the old one open reads the old one to its end."""
    tokens = Tokens()
    file = idle(tokens)
    before = file.path.stat().st_ino
    (file.path.parent / "token.new").write_text("left by a write that was cut off")

    with file.path.open() as opened:
        tokens.answer = "second"
        file.refresh()
        assert opened.read() == "first"

    assert file.path.read_text() == "second"
    assert file.path.stat().st_ino != before
    assert [path.name for path in file.path.parent.iterdir()] == ["token"]
    file.remove()


def test_token_that_did_not_change_is_not_written_again(idle: Callable[[Tokens], TokenFile]) -> None:
    """Readers look at the file's mark before they read."""
    file = idle(Tokens())
    before = file.path.stat()

    file.refresh()

    assert file.path.stat() == before
    file.remove()


@pytest.mark.parametrize("reason", [Reason.REVOKED, Reason.EXPIRED])
def test_file_of_a_run_that_is_over_goes(reason: Reason, idle: Callable[[Tokens], TokenFile], temporary: Path) -> None:
    """With its folder, and for good."""
    tokens = Tokens()
    file = idle(tokens)

    tokens.answer = Refusal(reason)
    file.refresh()

    assert list(temporary.iterdir()) == []
    tokens.answer = "second"
    file.refresh()
    file.remove()
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize("error", [Refusal(Reason.STORE_UNAVAILABLE, "locked"), OSError(errno.ENOSPC, "full")])
def test_token_stays_while_it_cannot_be_renewed(
    error: Exception, idle: Callable[[Tokens], TokenFile], caplog: pytest.LogCaptureFixture
) -> None:
    """It still holds for a while, and the log says once what is wrong."""
    tokens = Tokens()
    file = idle(tokens)

    tokens.answer = error
    with caplog.at_level(logging.WARNING):
        file.refresh()
        file.refresh()

    assert file.path.read_text() == "first"
    assert caplog.text.count("cannot be renewed now") == 1
    tokens.answer = "second"
    file.refresh()
    assert file.path.read_text() == "second"
    tokens.answer = error
    file.refresh()
    assert caplog.text.count("cannot be renewed now") == 2
    file.remove()


def test_folder_may_be_one_that_is_known_before_it_is_there(tmp_path: Path) -> None:
    """Private from the beginning; one that is there already is not taken."""
    folder = tmp_path / "folder"

    file = TokenFile(Tokens(), every=3600, folder=folder)

    assert file.path.parent == folder
    assert folder.stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileExistsError):
        TokenFile(Tokens(), every=3600, folder=folder)
    assert file.path.read_text() == "first"
    file.remove()
    assert not folder.exists()


def test_folder_that_somebody_else_uses_stays_without_the_token(
    idle: Callable[[Tokens], TokenFile], caplog: pytest.LogCaptureFixture
) -> None:
    """It must not keep a run from being ended."""
    file = idle(Tokens())
    other = file.path.with_name("other")
    other.touch()

    file.remove()

    assert list(file.path.parent.iterdir()) == [other]
    assert "cannot be removed" in caplog.text


def test_file_is_looked_after_by_itself(temporary: Path) -> None:
    """A thread asks for the token again and again, until there is none."""
    tokens = Tokens()
    others = set(threading.enumerate())
    TokenFile(tokens, every=0.001)
    for _ in range(3):
        assert tokens.asked.acquire(timeout=10)
    (thread,) = (one for one in set(threading.enumerate()) - others if one.name == "agentguard-token-file")

    tokens.answer = Refusal(Reason.REVOKED)
    thread.join(timeout=10)

    assert not thread.is_alive()
    assert list(temporary.iterdir()) == []


def test_run_that_is_over_gets_no_file(temporary: Path) -> None:
    """It is asked for its token first."""
    with pytest.raises(Refusal):
        TokenFile(Tokens(Refusal(Reason.EXPIRED)))

    assert list(temporary.iterdir()) == []


def test_file_that_cannot_be_written_leaves_nothing(temporary: Path) -> None:
    """Not even its folder."""
    with pytest.raises(UnicodeEncodeError):
        TokenFile(Tokens("tökén"))

    assert list(temporary.iterdir()) == []


def test_link_in_the_place_of_the_folder_is_not_followed(
    idle: Callable[[Tokens], TokenFile], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A program that exchanges it has us neither remove another folder's files nor put a token there."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("token", "token.new"):
        (elsewhere / name).write_text("another's")
    tokens = Tokens()
    file = idle(tokens)
    file.path.parent.rename(tmp_path / "moved")
    file.path.parent.symlink_to(elsewhere)

    tokens.answer = "second"
    file.refresh()
    file.remove()

    assert "cannot be renewed now: NotADirectoryError" in caplog.text
    assert "cannot be removed: Not a directory" in caplog.text
    assert {found.name: found.read_text() for found in elsewhere.iterdir()} == {
        "token": "another's",
        "token.new": "another's",
    }


def test_what_cannot_be_removed_keeps_nothing_else_there(
    idle: Callable[[Tokens], TokenFile], caplog: pytest.LogCaptureFixture
) -> None:
    """A folder in the place of the file holds up a renewal, whose token does not stay."""
    tokens = Tokens()
    file = idle(tokens)
    file.path.unlink()
    file.path.mkdir()
    tokens.answer = "second"
    file.refresh()

    file.remove()

    assert [found.name for found in file.path.parent.iterdir()] == ["token"]
    assert "cannot be removed" in caplog.text
