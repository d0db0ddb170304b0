"""Delegation only narrows: as the quick test of it, with many more chains."""

from __future__ import annotations

from typing import Any

from hypothesis import settings

from tests.lifecycle.test_delegation_properties import Wish, any_chain, check_chain


@settings(deadline=None, max_examples=200)
@any_chain
async def test_whatever_a_child_may_do_each_of_its_ancestors_may_do_in_many_chains(
    organisation: list[str], wanted: tuple[Wish, ...], asked: list[Any]
) -> None:
    """By its own token, at the same moment; and its end, its scopes and its server are no others."""
    await check_chain(organisation, wanted, asked)
