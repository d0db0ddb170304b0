"""The README and the pages, read as what they show: their blocks of code, and their commands."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
PAGES: Final = tuple(
    sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "README.md", *(ROOT / "docs/pages").rglob("*.md")))
)

_BLOCK: Final = re.compile(
    r'^```(?P<language>\w+)(?: title="(?P<title>[^"]+)")?\n(?P<text>.*?)^```$', re.MULTILINE | re.DOTALL
)
_DECISION: Final = re.compile(r"\b[0-9A-HJKMNP-TV-Z]{26}\b")


@dataclass(frozen=True, slots=True)
class Block:
    """One block of a page.

    Attributes:
        language: What it is written in.
        title: The file that it stands for; empty for none.
        text: What it shows.
        line: Where it starts in the page.
    """

    language: str
    title: str
    text: str
    line: int


def blocks(page: str, language: str | None = None) -> list[Block]:
    """Return the blocks of a page, of one language or of all."""
    text = (ROOT / page).read_text("utf-8")
    found = [
        Block(match["language"], match["title"] or "", match["text"], text.count("\n", 0, match.start()) + 1)
        for match in _BLOCK.finditer(text)
    ]
    return [block for block in found if language in (None, block.language)]


def write_files(page: str, folder: Path) -> None:
    """Write every block with a title into the file that it stands for; several with one title are one file."""
    texts: dict[str, str] = {}
    for block in blocks(page):
        if block.title:
            texts[block.title] = f"{texts[block.title]}\n\n{block.text}" if block.title in texts else block.text
    for title, text in texts.items():
        file = folder / title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, "utf-8")


def run_python(page: str, folder: Path, changes: Mapping[str, str] | None = None) -> Mapping[str, Any]:
    """Run a page's Python blocks in order, as one module beside the page's files, and return its names.

    A page that shows no folder of policies gets one that permits everything.

    Args:
        page: The page.
        folder: Where its files go.
        changes: What stands in it that the test wants otherwise.
    """
    write_files(page, folder)
    if not (folder / "policies").exists():
        (folder / "policies").mkdir()
        (folder / "policies" / "all.cedar").write_text('@id("all") permit (principal, action, resource);')
    names: dict[str, Any] = {"__name__": "page", "__file__": str(folder / "page.py")}
    for block in blocks(page, "python"):
        # The line in the page, for whoever reads the traceback.
        code = compile("\n" * block.line + changed(block.text, changes or {}), page, "exec")
        exec(code, names)  # noqa: S102  these are our own pages
    return names


def changed(text: str, changes: Mapping[str, str]) -> str:
    """Return *text* with each of *changes* made."""
    for old, new in changes.items():
        text = text.replace(old, new)
    return text


def without_ids(text: str) -> str:
    """Return *text* with every decision's id replaced: each is another one."""
    return _DECISION.sub("…", text)
