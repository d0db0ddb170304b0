from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from agentguard.errors import PolicyError
from agentguard.policy.files.manifest import MANIFEST, manifest_of, misfit, write_manifest

FILES = {"b.cedar": "// b\n", "a.cedar": "// é", "types/a.cedarschema": "entity A;"}


def test_manifest_of_a_folder_fits_it() -> None:
    """In whatever order the files come."""
    assert misfit(manifest_of(FILES), dict(sorted(FILES.items()))) is None


def test_manifest_has_the_form_that_sha256sum_checks(tmp_path: Path) -> None:
    """Whoever has no agentguard at hand can look too."""
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    write_manifest(tmp_path, FILES)

    done = subprocess.run(
        ["sha256sum", "--strict", "--check", MANIFEST], cwd=tmp_path, capture_output=True, check=False
    )

    assert done.returncode == 0, done.stderr
    assert hashlib.sha256("// é".encode()).hexdigest() in (tmp_path / MANIFEST).read_text()


def test_manifest_takes_the_place_of_another_and_leaves_nothing_beside(tmp_path: Path) -> None:
    """In one step, since half of one would be another."""
    write_manifest(tmp_path, {"a.cedar": "old"})
    write_manifest(tmp_path, FILES)

    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]
    assert misfit((tmp_path / MANIFEST).read_text(), FILES) is None


def test_manifest_that_cannot_be_written_leaves_nothing_beside(tmp_path: Path) -> None:
    """A folder in its place, for one."""
    (tmp_path / MANIFEST).mkdir()

    with pytest.raises(IsADirectoryError):
        write_manifest(tmp_path, FILES)

    assert [path.name for path in tmp_path.iterdir()] == [MANIFEST]


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({**FILES, "c.cedar": "// c"}, "`c.cedar` is not in it"),
        ({name: text for name, text in FILES.items() if name != "a.cedar"}, "`a.cedar` is not there"),
        ({**FILES, "a.cedar": "// e"}, "`a.cedar` differs"),
        ({}, "`a.cedar` is not there, `b.cedar` is not there, `types/a.cedarschema` is not there"),
        (
            {f"{letter}.cedar": "" for letter in "abcdef"},
            "`a.cedar` differs, `b.cedar` differs, `c.cedar` is not in it, and 4 more",
        ),
    ],
)
def test_every_difference_is_told_the_first_three_by_name(files: dict[str, str], told: str) -> None:
    """A file too many is as wrong as one that is missing."""
    assert misfit(manifest_of(FILES), files) == f"{MANIFEST} does not match: {told}"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nothing of the kind",
        manifest_of(FILES)[:-1],
        manifest_of(FILES)[: len(manifest_of(FILES)) // 2],
        manifest_of(FILES).replace("agentguard.lock 1", "agentguard.lock 2"),
        manifest_of(FILES).replace("  a.cedar", " *a.cedar"),
        manifest_of(FILES).replace("a.cedar\n", "a\\n.cedar\n"),
        manifest_of(FILES) + manifest_of(FILES).partition("\n")[2],
        manifest_of(FILES).replace("\n", "\r\n"),
    ],
)
def test_what_is_no_manifest_or_half_of_one_fits_nothing(text: str) -> None:
    """Not even what it lists."""
    assert str(misfit(text, FILES)).startswith(f"{MANIFEST} ")


@pytest.mark.parametrize("name", ["a\nb.cedar", "a\\b.cedar", "\x1b[2J.cedar"])
def test_name_that_would_be_another_line_is_refused(name: str) -> None:
    """Or that `sha256sum` would read as another name."""
    with pytest.raises(PolicyError, match="has a name that no manifest can hold: use visible characters"):
        manifest_of({name: ""})
