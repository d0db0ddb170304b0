import os
from pathlib import Path

import pytest

from agentguard.cli.project import Project, evidence_folders, find_project, policies_folder
from agentguard.errors import ConfigurationError


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, in a repository of its own."""
    folder = tmp_path / "repo" / "deep" / "er"
    folder.mkdir(parents=True)
    (tmp_path / "repo" / ".git").mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_paths_are_relative_to_the_file_that_names_them(here: Path) -> None:
    """So a command says the same from every folder of a project."""
    root = here.parent.parent
    (root / "agentguard.toml").write_text(
        'policies = "srv/policies"\nnext = "srv/policies/next"\n'
        'evidence = ["state", "/var/lib/other"]\nstate = "state"\n'
    )

    assert find_project() == Project(
        file=root / "agentguard.toml",
        folder=root,
        policies=root / "srv/policies",
        evidence=(root / "state", Path("/var/lib/other")),
        state=root / "state",
        next=root / "srv/policies/next",
    )


def test_project_may_say_it_where_all_its_tools_do(here: Path) -> None:
    """In pyproject.toml; and evidence in one place needs no list."""
    (here.parent / "pyproject.toml").write_text('[tool.agentguard]\nevidence = "state"\n')

    project = find_project()

    assert project is not None
    assert project.evidence == (here.parent / "state",)
    assert project.policies is None


@pytest.mark.parametrize(
    "pyproject", ["", "[tool.ruff]\nline-length = 120\n", 'tool = "odd"\n', '[project]\nname = "x"\n']
)
def test_pyproject_that_says_nothing_of_us_is_passed_over(here: Path, pyproject: str) -> None:
    """The search goes on above it."""
    (here / "pyproject.toml").write_text(pyproject)
    (here.parent / "agentguard.toml").write_text("")

    project = find_project()

    assert project is not None
    assert project.file == here.parent / "agentguard.toml"


def test_search_ends_at_the_root_of_the_repository(here: Path, tmp_path: Path) -> None:
    """What lies above is another project's."""
    (tmp_path / "agentguard.toml").write_text('policies = "elsewhere"\n')

    assert find_project() is None


def test_search_ends_at_the_root_of_the_file_system() -> None:
    """There may be no repository at all."""
    assert find_project(Path("/")) is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('polices = "a"', r"has no key `polices`: did you mean `policies`\? \(trust is never configured here"),
        ('server = "server.py"', r"has no key `server`: .*trust is never configured here, only paths"),
        ('issuer = "https://evil.example"', r"has no key `issuer`: "),
        ('"\\u001b[2J" = "a"', r"has no key `\ufffd\[2J`: "),
        ('policies = ["a"]', r"`policies` wants one path, got `list`: write `policies = \"FOLDER\"`"),
        ('policies = ""', r"`policies` wants one path, got ``"),
        ('policies = "a\\u0000b"', r"`policies` wants one path, got `a\ufffdb`"),
        ("evidence = []", r"`evidence` wants a path, or a list of paths, got `list`"),
        ('evidence = ["a", 1]', r"`evidence` wants a path, or a list of paths, got `int`"),
        ("state = true", r"`state` wants one path, got `bool`"),
        ("[policies]\na = 1", r"`policies` wants one path, got `dict`"),
        ("policies = ", r"agentguard\.toml` cannot be read: Invalid value"),
        ("a = " + "[" * 5000, r"agentguard\.toml` cannot be read: "),
        ("#" * (1024 * 1024 + 1), r"agentguard\.toml` holds more than 1048576 bytes"),
    ],
    ids=range(14),
)
def test_anything_but_paths_is_refused(here: Path, text: str, message: str) -> None:
    """With the key that was meant, and why no other stands here."""
    (here / "agentguard.toml").write_text(text)

    with pytest.raises(ConfigurationError, match=message):
        find_project()


def test_file_that_is_no_text_is_refused(here: Path) -> None:
    """And one that nobody can read; a pipe holds up nothing."""
    file = here / "agentguard.toml"
    file.write_bytes(b"\xff")
    with pytest.raises(ConfigurationError, match=r"cannot be read: 'utf-8' codec"):
        find_project()

    file.unlink()
    file.mkdir()
    with pytest.raises(ConfigurationError, match=r"cannot be read: Is a directory"):
        find_project()

    file.rmdir()
    os.mkfifo(file)
    assert find_project() is not None


def test_table_that_is_none_is_refused(here: Path) -> None:
    """Whoever writes it means something."""
    (here / "pyproject.toml").write_text('[tool]\nagentguard = "policies"\n')

    with pytest.raises(ConfigurationError, match=r"`tool.agentguard` wants to be a table: write \[tool.agentguard\]"):
        find_project()


def test_two_places_are_refused(here: Path) -> None:
    """Nobody could say which of them counts."""
    (here / "pyproject.toml").write_text("[tool.agentguard]\n")
    (here / "agentguard.toml").write_text("")

    with pytest.raises(ConfigurationError, match=r"stands beside \[tool.agentguard\] in pyproject.toml: keep one"):
        find_project()


def test_file_of_somebody_else_above_is_refused(here: Path) -> None:
    """Anybody can put one into a folder such as /tmp, and would choose which policies are checked."""
    file = here.parent / "agentguard.toml"
    file.write_text('policies = "mine"')
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(file, 12345, 12345)

    with pytest.raises(ConfigurationError, match=r"belongs to user 12345, not to us: name the folder"):
        find_project()


def test_folder_that_is_named_is_taken(here: Path) -> None:
    """Whoever names one means it, whatever a file says."""
    (here / "agentguard.toml").write_text("not = toml = at all")

    assert policies_folder(Path("mine")) == Path("mine")
    assert evidence_folders([Path("a"), Path("b")]) == (Path("a"), Path("b"))


def test_folder_is_found_where_none_is_named(here: Path) -> None:
    """What the project says, else `policies` in the working folder, else the two ways out."""
    with pytest.raises(ConfigurationError, match=r"has no `policies/`: name the folder, or write `policies = "):
        policies_folder(None)

    (here / "policies").mkdir()
    assert policies_folder(None) == Path("policies")

    (here / "agentguard.toml").write_text('state = "state"')
    assert policies_folder(None) == Path("policies")

    (here / "agentguard.toml").write_text('policies = "other"')
    assert policies_folder(None) == here / "other"


def test_evidence_is_found_where_none_is_named(here: Path) -> None:
    """What the project says, else that in its state folder."""
    with pytest.raises(ConfigurationError, match=r"got none: name a state folder with --evidence, or write `evidence"):
        evidence_folders([])

    (here / "agentguard.toml").write_text('policies = "p"')
    with pytest.raises(ConfigurationError, match="wants evidence, got none"):
        evidence_folders(None)

    (here / "agentguard.toml").write_text('state = "state"')
    assert evidence_folders(None) == (here / "state",)

    (here / "agentguard.toml").write_text('state = "state"\nevidence = ["one", "two"]')
    assert evidence_folders(None) == (here / "one", here / "two")
