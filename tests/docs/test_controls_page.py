import ast
import re
from pathlib import Path
from typing import NamedTuple

from agentguard.analysis.health.controls import AGENTIC, CONTROLS, IDENTITIES, TENETS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "pages" / "reference" / "controls.md"


class Row(NamedTuple):
    """One row of a table of the page."""

    control: str
    done: str
    left: str
    doctor: tuple[str, ...]
    test: str


def rows() -> list[Row]:
    """Return the rows of all tables."""
    found = []
    for line in PAGE.read_text("utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        control = re.match(r"(ASI\d\d|NHI\d+|800-207 tenet \d)\b", cells[0])
        if line.startswith("|") and control is not None:
            _, done, left, doctor, test = cells
            found.append(Row(control[1], done, left, tuple(re.findall(r"`([^`]+)`", doctor)), test.strip("`")))
    return found


def names_in(path: str) -> set[str]:
    """Return the names of the tests in a file."""
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    return {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_control_of_the_lists_has_a_row() -> None:
    """In the order of the lists, each once: a row that is left out would look as if it did not matter."""
    assert [row.control for row in rows()] == [*AGENTIC, *IDENTITIES, *TENETS]


def test_every_row_names_a_test_that_is_there() -> None:
    """Each another one, so that no test stands for everything."""
    named = [row.test for row in rows()]

    missing = [one for one in named if one.partition("::")[2] not in names_in(one.partition("::")[0])]

    assert missing == []
    assert len(set(named)) == len(named)


def test_every_row_says_what_is_done() -> None:
    """And where something is not, it says so."""
    assert all(row.done.endswith(".") for row in rows())
    assert [row.control for row in rows() if "not covered" in row.left] == [
        "ASI04",
        "ASI05",
        "ASI06",
        "ASI07",
        "ASI08",
        "NHI3",
        "NHI10",
        "800-207 tenet 5",
    ]


def test_findings_of_the_doctor_stand_in_the_rows_that_they_touch() -> None:
    """As the code has it, in its order."""
    wanted = {
        row.control: tuple(name for name, controls in CONTROLS.items() if row.control in controls) for row in rows()
    }

    assert {row.control: row.doctor for row in rows()} == wanted
