"""The manifest of a policy folder: every file that decides, by name and digest, written last.

A folder that has one is whole when what was read is exactly what the manifest lists.
Whoever changes several files changes the manifest after all of them, so that what lies
between two of these writes is never taken for a change that is done. It has the form that
``sha256sum --check`` reads.
"""

from __future__ import annotations

import hashlib
import re
import uuid
from typing import TYPE_CHECKING, Final

from agentguard.errors import PolicyError
from agentguard.host.private import sync_folder
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MANIFEST: Final = "agentguard.lock"
"""Its name, at the top of the folder."""

_HEAD: Final = "# agentguard.lock 1: written by `agentguard lock`, after every other file"
_FORM: Final = re.compile(r"# agentguard\.lock 1\b.*")
_LINE: Final = re.compile(r"([0-9a-f]{64})  ([^\\]+)")
_MOST_NAMED: Final = 3


def manifest_of(files: Mapping[str, str]) -> str:
    """Return the manifest of *files*, text by name.

    Raises:
        PolicyError: If a name cannot stand in it.
    """
    for name in files:
        if not name.isprintable() or "\\" in name:
            what = f"`{printable(name)}` has a name that no manifest can hold: use visible characters without `\\`"
            raise PolicyError([what])
    lines = [f"{_digest(files[name])}  {name}" for name in sorted(files)]
    return "\n".join((_HEAD, *lines, ""))


def misfit(manifest: str, files: Mapping[str, str]) -> str | None:
    """Return in what *files*, as they were read, differ from their manifest; None if in nothing."""
    try:
        listed = _read(manifest)
    except ValueError as error:
        return f"{MANIFEST} {error}"
    told = []
    for name in sorted({*files, *listed}):
        if name not in listed:
            told.append(f"`{printable(name)}` is not in it")
        elif name not in files:
            told.append(f"`{printable(name)}` is not there")
        elif listed[name] != _digest(files[name]):
            told.append(f"`{printable(name)}` differs")
    if not told:
        return None
    rest = len(told) - _MOST_NAMED
    return f"{MANIFEST} does not match: {', '.join(told[:_MOST_NAMED])}{f', and {rest} more' if rest > 0 else ''}"


def write_manifest(folder: Path, files: Mapping[str, str]) -> None:
    """Put the manifest of *files* into *folder*, whole, in place of one that was there.

    Raises:
        PolicyError: If a name cannot stand in it.
        OSError: If it cannot be written.
    """
    text = manifest_of(files)
    new = folder / f".{uuid.uuid4().hex}"
    try:
        new.write_text(text, "utf-8", newline="\n")
        new.replace(folder / MANIFEST)
    finally:
        new.unlink(missing_ok=True)
    sync_folder(folder)


def _digest(text: str) -> str:
    # Text is read strictly as UTF-8, so these are the very bytes of the file.
    return hashlib.sha256(text.encode()).hexdigest()


def _read(manifest: str) -> dict[str, str]:
    """Return the digests that a manifest lists, by name.

    Raises:
        ValueError: It is none, or a part of one.
    """
    head, *lines = manifest.split("\n")
    if _FORM.fullmatch(head) is None or lines[-1:] != [""]:
        message = "is no manifest, or not all of one"
        raise ValueError(message)
    listed: dict[str, str] = {}
    for line in lines[:-1]:
        found = _LINE.fullmatch(line)
        if found is None or found[2] in listed:
            message = "has a line that is not of a manifest, or a file twice"
            raise ValueError(message)
        listed[found[2]] = found[1]
    return listed
