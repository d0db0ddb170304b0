from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentguard.errors import ConfigurationError, Refusal
from agentguard.identity.sources import EnvironmentSource, meta_token, stdio_audience
from agentguard.limits import Limits
from agentguard.model import Reason
from tests.tokens import NOW, make_token


def write(path: Path, text: str, *, mode: int = 0o600) -> Path:
    """Put a token's file in place whole, as whoever renews it does."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.chmod(mode)
    new.replace(path)
    return path


def source_of(path: Path) -> EnvironmentSource:
    """Return the source that a process with this file finds."""
    return EnvironmentSource.take({"AGENTGUARD_TOKEN_FILE": str(path)})


def test_environment_no_longer_holds_what_was_taken() -> None:
    """What the process starts later must not inherit the token."""
    environ = {"AGENTGUARD_TOKEN": "a.b.c", "AGENTGUARD_TOKEN_FILE": "/nowhere", "PATH": "/bin"}

    source = EnvironmentSource.take(environ)

    assert environ == {"PATH": "/bin"}
    assert "a.b.c" not in repr(source)


def test_token_of_the_environment_is_given() -> None:
    """Without a file, the variable is the token."""
    assert EnvironmentSource.take({"AGENTGUARD_TOKEN": "a.b.c"}).token(NOW) == "a.b.c"


@pytest.mark.parametrize("environ", [{}, {"AGENTGUARD_TOKEN": ""}, {"AGENTGUARD_TOKEN_FILE": ""}])
def test_environment_without_token_is_refused(environ: dict[str, str]) -> None:
    """A process that was given none is nobody."""
    with pytest.raises(Refusal) as caught:
        EnvironmentSource.take(environ).token(NOW)

    assert caught.value.reason is Reason.UNAUTHENTICATED
    assert caught.value.detail == "the environment holds no token: start this with `agentguard run … --`"


def test_file_goes_before_the_variable(tmp_path: Path) -> None:
    """A file can be renewed; a variable cannot."""
    token = make_token()
    path = write(tmp_path / "token", f"{token}\n")
    source = EnvironmentSource.take({"AGENTGUARD_TOKEN_FILE": str(path), "AGENTGUARD_TOKEN": "a.b.c"})

    assert source.token(NOW) == token


def test_file_that_changed_is_read_again(tmp_path: Path) -> None:
    """A renewed token is picked up at the next call."""
    path = write(tmp_path / "token", make_token(jti="t-1"))
    source = source_of(path)
    source.token(NOW)
    renewed = make_token(jti="t-2")

    write(path, renewed)

    assert source.token(NOW) == renewed


def test_file_that_did_not_change_is_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a call, the file is looked at and no more."""
    source = source_of(write(tmp_path / "token", make_token()))
    first = source.token(NOW)

    monkeypatch.setattr(os, "open", lambda *_: pytest.fail("the file was opened"))

    assert source.token(NOW + 269) is first


def test_file_is_read_again_when_its_token_nears_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system with coarse times could hide the renewal."""
    source = source_of(write(tmp_path / "token", make_token()))
    source.token(NOW)
    opened = 0
    really = os.open

    def counted(path: Path, flags: int) -> int:
        nonlocal opened
        opened += 1
        return really(path, flags)

    monkeypatch.setattr(os, "open", counted)

    source.token(NOW + 270)

    assert opened == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o620])
def test_file_that_others_may_touch_is_refused(tmp_path: Path, mode: int) -> None:
    """A token that others can read or write is not this process's own."""
    source = source_of(write(tmp_path / "token", make_token(), mode=mode))

    with pytest.raises(Refusal) as caught:
        source.token(NOW)

    assert caught.value.reason is Reason.UNAUTHENTICATED


def test_file_that_is_opened_to_others_later_is_refused(tmp_path: Path) -> None:
    """The mode is asked again as soon as it changes."""
    path = write(tmp_path / "token", make_token())
    source = source_of(path)
    source.token(NOW)

    path.chmod(0o644)

    for _ in range(2):
        with pytest.raises(Refusal):
            source.token(NOW)


def test_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever owns the file decides what is in it."""
    source = source_of(write(tmp_path / "token", make_token()))
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)

    with pytest.raises(Refusal):
        source.token(NOW)


def test_link_is_refused(tmp_path: Path) -> None:
    """A link can be led elsewhere between two looks."""
    link = tmp_path / "link"
    link.symlink_to(write(tmp_path / "token", make_token()))

    with pytest.raises(Refusal):
        source_of(link).token(NOW)


def test_folder_is_refused(tmp_path: Path) -> None:
    """Only a regular file holds a token."""
    tmp_path.chmod(0o700)

    with pytest.raises(Refusal):
        source_of(tmp_path).token(NOW)


def test_pipe_is_refused_at_once(tmp_path: Path) -> None:
    """Waiting for somebody to write would hang the call."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)

    with pytest.raises(Refusal):
        source_of(pipe).token(NOW)


def test_file_that_vanished_is_refused(tmp_path: Path) -> None:
    """Taking the file away takes the identity away."""
    path = write(tmp_path / "token", make_token())
    source = source_of(path)
    source.token(NOW)

    path.unlink()

    with pytest.raises(Refusal) as caught:
        source.token(NOW)
    assert caught.value.reason is Reason.UNAUTHENTICATED


@pytest.mark.parametrize("text", ["", "no token", "é", "a" * 20_000])
def test_file_without_a_token_is_refused(tmp_path: Path, text: str) -> None:
    """What is not a token's form is not passed on."""
    source = source_of(write(tmp_path / "token", text))

    for _ in range(2):
        with pytest.raises(Refusal):
            source.token(NOW)


def test_file_longer_than_the_limit_is_refused(tmp_path: Path) -> None:
    """The bound of tokens holds for files too."""
    path = write(tmp_path / "token", make_token())

    with pytest.raises(Refusal):
        EnvironmentSource.take({"AGENTGUARD_TOKEN_FILE": str(path)}, limits=Limits(token_bytes=100)).token(NOW)


def test_token_of_the_request_is_given() -> None:
    """The client put it under the library's own key."""
    assert meta_token({"agentguard/invocation": "a.b.c", "progressToken": 1}) == "a.b.c"


@pytest.mark.parametrize(
    "meta", [None, {}, {"agentguard/invocation": ""}, {"agentguard/invocation": 7}, {"invocation": "a.b.c"}]
)
def test_request_without_token_is_refused(meta: dict[str, object] | None) -> None:
    """A request that carries none is nobody's."""
    with pytest.raises(Refusal) as caught:
        meta_token(meta)

    assert caught.value.reason is Reason.UNAUTHENTICATED


def test_audience_over_stdio_names_the_server() -> None:
    """There is no URL to name."""
    assert stdio_audience("records") == "urn:agentguard:stdio:records"


def test_server_without_name_has_no_audience() -> None:
    """All nameless servers would share it."""
    with pytest.raises(ConfigurationError):
        stdio_audience("")
