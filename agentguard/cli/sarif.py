"""Findings as SARIF 2.1.0, the OASIS format that collectors of findings read.

https://docs.oasis-open.org/sarif/sarif/v2.1.0/sarif-v2.1.0.html
"""

from __future__ import annotations

import os
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from agentguard.analysis.checking.names import help_of
from agentguard.analysis.finding import Severity

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from agentguard.analysis.finding import Finding

_SCHEMA: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(findings: Sequence[Finding], *, places: Sequence[Path], texts: Mapping[str, str]) -> dict[str, object]:
    """Return the document.

    Args:
        findings: What was found.
        places: The file of each, relative to the root of the repository, or absolute.
        texts: What the files hold, by their name in a finding: columns are told in UTF-16 units.
    """
    names = sorted({finding.name for finding in findings})
    lines = {file: text.split("\n") for file, text in texts.items()}
    return {
        "$schema": _SCHEMA,
        "version": "2.1.0",
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "agentguard",
                        "version": version("agentguard"),
                        "rules": [_rule(name) for name in names],
                    }
                },
                "columnKind": "utf16CodeUnits",
                "results": [
                    _result(finding, place, names.index(finding.name), lines.get(finding.file, ()))
                    for finding, place in zip(findings, places, strict=True)
                ],
            }
        ],
    }


def _rule(name: str) -> dict[str, object]:
    said = help_of(name)
    return {
        "id": name,
        "shortDescription": {"text": name.replace("-", " ")},
        "fullDescription": {"text": said},
        "help": {"text": said},
    }


def _result(finding: Finding, place: Path, rule: int, lines: Sequence[str]) -> dict[str, object]:
    artifact = {"uri": place.as_uri() if place.is_absolute() else quote(os.fsencode(place))}
    return {
        "ruleId": finding.name,
        "ruleIndex": rule,
        "level": "note" if finding.severity is Severity.NOTE else finding.severity.value,
        "message": {"text": finding.what},
        "locations": [{"physicalLocation": {"artifactLocation": artifact, "region": _region(finding, lines)}}],
    }


def _region(finding: Finding, lines: Sequence[str]) -> dict[str, int]:
    # Collectors show nothing without a line.
    region = {"startLine": max(finding.line, 1)}
    if finding.line and finding.column:
        start, end = finding.column - 1, finding.column - 1 + finding.length
        line = ""
        if finding.line <= len(lines):
            line = lines[finding.line - 1]
            end = max(min(end, len(line)), start)
        region["startColumn"] = _utf16(line, start) + 1
        region["endColumn"] = _utf16(line, end) + 1
    return region


def _utf16(line: str, characters: int) -> int:
    """Return how many UTF-16 units so many characters of a line have."""
    return characters + sum(sign > "\uffff" for sign in line[:characters])
