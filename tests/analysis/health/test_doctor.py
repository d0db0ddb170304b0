import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest

from agentguard.analysis.checking.check import Checked
from agentguard.analysis.finding import Finding, Severity
from agentguard.analysis.health.controls import AGENTIC, CONTROLS, IDENTITIES, TENETS
from agentguard.analysis.health.diagnosis import Area, Diagnosis, bad, doubtful, good, in_order
from agentguard.analysis.health.doctor import (
    of_access,
    of_clock,
    of_exporter,
    of_habits,
    of_policies,
    of_proof,
    of_volume,
)
from agentguard.analysis.health.habits import DAY
from agentguard.evidence.durable import SQLiteLedger
from agentguard.evidence.kept import Kept
from agentguard.evidence.proof import Proof, ProvenChain
from agentguard.evidence.record import record
from agentguard.evidence.vocabulary import RecordKind
from agentguard.limits import Limits
from agentguard.policy.files.source import survey_folder
from tests.analysis.health.test_habits import NOW, call, denied, state, told

LIMITS = Limits()


def answers(diagnoses: Iterable[Diagnosis]) -> dict[str, tuple[str | None, str]]:
    """Return how each answer weighs and what it says, without the fix, by its name."""
    return {one.name: (one.severity and one.severity.value, one.what.partition(": ")[0]) for one in diagnoses}


def of_all(*records: Kept) -> list[Diagnosis]:
    """Return all that records tell."""
    return list(of_habits(told(*records), now=NOW))


def of(*records: Kept) -> dict[str, tuple[str | None, str]]:
    """Return what records tell."""
    return answers(of_all(*records))


def test_agents_that_do_all_right_are_told_so() -> None:
    """Each question has an answer, so that nobody wonders whether it was asked."""
    assert of(call(NOW - 20, mcp__session__id="s"), state(NOW - 10, "completed")) == {
        "shared-principal": (None, "no run came from two clients"),
        "shared-identity": (None, "no call carries grade `shared`"),
        "weak-grade": (None, "no call carries grade `token`"),
        "abandoned-run": (None, "every run that is over was ended by somebody"),
        "idle-authority": (None, "no authority outlived its task by much"),
        "long-authority": (None, "the longest authority is 10 min"),
        "used-after-end": (None, "nobody called after the end of a run"),
    }


def test_evidence_without_records_says_nothing_of_agents() -> None:
    """An empty folder is no proof of good conduct."""
    assert of() == {
        "no-evidence": ("warning", "no record of that time, so nothing can be said of agents"),
    }


def test_run_that_two_clients_use_at_once_is_bad() -> None:
    """Of each agent, with how many of its runs."""
    calls = [
        call(NOW + at, run, mcp__session__id=session)
        for run in ("r1", "r2")
        for at, session in ((1, "a"), (2, "b"), (3, "a"))
    ]

    assert of(*calls)["shared-principal"] == ("error", "2 runs of reader came from two clients")


def test_identities_that_do_not_name_a_run_are_told_by_issuer() -> None:
    """Shared ones are bad, since nobody can tell who acted; those known by a token are worth a look."""
    shared = [call(NOW, "x", agentguard__invocation__grade="shared")]
    token = [call(NOW, f"t{at}", agentguard__invocation__grade="token") for at in range(2)]

    found = of(call(NOW), *shared, *token)

    assert found["shared-identity"] == (
        "error",
        "25% of 4 calls carry grade `shared` (https://issuer.example)",
    )
    assert found["weak-grade"] == ("warning", "50% of 4 calls carry grade `token` (https://issuer.example)")


def test_few_calls_are_not_told_as_none() -> None:
    """And of many issuers the first are named."""
    many = [call(NOW, f"r{at}") for at in range(500)]
    odd = [
        call(NOW, agentguard__invocation__grade="shared", agentguard__invocation__issuer=f"i{at}") for at in range(4)
    ]

    assert of(*many, *odd)["shared-identity"][1] == (
        "fewer than 1% of 504 calls carry grade `shared` (i0, i1, i2 and 1 more)"
    )


def test_runs_that_end_badly_are_told() -> None:
    """Nobody completed it; its authority waited for nobody; it was for days; and somebody still has the token."""
    found = of(
        call(NOW - 9_000, agentguard__authority__granted=90_000.0, agentguard__run__ends_at=int(NOW) - 100),
        state(NOW - 100, "expired"),
        denied(NOW - 50, "expired"),
    )

    assert found["abandoned-run"] == ("warning", "1 run of reader never completed, as far as is on record")
    assert found["long-authority"] == ("warning", "1 run of reader got authority for more than 1 d")
    assert found["used-after-end"][0] == "warning"
    assert found["idle-authority"][0] is None


@pytest.mark.parametrize(
    ("ended", "grade", "told"),
    [(None, "run", True), ("completed", "run", False), ("revoked", "run", False), (None, "shared", False)],
)
def test_run_whose_end_is_not_on_record_never_completed(ended: str | None, grade: str, told: bool) -> None:
    """Once its time is over: its server had stopped, and nobody saw it expire. A shared identity has no end."""
    last = call(NOW - 90, agentguard__run__ends_at=int(NOW) - 60, agentguard__invocation__grade=grade)
    ends = [] if ended is None else [state(NOW - 80, ended)]

    assert (of(last, *ends)["abandoned-run"][0] == "warning") is told


@pytest.mark.parametrize(
    ("last", "grade", "idle"),
    [(2000, "run", True), (800, "run", False), (2000, "shared", False)],
)
def test_authority_that_goes_on_after_the_task_is_told(last: int, grade: str, idle: bool) -> None:
    """Where most of it came after the last call, and nobody was slow alone."""
    found = of(
        call(
            NOW - last,
            agentguard__authority__granted=2400.0,
            agentguard__run__ends_at=int(NOW),
            agentguard__invocation__grade=grade,
        )
    )

    assert (found["idle-authority"][0] == "warning") is idle


def test_agents_are_told_one_by_one_up_to_a_number() -> None:
    """With hundreds, a line for each would hide the rest of the checklist."""
    runs = [state(NOW, "expired", f"r{at}", agentguard__agent__id=f"a{at // 2}") for at in range(21)]

    told_of = [one.what.partition(" never")[0] for one in of_all(*runs) if one.name == "abandoned-run"]

    assert told_of == [*(f"2 runs of a{at}" for at in range(8)), "5 runs of 3 other agents"]


def test_agent_without_a_name_is_named_so() -> None:
    """A name that steers a terminal is none either."""
    records = [state(NOW, "expired", agentguard__agent__id="a\x1b[2J")]

    assert of(*records)["abandoned-run"][1] == "1 run of a\ufffd[2J never completed, as far as is on record"
    assert "an agent without a name" in of(state(NOW, "expired", agentguard__agent__id=""))["abandoned-run"][1]


def test_denials_that_rise_are_told_by_agent() -> None:
    """With the reason that most of them have, and what was usual."""
    before = [call(NOW - ago * DAY - 60) for ago in range(1, 6) for _ in range(20)]
    usual = [denied(NOW - 2 * DAY, "policy") for _ in range(5)]
    today = [call(NOW - 60) for _ in range(20)] + [denied(NOW - 60, "no_permit") for _ in range(10)]

    assert of(*before, *usual, *today)["denials-rising"] == (
        "warning",
        "10 of 30 calls of reader were denied in the last 24 h, mostly `no_permit`, and 5% in the days before",
    )


@pytest.mark.parametrize(
    ("before", "now", "wanted"),
    [
        (([0, 20],), (9, 5), (None, "denials are not rising")),
        (([10, 20],), (15, 20), (None, "denials are not rising")),
        ((), (50, 1), None),
        (([10, 20],), (0, 0), None),
    ],
    ids=["few", "as ever", "nothing to compare with", "nothing to compare"],
)
def test_denials_that_are_as_ever_are_no_finding(
    before: tuple[list[int], ...], now: tuple[int, int], wanted: tuple[None, str] | None
) -> None:
    """A handful is chance, and a first day has none to compare with."""
    records = [denied(NOW - DAY - 9, "policy") for no, _ in before for _ in range(no)]
    records += [call(NOW - DAY - 9) for _, yes in before for _ in range(yes)]
    records += [denied(NOW, "policy") for _ in range(now[0])] + [call(NOW) for _ in range(now[1])]

    assert of(*records).get("denials-rising") == wanted


def test_agent_that_is_new_is_compared_with_nobody_else() -> None:
    """Its denials may be those of a beginning, and are worth a look all the same."""
    records = [call(NOW - 2 * DAY)] + [denied(NOW, "policy", agentguard__agent__id="new") for _ in range(10)]

    assert of(*records)["denials-rising"][1].startswith("10 of 10 calls of new were denied in the last 24 h")


POLICIES = """
@id("a") @owner("team@example.com") permit (principal in Agent::"reader", action, resource);
@id("b") @owner("team@example.com") permit (principal in Group::"staff", action, resource);
@id("c") permit (principal in Agent::"lonely", action, resource);
"""


def policies(
    tmp_path: Path, entities: object, agents: list[str], *findings: Finding, text: str = POLICIES
) -> dict[str, tuple[Any, str]]:
    """Return what a policy folder tells of itself."""
    (tmp_path / "a.cedar").write_text(text)
    (tmp_path / "cedarentities.json").write_text(json.dumps(entities))
    source, problems = survey_folder(tmp_path, LIMITS)
    assert problems == []
    checked = Checked(findings=findings, texts={}, policies=source.policies)
    return answers(of_policies(tmp_path, checked, source, agents))


def agent(name: str, *parents: tuple[str, str], **attributes: object) -> Mapping[str, object]:
    """Return an entity."""
    return {
        "uid": {"type": "Agent", "id": name},
        "attrs": attributes,
        "parents": [{"type": type_, "id": id_} for type_, id_ in parents],
    }


def test_owners_of_policies_and_agents_are_asked_for(tmp_path: Path) -> None:
    """An agent has one if a policy with an owner is about it or a group of it, whatever attributes say."""
    entities = [
        agent("clerk", ("Group", "clerks")),
        {"uid": {"type": "Group", "id": "clerks"}, "attrs": {}, "parents": [{"type": "Group", "id": "staff"}]},
        agent("owned", owner="somebody@example.com"),
        {"uid": {"type": "User", "id": "lonely"}, "attrs": {"owner": "x"}, "parents": []},
    ]

    found = policies(tmp_path, entities, ["reader", "stranger"])

    assert found == {
        "broken-policies": (None, "3 policies, no error"),
        "stale-schema": (None, "the schema is that of the folder"),
        "unowned-policy": ("warning", "1 policy without an owner (c)"),
        "unowned-agent": ("warning", "3 agents without an owner (lonely, owned, stranger)"),
    }


def test_folder_in_which_everybody_has_an_owner_is_good(tmp_path: Path) -> None:
    """There is nothing to ask."""
    text = POLICIES.replace('@id("c") permit', '@id("c") @owner("x@example.com") permit')

    found = policies(tmp_path, [], ["reader"], text=text)

    assert found["unowned-policy"] == (None, "every policy has an owner")
    assert found["unowned-agent"] == (None, "every agent has an owner")


def test_what_check_finds_is_told_in_one_line(tmp_path: Path) -> None:
    """Errors are bad, and a schema that is missing or stale is worth a look; warnings are for `check` to tell."""
    found = policies(
        tmp_path,
        [],
        [],
        Finding(file="a.cedar", name="syntax", what="odd: mend it"),
        Finding(file="a.cedar", name="missing-owner", what="odd: mend it", severity=Severity.WARNING),
        Finding(file="agentguard.cedarschema", name="no-schema", what="is not there: write it"),
    )

    assert found["broken-policies"] == ("error", f"`{tmp_path}` has 1 error")
    assert found["stale-schema"] == ("warning", "the schema is not there")


def test_server_s_user_that_can_write_the_policies_is_bad(tmp_path: Path) -> None:
    """Root always can; another is told what it can write to."""
    folder = tmp_path / "policies"
    folder.mkdir()
    owner = folder.stat().st_uid or 40_001
    folder.chmod(0o777)

    root = of_access(folder, user=0, groups=(), called="root")
    other = of_access(folder, user=owner, groups=(), called="uid 1")
    folder.chmod(0o755)
    stranger = of_access(folder, user=40_009, groups=(), called="uid 40009")

    assert answers([root])["writable-policies"] == (
        "error",
        f"root runs the server, and can write to `{folder}` and to the evidence",
    )
    assert answers([other])["writable-policies"] == ("error", f"uid 1, which runs the server, can write to `{folder}`")
    assert answers([stranger])["writable-policies"] == (
        None,
        f"uid 40009, which runs the server, cannot write to `{folder}`",
    )


def test_evidence_that_does_not_hold_is_bad() -> None:
    """With the first thing that is wrong; of an export alone nothing can be said."""
    chain = ProvenChain(chain_id="c", records=7, whole=True)

    assert answers(of_proof(Proof(holds=True, chains=(chain,)))) == {
        "broken-evidence": (None, "1 chain with 7 records verified")
    }
    assert answers(of_proof(Proof(holds=False, problems=("chain c\x1b is gone", "x")))) == {
        "broken-evidence": ("error", "2 problems with the evidence, first")
    }
    assert answers(of_proof(None)) == {}


def test_evidence_that_goes_with_the_pod_is_bad_unless_it_is_forwarded(tmp_path: Path) -> None:
    """By what the folder lies on."""
    table = f"1 0 8:1 / {tmp_path} rw - {{}} dev rw".format

    assert answers(of_volume(tmp_path, table("ext4"), now=NOW)) == {
        "evidence-not-lasting": (None, f"`{tmp_path}` is on ext4, which lasts")
    }
    assert answers(of_volume(tmp_path, table("tmpfs"), now=NOW))["evidence-not-lasting"][0] == "error"
    (tmp_path / "forward-1.json").write_text("{}")
    assert answers(of_volume(tmp_path, table("tmpfs"), now=NOW))["evidence-not-lasting"][0] is None
    assert answers(of_volume(tmp_path, "", now=NOW)) == {}


def test_evidence_that_is_forwarded_no_more_is_not_forwarded(tmp_path: Path) -> None:
    """What was not delivered for an hour goes with the pod, and shows nowhere; what is on its way does not."""
    SQLiteLedger(tmp_path).append(record(RecordKind.START, {}, at=NOW))
    cursor = tmp_path / "forward-1.json"
    cursor.write_text("{}")
    os.utime(cursor, (NOW, NOW))

    def weighs(now: float) -> list[str | None]:
        table = f"1 0 0:1 / {tmp_path} rw - tmpfs - rw"
        told = [*of_volume(tmp_path, table, now=now), of_exporter([tmp_path], {}, now=now)]
        return [severity for severity, _ in answers(told).values()]

    assert weighs(NOW + 3_000) == [None, None]
    assert weighs(NOW + 4_000) == ["error", "warning"]


@pytest.mark.parametrize(
    ("environment", "severity"),
    [
        ({}, "warning"),
        ({"OTEL_TRACES_EXPORTER": "none"}, "warning"),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "warning"),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, None),
    ],
)
def test_server_that_nobody_sees_is_worth_a_look(
    environment: Mapping[str, str], severity: str | None, tmp_path: Path
) -> None:
    """An exporter is set up here, or the evidence was forwarded from the folder."""
    assert answers([of_exporter([tmp_path], environment, now=NOW)])["no-exporter"][0] == severity
    (tmp_path / "forward-1.json").write_text("{}")
    assert answers([of_exporter([tmp_path], environment, now=NOW)])["no-exporter"][0] is None


@pytest.mark.parametrize(
    ("apart", "severity", "said"),
    [
        (1.2, None, "this clock is within 5 s of that of x"),
        (-12.0, "warning", "this clock is 12 s behind that of x, and tokens live by both"),
        (31.0, "error", "this clock is 31 s ahead of that of x, and tokens live by both"),
        (None, "warning", "x does not tell the time"),
    ],
)
def test_clock_that_is_off_is_told(apart: float | None, severity: str | None, said: str) -> None:
    """Past what tokens are given, calls are denied that should not be, or the other way round."""
    assert answers([of_clock("x", apart, LIMITS)])["clock-apart"] == (severity, said)


def test_answers_are_told_by_area_and_the_bad_ones_first() -> None:
    """Whoever reads the first lines has read what matters in each area."""
    told = [
        good(Area.EVIDENCE, "no-exporter", "e"),
        doubtful(Area.IDENTITY, "weak-grade", "b"),
        good(Area.IDENTITY, "shared-identity", "c"),
        bad(Area.IDENTITY, "shared-principal", "a"),
        good(Area.POLICY, "unowned-agent", "d"),
    ]

    assert "".join(one.what for one in in_order(told)) == "abcde"
    assert [one.fails for one in in_order(told)] == [True, True, False, False, False]


def test_every_control_that_a_finding_touches_is_one_of_the_lists() -> None:
    """And every answer has one at least: else it is nobody's business."""
    known = {*AGENTIC, *IDENTITIES, *TENETS}

    assert all(controls and known >= {*controls} for controls in CONTROLS.values())
    assert good(Area.EVIDENCE, "no-exporter", "").controls == ("ASI08", "800-207 tenet 7")
