import os
import re
import shutil
from pathlib import Path

import anyio
import pytest

from agentguard.cli import doctor as command
from tests import followers
from tests.analysis.health.test_clock import issuer
from tests.analysis.ledgered import served, used, write_folder
from tests.cli.commands import Ran, agentguard


async def _make(folder: Path) -> None:
    (folder / "policies").mkdir()
    await write_folder(folder / "policies")
    world = served(folder / "policies", state=folder / "state")
    await used(world)


@pytest.fixture(scope="module")
def in_use(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the policies of a server that has been used, and its state."""
    folder = tmp_path_factory.mktemp("server")
    anyio.run(_make, folder)
    # Its store would be written to while a test copies it.
    followers.stop()
    return folder


@pytest.fixture
def here(in_use: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a copy of both in it."""
    folder = tmp_path / "here"
    shutil.copytree(in_use, folder)
    (folder / ".git").mkdir()
    monkeypatch.chdir(folder)
    for name in [name for name in os.environ if name.startswith("OTEL_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(command, "MOUNTS", folder / "mounts")
    (folder / "mounts").write_text("1 0 8:1 / / rw - ext4 /dev/sda rw\n")
    return folder


def names(ran: Ran) -> dict[str, str | None]:
    """Return how each answer weighs, by its name."""
    return {one["name"]: one["severity"] for one in ran.json["diagnoses"]}


def test_checklist_is_answered_from_evidence_and_policies(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, what is bad first, with the controls that it touches."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")

    ran = agentguard("doctor", "policies", "--evidence", "state", "--user", "40001")

    assert ran.status == 1
    # The guard's process may have kept its stop by now, or not.
    told = re.sub("[0-9]+ records", "N records", ran.stdout).splitlines()
    assert [line[:80] for line in told] == [
        "identity   ✓  no run came from two clients",
        "           ✓  no call carries grade `shared`",
        "           ✓  no call carries grade `token`",
        "lifecycle  ✓  every run that is over was ended by somebody",
        "           ✓  no authority outlived its task by much",
        "           ✓  the longest authority is 1 h",
        "           ✓  nobody called after the end of a run",
        "policy     !  4 policies without an owner (ships, idle, row-limit and 1 more): w",
        "           !  2 agents without an owner (nobody, shipper): the owner of an agent",
        "           ✓  5 policies, no error",
        "           ✓  the schema is that of the folder",
        "           ✓  uid 40001, which runs the server, cannot write to `policies`",
        "evidence   ✓  1 chain with N records verified",
        "           ✓  `state` is on ext4, which lasts",
        "           ✓  spans go where `OTEL_TRACES_EXPORTER` says",
        "no errors, 2 warnings, 13 good",
    ]
    assert ran.stdout.splitlines()[7].endswith("write @owner  unowned-policy · NHI1 · 800-207 tenet 4")


def test_everything_fits_80_columns(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line that is longer goes on below itself."""
    monkeypatch.setenv("COLUMNS", "80")

    ran = agentguard("doctor", "policies", "--evidence", "state")

    assert max(map(len, ran.stdout.splitlines())) <= 80


def test_program_reads_names_and_controls(here: Path) -> None:
    """They stay, whatever the words become."""
    ran = agentguard("doctor", "policies", "--evidence", "state", "--user", "40001", "--json")

    assert ran.status == 1
    assert ran.json["version"] == 1
    assert ran.json["counts"] == {"error": 0, "warning": 3, "note": 0, "good": 12}
    (one,) = [one for one in ran.json["diagnoses"] if one["name"] == "no-exporter"]
    assert one == {
        "area": "evidence",
        "name": "no-exporter",
        "severity": "warning",
        "what": one["what"],
        "controls": ["ASI08", "800-207 tenet 7"],
    }


def test_project_says_where_to_look(here: Path) -> None:
    """And whoever owns the evidence is who runs the server."""
    (here / "agentguard.toml").write_text('policies = "policies"\nstate = "state"\n')

    ran = agentguard("doctor", "--json")

    assert names(ran)["broken-evidence"] is None
    assert names(ran)["writable-policies"] == "error"


def test_policies_alone_are_looked_at(here: Path) -> None:
    """Without evidence nothing is said of agents, and it says so."""
    ran = agentguard("doctor", "--json")

    assert ran.status == 1
    assert set(names(ran)) == {"no-evidence", "broken-policies", "stale-schema", "unowned-policy", "unowned-agent"}
    assert ran.stderr.startswith("agentguard: no evidence is looked at: wants evidence, got none")


def test_evidence_alone_is_looked_at(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A chain by itself is read, and cannot be verified."""
    (chain,) = (here / "state" / "evidence").glob("*.db")
    (here / "elsewhere").mkdir()
    monkeypatch.chdir(here / "elsewhere")

    ran = agentguard("doctor", "--evidence", str(chain), "--json")

    assert "unowned-policy" not in names(ran)
    assert "broken-evidence" not in names(ran)
    assert names(ran)["shared-identity"] is None
    assert ran.stderr.startswith("agentguard: no policy is looked at: wants a policy folder")


def test_nothing_to_look_at_is_a_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was answered."""
    (tmp_path / ".git").mkdir()
    monkeypatch.chdir(tmp_path)

    ran = agentguard("doctor")

    assert ran.status == 2
    assert ran.stderr.splitlines()[-1] == (
        "agentguard: wants policies or evidence, got neither: name a policy folder, or --evidence SOURCE"
    )


def test_old_records_are_left_out(here: Path) -> None:
    """What was so long ago says nothing of today."""
    ran = agentguard("doctor", "policies", "--evidence", "state", "--since", "0s", "--json")

    assert names(ran)["no-evidence"] == "warning"
    assert "shared-identity" not in names(ran)


def test_evidence_that_cannot_be_verified_is_bad(here: Path) -> None:
    """Its public key is gone; and where it lies goes with the pod."""
    (here / "mounts").write_text("1 0 8:1 / / rw - tmpfs none rw\n")
    for key in (here / "state" / "evidence").glob("*.jwk"):
        key.unlink()

    ran = agentguard("doctor", "policies", "--evidence", "state", "--json")

    assert names(ran)["broken-evidence"] == "error"
    assert names(ran)["evidence-not-lasting"] == "error"


def test_host_that_does_not_tell_what_is_mounted_leaves_that_open(here: Path) -> None:
    """Only Linux does."""
    (here / "mounts").unlink()

    assert "evidence-not-lasting" not in names(agentguard("doctor", "policies", "--evidence", "state", "--json"))


def test_records_that_cannot_be_read_are_told(here: Path) -> None:
    """Those that are alike in one line, as one mistake makes them all."""
    (here / "export.jsonl").write_text("odd\n" * 25)

    ran = agentguard("doctor", "policies", "--evidence", "export.jsonl")

    assert [line for line in ran.stderr.splitlines() if "export.jsonl" in line] == [
        "agentguard: export.jsonl:1: is not JSON, and 24 more like it"
    ]


def test_folder_that_is_not_there_is_bad(here: Path) -> None:
    """The rest is answered all the same."""
    ran = agentguard("doctor", "gone", "--evidence", "state", "--json")

    assert ran.status == 1
    assert names(ran)["broken-policies"] == "error"
    assert names(ran)["broken-evidence"] is None


def test_user_is_one_of_this_host_or_a_number(here: Path) -> None:
    """A container's user need not be known here, by name nor by number."""
    me = agentguard("doctor", "policies", "--evidence", "state", "--user", "root", "--json")
    huge = agentguard("doctor", "policies", "--evidence", "state", "--user", "9" * 30, "--json")
    nobody = agentguard("doctor", "policies", "--evidence", "state", "--user", "no such user")

    assert names(me)["writable-policies"] == "error"
    assert names(huge)["writable-policies"] is None
    assert nobody.status == 2
    assert nobody.stderr == (
        "agentguard: --user wants a user of this host, or a number, got `no such user`: write its number\n"
    )


def test_issuer_is_asked_for_the_time(here: Path) -> None:
    """And for nothing else; one that is none is a mistake. Where none is asked, a person is told."""
    with issuer("Thu, 01 Jan 1970 00:00:00 GMT") as (url, asked):
        ran = agentguard("doctor", "policies", "--evidence", "state", "--issuer", url, "--json")
        compared = agentguard("doctor", "policies", "--issuer", url, terminal=True)

    assert names(ran)["clock-apart"] == "error"
    assert len(asked) == 2
    alone = agentguard("doctor", "policies", terminal=True)
    assert ["no issuer's" in one.stderr for one in (compared, alone)] == [False, True]
    assert agentguard("doctor", "--evidence", "state", "--issuer", "http://issuer.example").status == 2


def test_server_that_does_all_right_is_told_so(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 0, and each question has its answer."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "otlp")
    for path in (here / "policies").glob("*.cedar"):
        text = path.read_text().replace('\n@owner("clinic@example.com")', "")
        lines = [
            f'{line}\n@owner("clinic@example.com")' if line.startswith("@id") else line for line in text.splitlines()
        ]
        path.write_text("\n".join(lines))

    ran = agentguard("doctor", "policies", "--evidence", "state", "--user", "40001")

    assert (ran.status, ran.stdout.splitlines()[-1]) == (0, "no errors, no warnings, 15 good")
