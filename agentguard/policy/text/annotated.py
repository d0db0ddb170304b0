"""What a policy's annotations say that are ours, and whether they can be meant so.

Cedar takes any annotation, so one that is mistyped would be quietly without effect.
"""

from __future__ import annotations

import difflib
import re
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from agentguard.model import printable
from agentguard.policy.text.lexer import LexError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agentguard.policy.text.lexer import Statement, Token

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
ANNOTATIONS: Final = ("id", "advice", "obligation", "approval_prompt", "scopes")
"""What stands above a policy and decides, or is told to somebody."""

# Nobody decides by it, and whoever answers for a policy would not be known.
_MISSPELLED: Final = (*ANNOTATIONS, "owner")
# `advise` is that close to `advice`.
_CLOSE: Final = 0.8
# RFC 6749, section 3.3.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")
_PROMPT_LENGTH: Final = 512
# They go into one header, which clients and proxies bound.
_SCOPES_LENGTH: Final = 512


def check_annotations(text: str, statement: Statement, annotations: Mapping[str, str]) -> None:
    """Refuse an annotation that is one of ours with a slip of the pen. Others are the team's own.

    Raises:
        LexError: At its name.
    """
    absent = [name for name in _MISSPELLED if name not in annotations]
    for at, token in pairwise(statement.tokens):
        if at.text != "@" or token.text in _MISSPELLED:
            continue
        close = difflib.get_close_matches(token.text.lower(), absent, n=1, cutoff=_CLOSE)
        # `device` is as close to `advice`, and nobody mistypes the first letter alone.
        if close and close[0][0] == token.text[0].lower():
            what = f"@{token.text} would be without effect: did you mean @{close[0]}?"
            raise LexError.at(text, token, what, "misspelled-annotation")


def id_of(text: str, statement: Statement, annotations: Mapping[str, str]) -> str:
    """Return a policy's ``@id``.

    Raises:
        LexError: If it has none, or one that records and reports cannot name it by.
    """
    id_ = annotations.get("id")
    if id_ is None:
        raise LexError.at(
            text, statement.tokens[0], 'this policy has no @id: write @id("its-name") above it', "missing-id"
        )
    if _ID.fullmatch(id_) is None:
        what = f"@id holds 1 to 128 letters, digits, `.`, `_`, `-` and `/`, got `{id_[:128]}`: rename it"
        raise _of_annotation(text, statement, "id", what)
    return id_


def scopes_of(text: str, statement: Statement, annotations: Mapping[str, str]) -> frozenset[str]:
    """Return the scopes that a policy says it looks for.

    Raises:
        LexError: If they are not RFC 6749 scope tokens, one blank between two.
    """
    written = annotations.get("scopes")
    if written is None:
        return frozenset()
    if len(written) > _SCOPES_LENGTH:
        what = f"@scopes holds at most {_SCOPES_LENGTH} characters, got {len(written)}: name fewer"
        raise _of_annotation(text, statement, "scopes", what)
    scopes = written.split(" ")
    if wrong := next((scope for scope in scopes if _SCOPE.fullmatch(scope) is None), None):
        what = f'@scopes wants OAuth scopes, got `{printable(wrong)}`: write visible ASCII without `"` and `\\`'
        raise _of_annotation(text, statement, "scopes", what)
    if "" in scopes:
        what = '@scopes wants one blank between two scopes: write @scopes("records:read records:write")'
        raise _of_annotation(text, statement, "scopes", what)
    if "," in written:
        # RFC 6749 lets a comma be part of a scope; who writes one means the end of it.
        what = '@scopes wants blanks between scopes, got a comma: write @scopes("records:read records:write")'
        raise _of_annotation(text, statement, "scopes", what)
    if "offline_access" in scopes:
        what = "@scopes names `offline_access`, which asks for a refresh token and opens nothing: take it away"
        raise _of_annotation(text, statement, "scopes", what)
    return frozenset(scopes)


def asks_for_approval(text: str, statement: Statement, effect: Token, annotations: Mapping[str, str]) -> bool:
    """Return whether a person can lift this policy.

    The engine never ignores a forbid, so one that a person can lift has to say so itself.
    """
    if "obligation" not in annotations:
        return False
    if annotations["obligation"] != "approval" or effect.text != "forbid":
        what = 'only @obligation("approval") is known, and only on a forbid: mend it or take it away'
        raise _of_annotation(text, statement, "obligation", what)
    if not _is_lifted([token.text for token in statement.tokens]):
        what = "no approval could lift this policy: end it with `unless { context has approval }`"
        raise _of_annotation(text, statement, "obligation", what, kind="obligation-without-unless")
    return True


def _is_lifted(texts: list[str]) -> bool:
    """Return whether an ``unless`` asks for an approval; under a ``!`` it would ask for none."""
    clause, braces, negations, negates = "", 0, [False], False
    for at, part in enumerate(texts):
        if braces == 0 and part in {"when", "unless"}:
            clause = part
        if part == "!":
            negates = not negates
            continue
        negated = negations[-1] != negates
        if clause == "unless" and texts[at : at + 3] == ["context", "has", "approval"] and not negated:
            return True
        braces += (part == "{") - (part == "}")
        if part == "(":
            negations.append(negated)
        elif part == ")":
            negations.pop()
        negates = False
    return False


def prompt_of(text: str, statement: Statement, annotations: Mapping[str, str]) -> str | None:
    """Return what the person is told who can lift this policy.

    It stands as it is: the arguments are shown below it, where none of them can change its sense.

    Raises:
        LexError: If nobody would be asked, or it cannot be shown as it stands.
    """
    prompt = annotations.get("approval_prompt")
    if prompt is None:
        return None
    if "obligation" not in annotations:
        what = '@approval_prompt asks nobody here: add @obligation("approval"), or take it away'
    elif not prompt.strip() or prompt != printable(prompt) or len(prompt) > _PROMPT_LENGTH:
        what = f"@approval_prompt wants one line of 1 to {_PROMPT_LENGTH} characters that can be shown: mend it"
    elif (found := _PLACEHOLDER.search(prompt)) is not None:
        what = f"@approval_prompt is shown as it stands, with the arguments below it: take `{found[0]}` out"
    else:
        return prompt
    raise _of_annotation(text, statement, "approval_prompt", what, kind="bad-prompt")


def _of_annotation(text: str, statement: Statement, name: str, what: str, *, kind: str = "") -> LexError:
    """Return the error for what one of our annotations says, at that."""
    tokens = statement.tokens
    at = next(at for at, token in enumerate(tokens) if token.text == name and tokens[at - 1].text == "@")
    valued = tokens[at + 1].text == "("
    return LexError.at(text, tokens[at + 2] if valued else tokens[at], what, kind or f"bad-{name}")
