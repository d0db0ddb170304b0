"""How people put policies where a guard reads them: whole, and otherwise."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from agentguard.policy.files.folder import read_snapshot
from agentguard.policy.files.manifest import write_manifest

EVERYBODY = '@id("all") permit (principal, action, resource);'


def put(folder: Path, files: Mapping[str, str]) -> Path:
    """Write files where they stand, and return the folder."""
    for name, text in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")
    return folder


def swap(link: Path, files: Mapping[str, str], *, name: str) -> None:
    """Write a folder beside a link, and have the link lead there in one step."""
    target = put(link.parent / "releases" / name, files)
    new = link.with_name(f".{link.name}.new")
    new.symlink_to(target.relative_to(link.parent))
    new.replace(link)


def move(folder: Path, files: Mapping[str, str]) -> None:
    """Write a folder beside another one, and move it into its place."""
    new = put(folder.with_name(f"{folder.name}.new"), files)
    # Where the system's clock is coarse, the move could else be as old as the last write.
    os.utime(new, (1, 1))
    number = sum(1 for _ in folder.parent.glob(f"{folder.name}.old*"))
    folder.rename(folder.with_name(f"{folder.name}.old{number}"))
    new.rename(folder)


def lock(folder: Path) -> None:
    """Write the manifest of what a folder holds."""
    write_manifest(folder, read_snapshot(folder).files)


def config_map(folder: Path, files: Mapping[str, str], *, name: str) -> None:
    """Write a folder as Kubernetes does: the version, then the one link, then those that people see."""
    folder.mkdir(exist_ok=True)
    put(folder / f"..{name}", files)
    new = folder / "..data_tmp"
    new.symlink_to(f"..{name}")
    new.replace(folder / "..data")
    for top in {file.partition("/")[0] for file in files}:
        if not (folder / top).is_symlink():
            (folder / top).symlink_to(f"..data/{top}")


@contextmanager
def unlisted(files: Mapping[str, str], name: str) -> Iterator[Path]:
    """Give a folder in which one thing cannot be read, to somebody who is not root, and so loses permissions."""
    before = os.geteuid()
    with tempfile.TemporaryDirectory() as above:
        Path(above).chmod(0o755)
        there = put(Path(above, "policies"), files) / name
        mode = there.stat().st_mode
        there.chmod(0)
        os.seteuid(before or 65_534)
        try:
            yield Path(above).resolve() / "policies"
        finally:
            os.seteuid(before)
            there.chmod(mode)
