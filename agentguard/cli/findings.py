"""Tell findings: to a person, to a program, to GitHub, and to what collects test results."""

from __future__ import annotations

import os
import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final
from xml.etree import ElementTree as ET

import typer
from rich.text import Text

from agentguard.analysis.finding import Severity
from agentguard.cli.excerpt import excerpt
from agentguard.cli.output import draw, result, result_json, terminal
from agentguard.cli.sarif import sarif
from agentguard.errors import ConfigurationError
from agentguard.model import printable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from agentguard.analysis.finding import Finding

_STYLES: Final = {Severity.ERROR: "bold red", Severity.WARNING: "bold yellow", Severity.NOTE: "bold cyan"}
_COMMANDS: Final = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.NOTE: "notice"}
_LEAST_GUTTER: Final = 4
# What XML 1.0 has no way to write, not even escaped.
_NOT_XML: Final = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Format(StrEnum):
    """How findings are written."""

    TEXT = "text"
    """For a person: the line, with a mark under what is at fault."""

    JSON = "json"
    """For a program, in names that stay."""

    GITHUB = "github"
    """Workflow commands, which GitHub shows beside the lines of a change."""

    SARIF = "sarif"
    """SARIF 2.1.0, for what collects findings of many tools."""

    JUNIT = "junit"
    """JUnit XML, for what collects results of tests."""


FormatOption = Annotated[
    Format,
    typer.Option("--format", metavar="FORMAT", help="How findings are written: text, json, github, sarif or junit."),
]


def format_of(chosen: Format, *, as_json: bool) -> Format:
    """Return how to write, where ``--json`` is short for ``--format json``.

    Raises:
        ConfigurationError: Two ways were asked for.
    """
    if as_json and chosen not in {Format.TEXT, Format.JSON}:
        message = f"--json and --format {chosen} are two ways to write one result: leave one out"
        raise ConfigurationError(message)
    return Format.JSON if as_json else chosen


def write_findings(
    findings: Sequence[Finding],
    *,
    format: Format,  # noqa: A002  as the option is called
    folder: Path,
    texts: Mapping[str, str],
    summary: str,
    command: str = "check",
    checked: Sequence[tuple[str, str]] = (),
    extra: Mapping[str, object] | None = None,
) -> None:
    """Write findings, and how many there are.

    Args:
        findings: What was found; it is written in order of place.
        format: How.
        folder: What the files of *findings* are relative to.
        texts: What these files hold, by their name in a finding; a line is shown where there is one.
        summary: One line that says it all.
        command: Which command it was.
        checked: What was looked at and found good, by file and name; tests that passed, for JUnit.
        extra: More fields of the JSON document.
    """
    ordered = sorted(findings)
    if format is Format.TEXT:
        _write_text(ordered, folder, texts, summary)
    elif format is Format.JSON:
        result_json(_document(ordered, summary, {"folder": str(folder), **(extra or {})}))
    elif format is Format.GITHUB:
        for finding in ordered:
            result(_workflow_command(finding, place_of(finding, folder, _root())))
        result(_one_line(summary))
    elif format is Format.SARIF:
        places = [Path(place_of(finding, folder, _root())) for finding in ordered]
        result_json(sarif(ordered, places=places, texts=texts))
    else:
        result(_junit(ordered, folder, checked, f"agentguard {command}"))


def place_of(finding: Finding, folder: Path, root: Path) -> str:
    """Return how the file of a finding is called from *root*: relative where it is below it."""
    return near(folder / finding.file, root)


def near(path: Path, root: Path) -> str:
    """Return how something is called from *root*: relative where it is below it."""
    # Names are compared and no link is followed: what is shown is what was asked for.
    whole = os.path.abspath(path)  # noqa: PTH100  `Path.absolute` keeps `..`
    return os.path.relpath(whole, root) if Path(whole).is_relative_to(root) else whole


def counted(findings: Sequence[Finding]) -> str:
    """Return how many findings there are of each weight, for a summary."""
    parts = []
    for severity in Severity:
        number = sum(finding.severity is severity for finding in findings)
        if number or severity is Severity.ERROR:
            parts.append(f"{number or 'no'} {severity.value}{'' if number == 1 else 's'}")
    return ", ".join(parts)


def _root() -> Path:
    """Return what a repository's files are named from: its root on GitHub, else the working folder."""
    return Path(os.environ.get("GITHUB_WORKSPACE") or Path.cwd())


def _one_line(text: str) -> str:
    return " ".join(printable(part) for part in text.splitlines())


def headline(finding: Finding, folder: Path) -> str:
    """Return one finding in one line: where, how much it weighs, what it is called, what is wrong, the fix."""
    return _headline(finding, folder).plain


def _headline(finding: Finding, folder: Path) -> Text:
    position = f":{finding.line}" * bool(finding.line) + f":{finding.column}" * bool(finding.line and finding.column)
    return Text.assemble(
        (printable(place_of(finding, folder, Path.cwd()) + position), "bold"),
        " ",
        (f"{finding.severity}[{finding.name}]", _STYLES[finding.severity]),
        f": {_one_line(finding.what)}",
    )


def _write_text(findings: Sequence[Finding], folder: Path, texts: Mapping[str, str], summary: str) -> None:
    width = terminal().width
    lines = {file: text.split("\n") for file, text in texts.items() if any(found.file == file for found in findings)}
    told = [line for finding in findings for line in _as_text(finding, folder, lines, width)]
    draw(*told, Text(_one_line(summary), style="" if findings else "green"))


def _as_text(finding: Finding, folder: Path, texts: Mapping[str, Sequence[str]], width: int) -> list[Text]:
    """Return the lines that tell one finding."""
    told, style = _headline(finding, folder), _STYLES[finding.severity]
    lines = texts.get(finding.file, ())
    if not 0 < finding.line <= len(lines):
        return [told]
    number = str(finding.line).rjust(_LEAST_GUTTER + 1)
    source = lines[finding.line - 1].removesuffix("\r")
    shown = excerpt(source, column=finding.column, length=finding.length, room=width - len(number) - 3)
    gutter = " " * len(number) + " │ "
    marked = [Text.assemble((gutter, "dim"), (shown.mark, style))] if shown.mark else []
    return [told, Text.assemble((f"{number} │ ", "dim"), shown.line.rstrip()), *marked]


def _document(findings: Sequence[Finding], summary: str, extra: Mapping[str, object]) -> dict[str, object]:
    return {
        "version": 1,
        **extra,
        "summary": _one_line(summary),
        "counts": {severity.value: sum(finding.severity is severity for finding in findings) for severity in Severity},
        "findings": [
            {
                "file": finding.file,
                "line": finding.line,
                "column": finding.column,
                "length": finding.length,
                "severity": finding.severity.value,
                "name": finding.name,
                "what": finding.what,
                "policy": finding.policy or None,
            }
            for finding in findings
        ],
    }


def _workflow_command(finding: Finding, place: str) -> str:
    """Return a finding as GitHub's runner reads it.

    A line break in it would begin the next command, which could be any.
    """
    properties = {"file": place}
    if finding.line:
        properties["line"] = str(finding.line)
    if finding.line and finding.column:
        properties |= {"col": str(finding.column), "endColumn": str(finding.column + finding.length)}
    properties["title"] = f"{finding.name} ({finding.policy})" if finding.policy else finding.name
    written = ",".join(f"{name}={_escaped(value, ':,')}" for name, value in properties.items())
    return f"::{_COMMANDS[finding.severity]} {written}::{_escaped(finding.what)}"


def _escaped(text: str, more: str = "") -> str:
    clean = text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    for sign in more:
        clean = clean.replace(sign, f"%{ord(sign):02X}")
    return printable(clean)


def _junit(findings: Sequence[Finding], folder: Path, checked: Sequence[tuple[str, str]], name: str) -> str:
    """Return JUnit XML: a test that failed for each finding that has to be mended, and those that passed."""
    failures = [finding for finding in findings if finding.fails]
    cases = [ET.Element("testcase", _attributes(classname=file, name=good)) for file, good in checked]
    for finding in failures:
        place = place_of(finding, folder, Path.cwd())
        where = f"{place}:{finding.line}" if finding.line else place
        called = finding.title or f"{finding.policy or 'line ' + str(finding.line)}: {finding.name}"
        case = ET.Element("testcase", _attributes(classname=place, name=called))
        failure = ET.SubElement(case, "failure", _attributes(message=finding.what, type=finding.severity.value))
        failure.text = _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", f"{where} {finding.what}")
        cases.append(case)
    numbers = {"tests": str(len(cases)), "failures": str(len(failures)), "errors": "0"}
    root = ET.Element("testsuites", numbers)
    suite = ET.SubElement(root, "testsuite", _attributes(name=name) | numbers)
    suite.extend(cases)
    ET.indent(root)
    return f'<?xml version="1.0" encoding="utf-8"?>\n{ET.tostring(root, encoding="unicode")}'


def _attributes(**values: str) -> dict[str, str]:
    return {name: _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", value) for name, value in values.items()}
