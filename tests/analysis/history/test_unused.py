"""Which permits the calls on record took, and a folder that permits no more."""

import json
from dataclasses import replace
from typing import Any

import pytest

from agentguard.analysis.history import unused as module
from agentguard.analysis.history.replay import replay
from agentguard.analysis.history.tighter import Tighter, tighter_of
from agentguard.analysis.history.unused import Usage, usage_of
from agentguard.analysis.workspace import Workspace
from agentguard.errors import PolicyError
from agentguard.evidence.kept import Kept
from agentguard.model import AccessRequest
from agentguard.policy.deciding.engine import decide
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import NOW, reads, searches

BOTH = """@id("both")
permit (principal in Agent::"a", action in [Action::"read", Action::"search"], resource)
when { principal has user };"""
WIDE = '@id("wide") permit (principal, action, resource) when { principal has purpose };'
IDLE = '// Nobody knows.\n@id("idle")\npermit (principal in Agent::"nobody", action, resource);'
NEVER = '@id("never") forbid (principal, action, resource) when { principal.grade == "shared" };'
FOLDER = workspace(BOTH, WIDE, IDLE, NEVER)
USER = unsafe_invocation("a", run_id="r1", user="alice", at=NOW)
BILLING = unsafe_invocation("b", run_id="r2", purpose="billing", at=NOW)
OTHER = {"agentguard.policy.version": "sha256:other"}


def on_record(request: AccessRequest, folder: Workspace = FOLDER, **options: Any) -> Kept:
    """Return the record of what a folder decides."""
    return kept(request, decide(request, folder.policies), **options)


def used(*records: Kept, folder: Workspace = FOLDER, **options: Any) -> Usage:
    """Return what was used of a folder."""
    return usage_of(records, folder, **options)


def proposed(*records: Kept, folder: Workspace = FOLDER) -> tuple[str, Tighter]:
    """Return the proposed policies, and the proposal."""
    found = tighter_of(used(*records, folder=folder))
    assert not found.lost
    return found.files["a.cedar"], found


def test_permits_count_the_calls_that_took_them() -> None:
    """By action, agent and purpose, with the newest; a denied call takes none."""
    usage = used(
        on_record(reads(USER), at=NOW + 5),
        on_record(reads(USER), at=NOW + 2),
        on_record(searches(BILLING), at=NOW),
        on_record(searches(unsafe_invocation("c", run_id="r3", at=NOW))),
    )

    assert (usage.decisions, usage.allowed, usage.by_others, usage.untold) == (4, 3, 0, 0)
    assert (usage.first, usage.last, usage.since) == (NOW, NOW + 5, NOW)
    both, wide = usage.permits["both"], usage.permits["wide"]
    assert (both.calls, both.last, dict(both.actions), dict(both.agents)) == (2, NOW + 5, {"read": 2}, {"a": 2})
    assert (both.purpose, wide.purpose) == ("", "billing")
    assert usage.permits["idle"].calls == 0
    assert list(usage.permits) == ["both", "wide", "idle"]
    assert usage.unused == ("idle",)
    assert usage.too_wide == ("both", "wide")
    assert usage.never("both") == ("search",)
    assert usage.never("wide") == ("read",)
    assert usage.agents == {"a": {"read": 2}, "b": {"search": 1}}
    assert sorted(map(len, usage.runs.values())) == [1, 1]


def test_purpose_is_told_if_it_is_always_the_same() -> None:
    """One call without it, and it is none."""
    wide = workspace(WIDE.replace(" when { principal has purpose }", ""))
    with_purpose, without = on_record(searches(BILLING), wide), on_record(searches(USER), wide)

    assert used(with_purpose, folder=wide).permits["wide"].purpose == "billing"
    assert used(with_purpose, without, folder=wide).permits["wide"].purpose == ""
    assert used(folder=wide).permits["wide"].purpose == ""


def test_call_of_another_version_counts_where_it_can_be_told() -> None:
    """By the policies as they are now; else by the name that its permit had, if that still lets the action pass."""
    plain = workspace(
        '@id("all") permit (principal, action == Action::"search", resource) when { context.input.rows < 5 };'
    )
    here = on_record(searches(USER, rows=1), plain, inputs=["rows"], more=OTHER)
    digest = on_record(searches(USER, rows=1), plain, more=OTHER)
    gone = replace(digest, attributes={**digest.attributes, "agentguard.policy.ids": ("gone",)})
    elsewhere = replace(digest, attributes={**digest.attributes, "agentguard.action.id": "gone"})

    usage = used(here, digest, folder=plain)
    assert (usage.by_others, usage.untold, usage.since, usage.permits["all"].calls) == (2, 0, None, 2)
    usage = used(gone, folder=plain)
    assert (usage.untold, usage.permits["all"].calls, dict(usage.permits["all"].may_have)) == (1, 0, {"search": 1})
    assert (usage.unused, usage.too_wide) == ((), ())
    usage = used(elsewhere, folder=plain)
    assert (usage.untold, usage.unused) == (1, ("all",))


def test_no_more_is_kept_than_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents, and runs, of which there may be any number."""
    monkeypatch.setattr(module, "_MOST", 2)
    monkeypatch.setattr(module, "_RUNS", 2)
    wide = workspace('@id("all") permit (principal, action, resource);')
    calls = [on_record(searches(unsafe_invocation(f"a{at}", run_id=f"r{at}", at=NOW)), wide) for at in range(3)]
    usage = used(*calls, calls[0], folder=wide)

    assert len(usage.runs) == 2
    assert usage.permits["all"].agents == {"a0": 2, "a1": 1}
    assert usage.permits["all"].many_agents
    assert "principal," in tighter_of(usage).files["a.cedar"]


def test_what_an_agent_may_do_and_never_did_is_told() -> None:
    """Of whom policies name and of whoever called; what they never may is not idle."""
    folder = workspace(BOTH, NEVER, '@id("all") permit (principal, action == Action::"search", resource);')
    usage = used(on_record(reads(USER), folder), on_record(searches(BILLING), folder), folder=folder)

    assert module.not_done(usage) == {"a": ("search",), "b": ()}


def test_proposal_leaves_out_what_nobody_used() -> None:
    """All else stays as somebody wrote it, comments and conditions among it."""
    text, found = proposed(on_record(reads(USER)), on_record(searches(BILLING)))

    assert found.removed == ("idle",)
    assert found.narrowed == ("both", "wide")
    assert (found.allowed, found.untold) == (2, 0)
    assert text.splitlines() == [
        '@id("both")',
        'permit (principal in Agent::"a", action == Action::"read", resource)',
        "when { principal has user };",
        WIDE.replace("principal, action,", 'principal in Agent::"b", action == Action::"search",'),
        "// Nobody knows.",
        "// idle: no call took it from 2025-11-24 to 2025-11-24.",
        NEVER,
    ]
    assert found.files.keys() == dict(FOLDER.source.files).keys()
    assert found.workspace.policies.policies.keys() == {"both", "wide", "never"}


def test_permit_for_everybody_is_split_by_agent() -> None:
    """Each half has a name of its own, however agents and policies are called."""
    folder = workspace(
        '@id("all") permit (principal, action == Action::"search", resource);',
        '@id("all-b-c") permit (principal in Agent::"x", action == Action::"search", resource);',
    )
    names = ("a", "b c", "b/c", '"]);', "x")
    calls = [on_record(searches(unsafe_invocation(name, run_id=f"r{name}", at=NOW)), folder) for name in names]
    text, found = proposed(*calls, folder=folder)

    assert found.narrowed == ("all",)
    assert sorted(found.workspace.policies.policies) == [
        "all-a",
        "all-agent",
        "all-b-c",
        "all-b-c-2",
        "all-b-c-3",
        "all-x",
    ]
    assert 'principal in Agent::"\\u{22}]);"' in text
    assert all(decide(searches(unsafe_invocation(name)), found.workspace.policies).allowed for name in names)
    assert not decide(searches(unsafe_invocation("b")), found.workspace.policies).allowed


def test_parts_of_a_permit_with_a_long_name_are_told_apart_by_number() -> None:
    """A name has an end, and a folder with a longer one would not load."""
    long = "l" * 128
    folder = workspace(f'@id("{long}") permit (principal, action == Action::"search", resource);')
    _, found = proposed(on_record(searches(USER), folder), on_record(searches(BILLING), folder), folder=folder)

    assert set(found.workspace.policies.policies) == {"l" * 120, f"{'l' * 120}-2"}


def test_permit_that_is_used_for_all_that_it_permits_stays() -> None:
    """Nothing is written anew that need not be."""
    folder = workspace(BOTH)
    text, found = proposed(on_record(reads(USER), folder), on_record(searches(USER), folder), folder=folder)

    assert text == BOTH
    assert (found.removed, found.narrowed) == ((), ())


def test_several_actions_stay_a_list() -> None:
    """In the order of their names."""
    folder = workspace('@id("all") permit (principal in Agent::"a", action, resource);')
    text, _ = proposed(on_record(searches(USER), folder), on_record(reads(USER), folder), folder=folder)

    assert text == '@id("all") permit (principal in Agent::"a", action, resource);'
    other = workspace('@id("all") permit (principal in Agent::"a", action in Action::"tools/call", resource);', IDLE)
    text, _ = proposed(on_record(searches(USER), other), folder=other)
    assert 'action == Action::"search"' in text


def test_permit_of_delegated_runs_keeps_its_principal() -> None:
    """Whose link it was that it matched is not on record."""
    root = unsafe_invocation("root", run_id="root", at=NOW)
    child = unsafe_invocation("a", run_id="child", ancestors=(root,), at=NOW)
    folder = workspace('@id("all") permit (principal, action, resource);')
    text, found = proposed(on_record(searches(child), folder), folder=folder)

    assert text == '@id("all") permit (principal, action == Action::"search", resource);'
    assert found.allowed == 1


def test_permit_that_may_have_been_used_is_not_taken_away() -> None:
    """An allow of another version may have been for any of its agents and actions."""
    folder = workspace(
        '@id("all") permit (principal, action, resource);',
        '@id("ask") forbid (principal, action == Action::"search", resource) when { context.input.rows > 5 };',
    )
    known = on_record(reads(USER), folder)
    untold = on_record(searches(BILLING), folder, more={**OTHER, "agentguard.policy.ids": ("gone",)})
    text, found = proposed(known, untold, folder=folder)

    assert "permit (principal, action, resource);" in text
    assert (found.allowed, found.untold) == (1, 1)


def test_policies_that_other_servers_have_too_stay() -> None:
    """This evidence says nothing of those."""
    (shared,) = workspace(BOTH).source.policies
    folder = workspace(BOTH)
    source = replace(
        folder.source,
        files=(("common/a.cedar", BOTH), *folder.source.files[1:]),
        policies=(replace(shared, file="common/a.cedar"),),
    )
    folder = replace(folder, source=source).with_policies(source.policies)
    usage = used(on_record(reads(USER), folder), folder=folder)
    found = tighter_of(usage)

    assert usage.shared == {"both"}
    assert found.files["common/a.cedar"] == BOTH
    assert (found.removed, found.narrowed) == ((), ())


def test_agent_that_nobody_lists_is_named_where_a_loader_knows_it() -> None:
    """Policies take such a head, as they take those of the agents that are listed."""
    every = '@id("all") permit (principal, action, resource);'
    folder = workspace(
        every,
        '@id("out") forbid (principal in Group::"out", action, resource);',
        entities='[{"uid": {"type": "Group", "id": "out"}, "attrs": {}, "parents": []}]',
        loaders=("Record", "Agent", "User"),
    )
    allowed = decide(searches(USER), workspace(every).policies)
    text, found = proposed(
        kept(searches(USER), allowed, more={"agentguard.policy.version": folder.policies.version}), folder=folder
    )

    assert text.splitlines()[0] == (
        '@id("all") permit (principal in Agent::"a", action == Action::"search", resource);'
    )
    assert found.narrowed == ("all",)


def test_agent_that_is_listed_no_more_is_not_named() -> None:
    """Another version allowed it, and this one denies it everything; a head with its name would be refused."""
    both = [{"uid": {"type": "Agent", "id": name}, "attrs": {}, "parents": []} for name in "ab"]
    out = '@id("out") forbid (principal in Group::"out", action, resource);'
    group: dict[str, object] = {"uid": {"type": "Group", "id": "out"}, "attrs": {}, "parents": []}
    every = '@id("all") permit (principal, action, resource);'
    before, now = (workspace(every, out, entities=json.dumps([*agents, group])) for agents in (both, both[1:]))
    gone = on_record(searches(unsafe_invocation("a", run_id="r3", at=NOW)), before)

    assert proposed(gone, on_record(searches(BILLING), now), folder=now)[0].splitlines()[0] == (
        '@id("all") permit (principal in Agent::"b", action == Action::"search", resource);'
    )
    assert proposed(gone, folder=now)[0].splitlines()[0] == (
        '@id("all") permit (principal, action == Action::"search", resource);'
    )


def test_proposal_that_the_server_does_not_take_is_none() -> None:
    """As where the folder itself has changed on the way."""
    usage = used(on_record(reads(USER)))
    broken = replace(FOLDER.source, files=(("a.cedar", "permit"), *FOLDER.source.files[1:]))

    with pytest.raises(PolicyError):
        tighter_of(replace_workspace(usage, replace(FOLDER, source=broken)))


def replace_workspace(usage: Usage, folder: Workspace) -> Usage:
    """Return what was used, of another folder."""
    return replace(usage, workspace=folder)


def test_folder_that_would_permit_nothing_is_none() -> None:
    """Nobody can begin a server with it."""
    folder = workspace(BOTH, NEVER)
    denied = on_record(searches(unsafe_invocation("c", run_id="r3", at=NOW)), folder)

    with pytest.raises(PolicyError, match="without one a folder allows nothing"):
        tighter_of(used(denied, folder=folder))


def test_call_that_the_proposal_would_lose_is_named() -> None:
    """A mistake of ours must not take away what somebody needs."""
    usage = used(on_record(reads(USER)), on_record(searches(BILLING)))
    hidden = replace(usage, permits={**usage.permits, "both": module.Use()})

    assert tighter_of(hidden).lost == ("D1",)


def test_record_that_does_not_fit_is_tried_on_nothing() -> None:
    """What the folder's own policies cannot have allowed says nothing of others."""
    nobody = unsafe_invocation("c", run_id="r3", at=NOW)
    denied = on_record(searches(nobody), workspace('@id("all") permit (principal, action, resource);'), more=OTHER)
    usage = replace(used(on_record(reads(USER))), examples=[replay(denied, FOLDER)])

    assert tighter_of(usage).untold == 1


def test_permit_that_may_have_another_name_by_now_is_not_said_to_be_unused() -> None:
    """Two permits let the call pass, and one of them was renamed; what cannot have matched is unused all the same."""
    other = '@id("new") permit (principal, action == Action::"search", resource) when { context.input.rows < 5 };'
    folder = workspace(WIDE, other, IDLE)
    record = on_record(searches(BILLING, rows=1), folder, more={**OTHER, "agentguard.policy.ids": ("old", "wide")})
    limited = workspace(
        WIDE,
        other,
        IDLE,
        '@id("x") forbid (principal, action, resource) when { principal.scopes.contains("x") };',
    )
    usage = used(record, record, folder=limited)

    assert (usage.permits["wide"].calls, dict(usage.permits["new"].may_have)) == (2, {"search": 2})
    assert usage.unused == ("idle",)


def test_permit_that_may_fail_is_left_alone() -> None:
    """Where it fails the call is denied: without it, more would be permitted."""
    failing = f"""@id("failing") permit (principal, action == Action::"search", resource)
    when {{ context.input.rows + {2**63 - 1} < 0 }};"""
    folder = workspace(BOTH, failing)
    text, found = proposed(on_record(searches(USER, rows=-1), folder), folder=folder)

    assert failing in text
    assert (found.removed, found.narrowed) == ((), ("both",))
    assert not decide(searches(USER, rows=1), found.workspace.policies).allowed
