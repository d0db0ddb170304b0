"""Read the policies of one `.cedar` file.

Cedar's own errors have no position and its parser can end the process, so each text is
bounded first, and a syntax error is then searched for: the shortest beginning of a policy
that Cedar refuses for anything but its sudden end ends with the token at fault.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.model import printable
from agentguard.policy.compiled import Policy
from agentguard.policy.lexer import Kind, LexError, check_bounds, position, statements
from agentguard.policy.literals import literals
from agentguard.policy.sketch import part_of
from agentguard.policy.slicing import scope_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from agentguard.limits import Limits
    from agentguard.policy.lexer import Statement, Token

_ID: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,127}")
_UNEXPECTED: Final = re.compile(r"unexpected token `(?P<token>.*)`", re.DOTALL)
_NO_ENTITY: Final = re.compile(r"expected an entity uid\b.*, found (?:literal|name) `(?P<what>.*)`", re.DOTALL)
_ENTITIES: Final = {"principal": "Agent", "action": "Action", "resource": "Tool"}
_ENDED: Final = "unexpected end of input"
_NO_SCHEMA: Final = cedarpy.Schema.from_str("")
_EFFECTS: Final = ("permit", "forbid")
_ANNOTATIONS: Final = ("id", "advice", "obligation", "approval_prompt", "scopes")
# `advise` is that close to `advice`.
_CLOSE: Final = 0.8
_STARTS: Final = frozenset(("@", *_EFFECTS))
# RFC 6749, section 3.3.
_SCOPE: Final = re.compile(r"[\x21\x23-\x5B\x5D-\x7E]+")
_PLACEHOLDER: Final = re.compile(r"\{[^{}]*\}")
_PROMPT_LENGTH: Final = 512
# They go into one header, which clients and proxies bound.
_SCOPES_LENGTH: Final = 512


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """Something to mend before the policies can be used.

    Attributes:
        file: Relative to the folder.
        line: From 1; 0 if it concerns the whole file.
        what: What is wrong and, after a colon, the fix.
    """

    file: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {self.what}" if self.line else f"{self.file}: {self.what}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return the fix for a word that is not known."""
    names = sorted(set(known))
    close = difflib.get_close_matches(word, names, n=1)
    if close:
        return f"did you mean `{close[0]}`?"
    return f"there is {', '.join(f'`{name}`' for name in names)}" if names else "there is none"


def read_policies(file: str, text: str, limits: Limits) -> tuple[list[Policy], list[Problem]]:
    """Return the policies that *text* holds, and what is wrong with the others."""
    try:
        found = statements(text)
    except LexError as error:
        return [], [Problem(file, error.line, error.what)]
    policies: list[Policy] = []
    problems: list[Problem] = []
    for statement in found:
        try:
            policies.append(_read(file, text, statement, limits))
        except LexError as error:
            problems.append(Problem(file, error.line, error.what))
    return policies, problems


def _read(file: str, text: str, statement: Statement, limits: Limits) -> Policy:
    check_bounds(text, statement.tokens, limits)
    head = _head(statement)
    _check_form(text, statement, head)
    try:
        handle = cedarpy.PolicySet.from_str(statement.text)
    except ValueError as error:
        raise _syntax_error(text, statement, str(error)) from None
    if len(handle) != 1:
        # Cedar and the lexer disagree about where policies end.
        raise LexError(text, statement.offset, "this is not one policy: end each policy with `;`")
    try:
        named = literals(statement.tokens)
    except ValueError as error:
        raise LexError(text, statement.offset, f"{error}: write the character itself") from None
    parsed = json.loads(cedarpy.policies_to_json_str(head.text))["staticPolicies"]["policy0"]
    annotations = {name: value or "" for name, value in parsed.get("annotations", {}).items()}
    _check_annotations(text, statement, annotations)
    return Policy(
        id=_id(text, statement, annotations),
        text=statement.text,
        scope=scope_of(parsed),
        part=part_of(statement),
        literals=named,
        advice=annotations.get("advice") or None,
        approval=_asks_for_approval(text, statement, head, annotations),
        prompt=_prompt(text, statement, annotations),
        scopes=_scopes(text, statement, annotations),
        owner=annotations.get("owner") or None,
        file=file,
        line=statement.line,
    )


@dataclass(frozen=True, slots=True)
class _Head:
    """The annotations, effect and scope of a policy, which alone are a policy too.

    Attributes:
        effect: The token where `permit` or `forbid` should be.
        text: The text up to the scope's closing bracket, and a semicolon.
    """

    effect: Token
    text: str


def _head(statement: Statement) -> _Head:
    """Split a policy's head off, as far as it has the form of one.

    A head is short and flat, so Cedar's JSON of it is cheap. The whole policy's can be
    nested deeper than a JSON parser goes.
    """
    tokens = statement.tokens
    at = 0
    last = len(tokens) - 1
    while at < last and tokens[at].text == "@":
        at += 5 if at + 2 <= last and tokens[at + 2].text == "(" else 2
    at = min(at, last)
    end = at
    depth = 0
    for end in range(at, len(tokens)):
        depth += (tokens[end].text == "(") - (tokens[end].text == ")")
        if depth == 0 and tokens[end].text == ")":
            break
    stop = tokens[end].offset + len(tokens[end].text) - statement.offset
    return _Head(tokens[at], statement.text[:stop] + ";")


def _check_form(text: str, statement: Statement, head: _Head) -> None:
    """Refuse what Cedar would refuse without saying where, and templates.

    Raises:
        LexError: At the token at fault.
    """
    for token in statement.tokens:
        if token.kind is Kind.SLOT:
            what = f"`{token.text}` makes this a template, which never applies: write the entity itself"
            raise LexError(text, token.offset, what)
    effect = head.effect
    if effect.text not in _EFFECTS:
        close = difflib.get_close_matches(effect.text, _EFFECTS, n=1) or ["permit"]
        what = f"a policy starts with `permit` or `forbid`, got `{effect.text}`: did you mean `{close[0]}`?"
        raise LexError(text, effect.offset, what)
    if statement.tokens[-1].text != ";":
        raise LexError(text, statement.tokens[-1].offset, "the last policy has no end: close it with `;`")


def _syntax_error(text: str, statement: Statement, message: str) -> LexError:
    """Return Cedar's *message* with the position that it lacks."""
    match = _UNEXPECTED.fullmatch(message)
    if match is None:
        bare = _NO_ENTITY.fullmatch(message)
        if bare is not None and (found := _no_entity(text, statement, bare["what"])) is not None:
            return found
        return LexError(text, _mentioned(statement, message), f"Cedar cannot read this policy: {message}")
    at = _place_of(match["token"], statement)
    token = statement.tokens[at]
    starting = next((part for part in statement.tokens[max(at - 1, 0) : at + 1] if part.text in _STARTS), None)
    if starting is not None:
        what = f"`{starting.text}` starts a policy inside another: end the one above with `;`"
        return LexError(text, starting.offset, what)
    number = "".join(part.text for part in statement.tokens[max(at - 2, 0) : at + 1])
    if re.fullmatch(r"\d+\.\d+", number):
        return LexError(text, token.offset, f'Cedar has no number `{number}`: write `decimal("{number}")`')
    if token.text == ";":
        return LexError(text, token.offset, "this policy ends too early: close its brackets before `;`")
    what = f"`{token.text}` cannot stand here: look for a missing comma, bracket or operator before it"
    return LexError(text, token.offset, what)


def _no_entity(text: str, statement: Statement, written: str) -> LexError | None:
    """Return the error for a name or a text in a policy's head, where an entity has to stand, if it can be found."""
    variable = ""
    for token in statement.tokens:
        if token.text in _ENTITIES:
            variable = token.text
        elif variable and token.text == written:
            name = written if written.startswith('"') else f'"{written}"'
            what = f"`{variable}` wants an entity, got `{written}`: write `{_ENTITIES[variable]}::{name}`"
            return LexError(text, token.offset, what)
    return None


def _place_of(unexpected: str, statement: Statement) -> int:
    """Return which token of a policy is the one that Cedar did not expect.

    A beginning of the policy that is too short is refused for its sudden end. So the
    token at fault is the last one that looks like it in the shortest beginning that is
    refused for something else.
    """
    tokens = statement.tokens
    low, high = 1, len(tokens)
    while low < high:
        middle = (low + high) // 2
        stop = tokens[middle - 1].offset + len(tokens[middle - 1].text) - statement.offset
        if _ends_suddenly(statement.text[:stop]):
            low = middle + 1
        else:
            high = middle
    return max((at for at in range(low) if tokens[at].text == unexpected), default=low - 1)


def _ends_suddenly(text: str) -> bool:
    """Whether all that Cedar has against *text* is that there is not more of it."""
    return any(error.error.endswith(_ENDED) for error in cedarpy.validate_policies(text, _NO_SCHEMA).errors)


def _mentioned(statement: Statement, message: str) -> int:
    """Return where the first name that *message* quotes stands, else where the policy starts."""
    quoted = {part for quote in re.findall(r"`([^`]+)`", message) for part in re.findall(r"\w+", quote)}
    quoted.update(re.findall(r": (\w+)$", message))
    return next((token.offset for token in statement.tokens if token.text in quoted), statement.offset)


def _check_annotations(text: str, statement: Statement, annotations: Mapping[str, str]) -> None:
    """Refuse an annotation that is one of ours with a slip of the pen. Others are the team's own.

    Raises:
        LexError: At its name.
    """
    absent = [name for name in _ANNOTATIONS if name not in annotations]
    for at, token in pairwise(statement.tokens):
        if at.text != "@" or token.text in _ANNOTATIONS:
            continue
        close = difflib.get_close_matches(token.text.lower(), absent, n=1, cutoff=_CLOSE)
        # `device` is as close to `advice`, and nobody mistypes the first letter alone.
        if close and close[0][0] == token.text[0].lower():
            what = f"@{token.text} would be without effect: did you mean @{close[0]}?"
            raise LexError(text, token.offset, what)


def _id(text: str, statement: Statement, annotations: Mapping[str, str]) -> str:
    id_ = annotations.get("id")
    if id_ is None:
        raise LexError(text, statement.offset, 'this policy has no @id: write @id("its-name") above it')
    if _ID.fullmatch(id_) is None:
        what = f"@id holds 1 to 128 letters, digits, `.`, `_`, `-` and `/`, got `{id_[:128]}`: rename it"
        raise LexError(text, statement.offset, what)
    return id_


def _scopes(text: str, statement: Statement, annotations: Mapping[str, str]) -> frozenset[str]:
    """Return the scopes that a policy says it looks for.

    Raises:
        LexError: If they are not RFC 6749 scope tokens, one blank between two.
    """
    written = annotations.get("scopes")
    if written is None:
        return frozenset()
    if len(written) > _SCOPES_LENGTH:
        what = f"@scopes holds at most {_SCOPES_LENGTH} characters, got {len(written)}: name fewer"
        raise LexError(text, statement.offset, what)
    scopes = written.split(" ")
    if wrong := next((scope for scope in scopes if _SCOPE.fullmatch(scope) is None), None):
        what = f'@scopes wants OAuth scopes, got `{printable(wrong)}`: write visible ASCII without `"` and `\\`'
        raise LexError(text, statement.offset, what)
    if "" in scopes:
        what = '@scopes wants one blank between two scopes: write @scopes("records:read records:write")'
        raise LexError(text, statement.offset, what)
    if "," in written:
        # RFC 6749 lets a comma be part of a scope; who writes one means the end of it.
        what = '@scopes wants blanks between scopes, got a comma: write @scopes("records:read records:write")'
        raise LexError(text, statement.offset, what)
    if "offline_access" in scopes:
        what = "@scopes names `offline_access`, which asks for a refresh token and opens nothing: take it away"
        raise LexError(text, statement.offset, what)
    return frozenset(scopes)


def duplicates(policies: list[Policy]) -> list[Problem]:
    """Return a problem for every policy whose id an earlier one has: Cedar does not look."""
    first: dict[str, Policy] = {}
    problems = []
    for policy in policies:
        earlier = first.setdefault(policy.id, policy)
        if earlier is not policy:
            what = f'@id("{policy.id}") is taken by {earlier.file}:{earlier.line}: rename one of the two'
            problems.append(Problem(policy.file, policy.line, what))
    return problems


def line_of(policy: Policy, offset: int) -> int:
    """Return the line, in its file, of an offset into a policy's text."""
    return policy.line + position(policy.text, offset)[0] - 1


def _asks_for_approval(text: str, statement: Statement, head: _Head, annotations: Mapping[str, str]) -> bool:
    """Return whether a person can lift this policy.

    The engine never ignores a forbid, so one that a person can lift has to say so itself.
    """
    if "obligation" not in annotations:
        return False
    if annotations["obligation"] != "approval" or head.effect.text != "forbid":
        what = 'only @obligation("approval") is known, and only on a forbid: mend it or take it away'
        raise LexError(text, statement.offset, what)
    if not _is_lifted([token.text for token in statement.tokens]):
        what = "no approval could lift this policy: end it with `unless { context has approval }`"
        raise LexError(text, statement.offset, what)
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


def _prompt(text: str, statement: Statement, annotations: Mapping[str, str]) -> str | None:
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
    raise LexError(text, statement.offset, what)
