import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from agentguard.analysis.finding import Finding, Severity
from agentguard.cli.findings import Format, counted, format_of, place_of, write_findings
from agentguard.errors import ConfigurationError
from tests.cli.commands import Stream

TEXT = '// What no agent may do.\n\nwhen { context.input.maxrows > 500 };\nwhen { context.input.format == "cvs" };\n'
ARGUMENT = Finding(
    file="20-guardrails.cedar",
    name="unknown-argument",
    what="`export_records` has no argument `maxrows`: did you mean `max_rows`?",
    line=3,
    column=22,
    length=7,
    policy="export-row-limit",
)
VALUE = Finding(
    file="20-guardrails.cedar",
    name="unknown-enum-value",
    what='`context.input.format` is "csv" or "json": "cvs" can never match',
    severity=Severity.WARNING,
    line=4,
    column=32,
    length=5,
)
WHOLE = Finding(file="agentguard.cedarschema", name="unreachable-tool", what="odd", severity=Severity.NOTE)


def written(
    findings: Sequence[Finding],
    form: Format,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    terminal: bool = False,
    texts: Mapping[str, str] | None = None,
    summary: str = "9 policies, 5 tools: 1 error",
    checked: Sequence[tuple[str, str]] = (),
) -> str:
    """Return what is written of *findings*."""
    stream = Stream(terminal=terminal)
    with monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stream)
        patch.setenv("TERM", "xterm-256color")
        write_findings(
            findings,
            format=form,
            folder=folder,
            texts={"20-guardrails.cedar": TEXT} if texts is None else texts,
            summary=summary,
            checked=checked,
        )
    return stream.getvalue()


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GITHUB_WORKSPACE", raising=False)
    return tmp_path


def test_text_shows_the_line_and_marks_what_is_at_fault(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Place, weight, name, what and fix; the line; the mark; and how many there are."""
    text = written([VALUE, WHOLE, ARGUMENT], Format.TEXT, Path("policies"), monkeypatch)

    assert text.splitlines() == [
        (
            "policies/20-guardrails.cedar:3:22 error[unknown-argument]: "
            "`export_records` has no argument `maxrows`: did you mean `max_rows`?"
        ),
        "    3 │ when { context.input.maxrows > 500 };",
        "      │                      ^^^^^^^",
        (
            "policies/20-guardrails.cedar:4:32 warning[unknown-enum-value]: "
            '`context.input.format` is "csv" or "json": "cvs" can never match'
        ),
        '    4 │ when { context.input.format == "cvs" };',
        "      │                                ^^^^^",
        "policies/agentguard.cedarschema note[unreachable-tool]: odd",
        "9 policies, 5 tools: 1 error",
    ]


def test_line_that_is_meant_as_a_whole_has_no_mark(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And one that is not there any more is not shown."""
    line = Finding(file="20-guardrails.cedar", name="x", what="y", line=1)
    gone = Finding(file="20-guardrails.cedar", name="x", what="y", line=99, column=3)

    text = written([line, gone], Format.TEXT, Path("policies"), monkeypatch)

    assert text.splitlines()[:-1] == [
        "policies/20-guardrails.cedar:1 error[x]: y",
        "    1 │ // What no agent may do.",
        "policies/20-guardrails.cedar:99:3 error[x]: y",
    ]


def test_colours_are_for_terminals_alone(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is piped is plain text, and NO_COLOR is heard."""
    plain = written([ARGUMENT], Format.TEXT, here, monkeypatch)
    coloured = written([ARGUMENT], Format.TEXT, here, monkeypatch, terminal=True)
    monkeypatch.setenv("NO_COLOR", "1")
    sober = written([ARGUMENT], Format.TEXT, here, monkeypatch, terminal=True)

    assert "\x1b[" not in plain
    assert "\x1b[1;31m" in coloured
    assert "31m" not in sober


def test_nothing_in_a_finding_steers_a_terminal(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names, texts and lines come from files that anybody may have written."""
    evil = Finding(file="a\x1b[2J.cedar", name="x", what="y\x1b]0;owned\x07\nz\u202e", line=1, column=1)

    text = written([evil], Format.TEXT, here, monkeypatch, texts={evil.file: "\x1b[2J\u2028"}, summary="a\x1b[2J\nb")

    assert "\x1b" not in text
    assert "\x07" not in text
    assert text.splitlines() == [
        "a\ufffd[2J.cedar:1:1 error[x]: y\ufffd]0;owned\ufffd z\ufffd",
        "    1 │ \ufffd[2J\ufffd",
        "      │ ^",
        "a\ufffd[2J b",
    ]


def test_line_that_ends_as_on_windows_is_shown_without_its_end(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A carriage return is no sign of the line."""
    found = Finding(file="a", name="x", what="y", line=1, column=1)

    text = written([found], Format.TEXT, here, monkeypatch, texts={"a": "permit\r\n"})

    assert text.splitlines()[1] == "    1 │ permit"


def test_everything_fits_80_columns_but_the_message(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long line is cut around its mark, in a window as in any."""
    monkeypatch.setenv("COLUMNS", "80")
    found = Finding(file="a", name="x", what="y", line=1, column=101, length=3)

    lines = written([found], Format.TEXT, here, monkeypatch, texts={"a": "x" * 100 + "bad" + "y" * 100}).splitlines()

    assert max(map(len, lines)) <= 80
    assert lines[1].index("bad") == lines[2].index("^^^")


def test_json_is_a_document_that_stays(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs read it by the names of its fields."""
    document = json.loads(written([VALUE, ARGUMENT], Format.JSON, Path("policies"), monkeypatch))

    assert document == {
        "version": 1,
        "folder": "policies",
        "summary": "9 policies, 5 tools: 1 error",
        "counts": {"error": 1, "warning": 1, "note": 0},
        "findings": [
            {
                "file": "20-guardrails.cedar",
                "line": 3,
                "column": 22,
                "length": 7,
                "severity": "error",
                "name": "unknown-argument",
                "what": "`export_records` has no argument `maxrows`: did you mean `max_rows`?",
                "policy": "export-row-limit",
            },
            {
                "file": "20-guardrails.cedar",
                "line": 4,
                "column": 32,
                "length": 5,
                "severity": "warning",
                "name": "unknown-enum-value",
                "what": '`context.input.format` is "csv" or "json": "cvs" can never match',
                "policy": None,
            },
        ],
    }


def test_github_shows_findings_beside_the_lines_of_a_change(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One workflow command each, with the file's name from the root of the repository."""
    monkeypatch.setenv("GITHUB_WORKSPACE", str(here))
    (here / "deep").mkdir()
    monkeypatch.chdir(here / "deep")

    text = written([ARGUMENT, VALUE, WHOLE], Format.GITHUB, Path("policies"), monkeypatch)

    assert text.splitlines() == [
        (
            "::error file=deep/policies/20-guardrails.cedar,line=3,col=22,endColumn=29,"
            "title=unknown-argument (export-row-limit)::"
            "`export_records` has no argument `maxrows`: did you mean `max_rows`?"
        ),
        (
            "::warning file=deep/policies/20-guardrails.cedar,line=4,col=32,endColumn=37,title=unknown-enum-value::"
            '`context.input.format` is "csv" or "json": "cvs" can never match'
        ),
        "::notice file=deep/policies/agentguard.cedarschema,title=unreachable-tool::odd",
        "9 policies, 5 tools: 1 error",
    ]


def test_no_finding_begins_another_workflow_command(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command could set variables of the steps that follow, or hide what this one says."""
    evil = Finding(
        file="a,line=1::b\n::set-output.cedar",
        name="x",
        what="50 %\r\n::stop-commands::now",
        line=1,
        policy="p:q,r\n::debug::",
    )

    text = written([evil], Format.GITHUB, here, monkeypatch, summary="a\n::error::b")

    assert text.splitlines() == [
        (
            "::error file=a%2Cline=1%3A%3Ab%0A%3A%3Aset-output.cedar,line=1,title=x (p%3Aq%2Cr%0A%3A%3Adebug%3A%3A)"
            "::50 %25%0D%0A::stop-commands::now"
        ),
        "a ::error::b",
    ]


def test_sarif_has_what_the_standard_asks_for(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rule with help for each name, and each result points to its rule and its place."""
    document = json.loads(written([ARGUMENT, VALUE, WHOLE, ARGUMENT], Format.SARIF, Path("my policies"), monkeypatch))

    (run,) = document["runs"]
    driver = run["tool"]["driver"]
    assert document["version"] == "2.1.0"
    assert driver["name"] == "agentguard"
    assert run["columnKind"] == "utf16CodeUnits"
    assert [rule["id"] for rule in driver["rules"]] == ["unknown-argument", "unknown-enum-value", "unreachable-tool"]
    assert all(rule["help"]["text"].endswith(".") for rule in driver["rules"])
    assert [driver["rules"][result["ruleIndex"]]["id"] for result in run["results"]] == [
        result["ruleId"] for result in run["results"]
    ]
    assert [result["level"] for result in run["results"]] == ["error", "error", "warning", "note"]
    assert run["results"][0]["message"] == {"text": ARGUMENT.what}
    assert [places(result) for result in run["results"]] == [
        ("my%20policies/20-guardrails.cedar", {"startLine": 3, "startColumn": 22, "endColumn": 29}),
        ("my%20policies/20-guardrails.cedar", {"startLine": 3, "startColumn": 22, "endColumn": 29}),
        ("my%20policies/20-guardrails.cedar", {"startLine": 4, "startColumn": 32, "endColumn": 37}),
        ("my%20policies/agentguard.cedarschema", {"startLine": 1}),
    ]


def places(result: Mapping[str, Any]) -> tuple[str, dict[str, int]]:
    """Return where a result of SARIF is."""
    (location,) = result["locations"]
    physical = location["physicalLocation"]
    return physical["artifactLocation"]["uri"], physical["region"]


def test_columns_of_sarif_are_utf16_units(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A character beyond the first plane is two of them."""
    found = Finding(file="a", name="x", what="y", line=1, column=3, length=2)

    document = json.loads(
        written([found], Format.SARIF, here, monkeypatch, texts={"a": "\N{GRINNING FACE}x\N{GRINNING FACE}yz"})
    )

    assert places(document["runs"][0]["results"][0])[1] == {"startLine": 1, "startColumn": 4, "endColumn": 7}


def test_sarif_of_a_file_elsewhere_names_it_whole(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not below the root of the repository; and a line that nobody has is taken as it is said."""
    found = Finding(file="a b.cedar", name="x", what="y", line=9, column=2, length=3)

    document = json.loads(written([found], Format.SARIF, Path("/elsewhere"), monkeypatch))

    assert places(document["runs"][0]["results"][0]) == (
        "file:///elsewhere/a%20b.cedar",
        {"startLine": 9, "startColumn": 2, "endColumn": 5},
    )


def test_mark_of_sarif_ends_with_its_line(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text that goes on in the next line is told as far as this one has it."""
    found = Finding(file="a", name="x", what="y", line=1, column=2, length=99)

    document = json.loads(written([found], Format.SARIF, here, monkeypatch, texts={"a": "abc\nd"}))

    assert places(document["runs"][0]["results"][0])[1] == {"startLine": 1, "startColumn": 2, "endColumn": 4}


def test_junit_has_a_test_for_each_policy(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is good passed, what has to be mended failed, and a note is no failure."""
    text = written(
        [ARGUMENT, WHOLE], Format.JUNIT, Path("policies"), monkeypatch, checked=[("policies/a.cedar", "reads")]
    )

    root = ET.parse(io.StringIO(text)).getroot()  # noqa: S314  ours
    cases = [
        (case.get("classname"), case.get("name"), [(found.get("message"), found.text) for found in case])
        for case in root.iter("testcase")
    ]
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("2", "1", "0")
    assert [suite.get("name") for suite in root] == ["agentguard check"]
    assert cases == [
        ("policies/a.cedar", "reads", []),
        (
            "policies/20-guardrails.cedar",
            "export-row-limit: unknown-argument",
            [(ARGUMENT.what, f"policies/20-guardrails.cedar:3 {ARGUMENT.what}")],
        ),
    ]


def test_junit_can_be_read_whatever_is_in_it(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """XML has characters that it cannot hold, not even escaped."""
    evil = Finding(file="\x00<a>\ud800", name="x", what='"&<\x1b\ufffe]]>')

    text = written([evil], Format.JUNIT, here, monkeypatch)

    root = ET.parse(io.StringIO(text)).getroot()  # noqa: S314  ours
    (case,) = root.iter("testcase")
    assert case.get("name") == "line 0: x"
    assert case[0].get("message") == '"&<\ufffd\ufffd]]>'
    assert text.startswith('<?xml version="1.0" encoding="utf-8"?>\n<testsuites')


@pytest.mark.parametrize(
    ("severities", "said"),
    [
        ((), "no errors"),
        ((Severity.ERROR,), "1 error"),
        ((Severity.NOTE,), "no errors, 1 note"),
        ((Severity.WARNING, Severity.ERROR, Severity.ERROR, Severity.WARNING), "2 errors, 2 warnings"),
    ],
)
def test_findings_are_counted_by_weight(severities: Sequence[Severity], said: str) -> None:
    """The last line says whether to scroll up."""
    assert counted([Finding(file="a", name="x", what="y", severity=severity) for severity in severities]) == said


def test_json_is_short_for_its_format() -> None:
    """Two formats at once are a mistake."""
    assert format_of(Format.TEXT, as_json=True) is Format.JSON
    assert format_of(Format.JSON, as_json=True) is Format.JSON
    assert format_of(Format.SARIF, as_json=False) is Format.SARIF
    with pytest.raises(ConfigurationError, match="--json and --format sarif are two ways to write one result"):
        format_of(Format.SARIF, as_json=True)


def test_file_is_named_from_the_root_where_it_is_below_it(tmp_path: Path) -> None:
    """A folder beside it, or one that only begins so, is named whole."""
    found = Finding(file="a.cedar", name="x", what="y")

    assert place_of(found, tmp_path / "p", tmp_path) == "p/a.cedar"
    assert place_of(found, tmp_path / "p" / ".." / "q", tmp_path) == "q/a.cedar"
    assert place_of(found, Path(f"{tmp_path}-2"), tmp_path) == f"{tmp_path}-2/a.cedar"
