"""What the README and the pages show is true: their code runs, their policies fit, their commands exist."""

from __future__ import annotations

import ast
import json
import re
import runpy
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
from mcp import Client
from typer.main import get_command

from agentguard import Issuer, PolicyError, Reason, RunState, SQLiteStore
from agentguard.cli.main import COMMANDS, app
from agentguard.evidence.ledger import verify_chain
from agentguard.limits import Limits
from agentguard.model import Decision, Effect
from agentguard.policy.conversion.values import record_of
from agentguard.policy.schemas.fragments import VOCABULARY
from agentguard.policy.schemas.schema import GROUPS, GuardedTool, OwnType, schema_texts
from agentguard.steps.denial import told
from agentguard.testing import acting_as
from examples.records.server import POLICIES, build
from examples.records.stage import loopback_issuer
from tests.docs.pages import PAGES, ROOT, blocks, run_python, without_ids, write_files
from tests.tokens import KEY
from tests.world import serving

VOCABULARY_PAGE: Final = "docs/pages/reference/vocabulary.md"
TESTING_PAGE: Final = "docs/pages/how-to/test-a-guarded-tool.md"
GUARD_PAGE: Final = "docs/pages/how-to/guard-a-server.md"
TOKENS_PAGE: Final = "docs/pages/how-to/tokens-from-your-issuer.md"
ISSUER_PAGE: Final = "docs/pages/how-to/issuer-service.md"
TUTORIAL: Final = "docs/pages/tutorial.md"
POLICY_TUTORIAL: Final = "docs/pages/policy-tutorial.md"
LOCAL_PAGE: Final = "docs/pages/how-to/local-issuer.md"
RUN_PAGE: Final = "docs/pages/how-to/run-a-command.md"

each_page = pytest.mark.parametrize("page", PAGES)


def pages_with(language: str) -> list[str]:
    """Return the pages that show something in *language*."""
    return [page for page in PAGES if blocks(page, language)]


@pytest.mark.parametrize("page", sorted(set(pages_with("python")) - {TUTORIAL, TESTING_PAGE, ISSUER_PAGE}))
def test_python_blocks_of_a_page_run(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In order, as one program, beside the files that the page shows."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    run_python(page, tmp_path)


def check_policies(text: str, folder: Path) -> None:
    """Check policies against the tools of the example.

    Raises:
        PolicyError: They do not fit.
    """
    shutil.copytree(POLICIES, folder, ignore=shutil.ignore_patterns("*.cedar"))
    (folder / "page.cedar").write_text(text, "utf-8")
    build(issuer="https://issuer.example", audience="https://records.example/mcp", policies=folder)


@pytest.mark.parametrize("page", pages_with("cedar"))
def test_policies_of_a_page_fit_the_example(page: str, tmp_path: Path) -> None:
    """A policy without a file of its own is one for the records server; the others are read by their page's server."""
    policies = [block.text for block in blocks(page, "cedar") if not block.title]

    if policies:
        check_policies("\n".join(policies), tmp_path / "policies")


def test_policies_that_do_not_fit_the_example_are_found(tmp_path: Path) -> None:
    """The test above can fail."""
    policy = (
        '@id("x") permit (principal, action == Action::"export_records", resource) when { context.input.maxrows > 1 };'
    )

    with pytest.raises(PolicyError, match="maxrows"):
        check_policies(policy, tmp_path / "policies")


@pytest.mark.parametrize("page", pages_with("json"))
def test_json_blocks_of_a_page_are_json(page: str) -> None:
    """Whoever copies one has no typing errors to look for."""
    for block in blocks(page, "json"):
        json.loads(block.text)


@each_page
def test_make_targets_that_a_page_names_exist(page: str) -> None:
    """In its blocks and in its text."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    named = set(re.findall(r"(?:`|^\$ )make ([a-z]+)", (ROOT / page).read_text("utf-8"), re.MULTILINE))

    assert named <= targets


@pytest.mark.parametrize(
    "page", sorted(set(pages_with("console")) - {TUTORIAL, POLICY_TUTORIAL, LOCAL_PAGE, RUN_PAGE, ISSUER_PAGE})
)
def test_console_blocks_of_a_page_name_targets_of_make_and_commands_alone(page: str) -> None:
    """Other commands are those of pages whose own tests run them; ours have the options that they are shown with."""
    lines = [line for block in blocks(page, "console") for line in block.text.splitlines() if line.startswith("$ ")]
    ours = [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("$ agentguard ")]

    assert lines
    assert [line for line in lines if not line.startswith(("$ make ", "$ agentguard "))] == []
    for command in ours:
        end = command.index("--") if "--" in command else len(command)
        known = {option for parameter in command_of(command[1:end]).params for option in parameter.opts}
        assert {part for part in command[1:end] if part.startswith("--")} <= known


def command_of(words: Sequence[str]) -> Any:
    """Return the command that these words begin with."""
    found: Any = get_command(app)
    known: Any = {lazy.name: lazy.loaded for lazy in COMMANDS}
    for word in words:
        if word not in known:
            break
        found = known[word]
        known = getattr(found, "commands", {})
    return found


@each_page
def test_files_that_a_page_names_exist(page: str) -> None:
    """`tests/attacks/` and its like, as they stand in a page's text."""
    text = (ROOT / page).read_text("utf-8")
    named = set(re.findall(r"`((?:agentguard|docs|examples|tests)/[\w./-]*)`", text))

    assert [name for name in sorted(named) if not (ROOT / name).exists()] == []


def test_links_of_the_readme_lead_to_files() -> None:
    """The site's builder checks the pages' links, and nobody else these."""
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / "README.md").read_text("utf-8"))

    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_first_page_leads_to_every_how_to() -> None:
    """Whoever reads the pages as files has no other list of them."""
    links = set(re.findall(r"\]\((how-to/[^)#]+)", (ROOT / "docs/pages/index.md").read_text("utf-8")))

    assert links == {f"how-to/{page.name}" for page in (ROOT / "docs/pages/how-to").glob("*.md")}


def test_tests_that_the_page_on_testing_shows_pass(tmp_path: Path) -> None:
    """Whoever copies them begins with tests that pass."""
    write_files(TESTING_PAGE, tmp_path)

    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "test_export.py",
            "test_office.py",
            "test_lending.py",
        ],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    shown = [
        node
        for block in blocks(TESTING_PAGE, "python")
        for node in ast.walk(ast.parse(block.text))
        if isinstance(node, ast.AsyncFunctionDef) and node.name.startswith("test_")
    ]
    assert f"{len(shown)} passed" in done.stdout, done.stdout + done.stderr


def test_page_of_attributes_is_what_the_code_says() -> None:
    """Where it is not, `.venv/bin/python docs/attributes.py` writes it anew."""
    made = runpy.run_path(str(ROOT / "docs" / "attributes.py"))

    assert made["PAGE"].read_text("utf-8") == made["attributes_page"]()


def test_evidence_that_the_page_on_guarding_reads_is_whole(tmp_path: Path) -> None:
    """The page ends with a chain of records, begun when the guard was attached."""
    names = run_python(GUARD_PAGE, tmp_path)

    entries = list(names["guard"].state.ledger)
    assert verify_chain(entries) == ()
    assert entries[0].record["kind"] == "start"


def test_ids_of_two_issuers_are_told_apart_as_the_page_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page prints what it says that it prints."""
    monkeypatch.chdir(tmp_path)
    run_python(TOKENS_PAGE, tmp_path)

    assert capsys.readouterr().out.splitlines()[-1] == "own|billing-agent"


def rows(page: str, heading: str) -> list[list[str]]:
    """Return the cells of the table below *heading*, without its head."""
    section = (ROOT / page).read_text("utf-8").split(f"## {heading}\n")[1].split("\n## ")[0]
    # What is below a heading of its own is another table.
    lines = [line for line in section.split("\n### ")[0].splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_table_of_reasons_is_what_a_caller_is_told() -> None:
    """Each reason has its row, with the very words."""
    shown = {reason.strip("`"): (words, sentence) for reason, _, words, sentence in rows(VOCABULARY_PAGE, "Reasons")}

    wanted = {"permit": ("", "")}
    for reason in set(Reason) - {Reason.PERMIT}:
        answer = told(Decision(effect=Effect.DENY, reason=reason, id="X"))
        sentence = answer.text.removesuffix(" Decision X.")
        wanted[reason.value] = (f"`{answer.meta['reason']}`, `{answer.meta['retry']}`", sentence)
    assert shown == wanted


def test_table_of_the_principal_is_the_schema() -> None:
    """Each attribute has its row, with its type."""
    shown = {name.strip("`"): kind.strip("`") for name, kind, _ in rows(VOCABULARY_PAGE, "The principal")}

    types = schema_texts((), (), grouped=frozenset(), claims={}).types
    declared = re.search(r"entity Invocation in \[Agent, Task\] = \{ (.*) \};", types)
    assert declared is not None
    assert shown == dict(attribute.split(": ", 1) for attribute in declared[1].split(", "))


def test_table_of_the_context_is_the_schema() -> None:
    """Each attribute has its row, with its type where that is the same for every tool."""
    shown = {name.strip("`"): kind.strip("`") for name, kind, _ in rows(VOCABULARY_PAGE, "The context")}
    tool = GuardedTool(name="t", server="s", input=record_of({}, where="t"), facts=record_of({}, where="t"))

    action = schema_texts((tool,), (), grouped=frozenset(), claims={}).actions["t"]

    for name, kind in shown.items():
        assert f"{name}: {'{' if kind == 'record' else kind}" in action
    assert len(shown) == len(
        re.findall(r"(?:[{,] )(?:input|facts|now|local|environment|transport|run|approval\??): ", action)
    )


def test_groups_and_types_of_the_vocabulary_are_those_of_the_schema() -> None:
    """None is missing and none is made up."""
    groups = {cells[0].removeprefix('`Action::"').removesuffix('"`') for cells in rows(VOCABULARY_PAGE, "Actions")}
    types = {cells[0].strip("`") for cells in rows(VOCABULARY_PAGE, "Entity types")}

    assert groups == GROUPS
    assert types == VOCABULARY | {kind.value for kind in OwnType} | {"Invocation", "yours"}


def test_numbers_of_the_pages_are_the_limits() -> None:
    """A limit that changes takes the pages along."""
    limits = Limits()
    profile = " ".join((ROOT / "docs/pages/explanation/token-profile.md").read_text("utf-8").split())
    vocabulary = (ROOT / VOCABULARY_PAGE).read_text("utf-8")
    loaders = (ROOT / "docs/pages/how-to/loaders-and-entities.md").read_text("utf-8")

    assert f"At most {limits.token_bytes // 1024} KiB of ASCII" in profile
    assert f"at most {limits.act_depth} deep" in profile
    assert f"root first, at most {limits.ancestors}," in profile
    assert f"have at most {limits.grants_bytes // 1024} KiB" in profile
    assert f"more than {limits.string_bytes // 1024} KiB" in vocabulary
    assert f"It has {limits.loader_seconds} seconds." in loaders


async def test_run_of_the_readme_reaches_its_server_and_ends_with_its_block(tmp_path: Path) -> None:
    """Its issuer is one on loopback here, which shares the guard's store."""
    async with loopback_issuer() as issuer:
        names = run_python("README.md", tmp_path, {"https://issuer.example": issuer.issuer})
        guard = names["guard"]
        async with serving(names["server"]) as url:
            shared = Issuer(
                issuer=issuer.issuer, key=KEY, audience="https://records.example/mcp", store=guard.state.store
            )
            issuer.rotate(KEY)
            await names["close_the_books"](shared, url)

    # Written as late as it is let go of.
    guard.state.close()
    with closing(SQLiteStore(tmp_path / "state" / "store.db")) as store:
        (run,) = store.runs()
    assert (run.agent, run.user, run.task) == ("billing-agent", "alice", "invoice-42")
    assert (run.state, run.calls) == (RunState.COMPLETED, 1)


async def test_denial_that_the_readme_shows_is_what_an_agent_gets(tmp_path: Path) -> None:
    """The text and the `_meta`, but for the decision's id."""
    names = run_python("README.md", tmp_path)
    with acting_as("billing-agent"):
        async with Client(names["server"]) as client:
            allowed = await client.call_tool("export_records", {"max_rows": 500})
            denied = await client.call_tool("export_records", {"max_rows": 501})

    answer = denied.model_dump(mode="json", by_alias=True)
    (text,) = blocks("README.md", "text")
    (shown,) = blocks("README.md", "json")
    assert not allowed.is_error
    assert denied.is_error
    assert without_ids(answer["content"][0]["text"]) == without_ids(text.text).strip()
    meta = json.loads(shown.text)["_meta"]["agentguard/decision"]
    assert answer["_meta"]["agentguard/decision"] == meta | {"id": answer["_meta"]["agentguard/decision"]["id"]}


def test_policy_that_the_readme_mentions_is_refused_with_line_and_name(tmp_path: Path) -> None:
    """`context.input.maxrows` is refused with file, line and the name that was meant."""
    write_files("README.md", tmp_path)
    policy = tmp_path / "policies" / "exports.cedar"
    policy.write_text(policy.read_text().replace("max_rows", "maxrows"))

    done = subprocess.run(
        [sys.executable, "server.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
    )

    last = done.stderr.strip().splitlines()[-1]
    assert re.search(r"exports\.cedar:\d+: .*did you mean `max_rows`\?$", last), done.stderr
