"""The tutorial for policy writers, followed word for word: each file, each command, each output."""

from __future__ import annotations

import os
import re
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Final

from tests.docs.pages import ROOT, Block, blocks
from tests.ports import free_port
from tests.soak.test_tutorial import steps

PAGE: Final = "docs/pages/policy-tutorial.md"
PORT: Final = "8000"
SECRET: Final = re.compile(r"dev-[\w-]{10,}|dev-…")
_DECISION: Final = re.compile(r"\b01[0-9A-HJKMNP-TV-Z]{24}\b")
_SERVES: Final = "agentguard dev "
_LOCKS: Final = "agentguard lock "
_PATIENCE: Final = 30.0


def plain(text: str) -> list[str]:
    """Return lines without what is another one each time."""
    text = _DECISION.sub("DECISION", SECRET.sub("SECRET", text))
    text = re.sub(r"\bsha256:[0-9a-f]+…?", "sha256:…", text)
    text = re.sub(r"\b[0-9a-f]{32}\b|\b[0-9a-f]{8}\b", "RUN", text)
    text = re.sub(r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\b|\b\d\d:\d\d:\d\d\b", "TIME", text)
    text = re.sub(r"\bUTC, [A-Z][a-z]+day\b", "UTC, DAY", text)
    text = re.sub(r"\b\d{8}T\d{6}-[0-9a-f]{16}\.db:\d+", "EVIDENCE", text)
    text = re.sub(r"\bup to seq \d+", "up to seq SEQ", text)
    text = re.sub(r"\b\d+d \d+h left", "SOME left", text)
    text = re.sub(r"127\.0\.0\.1:\d+", "127.0.0.1:PORT", text)
    text = re.sub(r"(?:/[\w./-]+|~)/(?=first-hour|\.local)", "…/", text)
    return [" ".join(line.split()) for line in text.splitlines() if line.strip()]


@dataclass(slots=True)
class Reader:
    """Whoever follows the page.

    Attributes:
        folder: The clone.
        port: What is free in place of the page's.
        environment: What commands see.
        decisions: The ids that were shown.
    """

    folder: Path
    port: str
    environment: dict[str, str]
    decisions: list[str] = field(default_factory=list)
    _server: IO[bytes] | None = None
    _heard: str = ""

    def command(self, text: str) -> str:
        """Return a command of the page as it is typed here."""
        text = text.replace(f":{PORT}", f":{self.port}")
        return _DECISION.sub(lambda _: self.decisions[-1], text)

    def run(self, text: str) -> list[str]:
        """Run a command, and return what the terminal shows."""
        done = subprocess.run(
            ["/bin/sh", "-c", self.command(text)],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            env=self.environment,
        )
        self.decisions += _DECISION.findall(done.stdout)
        return plain(done.stdout)

    @contextmanager
    def serving(self, text: str) -> Iterator[list[str]]:
        """Start the server of the second terminal, and give what it says when it is ready."""
        with subprocess.Popen(
            ["/bin/sh", "-c", f"exec {text} --port {self.port}"],
            cwd=self.folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self.environment,
        ) as server:
            try:
                self._server = server.stdout
                said = self.next_lines(4)
                yield plain("\n".join(said))
            finally:
                server.send_signal(signal.SIGINT)
                server.wait(timeout=_PATIENCE)

    def next_lines(self, count: int) -> list[str]:
        """Return the next lines that the server says."""
        assert self._server is not None
        while self._heard.count("\n") < count:
            ready, _, _ = select.select([self._server], [], [], _PATIENCE)
            assert ready, (count, self._heard)
            said = os.read(self._server.fileno(), 65_536)
            assert said, (count, self._heard)
            self._heard += said.decode()
        *lines, self._heard = self._heard.split("\n", count)
        if secret := SECRET.search("\n".join(lines)):
            self.environment["SECRET"] = secret[0]
        return lines


def test_first_hour_goes_as_the_page_says(tmp_path: Path) -> None:
    """On a fresh clone; no file of Python is opened, and each output is the one that is shown."""
    clone = tmp_path / "clone"
    shutil.copytree(ROOT / "examples", clone / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    places = {"HOME": str(tmp_path / "home"), "COLUMNS": "80", "TERM": "dumb"}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AGENTGUARD", "XDG"))}
    reader = Reader(folder=clone, port=str(free_port()), environment={**kept, **places, "PATH": path})
    ran = 0

    with ExitStack() as ending:
        for block in blocks(PAGE):
            ran += follow(reader, block, ending)

    assert ran > 18
    assert not [line for line in (ROOT / PAGE).read_text().splitlines() if line.startswith("```python")]


def follow(reader: Reader, block: Block, ending: ExitStack) -> int:
    """Do what one block of the page says, and return how many commands that were."""
    where = f"{PAGE}:{block.line}"
    if block.title:
        file = reader.folder / block.title
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(reader.command(block.text), "utf-8")
    elif block.language == "text":
        shown = plain(block.text)
        assert plain("\n".join(reader.next_lines(len(shown)))) == shown, where
    elif block.language == "console":
        for command, lines in steps(block.text):
            if command.startswith("export "):
                continue
            if command.startswith(_LOCKS):
                # Where the page says Ctrl-C.
                ending.close()
            if command.startswith(_SERVES):
                printed = ending.enter_context(reader.serving(command))
            else:
                printed = reader.run(command)
            assert printed == plain("\n".join(lines)), f"{where}: {command}"
        return len(steps(block.text))
    return 0
