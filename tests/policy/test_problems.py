"""Where each mistake in a policy folder stands, and what it is called."""

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agentguard.analysis.checking.names import REFUSED
from agentguard.errors import PolicyError
from agentguard.limits import Limits
from agentguard.policy.conversion.values import Field, record_of
from agentguard.policy.files.source import compile_policies, survey_folder
from agentguard.policy.problem import Problem
from tests.policy.records import ENTITIES, LIMITS, TOOLS, TYPES, tool

HEAD = '@id("a") permit (principal, action, resource)'
SEARCH = '@id("a") forbid (principal, action == Action::"search", resource)'
DEEP = '@id("a") permit (principal, action, resource) when { ' + "(" * 200 + "true" + ")" * 200 + " };"


def found(
    tmp_path: Path, files: Mapping[str, str | bytes], *, limits: Limits = LIMITS, loaders: frozenset[str] = frozenset()
) -> list[tuple[str, str, str]]:
    """Return of each problem of a folder its file, its name, and the text that it is marked at."""
    for name, content in {"cedarentities.json": ENTITIES, **files}.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    source, problems = survey_folder(tmp_path, limits)
    if not problems:
        hidden = replace(tool("write", record_of({"path": Field(str)}, where="write"), "destructive"), unseen=("blob",))
        with pytest.raises(PolicyError) as caught:
            compile_policies(source, (*TOOLS, hidden), loaders=loaders, claims={}, limits=limits)
        problems = list(caught.value.found)
        assert [str(problem) for problem in problems] == list(caught.value.problems)
    return [(problem.file, problem.name, marked(files, problem)) for problem in problems]


def marked(files: Mapping[str, str | bytes], problem: Problem) -> str:
    """Return what a mark would stand under; nothing if all of a line, or all of a file, is meant."""
    if not problem.column:
        return ""
    text = {"cedarentities.json": ENTITIES, **files}[problem.file]
    assert isinstance(text, str)
    start = sum(len(line) + 1 for line in text.split("\n")[: problem.line - 1]) + problem.column - 1
    return text[start : start + problem.length]


POLICIES: dict[str, tuple[str, str, str]] = {
    "a character": (f"{HEAD} when {{ # }};", "syntax", "#"),
    "a string without end": (f'{HEAD} when {{ "abc }};', "syntax", '"'),
    "a comma": ('@id("a") permit (principal action, resource);', "syntax", "action"),
    "an effect": ('@id("a") permt (principal, action, resource);', "syntax", "permt"),
    "an end": (HEAD, "syntax", ")"),
    "an early end": (f"{HEAD} when {{ (true ;", "syntax", ";"),
    "a policy in a policy": (f"{HEAD} when {{ true }}\npermit (principal, action, resource);", "syntax", "permit"),
    "a decimal": (f"{HEAD} when {{ context.input.price > 1.5 }};", "syntax", "5"),
    "a function": (f"{HEAD} when {{ true && foo(1) }};", "syntax", "foo"),
    "an escape": (f'{HEAD} when {{ "\\*" == "a\\q" }};', "syntax", '"\\*"'),
    "an escape after a pattern": (f'{HEAD} when {{ "a" like "\\*" && "b" == "\\q" }};', "syntax", '"\\q"'),
    "an escape of Cedar's alone": (f'{HEAD} when {{ User::"\\u{{0_e9}}" == User::"b" }};', "syntax", '"\\u{0_e9}"'),
    "a carriage return": (f'{HEAD} when {{ User::"a\rb" == principal }};', "syntax", '"a\rb"'),
    "a depth": (DEEP, "past-limit", "("),
    "operators": (f"{HEAD} when {{ {' && '.join(['true'] * 600)} }};", "past-limit", "&&"),
    "a size": (f"{HEAD} when {{ '{'x' * 40_000}' }};".replace("'", '"'), "past-limit", "@"),
    "a slot": ('@id("a") permit (principal == ?principal, action, resource);', "template", "?principal"),
    "a name for an entity": ('@id("a") permit (principal == "bob", action, resource);', "not-an-entity", '"bob"'),
    "no id": ("\n  permit (principal, action, resource);", "missing-id", "permit"),
    "no id below another annotation": ('@owner("x")\npermit (principal, action, resource);', "missing-id", "@"),
    "an id": ('@owner("x")\n@id("a b")\npermit (principal, action, resource);', "bad-id", '"a b"'),
    "an id without a text": ("@id permit (principal, action, resource);", "bad-id", "id"),
    "an id twice": (f'{HEAD};\n @id("a") permit (principal, action, resource) when {{ true }};', "duplicate-id", '"a"'),
    "an annotation": (f'@advise("x") {HEAD};', "misspelled-annotation", "advise"),
    "an obligation": (f'@obligation("approve") {HEAD};', "bad-obligation", '"approve"'),
    "an obligation without unless": (
        '@obligation("approval") @id("a") forbid (principal, action, resource);',
        "obligation-without-unless",
        '"approval"',
    ),
    "a prompt": (f'@approval_prompt("?") {HEAD};', "bad-prompt", '"?"'),
    "scopes": (f'@scopes("a,b") {HEAD};', "bad-scopes", '"a,b"'),
    "an action": (
        '@id("a") permit (principal, action == Action::"raed", resource);',
        "unknown-action",
        'Action::"raed"',
    ),
    "a type": (f'{HEAD} when {{ "Rcord" == "x" || resource is Rcord }};', "unknown-type", "Rcord"),
    "an argument": (
        f"{SEARCH} when {{ context.input has text }} when {{ context.input.txet == 1 }};",
        "unknown-argument",
        "txet",
    ),
    "an argument in brackets": (f'{SEARCH} when {{ context["input"]["txet"] == "x" }};', "unknown-argument", '"txet"'),
    "an argument with another beside": (
        f'{SEARCH} when {{ resource in Tool::"search" && (context.input.txet like "\\*") }};',
        "unknown-argument",
        "txet",
    ),
    "an argument with a dot": (
        f'{SEARCH} when {{ true && context.input["a.b"] == "x" }};',
        "unknown-context",
        'context.input["a.b"] == "x"',
    ),
    "an attribute": (f'{HEAD} when {{ "purposes" != principal.agent.purposes }};', "unknown-attribute", "purposes"),
    "a context": (f'{HEAD} when {{ context.nwo == datetime("2026-01-01") }};', "unknown-context", "nwo"),
    "a fact": (f"{SEARCH} when {{ context.facts.total > 1 }};", "unknown-fact", "facts"),
    "an optional attribute": (
        f'{HEAD} when {{ principal has purpose && principal.purpose == "a" || principal.purpose == "b" }};',
        "optional-without-has",
        "purpose",
    ),
    "a type of a value": (
        f"{SEARCH} when {{ context.input.rows > 1 && (context.input.text > 2 || true) }};",
        "type-mismatch",
        "context.input.text > 2",
    ),
    "types that differ": (
        f'{SEARCH} unless {{ context.input.rows == "a" }};',
        "type-mismatch",
        'context.input.rows == "a"',
    ),
    "a branch": (
        f"{SEARCH} when {{ if context.input.rows > 1 && true then 1 else false }};",
        "type-mismatch",
        "if context.input.rows > 1 && true then 1 else false",
    ),
    "an empty set": (f"{HEAD} when {{ principal.scopes == [] }};", "empty-set", "principal.scopes == []"),
    "no literal": (
        f"{HEAD} when {{ ip(principal.issuer).isIpv4() }};",
        "not-a-literal",
        "ip(principal.issuer).isIpv4()",
    ),
    "a bad literal": (f'{HEAD} when {{ ip("x").isIpv4() }};', "bad-literal", 'ip("x").isIpv4()'),
    "arguments of a function": (
        f'{HEAD} when {{ ip("::1").isInRange() }};',
        "wrong-arguments",
        'ip("::1").isInRange()',
    ),
    "a tag": (
        f'{HEAD} when {{ resource is Record && resource.getTag("x") == "y" }};',
        "tag-without-has",
        'resource.getTag("x") == "y"',
    ),
    "a head": (
        '@id("a")\npermit (principal, action == Action::"search", resource is Record);',
        "impossible-head",
        "permit",
    ),
    "a run": (f'{HEAD} when {{ principal == User::"alice" }};', "impossible-comparison", 'User::"alice"'),
    "a value": (f'{HEAD} when {{ principal.grade == "rnu" }};', "impossible-value", '"rnu"'),
    "an entity": (f'{HEAD} when {{ User::"carol" in Group::"staff" }};', "unknown-entity", 'User::"carol"'),
    "an entity that is not listed": (
        f'{HEAD} when {{ principal in Group::"stuff" }};',
        "unknown-entity",
        'Group::"stuff"',
    ),
    "an argument that is not seen": (
        '@id("a") permit (principal, action == Action::"write", resource) when { context.input has blob };',
        "unseen-argument",
        "blob",
    ),
    "an argument that is there, and not seen": (
        '@id("a") permit (principal, action == Action::"write", resource) when { context.input.blob == "x" };',
        "unseen-argument",
        "blob",
    ),
}


@pytest.mark.parametrize(("text", "name", "mark"), POLICIES.values(), ids=POLICIES)
def test_mark_stands_under_what_is_wrong_in_a_policy(tmp_path: Path, text: str, name: str, mark: str) -> None:
    """Whatever stands above it, and however far right."""
    text = f"// Whatever is above.\n\n\t {text}"

    assert found(tmp_path, {"p.cedar": text, "types/a.cedarschema": TYPES}, loaders=frozenset({"Record"})) == [
        ("p.cedar", name, mark)
    ]


ENTITY = '{"uid": {"type": "%s", "id": "%s"}, "attrs": {}, "parents": [%s]}'
PARENT = '{"type": "User", "id": "zoe"}'
OTHER = '{"type": "User", "id": "x"}'

FILES: dict[str, tuple[dict[str, str | bytes], str, str, str]] = {
    "no JSON": ({"cedarentities.json": "[\n {,}]"}, "cedarentities.json", "syntax", ","),
    "deep JSON": ({"cedarentities.json": "[" * 100_000}, "cedarentities.json", "past-limit", ""),
    "no entity": ({"cedarentities.json": "[\n  1]"}, "cedarentities.json", "bad-entity", "1"),
    "an unsafe value": (
        {"cedarentities.json": '[{"uid": {"type": "User", "id": "x"}, "attrs": {"a": {"__expr": ""}}, "parents": []}]'},
        "cedarentities.json",
        "bad-entity",
        '"x"',
    ),
    "an entity twice": (
        {"cedarentities.json": f"[{ENTITY % ('User', 'x', '')},\n {ENTITY % ('User', 'x', '')}]"},
        "cedarentities.json",
        "duplicate-entity",
        '"x"',
    ),
    "an entity of ours": (
        {"cedarentities.json": f"[{ENTITY % ('Tool', 'x', '')}]"},
        "cedarentities.json",
        "reserved-type",
        '"Tool"',
    ),
    "an entity of no type": (
        {"cedarentities.json": f"[{ENTITY % ('Usr', 'x', '')}]"},
        "cedarentities.json",
        "unknown-type",
        '"Usr"',
    ),
    "a parent that is not there": (
        {"cedarentities.json": f"[{ENTITY % ('User', 'x', PARENT)}]", "types/a.cedarschema": "entity User in [User];"},
        "cedarentities.json",
        "unknown-entity",
        '"zoe"',
    ),
    "a parent of another type": (
        {"cedarentities.json": '[{"uid": {"type": "User", "id": "x"}, "attrs": {"a": 1}, "parents": []}]'},
        "cedarentities.json",
        "type-mismatch",
        '"x"',
    ),
    "a circle": (
        {
            "cedarentities.json": f"[{ENTITY % ('User', 'x', PARENT)}, {ENTITY % ('User', 'zoe', OTHER)}]",
            "types/a.cedarschema": "entity User in [User];",
        },
        "cedarentities.json",
        "entity-cycle",
        "",
    ),
    "a schema's character": ({"types/a.cedarschema": "entity A;\n  # B;"}, "types/a.cedarschema", "syntax", "#"),
    "a schema's word": ({"types/a.cedarschema": "entity A;\n  entty B;"}, "types/a.cedarschema", "syntax", "entty"),
    "a schema's end": ({"types/a.cedarschema": "entity A"}, "types/a.cedarschema", "syntax", ""),
    "a schema's action": (
        {"types/a.cedarschema": "entity A;\naction b;"},
        "types/a.cedarschema",
        "reserved-type",
        "action",
    ),
    "a schema's type of ours": (
        {"types/a.cedarschema": "entity\n Tool;"},
        "types/a.cedarschema",
        "reserved-type",
        "Tool",
    ),
    "a schema's type of Cedar's": (
        {"types/a.cedarschema": "type Long = String;"},
        "types/a.cedarschema",
        "reserved-type",
        "Long",
    ),
    "a schema that is deep": (
        {"types/a.cedarschema": "type A = " + "Set<" * 200 + "Long" + ">" * 200 + ";"},
        "types/a.cedarschema",
        "past-limit",
        "<",
    ),
    "a type twice": (
        {"types/a.cedarschema": "entity A;", "types/b.cedarschema": "entity B, A;"},
        "types/b.cedarschema",
        "duplicate-type",
        "A",
    ),
    "a namespace twice": (
        {"types/a.cedarschema": "namespace N {}", "types/b.cedarschema": "\nnamespace N {}"},
        "types/b.cedarschema",
        "duplicate-type",
        "",
    ),
    "a type without its tool": (
        {"types/a.cedarschema": "entity Record;"},
        "types/a.cedarschema",
        "undeclared-parent",
        "Record",
    ),
    "a type that nobody knows": (
        {"types/a.cedarschema": "entity Record in [Tool] = { a: String };"},
        "types/a.cedarschema",
        "unsourced-type",
        "Record",
    ),
    "a type that is not declared": (
        {"types/a.cedarschema": "entity Record in [Tool];\nentity A = { b: Thing };"},
        "types/a.cedarschema",
        "bad-schema",
        "Thing",
    ),
    "another encoding": ({"p.cedar": b"// \n\xff"}, "p.cedar", "not-utf8", ""),
    "a place": ({"deep/p.cedar": HEAD}, "deep/p.cedar", "misplaced-file", ""),
}


@pytest.mark.parametrize(("files", "file", "name", "mark"), FILES.values(), ids=FILES)
def test_mark_stands_under_what_is_wrong_in_other_files(
    tmp_path: Path, files: Mapping[str, str | bytes], file: str, name: str, mark: str
) -> None:
    """Entities, schemas, and files that cannot be read at all."""
    assert found(tmp_path, {"p.cedar": f"{HEAD};", **files}) == [(file, name, mark)]


def test_entity_that_a_loader_knows_too_is_marked(tmp_path: Path) -> None:
    """In the first line of it that is there."""
    entity = ENTITY % ("Record", "r1", "")
    files = {
        "p.cedar": f"{HEAD};",
        "types/a.cedarschema": "entity Record in [Tool];",
        "cedarentities.json": f"[{entity}]",
    }

    assert found(tmp_path, files, loaders=frozenset({"Record"})) == [
        ("cedarentities.json", "twice-sourced", '"Record"')
    ]


def test_problems_of_a_folder_have_names_too(tmp_path: Path) -> None:
    """A link that leads out, a file that is none, no policy, and no folder."""
    (tmp_path / "out.cedar").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "odd.cedar")
    _, problems = survey_folder(tmp_path, LIMITS)
    assert [(problem.file, problem.name) for problem in problems] == [
        ("odd.cedar", "unreadable-file"),
        ("out.cedar", "link-outside"),
    ]

    empty = tmp_path / "empty"
    empty.mkdir()
    _, problems = survey_folder(empty, LIMITS)
    assert [(problem.file, problem.name) for problem in problems] == [("", "no-policies")]

    (empty / "a.cedar").write_text("// nothing yet")
    _, problems = survey_folder(empty, LIMITS)
    assert [(problem.file, problem.name) for problem in problems] == [("", "no-policies")]

    with pytest.raises(PolicyError) as caught:
        survey_folder(tmp_path / "gone", LIMITS)
    assert [problem.name for problem in caught.value.found] == ["no-folder"]


def test_every_name_of_what_is_refused_is_explained_and_shown() -> None:
    """A name that nobody explains helps nobody, and one that nothing has is not there."""
    shown = {name for _, name, _ in POLICIES.values()} | {name for _, _, name, _ in FILES.values()}
    elsewhere = {"invalid", "no-folder", "no-policies", "link-outside", "unreadable-file", "twice-sourced", "no-schema"}
    by_the_formatter = {"changed-policy", "lost-comment"}

    assert shown | elsewhere | by_the_formatter == set(REFUSED)


def test_folder_that_is_all_wrong_is_not_searched_to_its_end(tmp_path: Path) -> None:
    """Each search costs some validations; what is not searched is marked as a whole."""
    text = "\n".join(
        f'@id("p{at}") permit (principal, action, resource) when {{ true && principal.agent == "x" }};'
        for at in range(30)
    )

    marks = [mark for _, _, mark in found(tmp_path, {"p.cedar": text})]

    assert len(marks) == 30
    assert marks.count('principal.agent == "x"') == 20
