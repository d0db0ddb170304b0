"""What a record says of the request that it is about."""

from collections.abc import Iterable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from agentguard.analysis.history.replay import NoRequestError, Replayed, Setting, argument_of, replay
from agentguard.analysis.workspace import Workspace
from agentguard.evidence.kept import Kept
from agentguard.evidence.record import UNCONFIRMED, approval_attributes
from agentguard.evidence.withheld import WITHHELD
from agentguard.model import AccessRequest, Decision, Effect, EntityUid, Grade, Reason
from agentguard.policy.conversion.values import Field, datetime_json, record_of
from agentguard.policy.deciding.engine import decide
from agentguard.request import ResourceTemplate
from agentguard.testing import unsafe_invocation
from tests.analysis.kept import kept, workspace
from tests.policy.records import NOW, context, reads, searches, tool

ALL = '@id("all") permit (principal, action, resource);'
FOLDER = workspace(ALL)
BILLING = unsafe_invocation(
    "reader", run_id="run-1", user="alice", task="t-1", purpose="billing", grade=Grade.TOKEN,
    issued_at=NOW - 60, run_ends_at=NOW + 240, issuer="https://issuer.example", scopes=frozenset({"a"}),
)  # fmt: skip


def replayed(
    request: AccessRequest,
    *,
    folder: Workspace = FOLDER,
    inputs: Iterable[str] = (),
    setting: Setting | None = None,
    **options: Any,
) -> Replayed:
    """Return what is known of a request whose decision is on record."""
    record = kept(request, decide(request, folder.policies), inputs=inputs, **options)
    return replay(record, folder) if setting is None else replay(record, folder, setting=setting)


def changed(record: Kept, **attributes: object) -> Kept:
    """Return a record that says something else; None takes an attribute out."""
    named = {f"agentguard.{name.replace('__', '.')}": value for name, value in attributes.items()}
    left = {name: value for name, value in {**record.attributes, **named}.items() if value is not None}
    return replace(record, attributes=left)  # type: ignore[arg-type]


SEARCHED = kept(searches(BILLING), decide(searches(BILLING), FOLDER.policies))
READ = kept(reads(BILLING), decide(reads(BILLING), FOLDER.policies))


def test_who_called_is_on_record() -> None:
    """All that the principal has, but for its scopes and its grant."""
    run = replayed(searches(BILLING)).request.invocation

    assert (run.run_id, run.agent, run.user, run.task, run.purpose) == ("run-1", "reader", "alice", "t-1", "billing")
    assert (run.grade, run.issuer) == (Grade.TOKEN, "https://issuer.example")
    assert (run.issued_at, run.run_ends_at, run.lifetime) == (NOW - 60, NOW + 240, 300)
    assert run.scopes == frozenset()
    assert run.delegation_depth == 0


def test_who_has_no_user_has_none() -> None:
    """What the token did not say is known to be absent."""
    run = replayed(searches()).request.invocation

    assert (run.user, run.task, run.purpose) == (None, None, None)


def test_one_run_is_one_invocation() -> None:
    """What policies prepare for it is prepared once."""
    assert replayed(searches(BILLING)).request.invocation is replayed(reads(BILLING)).request.invocation


def test_what_was_called_and_when_is_on_record() -> None:
    """The action, the resource, the moment and the way by which it came."""
    found = replayed(reads(BILLING), transport="stdio")

    assert found.request.action == "read"
    assert found.request.resource == EntityUid("Record", "r1")
    assert found.request.context == {
        "now": datetime_json(NOW),
        "transport": "stdio",
        "input": {"id": "r1"},
        "run": reads().context["run"],
    }
    assert found.request.entities == ()
    assert not found.early


def test_what_is_not_on_record_is_named() -> None:
    """Arguments by name, and all that only the guard's process knew."""
    assert replayed(searches(BILLING), transport=None).unknown == {
        "Record.*",
        "context.environment",
        "context.input.price",
        "context.input.rows",
        "context.input.text",
        "context.local",
        "context.transport",
        "grant",
        "principal.scopes",
    }


def test_kept_arguments_are_known_and_so_is_that_one_is_absent() -> None:
    """As they were judged; what the call did not have is known not to be there."""
    found = replayed(searches(BILLING), inputs=["rows", "price"])

    assert found.request.context["input"] == {"rows": 1}
    assert {path for path in found.unknown if path.startswith("context.input")} == {"context.input.text"}


def test_how_the_guard_was_set_up_is_known_where_it_says_so() -> None:
    """Then ``context.local`` can be told too."""
    found = replayed(searches(BILLING), setting=Setting(environment="production", time_zone=ZoneInfo("Europe/Zurich")))

    assert found.request.context["environment"] == "production"
    assert found.request.context["local"] == {"weekday": 1, "minute": 17 * 60}
    assert not found.unknown & {"context.environment", "context.local"}


def test_delegated_run_has_ancestors_of_whom_nothing_is_known() -> None:
    """But how many they are, and the name of the last."""
    parent = unsafe_invocation("other", run_id="parent")
    root = unsafe_invocation("root", run_id="root")
    child = unsafe_invocation("reader", ancestors=(root, replace_ancestors(parent, root)), issuer="https://i.example")
    run = replayed(searches(child)).request.invocation

    assert run.delegation_depth == 2
    assert [link.run_id for link in run.ancestors] == ["?0", "parent"]
    assert "ancestors" in replayed(searches(child)).unknown


def replace_ancestors(run: Any, *above: Any) -> Any:
    """Return a run below others."""
    return unsafe_invocation(run.agent, run_id=run.run_id, ancestors=above)


def test_call_that_was_stopped_early_has_no_arguments() -> None:
    """And of a tool that acts on something, not even that is known."""
    early = replay(kept(reads(BILLING), decide(reads(BILLING), FOLDER.policies), early=True), FOLDER)

    assert early.early
    assert early.unknown >= {"resource", "context.input.id", "context.transport"}
    assert early.request.resource.type == "Record"


@pytest.mark.parametrize("stand_in", [f"hmac-sha256:{'0' * 64}", WITHHELD])
def test_what_stands_in_the_place_of_an_id_is_no_id(stand_in: str) -> None:
    """What it stands for is not known, nor is the argument that it was made of."""
    found = replay(changed(READ, resource__id=stand_in), FOLDER)

    assert found.unknown >= {"resource", "context.input.id"}
    assert found.request.context["input"] == {}


@pytest.mark.parametrize(
    ("kind", "id_", "known"),
    [(int, "12", 12), (int, "x", None), (int, "-7", -7), (Decimal, "1.0", None), (str, "12", "12")],
)
def test_id_tells_of_the_argument_that_it_was_made_of(kind: type, id_: str, known: object) -> None:
    """Where it can have been made in one way."""
    reading = tool("read", record_of({"id": Field(kind)}, where="read"), "read-only", resource="Record")
    folder = workspace(ALL, tools=(reading,))
    found = replay(changed(READ, resource__id=id_), folder)

    assert found.request.context["input"] == ({} if known is None else {"id": known})
    assert ("context.input.id" in found.unknown) is (known is None)


def test_id_of_one_of_several_does_not_tell_of_the_argument() -> None:
    """The call named others too."""
    reading = tool("read", record_of({"ids": Field(list[str])}, where="read"), "read-only", resource="Record")
    folder = workspace(ALL, tools=(reading,))
    (offer,) = [one for one in folder.written.offers if one.tool.name == "read"]
    several = replace(offer, resource=ResourceTemplate.parse("Record::{ids[*]}"))
    folder = replace(folder, written=replace(folder.written, offers=(several,)))

    assert "context.input.ids" in replay(READ, folder).unknown


def test_resource_that_the_guard_makes_is_made_again() -> None:
    """Where nobody loads it and no file lists it; what is listed is not made."""
    types = "entity Record in [Tool];"
    bare = workspace(ALL, types=types, loaders=())
    listed = workspace(
        ALL,
        types=types,
        loaders=(),
        entities='[{"uid": {"type": "Record", "id": "r1"}, "attrs": {}, "parents": []}]',
    )

    assert replay(READ, bare).request.entities == (
        {"uid": {"type": "Record", "id": "r1"}, "attrs": {}, "parents": [{"type": "Tool", "id": "read"}]},
    )
    assert replay(READ, listed).request.entities == ()


def test_facts_and_claims_are_not_on_record() -> None:
    """What a function of the arguments gave, and what an issuer's configuration maps."""
    facts = record_of({"n": Field(int)}, where="facts")
    search = replace(tool("search", record_of({}, where="search")), facts=facts)
    folder = workspace(ALL, tools=(search,), loaders=(), types="entity Other;")
    folder = replace(folder, written=replace(folder.written, claims={"team": str}))

    assert replay(SEARCHED, folder).unknown >= {"context.facts", "principal.team"}
    assert not any(path.startswith("context.input") for path in replay(SEARCHED, folder).unknown)


def approved(effect: str, approver: str | None) -> Kept:
    """Return a record of a call that a person was asked about."""
    return changed(
        replace(SEARCHED, attributes={**SEARCHED.attributes, **approval_attributes("Q", "client", approver)}),
        decision__effect=effect,
        decision__reason="permit" if effect == "allow" else "approval_declined",
    )


def test_approval_of_an_allowed_call_is_known_but_for_its_time() -> None:
    """By which way it came, and from whom where that is not private."""
    named = replay(approved("allow", "alice"), FOLDER)
    private = replay(approved("allow", f"hmac-sha256:{'0' * 64}"), FOLDER)
    nobody = replay(approved("allow", None), FOLDER)

    assert named.request.context["approval"] == {
        "channel": "client",
        "at": datetime_json(NOW),
        "approver": {"__entity": {"type": "User", "id": "alice"}},
    }
    assert "context.approval.at" in named.unknown
    assert "context.approval.approver" in private.unknown
    assert nobody.request.context["approval"] == {"channel": "client", "at": datetime_json(NOW)}
    assert "context.approval.approver" not in nobody.unknown


def test_denied_call_is_replayed_as_before_anybody_was_asked() -> None:
    """That is what other policies would judge first."""
    assert "approval" not in replay(approved("deny", "alice"), FOLDER).request.context


@pytest.mark.parametrize(
    "value",
    [
        {"__extn": {"fn": "unknown", "arg": "x"}},
        {"__entity": {"type": "User", "id": "alice"}},
        {"__expr": "true"},
        [{"__entity": {"type": "User"}}],
        1.5,
        "\ud800",
        WITHHELD,
    ],
)
def test_what_was_not_judged_is_not_believed(value: object) -> None:
    """Cedar would read it as more than a value, or not at all; or it stands in the place of a secret."""
    found = replay(replace(SEARCHED, inputs={"text": value, "rows": 1}), FOLDER)

    assert found.request.context["input"] == {"rows": 1}
    assert "context.input.text" in found.unknown


def test_argument_that_is_nested_without_an_end_is_not_believed() -> None:
    """Evidence may be forged, and a command must not end by it."""
    deep: object = 1
    for _ in range(100_000):
        deep = [deep]

    assert "context.input.text" in replay(replace(SEARCHED, inputs={"text": deep}), FOLDER).unknown


@pytest.mark.parametrize(
    ("record", "why"),
    [
        (replace(SEARCHED, kind="outcome"), "a outcome is no decision"),
        (changed(SEARCHED, decision__reason="expired"), "policies were not asked: expired"),
        (changed(SEARCHED, decision__effect="deny"), "its effect is none that its reason has"),
        (changed(SEARCHED, decision__reason="policy"), "its effect is none that its reason has"),
        (changed(SEARCHED, action__id="gone"), "the server has no `gone`"),
        (changed(SEARCHED, run__id=None), "it does not say for whom"),
        (changed(SEARCHED, agent__id=None), "it does not say for whom"),
        (changed(SEARCHED, invocation__grade="better"), "it does not say for whom"),
        (changed(SEARCHED, run__ends_at=None), "it does not say for whom"),
        (changed(SEARCHED, authority__granted=None), "it does not say for whom"),
        (changed(SEARCHED, delegation__depth=None), "it does not say for whom"),
        (changed(SEARCHED, delegation__depth=17), "it says of its run what cannot be"),
        (changed(SEARCHED, delegation__depth=-1), "it says of its run what cannot be"),
        (changed(SEARCHED, authority__granted=0.5), "it says of its run what cannot be"),
        (changed(SEARCHED, authority__granted=1e300), "it says of its run what cannot be"),
        (changed(SEARCHED, run__ends_at=2**62), "it says of its run what cannot be"),
        (changed(SEARCHED, user__id="\ud800"), "it says of its run what cannot be"),
    ],
)
def test_record_of_no_request_says_why(record: Kept, why: str) -> None:
    """No policy would have made anything else of it."""
    with pytest.raises(NoRequestError, match=why):
        replay(record, FOLDER)


def test_every_reason_that_policies_give_can_be_replayed() -> None:
    """A reason that is none of theirs is that of a call that never came to them."""
    given = [reason for reason in Reason if _is_replayed(reason)]

    assert given == [
        Reason.PERMIT, Reason.POLICY, Reason.NO_PERMIT, Reason.GRANT, Reason.POLICY_ERROR, Reason.MISSING_ENTITY,
        Reason.APPROVAL_REQUIRED, Reason.APPROVAL_DECLINED, Reason.APPROVAL_UNAVAILABLE,
    ]  # fmt: skip


def _is_replayed(reason: Reason) -> bool:
    try:
        effect = "allow" if reason is Reason.PERMIT else "deny"
        replay(changed(SEARCHED, decision__reason=reason.value, decision__effect=effect), FOLDER)
    except NoRequestError:
        return False
    return True


def test_argument_of_a_path_is_told() -> None:
    """Also where the path leads into it."""
    assert argument_of(("context", "input", "a", "b")) == "a"
    assert argument_of(("context", "input")) is None
    assert argument_of(("context", "facts", "a")) is None
    assert context(a=1)["input"] == {"a": 1}


def test_moment_is_that_of_the_judgment_and_not_of_its_record() -> None:
    """A record is made later; `context.now` and `context.local` are those that were judged."""
    judged = {"agentguard.now": NOW + 59.75}
    found = replayed(searches(), at=NOW + 300.0, more=judged, setting=Setting(time_zone=ZoneInfo("UTC")))

    assert found.request.context["now"] == datetime_json(NOW + 59.75)
    assert found.request.context["local"] == context()["local"]


@pytest.mark.parametrize(
    "more",
    [approval_attributes("Q", "client"), {"agentguard.now": -1.0}, {"agentguard.now": 1e300}],
)
def test_moment_that_is_not_said_is_not_known(more: dict[str, Any]) -> None:
    """A person may have thought it over for minutes, and evidence can be forged."""
    record = kept(searches(BILLING), decide(searches(BILLING), FOLDER.policies))
    attributes = {name: value for name, value in record.attributes.items() if name != "agentguard.now"} | more
    found = replay(replace(record, attributes=attributes), FOLDER, setting=Setting(time_zone=ZoneInfo("UTC")))

    assert found.unknown >= {"context.now", "context.local"}
    assert not found.request.context.keys() & {"now", "local"}


def test_moment_of_an_older_record_is_its_own() -> None:
    """Where nobody was asked, a call is recorded as soon as it is judged."""
    record = kept(searches(BILLING), decide(searches(BILLING), FOLDER.policies))
    attributes = {name: value for name, value in record.attributes.items() if name != "agentguard.now"}

    assert replay(replace(record, attributes=attributes), FOLDER).request.context["now"] == datetime_json(NOW)


def test_denial_without_confirmed_policies_is_no_answer_of_theirs() -> None:
    """Its reason is that of a policy that failed, and none was asked."""
    denial = Decision(effect=Effect.DENY, reason=Reason.POLICY_ERROR, errors=(UNCONFIRMED,))

    with pytest.raises(NoRequestError, match="policies were not asked: the policies in force were not confirmed"):
        replay(kept(searches(BILLING), denial), FOLDER)
