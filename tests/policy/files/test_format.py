from collections.abc import Callable
from pathlib import Path

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.errors import PolicyError
from agentguard.policy.files.format import formatted
from agentguard.policy.text.lexer import tokens
from tests.policy.records import LIMITS

ROOT = Path(__file__).parent.parent.parent.parent
POLICY = (
    '@id("a")@advice("see // there")permit(principal in Agent::"b",action in [Action::"x",Action::"y"],resource is '
    'Record)when{context.input has a.b&&context.input.a["b c"]like"*x\\*"||!(if true then [1,2].contains(-1) else '
    '{a:1,"b":ip("::1")}.a==1)}unless{principal.x.greaterThan(decimal("1.0"))};'
)


def refused(text: str) -> tuple[str, int, str]:
    """Return what a text is refused for: the name, the line, and the words."""
    with pytest.raises(PolicyError) as caught:
        formatted("a.cedar", text, LIMITS)
    (problem,) = caught.value.found
    return problem.name, problem.line, problem.what


def test_layout_is_cedar_s_own() -> None:
    """Editors that format as one types leave it alone."""
    text = f"// Top.\n{POLICY} // Why.\n// Next.\nforbid(principal,action,resource);\n\n\n// End.\n"

    assert formatted("a.cedar", text, LIMITS) == cedarpy.format_policies(text)
    assert formatted("a.cedar", formatted("a.cedar", text, LIMITS), LIMITS) == formatted("a.cedar", text, LIMITS)


@pytest.mark.parametrize("folder", ["examples", "agentguard/policy/baseline"])
def test_policies_that_others_copy_are_laid_out(folder: str) -> None:
    """Whoever begins with them, and formats, changes nothing."""
    files = sorted((ROOT / folder).rglob("*.cedar"))

    assert files
    for file in files:
        assert formatted(file.name, file.read_text("utf-8"), LIMITS) == file.read_text("utf-8")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("", ""),
        ("\n\n", ""),
        ("// Nothing yet.", "// Nothing yet.\n"),
        ("\n// Nothing.\n\n\n// Yet.\n\n", "// Nothing.\n// Yet.\n"),
        ("permit(principal,action,resource,);", "permit (principal, action, resource);\n"),
        ("permit(principal,action,resource);\r\n// b\r\n", "permit (principal, action, resource);\n// b\n"),
        ("permit(principal,action,resource);// b\r// c", "permit (principal, action, resource); // b\n// c\n"),
    ],
)
def test_file_ends_with_one_line_end(text: str, wanted: str) -> None:
    """As editors and other tools want it; an empty one stays empty."""
    assert formatted("a.cedar", text, LIMITS) == wanted


@settings(max_examples=25, deadline=None)
@given(
    gaps=st.lists(
        st.sampled_from([" ", "\n", "\t", "\n\n", " // why\n", "\n//\n", '\n\n// "half\n', " //// é漢\r\n"]),
        min_size=len(tokens(POLICY)),
        max_size=len(tokens(POLICY)),
    ),
    top=st.sampled_from(["", "// top\n\n"]),
    end=st.sampled_from(["", "// end", "forbid(principal,action,resource);"]),
)
def test_comments_survive_wherever_they_stand(gaps: list[str], top: str, end: str) -> None:
    """Each of them, in their order, and the policies say what they said; a second time changes nothing."""
    pieces = [part for token, gap in zip(tokens(POLICY), gaps, strict=True) for part in (token.text, gap)]
    text = f"{top}{''.join(pieces)}{end}"

    result = formatted("a.cedar", text, LIMITS)

    assert comments(result) == comments(text)
    assert cedarpy.policies_to_json_str(result) == cedarpy.policies_to_json_str(text)
    assert formatted("a.cedar", result, LIMITS) == result


def comments(text: str) -> list[str]:
    """Return the comments of a text whose strings hold one that is none."""
    return [line[line.index("//") :].strip() for line in text.replace("see // there", "").split("\n") if "//" in line]


@pytest.mark.parametrize(
    ("text", "name", "line"),
    [
        ("\npermit (principal action, resource);", "syntax", 2),
        ("\n\npermit (principal, action, resource) when { # };", "syntax", 3),
        ("permit (principal, action, resource) when { " + "(" * 200 + "true" + ")" * 200 + " };", "past-limit", 1),
        ('@id("a") permit (principal, action, resource) when { };', "syntax", 1),
    ],
)
def test_text_that_is_no_policy_is_refused_where_it_is_wrong(text: str, name: str, line: int) -> None:
    """Nothing is laid out that Cedar cannot read, and its parser gets nothing that could end the process."""
    assert refused(text)[:2] == (name, line)


@pytest.mark.parametrize(
    ("formats", "wanted"),
    [
        (lambda text: text.replace("// b", ""), ("lost-comment", 3, "a comment would be lost")),
        (lambda text: text.replace("// c", "// C"), ("lost-comment", 5, "a comment would be lost")),
        (lambda text: text.replace("permit", "forbid"), ("changed-policy", 0, "a policy would be changed")),
        (lambda text: text.replace("true", "true && true"), ("changed-policy", 0, "a policy would be changed")),
    ],
)
def test_formatter_that_loses_or_changes_something_is_not_believed(
    formats: Callable[[str], str], wanted: tuple[str, int, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No version of Cedar's does so far as we know; one that did would do it without a trace."""
    monkeypatch.setattr(cedarpy, "format_policies", formats)

    name, line, what = refused("// a\n\n// b\npermit (principal, action, resource) when { true };\n// c\n")

    assert (name, line, what.partition(":")[0]) == wanted


def test_formatter_that_refuses_what_cedar_reads_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then there is no line to look at."""

    def refuse(text: str) -> str:
        message = "odd"
        raise ValueError(message)

    monkeypatch.setattr(cedarpy, "format_policies", refuse)

    assert refused('@id("a") permit (principal, action, resource);') == ("syntax", 0, "cannot be formatted: odd")


def test_formatter_that_never_settles_comes_to_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A comment that moves for ever is left where it is."""
    monkeypatch.setattr(cedarpy, "format_policies", lambda text: f"\n{text} ".replace(" (", "  ("))

    assert formatted("a", "permit (principal, action, resource);", LIMITS) == (
        "permit      (principal, action, resource);\n"
    )
