"""A label that no run carries, and that is nearly one that it may carry."""

from pathlib import Path

from agentguard.analysis.lints.run import lint
from tests.analysis.spending import spending


def found(folder: Path, condition: str) -> list[str]:
    """Return what is said of the labels in a condition."""
    policies = (
        '@id("works") @owner("a") permit (principal, action, resource);\n'
        f'@id("a") @owner("a") forbid (principal, action == Action::"pay", resource) when {{ {condition} }};'
    )
    return [one.what for one in lint(spending(folder, policies)) if one.name == "unknown-label"]


def test_slip_of_the_pen_is_told_wherever_labels_are_asked_for(tmp_path: Path) -> None:
    """One by one, or several at once."""
    said = "no tool here gives a run the label `untrustd`: did you mean `untrusted`?"

    assert found(tmp_path / "a", 'context.run.labels.contains("untrustd")') == [said]
    assert found(tmp_path / "b", 'context.run.labels.containsAny(["untrustd", "untrusted"])') == [said]
    assert found(tmp_path / "c", '!["untrustd"].containsAll(context.run.labels)') == [said]


def test_label_that_could_come_from_elsewhere_is_none_of_ours(tmp_path: Path) -> None:
    """A tool may put it on while it runs, and so may one of another server."""
    assert found(tmp_path / "a", 'context.run.labels.contains("mailed")') == []
    assert found(tmp_path / "b", 'context.run.labels.contains("untrusted")') == []
    assert found(tmp_path / "c", 'principal.scopes.contains("untrustd")') == []


def test_label_in_other_case_is_a_slip_too(tmp_path: Path) -> None:
    """A run carries labels as the tools have them, to the letter."""
    said = "no tool here gives a run the label `UNTRUSTED`: did you mean `untrusted`?"

    assert found(tmp_path / "a", 'context.run.labels.contains("UNTRUSTED")') == [said]


def test_label_that_none_can_be_is_told(tmp_path: Path) -> None:
    """Whoever gives it."""
    said = "no run can carry the label `untrusted mail`: write 1 to 64 of `A-Za-z0-9_.:/-`"

    assert found(tmp_path / "a", 'context.run.labels.contains("untrusted mail")') == [said]
