import pytest

from agentguard.analysis.checking.whose import Whose
from agentguard.analysis.finding import Finding
from agentguard.policy.files.reader import read_policies
from tests.policy.records import LIMITS

HEAD = "permit (principal, action, resource)"
TEXT = f'@id("a") {HEAD}; @id("b")\n{HEAD};\n\n@id("c") {HEAD}\nwhen {{ true }}; @id("d") {HEAD};\n'


def about(line: int, column: int = 0, *, file: str = "x.cedar", policy: str = "") -> list[str]:
    """Return the ids of the policies that a finding is about."""
    policies, problems = read_policies("x.cedar", TEXT, LIMITS)
    assert problems == []
    finding = Finding(file=file, name="x", what="y", line=line, column=column, policy=policy)
    return sorted(one.id for one in Whose(policies).about(finding))


@pytest.mark.parametrize(
    ("line", "column", "wanted"),
    [
        (1, 1, ["a"]),
        (1, 46, ["a"]),
        (1, 47, []),
        (1, 48, ["b"]),
        (2, 5, ["b"]),
        (2, 37, ["b"]),
        (2, 38, []),
        (3, 1, []),
        (5, 14, ["c"]),
        (5, 15, []),
        (5, 16, ["d"]),
        (1, 0, ["a", "b"]),
        (2, 0, ["b"]),
        (3, 0, []),
        (5, 0, ["c", "d"]),
        (99, 0, []),
        (0, 0, ["a", "b", "c", "d"]),
    ],
)
def test_policy_is_found_by_where_a_finding_stands(line: int, column: int, wanted: list[str]) -> None:
    """By the column where there is one; else all that stands in the line is meant, or in the file."""
    assert about(line, column) == wanted


def test_finding_that_names_its_policy_means_that_alone() -> None:
    """And one of another file means none."""
    assert about(0, policy="c") == ["c"]
    assert about(1, file="y.cedar") == []
