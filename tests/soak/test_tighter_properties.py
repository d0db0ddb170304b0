"""What a tighter folder permits, the folder permitted before; and what was allowed stays allowed."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from agentguard.analysis.history.tighter import tighter_of
from agentguard.analysis.history.unused import usage_of
from agentguard.errors import PolicyError
from agentguard.model import AccessRequest
from agentguard.policy.deciding.engine import decide
from tests.analysis.kept import kept, workspace
from tests.policy.deciding.test_engine_properties import World, worlds


def plain(request: AccessRequest) -> AccessRequest:
    """Return a request to read the record that its argument names."""
    if request.action != "read":
        return request
    return replace(request, context={**request.context, "input": {"id": request.resource.id}})


@given(
    first=worlds(deep=True),
    others=st.lists(worlds(deep=True), min_size=1, max_size=8),
    inputs=st.sets(st.sampled_from(["text", "rows"])),
)
@settings(max_examples=1_500, deadline=None)
def test_nothing_wider_is_proposed_and_nothing_used_is_lost(
    first: World, others: list[World], inputs: set[str]
) -> None:
    """Half of the calls are on record; the proposal is asked about all of them."""
    folder = workspace(*first.policies, loaders=("Record", "User"))
    requests = [plain(world.request) for world in (first, *others)]
    decided = [decide(request, folder.policies) for request in requests]
    seen = len(requests) // 2 + 1
    records = [
        kept(request, decision, inputs=inputs if request.action == "search" else ())
        for request, decision in zip(requests[:seen], decided[:seen], strict=True)
    ]
    usage = usage_of(records, folder)
    try:
        found = tighter_of(usage)
    except PolicyError as error:
        assert "no call took any permit" in str(error)  # noqa: PT017  which worlds get further is left to chance
        assert set(usage.unused) == set(usage.permits)
        return

    assert not found.lost
    for place, (request, before) in enumerate(zip(requests, decided, strict=True)):
        after = decide(request, found.workspace.policies)
        assert before.allowed or not after.allowed
        assert place >= seen or after.allowed == before.allowed
