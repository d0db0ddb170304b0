"""The table of conditions on the page of the vocabulary: Cedar has what it says, and its examples fit."""

import re
from pathlib import Path
from typing import Final

import pytest

from agentguard import PolicyError
from tests.docs.pages import ROOT
from tests.docs.test_pages import VOCABULARY_PAGE, check_policies, rows

ROWS: Final = rows(VOCABULARY_PAGE, "Conditions")
# One value of each type, which every call has.
VALUES: Final = {
    "String": '"a"',
    "Long": "1",
    "decimal": 'decimal("1.0")',
    "datetime": "context.now",
    "duration": "principal.lifetime",
    "ipaddr": 'ip("10.0.0.1")',
    "Set": "principal.scopes",
}
ARGUMENTS: Final = {"offset": "principal.lifetime", "isInRange": 'ip("10.0.0.0/8")', "contains": '"a"'}
ALONE: Final = re.compile("to[A-Z].*|is(?!InRange)[A-Z].*")


def conditions() -> list[str]:
    """Return each example, and a condition for each operator and each method that is named."""
    found = [cells[2].strip("`") for cells in ROWS]
    for name, operators, _ in ROWS:
        value = VALUES.get(name.strip("`"), "")
        for operator in re.findall(r"`([^`]+)`", operators) if value else ():
            if ALONE.fullmatch(operator):
                found.append(f"[{value}.{operator}()].contains({value}.{operator}())")
            elif operator.isalpha() and operator != "like":
                used = f"{value}.{operator}({ARGUMENTS.get(operator, value)})"
                found.append(f"{used} == {used}")
            elif operator != "*":
                used = f"{value} {operator} {value}"
                found.append(f"({used}) == ({used})")
    return found


def text_of(found: list[str]) -> str:
    """Return a policy for each condition, about the tool that has the argument."""
    policies = []
    for number, condition in enumerate(found):
        tool = "update_record" if "write_off" in condition else "search_records"
        tool = "export_records" if re.search(r"\.(format|max_rows|columns)\b", condition) else tool
        head = f'forbid (principal, action == Action::"{tool}", resource)'
        policies.append(f'@id("c{number}")\n{head}\nwhen {{ {condition} }};')
    return "\n".join(policies)


def test_examples_and_operators_are_cedars(tmp_path: Path) -> None:
    """Each of them is taken, with values of its type."""
    found = conditions()

    assert len(found) == 47
    check_policies(text_of(found), tmp_path / "policies")


def test_an_operator_that_there_is_not_is_found(tmp_path: Path) -> None:
    """The test above can fail."""
    with pytest.raises(PolicyError, match="size"):
        check_policies(text_of(["principal.scopes.size() == 1"]), tmp_path / "policies")


def test_page_names_every_type_of_cedar() -> None:
    """That arguments can have, by the table of values of the same page."""
    text = (ROOT / VOCABULARY_PAGE).read_text("utf-8")
    types = set(re.findall(r"`(String|Long|decimal|datetime|duration|ipaddr|Set)`", text))

    assert types <= {cells[0].strip("`") for cells in ROWS}
