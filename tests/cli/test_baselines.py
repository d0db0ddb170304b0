"""Baseline policies that `agentguard init` copies: into a new folder, and into one that is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from agentguard.cli.baselines import _names
from agentguard.policy.baselines import NAMES, chosen
from tests.cli.commands import agentguard
from tests.cli.test_init import files, works

OWN: Final = "30-shared-principal.cedar"
SUITE: Final = "scenarios/shared-principal.test.yaml"
SPENDING: Final = """
from decimal import Decimal
from pathlib import Path
from typing import Annotated

from mcp.server import MCPServer

from agentguard import Guard, Spend, UnsafeMemoryState

guard = Guard(
    Path(__file__).parent / "own",
    issuer="https://issuer.example",
    audience="https://pay.example/mcp",
    state=UnsafeMemoryState(),
)
server = MCPServer("pay", **guard.http_auth())


@server.tool()
@guard.tool(spends={"tokens"})
async def pay(amount: Annotated[Decimal, Spend("payments")]) -> str:
    return "paid"


guard.attach(server)
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Work in an empty folder, and forget what was loaded from it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "argv", list(sys.argv))
    yield tmp_path
    sys.modules.pop("spending_server", None)


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a policy folder for the example server."""
    folder = tmp_path_factory.mktemp("begun") / "policies"
    assert agentguard("init", str(folder)).status == 0
    return folder


@pytest.fixture
def policies(here: Path, begun: Path) -> Path:
    """Return a copy of that folder."""
    return Path(shutil.copytree(begun, here / "policies"))


def test_new_folder_comes_with_what_was_asked_for(here: Path) -> None:
    """Each with its scenarios, in the order in which they are listed, and told with what it is for."""
    ran = agentguard("init", "--baseline", "shared-principal", "--baseline", "lifetime-caps")

    assert (ran.status, ran.stderr) == (0, "")
    assert {OWN, SUITE, "30-lifetime-caps.cedar", "scenarios/lifetime-caps.test.yaml"} < {*files(here / "policies")}
    assert ran.stdout.index("policies/30-lifetime-caps.cedar") < ran.stdout.index(f"policies/{OWN}")
    assert "A run that is used from more than one place stops." in ran.stdout
    assert (
        f"| `{OWN}` | A run that is used from more than one place stops. |" in (here / "policies/README.md").read_text()
    )
    assert (here / "policies" / OWN).read_text() == chosen(["shared-principal"])[0].policies
    works(here / "policies")


def test_all_that_fit_are_taken_and_the_others_told(here: Path) -> None:
    """The example server has no totals; whoever asks a person does so once."""
    ran = agentguard("init", "--baseline", "all")

    assert ran.status == 0
    assert ran.stderr == "agentguard: left out budget: no tool adds to a total, with `Spend(…)` or `spends=`\n"
    assert [name for name in files(here / "policies") if name.startswith("30-")] == sorted(
        f"30-{name}.cedar" for name in NAMES if name != "budget"
    )
    assert "destructive-needs-approval" not in (here / "policies/20-guardrails.cedar").read_text()
    works(here / "policies")


def test_budget_is_for_each_total_that_the_server_declares(here: Path) -> None:
    """Nobody has to say their names."""
    (here / "spending_server.py").write_text(SPENDING)

    ran = agentguard("init", "--server", "spending_server.py", "--baseline", "budget", "--json")

    assert ran.json["baselines"] == ["budget"]
    assert (ran.json["left_out"], ran.json["untested"]) == ({}, [])
    text = (here / "policies/30-budget.cedar").read_text()
    assert text.count("@id(") == 2
    assert "context.run.spent.payments.greaterThan" in text
    assert "context.run.spent.tokens.greaterThan" in text
    works(here / "policies")


def test_tools_of_which_the_server_says_nothing_are_told(here: Path) -> None:
    """By `init`, and by `check` for the baseline; each call is shown once, however many kinds its tool is of."""
    (here / "spending_server.py").write_text(SPENDING)

    ran = agentguard("init", "--server", "spending_server.py", "--baseline", "untrusted-to-egress")

    assert ran.stderr == (
        "agentguard: a tool without annotations counts as destructive and open-world, as MCP says, "
        "for untrusted-to-egress too: annotate `pay` in the server\n"
    )
    assert re.search(r"policies/scenarios/untrusted-to-egress\.test\.yaml +calls that show it\n", ran.stdout)
    found = agentguard("check", "policies", "--json").json["findings"]
    assert [(one["name"], one["policy"]) for one in found if one["severity"] != "note"] == [
        ("unannotated-tool", "untrusted-to-egress")
    ]
    lines = (here / "policies/scenarios/untrusted-to-egress.test.yaml").read_text().splitlines()
    cases = [line for line in lines if "call: " in line]
    assert len(cases) == len({*cases})
    assert agentguard("init", "policies", "--baseline", "budget").stderr == ""


def test_to_observe_the_baselines_wait_with_the_others(here: Path) -> None:
    """They would stop something, so they are not in force yet."""
    ran = agentguard("init", "--observe", "--baseline", "shared-principal")

    assert ran.status == 0
    assert OWN in files(here / "policies/next")
    assert not (here / "policies" / OWN).exists()
    assert f"policies/next/{OWN}" in ran.stdout
    works(here / "policies/next")


def test_folder_that_has_policies_gets_baselines_alone(policies: Path) -> None:
    """What is there stays as it is, and the next command is told."""
    before = {name: (policies / name).read_bytes() for name in files(policies)}

    ran = agentguard("init", "policies", "--baseline", "shared-principal")

    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout == (
        "wrote 2 files for server `example`\n"
        f"  policies/{OWN}             A run that is used from more than one place stops.\n"
        f"  policies/{SUITE}  calls that show it\n"
        "\n"
        "read them, adapt their numbers, and then:\n"
        "  agentguard check policies\n"
        "  agentguard test policies --mutate\n"
    )
    assert sorted([*before, OWN, SUITE]) == files(policies)
    assert all((policies / name).read_bytes() == content for name, content in before.items())


def test_a_program_is_told_what_was_added(policies: Path) -> None:
    """With what was left out, and why."""
    ran = agentguard("init", "policies", "--baseline", "all", "--json")

    assert {name: ran.json[name] for name in ("baselines", "server", "untested", "observe")} == {
        "baselines": ["lifetime-caps", "shared-principal", "untrusted-to-egress", "office-hours"],
        "server": "example",
        "untested": [],
        "observe": False,
    }
    assert [*ran.json["left_out"]] == ["destructive-needs-approval", "budget"]
    assert {OWN, SUITE} < {*ran.json["files"]}


def test_what_is_there_as_it_would_be_written_is_not_written_again(policies: Path) -> None:
    """A second time changes nothing."""
    agentguard("init", "policies", "--baseline", "shared-principal")
    before = (policies / OWN).stat().st_mtime_ns

    ran = agentguard("init", "policies", "--baseline", "shared-principal")

    assert ran.status == 0
    assert ran.stdout.startswith("nothing is new for server `example`\n")
    assert ran.stdout.count("is there already") == 2
    assert (policies / OWN).stat().st_mtime_ns == before


def test_what_somebody_changed_is_lost_only_if_that_is_said(policies: Path) -> None:
    """Then the others are written too, and its mode stays."""
    agentguard("init", "policies", "--baseline", "shared-principal")
    changed = (policies / OWN).read_text().replace("context.run.shared", "context.run.shared && true")
    (policies / OWN).write_text(changed)
    (policies / OWN).chmod(0o640)

    kept = agentguard("init", "policies", "--baseline", "shared-principal", "--baseline", "office-hours")

    assert (kept.status, kept.stdout) == (2, "")
    assert kept.stderr == (f"agentguard: `{policies}` has `{OWN}`, with another text: add --overwrite to lose that\n")
    assert (policies / OWN).read_text() == changed
    assert not (policies / "30-office-hours.cedar").exists()

    lost = agentguard("init", "policies", "--baseline", "shared-principal", "--baseline", "office-hours", "--overwrite")

    assert lost.status == 0
    assert (policies / OWN).read_text() == chosen(["shared-principal"])[0].policies
    assert (policies / OWN).stat().st_mode & 0o777 == 0o640
    assert (policies / "30-office-hours.cedar").exists()


def test_one_servers_part_of_a_folder_for_several_gets_its_own(policies: Path, here: Path) -> None:
    """Where the server's own schema is; what it has in common with others stays."""
    part = here / "several" / "servers" / "records"
    shutil.copytree(policies, part)
    (here / "several" / "common").mkdir()
    (here / "several" / "common" / "10-stop.cedar").write_text(
        '@id("stop") forbid (principal, action in Action::"destructive", resource) when { context.run.denied > 9 };\n'
    )

    ran = agentguard("init", "several/servers/records", "--baseline", "shared-principal")
    again = agentguard("init", "several/servers/records", "--baseline", "shared-principal")

    assert (ran.status, ran.stderr) == (0, "")
    assert (part / OWN).exists()
    assert (part / SUITE).exists()
    assert again.stdout.startswith("nothing is new")
    assert agentguard("test", "several/servers/records", "--filter", "shared-principal").status == 0


def test_a_folder_for_several_servers_is_not_taken_whole(here: Path, policies: Path) -> None:
    """Scenarios are of one server, and so is a budget."""
    shutil.copytree(policies, here / "several" / "servers" / "notes")

    ran = agentguard("init", "several", "--baseline", "all")

    assert ran.status == 2
    assert ran.stderr == (
        f"agentguard: policy folder `{here}/several` holds the policies of several servers: "
        "name the folder of one, servers/notes\n"
    )


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            ("policies", "--baseline", "shared-principl"),
            "there are no baseline policies `shared-principl`: did you mean `shared-principal`?",
        ),
        (("new", "--overwrite"), "--overwrite is about baseline policies, got none: add --baseline NAME"),
        (
            ("new", "--baseline", "budget"),
            (
                "baseline `budget` does not fit server `example`, since no tool adds to a total, with `Spend(…)` or "
                "`spends=`: leave it out"
            ),
        ),
        (
            ("policies", "--baseline", "destructive-needs-approval"),
            (
                "baseline `destructive-needs-approval` does not fit server `example`, since policy "
                "`destructive-needs-approval` is in 20-guardrails.cedar:20 already: leave it out"
            ),
        ),
        (
            ("policies", "--baseline", "all", "--server", "a.py"),
            (
                "`{here}/policies` has policies already, so baselines are added to what it is about: "
                "leave out the server and --observe, or name a new folder"
            ),
        ),
        (
            ("policies", "--baseline", "all", "--observe"),
            (
                "`{here}/policies` has policies already, so baselines are added to what it is about: "
                "leave out the server and --observe, or name a new folder"
            ),
        ),
        (
            ("bare", "--baseline", "all"),
            (
                "policy folder `{here}/bare` has no agentguard.cedarschema, which says what the server offers: "
                "write it with `agentguard schema SERVER --write bare`"
            ),
        ),
        (
            ("taken", "--baseline", "shared-principal"),
            "`{here}/taken/" + OWN + "` cannot be read: Is a directory: move it away",
        ),
        (
            ("binary", "--baseline", "shared-principal"),
            "`{here}/binary/" + SUITE + "` cannot be read: it is not UTF-8: move it away",
        ),
    ],
)
def test_a_mistake_is_told_in_one_line(arguments: tuple[str, ...], told: str, policies: Path, here: Path) -> None:
    """And nothing is written."""
    (here / "bare").mkdir()
    (here / "bare" / "a.cedar").write_text('@id("a") permit (principal, action, resource);')
    for name in ("taken", "binary"):
        shutil.copytree(policies, here / name)
    (here / "taken" / OWN.removesuffix(".cedar")).mkdir()
    (here / "taken" / SUITE).mkdir()
    (here / "binary" / SUITE).write_bytes(b"\xff")
    before = files(here)
    told = told.replace("taken/" + OWN, "taken/" + SUITE)

    ran = agentguard("init", *arguments)

    assert (ran.status, ran.stdout) == (2, "")
    assert ran.stderr == f"agentguard: {told.format(here=here)}\n"
    assert files(here) == before


def test_where_no_call_shows_all_it_is_told(policies: Path) -> None:
    """Somebody has to write those cases."""
    for file in policies.glob("*.cedar"):
        file.unlink()
    shutil.rmtree(policies / "scenarios")
    (policies / "own.cedar").write_text('@id("own") permit (principal in Task::"none", action, resource);')

    ran = agentguard("init", "policies", "--baseline", "shared-principal")

    assert ran.status == 0
    assert ran.stderr == (
        "agentguard: no call was found that shows all that shared-principal stops: "
        "write cases for it, as the how-to on baseline policies shows them\n"
    )
    assert not (policies / SUITE).exists()


def test_what_there_is_can_be_listed() -> None:
    """With the ids that decisions name, and what to type."""
    ran = agentguard("init", "--list-baselines")
    program = agentguard("init", "--list-baselines", "--json")

    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.splitlines()[:2] == [
        "lifetime-caps               How much one run may do: calls, calls of one tool, denied calls, time.",
        "                            @id calls-of-a-run, calls-of-one-tool, denied-calls-of-a-run, age-of-a-run",
    ]
    assert ran.stdout.endswith("  agentguard init policies --baseline NAME --baseline NAME\n")
    assert [one["name"] for one in program.json] == list(NAMES)
    assert all(len(one["ids"]) == len(one["advice"]) for one in program.json)
    assert [*program.json[0]] == ["name", "says", "ids", "advice"]


def test_names_are_taught_and_completed() -> None:
    """The help has all of them, and a shell completes those that begin so."""
    taught = agentguard("init", "--help").stdout.replace("\n", " ")

    assert all(name in taught for name in NAMES)
    assert [*_names("un")] == [
        ("untrusted-to-egress", "After untrusted text, a person approves what reaches outside or cannot be undone.")
    ]
    assert [name for name, _ in _names("")] == [*NAMES, "all"]


def test_nothing_is_in_the_way_of_a_folder_that_is_none(here: Path) -> None:
    """The mistake is the one that it is without baselines."""
    (here / "file").write_text("mine")

    ran = agentguard("init", "file", "--baseline", "all")

    assert (
        ran.stderr == f"agentguard: `{here}/file` cannot be looked into, Not a directory: name a folder that is yours\n"
    )


def test_baselines_are_in_what_is_installed() -> None:
    """They lie in the package, of which the build takes every file that is not ignored."""
    ignored = subprocess.run(
        [
            "git",
            "check-ignore",
            "agentguard/policy/baseline/budget.cedar",
            "agentguard/policy/baseline/budget.test.yaml",
        ],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )

    assert ignored.stdout == ""
