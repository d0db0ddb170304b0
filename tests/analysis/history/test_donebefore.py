"""What a run had done before a call, as its record says it, and what other policies make of that."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import pytest

from agentguard.analysis.history.hindsight import Answer, Hindsight
from agentguard.analysis.history.remembered import Remembered
from agentguard.analysis.history.replay import Replayed, replay
from agentguard.analysis.supposed import judge, requests_of
from agentguard.analysis.supposedcall import Identity, SupposedCall
from agentguard.analysis.workspace import Workspace
from agentguard.evidence.kept import Kept
from agentguard.lifecycle.tally import Tally
from tests.analysis.clinic import NOW
from tests.analysis.kept import kept
from tests.analysis.spending import POLICIES, decimal, payment, spending

STATE: Final = "agentguard.run_state"
BUSY: Final = Tally(
    calls=7,
    denied=2,
    tools={"": 3},
    labels=frozenset({"untrusted", "seen"}),
    spent={"payments": 4_600_000},
    shared=True,
    started_at=NOW - 60,
)
TIGHTER: Final = POLICIES.replace("calls >= 10", "calls >= 5")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return the server that pays."""
    return spending(tmp_path_factory.mktemp("inbox"))


@pytest.fixture(scope="module")
def tighter(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Return it with a lower limit."""
    return spending(tmp_path_factory.mktemp("tighter"), TIGHTER)


def on_record(call: SupposedCall, folder: Workspace, **state: Any) -> Kept:
    """Return the record of a call, which says something else of its run; None takes that out."""
    (request,) = requests_of(folder, call)
    record = kept(request, judge([request], folder.policies).decisions[0])
    named = {f"{STATE}.{name}": value for name, value in state.items()}
    left = {name: value for name, value in {**record.attributes, **named}.items() if value is not None}
    return replace(record, attributes=left)


def done(replayed: Replayed) -> tuple[object, list[str]]:
    """Return what is known of a run, and what is not."""
    unknown = sorted(path for path in replayed.unknown if path.startswith("context.run"))
    return replayed.request.context.get("run"), unknown


def test_what_a_run_had_done_is_on_record(workspace: Workspace) -> None:
    """All of it, as it was judged."""
    call = payment("1.0000", run=BUSY)
    (request,) = requests_of(workspace, call)

    assert done(replay(on_record(call, workspace), workspace)) == (request.context["run"], [])


def test_run_that_had_done_nothing_is_known_to_have_done_nothing(workspace: Workspace) -> None:
    """What is not there is not written down."""
    run, unknown = done(replay(on_record(payment("1.0000"), workspace), workspace))

    assert isinstance(run, dict)
    assert (run["labels"], run["spent"]) == ([], {"paper": decimal("0.0000"), "payments": decimal("1.0000")})
    assert unknown == []


def test_record_that_says_nothing_of_it_leaves_it_open(workspace: Workspace) -> None:
    """As one of an earlier version."""
    assert done(replay(on_record(payment("1.0000"), workspace, started_at=None), workspace)) == (None, ["context.run"])
    forged = on_record(payment("1.0000"), workspace, started_at="tomorrow")
    assert done(replay(forged, workspace)) == (None, ["context.run"])


def test_what_cannot_be_is_not_believed(workspace: Workspace) -> None:
    """Evidence can be forged; of the rest, what it says is taken."""
    forged = on_record(
        payment("1.0000"),
        workspace,
        calls=-1,
        denied="x",
        shared=1,
        spent=("payments=1.0", "paper=3.0000", "paper", "other=1.0000"),
        labels="untrusted",
    )
    run, unknown = done(replay(forged, workspace))

    assert isinstance(run, dict)
    assert {name: run[name] for name in sorted(run) if name != "started_at"} == {
        "calls_of_this_tool": 0,
        "spent": {"paper": decimal("3.0000")},
    }
    assert unknown == [
        "context.run.calls",
        "context.run.denied",
        "context.run.labels",
        "context.run.shared",
        "context.run.spent.payments",
    ]
    assert done(replay(on_record(payment("1.0000"), workspace, spent="payments=1.0000"), workspace))[1] == [
        "context.run.spent.paper",
        "context.run.spent.payments",
    ]


def test_label_that_no_run_carries_is_not_believed(workspace: Workspace) -> None:
    """Nor are those beside it."""
    for forged in (("untrusted", 1), ("not a label",), "untrusted"):
        assert done(replay(on_record(payment("1.0000"), workspace, labels=forged), workspace))[1] == [
            "context.run.labels"
        ]


def answer(call: SupposedCall, old: Workspace, new: Workspace, **state: Any) -> Answer:
    """Return what new policies say of a call that old ones decided."""
    return Hindsight(old, new).answer(replay(on_record(call, old, **state), old))


def test_other_limit_is_told_by_what_the_run_had_done(workspace: Workspace, tighter: Workspace) -> None:
    """Before the call, as on record."""
    read = SupposedCall(identity=Identity(agent="clerk"), action="read_mail", input={"count": 1}, now=NOW)

    def reads(calls: int) -> SupposedCall:
        return replace(read, identity=Identity(agent="clerk", run=Tally(calls=calls)))

    assert answer(reads(4), workspace, tighter).effect == "allow"
    assert answer(reads(5), workspace, tighter).policy_ids == ("cap",)
    assert answer(reads(10), workspace, tighter).policy_ids == ("cap",)
    open_ = answer(reads(4), workspace, tighter, calls=None)
    assert (open_.effect, set(open_.doubts)) == (None, {("context", "run", "calls")})


def boss(**done: Any) -> Identity:
    """Return who delegates, with what its run has done."""
    return Identity(agent="clerk", grant="permit (principal, action, resource);", run=Tally(**done))


def test_what_runs_above_had_done_is_on_record(workspace: Workspace, tighter: Workspace) -> None:
    """Those that delegated may have done more."""
    few, some = (payment("1.0000", ancestors=(boss(calls=calls),)) for calls in (4, 5))

    assert answer(few, workspace, tighter).effect == "allow"
    assert answer(some, workspace, tighter).policy_ids == ("cap",)
    denied = answer(payment("1.0000", ancestors=(boss(),), run=Tally(calls=5)), workspace, tighter)
    assert (denied.effect, denied.policy_ids) == ("deny", ("cap",))


def state(**other: object) -> str:
    """Return what is kept of a run above, which says something else; None takes that out."""
    done: dict[str, object] = {
        "calls": 1,
        "calls_of_this_tool": 0,
        "denied": 0,
        "labels": [],
        "spent": {"paper": "0.0000", "payments": "1.0000"},
        "shared": False,
        "started_at": "2026-11-24T09:00:00.000Z",
    }
    return json.dumps([{name: value for name, value in {**done, **other}.items() if value is not None}])


@pytest.mark.parametrize(
    "above",
    [
        None,
        "",
        "[",
        "[" * 100_000,
        "[1]",
        "[{}]",
        "{}",
        "[]",
        json.dumps(json.loads(state()) * 2),
        state(started_at="tomorrow"),
        state(calls=-1),
        state(calls="1"),
        state(calls=True),
        state(calls=2**63),
        state(calls=None),
    ],
)
def test_runs_above_of_which_the_record_says_nothing_possible_are_open(
    workspace: Workspace, tighter: Workspace, above: str | None
) -> None:
    """As one of an earlier version; and evidence can be forged."""
    call = payment("1.0000", ancestors=(boss(),))

    found = answer(call, workspace, tighter, above=above)
    assert (found.effect, set(found.doubts)) == (None, {("ancestors",)})
    assert answer(call, workspace, tighter, above=state()).effect == "allow"


@pytest.mark.parametrize(
    "above", [state(spent=None), state(spent={"payments": "1"}), state(spent={"payments": 1}), state(spent=[])]
)
def test_sum_that_a_run_above_cannot_have_spent_is_not_believed(
    workspace: Workspace, tmp_path: Path, above: str
) -> None:
    """It is the run's own that is on record."""
    lower = spending(tmp_path, POLICIES.replace('"500.0"', '"5.0"'))
    call = payment("1.0000", ancestors=(boss(),))

    assert answer(call, workspace, lower).effect == "allow"
    assert set(answer(call, workspace, lower, above=above).doubts) == {("ancestors",)}


def test_call_that_a_run_above_stopped_is_told_of_by_its_link(workspace: Workspace, tmp_path: Path) -> None:
    """The run itself had spent next to nothing, and policies without that limit would have let it pass."""
    unlimited = spending(tmp_path, POLICIES.replace('"500.0"', '"5000.0"'))
    call = payment("100.0000", ancestors=(boss(spent={"payments": 4_600_000}),))
    record = on_record(call, workspace)

    assert record.attributes["agentguard.decision.link"] == 0
    assert answer(call, workspace, workspace).policy_ids == ("budget",)
    assert answer(call, workspace, unlimited).effect == "allow"
    assert answer(call, workspace, unlimited, above=None).effect is None


@pytest.mark.parametrize("link", [None, 2, -1, True, "0"])
def test_link_that_is_none_of_the_chain_is_not_known(workspace: Workspace, link: Any) -> None:
    """Nothing is said of what policies came to at any."""
    record = on_record(payment("100.0000", ancestors=(boss(spent={"payments": 4_600_000}),)), workspace)
    attributes = {**record.attributes, "agentguard.decision.link": link}

    assert replay(replace(record, attributes=attributes), workspace).link is None
    assert replay(record, workspace).link == 0


def test_calls_under_runs_that_had_done_different_things_are_different(
    workspace: Workspace, tighter: Workspace
) -> None:
    """As far as a policy looks at it."""
    remembered = Remembered(Hindsight(workspace, tighter), keep=9)
    for done in (boss(calls=1), boss(calls=2), boss(calls=2, denied=1)):
        remembered.answer(replay(on_record(payment("1.0000", ancestors=(done,)), workspace), workspace))

    assert len(remembered.examples) == 2


def test_what_no_policy_looks_at_is_no_other_call(workspace: Workspace, tighter: Workspace) -> None:
    """Calls that differ in that alone have one answer."""
    remembered = Remembered(Hindsight(workspace, tighter), keep=9)
    for denied, calls in ((0, 1), (1, 1), (2, 1), (0, 2)):
        call = payment("1.0000", run=Tally(denied=denied, calls=calls))
        remembered.answer(replay(on_record(call, workspace), workspace))

    assert len(remembered.examples) == 2


def test_all_that_a_run_has_done_may_be_looked_at(tmp_path: Path) -> None:
    """Then each is another call."""
    policies = """@id("works") permit (principal, action, resource) when { context.run has calls };
    @id("odd") forbid (principal, action, resource) when { context.run == context.run && context.run.shared };"""
    whole = spending(tmp_path, policies)
    remembered = Remembered(Hindsight(whole, whole), keep=9)
    for denied in (0, 1):
        remembered.answer(replay(on_record(payment("1.0000", run=Tally(denied=denied)), whole), whole))

    assert len(remembered.examples) == 2
