from pathlib import Path

from agentguard.analysis.checking.names import REFUSED, help_of
from agentguard.analysis.finding import Finding, Severity, of_problem
from agentguard.errors import PolicyError
from agentguard.policy.problem import Problem, refused


def test_findings_are_in_the_order_of_a_reader() -> None:
    """From the top of each file to its end, and in one place by name."""
    last = Finding(file="b.cedar", name="syntax", what="x")
    first = Finding(file="a.cedar", name="syntax", what="x", line=2, column=9)
    between = Finding(file="a.cedar", name="type-mismatch", what="x", line=2, column=9)
    after = Finding(file="a.cedar", name="bad-id", what="x", line=10, column=1)

    assert sorted([last, after, between, first]) == [first, between, after, last]


def test_finding_of_a_problem_stands_where_the_problem_does() -> None:
    """Nothing of its place or its name is lost, and it is an error."""
    found = of_problem(Problem("a.cedar", 3, "is odd: mend it", column=7, length=4, name="syntax"))

    assert found == Finding(
        file="a.cedar", name="syntax", what="is odd: mend it", severity=Severity.ERROR, line=3, column=7, length=4
    )


def test_notes_fail_nothing() -> None:
    """Errors and warnings ask somebody to act; what is good to know does not."""
    fails = {severity: Finding(file="a", name="x", what="y", severity=severity).fails for severity in Severity}

    assert fails == {Severity.ERROR: True, Severity.WARNING: True, Severity.NOTE: False}


def test_problems_survive_the_whole_path() -> None:
    """The error that names whole paths still knows what was found, and where."""
    problem = Problem("a.cedar", 3, "is odd: mend it", column=7, name="syntax")

    error = refused([problem]).within(Path("/srv/policies"))

    assert error.problems == ("/srv/policies/a.cedar:3: is odd: mend it",)
    assert error.found == (problem,)
    assert PolicyError(["plain"]).found == ()


def test_problem_without_a_file_is_told_as_it_is() -> None:
    """What concerns the folder itself has no line to name."""
    assert str(Problem("", 0, "the folder is gone: bring it back")) == "the folder is gone: bring it back"


def test_every_name_has_a_help() -> None:
    """A lint says why and what to do, a refusal says why, and a name that is nobody's is at least readable."""
    assert help_of("missing-owner").endswith('Write `@owner("team@example.com")` above it.')
    assert help_of("template") == REFUSED["template"]
    assert help_of("some-thing") == "Some thing."
    assert all(text.endswith(".") for text in REFUSED.values())
