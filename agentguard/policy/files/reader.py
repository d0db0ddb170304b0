"""Read the policies of one `.cedar` file.

Cedar's own errors have no position and its parser can end the process, so each text is
bounded first, and a syntax error is then searched for: the shortest beginning of a policy
that Cedar refuses for anything but its sudden end ends with the token at fault.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Final

import cedarpy

from agentguard.policy.deciding.compiled import Policy
from agentguard.policy.deciding.sketch import part_of
from agentguard.policy.deciding.slicing import scope_of
from agentguard.policy.faults.unread import told
from agentguard.policy.text.annotated import asks_for_approval, check_annotations, id_of, prompt_of, scopes_of
from agentguard.policy.text.lexer import Kind, LexError, check_bounds, statements, tokens, unquote
from agentguard.policy.text.literals import literals
from agentguard.policy.text.placing import problem_at
from agentguard.policy.text.slips import EFFECTS, not_a_condition, not_a_token, not_an_effect

if TYPE_CHECKING:
    from agentguard.limits import Limits
    from agentguard.policy.problem import Problem
    from agentguard.policy.text.lexer import Statement, Token

_UNEXPECTED: Final = re.compile(r"unexpected token `(?P<token>.*)`", re.DOTALL)
_NO_ENTITY: Final = re.compile(r"expected an entity uid\b.*, found (?:literal|name) `(?P<what>.*)`", re.DOTALL)
_ENTITIES: Final = {"principal": "Agent", "action": "Action", "resource": "Tool"}
_ENDED: Final = "unexpected end of input"
_NO_SCHEMA: Final = cedarpy.Schema.from_str("")
_STARTS: Final = frozenset(("@", *EFFECTS))
_CONDITION: Final = re.compile(r"invalid policy condition: (?P<word>\w+)")


def read_policies(file: str, text: str, limits: Limits) -> tuple[list[Policy], list[Problem]]:
    """Return the policies that *text* holds, and what is wrong with the others."""
    try:
        found = statements(text)
    except LexError as error:
        return [], [error.within(file)]
    policies: list[Policy] = []
    problems: list[Problem] = []
    for statement in found:
        try:
            policies.append(_read(file, text, statement, limits))
        except LexError as error:
            problems.append(error.within(file))
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
        raise LexError.at(text, statement.tokens[0], "this is not one policy: end each policy with `;`")
    try:
        named = literals(statement.tokens)
    except ValueError as error:
        raise LexError.at(text, _not_understood(statement), f"{error}: write the character itself") from None
    parsed = json.loads(cedarpy.policies_to_json_str(head.text))["staticPolicies"]["policy0"]
    annotations = {name: value or "" for name, value in parsed.get("annotations", {}).items()}
    check_annotations(text, statement, annotations)
    return Policy(
        id=id_of(text, statement, annotations),
        text=statement.text,
        scope=scope_of(parsed),
        part=part_of(statement, parsed["action"]),
        literals=named,
        advice=annotations.get("advice") or None,
        approval=asks_for_approval(text, statement, head.effect, annotations),
        prompt=prompt_of(text, statement, annotations),
        scopes=scopes_of(text, statement, annotations),
        owner=annotations.get("owner", "").strip() or None,
        file=file,
        line=statement.line,
        column=statement.column,
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
            raise LexError.at(text, token, what, "template")
    effect = head.effect
    if effect.text not in EFFECTS:
        what = not_an_effect(statement.tokens, statement.tokens.index(effect))
        raise LexError.at(text, effect, what)
    for token in statement.tokens:
        if token.text == "=":
            raise LexError.at(text, token, "`=` is no operator of Cedar: write `==`")
    if statement.tokens[-1].text != ";":
        raise LexError.at(text, statement.tokens[-1], "the last policy has no end: close it with `;`")


def _syntax_error(text: str, statement: Statement, message: str) -> LexError:
    """Return Cedar's *message* with the position that it lacks."""
    match = _UNEXPECTED.fullmatch(message)
    if match is None:
        bare = _NO_ENTITY.fullmatch(message)
        if bare is not None and (found := _no_entity(text, statement, bare["what"])) is not None:
            return found
        condition = _CONDITION.fullmatch(message)
        if condition is not None:
            return LexError.at(text, _mentioned(statement, message), not_a_condition(condition["word"]))
        what, place = told(message, statement.tokens)
        return LexError.at(text, place or _mentioned(statement, message), what)
    return _unexpected(text, statement, _place_of(match["token"], statement))


def _unexpected(text: str, statement: Statement, at: int) -> LexError:
    """Return what is wrong with the token that Cedar did not expect."""
    token = statement.tokens[at]
    starting = next((part for part in statement.tokens[max(at - 1, 0) : at + 1] if part.text in _STARTS), None)
    if starting is not None and starting is not _head(statement).effect:
        what = f"`{starting.text}` starts a policy inside another: end the one above with `;`"
        return LexError.at(text, starting, what)
    number = "".join(part.text for part in statement.tokens[max(at - 2, 0) : at + 1])
    if re.fullmatch(r"\d+\.\d+", number):
        return LexError.at(text, token, f'Cedar has no number `{number}`: write `decimal("{number}")`')
    if slip := not_a_token(statement.tokens, at):
        return LexError.at(text, token, slip)
    if token.text == ";":
        return LexError.at(text, token, "this policy ends too early: close its brackets before `;`")
    what = f"`{token.text}` cannot stand here: look for a missing comma, bracket or operator before it"
    return LexError.at(text, token, what)


def _no_entity(text: str, statement: Statement, written: str) -> LexError | None:
    """Return the error for a name or a text in a policy's head, where an entity has to stand, if it can be found."""
    variable = ""
    path = written.split("::")
    for at, token in enumerate(statement.tokens):
        if token.text in _ENTITIES and len(path) == 1:
            variable = token.text
        elif len(path) > 1 and [part.text for part in statement.tokens[at : at + 2 * len(path) - 1 : 2]] == path:
            what = f'an entity\'s id is a text, got `{written}`: write `{"::".join(path[:-1])}::"{path[-1]}"`'
            length = statement.tokens[at + 2 * len(path) - 2].offset + len(path[-1]) - token.offset
            return LexError(text, token.offset, what, length=length, name="not-an-entity")
        elif variable and token.text == written:
            name = written if written.startswith('"') else f'"{written}"'
            what = f"`{variable}` wants an entity, got `{written}`: write `{_ENTITIES[variable]}::{name}`"
            return LexError.at(text, token, what, "not-an-entity")
    return None


def _not_understood(statement: Statement) -> Token:
    """Return the first string with an escape that is none, else what the policy starts with."""
    for before, token in pairwise(statement.tokens):
        # A pattern has an escape of its own.
        if token.kind is Kind.STRING and before.text != "like":
            try:
                unquote(token.text)
            except ValueError:
                return token
    return statement.tokens[0]


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


def _mentioned(statement: Statement, message: str) -> Token:
    """Return the first name that *message* quotes, else what it may be about."""
    quoted = {part for quote in re.findall(r"`([^`]+)`", message) for part in re.findall(r"\w+", quote)}
    quoted.update(re.findall(r": (\w+)$", message))
    return next((token for token in statement.tokens if token.text in quoted), None) or _not_understood(statement)


def duplicates(policies: list[Policy]) -> list[Problem]:
    """Return a problem for every policy whose id an earlier one has: Cedar does not look."""
    first: dict[str, Policy] = {}
    problems = []
    for policy in policies:
        earlier = first.setdefault(policy.id, policy)
        if earlier is not policy:
            what = f'@id("{policy.id}") is taken by {earlier.file}:{earlier.line}: rename one of the two'
            found = tokens(policy.text)
            at = next(at for at, token in enumerate(found) if token.text == "id" and found[at - 1].text == "@") + 2
            problems.append(problem_at(policy, found[at].offset, len(found[at].text), what, "duplicate-id"))
    return problems
