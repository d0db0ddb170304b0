import io
import resource
import sys
from pathlib import Path

import pytest

from agentguard.cli.main import main
from tests.cli.commands import Ran, Stream, agentguard

PLAIN = '// Why.\n@id("a") permit(principal,action,resource); // End.\n'
NEAT = '// Why.\n@id("a")\npermit (principal, action, resource); // End.\n'
BROKEN = "permit (principal action, resource);\n"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a policy folder in it."""
    folder = tmp_path / "work"
    (folder / "policies" / "next").mkdir(parents=True)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    (folder / "policies" / "a.cedar").write_text(PLAIN)
    (folder / "policies" / "b.cedar").write_text(NEAT)
    return folder


def piped(*arguments: str, sent: bytes) -> Ran:
    """Run `agentguard fmt` with something at its standard input."""
    stdout, stderr = Stream(), Stream()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(sent)))
        patch.setattr(sys, "stdout", stdout)
        patch.setattr(sys, "stderr", stderr)
        with pytest.raises(SystemExit) as left:
            main(["fmt", *arguments])
    return Ran(int(left.value.code or 0), stdout.getvalue(), stderr.getvalue())


def test_policies_are_laid_out_where_they_stand(here: Path) -> None:
    """Those of the project, and only what is not neat yet; a second time there is nothing to do."""
    ran = agentguard("fmt")

    assert ran.status == 0
    assert ran.stdout == "formatted policies/a.cedar\n"
    assert ran.stderr == "1 file formatted, 1 file as it is\n"
    assert (here / "policies" / "a.cedar").read_text() == NEAT
    assert agentguard("fmt").stdout == ""


def test_file_keeps_its_mode_and_its_owner(here: Path) -> None:
    """And there is never half of it: it is another file that took its place."""
    file = here / "policies" / "a.cedar"
    file.chmod(0o640)
    before = file.stat()

    assert agentguard("fmt", "policies/a.cedar").status == 0

    after = file.stat()
    assert after.st_mode == before.st_mode
    assert (after.st_uid, after.st_gid) == (before.st_uid, before.st_gid)
    assert after.st_ino != before.st_ino
    assert sorted(path.name for path in file.parent.iterdir()) == ["a.cedar", "b.cedar", "next"]


def test_check_writes_nothing(here: Path) -> None:
    """It names what would change, and fails."""
    ran = agentguard("fmt", "--check", "policies")

    assert (ran.status, ran.stdout) == (1, "policies/a.cedar\n")
    assert ran.stderr == "1 file would change, 1 file as it is\n"
    assert (here / "policies" / "a.cedar").read_text() == PLAIN
    assert agentguard("fmt", "--check", "policies/b.cedar").status == 0


def test_diff_shows_what_would_change(here: Path) -> None:
    """It writes nothing, and fails."""
    ran = agentguard("fmt", "--diff", "policies")

    assert ran.status == 1
    assert ran.stdout.splitlines()[:6] == [
        "--- policies/a.cedar",
        "+++ formatted",
        "@@ -1,3 +1,4 @@",
        " // Why.",
        '-@id("a") permit(principal,action,resource); // End.',
        '+@id("a")',
    ]
    assert (here / "policies" / "a.cedar").read_text() == PLAIN


def test_file_that_cannot_be_read_keeps_no_other_from_being_formatted(here: Path) -> None:
    """It is told with its place, and stays as it is."""
    (here / "policies" / "0.cedar").write_text(BROKEN)

    ran = agentguard("fmt", "policies")

    assert ran.status == 1
    assert ran.stdout == "formatted policies/a.cedar\n"
    assert ran.stderr.splitlines() == [
        (
            "policies/0.cedar:1:19 error[syntax]: `action` cannot stand here: "
            "look for a missing comma, bracket or operator before it"
        ),
        "1 file formatted, 1 file as it is, 1 file cannot be read as policies",
    ]
    assert (here / "policies" / "0.cedar").read_text() == BROKEN


def test_folder_is_walked_and_no_link_is_followed(here: Path) -> None:
    """What lies below counts, and what is hidden or elsewhere does not; each file once."""
    (here / "policies" / "next" / "c.CEDAR").write_text(PLAIN)
    (here / "policies" / ".d.cedar").write_text(PLAIN)
    (here / "policies" / ".hidden").mkdir()
    (here / "policies" / ".hidden" / "e.cedar").write_text(PLAIN)
    (here / "elsewhere.cedar").write_text(PLAIN)
    (here / "policies" / "f.cedar").symlink_to(here / "elsewhere.cedar")
    (here / "policies" / "g.txt").write_text(PLAIN)

    ran = agentguard("fmt", "--check", "policies", "policies/a.cedar", "policies/../policies/a.cedar")

    assert ran.stdout.splitlines() == ["policies/a.cedar", "policies/next/c.CEDAR"]


def test_link_that_is_named_stays_one(here: Path) -> None:
    """Whoever names it means what it leads to."""
    (here / "link.cedar").symlink_to("policies/a.cedar")

    assert agentguard("fmt", "link.cedar").status == 0

    assert (here / "link.cedar").is_symlink()
    assert (here / "policies" / "a.cedar").read_text() == NEAT


@pytest.mark.parametrize("option", [(), ("--check",), ("--diff",)])
@pytest.mark.parametrize("text", [PLAIN, NEAT])
def test_standard_input_is_formatted_to_standard_output(option: tuple[str, ...], text: str) -> None:
    """As an editor wants it; with an option it is only looked at."""
    ran = piped("-", *option, sent=text.encode())

    changes = bool(option) and text == PLAIN
    assert ran.status == int(changes)
    assert ran.stderr == ""
    if not option:
        assert ran.stdout == NEAT
    elif option == ("--diff",) and changes:
        assert ran.stdout.startswith("--- <stdin>\n+++ formatted\n")
    else:
        assert ran.stdout == ""


def test_standard_input_that_is_no_policy_gives_nothing() -> None:
    """An editor keeps what it has."""
    ran = piped("-", sent=BROKEN.encode())

    assert (ran.status, ran.stdout) == (1, "")
    assert ran.stderr.startswith("<stdin>:1:19 error[syntax]: ")


@pytest.mark.parametrize(
    ("arguments", "sent", "message"),
    [
        (("-", "a.cedar"), b"", "`-` is standard input alone, got 1 more to format: leave one out"),
        (("-",), b"\n\xff", "standard input is not UTF-8, from byte 1 on: send UTF-8"),
        (("gone.cedar",), b"", "`gone.cedar` cannot be read: No such file or directory: mend that, or leave it out"),
        (("gone",), b"", "wants folders and files of policies, *.cedar, got `gone`: name one of these"),
        (("policies/latin.cedar",), b"", "`policies/latin.cedar` cannot be read: it is not UTF-8: mend that"),
    ],
)
def test_mistake_is_told_with_the_fix(here: Path, arguments: tuple[str, ...], sent: bytes, message: str) -> None:
    """In one line, and nothing was written."""
    (here / "policies" / "latin.cedar").write_bytes(b"// \xe9")

    ran = piped(*arguments, sent=sent)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr.startswith(f"agentguard: {message}")


def test_link_that_leads_back_to_itself_is_a_mistake(here: Path) -> None:
    """There is nothing to read behind it."""
    (here / "loop.cedar").symlink_to("loop.cedar")

    ran = agentguard("fmt", "loop.cedar")

    assert ran.status == 2
    assert ran.stderr.startswith("agentguard: `loop.cedar` cannot be read: Too many levels of symbolic links")


def test_file_that_cannot_be_written_stays_as_it_is(here: Path) -> None:
    """A disk that is full leaves the old file, whole, and nothing beside it."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        ran = agentguard("fmt", "policies/a.cedar")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)

    assert ran.status == 2
    assert ran.stderr == (
        "agentguard: `policies/a.cedar` cannot be written: File too large: make room, or use --diff\n"
    )
    assert (here / "policies" / "a.cedar").read_text() == PLAIN
    assert len(list((here / "policies").iterdir())) == 3


def test_several_broken_files_are_counted(here: Path) -> None:
    """And a folder in which nothing changes says so."""
    for name in ("x", "y"):
        (here / "policies" / f"{name}.cedar").write_text(BROKEN)
    (here / "policies" / "a.cedar").write_text(NEAT)

    ran = agentguard("fmt", "policies")

    assert ran.stderr.splitlines()[-1] == "2 files as they are, 2 files cannot be read as policies"
