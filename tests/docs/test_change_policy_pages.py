"""The pages on changing and removing policies: their commands print what they show."""

import re
import shlex
import shutil
from pathlib import Path
from typing import Final

import anyio
import pytest
from mcp import Client

from agentguard.testing import acting_as
from examples.records.server import POLICIES, build
from tests.cli.commands import agentguard
from tests.docs.pages import blocks, run_python, without_ids

CHANGE: Final = "docs/pages/how-to/change-a-policy-safely.md"
REMOVE: Final = "docs/pages/how-to/remove-unused-permits.md"


async def use(policies: Path, state: Path) -> None:
    """Let two agents work on the example's records."""
    server = build(
        issuer="https://issuer.example", audience="https://records.example/mcp", policies=policies, state=state
    )
    async with Client(server) as client:
        with acting_as("billing-agent", task="invoice-42", purpose="monthly close"):
            await client.call_tool("read_record", {"record_id": "r1"})
            await client.call_tool("read_record", {"record_id": "r2"})
            await client.call_tool("update_record", {"record_id": "r1", "write_off": "10.00"})
            await client.call_tool("export_records", {"max_rows": 200})
            await client.call_tool("export_records", {"max_rows": 501})
        with acting_as("billing-agent", task="reminder-7"):
            await client.call_tool("search_records", {"text": "a"})
            await client.call_tool("update_record", {"record_id": "r1", "note": "called"})
        with acting_as("support-agent", user="alice"):
            await client.call_tool("read_record", {"record_id": "r1"})
            await client.call_tool("search_records", {"text": "a"})


def change(folder: Path) -> None:
    """Change the policies as the page says."""
    limits, permits = folder / "20-guardrails.cedar", folder / "10-permits.cedar"
    limits.write_text(limits.read_text().replace("max_rows > 500", "max_rows > 300"))
    head, settles, rest = permits.read_text().partition(
        'Action::"update_record",\n  resource\n)\nwhen { principal has task'
    )
    permits.write_text(f"{head}{settles} && principal has purpose{rest}")


@pytest.fixture(scope="module")
def clinic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the policies, others in `next`, and the evidence of nine decisions."""
    root = tmp_path_factory.mktemp("clinic")
    shutil.copytree(POLICIES, root / "policies")
    shutil.copytree(POLICIES, root / "next")
    change(root / "next")
    anyio.run(use, root / "policies", root / "state")
    return root


def plain(text: str) -> list[str]:
    """Return what is printed without what is another each time."""
    text = re.sub(r"[0-9]+ (s|min) ago {1,2}", "ago  ", without_ids(text))
    text = re.sub(r"(29|30) d after", "… after", text)
    text = re.sub(r"(of|from|on) [0-9-]{10}( to [0-9-]{10}| [0-9]{2}:[0-9]{2}\b)?", "…", text)
    return [re.sub(" {2,}", "  ", line).rstrip() for line in text.splitlines() if line.strip()]


@pytest.mark.parametrize("page", [CHANGE, REMOVE])
def test_commands_print_what_the_page_shows(page: str, clinic: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the evidence of the example's server."""
    monkeypatch.chdir(clinic)
    monkeypatch.setenv("COLUMNS", "100")
    shown = [block.text for block in blocks(page, "console")]

    for text in shown:
        printed = ""
        for command in re.findall(r"^\$ agentguard (.*)$", text, re.MULTILINE):
            printed += agentguard(*shlex.split(command)).stdout * ("--write" not in command)
        assert plain(printed) == plain(re.sub(r"^\$ .*\n", "", text, flags=re.MULTILINE))
    assert shown


def test_python_of_the_page_runs(tmp_path: Path) -> None:
    """It adds an argument to what a guard keeps, and gives a guard a second folder."""
    names = run_python(CHANGE, tmp_path)

    assert callable(names["export_records"])
    assert names["shadowed"] is not names["guard"]
