"""Lists of many random worlds: whether anything that would be allowed is ever hidden."""

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.policy.deciding.test_listing_properties import (
    World,
    check_that_hidden_is_denied,
    check_that_one_answer_fits,
    worlds,
)


@settings(deadline=None, max_examples=3_000)
@given(worlds(), st.data())
def test_what_is_not_shown_is_denied_for_every_argument_tried(world: World, data: st.DataObject) -> None:
    """As in the quick test, and for longer."""
    check_that_hidden_is_denied(world, data)


@settings(deadline=None, max_examples=3_000)
@given(worlds())
def test_what_is_shown_is_what_the_preflight_lets_pass(world: World) -> None:
    """As in the quick test, and for longer."""
    check_that_one_answer_fits(world)
