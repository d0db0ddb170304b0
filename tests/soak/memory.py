"""The memory of another process, and the forms in which a secret may lie in it."""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

_CHUNK: Final = 16 * 1024 * 1024
_REGION: Final = re.compile(r"([0-9a-f]+)-([0-9a-f]+) r\S{3} \S+ \S+ \S+\s*(.*)")
# The kernel's own, which cannot be read this way or is nobody's memory.
_NOT_THEIRS: Final = {"[vvar]", "[vvar_vclock]", "[vsyscall]"}


def forms_of(secret: str) -> dict[str, bytes]:
    """Return every form in which a process may hold *secret*, or half of it, by its name."""
    plain = secret.encode()
    forms = {
        "plain": plain,
        "first half": plain[: len(plain) // 2],
        "second half": plain[len(plain) // 2 :],
        "backwards": plain[::-1],
        "hex": plain.hex().encode(),
        "upper hex": plain.hex().upper().encode(),
        "percent": "".join(f"%{byte:02X}" for byte in plain).encode(),
        "quoted": quote(secret, safe="").encode(),
    }
    for codec in ("utf-16-le", "utf-16-be", "utf-32-le"):
        # Python holds text with a sign of another alphabet so, and JavaScript any text.
        forms[codec] = secret.encode(codec)
    for before in range(3):
        # What stands before it shifts all letters of base64; those at the ends hang on the neighbours.
        encoded = base64.b64encode(b"\0" * before + plain)
        inner = encoded[4 if before else 0 : len(encoded) // 4 * 4 - 4]
        forms[f"base64, {before} before"] = inner
        forms[f"base64url, {before} before"] = inner.translate(bytes.maketrans(b"+/", b"-_"))
    return forms


def found_in(pid: int, forms: dict[str, bytes]) -> set[str]:
    """Return the names of the forms that the memory of a process holds."""
    found: set[str] = set()
    overlap = max(map(len, forms.values()))
    for chunk in memory_of(pid, overlap):
        found |= {name for name, form in forms.items() if name not in found and form in chunk}
    return found


def memory_of(pid: int, overlap: int = 0) -> Iterator[bytes]:
    """Yield all that is readable of a process's memory, in pieces that begin with the end of the one before.

    Raises:
        AssertionError: So little could be read that nothing would follow from it.
    """
    seen = 0
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            region = _REGION.match(line)
            if region is None or region[3] in _NOT_THEIRS:
                continue
            start, end = int(region[1], 16), int(region[2], 16)
            tail = b""
            while start < end:
                try:
                    piece = os.pread(memory, min(_CHUNK, end - start), start)
                except OSError:
                    # A file's pages past its end, or a device.
                    break
                if not piece:
                    break
                seen += len(piece)
                start += len(piece)
                yield tail + piece
                tail = piece[-overlap:] if overlap else b""
    finally:
        os.close(memory)
    assert seen > 10_000_000, f"of process {pid} only {seen} bytes could be read"
