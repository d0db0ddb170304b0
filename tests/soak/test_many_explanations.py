"""Explanations of thousands of random requests: each names what the engine names, and each suggestion helps."""

from collections import Counter

from hypothesis import HealthCheck, given, settings

from tests.analysis.explaining import check
from tests.policy.deciding.test_engine_properties import World, worlds

SEEN: Counter[str] = Counter()


@settings(deadline=None, max_examples=4_000, suppress_health_check=[HealthCheck.too_slow])
@given(worlds(deep=True))
def test_every_explanation_is_true(world: World) -> None:
    """The named policies are the engine's; what is suggested flips the decision, and nothing less does."""
    found = check(world)

    SEEN[found.verdict.reason.value] += 1
    SEEN["suggested"] += bool(found.suggestions)


def test_many_denials_have_a_suggestion() -> None:
    """Else the property would hold of little."""
    denied = SEEN["policy"] + SEEN["no_permit"] + SEEN["grant"]

    assert SEEN["suggested"] > denied / 4
