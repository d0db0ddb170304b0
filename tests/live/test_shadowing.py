"""A second set of policies that is judged in the shadow: it says where it differs, and changes nothing."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mcp import Client

from agentguard import Entity, PolicyError, UnsafeMemoryState
from agentguard.errors import Refusal
from agentguard.evidence.kept import kept_of
from agentguard.evidence.record import decision_attributes
from agentguard.evidence.showing import by, row_of, verdict
from agentguard.evidence.trail import Trace
from agentguard.live import compiling, shadowing
from agentguard.live.shadowing import Shadowing
from agentguard.model import Decision, Effect, Reason
from agentguard.policy.files.source import compile_policies
from tests.live.test_reloading import Full, files, late
from tests.publishing import lock, move, put
from tests.world import POLICIES, TYPES, World, connected, make_world, meta, text

NEXT = POLICIES.replace("500", "50").replace('"row-limit"', '"smaller-limit"')
ALL = '@id("all") permit (principal, action, resource);'
ASKS = (
    '@id("asks") @obligation("approval") forbid (principal, action == Action::"export", resource) '
    "unless { context has approval };"
)


def world_of(folder: Path, theirs: str, *, ours: str = POLICIES, types: str = TYPES, **options: Any) -> World:
    """Return a world with other policies in the shadow."""
    shadow = put(folder / "shadow", {**files(theirs), "types/records.cedarschema": types})
    return make_world(folder / "policies", policies=ours, types=types, shadow=shadow, **options)


async def export(world: World, *numbers: int) -> list[Any]:
    """Export so many rows, each in turn."""
    async with connected(world, "memory", "2026-07-28") as client:
        return [await client.call_tool("export", {"max_rows": number}) for number in numbers]


async def test_difference_is_recorded_beside_the_decision_and_shows_in_its_span(tmp_path: Path) -> None:
    """With what would have been decided, why, by which policies and which version of them."""
    world = world_of(tmp_path, NEXT)

    results = await export(world, 10, 100, 600)

    assert [result.is_error for result in results] == [False, False, True]
    (found,) = world.records("shadow")
    decisions = world.records()
    assert found["agentguard.decision.id"] == decisions[1]["agentguard.decision.id"]
    assert found["agentguard.decision.effect"] == "allow"
    assert found["agentguard.shadow.effect"] == "deny"
    assert found["agentguard.shadow.reason"] == "policy"
    assert found["agentguard.shadow.policy.ids"] == ["smaller-limit"]
    assert found["agentguard.agent.id"] == "reader"
    assert found["gen_ai.tool.name"] == "export"
    (start,) = world.records("start")
    assert start["agentguard.shadow.policy.version"] == found["agentguard.shadow.policy.version"]
    assert found["agentguard.policy.version"] == start["agentguard.policy.version"]
    spans = [span for span in world.exporter.get_finished_spans() if span.name == "agentguard.authorize export"]
    shown = [dict(span.attributes or {}).get("agentguard.shadow.effect") for span in spans]
    assert shown == [None, "deny", None]


async def test_difference_is_a_line_of_the_evidence(tmp_path: Path) -> None:
    """What would have been, by what, and in place of what."""
    world = world_of(tmp_path, ALL.replace("(principal", '(principal in Agent::"other"'))
    await export(world, 10)
    (record,) = [kept_of(entry) for entry in world.state.ledger if entry.record["kind"] == "shadow"]  # type: ignore[attr-defined]

    assert (verdict(record), by(record)) == ("shadow", "deny: no_permit, not allow")
    row = row_of(record)
    assert (row["shadow_effect"], row["shadow_reason"], row["effect"]) == ("deny", "no_permit", "allow")


async def test_denial_that_would_be_an_allow_is_recorded(tmp_path: Path) -> None:
    """Of what was judged: nothing more is loaded for it."""
    world = world_of(tmp_path, ALL)

    results = await export(world, 600)

    assert results[0].is_error
    (found,) = world.records("shadow")
    assert (found["agentguard.shadow.effect"], found["agentguard.shadow.policy.ids"]) == ("allow", ["all", "grant:0"])


async def test_denial_for_another_reason_is_recorded_and_by_another_policy_is_not(tmp_path: Path) -> None:
    """A policy that was renamed makes no difference to whoever calls."""
    world = world_of(tmp_path / "a", POLICIES.replace('"row-limit"', '"renamed"'))
    await export(world, 600)
    assert world.records("shadow") == []

    world = world_of(tmp_path / "b", ALL.replace("resource)", "resource) when { false }"))
    await export(world, 600)
    (found,) = world.records("shadow")
    assert (found["agentguard.shadow.effect"], found["agentguard.shadow.reason"]) == ("deny", "no_permit")
    (record,) = [kept_of(entry) for entry in world.state.ledger if entry.record["kind"] == "shadow"]  # type: ignore[attr-defined]
    assert by(record) == "deny: no_permit, not policy"


async def test_denial_before_the_arguments_is_compared_too(tmp_path: Path) -> None:
    """It might be allowed, for all that is known then; or it is denied for something else."""
    none = '@id("none") permit (principal in Agent::"other", action, resource);'
    world = world_of(tmp_path / "a", ALL, ours=none)
    (result,) = await export(world, 10)
    assert meta(result)["reason"] == "denied"
    (found,) = world.records("shadow")
    assert found["agentguard.shadow.effect"] == "possible"
    assert "agentguard.shadow.reason" not in found
    (record,) = [kept_of(entry) for entry in world.state.ledger if entry.record["kind"] == "shadow"]  # type: ignore[attr-defined]
    assert by(record) == "possible, not deny"

    world = world_of(tmp_path / "b", none.replace("other", "another"), ours=none)
    await export(world, 10)
    assert world.records("shadow") == []

    forbid = f'{ALL} @id("never") forbid (principal, action, resource);'
    world = world_of(tmp_path / "c", forbid, ours=none)
    await export(world, 10)
    assert [one["agentguard.shadow.reason"] for one in world.records("shadow")] == ["policy"]


async def test_denial_that_no_policy_made_is_not_compared(tmp_path: Path) -> None:
    """What does not exist, exists under no policies."""
    world = world_of(tmp_path, ALL, ours=POLICIES)

    async with connected(world, "memory", "2026-07-28") as client:
        await client.call_tool("absent", {})
        await client.call_tool("export", {"max_rows": "many"})
        await client.call_tool("read", {"record_id": "nobody"})

    assert world.records("shadow") == []


async def test_person_who_would_have_to_be_asked_is_a_difference_and_one_who_is_asked_is_not(tmp_path: Path) -> None:
    """Nobody is asked for the shadow's sake."""
    asked: list[object] = []

    async def approver(request: object) -> None:
        asked.append(request)

    world = world_of(tmp_path / "a", POLICIES + ASKS, approver=approver)
    await export(world, 10)
    (found,) = world.records("shadow")
    assert (found["agentguard.shadow.effect"], found["agentguard.shadow.reason"]) == ("deny", "approval_required")
    assert asked == []

    world = world_of(tmp_path / "b", POLICIES + ASKS, ours=POLICIES + ASKS, approver=approver)
    (declined,) = await export(world, 10)
    assert meta(declined)["reason"] == "approval"
    assert world.records("shadow") == []
    assert len(asked) == 1


async def test_every_resource_of_a_call_is_compared(tmp_path: Path) -> None:
    """Each has a decision of its own."""

    def extend(world: World) -> None:
        @world.guard.entity("Page")
        async def page(name: str) -> Entity:
            return Entity({"kind": name})

        @world.server.tool()
        @world.guard.tool(resource="Page::{names[*]}")
        async def pages(names: list[str]) -> str:
            return "ran"

    types = f"{TYPES} entity Page in [Tool] = {{ kind: String }};"
    theirs = f'{ALL} @id("b") forbid (principal, action, resource is Page) when {{ resource.kind == "b" }};'
    world = world_of(tmp_path, theirs, ours=ALL, types=types, extend=extend)
    async with connected(world, "memory", "2026-07-28") as client:
        assert text(await client.call_tool("pages", {"names": ["a", "b", "c"]})) == "ran"

    assert [one["agentguard.resource.id"] for one in world.records("shadow")] == ["b"]


@pytest.mark.parametrize("text_", ["permit", POLICIES.replace("max_rows", "most_rows")], ids=["broken", "misfit"])
def test_shadow_that_cannot_judge_is_refused_at_the_start(text_: str, tmp_path: Path) -> None:
    """With the fix, as policies are that decide."""
    with pytest.raises(PolicyError, match=r"shadow/policies\.cedar:"):
        world_of(tmp_path, text_)


async def test_shadow_reloads_with_the_policies_and_keeps_its_last_good_version(tmp_path: Path) -> None:
    """Each by its own folder; what is wrong with one does not touch the other."""
    world = world_of(tmp_path, POLICIES)
    move(tmp_path / "shadow", files(NEXT))
    taken = await world.guard.reload()
    await export(world, 100)
    move(tmp_path / "shadow", files("permit"))
    move(world.folder, files(ALL))
    refused = await world.guard.reload()
    await export(world, 100)

    assert taken.shadow is not None
    assert (taken.loaded, taken.shadow.loaded, taken.shadow.refused) == (False, True, "")
    assert refused.shadow is not None
    assert (refused.loaded, refused.shadow.loaded, refused.shadow.refused) == (True, False, "invalid")
    assert refused.shadow.version == taken.shadow.version
    changes = world.records("policy")
    assert changes[0] == {
        "agentguard.policy.version": taken.version,
        "agentguard.shadow.policy.version": taken.shadow.version,
    }
    assert changes[1]["agentguard.policy.previous"] == taken.version
    assert changes[2] == {
        "agentguard.policy.version": refused.version,
        "agentguard.shadow.policy.version": taken.shadow.version,
        "agentguard.shadow.policy.refused": "invalid",
    }
    assert [one["agentguard.policy.version"] for one in world.records("shadow")] == [taken.version, refused.version]
    assert [verdict(kept_of(entry)) for entry in world.state.ledger if entry.record["kind"] == "policy"] == [  # type: ignore[attr-defined]
        "policy",
        "policy",
        "refused",
    ]


async def test_shadow_whose_change_cannot_be_recorded_is_not_taken(tmp_path: Path) -> None:
    """What is judged by, in the shadow too, is on record."""
    state = UnsafeMemoryState()
    ledger = Full()
    object.__setattr__(state, "ledger", ledger)
    world = world_of(tmp_path, POLICIES, state=state)
    move(tmp_path / "shadow", files(NEXT))
    ledger.full = True
    done = await world.guard.reload()

    assert done.shadow is not None
    assert (done.shadow.loaded, done.shadow.refused) == (False, "unrecorded")


async def test_shadow_lies_in_the_folder_of_the_policies_and_has_a_manifest_of_its_own(tmp_path: Path) -> None:
    """`next` is not in force, so the other manifest does not list it."""
    folder = put(tmp_path / "policies", {f"next/{name}": text for name, text in files(POLICIES).items()})
    world = make_world(folder, shadow=folder / "next")
    put(folder / "next", files(NEXT))
    lock(folder)
    first = await world.guard.reload()
    lock(folder / "next")
    second = await world.guard.reload()

    assert first.shadow is not None
    assert second.shadow is not None
    assert (first.shadow.refused, second.shadow.loaded) == ("incomplete", True)
    assert await export(world, 100)
    assert len(world.records("shadow")) == 1


async def test_tool_that_comes_at_run_time_is_judged_in_the_shadow_too(tmp_path: Path) -> None:
    """Else every call of it would look like a difference."""
    world = world_of(tmp_path, ALL, ours=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        late(world, "late")
        assert text(await client.call_tool("late", {"count": 1})) == "ran"

    assert world.records("shadow") == []


async def test_tool_that_the_shadow_does_not_fit_is_learned_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is judged in the shadow until that is mended."""
    condition = 'context.input has count && context.input.count like "*"'
    counts = f'{ALL} @id("n") forbid (principal, action, resource) when {{ {condition} }};'
    world = world_of(tmp_path, counts, ours=ALL)
    async with connected(world, "memory", "2026-07-28") as client:
        late(world, "late")
        assert text(await client.call_tool("late", {"count": 1})) == "ran"
        first = await world.guard.reload()
        await world.guard.reload()

    assert first.shadow is not None
    assert (first.refused, first.shadow.refused, first.shadow.version) == ("", "invalid", "")
    (refused,) = world.records("policy")[1:]
    assert refused["agentguard.shadow.policy.refused"] == "invalid"
    assert "nothing is judged in the shadow until its policies are mended" in caplog.text
    assert world.records("shadow") == []


async def test_what_nobody_expected_of_the_shadow_keeps_no_tool_from_being_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is judged again as soon as that is possible."""
    world = world_of(tmp_path, NEXT)
    compiled = compile_policies

    def fails(source: Any, *arguments: Any, **options: Any) -> Any:
        if source.folder.endswith("shadow"):
            raise RecursionError
        return compiled(source, *arguments, **options)

    async with connected(world, "memory", "2026-07-28") as client:
        monkeypatch.setattr(compiling, "compile_policies", fails)
        late(world, "late")
        await client.call_tool("late", {"count": 1})
        monkeypatch.setattr(compiling, "compile_policies", compiled)
        done = await world.guard.reload()
        again = await world.guard.reload()

    assert world.records()[0]["agentguard.decision.reason"] == "no_permit"
    assert "until its policies are mended: RecursionError was raised" in caplog.text
    assert done.shadow is not None
    assert again.shadow is not None
    assert (done.shadow.loaded, done.shadow.refused, again.shadow.loaded) == (True, "", False)
    assert done.shadow.version


async def test_error_in_the_shadow_touches_no_call_and_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever it is; and a record that cannot be kept is one."""
    world = world_of(tmp_path, NEXT)

    def fails(*_: object) -> None:
        raise Refusal(Reason.EVIDENCE_UNAVAILABLE, "full")

    monkeypatch.setattr(Trace, "shadowed", fails)

    assert [result.is_error for result in await export(world, 100, 101)] == [False, False]
    assert caplog.text.count("a call could not be judged in the shadow, because evidence_unavailable: full") == 1


@pytest.mark.parametrize(("reason", "differs"), [(Reason.APPROVAL_INVALID, 0), (Reason.NO_PERMIT, 1)])
def test_yes_to_what_was_asked_otherwise_is_nothing_to_compare(
    reason: Reason, differs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request holds it, so the very same policies would allow that."""
    allowed = Decision(effect=Effect.ALLOW, reason=Reason.PERMIT)
    monkeypatch.setattr(shadowing, "decide", lambda *_: allowed)
    shadow = Shadowing()
    shadow.shade(SimpleNamespace(version="sha256:1"))  # type: ignore[arg-type]
    found: list[object] = []
    trace: Any = SimpleNamespace(shadowed=found.append)
    request: Any = None

    shadow.judged(trace, request, Decision(effect=Effect.DENY, reason=reason))

    assert len(found) == differs


def test_shadow_that_takes_long_rests_for_a_hundred_times_as_long(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Cedar cannot be interrupted, so what was slow once is left out for a while."""
    now = [0.0]
    judged: list[float] = []
    taking = [0.04, 0.2, 0.01]

    def slow(*_: object) -> Decision:
        judged.append(now[0])
        now[0] += taking.pop(0)
        return Decision(effect=Effect.ALLOW, reason=Reason.PERMIT)

    monkeypatch.setattr(shadowing, "decide", slow)
    shadow = Shadowing(lambda: now[0], lambda: now[0])
    policies: Any = object()
    trace: Any = None
    request: Any = None
    allowed = Decision(effect=Effect.ALLOW, reason=Reason.PERMIT)
    shadow.judged(trace, request, allowed)
    assert judged == []
    shadow.shade(policies)

    for moment in (0.0, 1.0, 2.0, 20.9, 21.0):
        now[0] = moment
        shadow.judged(trace, request, allowed)

    assert judged == [0.0, 1.0, 21.0]
    assert caplog.text.count("judging in the shadow took 200 ms, and rests for 20 s") == 1


def test_what_others_take_meanwhile_is_not_the_shadows_to_rest_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On a busy machine a thread may wait for its turn for long: the next decision is compared all the same."""
    now = [0.0]
    judged: list[float] = []

    def waiting(*_: object) -> Decision:
        judged.append(now[0])
        now[0] += 0.2
        return Decision(effect=Effect.ALLOW, reason=Reason.PERMIT)

    monkeypatch.setattr(shadowing, "decide", waiting)
    shadow = Shadowing(lambda: now[0], lambda: 0.0)
    policies: Any = object()
    trace: Any = None
    request: Any = None
    shadow.shade(policies)
    for _ in range(2):
        shadow.judged(trace, request, Decision(effect=Effect.ALLOW, reason=Reason.PERMIT))

    assert judged == [0.0, 0.2]
    assert "judging in the shadow took" not in caplog.text


async def test_caller_is_told_the_same_with_a_shadow_and_without(tmp_path: Path) -> None:
    """To the last word, but for the decision's id."""
    told: list[Any] = []
    for shadow in (None, ALL, NEXT):
        folder = tmp_path / str(len(told))
        world = make_world(folder / "policies") if shadow is None else world_of(folder, shadow)
        async with Client(world.server, mode="2026-07-28") as client:
            answers = [
                await client.call_tool(name, arguments)
                for name, arguments in (
                    ("export", {"max_rows": 10}),
                    ("export", {"max_rows": 600}),
                    ("read", {"record_id": "r9"}),
                    ("read", {"record_id": "nobody"}),
                    ("absent", {}),
                )
            ]
            listed = await client.list_tools()
        told.append(
            [(text(answer).partition("Decision ")[0], answer.is_error) for answer in answers]
            + [[tool.name for tool in listed.tools]]
        )

    assert told[0] == told[1] == told[2]


def test_decision_has_no_word_of_the_shadow() -> None:
    """What stands beside it is a record of its own."""
    found = decision_attributes(
        decision=Decision(effect=Effect.DENY, reason=Reason.POLICY),
        invocation=None,
        action="a",
        resource=None,
        now=0,
    )

    assert not any("shadow" in name for name in found)
